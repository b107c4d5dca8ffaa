"""A dump of aion's own state: its database, its configuration and, encrypted, its credentials.

It takes the place of `dump` in a run; numbering, copies, checks and expiry are those of any dump.
The archive is a tar within zstd, within age where there is a recipient. Credentials are put into
it only then. What is in it is written down first, in `index.json`; `unpack` is the other end.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import zstandard

from jobs.backup.codec import Coded
from jobs.backup.dump import fingerprint, kinds, publish, reread
from jobs.backup.errors import NoRoom, NotComplete, Replaced, SourceFailed
from jobs.backup.form import DumpId, Itself, Manifest, Plan, Sealed, State, Table
from jobs.backup.pipeline import check_room
from jobs.backup.ports import Clock, Tell, nobody
from jobs.backup.sealing import seal
from jobs.backup.stores.base import CHUNK, digests, hash_file
from jobs.backup.stores.landing import landing
from orchestrator import __version__
from orchestrator.core.records import era
from orchestrator.edge import sqlite

INDEX: Final = "index.json"
CONFIG: Final = "aion.toml"
DATABASE: Final = "aion.db"
TOKEN: Final = "admin_token"  # noqa: S105 - a file's name, not what it holds
CREDENTIALS: Final = "credentials"
LARGEST_TEXT: Final = 4_000_000
_LEVEL: Final = 3
_BLOCK: Final = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Part(Coded):
    """One file of an archive."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Index(Coded):
    """What an archive of aion's state holds, in its order, and by which aion it was made."""

    aion: str
    state: State
    parts: tuple[Part, ...]


def make(
    plan: Plan, dump: DumpId, previous: Manifest | None, *, clock: Clock, tell: Tell = nobody
) -> Manifest:
    """Dump aion's own state as `dump`; return what is now in the spool under `dumps`.

    `previous`: the last good one, by which this one is judged. The daemon may write meanwhile.
    Raises `SourceFailed`, `Replaced`, `NotComplete`, `NoRoom`, `WrongKey`; then nothing of it is
    left.
    """
    assert plan.itself is not None
    work = Path(plan.spool) / "work" / str(dump)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, mode=0o700)
    try:
        began = clock.steady()
        tell("dump", 0, 0)
        copied = copy_database(Path(plan.itself.database), work / DATABASE, plan)
        held = look(copied)
        state = replace(held.state, instance=plan.itself.instance or held.state.instance)
        _refuse_replaced(state, previous)
        texts = _texts(plan.itself, sealed=plan.encrypt is not None)
        manifest = _packed(plan, dump, state, texts, copied, work)
        copied.unlink()
        manifest = replace(
            manifest,
            created_at=datetime.fromtimestamp(clock.wall(), UTC),
            tables=held.tables,
            suspicious=_suspicion(manifest, previous, plan.limits.shrink),
        )
        reread(work / manifest.archive, manifest, tell)
        took = {"dump_s": round(clock.steady() - began, 3)}
        manifest = replace(manifest, timings=took)
        publish(work, Path(plan.spool) / "dumps" / str(dump), manifest)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


# ── the database ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Held:
    """What a database of aion's says of itself. `paused`: by whom, "" if it is not."""

    state: State
    tables: tuple[Table, ...]
    paused: str = ""


def copy_database(source: Path, to: Path, plan: Plan) -> Path:
    """Copy a database that may be written to meanwhile; the copy is of one moment.

    Raises `SourceFailed`, `NoRoom`.
    """
    if not source.is_file():
        raise SourceFailed(f"there is no database of aion's at {source}: it has never served here")
    check_room(to.parent, 2 * source.stat().st_size + plan.limits.min_free_bytes)
    try:
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as database:
            sqlite.copy(database, to)
    except (sqlite3.Error, OSError) as error:
        if sqlite.is_full(error):
            raise NoRoom(f"{to.parent}: no room for a copy of the database") from None
        raise SourceFailed(f"aion's own database cannot be copied: {_line(error)}") from None
    return to


def look(path: Path) -> Held:
    """Read a copy through and say what it is of. Raises `NotComplete` if it is not sound."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("pragma integrity_check(1)").fetchone()
            if found != ("ok",):
                raise NotComplete(f"aion's own database is damaged: {_line(str(found[0]))}")
            return _held(database)
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise NotComplete(f"that is no sound database of aion's: {_line(error)}") from None


def _held(database: sqlite3.Connection) -> Held:
    (revision,) = database.execute("select version_num from alembic_version").fetchone()
    world = database.execute(
        "select instance, epoch_floor, iif(paused_since is null, '', paused_by) from world"
    )
    instance, floor, paused = world.fetchone()
    epochs = database.execute(
        "select max(epoch) from service union all select max(wanted_epoch) from publication"
    ).fetchall()
    highest = max(int(epoch or 0) for (epoch,) in [(floor,), *epochs])
    names = database.execute("select name from sqlite_schema where type = 'table'").fetchall()
    tables = []
    for (name,) in sorted(names):
        quoted = str(name).replace('"', '""')
        (rows,) = database.execute(f'select count(*) from "{quoted}"').fetchone()  # noqa: S608 - quoted
        tables.append(Table("main", str(name), int(rows)))
    return Held(State(str(instance), str(revision), era(highest)), tuple(tables), str(paused))


def _line(error: BaseException | str) -> str:
    return " ".join(str(error).split())[:200]


# ── whether it is to be trusted ─────────────────────────────────────────────────────────────────


def _refuse_replaced(state: State, previous: Manifest | None) -> None:
    """Stop where somebody rebuilt this instance elsewhere, and that one backs up now."""
    last = previous.state if previous else None
    if previous and last and last.instance == state.instance and last.era > state.era:
        raise Replaced(
            f"{previous.id} is of another machine, on which {state.instance} was rebuilt: this one "
            "is the old one; stop aion here"
        )


def _suspicion(made: Manifest, previous: Manifest | None, shrink: float) -> str:
    if previous is None or previous.state is None or made.state is None:
        return ""
    if previous.state.instance != made.state.instance:
        return f"it is of {made.state.instance}, and {previous.id} is of {previous.state.instance}"
    # What is sealed and what is not hold different things.
    if made.size < shrink * previous.size and bool(made.encrypted) == bool(previous.encrypted):
        part = 100 * made.size / previous.size
        return f"its size is {part:.0f} % of the last one's, {previous.id}"
    return ""


# ── the archive ─────────────────────────────────────────────────────────────────────────────────


def _texts(itself: Itself, *, sealed: bool) -> dict[str, bytes]:
    """Return the small files, by their names in the archive; credentials only if `sealed`."""
    found: dict[str, bytes] = {}
    if itself.config:
        found[CONFIG] = _read(Path(itself.config))
    if sealed:
        if itself.token and Path(itself.token).exists():
            found[TOKEN] = _read(Path(itself.token))
        for name, value in sorted(itself.credentials.items()):
            found[f"{CREDENTIALS}/{name}"] = value.encode()
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise SourceFailed(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST_TEXT:
        raise SourceFailed(f"{path} is larger than {LARGEST_TEXT} bytes")
    return data


def _packed(
    plan: Plan,
    dump: DumpId,
    state: State,
    texts: Mapping[str, bytes],
    database: Path,
    work: Path,
) -> Manifest:
    """Write the archive into `work`; return a manifest of it that lacks only the circumstances."""
    count = sum(name.startswith(f"{CREDENTIALS}/") or name == TOKEN for name in texts)
    state = replace(state, credentials=count)
    parts = [Part(name, len(data), _sha256(data)) for name, data in texts.items()]
    size = database.stat().st_size
    parts.append(Part(DATABASE, size, hash_file(database, ("sha256",))["sha256"]))
    index = Index(__version__, state, tuple(parts))
    recipient = plan.encrypt.recipient if plan.encrypt else ""
    draft = Manifest(
        name=plan.name,
        id=str(dump),
        sequence=dump.sequence,
        created_at=datetime.fromtimestamp(0, UTC),
        server_version=f"SQLite {sqlite3.sqlite_version}",
        client_version=__version__,
        database=DATABASE,
        size=0,
        sha256="",
        plain_sha256="",
        compressed=f"zstd:{_LEVEL}",
        encrypted=Sealed(fingerprint(recipient)) if recipient else None,
        state=state,
    )
    with landing(work / draft.archive) as out:
        sink = _Sink(out, kinds(plan))
        proof = _Proof()
        pieces = proof.compressed(_tar(index, texts, database))
        if recipient:
            seal(_Source(pieces), sink, recipient)
        else:
            for piece in pieces:
                sink.write(piece)
    hashes = {kind: digest.hexdigest() for kind, digest in sink.digests.items()}
    return replace(
        draft,
        size=sink.size,
        sha256=hashes.pop("sha256"),
        plain_sha256=proof.finish(),
        hashes=hashes,
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _tar(index: Index, texts: Mapping[str, bytes], database: Path) -> Iterator[bytes]:
    said = json.dumps(index.to_json(), indent=1, sort_keys=True).encode()
    for name, data in {INDEX: said, **texts}.items():
        yield from _member(name, len(data), io.BytesIO(data))
    with database.open("rb") as file:
        yield from _member(DATABASE, database.stat().st_size, file)
    yield bytes(2 * _BLOCK)


def _member(name: str, size: int, file: BinaryIO) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    yield info.tobuf(tarfile.GNU_FORMAT)
    while piece := file.read(CHUNK):
        yield piece
    yield bytes(-size % _BLOCK)


@dataclass(slots=True)
class _Proof:
    """Compresses, and at the same time unpacks what came of it: both ends must be the same."""

    before: Any = field(default_factory=hashlib.sha256)
    after: Any = field(default_factory=hashlib.sha256)
    packed: Any = field(default_factory=hashlib.sha256)

    def compressed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        packer = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        for piece in self._through(pieces, packer):
            self.after.update(unpacker.decompress(piece))
            self.packed.update(piece)
            yield piece

    def _through(self, pieces: Iterator[bytes], packer: Any) -> Iterator[bytes]:
        for piece in pieces:
            self.before.update(piece)
            if packed := packer.compress(piece):
                yield packed
        yield packer.flush()

    def finish(self) -> str:
        """Return the SHA-256 of what was packed. Raises `NotComplete`."""
        if self.before.digest() != self.after.digest():
            raise NotComplete("the archive of aion's own state does not unpack to what went in")
        return str(self.packed.hexdigest())


class _Sink:
    """The file, hashed as it is written. `error`: what writing raised, which age would swallow."""

    def __init__(self, out: BinaryIO, wanted: Sequence[str]) -> None:
        self.size = 0
        self.digests = digests(wanted)
        self.error: Exception | None = None
        self._out = out

    def write(self, piece: bytes) -> int:
        try:
            for digest in self.digests.values():
                digest.update(piece)
            self._out.write(piece)
        except Exception as error:
            self.error = error
            raise
        self.size += len(piece)
        return len(piece)

    def flush(self) -> None:
        self._out.flush()


class _Source:
    """Pieces as a file that is read; `error` as in `_Sink`."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.error: Exception | None = None
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, most: int = CHUNK) -> bytes:
        try:
            while not self._left and (piece := next(self._pieces, None)) is not None:
                self._left = memoryview(piece)
        except Exception as error:
            self.error = error
            raise
        taken, self._left = self._left[:most], self._left[most:]
        return bytes(taken)
