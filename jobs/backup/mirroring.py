"""Bringing a mirror up to date: what differs is copied, verified, and then said to be there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from jobs.backup import snapshots
from jobs.backup.errors import StoreBroken, StoreFullError
from jobs.backup.form import Plan, Sync
from jobs.backup.items import Item
from jobs.backup.mirror import CURRENT, LINK, UNNAMED, VERSIONS, Tree, access_of, telling
from jobs.backup.stores.rcloning import Rclone
from jobs.backup.syncs import Done, Place, excluded, guard, named

if TYPE_CHECKING:
    from jobs.backup.run import Ports

FORM: Final = "mirror"


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done. `wanted`: the source, hashed; `copy`, `gone`: paths."""

    wanted: Mapping[str, Item]
    copy: frozenset[str]
    gone: frozenset[str]
    damaged: frozenset[str]
    unread: frozenset[str]


def bring(_: Plan, one: Sync, place: Place, ports: Ports, *, accepted: bool) -> Done:
    """Bring one place up to date. Raises `StoreBroken`, `NotComplete`; `ToolMissing`."""
    done = Done()
    with trees(one, place) as (source, target):
        work = _compare(_listed(one, place, source, done, accepted=accepted), place, source, target)
        if work.unread:
            done.problems.append(f"{len(work.unread)} files cannot be read: {named(work.unread)}")
        if work.damaged:
            text = (
                f"{len(work.damaged)} files there were not as they were left, and are copied anew"
            )
            done.problems.append(f"{text}: {named(work.damaged)}")
        _change(one, place, source, target, work, done, ports)
        _expire(one, place, target)
    return done


@contextmanager
def trees(one: Sync, place: Place) -> Iterator[tuple[Tree, Tree]]:
    """Open both sides by one rclone."""
    access = access_of(one.source, place.copy)
    slowest = [c.access.bandwidth_bps for c in (one.source, place.copy) if c.access.bandwidth_bps]
    access = replace(access, bandwidth_bps=min(slowest, default=0))
    rclone = Rclone(place.copy.target.url, access, place.private)
    try:
        source = Tree.of(one.source, rclone, place.private)
        yield source, Tree.of(place.copy, rclone, place.private)
    finally:
        rclone.close()


def _listed(
    one: Sync, place: Place, source: Tree, done: Done, *, accepted: bool
) -> dict[str, Item]:
    """List what the source has to be copied, and see that it is no remnant."""
    known = place.last.items if place.last else {}
    found = source.files(wanted=lambda path: not excluded(one, path), known=known, times=True)
    strange = {path for path in found if UNNAMED in path}
    if strange:
        text = f"{len(strange)} files have names that are not UTF-8, and are not copied"
        done.problems.append(f"{text}: {named(strange)}")
    for path in strange:
        del found[path]
    guard(one, place.last, found, accepted=accepted)
    return found


def _compare(found: Mapping[str, Item], place: Place, source: Tree, target: Tree) -> _Work:
    """Find out what differs; a file is hashed once for each time that it changes."""
    known, suspects = place.last.items if place.last else {}, place.suspects
    there = target.files(CURRENT, missing_ok=True)
    wanted: dict[str, Item] = {}
    for path, item in found.items():
        before = known.get(path)
        if before and (before.size, before.modified) == (item.size, item.modified):
            if not item.digests or before.same(item):
                wanted[path] = before.also(item.digests)
        elif "sha256" in item.hashes:
            wanted[path] = item
    left = found.keys() - wanted.keys()
    kinds = ("sha256", *target.kinds[:1])
    hashes = source.hashes(left, kinds if "sha256" in source.kinds else ())
    for path in hashes:
        wanted[path] = found[path].also(hashes[path])
    # Of the same size, and nobody vouches: a crash may have left it so, or another made it.
    unsure = {
        path
        for path, item in wanted.items()
        if path in there
        and there[path].size == item.size
        and not there[path].digests
        and not (path in known and path not in suspects and known[path].same(item))
    }
    seen = target.hashes(unsure, kinds, CURRENT)
    copy, damaged = set(), set()
    for path, item in wanted.items():
        one = there.get(path)
        same = one is not None and one.size == item.size
        if one is not None and same:
            vouched = one if one.digests else one.also(seen.get(path, b""))
            same = vouched.same(item) if vouched.digests else path not in unsure
        if not same:
            copy.add(path)
            if path in known and known[path].same(item):
                damaged.add(path)
    unread = found.keys() - wanted.keys()
    gone = there.keys() - found.keys()
    return _Work(wanted, *map(frozenset, (copy, gone, damaged, unread)))


def _change(
    one: Sync, place: Place, source: Tree, target: Tree, work: _Work, done: Done, ports: Ports
) -> None:
    """Copy, put aside, verify, and say what is there now."""
    before = place.last.items if place.last else {}
    items = {path: before[path] for path in work.unread if path in before}
    items |= {path: item for path, item in work.wanted.items() if path not in work.copy}
    if not (work.copy or work.gone) and items == before and place.last is not None:
        return
    name = place.next_id(ports, filter(snapshots.is_id, target.folders(VERSIONS)))
    failure: StoreBroken | None = None
    first = _in_the_way(work)
    _put_aside(one, first, name, target)
    for folder in _emptied(work, first):
        target.prune(CURRENT, folder)
    if work.copy:
        total = sum(work.wanted[path].size for path in work.copy)
        _fits(place, total)
        failure = target.copy(
            work.copy,
            source.root,
            CURRENT,
            aside=target.at(VERSIONS, name) if one.versions else "",
            progress=telling(ports.tell, f"sync {one.name} to {place.copy.target.url}"),
            total=total,
        )
    _put_aside(one, work.gone - first, name, target)
    good, kept = _verified(work, before, target)
    bad = work.copy - good.keys()
    if bad:
        _explain(source, work, bad, failure, done)
    place.save(name, source.url, FORM, {**items, **kept, **good}, {}, ports)
    done.count, done.gone = len(good), len(work.gone)
    done.size = sum(item.size for item in good.values())


def _put_aside(one: Sync, paths: frozenset[str], name: str, target: Tree) -> None:
    """Move what is gone from the source to its version, or delete it where none is kept."""
    if paths and one.versions:
        target.move(paths, target.at(VERSIONS, name), CURRENT)
    elif paths:
        target.delete(paths, CURRENT)


def _in_the_way(work: _Work) -> frozenset[str]:
    """Return what is gone and lies where something is to come, so that it has to go first.

    A file became a folder, or a folder a file; or a link a file: to rclone these are two names, in
    the place they are one, and it would write the one over the other.
    """
    coming = {path.removesuffix(LINK) for path in work.copy}
    occupied = coming | {folder for path in work.copy for folder in _above(path)}
    return frozenset(
        path
        for path in work.gone
        if path.removesuffix(LINK) in occupied or not coming.isdisjoint(_above(path))
    )


def _emptied(work: _Work, moved: frozenset[str]) -> set[str]:
    """Return the folders in whose place a file is to come."""
    coming = {path.removesuffix(LINK) for path in work.copy}
    return {folder for path in moved for folder in _above(path) if folder in coming}


def _above(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _fits(place: Place, total: int) -> None:
    room = place.store.room()
    if room is not None and room.free is not None and room.free < total:
        url = place.copy.target.url
        raise StoreFullError(f"{url}: {total} bytes do not fit, {room.free} are free")


def _verified(
    work: _Work, before: Mapping[str, Item], target: Tree
) -> tuple[dict[str, Item], dict[str, Item]]:
    """Ask the place what it holds of what was copied: as it should be, or still as before."""
    if not work.copy:
        return {}, {}
    kinds = {kind for path in work.copy for kind in work.wanted[path].hashes}
    listed = target.files(CURRENT, missing_ok=True, wanted=work.copy.__contains__)
    unvouched = [path for path, item in listed.items() if not item.digests]
    hashes = target.hashes(unvouched, kinds & set(target.kinds), CURRENT)
    good, kept = {}, {}
    for path in listed:
        found = listed[path]
        found = found if found.digests else found.also(hashes.get(path, b""))
        if found.same(work.wanted[path]):
            good[path] = work.wanted[path]
        elif path in before and found.same(before[path]):
            kept[path] = before[path]
    return good, kept


def _explain(
    source: Tree,
    work: _Work,
    bad: frozenset[str],
    failure: StoreBroken | None,
    done: Done,
) -> None:
    """Tell what changed meanwhile, which the next run copies, from what went wrong."""
    again = source.files(wanted=bad.__contains__, times=True)
    changed = {
        path
        for path in bad
        if path not in again
        or (again[path].size, again[path].modified)
        != (work.wanted[path].size, work.wanted[path].modified)
    }
    if changed:
        text = f"{len(changed)} files changed while they were copied, and are copied next time"
        done.notes.append(f"{text}: {named(changed)}")
    if bad - changed:
        why = f" ({failure})" if failure else ""
        text = f"{len(bad - changed)} files did not arrive{why}: {named(bad - changed)}"
        done.problems.append(text)


def _expire(one: Sync, place: Place, target: Tree) -> None:
    """Take away versions beyond the newest `keep`; without `keep` none ever goes."""
    keep = one.keep if one.versions else 1
    if not keep or len(place.names) <= keep:
        return
    oldest = place.names[keep - 1]
    for name in place.names[keep:]:
        snapshots.drop(place.store, name)
    for name in target.folders(VERSIONS):
        if snapshots.is_id(name) and name <= oldest:
            target.purge(VERSIONS, name)
    del place.names[keep:]
