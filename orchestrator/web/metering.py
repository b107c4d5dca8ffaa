"""What `/api/meters` and `/metrics` show of the meters."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.core import ledger, meters
from orchestrator.core.meters import MeterSpec, MeterState
from orchestrator.core.model import Fleet, Now
from orchestrator.core.windows import FOREVER
from orchestrator.web.ports import LoopPort
from orchestrator.web.receipts import ReceiptView, receipt
from orchestrator.web.standing import rfc3339
from orchestrator.web.views import Time, View


class MeterView(View):
    """Something that runs out, in `unit`: hours, usd, requests, tokens or bytes.

    `reserved`: set aside for what is on or under way, and not used yet. `limit`, `left` null: it is
    only counted. `level`: 0, 80, 95 or 100 (spent). `advisory`: being spent bars nobody. `on`: it
    is being used now. `starts_again_at`: when it is whole again; `spent_until`: nothing of it can
    be used before. `runs_out_at`: at the present rate, `short`: before it starts again. `told_at`:
    when its provider last gave a figure.
    """

    key: str
    backend: str | None
    unit: str
    used: float
    reserved: float
    limit: float | None
    left: float | None
    level: int
    advisory: bool
    on: bool
    rate_per_hour: float | None
    per: str
    rolling: bool
    starts_again_at: Time | None
    expires_at: Time | None
    spent_until: Time | None
    runs_out_at: Time | None
    short: bool
    told_at: Time | None


def meter_view(spec: MeterSpec, state: MeterState, now: Now) -> MeterView:
    """Show one meter."""
    wall = ledger.believed(state, now.at, now.wall)
    window = spec.window
    again = None if window.rolling or window.expires_at else meters.starts_again(spec, wall)
    return MeterView(
        key=spec.key,
        backend=spec.backend,
        unit=spec.unit.value,
        used=round(meters.used(state, wall), 6),
        reserved=round(meters.reserved(state), 6),
        limit=spec.limit,
        left=_rounded(meters.left(state, spec, wall)),
        level=meters.level(state, spec, wall),
        advisory=spec.advisory,
        on=spec.rate_per_hour is not None
        and (state.block is not None or state.paid_until > now.at),
        rate_per_hour=spec.rate_per_hour,
        per=window.per.value,
        rolling=window.rolling,
        starts_again_at=_time(again),
        expires_at=_time(window.expires_at),
        spent_until=_time(meters.exhausted_until(state, spec, wall)),
        runs_out_at=_time(meters.forecast(state, spec, wall)),
        short=meters.short(state, spec, wall) is not None,
        told_at=_time(state.told_at),
    )


def meter_views(fleet: Fleet, now: Now) -> list[MeterView]:
    """Show all meters, in the order of the configuration."""
    return [
        meter_view(spec, fleet.meters.get(key) or MeterState(key), now)
        for key, spec in fleet.config.meters.items()
    ]


def routes(router: APIRouter, loop: LoopPort) -> None:
    """Add the routes."""

    @router.get("/meters", tags=["look"])
    async def all_meters(month: str | None = None) -> list[MeterView] | ReceiptView:
        """All that runs out: what is used, what is left, and until when it lasts.

        With `month`, such as 2026-11 or empty for this one: what that month came to.
        """
        if month is not None:
            return receipt(loop.fleet, loop.now(), month)
        return meter_views(loop.fleet, loop.now())


def families(fleet: Fleet, now: Now) -> Iterator[Metric]:
    """Give the gauges; without a limit there is no limit and nothing left to show."""
    labels = ["meter", "backend", "unit"]
    gauges = {
        "used": GaugeMetricFamily("aion_meter_used", "Used", labels=labels),
        "reserved": GaugeMetricFamily("aion_meter_reserved", "Set aside, not used", labels=labels),
        "limit": GaugeMetricFamily("aion_meter_limit", "What there is", labels=labels),
        "left": GaugeMetricFamily("aion_meter_left", "Neither used nor set aside", labels=labels),
    }
    for view in meter_views(fleet, now):
        for name, gauge in gauges.items():
            value = getattr(view, name)
            if value is not None:
                gauge.add_metric([view.key, view.backend or "", view.unit], value)
    yield from gauges.values()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _time(wall: float | None) -> Time | None:
    return None if wall is None or wall >= FOREVER else rfc3339(wall, Now(wall, wall))
