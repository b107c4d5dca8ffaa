"""`/api/backups`: how each backup stands, and having one made now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.core.model import Now
from orchestrator.web.parts import Parts
from orchestrator.web.ports import BackupRow
from orchestrator.web.problems import Problem, unknown
from orchestrator.web.standing import rfc3339
from orchestrator.web.viewing import View
from orchestrator.web.views import Time


class CopyView(View):
    """One place of the last dump. `free`: bytes left there, null where the store does not say.

    `full_at`: when it is full at the rate of late, null where that is not foreseen.
    """

    store: str
    ok: bool
    detail: str
    free: int | None
    full_at: Time | None


class MoreView(View):
    """An export or a sync in the last run. `detail`: what is wrong, "" if nothing."""

    kind: str
    name: str
    detail: str
    said: str


class ProgressView(View):
    """How far a step is: bytes done of `total`, 0 where that is not known."""

    step: str
    done: int
    total: int


class BackupView(View):
    """A backup. `dump` and `size` (bytes, as stored) are of the last run that made one.

    `problem`: "" if its last run was well. `stale_at`: when it will be out of date, or is since.
    `rehashed_at`, `drilled_at`: when all copies were last read back, and a dump last restored.
    """

    name: str
    next_at: Time | None
    last_at: Time | None
    success_at: Time | None
    stale_at: Time | None
    stale: bool
    running: bool
    progress: ProgressView | None
    quarantined: bool
    dump: str
    size: int
    copies: list[CopyView]
    more: list[MoreView]
    problem: str
    rehashed_at: Time | None
    drilled_at: Time | None


class Started(View):
    """A backup was begun; `/api/backups` shows when it ends."""

    text: str


def routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes."""

    @router.get("/backups", tags=["look"])
    async def backups() -> list[BackupView]:
        """All backups."""
        found = await _rows(parts)
        return [_view(one, parts.loop.now()) for one in found]

    @router.post("/backups/{name}/run", tags=["command"], status_code=202)
    async def run(name: str) -> Started:
        """Begin a backup now, besides its schedule; it takes as long as it takes."""
        known = [one.name for one in await _rows(parts)]
        if parts.jobs is None or name not in known:
            raise unknown("backup", name, known)
        answer = parts.jobs.start_now(f"backup-{name}", operator=True)
        if answer.problem is not None:
            raise Problem(409, answer.problem, answer.text)
        return Started(text=answer.text)


def families(rows: Sequence[BackupRow]) -> Iterator[Metric]:
    """Yield the metrics; times in Unix seconds, 0 for never."""
    at = GaugeMetricFamily(
        "aion_backup_last_success_timestamp_seconds", "Last good run", labels=["backup"]
    )
    ran = GaugeMetricFamily("aion_backup_last_run_timestamp_seconds", "Last run", labels=["backup"])
    size = GaugeMetricFamily("aion_backup_size_bytes", "Last dump as stored", labels=["backup"])
    ok = GaugeMetricFamily("aion_backup_ok", "1: nothing is wrong with it", labels=["backup"])
    running = GaugeMetricFamily("aion_backup_running", "1: under way", labels=["backup"])
    copy = GaugeMetricFamily(
        "aion_backup_copy_ok", "1: the last dump is there", labels=["backup", "store"]
    )
    free = GaugeMetricFamily(
        "aion_backup_store_free_bytes", "Room left, as it says", labels=["backup", "store"]
    )
    for row in rows:
        at.add_metric([row.name], row.status.success_at)
        ran.add_metric([row.name], row.status.run_at)
        size.add_metric([row.name], row.status.size)
        ok.add_metric([row.name], float(not row.problem))
        running.add_metric([row.name], float(row.running))
        for one in row.status.copies:
            copy.add_metric([row.name, one.store], float(one.ok))
            if one.free >= 0:
                free.add_metric([row.name, one.store], one.free)
    yield from (at, ran, size, ok, running, copy, free)


async def _rows(parts: Parts) -> Sequence[BackupRow]:
    return await parts.backups() if parts.backups is not None else ()


def _view(row: BackupRow, now: Now) -> BackupView:
    ahead_s = now.at - now.wall
    status = row.status

    def shown(wall: float | None) -> Time | None:
        return rfc3339(wall + ahead_s, now) if wall else None

    since = status.success_at or status.first_at
    stale_at = since + row.stale_after_s if since else None
    return BackupView(
        name=row.name,
        next_at=shown(row.next_at),
        last_at=shown(status.run_at),
        success_at=shown(status.success_at),
        stale_at=shown(stale_at),
        stale=stale_at is not None and stale_at <= now.wall,
        running=row.running,
        progress=None if row.progress is None else ProgressView(**row.progress),
        quarantined=row.quarantined,
        dump=status.dump,
        size=status.size,
        copies=[
            CopyView(
                store=one.store,
                ok=one.ok,
                detail=one.detail,
                free=None if one.free < 0 else one.free,
                full_at=shown(status.full_at(one.store, now.wall)),
            )
            for one in status.copies
        ],
        more=[
            MoreView(kind=one.kind, name=one.name, detail=one.detail, said=one.said)
            for one in status.more
        ],
        problem=row.problem,
        rehashed_at=shown(status.rehashed_at),
        drilled_at=shown(status.drilled_at),
    )
