"""Files brought to a place that keeps no folders of its own (gs://, hf://), or from one: in packs.

    packs/000000007-20261121T030000Z-0001.tar.zst[.age]     what is new in the run of that name

A pack is a tar of at most `PACK` bytes of files, or of one file that is larger. Packs are never
changed, so there is nothing to put aside; unpacked one after the other they are the newest state.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from jobs.backup import parts, snapshots
from jobs.backup.errors import Corrupt, StoreBroken
from jobs.backup.form import Access, Copy, Plan, Sync
from jobs.backup.gathering import Batch, Source, gathered
from jobs.backup.items import Item
from jobs.backup.items import pack as packed
from jobs.backup.outcome import patiently
from jobs.backup.snapshots import within
from jobs.backup.stores.base import Store, disagreement
from jobs.backup.syncs import Done, Place, chosen, guard, named

if TYPE_CHECKING:
    from jobs.backup.run import Ports

FORM: Final = "packs"
FOLDER: Final = "packs"
PACK: Final = 256 * 1024 * 1024
PIECE: Final = 1024 * 1024


@dataclass(slots=True)
class _Pack:
    """A pack being made: the items in it, and what changed under our hands."""

    items: dict[str, Item] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)


def bring(plan: Plan, one: Sync, place: Place, ports: Ports, *, accepted: bool) -> Done:
    """Bring one place up to date. Raises `StoreBroken`, `NotComplete`, `NoRoom`."""
    done = Done()
    inner = within(place.copy, FOLDER)
    before = place.last.items if place.last else {}
    with (
        gathered(plan, one, ports, before) as source,
        _opened(inner, inner.access, place, ports) as store,
    ):
        done.problems += source.problems
        found = chosen(one, source.found)
        guard(one, place.last, found, accepted=accepted)
        packs, lost = _whole(store, place)
        if lost:
            text = "not as it was left, so its files are sent anew"
            done.problems.append(f"{named(lost)}: {text}")
        items = {path: item for path, item in before.items() if path in found and item.at in packs}
        new = sorted(path for path, item in found.items() if not _known(items.get(path), item))
        name, sent = "", set[str]()
        for number, batch in enumerate(source.batches(new, PACK), 1):
            name = name or place.next_id(ports)
            made, pack = _send(
                plan, one, place, store, source, batch, f"{name}-{number:04d}", ports
            )
            items |= made.items
            packs |= pack
            sent |= made.items.keys()
            done.size += sum(item.size for item in pack.values())
            _note(made, done)
        if missing := set(new) - sent - source.vanished:
            done.problems.append(f"{len(missing)} files cannot be read: {named(missing)}")
        done.count, done.gone = len(sent), len(before.keys() - found.keys())
        if items != before or place.last is None or lost:
            used = {item.at for item in items.values()}
            kept = {pack: item for pack, item in packs.items() if pack in used}
            place.save(name or place.next_id(ports), source.url, FORM, items, kept, ports)
    _expire(one, place, ports)
    return done


def _note(made: _Pack, done: Done) -> None:
    if made.changed:
        text = f"{len(made.changed)} files changed while they were copied, and are copied next time"
        done.notes.append(f"{text}: {named(made.changed)}")


def _known(before: Item | None, now: Item) -> bool:
    """Say whether a file is as it was, by its size and times, or by the hashes of a store."""
    if before is None or before.size != now.size:
        return False
    return before.same(now) if now.digests else before.modified == now.modified


@contextmanager
def _opened(copy: Copy, access: Access, place: Place, ports: Ports) -> Iterator[Store]:
    store = ports.open_store(copy.target, access, place.private)
    try:
        yield store
    finally:
        store.close()


def _whole(store: Store, place: Place) -> tuple[dict[str, Item], set[str]]:
    """Return the packs that are there as they were left, and the names of those that are not."""
    wanted, suspects = place.last.packs if place.last else {}, place.suspects
    there = {entry.name: entry for entry in store.list()} if wanted else {}
    good = {
        name: item
        for name, item in wanted.items()
        if name in there
        and name not in suspects
        and there[name].size == item.size
        and not disagreement(there[name].hashes, item.hashes)
    }
    return good, wanted.keys() - good.keys()


def _send(
    plan: Plan,
    one: Sync,
    place: Place,
    store: Store,
    source: Source,
    batch: Batch,
    name: str,
    ports: Ports,
) -> tuple[_Pack, dict[str, Item]]:
    """Make one pack and bring it to its place. Raises `StoreBroken`."""
    made = _Pack()
    name += ".tar.zst" + (".age" if plan.encrypt else "")
    local = place.private / name
    try:
        with local.open("wb") as out:
            os.fchmod(out.fileno(), 0o600)
            written = parts.write(
                _tarred(batch, made, source, name),
                out,
                level=plan.level,
                recipient=plan.encrypt.recipient if plan.encrypt else "",
                kinds=("sha256", "md5"),
                min_free=plan.limits.min_free_bytes,
            )
        if not made.items:
            return made, {}
        step = f"sync {one.name} to {place.copy.target.url}"

        def put() -> None:
            store.put(local, name, progress=lambda got, total: ports.tell(step, got, total))
            if wrong := store.check(name, written.hashes):
                raise Corrupt(f"{name} in {store.url}: {wrong}")

        if wrong := patiently(put, plan.limits, ports.random, ports.pause):
            raise StoreBroken(wrong)
        return made, {name: Item(written.size, "", packed(written.hashes))}
    finally:
        local.unlink(missing_ok=True)


def _tarred(batch: Batch, made: _Pack, source: Source, pack: str) -> Iterator[bytes]:
    """Yield a tar of files as they are read, once; what changes meanwhile does not count."""
    held = _Held()
    with tarfile.TarFile(fileobj=cast(Any, held), mode="w", format=tarfile.PAX_FORMAT) as tar:
        base, paths = batch
        for path in paths:
            yield from _member(tar, held, path, base / path, made, source, pack)
            cast(Any, tar).members.clear()  # it would keep the headers of all, and needs none
    yield held.take()


def _member(
    tar: Any, held: _Held, path: str, local: Path, made: _Pack, source: Source, pack: str
) -> Iterator[bytes]:
    try:
        handle, info, link = _open(path, local)
    except FileNotFoundError:
        source.vanished.add(path)
        return
    except OSError:
        return  # it is told of by its absence
    found = source.found[path]
    if handle is None:
        tar.addfile(info)
        digest = hashlib.sha256(os.fsencode(link))
        made.items[path] = _item(found, digest.hexdigest(), pack)
        return
    with handle:
        tar.addfile(info)
        digest, left = hashlib.sha256(), info.size
        while left > 0 and (piece := handle.read(min(PIECE, left))):
            digest.update(piece)
            held.write(piece)
            left -= len(piece)
            yield held.take()
        held.write(b"\0" * (left + -info.size % tarfile.BLOCKSIZE))
        tar.offset += info.size + -info.size % tarfile.BLOCKSIZE
        after = os.fstat(handle.fileno())
    sha256 = digest.hexdigest()
    same = found.hashes.get("sha256", sha256) == sha256
    if left or not same or not source.unchanged(path, after):
        made.changed.add(path)
        source.vanished.add(path)
    else:
        made.items[path] = _item(found, sha256, pack)


def _item(found: Item, sha256: str, pack: str) -> Item:
    return replace(found.also(packed({"sha256": sha256})), at=pack)


def _open(path: str, local: Path) -> tuple[BinaryIO | None, tarfile.TarInfo, str]:
    """Open a file without following it, and make its header; of a link there is only that."""
    if local.is_symlink():
        info = tarfile.TarInfo(path)
        info.type, info.linkname = tarfile.SYMTYPE, str(local.readlink())
        return None, info, info.linkname
    handle = os.fdopen(os.open(local, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    found = os.fstat(handle.fileno())
    if not stat.S_ISREG(found.st_mode):
        handle.close()
        raise OSError
    info = tarfile.TarInfo(path)
    info.size, info.mtime, info.mode = found.st_size, int(found.st_mtime), found.st_mode & 0o777
    return handle, info, ""


class _Held:
    """What tarfile wrote and nobody took yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        made = b"".join(self._pieces)
        self._pieces.clear()
        return made


def _expire(one: Sync, place: Place, ports: Ports) -> None:
    """Take away snapshots beyond the newest `keep`, and packs that none of the rest needs."""
    keep = one.keep if one.versions else 1
    access = place.copy.expire or place.copy.access
    if not keep or len(place.names) <= keep or not access.can_delete:
        return
    needed = {
        pack
        for name in place.names[:keep]
        for pack in snapshots.read(place.store, name, place.private, items=False).packs
    }
    told, packs = within(place.copy, snapshots.FOLDER), within(place.copy, FOLDER)
    with _opened(told, access, place, ports) as manifests:
        for name in place.names[keep:]:
            snapshots.drop(manifests, name)
    with _opened(packs, access, place, ports) as store:
        for entry in store.list():
            if entry.name not in needed and entry.name < place.names[0]:
                store.delete(entry.name)
    del place.names[keep:]
