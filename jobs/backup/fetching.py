"""Bringing back what a sync keeps: all files as they were at one time, into an empty folder."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jobs.backup import packs, parts, snapshots
from jobs.backup.errors import BackupError, Corrupt, NotEmpty, NotFound
from jobs.backup.form import Copy, Plan, Sync
from jobs.backup.items import Item
from jobs.backup.mirror import CURRENT, LINK, VERSIONS, Tree, access_of, telling
from jobs.backup.snapshots import Snapshot, within
from jobs.backup.stores.base import CHUNK, digests, hash_file
from jobs.backup.stores.rcloning import Rclone
from jobs.backup.syncs import Place, named, opened

if TYPE_CHECKING:
    from jobs.backup.run import Ports


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was brought back. `bad`: paths that could not be, or are not what they were."""

    snapshot: str
    store: str
    files: int
    size: int
    bad: tuple[str, ...] = ()


def fetch(
    plan: Plan,
    one: Sync,
    copy: Copy,
    to: Path,
    ports: Ports,
    *,
    when: datetime | None = None,
    identity: str = "",
) -> Fetched:
    """Bring back every file of a sync from one of its places, as of `when` (None: the newest).

    Raises `NotEmpty`, `NotFound` (nothing is so old), `WrongKey`, `StoreBroken`.
    """
    if to.exists() and any(to.iterdir()):
        raise NotEmpty(f"{to} is not empty; say an empty folder, or one that is not there yet")
    with opened(plan, one, copy, ports, look=True) as place:
        name = snapshots.at(place.names, when)
        if name is None:
            oldest = place.names[-1][10:] if place.names else "nothing at all"
            raise NotFound(f"{copy.target.url} has nothing so old; its oldest is {oldest}")
        wanted = place.last if place.last and place.last.id == name else None
        wanted = wanted or snapshots.read(place.store, name, place.private)
        _harmless(wanted)
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        if wanted.form == packs.FORM:
            bad = _unpacked(wanted, place, to, ports, identity)
        else:
            bad = _mirrored(wanted, place, to, ports)
    size = sum(item.size for item in wanted.items.values())
    return Fetched(name, copy.target.url, len(wanted.items) - len(bad), size, tuple(sorted(bad)))


def _harmless(wanted: Snapshot) -> None:
    """Refuse paths that lead out of the folder, as no source has them. Raises `BackupError`."""
    links = {path.removesuffix(LINK) for path in wanted.items if path.endswith(LINK)}
    for path in wanted.items:
        parts_ = path.split("/")
        above = ("/".join(parts_[:n]) for n in range(1, len(parts_)))
        if {"", ".", ".."} & set(parts_) or "\0" in path or any(up in links for up in above):
            raise BackupError(f"{wanted.id} names a file that no folder has: {named([path])}")


# ── by names ────────────────────────────────────────────────────────────────────────────────────


def _mirrored(wanted: Snapshot, place: Place, to: Path, ports: Ports) -> set[str]:
    """Copy each file from where it is now: current, or put aside by a later run."""
    rclone = Rclone(place.copy.target.url, access_of(place.copy), place.private)
    try:
        tree, here = (
            Tree.of(place.copy, rclone, place.private),
            Tree.local(to, rclone, place.private),
        )
        where = _where(wanted, place, tree)
        total = sum(item.size for item in wanted.items.values())
        for folder in sorted({tuple(one) for one in where.values()}):
            paths = [path for path, one in where.items() if one == folder]
            here.copy(
                paths,
                tree.at(*folder),
                progress=telling(ports.tell, f"get {place.copy.target.url}"),
                total=total,
            )
        known = {kind for item in wanted.items.values() for kind in item.hashes} & set(here.kinds)
        found = here.files(missing_ok=True)
        hashes = here.hashes(found.keys() & wanted.items.keys(), known)
    finally:
        rclone.close()
    return {
        path
        for path, item in wanted.items.items()
        if not Item(found[path].size if path in found else -1, "", hashes.get(path, b"")).same(item)
    }


def _where(wanted: Snapshot, place: Place, tree: Tree) -> dict[str, tuple[str, ...]]:
    """Find out in which folder each file lies as it was."""
    newest = place.last.items if place.last else {}
    found: dict[str, tuple[str, ...]] = {
        path: (CURRENT,)
        for path, item in wanted.items.items()
        if path in newest and newest[path].same(item)
    }
    left = wanted.items.keys() - found.keys()
    if left:
        aside: dict[str, dict[str, Item]] = {}
        for path, item in tree.files(VERSIONS, missing_ok=True).items():
            run, _, inner = path.partition("/")
            if snapshots.is_id(run) and run > wanted.id:
                aside.setdefault(run, {})[inner] = item
        for run in sorted(aside):
            for path in left & aside[run].keys():
                one = aside[run][path]
                if one.size == wanted.items[path].size:
                    found.setdefault(path, (VERSIONS, run))
    return {path: found.get(path, (CURRENT,)) for path in wanted.items}


# ── by packs ────────────────────────────────────────────────────────────────────────────────────


def _unpacked(wanted: Snapshot, place: Place, to: Path, ports: Ports, identity: str) -> set[str]:
    """Download the packs that are needed, one by one, and take out what is wanted."""
    inner = within(place.copy, packs.FOLDER)
    store = ports.open_store(inner.target, inner.access, place.private)
    bad = set(wanted.items)
    try:
        for name in sorted({item.at for item in wanted.items.values()}):
            members = {path: item for path, item in wanted.items.items() if item.at == name}
            local = place.private / f"fetch-{name}"
            try:
                store.get(name, local, progress=telling(ports.tell, f"get {store.url}"))
                held = wanted.packs.get(name)
                if held is None or hash_file(local, ("sha256",))["sha256"] != held.hashes["sha256"]:
                    continue
                with parts.opened(local, identity) as file:
                    bad -= _taken(file, members, to)
            except (NotFound, Corrupt, tarfile.TarError):
                continue
            finally:
                local.unlink(missing_ok=True)
    finally:
        store.close()
    return bad


def _taken(file: Any, members: Mapping[str, Item], to: Path) -> set[str]:
    """Write the wanted members of a tar, links last; returns those that are what they were."""
    good: set[str] = set()
    links: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="r|", errors="surrogateescape") as tar:
        for member in iter(tar.next, None):
            cast(Any, tar).members.clear()  # it would keep the headers of all
            item = members.get(member.name)
            if item is None or not (member.isreg() or member.issym()):
                continue
            if member.issym():
                links[member.name] = member.linkname
                continue
            made = digests(("sha256",))["sha256"]
            path = to / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
                while piece := source.read(CHUNK):
                    made.update(piece)
                    out.write(piece)
            os.utime(path, (member.mtime, member.mtime))
            path.chmod(member.mode & 0o777)
            if made.hexdigest() == item.hashes["sha256"]:
                good.add(member.name)
    for name, target in links.items():
        made = digests(("sha256",))["sha256"]
        made.update(os.fsencode(target))
        if made.hexdigest() == members[name].hashes["sha256"]:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).symlink_to(target)
            good.add(name)
    return good
