"""Runs the jobs when they are due, and remembers in our own table what ran.

A run is written down before it starts, so one that takes the daemon down with it is seen at the
next start. Two crashes in a row put a job in quarantine until it succeeds by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from jobs.base import Job, Tools
from orchestrator.core.events import Answer, Flagged
from orchestrator.core.model import Now
from orchestrator.errors import AionError, StoreError

CRASHED = "crashed: "
STOPPED = "stopped with the daemon"
DIED = f"{CRASHED}the daemon died while it ran"
QUARANTINE_AFTER = 2
NOT_IF_NEXT_WITHIN_S = 7200.0
SAID = 300  # characters of what a run says that are kept
_HISTORY = 10
_CUT_SHORT = (STOPPED, DIED)

log = structlog.get_logger()


class JobRun(Protocol):
    """One run as the table has it; `finished_at` None: it runs, or the daemon died meanwhile."""

    @property
    def id(self) -> int: ...
    @property
    def started_wall(self) -> float: ...
    @property
    def finished_at(self) -> float | None: ...
    @property
    def problem(self) -> str: ...


class JobLog(Protocol):
    """The table of what ran; the store is one. All may raise `StoreError`."""

    async def job_started(self, name: str, now: Now) -> int:
        """Write that a job starts; returns the run's id."""
        ...

    async def job_finished(self, run: int, now: Now, problem: str) -> None:
        """Write that a run ended; an empty `problem` is a success."""
        ...

    async def job_runs(self, name: str | None = None, limit: int = 100) -> Sequence[JobRun]:
        """Read runs, latest first."""
        ...


@dataclass(slots=True)
class _Entry:
    """One scheduled job and what is known of it; `crashes` counts those in a row."""

    job: Job
    trigger: Any
    last: float | None = None  # wall time of its last start
    problem: str = ""
    said: str = ""
    crashes: int = 0
    running: bool = False


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as `/api/jobs` shows it; times are Unix seconds.

    `said`: what its last run came to, unless that had a `problem`; "" after a restart.
    """

    name: str
    next_at: float | None
    last_at: float | None
    problem: str
    running: bool
    quarantined: bool
    said: str = ""


def nothing_more(tools: Tools) -> Sequence[Job]:  # noqa: ARG001 - it is the one that needs nothing
    """Give no jobs besides the fixed ones."""
    return ()


class Runner:
    """Owns the schedule. `report` takes `Flagged("job_quarantined", …)`.

    `more` gives the jobs that the configuration makes, anew after each reload.
    """

    def __init__(
        self,
        schedule: Sequence[Job],
        tools: Tools,
        *,
        table: JobLog,
        report: Callable[[Flagged], None],
        more: Callable[[Tools], Sequence[Job]] = nothing_more,
    ) -> None:
        self._more = more
        self._schedule, self._table, self._report = tuple(schedule), table, report
        self._heavy = asyncio.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._arrange(tools)

    def _arrange(self, tools: Tools) -> None:
        self._tools = tools
        jobs = (*self._schedule, *self._more(tools))
        found = ((job, job.trigger(tools)) for job in jobs)
        self._entries = {
            job.name: _Entry(job, trigger) for job, trigger in found if trigger is not None
        }
        # UTC: each trigger knows its own zone, and UTC has no hour that comes twice.
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._scheduler.add_listener(_tell, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    async def start(self, converged: Awaitable[object]) -> None:
        """Read what ran, start the schedule; make up for what was missed once `converged`.

        Raises `StoreError`.
        """
        now = self._tools.now()
        for entry in self._entries.values():
            await self._recall(entry, now)
        missed = self._missed(now.wall)
        for name, entry in self._entries.items():
            self._scheduler.add_job(
                self._due,
                entry.trigger,
                args=[name],
                id=name,
                misfire_grace_time=entry.job.misfire_grace_s,
                coalesce=True,
                max_instances=1,
            )
        self._scheduler.start()
        self._spawn(self._catch_up(self._spawn(converged), missed))

    async def configure(self, tools: Tools, converged: Awaitable[object]) -> None:
        """Go on with other tools and the schedule they make; what runs is stopped.

        Raises `StoreError`.
        """
        await self.stop()
        self._arrange(tools)
        await self.start(converged)

    async def stop(self) -> None:
        """Stop everything; a run under way is cancelled and written down as stopped."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_now(self, name: str) -> Answer:
        """Run a job because the operator says so; a success ends its quarantine."""
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(sorted(self._entries))
            return Answer(f"no job is called {name}; there are: {known}", "unknown")
        if entry.running:
            return Answer(f"{name} is running already", "conflict")
        text, ok = await self._spawn(self._run(entry))
        return Answer(f"{name}: {text}", None if ok else "conflict")

    def start_now(self, name: str, *, operator: bool = False) -> Answer:
        """Start a job and wait for nothing.

        Another schedule than ours is not the `operator`: a job in quarantine stays there.
        """
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(sorted(self._entries))
            return Answer(f"no job is called {name}; there are: {known}", "unknown")
        if entry.running:
            return Answer(f"{name} is running already", "running")
        if entry.crashes >= QUARANTINE_AFTER and not operator:
            text = f"{name} is in quarantine, for it crashed again and again: {entry.problem}"
            return Answer(text, "conflict")
        entry.running = True  # at once: its task begins later
        self._spawn(self._run(entry))
        return Answer(f"{name} is started")

    def view(self) -> tuple[JobView, ...]:
        """Return every job as it stands."""
        return tuple(self._view(entry) for entry in self._entries.values())

    def _view(self, entry: _Entry) -> JobView:
        planned = self._scheduler.get_job(entry.job.name)
        next_at = getattr(planned, "next_run_time", None)
        return JobView(
            entry.job.name,
            next_at.timestamp() if next_at else None,
            entry.last,
            entry.problem,
            entry.running,
            entry.crashes >= QUARANTINE_AFTER,
            entry.said,
        )

    # ── at the start ────────────────────────────────────────────────────────────────────────────

    async def _recall(self, entry: _Entry, now: Now) -> None:
        """Learn from the table when a job last ran, and how often in a row it crashed."""
        runs = await self._table.job_runs(entry.job.name, _HISTORY)
        problems = []
        for run in runs:
            problem = run.problem
            if run.finished_at is None:
                problem = DIED
                await self._table.job_finished(run.id, now, problem)
            problems.append(problem)
        if runs:
            entry.last, entry.problem = runs[0].started_wall, problems[0]
        for problem in problems:
            if not problem.startswith(CRASHED):
                break
            entry.crashes += 1
        self._judge(entry)

    def _missed(self, wall: float) -> list[_Entry]:
        """Return the jobs to make up for, longest overdue first."""
        found = []
        for entry in self._entries.values():
            if not entry.job.catch_up or entry.last is None:
                continue
            due = _next(entry.trigger, entry.last)
            if entry.job.resume and entry.problem in _CUT_SHORT:
                due = entry.last
            after = _next(entry.trigger, wall)
            if due is None or due > wall:
                continue
            if after is None or after - wall >= NOT_IF_NEXT_WITHIN_S:
                found.append((due, entry))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    async def _catch_up(self, converged: asyncio.Future[Any], missed: Sequence[_Entry]) -> None:
        await converged
        for entry in missed:
            if not entry.running and entry.crashes < QUARANTINE_AFTER:
                log.info("job_made_up_for", job=entry.job.name)
                await self._run(entry)

    # ── a run ───────────────────────────────────────────────────────────────────────────────────

    async def _due(self, name: str) -> None:
        entry = self._entries[name]
        if entry.crashes >= QUARANTINE_AFTER:
            log.warning("job_in_quarantine", job=name)
        elif not entry.running:
            await self._spawn(self._run(entry))

    def _spawn(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, entry: _Entry) -> tuple[str, bool]:
        entry.running = True
        try:
            if entry.job.heavy:
                async with self._heavy:
                    return await self._recorded(entry)
            return await self._recorded(entry)
        except StoreError as error:
            # What cannot be written down is not run: a crash of it would go unseen.
            log.error("job_not_recorded", job=entry.job.name, problem=str(error))  # noqa: TRY400
            return str(error), False
        finally:
            entry.running = False

    async def _recorded(self, entry: _Entry) -> tuple[str, bool]:
        now = self._tools.now()
        run = await self._table.job_started(entry.job.name, now)
        entry.last = now.wall
        text, problem = "", STOPPED
        try:
            text = await entry.job.run(self._tools)
            problem = ""
        except AionError as error:
            problem = str(error)
        except Exception as error:  # a job's bug must cost the job, not the daemon
            log.exception("job_crashed", job=entry.job.name)
            problem = f"{CRASHED}{type(error).__name__}"
        finally:
            # Also when cancelled: a graceful stop is no crash.
            await self._table.job_finished(run, self._tools.now(), problem)
            entry.problem, entry.said = problem, "" if problem else text[:SAID]
            entry.crashes = entry.crashes + 1 if problem.startswith(CRASHED) else 0
            self._judge(entry)
        log.info("job_ran", job=entry.job.name, problem=problem)
        return problem or text, not problem

    def _judge(self, entry: _Entry) -> None:
        """Flag a quarantine, or its end; said again and again it means the same."""
        quarantined = entry.crashes >= QUARANTINE_AFTER
        self._report(
            Flagged("job_quarantined", entry.job.name, entry.problem if quarantined else "")
        )


def _next(trigger: Any, wall: float) -> float | None:
    """Return the first time strictly after `wall` at which a trigger fires."""
    after = datetime.fromtimestamp(wall, UTC) + timedelta(microseconds=1)
    found = trigger.get_next_fire_time(None, after)
    return found.timestamp() if found else None


def _tell(event: Any) -> None:
    """Log a run that did not happen: it must not vanish silently."""
    log.warning("job_missed", job=event.job_id, code=event.code)
