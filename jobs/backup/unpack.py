"""The other end of `itself`: an archive of aion's own state taken apart, whoever made it.

Whoever may write to a store may have put anything there. So nothing but plain files of known names
and sizes is taken, in one pass, into a folder of ours; what is not as the index says is refused
whole. The tar is read here and not by a library that would follow its other kinds of entries.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import zstandard

from jobs.backup.catalogue import Found
from jobs.backup.errors import Corrupt, NotComplete, WrongKey
from jobs.backup.form import Manifest
from jobs.backup.itself import CONFIG, CREDENTIALS, DATABASE, INDEX, LARGEST_TEXT, TOKEN, Index
from jobs.backup.pipeline import check_room
from jobs.backup.ports import Tell, nobody
from jobs.backup.sealing import Noting, unseal
from jobs.backup.stores.base import CHUNK, Store
from jobs.backup.stores.landing import landing
from jobs.backup.verify import fetch

LARGEST_DATABASE: Final = 4 << 30
"""aion's own is some megabytes, for what is old in it is let go of."""
MOST_PARTS: Final = 1000
_CREDENTIAL: Final = re.compile(rf"{CREDENTIALS}/[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
_BLOCK: Final = tarfile.BLOCKSIZE
_WINDOW: Final = 1 << 27  # of zstd: what a hostile frame may make us allocate


@contextmanager
def fetched(
    store: Store, found: Found, identity: str, private: Path, *, tell: Tell = nobody
) -> Iterator[tuple[Manifest, Path]]:
    """Download a state and yield its manifest and archive, in the clear; both go afterwards.

    `private`: a folder of ours. Raises `Corrupt`, `WrongKey`, `NoRoom`, `StoreBroken`.
    """
    manifest = found.manifest
    if manifest is None or manifest.state is None:
        raise NotComplete(f"{found.id} is no copy of aion's own state")
    if manifest.encrypted and not identity:
        raise WrongKey(
            f"{manifest.id} is encrypted for the key {manifest.encrypted.fingerprint}: give its "
            "identity (AGE-SECRET-KEY-1…) with --identity FILE"
        )
    check_room(private, 2 * manifest.size)
    with tempfile.TemporaryDirectory(dir=private, prefix="rebuild-") as folder:
        archive = fetch(store, manifest, Path(folder), tell)
        yield manifest, _clear(archive, manifest, identity) if manifest.encrypted else archive


def _clear(archive: Path, manifest: Manifest, identity: str) -> Path:
    plain = archive.with_suffix("")
    with archive.open("rb") as sealed, landing(plain) as out:
        sink = Noting(out)
        unseal(sealed, sink, identity, manifest.id)
    if sink.digest.hexdigest() != manifest.plain_sha256:
        raise Corrupt(f"{manifest.id}, decrypted, is not what was dumped")
    return plain


def unpack(archive: Path, to: Path) -> Index:
    """Write what `archive` holds into the folder `to`; return its index.

    Every file is 0600. Raises `NotComplete` for what is not as it must be, `NoRoom`; what was
    written until then is left for whoever made `to` to throw away.
    """
    (to / CREDENTIALS).mkdir(mode=0o700)
    with _opened(archive) as reader:
        index = _index(reader)
        wanted = {part.name: part for part in index.parts}
        for name, size in _members(reader):
            part = wanted.pop(name, None)
            if part is None or part.size != size:
                raise NotComplete(f"the archive holds {name}, which its index does not have so")
            if _written(reader, to / name, size) != part.sha256:
                raise NotComplete(f"{name} in the archive is not what was put into it")
        if wanted:
            raise NotComplete(f"the archive lacks {min(wanted)}")
        _drained(reader)
    return index


@contextmanager
def _opened(archive: Path) -> Iterator[Any]:
    try:
        with archive.open("rb") as file:
            unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
            with unpacker.stream_reader(file, read_size=CHUNK) as reader:
                yield reader
    except (zstandard.ZstdError, tarfile.TarError, UnicodeDecodeError):
        raise NotComplete(
            "the archive cannot be unpacked: it is damaged, or none of ours"
        ) from None


def _index(reader: Any) -> Index:
    found = next(_members(reader), None)
    if found is None or found[0] != INDEX:
        raise NotComplete(f"the archive does not begin with {INDEX}: it is none of ours")
    data = b"".join(_content(reader, found[1]))
    try:
        index = Index.from_json(json.loads(data), strict=False)
    except (ValueError, RecursionError) as error:
        raise NotComplete(f"{INDEX} in the archive cannot be read: {str(error)[:200]}") from None
    names = [part.name for part in index.parts]
    if len(names) > MOST_PARTS or len(set(names)) < len(names) or DATABASE not in names:
        raise NotComplete(f"{INDEX} in the archive cannot be right")
    return index


def _members(reader: Any) -> Iterator[tuple[str, int]]:
    """Yield the name and size of each file; its content must be read before the next is asked."""
    while any(block := _exactly(reader, _BLOCK)):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        name = info.name
        most = LARGEST_DATABASE if name == DATABASE else LARGEST_TEXT
        known = name in {INDEX, CONFIG, DATABASE, TOKEN} or _CREDENTIAL.fullmatch(name)
        if not known or info.type != tarfile.REGTYPE:
            raise NotComplete(f"the archive holds {name[:80]!r}, which is none of ours")
        if not 0 <= info.size <= most:
            raise NotComplete(f"{name} in the archive is said to have {info.size} bytes")
        yield name, info.size


def _written(reader: Any, path: Path, size: int) -> str:
    """Write a file and return its SHA-256."""
    check_room(path.parent, size)
    made = hashlib.sha256()
    with landing(path) as file:
        for piece in _content(reader, size):
            made.update(piece)
            file.write(piece)
    return made.hexdigest()


def _content(reader: Any, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = _exactly(reader, min(left, CHUNK))
        left -= len(piece)
        yield piece
    _exactly(reader, -size % _BLOCK)


def _exactly(reader: Any, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = reader.read(size - len(found))
        if not piece:
            raise NotComplete("the archive ends too early")
        found += piece
    return bytes(found)


def _drained(reader: Any) -> None:
    """Read to the end of the frame, where zstd's own checksum is; there is next to nothing."""
    left = _BLOCK
    while piece := reader.read(CHUNK):
        left -= len(piece)
        if left < 0:
            raise NotComplete("the archive goes on after its end")
