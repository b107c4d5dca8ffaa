"""Exports: the rows of a query that are new since the last time, as one more part.

Where an export ended is read from its parts, those of the stores and those that still wait here;
what this machine remembers only counts while a store that may know better cannot be read. So a new
machine goes on rightly, and no crash leaves a gap or a row twice: a part exists when its manifest
does, and the next begins after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.backup import exportsql, parts
from jobs.backup.dump import fingerprint
from jobs.backup.errors import BackupError, Corrupt, NotComplete, StoreBroken
from jobs.backup.form import Copy, Export, Plan, Sealed
from jobs.backup.outcome import Outcome, patiently
from jobs.backup.parts import Held, Part, Written
from jobs.backup.stores.base import Store, hash_file
from jobs.backup.stores.landing import landing

if TYPE_CHECKING:
    from jobs.backup.run import Ports

REREAD_MOST: Final = 1_000_000_000
"""Bytes of old parts that one weekly look downloads from a store; the rest is next week's."""


@dataclass(slots=True)
class _Known:
    """What is known of an export before the next part is made."""

    here: dict[int, Part] = field(default_factory=dict)
    held: dict[str, dict[int, Held]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    behind: str = ""

    def parts(self) -> dict[int, Part]:
        """Return all parts by number; of two that contradict each other, the one here or first."""
        found = dict(self.here)
        for url, held in self.held.items():
            for number, one in held.items():
                if found.setdefault(number, one.part).sha256 != one.part.sha256:
                    self.problems.append(f"part {number} in {url} is another than elsewhere")
        return found


Deleting = Callable[[Copy], AbstractContextManager[Store | None]]
"""Opens a store with the credential that deletes; None where nothing of ours may."""


def export(
    plan: Plan, one: Export, ports: Ports, stores: Mapping[Copy, Store], deleting: Deleting
) -> Outcome:
    """Bring an export up to date in every store; what fails is in the outcome."""
    return _Run(plan, one, ports, stores, deleting).go()


class _Run:
    """One export's turn."""

    def __init__(
        self,
        plan: Plan,
        one: Export,
        ports: Ports,
        stores: Mapping[Copy, Store],
        deleting: Deleting,
    ) -> None:
        self.plan, self.one, self.ports, self.deleting = plan, one, ports, deleting
        self.copies = {store.url: copy for copy, store in stores.items()}
        self.stores = list(stores.values())
        self.closed = [c.target.url for c in plan.copies if c not in stores]
        self.spool = place(plan, one)
        self.known = _Known()

    def go(self) -> Outcome:
        self.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._look()
        new: Part | None = None
        try:
            new = self._make()
        except BackupError as error:
            self.known.problems.insert(0, str(error))
        everything = self.known.parts()
        self._copy(everything)
        self._expire(everything)
        problems = [f"{url}: it could not be read" for url in self.known.unread]
        rows, size = (new.rows, new.size) if new else (0, 0)
        said = f"{rows} rows in part {new.sequence}" if new else "nothing new"
        said += self.known.behind
        detail = "; ".join(dict.fromkeys([*self.known.problems, *problems]))
        return Outcome("export", self.one.name, detail, said, rows, size)

    def _look(self) -> None:
        self.known.here = parts.spooled(self.spool)
        self.known.unread = list(self.closed)
        for store in self.stores:
            try:
                held, wrong = parts.read(store, self.plan.name, self.one.name, self._cache())
            except StoreBroken as error:
                self.known.problems.append(str(error))
                self.known.unread.append(store.url)
            else:
                self.known.held[store.url] = held
                self.known.problems += [f"{store.url}: {text}" for text in wrong]

    def _cache(self) -> Path:
        return self.spool / "known"

    # ── the new part ────────────────────────────────────────────────────────────────────────────

    def _end(self) -> Part | None:
        """Return the last part. Raises `NotComplete` where it cannot be known."""
        found = self.known.parts()
        newest = found[max(found)] if found else None
        gone = sorted(set(range(min(found), max(found))) - set(found)) if found else []
        if gone:
            self.known.problems.append(f"part {gone[0]} is in no store any more")
        memory = self._remembered()
        if memory is not None and (newest is None or memory.sequence > newest.sequence):
            if self.known.unread:
                return memory
            text = f"part {memory.sequence} is in no store any more: its rows are exported again"
            self.known.problems.append(text)
        elif memory is None and self.known.unread:
            where = ", ".join(self.known.unread)
            raise NotComplete(f"where it ended is not known as long as {where} cannot be read")
        return newest

    def _remembered(self) -> Part | None:
        try:
            return Part.from_json(json.loads(_memory(self.spool).read_bytes()), strict=False)
        except (OSError, ValueError):
            return None

    def _remember(self, part: Part) -> None:
        with landing(_memory(self.spool)) as file:
            file.write(part.dump())

    def _make(self) -> Part | None:
        """Make the next part, if there is anything new. Raises `BackupError`."""
        end = self._end()
        if end is not None:
            self._remember(end)
            if end.key != self.one.key:
                raise NotComplete(
                    f"its key is {self.one.key} now and was {end.key}: give the export a new name, "
                    "and it begins anew"
                )
        since = exportsql.Position(end.last, end.kind) if end else exportsql.Position()
        part, behind = _write(self.plan, self.one, self.ports, self.spool, end, since)
        if behind and end is not None:
            self.known.behind = (
                f"; its largest key is {behind[:60]}, and {end.last[:60]} was exported already: "
                "were rows deleted, or is this an older database restored? What comes in between "
                "is not exported: then give the export a new name, and it begins anew"
            )
        if part is not None:
            self.known.here[part.sequence] = part
            self._remember(part)
        return part

    # ── the copies ──────────────────────────────────────────────────────────────────────────────

    def _copy(self, everything: Mapping[int, Part]) -> None:
        """Bring every part to every store that can be read, then forget what is everywhere."""
        missing = dict.fromkeys(self.known.here, False)
        for store in self.stores:
            held = self.known.held.get(store.url)
            if held is None:
                missing = dict.fromkeys(missing, True)
                continue
            for number in sorted(everything):
                there = held.get(number)
                if there is not None and not there.problem:
                    continue
                part = everything[number]
                if there is None and self._expired(number, everything):
                    continue
                if wrong := self._bring(store, part, there):
                    self.known.problems.append(f"part {number} to {store.url}: {wrong}")
                    if number in missing:
                        missing[number] = True
        for number, waits in missing.items():
            if not waits and not self.closed:
                _forget(self.spool, self.known.here[number])

    def _bring(self, store: Store, part: Part, there: Held | None) -> str:
        """Copy a part to a store; "" or why it is not there."""
        replace = there is not None and self.copies[store.url].access.can_delete
        if there is not None and not replace:
            return f"damaged there ({there.problem}), and this login may not replace it"

        def put() -> None:
            with self._local(part, store) as folder:
                _put(folder, self.plan, self.one, part, store, self.ports, replace=replace)

        limits, random, pause = self.plan.limits, self.ports.random, self.ports.pause
        try:
            return patiently(put, limits, random, pause)
        except BackupError as error:
            return str(error)

    @contextlib.contextmanager
    def _local(self, part: Part, apart: Store) -> Iterator[Path]:
        """Yield a folder with the part's file: here, or fetched from another store."""
        if part.sequence in self.known.here:
            yield self.spool
            return
        for store in self.stores:
            held = self.known.held.get(store.url, {}).get(part.sequence)
            if store is apart or held is None or held.problem or held.part.sha256 != part.sha256:
                continue
            with tempfile.TemporaryDirectory(dir=self.plan.spool, prefix="rehash-") as name:
                fetch(store, part, Path(name), self.ports)
                yield Path(name)
            return
        raise NotComplete("it is whole nowhere else")

    # ── old parts ───────────────────────────────────────────────────────────────────────────────

    def _expired(self, number: int, everything: Mapping[int, Part]) -> bool:
        newest = max(everything, default=0)
        return bool(self.one.keep) and number <= newest - self.one.keep

    def _expire(self, everything: Mapping[int, Part]) -> None:
        """Take away what is older than the newest `keep` parts; without `keep` nothing goes."""
        for url, held in self.known.held.items() if self.one.keep else ():
            gone = [one.part for number, one in held.items() if self._expired(number, everything)]
            try:
                with self.deleting(self.copies[url]) as deleter:
                    if deleter is None:
                        continue
                    for part in gone:
                        file, manifest = parts.local_name(self.plan.name, self.one.name, part)
                        deleter.delete(manifest)
                        deleter.delete(file)
            except BackupError as error:
                self.known.problems.append(str(error))


def place(plan: Plan, one: Export) -> Path:
    """Return the folder of this machine where an export's parts wait."""
    return Path(plan.spool) / "exports" / one.name


def _memory(spool: Path) -> Path:
    return spool.with_name(f"{spool.name}.last")


def _forget(spool: Path, part: Part) -> None:
    (spool / part.manifest).unlink(missing_ok=True)
    (spool / part.file).unlink(missing_ok=True)


def _write(
    plan: Plan, one: Export, ports: Ports, spool: Path, end: Part | None, since: exportsql.Position
) -> tuple[Part | None, str]:
    """Write the part after `end` into the spool; None if there is nothing new.

    Also returns what `Rows.behind` says.
    """
    work = spool / "work"
    recipient = plan.encrypt.recipient if plan.encrypt else ""
    remote = {copy.target.scheme for copy in plan.copies} & {"rclone", "gs"}
    reading = exportsql.reading(
        plan.dsn, one, since, plan.timeouts, clock=ports.clock, pause=ports.pause
    )
    try:
        with reading as rows, landing(work) as out:
            written = parts.write(
                _told(rows.pieces(), one.name, ports),
                out,
                level=plan.level,
                recipient=recipient,
                kinds=("sha256", "md5") if remote else ("sha256",),
                min_free=plan.limits.min_free_bytes,
            )
        if not rows.count:
            return None, rows.behind
        part = _part(plan, one, ports.clock.wall(), end, rows, written)
        if wrong := parts.proved(work, part):
            raise NotComplete(wrong)
        work.replace(spool / part.file)
        with landing(spool / part.manifest) as file:
            file.write(part.dump())
        return part, rows.behind
    finally:
        work.unlink(missing_ok=True)


def _part(
    plan: Plan, one: Export, wall: float, end: Part | None, rows: exportsql.Rows, made: Written
) -> Part:
    hashes = dict(made.hashes)
    sha256, number = hashes.pop("sha256"), end.sequence + 1 if end else 1
    return Part(
        backup=plan.name,
        export=one.name,
        sequence=number,
        created_at=datetime.fromtimestamp(wall, UTC),
        file=f"{number:09d}-{sha256[:12]}.jsonl.zst{'.age' if plan.encrypt else ''}",
        rows=rows.count,
        key=one.key,
        kind=rows.kind,
        after=end.last if end else None,
        first=rows.first,
        last=rows.last,
        columns=rows.columns,
        size=made.size,
        sha256=sha256,
        plain_size=made.plain_size,
        plain_sha256=made.plain_sha256,
        query=hashlib.sha256(one.query.encode()).hexdigest(),
        before=end.sha256 if end else "",
        hashes=hashes,
        encrypted=Sealed(fingerprint(plan.encrypt.recipient)) if plan.encrypt else None,
    )


def _told(pieces: Iterator[bytes], name: str, ports: Ports) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        done += len(piece)
        ports.tell(f"export {name}", done, 0)
        yield piece


def _put(
    folder: Path,
    plan: Plan,
    one: Export,
    part: Part,
    store: Store,
    ports: Ports,
    *,
    replace: bool,
) -> None:
    """Upload a part: visible there only when the store vouches for it. Raises `StoreBroken`."""
    file, manifest = parts.local_name(plan.name, one.name, part)
    step = f"export {one.name} to {store.url}"
    store.put(
        folder / part.file,
        file,
        progress=lambda done, total: ports.tell(step, done, total),
        replace=replace,
    )
    if wrong := store.check(file, part.known):
        raise Corrupt(f"{part.file} in {store.url}: {wrong}")
    with tempfile.TemporaryDirectory(dir=plan.spool, prefix="rehash-") as name:
        local = Path(name, part.manifest)
        with landing(local) as out:
            out.write(part.dump())
        store.put(local, manifest, replace=replace)


def fetch(store: Store, part: Part, folder: Path, ports: Ports) -> Path:
    """Download a part's file and compare it with its manifest. Raises `Corrupt`, `StoreBroken`."""
    local = folder / part.file
    name, _ = parts.local_name(part.backup, part.export, part)
    step = f"get {store.url}"
    store.get(name, local, progress=lambda done, total: ports.tell(step, done, total))
    found = hash_file(local, ("sha256",))["sha256"]
    if found != part.sha256:
        local.unlink()
        raise Corrupt(
            f"{name} in {store.url}: its sha256 is {found[:16]}… and not {part.sha256[:16]}…"
        )
    return local
