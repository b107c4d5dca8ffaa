"""Everything that survives a restart: one database, one connection, one writer.

Intent is committed here before it is carried out: `commit` writes the state a turn changed, its
log lines, incidents, outbox and the answer to its command in one transaction. Observations are
gathered in memory and written in batches; losing the last seconds of those loses statistics.
The SQL is in `queries.py`, what is SQLite's own in `sqlite.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from orchestrator.core.events import Answer, Turn
from orchestrator.core.lives import PastSession
from orchestrator.core.model import Incident, Now, Observation
from orchestrator.edge import pruning, queries, schema, sqlite
from orchestrator.edge.clock import Anchor
from orchestrator.edge.queries import Audit, EventRow, JobRun, Saved
from orchestrator.edge.rolling import Rolling, Seen, Tally
from orchestrator.edge.runners import Runner, in_thread, inline
from orchestrator.errors import StoreError, StoreFull

__all__ = [
    "Audit",
    "EventRow",
    "History",
    "JobRun",
    "Runner",
    "Saved",
    "Seen",
    "Store",
    "Tally",
    "in_thread",
    "inline",
]

T = TypeVar("T")
Row = Mapping[str, Any]
ROOM_AGAIN_BYTES = 1 << 20  # beyond the ballast, before a full disk counts as over
VACUUM_PAGES = 2000


@dataclass(frozen=True, slots=True)
class History:
    """What was observed of one backend, oldest first.

    `hours` are at most 90 days of tallies, `changes` the last 200 observations that differed from
    the one before, `latest` the last 30 observations since this daemon started.
    """

    hours: tuple[Tally, ...]
    changes: tuple[Seen, ...]
    latest: tuple[Seen, ...]


class Store:
    """The database at `url`, worked through `run`.

    `instance` names a new database; one is made up when it is not given. `create` makes the tables
    where there are none, which is otherwise the business of `migrate`. Every method raises
    StoreError, StoreFull or StoreTooNew with one line, and then nothing of it was written.

    `anchor` is the clock's, set after `load`; it is written with whatever is written next, for a
    start itself must need no room on the disk. A crash loses the statistics of the last
    `tally_every_s` at most.
    """

    anchor: Anchor | None = None
    tally_every_s = 10.0

    def __init__(
        self, url: str, run: Runner, *, instance: str | None = None, create: bool = False
    ) -> None:
        self._url = url
        self._run = run
        self._instance = instance
        self._create = create
        self._path = sqlite.path_of(url)
        self._lock = sqlite.Lock(self._path) if self._path else None
        self._ballast = sqlite.Ballast(self._path) if self._path else None
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._rolling = Rolling()
        self._flushing = asyncio.Lock()  # an hour absorbed twice would count double
        self._tallied_at = 0.0
        self._full = False
        self._tied: Anchor | None = None  # the anchor that the database holds

    @property
    def full(self) -> bool:
        """Whether the disk is full: transitions still go on as long as there is room for them."""
        return self._full

    # ── start and end ───────────────────────────────────────────────────────────────────────────

    async def load(self) -> Saved:
        """Open the database and read what it holds; called once, before anything else."""
        try:
            saved, seqs = await self._run(self._open)
        except BaseException:
            await self._run(self._shut)
            raise
        self._rolling.resume(seqs)
        self.anchor = self._tied = saved.anchor
        return saved

    async def close(self) -> None:
        """Write what is still in memory, close the database and let others have it."""
        try:
            if self._connection is not None:
                await self.flush(everything=True)
        finally:
            await self._run(self._shut)
            self._run.close()

    def _open(self) -> tuple[Saved, dict[str, int]]:
        if self._path and self._lock:
            sqlite.make_folder(self._path)
            self._lock.take()
            sqlite.make_private(self._path)
        try:
            return self._with_ballast(self._connect_and_read)
        finally:
            if self._ballast and self._connection is not None:
                self._full = not self._ballast.lay()

    def _connect_and_read(self) -> tuple[Saved, dict[str, int]]:
        if self._connection is None:
            self._engine = sqlite.engine_for(self._url)
            self._connection = self._engine.connect()
        with self._connection.begin():
            schema.ensure(self._connection, self._url, create=self._create)
            queries.begin_world(self._connection, self._instance or secrets.token_hex(8))
            try:
                saved = queries.read_saved(self._connection)
            except (ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                raise StoreError(
                    f"database {sqlite.shown(self._url)} holds what aion cannot read: {reason}"
                ) from error
            return saved, queries.change_numbers(self._connection)

    def _shut(self) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        except sqlite.LIBRARY_ERRORS as error:
            raise sqlite.explain(error, self._url) from error
        finally:
            self._connection = None
            if self._engine is not None:
                self._engine.dispose()
            if self._lock is not None:
                self._lock.drop()

    # ── doing work, and what to do when there is no room ────────────────────────────────────────

    def _with_ballast(self, work: Callable[[], T]) -> T:
        """Do `work`; on a full disk give up the ballast and do it once more."""
        try:
            return self._explained(work)
        except StoreFull:
            self._full = True
            if self._ballast is None or not self._ballast.release():
                raise
        self._shrink_log()
        return self._explained(work)

    def _explained(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite.LIBRARY_ERRORS as error:
            raise sqlite.explain(error, self._url) from error

    def _shrink_log(self) -> None:
        if self._connection is not None:
            sqlite.shrink_log(self._connection)

    def _begun(self, work: Callable[[Connection], T]) -> T:
        connection = self._open_connection()
        with connection.begin():
            return work(connection)

    def _written(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction that brings the anchor along if the database has another."""
        anchor = self.anchor

        def both(connection: Connection) -> T:
            if anchor is not None and anchor != self._tied:
                queries.tie(connection, anchor)
            return work(connection)

        done = self._begun(both)
        self._tied = anchor
        return done

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise StoreError(f"database {sqlite.shown(self._url)} is not open")
        return self._connection

    async def _intend(self, work: Callable[[Connection], T]) -> T:
        """Do what must not be lost: the ballast is there for it."""
        return await self._run(lambda: self._with_ballast(lambda: self._written(work)))

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await self._run(lambda: self._explained(lambda: self._begun(work)))

    # ── transitions ─────────────────────────────────────────────────────────────────────────────

    async def commit(self, turn: Turn, now: Now, audit: Audit | None = None) -> None:
        """Write a turn, whole or not at all; when this returns it survives a power cut."""
        await self._intend(lambda connection: queries.save_turn(connection, turn, now, audit))

    async def answered(self, key: str) -> Answer | None:
        """Give the answer to the command that came with this key, if one did."""
        return await self._do(lambda connection: queries.answered(connection, key))

    async def events(
        self, after: int = 0, limit: int = 100, subject: str | None = None
    ) -> list[EventRow]:
        """Read the event log in order: at most `limit` lines after number `after`.

        With `after` 0 these are the last `limit` lines. `subject` keeps only its own.
        """
        return await self._do(lambda c: queries.events(c, after, limit, subject))

    async def incident(self, identifier: str) -> Incident | None:
        """Find an incident by its id, open or closed."""
        return await self._do(lambda connection: queries.incident(connection, identifier))

    async def closed_incidents(self, limit: int = 100) -> list[Incident]:
        """Read incidents that are over, latest first."""
        return await self._do(lambda connection: queries.closed(connection, limit))

    async def past_session(self, ident: str) -> PastSession | None:
        """Find a session that is over, by its id."""
        return await self._do(lambda connection: queries.past_session(connection, ident))

    async def past_sessions(
        self, backend: str | None = None, limit: int = 100
    ) -> list[PastSession]:
        """Read sessions that are over, of one backend or of all, latest first."""
        return await self._do(lambda c: queries.past_sessions(c, backend, limit))

    # ── observations ────────────────────────────────────────────────────────────────────────────

    def observe(self, observation: Observation, at: float) -> None:
        """Count an observation made at steady time `at`; `flush` writes it."""
        self._rolling.add(observation, at)

    async def flush(self, *, everything: bool = False) -> None:
        """Write observations: changes now, tallies every 10 s or with `everything`.

        Called every second or two. While the disk is full nothing is written and nothing but detail
        is lost: tallies go on in memory.
        """
        async with self._flushing:
            if not self._full or await self._run(self._room_again):
                await self._flush(everything)

    async def _flush(self, everything: bool) -> None:
        rolling = self._rolling
        tallies = everything or abs(rolling.at - self._tallied_at) >= self.tally_every_s
        if not tallies and not rolling.changed:
            return
        for hour in sorted(rolling.unread()):
            stored = await self._do(partial(queries.tallies, hour=hour))
            rolling.absorb(hour, stored)
        batch = rolling.take(tallies=tallies)
        if not batch:
            return
        rows = [tally.row() for tally in batch.tallies]
        try:
            await self._run(lambda: self._explained(lambda: self._write(rows, batch.changes)))
        except StoreError as error:
            rolling.put_back(batch)
            self._full = self._full or isinstance(error, StoreFull)
            if not isinstance(error, StoreFull):
                raise
        else:
            self._tallied_at = rolling.at if tallies else self._tallied_at

    def _write(self, tallies: Sequence[Row], changes: Sequence[Row]) -> None:
        at = self._rolling.at

        def write(connection: Connection) -> None:
            queries.upsert(connection, queries.TALLY, tallies)
            queries.upsert(connection, queries.CHANGE, changes)
            queries.touch(connection, at)

        with sqlite.relaxed(self._open_connection()):
            self._written(write)

    def _room_again(self) -> bool:
        if self._ballast is None or self._ballast.lay(spare=ROOM_AGAIN_BYTES):
            self._full = False
        return not self._full

    async def history(self, backend: str) -> History:
        """Say what was observed of a backend."""
        hours, changes = await self._do(
            lambda c: (queries.tallies(c, backend=backend), queries.changes(c, backend))
        )
        current = self._rolling.current(backend)
        if current is not None:
            hours = [tally for tally in hours if tally.hour != current.hour] + [current]
        return History(tuple(hours), tuple(changes), tuple(self._rolling.latest(backend)))

    # ── jobs ────────────────────────────────────────────────────────────────────────────────────

    async def job_started(self, name: str, now: Now) -> int:
        """Write that a job is about to run; the answer is the run's number."""
        return await self._intend(lambda connection: queries.job_started(connection, name, now))

    async def job_finished(self, run: int, now: Now, problem: str = "") -> None:
        """Write that a run is over; `problem` is empty if it went well."""
        await self._intend(lambda connection: queries.job_finished(connection, run, now, problem))

    async def job_runs(self, name: str | None = None, limit: int = 20) -> list[JobRun]:
        """Read the last runs of a job, or of all, latest first."""
        return await self._do(lambda connection: queries.job_runs(connection, name, limit))

    # ── upkeep ──────────────────────────────────────────────────────────────────────────────────

    async def prune(self, now: Now) -> None:
        """Let go of what is old, in short transactions, and give the room back to the disk."""
        for step in pruning.steps(now.at):
            while await self._intend(step) >= pruning.AT_ONCE:
                pass
        await self._run(lambda: self._explained(self._vacuum))

    def _vacuum(self) -> None:
        sqlite.vacuum(self._open_connection(), VACUUM_PAGES)

    async def copy_to(self, path: Path) -> None:
        """Copy the database, as it is now, to a file that appears when it is whole."""
        await self._run(lambda: self._copy(path))

    def _copy(self, path: Path) -> None:
        raw = self._open_connection().connection.driver_connection
        if not isinstance(raw, sqlite3.Connection):
            raise StoreError("only a SQLite database can be copied; use pg_dump")
        try:
            sqlite.copy(raw, path)
        except sqlite.LIBRARY_ERRORS as error:
            raise StoreError(f"no copy of the database at {path}: {error}") from error
