"""When starting and stopping may change by time alone: no stage may jump over that."""

from __future__ import annotations

import math

from orchestrator.core import onhours
from orchestrator.core.boots import boot_s
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import BackendState, Fleet, Health
from orchestrator.core.power import FORGIVEN_S, STEADY_S
from orchestrator.core.stopping import DEAD_S


def power_due(fleet: Fleet, name: str, at: float, wall: float) -> float:
    """Say when the power of a backend has to be looked at next; infinite for never."""
    state = fleet.backends[name]
    power = state.power or Power()
    if power.look_at <= at:
        return at
    times = [*_by_phase(fleet, state, power), *_by_hours(fleet, name, at, wall)]
    return min((time for time in times if time is not None and time > at), default=math.inf)


def _by_phase(fleet: Fleet, state: BackendState, power: Power) -> list[float | None]:
    if power.phase is PowerPhase.OFF:
        forgiven = (power.retry_at or 0.0) + FORGIVEN_S if power.failures else None
        return [power.retry_at, forgiven]
    if power.phase is PowerPhase.STOPPING:
        return [power.stop_at, power.look_at]
    times = [power.deadline_at, None if power.answered else power.look_at]
    if not power.booted and power.launched_at is not None:
        times.append(power.launched_at + boot_s(state))  # from then on it holds nobody up
    idle_stop_s = fleet.config.backends[state.name].idle_stop_s
    if power.idle_since is not None and idle_stop_s is not None:
        times.append(power.idle_since + idle_stop_s)
    if state.health is Health.DOWN:
        times.append(state.since + DEAD_S)
    elif power.failures:
        times.append(state.since + STEADY_S)
    return times


def _by_hours(fleet: Fleet, name: str, at: float, wall: float) -> list[float]:
    hours, zone = fleet.config.backends[name].on_hours, fleet.config.timezone
    if hours is None:
        return []
    edges = (onhours.until(hours, zone, wall), onhours.next_from(hours, zone, wall))
    return [at + edge - wall for edge in edges if edge is not None]
