"""Backups on their schedules: one job for each, in a child process; and what is said of them.

`jobs.backup` does the work. Nothing of it but plain values is imported here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from jobs.base import BackupSettings, BackupTools, Job, Tools
from jobs.deadman import ping
from orchestrator.core.events import Flagged
from orchestrator.core.publishing import REPLACED
from orchestrator.errors import AionError, ChildFailed

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from jobs.backup.status import Status

CHILD: Final = "jobs.backup.child"
LOOK_S: Final = 300.0
GRACE_S: Final = 6 * 3600
SPARE_S: Final = 3600.0
Ask = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Has the child do something (`run`, `rehash`, `drill`) and returns its answer."""


class BackupFailed(AionError):
    """A backup did not come to a good end; says why."""


class Planned(Protocol):
    """What is known of a job's schedule; times are Unix seconds."""

    @property
    def name(self) -> str: ...
    @property
    def next_at(self) -> float | None: ...
    @property
    def running(self) -> bool: ...
    @property
    def problem(self) -> str: ...
    @property
    def quarantined(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class BackupView:
    """A backup as `/api/backups` shows it."""

    name: str
    status: Status
    stale_after_s: float
    next_at: float | None = None
    running: bool = False
    quarantined: bool = False
    problem: str = ""
    progress: Mapping[str, Any] | None = None


def job_name(backup: str) -> str:
    """Name the job of a backup."""
    return f"backup-{backup}"


def jobs(tools: Tools) -> tuple[Job, ...]:
    """Make the jobs of all backups."""
    if tools.backups is None or not tools.backups.backups:
        return ()
    return (
        *(_job(settings) for settings in tools.backups.backups),
        Job("backups", _often, look, heavy=False, misfire_grace_s=60, catch_up=False),
    )


def _job(settings: BackupSettings) -> Job:
    return Job(
        job_name(settings.name),
        partial(_due, settings.schedule),
        partial(run, settings),
        heavy=True,
        misfire_grace_s=GRACE_S,
        catch_up=True,
        resume=True,
    )


def _due(schedule: str, tools: Tools) -> BaseTrigger:
    from jobs.triggers import cron  # noqa: PLC0415 - the command line imports this module

    return cron(schedule, tools.timezone)


def _often(_: Tools) -> BaseTrigger:
    from jobs.triggers import every  # noqa: PLC0415 - as above

    return every(LOOK_S)


async def run(settings: BackupSettings, tools: Tools) -> str:
    """Back up, have the weekly looks, ping. Raises `BackupFailed`."""
    assert tools.backups is not None
    kit = tools.backups
    try:
        said = await back_up(settings, _asking(settings, kit), lambda: tools.now().wall)
    except BackupBusy:
        raise
    except BackupFailed as error:
        kit.report(Flagged("backup_failed", settings.name, str(error)))
        if isinstance(error, BackupReplaced):
            kit.report(Flagged(REPLACED, settings.name, str(error)))
        raise
    kit.report(Flagged("backup_failed", settings.name, ""))
    kit.report(Flagged("backup_stale", settings.name, ""))
    kit.report(Flagged(REPLACED, settings.name, ""))
    status = await _load(Path(settings.plan.spool), tools.now().wall)
    kit.report(Flagged("backup_filling", settings.name, status.filling(tools.now().wall)))
    return said


class BackupReplaced(BackupFailed):
    """This aion was rebuilt on another machine, which backs up now."""


class BackupBusy(BackupFailed):
    """Another run of the same backup is under way: that is no failure of this one."""


def _asking(settings: BackupSettings, kit: BackupTools) -> Ask:
    limits = settings.plan.timeouts
    timeout_s = limits.dump_s + limits.upload_s + SPARE_S
    plan = settings.plan.to_json()

    def news(told: Mapping[str, Any]) -> None:
        kit.board[settings.name] = told

    async def ask(do: str) -> Mapping[str, Any]:
        given = {"do": do, "plan": plan}
        try:
            return await kit.children(CHILD, given, timeout_s=timeout_s, news=news)
        finally:
            kit.board.pop(settings.name, None)

    return ask


async def back_up(settings: BackupSettings, ask: Ask, wall: Callable[[], float]) -> str:
    """Have a backup made and looked at, and keep what came of it; return one line.

    Raises `BackupFailed`, `BackupBusy`.
    """
    from jobs.backup.status import told  # noqa: PLC0415 - the command line imports this module

    spool = Path(settings.plan.spool)
    status = await _load(spool, wall())
    answer = await _answer(ask, "run")
    if answer.get("kind") == "Busy":
        raise BackupBusy(told(answer))
    status = status.after(answer, wall())
    await _save(status, spool)
    if status.problem:
        raise (BackupReplaced if answer.get("replaced") else BackupFailed)(status.problem)
    status = await _looks(settings, ask, wall, status)
    await _save(status, spool)
    if status.looked:
        raise BackupFailed(status.looked)
    if settings.ping_url:
        try:
            await ping(settings.ping_url)
        except AionError as error:  # the backup itself is well
            return f"{status.line}; not pinged: {error}"
    return status.line


async def _looks(
    settings: BackupSettings, ask: Ask, wall: Callable[[], float], status: Status
) -> Status:
    """Read the copies back each week, and drill when that is due."""
    from jobs.backup.status import EARLY_S, REHASH_S, told  # noqa: PLC0415 - as above

    problems = []
    if wall() - status.rehashed_at > REHASH_S - EARLY_S:
        problem = told(await _answer(ask, "rehash"))
        problems += [f"read back: {problem}"] if problem else []
        status = status if problem else replace(status, rehashed_at=wall())
    if settings.drills and wall() - status.drilled_at > settings.plan.drill.every_s - EARLY_S:
        answer = await _answer(ask, "drill")
        problem = told({key: value for key, value in answer.items() if key != "dump"})
        problems += [f"drill: {problem}"] if problem else []
        status = status if problem else replace(status, drilled_at=wall())
    return replace(status, looked="; ".join(problems))


async def _answer(ask: Ask, do: str) -> Mapping[str, Any]:
    try:
        return await ask(do)
    except ChildFailed as error:
        return {"ok": False, "detail": str(error)}


async def _load(spool: Path, wall: float) -> Status:
    """Read how a backup stands; what is new here is known from now on."""
    from jobs.backup.status import Status  # noqa: PLC0415 - as above

    status = await asyncio.to_thread(Status.load, spool)
    if not status.first_at:
        status = replace(status, first_at=wall)
        await _save(status, spool)
    return status


async def _save(status: Status, spool: Path) -> None:
    try:
        await asyncio.to_thread(status.save, spool)
    except OSError as error:
        raise BackupFailed(f"{spool} cannot be written: {error.strerror}") from error


async def look(tools: Tools) -> str:
    """Flag what had no success for too long; said again and again it means the same."""
    assert tools.backups is not None
    stale = []
    for settings in tools.backups.backups:
        wall = tools.now().wall
        status = await _load(Path(settings.plan.spool), wall)
        detail = ""
        if status.stale(wall, settings.stale_after_s):
            stale.append(settings.name)
            last = datetime.fromtimestamp(status.success_at, UTC)
            since = f"its last success was on {last:%Y-%m-%d at %H:%M} UTC"
            detail = since if status.success_at else "it never succeeded"
        tools.backups.report(Flagged("backup_stale", settings.name, detail))
    return f"out of date: {', '.join(stale)}" if stale else "up to date"


def forget(
    old: Sequence[BackupSettings],
    new: Sequence[BackupSettings],
    report: Callable[[Flagged], None],
) -> None:
    """End the incidents of backups that the configuration has no more."""
    for name in {one.name for one in old} - {one.name for one in new}:
        for kind in ("backup_failed", "backup_stale", "backup_filling", REPLACED):
            report(Flagged(kind, name, ""))


async def view(
    backups: Sequence[BackupSettings],
    planned: Sequence[Planned],
    board: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[BackupView, ...]:
    """Return every backup as it stands; `board`: how far those under way are, by name."""
    from jobs.backup.status import Status  # noqa: PLC0415 - as above

    by_name = {job.name: job for job in planned}
    found = []
    for settings in backups:
        status = await asyncio.to_thread(Status.load, Path(settings.plan.spool))
        job = by_name.get(job_name(settings.name))
        problem = status.problem or status.looked
        if job is None:
            found.append(
                BackupView(
                    settings.name,
                    status,
                    settings.stale_after_s,
                    problem=problem,
                    progress=(board or {}).get(settings.name),
                )
            )
            continue
        found.append(
            BackupView(
                settings.name,
                status,
                settings.stale_after_s,
                job.next_at,
                job.running,
                job.quarantined,
                job.problem or problem,
                (board or {}).get(settings.name),
            )
        )
    return tuple(found)
