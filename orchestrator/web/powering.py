"""Whether backends that aion can start are on: for `/api`, `aion explain` and `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from orchestrator.core import metering, onhours
from orchestrator.core.boots import boot_s
from orchestrator.core.durations import spoken
from orchestrator.core.hours import clock
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.core.specs import Backend
from orchestrator.web.standing import rfc3339
from orchestrator.web.viewing import Time, View


class PowerView(View):
    """Whether a backend that aion can start is on. `launch`: our label of what runs, if it is ours.

    `auto`: it is started by itself when it is needed, not before `retry_at`; `boot_s`: within how
    many seconds nine of ten starts were up; `failures` of starts in a row; `idle_since`: nobody has
    needed it from then; `would`: why it would be started if aion did not only observe. `on_until`:
    it should be on until then by its hours; `on_from`: when they begin next.
    """

    phase: str
    since: Time | None
    launch: str
    auto: bool
    why: str
    detail: str
    failures: int
    retry_at: Time | None
    confirmed_at: Time | None
    idle_since: Time | None
    boot_s: float
    would: str
    on_until: Time | None
    on_from: Time | None


def power_view(state: BackendState, backend: Backend, now: Now, zone: str) -> PowerView | None:
    """Show one backend's power; None if aion can neither start nor stop it."""
    if not backend.powered:
        return None
    hours = backend.on_hours
    until = onhours.until(hours, zone, now.wall)
    again = None if hours is None else onhours.next_from(hours, zone, now.wall)
    power = state.power or Power()
    return PowerView(
        phase=power.phase.value,
        since=rfc3339(power.since or None, now),
        launch=power.launch,
        auto=backend.auto_start,
        why=power.why,
        detail=power.detail,
        failures=power.failures,
        retry_at=rfc3339(power.retry_at, now),
        confirmed_at=rfc3339(power.confirmed_at, now),
        idle_since=rfc3339(power.idle_since, now),
        boot_s=round(boot_s(state), 3),
        would=power.would,
        on_until=_time(until),
        on_from=_time(again),
    )


def _time(wall: float | None) -> Time | None:
    return None if wall is None else rfc3339(wall, Now(wall, wall))


def words(fleet: Fleet, name: str, now: Now) -> str:
    """Say what starting and stopping has to do with how it stands; "" where nothing has."""
    backend, state = fleet.config.backends[name], fleet.backends.get(name)
    power = state.power if state is not None else None
    if not backend.powered or state is None:
        return ""
    if power is None or (power.phase is PowerPhase.UNKNOWN and not power.launch):
        return _unread(power)
    for_ = spoken(max(0.0, now.at - power.since))
    if power.phase is PowerPhase.STARTING:
        return f"started {for_} ago ({power.why}), which takes about {spoken(boot_s(state))}"
    if power.phase is PowerPhase.STOPPING:
        return f"being stopped for {for_}: {power.why or 'by its provider'}"
    zone = fleet.config.timezone
    until = onhours.until(backend.on_hours, zone, now.wall)
    if power.phase is PowerPhase.ON:
        if not power.launch:
            return "it is on, though not by us"
        return "" if until is None else f"on until {clock(until, zone)} by its hours"
    if not backend.auto_start:
        return "off; it is started by hand alone"
    if key := metering.lacking(fleet, name, now):
        return f"off; too little is left of {key} for a start"
    if power.failures or (power.retry_at or 0.0) > now.at:
        wait = spoken(max(0.0, (power.retry_at or now.at) - now.at))
        return f"off; it may be started in {wait}" + (f" ({power.detail})" if power.detail else "")
    return _when(backend, zone, now)


def _unread(power: Power | None) -> str:
    said = power.detail if power is not None else ""
    return said or "its provider has not said yet whether it is on"


def _when(backend: Backend, zone: str, now: Now) -> str:
    """Say when one that is off is started by itself."""
    why = "off; it is started when nobody cheaper can serve"
    if backend.on_hours is None:
        return why
    until = onhours.until(backend.on_hours, zone, now.wall)
    if until is not None:
        return f"off in its hours, which end {clock(until, zone)}"
    again = onhours.next_from(backend.on_hours, zone, now.wall)
    return why if again is None else f"{why}, and {clock(again, zone)} by its hours"


def families(fleet: Fleet) -> Iterator[Metric]:
    """Yield the metrics."""
    phases = GaugeMetricFamily(
        "aion_backend_power", "1 for whether it is on", labels=["backend", "phase"]
    )
    failures = GaugeMetricFamily(
        "aion_backend_start_failures", "Failed starts in a row", labels=["backend"]
    )
    boots = GaugeMetricFamily(
        "aion_backend_boot_seconds", "Nine of ten starts were up by then", labels=["backend"]
    )
    for name, backend in fleet.config.backends.items():
        state = fleet.backends.get(name)
        if not backend.powered or state is None:
            continue
        power = state.power or Power()
        for phase in PowerPhase:
            phases.add_metric([name, phase.value], float(power.phase is phase))
        failures.add_metric([name], power.failures)
        boots.add_metric([name], boot_s(state))
    yield from (phases, failures, boots)
