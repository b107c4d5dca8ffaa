"""Syncs: a folder or remote copied to other places, hashed, versioned, guarded.

Nothing that is there is replaced or removed before it is put aside, and nothing at all is changed
where the source has lost so much that somebody has to look first. What a crash left is found by
comparing sizes and hashes, not remembered.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.backup import snapshots
from jobs.backup.errors import BackupError, BadManifest, NotComplete
from jobs.backup.form import Copy, Plan, Sync
from jobs.backup.items import Item
from jobs.backup.locks import tickets
from jobs.backup.outcome import Outcome
from jobs.backup.snapshots import FOLDER, Snapshot, new_id, within
from jobs.backup.stores.base import Store
from jobs.backup.stores.landing import landing

if TYPE_CHECKING:
    from jobs.backup.run import Ports

ACCEPTED: Final = "accepted"
SUSPECTS: Final = "suspects.json"
_SHOWN: Final = 3


@dataclass(slots=True)
class Done:
    """What a sync did in one place. `problems`: what somebody has to see to; `notes`: not."""

    count: int = 0
    size: int = 0
    gone: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Place:
    """One place of a sync, opened, with what it held after the last run that went well."""

    copy: Copy
    store: Store
    private: Path
    last: Snapshot | None
    names: list[str]
    problems: list[str] = field(default_factory=list)

    @property
    def suspects(self) -> set[str]:
        """What the last weekly look found to be damaged here: paths, or packs."""
        with contextlib.suppress(OSError, ValueError):
            return set(map(str, json.loads((self.private / SUSPECTS).read_bytes())))
        return set()

    def suspect(self, names: Iterable[str]) -> None:
        """Remember what is damaged, for the next run to mend; or that nothing is."""
        with landing(self.private / SUSPECTS) as file:
            file.write(json.dumps(sorted(names)).encode())

    def next_id(self, ports: Ports, more: Iterable[str] = ()) -> str:
        """Name a run here, above all that is known, and remember that it is taken."""
        memory = self.private / "sequence"
        known = [int(name[:9]) for name in (*self.names, *more)]
        with contextlib.suppress(OSError, ValueError):
            known.append(int(memory.read_text()))
        number = max(known, default=0) + 1
        with landing(memory) as file:
            file.write(str(number).encode())
        return new_id(number, ports.clock)

    def save(
        self,
        name: str,
        source: str,
        form: str,
        items: Mapping[str, Item],
        packs: Mapping[str, Item],
        ports: Ports,
    ) -> None:
        """Say what this place holds now. Raises `StoreBroken`."""
        at = datetime.fromtimestamp(ports.clock.wall(), UTC)
        self.last = Snapshot(name, at, source, form, items, packs)
        snapshots.write(self.store, self.last, self.private)
        self.names.insert(0, name)


def folder(plan: Plan, one: Sync) -> Path:
    """Return the private folder of a sync on this machine."""
    made = Path(plan.spool) / "syncs" / one.name
    made.mkdir(mode=0o700, parents=True, exist_ok=True)
    return made


def sync(plan: Plan, one: Sync, ports: Ports) -> Outcome:
    """Bring every place of a sync up to date; what fails in one costs no other."""
    from jobs.backup import mirroring, packs  # noqa: PLC0415 - each only where it is used

    private = folder(plan, one)
    problems: list[str] = []
    notes: list[str] = []
    count = size = gone = 0
    for copy in one.to:
        form = mirroring if mirrors(one.source, copy) else packs
        try:
            accepted = (private / ACCEPTED).exists()
            with opened(plan, one, copy, ports) as place:
                if not accepted:
                    _familiar(place)
                done = form.bring(plan, one, place, ports, accepted=accepted)
                place.suspect(())
        except BackupError as error:
            problems.append(str(error))
        else:
            problems += [f"{copy.target.url}: {text}" for text in (*place.problems, *done.problems)]
            notes += done.notes
            count, size, gone = count + done.count, size + done.size, gone + done.gone
    if not problems:
        (private / ACCEPTED).unlink(missing_ok=True)
    said = f"{count} files copied" if count else "nothing new"
    said = "; ".join(dict.fromkeys([said + (f", {gone} gone" if gone else ""), *notes]))
    return Outcome("sync", one.name, "; ".join(dict.fromkeys(problems)), said, count, size)


def accept(plan: Plan, one: Sync) -> None:
    """Let the next run follow a source that lost many files, for an operator."""
    with landing(folder(plan, one) / ACCEPTED) as file:
        file.write(b"")


def mirrors(source: Copy, to: Copy) -> bool:
    """Say whether rclone copies between those two, name by name; else files travel in packs."""
    return {source.target.scheme, to.target.scheme} <= {"file", "rclone"}


@contextmanager
def opened(
    plan: Plan, one: Sync, copy: Copy, ports: Ports, *, look: bool = False
) -> Iterator[Place]:
    """Open a place and read what it held last. `look`: nothing will be written, so no ticket.

    Raises `Busy`, `StoreBroken`.
    """
    from jobs.backup.run import store_folder  # noqa: PLC0415 - that one imports this

    inner = within(copy, FOLDER)
    private = store_folder(plan, inner)
    store = ports.open_store(inner.target, inner.access, private)
    try:
        lockable = [store] if copy.access.can_delete and not look else []
        with tickets(lockable, one.name, private):
            names = snapshots.listed(store)
            place = Place(copy, store, private, None, names)
            for name in names:
                try:
                    place.last = snapshots.read(store, name, private)
                    break
                except BadManifest as error:
                    place.problems.append(str(error))
            yield place
    finally:
        store.close()


def _familiar(place: Place) -> None:
    """Refuse a place that lost all that it had: it may not be mounted. Raises `NotComplete`."""
    if not place.names and snapshots.remembered(place.private):
        raise NotComplete(
            f"{place.copy.target.url} holds none of the versions that it had, so nothing was "
            "copied: is it mounted? If that is right: aion backup accept, with the names of the "
            "backup and of this sync"
        )


def guard(one: Sync, last: Snapshot | None, found: Collection[str], *, accepted: bool) -> None:
    """Refuse to follow a source that lost too much. Raises `NotComplete`; nothing was changed."""
    url = one.source.target.url
    if not found:
        if one.allow_empty:
            return
        raise NotComplete(
            f"{url} holds no file at all, so nothing was changed; if that is right, set allow_empty"
        )
    before = len(last.items) if last else 0
    gone = sum(path not in found for path in last.items) if last else 0
    if gone > one.gone * before and not accepted:
        raise NotComplete(
            f"{gone} of {before} files are gone from {url}, so nothing was changed; if that is "
            f"right: aion backup accept, with the names of the backup and of this sync"
        )


def chosen(one: Sync, found: Mapping[str, Item]) -> Mapping[str, Item]:
    """Leave out what is excluded: `*` stands for anything within a name, `**` for any path."""
    if not one.exclude:
        return found
    return {path: item for path, item in found.items() if not excluded(one, path)}


def excluded(one: Sync, path: str) -> bool:
    """Say whether a path is left out: a pattern without a slash is of names at any depth."""
    for pattern in one.exclude:
        if "/" not in pattern:
            if any(fnmatch.fnmatchcase(part, pattern) for part in path.split("/")):
                return True
        elif fnmatch.fnmatchcase(path, pattern.lstrip("/")):
            return True
    return False


def named(paths: Iterable[str]) -> str:
    """Name a few files of many, printable."""
    found = sorted(paths)
    shown = ", ".join(json.dumps(path)[1:-1][:60] for path in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
