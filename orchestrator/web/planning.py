"""`GET /api/plan`: the coming hours as the planner sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.core.gaps import Gap
from orchestrator.core.model import Fleet, Now
from orchestrator.core.planner import Ask, Handover, Plan, ServicePlan, Stretch, plan
from orchestrator.core.spans import total_s
from orchestrator.web.problems import unknown
from orchestrator.web.standing import rfc3339
from orchestrator.web.views import Time, View

DEFAULT_HOURS, MOST_HOURS = 48.0, 336.0


class StretchView(View):
    """`backend` (null: nobody) from `begins_at` to `ends_at`.

    `how`: `serving` or `standby` (it is up without anybody's doing, or beside another), `auto`
    (aion starts it), `hand` (a human does), `uncovered`. `usd` null: nobody gave a price.
    """

    backend: str | None
    begins_at: Time | None
    ends_at: Time | None
    hours: float
    how: str
    why: str
    usd: float | None


class HandoverView(View):
    """At `at` the service goes from `old` to `new`. `start_by`: when `new` is started, if it is."""

    at: Time | None
    old: str | None
    new: str
    how: str
    start_by: Time | None
    why: str


class AskView(View):
    """A human has to start `backend`, best between `at` and `by`, for the hours from `needed_at`.

    It is then up from `begins_at` to `ends_at`. `url`: what to open, "" if there is no page.
    """

    backend: str
    at: Time | None
    by: Time | None
    needed_at: Time | None
    begins_at: Time | None
    ends_at: Time | None
    url: str
    why: str


class OtherView(View):
    """Why this member of the pool does not cover a gap."""

    backend: str
    why: str


class GapView(View):
    """Hours that nobody covers, and the cheapest way to cover them after all.

    `backend` null: the pool has none; `do` says what is lacking.
    """

    begins_at: Time | None
    ends_at: Time | None
    hours: float
    backend: str | None
    do: str
    usd: float | None
    others: list[OtherView]


class ServicePlanView(View):
    """One service: `line` tiles the whole time, `beside` is who else of the pool is up."""

    service: str
    backends: list[str]
    uncovered_hours: float
    line: list[StretchView]
    beside: list[StretchView]
    handovers: list[HandoverView]
    asks: list[AskView]
    gaps: list[GapView]


class PlanView(View):
    """The plan from `as_of` until `ends_at`. `usd`: what the starts in it cost, as far as known."""

    as_of: Time | None
    ends_at: Time | None
    timezone: str
    usd: float
    services: list[ServicePlanView]


def plan_view(fleet: Fleet, now: Now, hours: float, service: str | None = None) -> PlanView:
    """Plan, and show all services or one."""
    found: Plan = plan(fleet, now, hours * 3600.0)
    shown = [one for name, one in found.services.items() if service in (None, name)]
    return PlanView(
        as_of=_at(found.begins),
        ends_at=_at(found.ends),
        timezone=fleet.config.timezone,
        usd=round(found.usd, 4),
        services=[_service(fleet, one) for one in shown],
    )


def add(routes: APIRouter, fleet: Callable[[], Fleet], now: Callable[[], Now]) -> None:
    """Add the route. Planning runs in a thread, on the state as it was when it was asked for."""

    @routes.get("/plan", tags=["look"])
    async def show(
        hours: Annotated[float, Query(gt=0, le=MOST_HOURS)] = DEFAULT_HOURS,
        service: Annotated[str | None, Query(max_length=200)] = None,
    ) -> PlanView:
        """Who serves when, what has to be started by when, and the hours that nobody covers."""
        live = fleet()
        if service is not None and service not in live.config.services:
            raise unknown("service", service, live.config.services)
        return await asyncio.to_thread(plan_view, still(live), now(), hours, service)


def still(fleet: Fleet) -> Fleet:
    """Return the fleet as it stands: the loop goes on changing the other one's tables."""
    return Fleet(
        config=fleet.config,
        world=fleet.world,
        backends=dict(fleet.backends),
        services=dict(fleet.services),
        meters=dict(fleet.meters),
    )


def _at(wall: float) -> str | None:
    return rfc3339(wall, Now(wall, wall))


def _hours(begins: float, ends: float) -> float:
    return round((ends - begins) / 3600, 4)


def _service(fleet: Fleet, one: ServicePlan) -> ServicePlanView:
    return ServicePlanView(
        service=one.service,
        backends=list(fleet.config.services[one.service].backends),
        uncovered_hours=round(total_s((gap.begins, gap.ends) for gap in one.gaps) / 3600, 4),
        line=[_stretch(part) for part in one.line],
        beside=[_stretch(part) for part in one.beside],
        handovers=[_handover(part) for part in one.handovers],
        asks=[_ask(part) for part in one.asks],
        gaps=[_gap(part) for part in one.gaps],
    )


def _stretch(one: Stretch) -> StretchView:
    return StretchView(
        backend=one.backend,
        begins_at=_at(one.begins),
        ends_at=_at(one.ends),
        hours=_hours(one.begins, one.ends),
        how=one.how.value,
        why=one.why,
        usd=None if one.usd is None else round(one.usd, 4),
    )


def _handover(one: Handover) -> HandoverView:
    start_by = None if one.start_by is None else _at(one.start_by)
    return HandoverView(
        at=_at(one.at),
        old=one.old,
        new=one.new,
        how=one.how.value,
        start_by=start_by,
        why=one.why,
    )


def _ask(one: Ask) -> AskView:
    return AskView(
        backend=one.backend,
        at=_at(one.at),
        by=_at(one.by),
        needed_at=_at(one.needed_at),
        begins_at=_at(one.begins),
        ends_at=_at(one.ends),
        url=one.url,
        why=one.why,
    )


def _gap(one: Gap) -> GapView:
    return GapView(
        begins_at=_at(one.begins),
        ends_at=_at(one.ends),
        hours=_hours(one.begins, one.ends),
        backend=one.backend,
        do=one.do,
        usd=None if one.usd is None else round(one.usd, 4),
        others=[OtherView(backend=name, why=why) for name, why in one.others],
    )
