"""Reading exports and syncs back: the weekly look at every store, and the rows for whoever asks."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from jobs.backup import mirroring, packs, parts, syncs
from jobs.backup.errors import BackupError, Corrupt, NotFound, StoreBroken
from jobs.backup.exports import fetch, place
from jobs.backup.form import Copy, Plan, Sync
from jobs.backup.items import Item
from jobs.backup.mirror import CURRENT
from jobs.backup.parts import Held
from jobs.backup.snapshots import within
from jobs.backup.stores.base import CHUNK, Store, hash_file
from jobs.backup.stores.landing import landing
from jobs.backup.syncs import Place, named
from jobs.backup.verify import Finding, problem

if TYPE_CHECKING:
    from jobs.backup.run import Ports

MOST: Final = 1_000_000_000
"""Bytes that one look downloads from a place, the newest first; the rest is the next looks'."""


class _Turns:
    """What was read back when, so that in the end all of it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            self._at = {str(k): float(v) for k, v in json.loads(file.read_bytes()).items()}

    def choose(self, sizes: Mapping[str, int]) -> list[str]:
        """Choose the newest by name, then those that were read longest ago, while they fit."""
        order = sorted(sizes, key=lambda name: (self._at.get(name, 0.0), name))
        chosen: list[str] = []
        left = MOST
        for name in dict.fromkeys([*([max(sizes)] if sizes else []), *order]):
            if not chosen or sizes[name] <= left:
                chosen.append(name)
                left -= sizes[name]
        return chosen

    def read(self, names: Sequence[str], wall: float, known: Mapping[str, int]) -> None:
        """Remember that those were read."""
        self._at = {name: at for name, at in self._at.items() if name in known}
        self._at |= dict.fromkeys(names, wall)
        with landing(self._file) as file:
            file.write(json.dumps(self._at).encode())


def reread(
    plan: Plan, ports: Ports, stores: Sequence[Store], url: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read parts of exports and files of syncs back; return findings, and stores that failed.

    `stores`: of the plan's copies; `url`: only the place of that address, "" for all.
    """
    found: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for store in stores:
        for one in plan.exports:
            try:
                found += [f.to_json() for f in _parts(plan, one.name, store, ports)]
            except StoreBroken as error:
                problems.append(problem(error, store.url))
    for sync in plan.syncs:
        for copy in sync.to:
            if url not in {"", copy.target.url}:
                continue
            try:
                found += [f.to_json() for f in _place(plan, sync, copy, ports)]
            except BackupError as error:
                problems.append(problem(error, copy.target.url))
    return found, problems


def _parts(plan: Plan, export: str, store: Store, ports: Ports) -> Iterator[Finding]:
    held, wrong = parts.read(store, plan.name, export)
    for text in wrong:
        yield Finding(store.url, f"export {export}", False, text)
    sizes = {one.part.file: one.part.size for one in held.values()}
    here = next(place(plan, one) for one in plan.exports if one.name == export)
    here.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = store.url.translate(str.maketrans("/:", "__"))
    turns = _Turns(here.with_name(f"{export}.{key}.read"))
    chosen = turns.choose(sizes)
    for one in held.values():
        if one.part.file in chosen:
            with tempfile.TemporaryDirectory(dir=plan.spool, prefix="rehash-") as folder:
                text = ""
                try:
                    fetch(store, one.part, Path(folder), ports)
                except (Corrupt, NotFound) as error:
                    text = str(error)
            yield Finding(store.url, f"export {export} part {one.part.sequence}", not text, text)
    turns.read(chosen, ports.clock.wall(), sizes)


def _place(plan: Plan, one: Sync, copy: Copy, ports: Ports) -> Iterator[Finding]:
    with syncs.opened(plan, one, copy, ports, look=True) as place:
        for text in place.problems:
            yield Finding(copy.target.url, f"sync {one.name}", False, text)
        if place.last is None:
            return
        mirrored = place.last.form == mirroring.FORM
        bad = _mirror(one, place) if mirrored else _packs(place, ports)
        place.suspect(bad)
        text = f"{len(bad)} files are not what they were: {named(bad)}" if bad else ""
        yield Finding(copy.target.url, f"sync {one.name}", not bad, text)


def _mirror(one: Sync, place: Place) -> set[str]:
    """Have every file of a mirror hashed where it is, or here where the place knows no hash."""
    assert place.last is not None
    items = place.last.items
    with mirroring.trees(one, place) as (_, tree):
        there = tree.files(CURRENT, missing_ok=True)
        kinds = {kind for item in items.values() for kind in item.hashes}
        hashes = tree.hashes(there.keys() & items.keys(), kinds, CURRENT)
    return {
        path
        for path, item in items.items()
        if path not in there or not Item(there[path].size, "", hashes.get(path, b"")).same(item)
    }


def _packs(place: Place, ports: Ports) -> set[str]:
    """Download packs and hash them."""
    assert place.last is not None
    turns = _Turns(place.private / "read")
    sizes = {name: item.size for name, item in place.last.packs.items()}
    chosen, bad = turns.choose(sizes), set()
    inner = within(place.copy, packs.FOLDER)
    store = ports.open_store(inner.target, inner.access, place.private)
    try:
        for name in chosen:
            local = place.private / f"read-{name}"
            try:
                store.get(name, local)
                wanted = place.last.packs[name].hashes["sha256"]
                if hash_file(local, ("sha256",))["sha256"] != wanted:
                    bad.add(name)
            except (NotFound, Corrupt):
                bad.add(name)
            finally:
                local.unlink(missing_ok=True)
    finally:
        store.close()
    turns.read(chosen, ports.clock.wall(), sizes)
    return bad


def rows(
    plan: Plan, export: str, stores: Sequence[Store], ports: Ports, out: BinaryIO, identity: str
) -> tuple[int, list[str]]:
    """Write all rows of an export in the order of their keys; return how many, and what is wrong.

    Each part comes from the first store that has it whole. Raises `WrongKey`; `NotFound` when a
    part, or the export, is nowhere.
    """
    held: dict[int, list[tuple[Store, Held]]] = {}
    problems: list[str] = []
    for store in stores:
        try:
            found, wrong = parts.read(store, plan.name, export)
        except StoreBroken as error:
            problems.append(str(error))
            continue
        problems += [f"{store.url}: {text}" for text in wrong]
        for number, one in found.items():
            held.setdefault(number, []).append((store, one))
    if not held:
        raise NotFound(f"there is no part of {plan.name}/{export[:60]}")
    count = 0
    for number in range(min(held), max(held) + 1):
        count += _part(held.get(number, []), number, plan, ports, out, identity, problems)
    return count, problems


def _part(
    places: Sequence[tuple[Store, Held]],
    number: int,
    plan: Plan,
    ports: Ports,
    out: BinaryIO,
    identity: str,
    problems: list[str],
) -> int:
    for store, one in places:
        with tempfile.TemporaryDirectory(dir=plan.spool, prefix="rehash-") as folder:
            try:
                local = fetch(store, one.part, Path(folder), ports)
            except StoreBroken as error:
                problems.append(str(error))
                continue
            with parts.opened(local, identity) as file:
                while piece := file.read(CHUNK):
                    out.write(piece)
            return one.part.rows
    raise NotFound(f"part {number} is whole nowhere")


def shown(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Return what a store holds of a backup's exports, as its listing shows it."""
    base = f"exports/{plan.name}/"
    names = {one.name.removeprefix(base).partition("/")[0] for one in store.list(base)}
    found = []
    for name in sorted(names):
        held, wrong = parts.read(store, plan.name, name)
        newest = held[max(held)].part if held else None
        gone = sorted(set(range(min(held), max(held))) - set(held)) if held else []
        wrong += [one.problem for one in held.values() if one.problem]
        wrong += [f"part {gone[0]} is missing"] if gone else []
        found.append(
            {
                "export": name,
                "store": store.url,
                "parts": len(held),
                "rows": sum(one.part.rows for one in held.values()),
                "size": sum(one.part.size for one in held.values()),
                "last": newest.last if newest else None,
                "created_at": newest.created_at.isoformat() if newest else None,
                "encrypted": newest is not None and newest.encrypted is not None,
                "problem": wrong[0] if wrong else "",
            }
        )
    return found


def kept(plan: Plan, one: Sync, copy: Copy, ports: Ports) -> dict[str, Any]:
    """Return what a place holds of a sync."""
    with syncs.opened(plan, one, copy, ports, look=True) as place:
        last = place.last
        return {
            "sync": one.name,
            "store": copy.target.url,
            "versions": len(place.names),
            "files": len(last.items) if last else 0,
            "size": sum(item.size for item in last.items.values()) if last else 0,
            "created_at": last.created_at.isoformat() if last else None,
            "problem": place.problems[0] if place.problems else "",
        }
