"""What a month came to: our books against the providers' own figures. For `/api/meters?month=`."""

from __future__ import annotations

from orchestrator.core import ledger, meters
from orchestrator.core.meters import MeterSpec, MeterState, Unit
from orchestrator.core.model import Fleet, Now
from orchestrator.core.months import Month, PowerMonth, bounds, name_of, shares
from orchestrator.core.power import of, on_from
from orchestrator.core.windows import Per
from orchestrator.web.problems import Problem
from orchestrator.web.standing import rfc3339
from orchestrator.web.views import Time, View

OURSELVES = "aion"  # whose meters belong to no backend
UNITS = {unit.value for unit in Unit}
MONTHS = 12  # that are kept beside the present one


class MeterReceipt(View):
    """What a month took of one meter, in its unit.

    `counted`: by us; `corrected`: what the provider's figures put on top of that, or took off;
    `total` of both. `forecast`: what it comes to by the end of the month at the rate of late; null
    once the month is over. `said`: the provider's last figure in it, of the meter's own period, at
    `said_at`; `ours`: what we had counted in that period till then; `differs`: theirs less ours.
    """

    key: str
    unit: str
    counted: float
    corrected: float
    total: float
    forecast: float | None
    said: float | None
    said_at: Time | None
    ours: float | None
    differs: float | None


class BackendReceipt(View):
    """What a month saw of one backend: starts that aion asked for, of these failed, hours on, USD.

    Null where nobody counts it.
    """

    backend: str
    starts: int | None
    failed_starts: int | None
    hours_on: float | None
    usd: float | None
    usd_forecast: float | None
    meters: list[MeterReceipt]


class ReceiptView(View):
    """One calendar month by `timezone`. `months`: those of which something is known."""

    month: str
    timezone: str
    begins_at: Time
    ends_at: Time
    over: bool
    months: list[str]
    backends: list[BackendReceipt]
    usd: float
    usd_forecast: float | None


def receipt(fleet: Fleet, now: Now, month: str = "") -> ReceiptView:
    """Draw up one month; "": the present one. Raises `Problem` for one that is not kept."""
    zone = fleet.config.timezone
    present = name_of(now.wall, zone)
    month = month or present
    try:
        begins, ends = bounds(month, zone)
    except ValueError as error:
        raise Problem(422, "invalid", str(error)) from None
    known = sorted({*_known(fleet), present})
    if month > present or (month not in known and month < _back(present)):
        kept = f"kept are the months from {known[0]} to {present}"
        raise Problem(404, "no_month", f"nothing is known of {month}; {kept}")
    gone = _gone(fleet)
    owners = (one.backend or OURSELVES for one in gone)
    backends = [
        one
        for name in dict.fromkeys((*fleet.config.backends, *owners, OURSELVES))
        if (one := _backend(fleet, gone, name, month, now)) is not None
    ]
    forecasts = [one.usd_forecast for one in backends if one.usd_forecast is not None]
    return ReceiptView(
        month=month,
        timezone=zone,
        begins_at=_time(begins),
        ends_at=_time(ends),
        over=now.wall >= ends,
        months=known,
        backends=backends,
        usd=round(sum(one.usd or 0.0 for one in backends), 4),
        usd_forecast=round(sum(forecasts), 4) if forecasts else None,
    )


def _known(fleet: Fleet) -> set[str]:
    found = {one.name for state in fleet.meters.values() for one in state.months}
    powers = (state.power for state in fleet.backends.values() if state.power is not None)
    return found | {one.name for power in powers for one in power.months}


def _gone(fleet: Fleet) -> list[MeterSpec]:
    """Give what was counted once and is no longer configured: it was spent all the same."""
    found = []
    for key in sorted(fleet.meters.keys() - fleet.config.meters.keys()):
        backend, _, word = key.rpartition(":")
        unit = Unit(word) if word in UNITS else Unit.REQUESTS
        found.append(MeterSpec(key, unit, None, backend=backend, zone=fleet.config.timezone))
    return found


def _back(present: str) -> str:
    """Name the month twelve before this one."""
    year, _, number = present.partition("-")
    return f"{int(year) - 1}-{number}"


def _backend(
    fleet: Fleet, gone: list[MeterSpec], name: str, month: str, now: Now
) -> BackendReceipt | None:
    """Give a backend's part; None where it has no meter and cannot be started."""
    mine = None if name == OURSELVES else name
    specs = [spec for spec in fleet.config.meters.values() if spec.backend == mine]
    specs += [one for one in gone if one.backend == name and _took(fleet, one, month)]
    spec = fleet.config.backends.get(name)
    power = _power(fleet, name, month, now) if spec is not None and spec.powered else None
    if not specs and power is None:
        return None
    rows = {one.key: _meter(fleet, one, month, now) for one in specs}
    dollars = rows.get(f"{name}:{Unit.USD.value}")
    on_s = power.on_s if power is not None else _metered_s(specs, rows)
    return BackendReceipt(
        backend=name,
        starts=None if power is None else power.starts,
        failed_starts=None if power is None else power.failed,
        hours_on=None if on_s is None else round(on_s / 3600, 4),
        usd=None if dollars is None else dollars.total,
        usd_forecast=None if dollars is None else dollars.forecast,
        meters=list(rows.values()),
    )


def _took(fleet: Fleet, spec: MeterSpec, month: str) -> bool:
    return any(one.name == month for one in fleet.meters[spec.key].months)


def _metered_s(specs: list[MeterSpec], rows: dict[str, MeterReceipt]) -> float | None:
    """Say for how long it was on by what its meters took."""
    timed = [spec for spec in specs if spec.rate_per_hour]
    if not timed:
        return None
    return rows[timed[0].key].counted / (timed[0].rate_per_hour or 1.0) * 3600


def _power(fleet: Fleet, name: str, month: str, now: Now) -> PowerMonth:
    state = fleet.backends.get(name)
    if state is None or state.power is None:
        return PowerMonth(month)
    found = next((one for one in state.power.months if one.name == month), PowerMonth(month))
    began = on_from(of(state))
    if began is None:
        return found
    goes_on = shares(began + now.wall - now.at, now.wall, fleet.config.timezone)
    more_s = sum(seconds for which, seconds in goes_on if which == month)
    return PowerMonth(month, found.starts, found.failed, found.on_s + more_s)


def _meter(fleet: Fleet, spec: MeterSpec, month: str, now: Now) -> MeterReceipt:
    state = fleet.meters.get(spec.key) or MeterState(spec.key)
    found = next((one for one in state.months if one.name == month), Month(month))
    wall, counted = ledger.believed(state, now.at, now.wall), found.counted
    present = name_of(wall, spec.zone) == month
    if present and state.block is not None:
        counted += state.block.used
    total = counted + found.corrected
    differs = None if found.said is None else found.said - found.ours
    return MeterReceipt(
        key=spec.key,
        unit=spec.unit.value,
        counted=round(counted, 6),
        corrected=round(found.corrected, 6),
        total=round(total, 6),
        forecast=round(_forecast(fleet, spec, state, total, wall), 6) if present else None,
        said=found.said,
        said_at=None if found.said_at is None else _time(found.said_at),
        ours=None if found.said is None else round(found.ours, 6),
        differs=None if differs is None else round(differs, 6),
    )


def _forecast(fleet: Fleet, spec: MeterSpec, state: MeterState, total: float, wall: float) -> float:
    """Say what the month comes to if it goes on as of late, or until nothing is left for good."""
    if spec.key not in fleet.config.meters:
        return total
    left_s = bounds(name_of(wall, spec.zone), spec.zone)[1] - wall
    more = meters.learned_per_hour(state, spec, wall) * left_s / 3600
    rest = meters.usable(state, spec, wall)
    if rest is not None and spec.window.per is Per.EVER:
        more = min(more, rest)
    return total + more


def _time(wall: float) -> Time:
    return rfc3339(wall, Now(wall, wall)) or ""
