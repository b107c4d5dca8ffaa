"""The parts of an export: files of JSON lines with a manifest each, here and in the stores.

    exports/BACKUP/EXPORT/000000007-1f0a2b3c4d5e.jsonl.zst[.age]
    exports/BACKUP/EXPORT/000000007.json                            written last

A part's file is named by its content too: what is left of another attempt is never in the way.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from jobs.backup.codec import Coded
from jobs.backup.errors import BadManifest, Corrupt, NotFound
from jobs.backup.form import MAX_MANIFEST, Sealed
from jobs.backup.pipeline import check_room
from jobs.backup.sealing import Noting, seal, unseal
from jobs.backup.stores.base import Entry, Store, digests, disagreement, hash_file
from jobs.backup.stores.landing import landing

FORMAT: Final = 1
PIECE: Final = 256 * 1024
_ROOM_EVERY: Final = 16 * 1024 * 1024
_MANIFEST: Final = re.compile(r"([0-9]{9})\.json")
_FILE: Final = re.compile(r"([0-9]{9})-[0-9a-f]{12}\.jsonl\.zst(\.age)?")
_HASH: Final = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Part(Coded):
    """One part. `key` of type `kind`: from `first` to `last`, all beyond `after` (None: the first).

    `size`, `sha256`, `hashes`: of the file as stored. `plain_size`, `plain_sha256`: of the lines.
    `before`: the SHA-256 of the part before it, "" if it is the first. `query`: its SHA-256.
    """

    backup: str
    export: str
    sequence: int
    created_at: datetime
    file: str
    rows: int
    key: str
    kind: str
    after: str | None
    first: str
    last: str
    columns: tuple[str, ...]
    size: int
    sha256: str
    plain_size: int
    plain_sha256: str
    query: str = ""
    before: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    encrypted: Sealed | None = None
    format: int = FORMAT

    @property
    def manifest(self) -> str:
        """The name of its manifest."""
        return f"{self.sequence:09d}.json"

    @property
    def known(self) -> dict[str, str]:
        """All hashes of the file as stored, by kind."""
        return {**self.hashes, "sha256": self.sha256}

    def dump(self) -> bytes:
        """Return the manifest's bytes."""
        return (json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def load(cls, data: bytes, name: str) -> Self:
        """Read the manifest that is called `name`. Raises `BadManifest`."""
        try:
            value = json.loads(data)
            if isinstance(value, dict) and value.get("format", 0) > FORMAT:
                raise BadManifest(f"{name} was written by a newer aion: use that version")
            made = cls.from_json(value, strict=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadManifest(f"{name} cannot be read: {error}") from None
        found = _FILE.fullmatch(made.file)
        if (
            found is None
            or name != made.manifest
            or int(found[1]) != made.sequence
            or min(made.size, made.rows, made.plain_size) < 0
            or not all(_HASH.fullmatch(one) for one in (*made.known.values(), made.plain_sha256))
        ):
            raise BadManifest(f"{name} contradicts itself")
        return made


@dataclass(frozen=True, slots=True)
class Held:
    """A part as a store holds it.

    `problem`: what its listing shows to be wrong, "" if nothing. `vouched`: its hash there agrees.
    """

    part: Part
    problem: str = ""
    vouched: bool = False


def folder(backup: str, export: str) -> str:
    """Return where the parts of an export are in a store, with the last slash."""
    return f"exports/{backup}/{export}/"


def local_name(backup: str, export: str, part: Part) -> tuple[str, str]:
    """Return the names of a part in a store: its file's, and its manifest's."""
    base = folder(backup, export)
    return base + part.file, base + part.manifest


def read(
    store: Store, backup: str, export: str, cache: Path | None = None
) -> tuple[dict[int, Held], list[str]]:
    """Return the parts in a store by number, and what is wrong besides. Raises `StoreBroken`.

    `cache`: a folder of ours with manifests that were read before; what the listing says of the
    one in the store has to agree with it.
    """
    base = folder(backup, export)
    entries = {one.name.removeprefix(base): one for one in store.list(base)}
    found: dict[int, Held] = {}
    problems: list[str] = []
    for name, entry in entries.items():
        if _MANIFEST.fullmatch(name) is None:
            continue
        try:
            part = Part.load(_cached(store, base + name, entry, cache), name)
        except (BadManifest, NotFound) as error:
            problems.append(str(error))
            continue
        if (part.backup, part.export) != (backup, export):
            problems.append(f"{name} is of {part.backup}/{part.export}")
            continue
        found[part.sequence] = _held(part, entries.get(part.file))
    return found, problems


def _held(part: Part, entry: Entry | None) -> Held:
    if entry is None:
        return Held(part, f"{part.file} is missing")
    if entry.size != part.size:
        return Held(part, f"{part.file} has {entry.size} bytes instead of {part.size}")
    wrong = disagreement(entry.hashes, part.known)
    return Held(part, f"{part.file}: {wrong}" if wrong else "", wrong == "")


def _cached(store: Store, name: str, entry: Entry, cache: Path | None) -> bytes:
    """Read a manifest, or what is known of it: they are many in the end, and never change."""
    known = cache / name.rpartition("/")[2] if cache else None
    if known is not None and known.exists() and known.stat().st_size == entry.size:
        made = hash_file(known, tuple(entry.hashes) or ("sha256",))
        if not disagreement(entry.hashes, made):
            return known.read_bytes()
    data = store.read(name, MAX_MANIFEST)
    if known is not None and not known.exists():
        known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with landing(known) as file:
            file.write(data)
    return data


def spooled(place: Path) -> dict[int, Part]:
    """Return the parts in a folder of this machine; what has no manifest is thrown away."""
    found: dict[int, Part] = {}
    for path in place.glob("*.json"):
        with contextlib.suppress(OSError, BadManifest):
            part = Part.load(path.read_bytes(), path.name)
            if (place / part.file).exists():
                found[part.sequence] = part
    kept = {name for part in found.values() for name in (part.file, part.manifest)}
    for path in place.glob("*"):
        if path.name not in kept and path.is_file():
            path.unlink(missing_ok=True)
    return found


# ── the bytes ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Written:
    """What went into a file, as stored and before compression."""

    size: int
    hashes: Mapping[str, str]
    plain_size: int
    plain_sha256: str


def write(
    pieces: Iterator[bytes],
    out: BinaryIO,
    *,
    level: int,
    recipient: str,
    kinds: Sequence[str],
    min_free: int,
) -> Written:
    """Compress, encrypt if there is a `recipient`, hash and write, in one pass.

    Raises `NoRoom`, `WrongKey`, and what `pieces` raises.
    """
    reader, writer = _Compressed(pieces, level), _Writer(out, kinds, min_free)
    if not recipient:
        while piece := reader.read(PIECE):
            writer.write(piece)
    else:
        seal(reader, writer, recipient)
    return Written(writer.size, writer.hashes, reader.size, reader.sha256.hexdigest())


class _Compressed:
    """Pieces, hashed and compressed as they are read."""

    def __init__(self, pieces: Iterator[bytes], level: int) -> None:
        import zstandard  # noqa: PLC0415 - only where something is exported

        compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._made = compressor.compressobj()
        self._pieces, self._ended, self._left = pieces, False, memoryview(b"")
        self.size, self.sha256 = 0, digests(("sha256",))["sha256"]
        self.error: Exception | None = None

    def read(self, most: int = PIECE) -> bytes:
        try:
            while not self._left and not self._ended:
                self._left = memoryview(self._next())
        except Exception as error:  # age wraps what its reader raises, so it is kept here
            self.error = error
            raise
        piece, self._left = self._left[:most], self._left[most:]
        return bytes(piece)

    def _next(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            return bytes(self._made.flush())
        self.size += len(piece)
        self.sha256.update(piece)
        return bytes(self._made.compress(piece))


class _Writer:
    """A file, hashed as it is written; it stops before the disk is full."""

    def __init__(self, out: BinaryIO, kinds: Sequence[str], min_free: int) -> None:
        self._out, self._min_free, self._digests = out, min_free, digests(kinds)
        self._checked = self.size = 0
        self.error: Exception | None = None

    def write(self, piece: bytes) -> int:
        try:
            if self.size >= self._checked:
                self._checked = self.size + _ROOM_EVERY
                check_room(self._out.fileno(), self._min_free)
            self._out.write(piece)
        except Exception as error:  # as in `read`
            self.error = error
            raise
        self.size += len(piece)
        for digest in self._digests.values():
            digest.update(piece)
        return len(piece)

    def flush(self) -> None:
        self._out.flush()

    @property
    def hashes(self) -> dict[str, str]:
        return {kind: digest.hexdigest() for kind, digest in self._digests.items()}


@contextlib.contextmanager
def opened(path: Path, identity: str = "") -> Iterator[BinaryIO]:
    """Open what `write` made, decrypted and decompressed. Raises `WrongKey`, `Corrupt`."""
    import zstandard  # noqa: PLC0415 - as above

    with contextlib.ExitStack() as stack:
        source: Any = stack.enter_context(path.open("rb"))
        if path.suffix == ".age":
            source = stack.enter_context(_unsealed(source, identity, path))
        made = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
        try:
            yield stack.enter_context(made)
        except zstandard.ZstdError:
            raise Corrupt(f"{path.name} cannot be decompressed") from None


@contextlib.contextmanager
def _unsealed(source: BinaryIO, identity: str, path: Path) -> Iterator[BinaryIO]:
    """Decrypt into a file beside it, which is gone afterwards: age checks each piece as it goes."""
    plain = path.with_suffix("")
    try:
        with landing(plain) as out:
            unseal(source, Noting(out), identity, path.name)
        with plain.open("rb") as file:
            yield file
    finally:
        plain.unlink(missing_ok=True)


def proved(path: Path, part: Part) -> str:
    """Read a part's file from the disk: "" if it is what its manifest says, else why not.

    What is encrypted is only hashed: the key to read it is elsewhere.
    """
    if path.stat().st_size != part.size or hash_file(path, ("sha256",))["sha256"] != part.sha256:
        return "the disk does not hold what was written to it"
    if part.encrypted is not None:
        return ""
    made, lines, size = digests(("sha256",))["sha256"], 0, 0
    try:
        with opened(path) as file:
            while piece := file.read(PIECE):
                made.update(piece)
                lines += piece.count(b"\n")
                size += len(piece)
    except Corrupt as error:
        return str(error)
    if (size, made.hexdigest()) != (part.plain_size, part.plain_sha256):
        return "decompressed, it is not what was exported"
    return "" if lines == part.rows else f"it has {lines} lines for {part.rows} rows"
