"""The whole nightly run: lock, finish what was left, dump, copy, check, expire. Read this first.

Everything is level-triggered: what a crash left is looked at again, not remembered. A dump is in
the spool or not, a copy is in its store or not, and each step is repeated until it holds. The one
thing remembered is which dump a run had begun, so that after a crash that one is finished instead
of another being made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from jobs.backup import catalogue, dump
from jobs.backup.catalogue import Found
from jobs.backup.copies import Result, copy_all
from jobs.backup.errors import BackupError, BadManifest, Replaced, SourceFailed
from jobs.backup.form import MANIFEST, Access, Copy, DumpId, Manifest, Plan
from jobs.backup.locks import alone, tickets
from jobs.backup.more import more
from jobs.backup.outcome import Outcome
from jobs.backup.ports import Clock, Pause, Random, Tell, nobody
from jobs.backup.stores import open_store
from jobs.backup.stores.base import Store
from jobs.backup.stores.landing import landing, sync_folder
from jobs.backup.targets import Target
from jobs.backup.verify import Finding, expire, free, policy, problem, survey

SAME_NIGHT_S: Final = 12 * 3600.0
PENDING: Final = 3
DUMP_TRIES: Final = 2

HEAVY: Final = frozenset({"gs", "hf"})
"""Their libraries take as much memory as a whole dump may."""

Open = Callable[[Target, Access, Path], Store]
Looked = tuple[dict[Copy, list[Found]], list[dict[str, Any]]]
"""What each store holds, and what is wrong with those that cannot be read."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a run uses of the machine. `apart`: does something in a process of its own."""

    clock: Clock
    random: Random
    pause: Pause
    tell: Tell = nobody
    open_store: Open = open_store
    apart: Callable[[Callable[[], Looked]], Looked] | None = None


@dataclass(slots=True)
class Report:
    """What a run did. `to_json` is what the child answers; `ok`: dumped, and copied everywhere."""

    dump: Manifest | None = None
    failure: str = ""
    replaced: bool = False
    copies: list[Result] = field(default_factory=list)
    checks: list[Finding] = field(default_factory=list)
    expired: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    rooms: list[dict[str, Any]] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    more: list[Outcome] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        bad = [one for one in self.checks if one.finished and not one.ok]
        each = [*(one.ok for one in self.copies), *(one.ok for one in self.more)]
        return not (self.failure or self.problems or bad) and all(each)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        made = self.dump
        return {
            "ok": self.ok,
            "dump": None if made is None else _shown(made),
            "failure": self.failure,
            "replaced": self.replaced,
            "copies": [one.to_json() for one in self.copies],
            "checks": [one.to_json() for one in self.checks],
            "expired": self.expired,
            "problems": self.problems,
            "rooms": self.rooms,
            "pending": self.pending,
            "more": [one.to_json() for one in self.more],
        }


def _shown(made: Manifest) -> dict[str, Any]:
    """Return a manifest's values; of its tables, of which there may be very many, the number."""
    return {**made.to_json(), "archive": made.archive, "tables": len(made.tables)}


def run(plan: Plan, ports: Ports) -> Report:
    """Back up once, doing what can be done; what failed is in the report.

    Raises `Busy`; ValueError for a policy that keeps nothing.
    """
    policy(plan.keep)
    spool = Path(plan.spool)
    with alone(spool):
        clean(spool)
        made = _Run(plan, ports, Report())
        heavy = plan.dumps and any(copy.target.scheme in HEAVY for copy in plan.copies)
        if ports.apart is not None and heavy:
            # So that the dump, which has programs of its own, need not share memory with them.
            made.know(ports.apart(partial(_looked, plan, ports)))
            made.dump()
            with _held(plan, ports, made.report) as stores:
                return made.go(stores)
        with _held(plan, ports, made.report) as stores:
            made.know(_look(plan, stores))
            made.dump()
            return made.go(stores)


@contextmanager
def _held(
    plan: Plan, ports: Ports, report: Report, *, stay: bool = False
) -> Iterator[dict[Copy, Store]]:
    """Open every store, with a ticket in each that may be written to by others too."""
    with _stores(plan, ports, report) as stores:
        lockable = [store for copy, store in stores.items() if copy.access.can_delete]
        with tickets(lockable, plan.name, Path(plan.spool), stay=stay):
            yield stores


def _looked(plan: Plan, ports: Ports) -> Looked:
    """Look at every store and leave our tickets there; one that cannot be opened is told later."""
    with _held(plan, ports, Report(), stay=True) as stores:
        return _look(plan, stores)


def _look(plan: Plan, stores: dict[Copy, Store]) -> Looked:
    """Read every store; an unreadable one is never taken for an empty one."""
    found: dict[Copy, list[Found]] = {}
    problems: list[dict[str, Any]] = []
    for copy, store in stores.items():
        try:
            found[copy] = catalogue.read(store, plan.name)
        except Exception as error:  # noqa: BLE001 - as in `copies`: it must not cost the others
            problems.append(problem(_foreseen(error), copy.target.url))
    return found, problems


def _foreseen(error: Exception) -> BackupError:
    """Return an error that may be told; the text of one that nobody foresaw may hold a secret."""
    if isinstance(error, BackupError):
        return error
    return BackupError(f"{type(error).__name__} (not foreseen)")


def clean(spool: Path) -> None:
    """Throw away what a crash left half made; secrets of programs are among it."""
    shutil.rmtree(spool / "work", ignore_errors=True)
    for kind in ("rehash", "accept", "restore", "pg"):
        for left in spool.glob(f"{kind}-*"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _stores(plan: Plan, ports: Ports, report: Report) -> Iterator[dict[Copy, Store]]:
    """Open every store; one that cannot be opened is a problem, and the others go on."""
    found: dict[Copy, Store] = {}
    with contextlib.ExitStack() as stack:
        for copy in plan.copies:
            folder = store_folder(plan, copy)
            try:
                found[copy] = ports.open_store(copy.target, copy.access, folder)
            except BackupError as error:
                report.problems.append(problem(error, copy.target.url))
            else:
                stack.callback(found[copy].close)
        yield found


def store_folder(plan: Plan, copy: Copy, role: str = "") -> Path:
    """Return the private folder of one store in the spool."""
    key = hashlib.sha256(f"{copy.target.url}{role}".encode()).hexdigest()[:16]
    folder = Path(plan.spool) / "stores" / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _maker(plan: Plan) -> Callable[..., Manifest]:
    if plan.itself is None:
        return dump.make
    from jobs.backup import itself  # noqa: PLC0415 - SQLite's and zstd's, only for aion's own state

    return itself.make


class _Run:
    """One run, under its locks: `know`, `dump`, `go`."""

    def __init__(self, plan: Plan, ports: Ports, report: Report) -> None:
        self.plan, self.ports, self.report = plan, ports, report
        self.spool = Path(plan.spool)
        self.journal = self.spool / "journal.json"
        self.found: dict[Copy, list[Found]] = {}
        self.stores: dict[Copy, Store] = {}

    def know(self, looked: Looked) -> None:
        """Take what was seen in the stores."""
        self.found = looked[0]
        self.report.problems += looked[1]

    def dump(self) -> None:
        """Make a dump, if no run of this night made one already."""
        waiting = self._spooled()
        made = self._begun(waiting)
        if made is None and self.plan.dumps:
            made = self._dump(waiting)
        self.report.dump = made

    def go(self, stores: dict[Copy, Store]) -> Report:
        """Do all the rest."""
        self.stores = stores
        for one in sorted(self._spooled(), key=lambda one: one != self.report.dump):
            self._copy(one)
        self.report.more = more(self.plan, self.ports, self.stores, self._deleting)
        for copy in self.stores:
            self._keep_house(copy)
        self._tidy()
        self.journal.unlink(missing_ok=True)
        return self.report

    def _spooled(self) -> list[Manifest]:
        """Return the dumps of the spool, the newest first; what cannot be read is left out."""
        found = []
        for folder in (self.spool / "dumps").glob("*"):
            with contextlib.suppress(OSError, BadManifest):
                found.append(Manifest.load((folder / MANIFEST).read_bytes(), folder.name))
        mine = [one for one in found if one.name == self.plan.name]
        return sorted(mine, key=lambda one: one.sequence, reverse=True)

    def _begun(self, spooled: list[Manifest]) -> Manifest | None:
        """Return the dump that a run of this night made before it died, here or in a store."""
        try:
            begun = str(json.loads(self.journal.read_bytes())["dump"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        listed = [one.manifest for found in self.found.values() for one in found if one.manifest]
        wall = self.ports.clock.wall()
        for one in [*spooled, *listed]:
            if one.id == begun and abs(wall - one.created_at.timestamp()) < SAME_NIGHT_S:
                return one
        return None

    def _dump(self, spooled: list[Manifest]) -> Manifest | None:
        listed = [one for found in self.found.values() for one in found]
        listed.sort(key=lambda one: one.id, reverse=True)
        number = self._number(listed, spooled)
        if number is None:
            self.report.failure = "no store can be read, so the dump's number is not known"
            return None
        wall = datetime.fromtimestamp(self.ports.clock.wall(), UTC)
        new = DumpId.new(self.plan.name, number, wall)
        with landing(self.journal) as file:
            file.write(json.dumps({"dump": str(new)}).encode())
        good = [one for one in spooled if not one.suspicious]
        candidates = [catalogue.newest_good(listed), good[0] if good else None]
        previous = max((c for c in candidates if c), key=lambda c: c.sequence, default=None)
        for attempt in range(1, DUMP_TRIES + 1):
            try:
                made = _maker(self.plan)(
                    self.plan, new, previous, clock=self.ports.clock, tell=self.ports.tell
                )
            except SourceFailed as error:
                self.report.failure = str(error)
                if attempt < DUMP_TRIES:
                    self.ports.pause(self.plan.limits.backoff_s)
                    continue
            except BackupError as error:
                self.report.failure = str(error)
                self.report.replaced = isinstance(error, Replaced)
            else:
                self.report.failure = ""
                return made
            break
        return None

    def _number(self, listed: list[Found], spooled: list[Manifest]) -> int | None:
        """Return the next sequence: above all that is known, by the spool's own memory too.

        None when nothing can be known: a new machine, and no store that answers.
        """
        memory = self.spool / "sequence"
        known = [one.id.sequence for one in listed] + [one.sequence for one in spooled]
        with contextlib.suppress(OSError, ValueError):
            known.append(int(memory.read_text()))
        if not known and not self.found:
            return None
        number = max(known, default=0) + 1
        with landing(memory) as file:
            file.write(str(number).encode())
        return number

    def _copy(self, one: Manifest) -> None:
        self.report.copies += copy_all(
            self.spool / "dumps" / one.id,
            one,
            list(self.stores.values()),
            self.plan.limits,
            clock=self.ports.clock,
            random=self.ports.random,
            pause=self.ports.pause,
            tell=self.ports.tell,
            make_room=self._make_room,
        )
        missing = [copy for copy in self.plan.copies if copy not in self.stores]
        self.report.copies += [
            Result(one.id, copy.target.url, False, "the store could not be opened", 0, True)
            for copy in missing
        ]

    def _make_room(self, store: Store, needed: int) -> bool:
        copy = next(copy for copy, one in self.stores.items() if one is store)
        with self._deleting(copy) as deleter:
            return deleter is not None and free(deleter, self.plan.name, self.plan.keep, needed)

    def _keep_house(self, copy: Copy) -> None:
        """Check what a store holds, take away what expired, ask how much room is left."""
        store = self.stores[copy]
        try:
            seen = survey(store, self.plan.name)
            self.report.checks += [finding for _, finding in seen]
            with self._deleting(copy) as deleter:
                if deleter is not None:
                    self.report.expired += expire(deleter, seen, self.plan.keep)
            room = store.room()
            if room is not None:
                said = {"total": room.total, "used": room.used, "free": room.free}
                self.report.rooms.append({"store": store.url, **said})
        except Exception as error:  # noqa: BLE001 - as above
            self.report.problems.append(problem(_foreseen(error), store.url))

    @contextmanager
    def _deleting(self, copy: Copy) -> Iterator[Store | None]:
        """Open a store with the credential that deletes; None where nothing of ours may."""
        if copy.expire is None:
            yield self.stores[copy] if copy.access.can_delete else None
            return
        folder = store_folder(self.plan, copy, "expire")
        store = self.ports.open_store(copy.target, copy.expire, folder)
        try:
            yield store
        finally:
            store.close()

    def _tidy(self) -> None:
        """Forget local dumps that are everywhere; of those that wait, keep only the newest few.

        One that is in no store at all yet is never thrown away for a newer one.
        """
        there: dict[str, set[str]] = {}
        for result in self.report.copies:
            if result.ok:
                there.setdefault(result.dump, set()).add(result.store)
        everywhere = {copy.target.url for copy in self.plan.copies}
        waiting = 0
        for one in self._spooled():
            done = there.get(one.id, set())
            waiting += done != everywhere
            if done == everywhere or (waiting > PENDING and done):
                # The manifest goes first: half a folder is no dump.
                folder = self.spool / "dumps" / one.id
                (folder / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                sync_folder(folder.parent)
            else:
                self.report.pending.append(one.id)
        for folder in (self.spool / "dumps").glob("*"):
            if not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)
