"""How services and backends stand, in the words of the contract.

Plain functions over the fleet; shared by discovery, `/api`, `/status` and `/metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.core.health import ALIVE, Lease, lease
from orchestrator.core.model import (
    Backend,
    BackendState,
    Fleet,
    Health,
    Now,
    Service,
    ServiceState,
    Tier,
)


class State(StrEnum):
    """A service's state as discovery tells it."""

    STARTING = "starting"
    SERVING = "serving"
    DEGRADED = "degraded"
    DOWN = "down"
    PAUSED = "paused"
    ISOLATED = "isolated"


WORST_FIRST = (
    State.DOWN,
    State.ISOLATED,
    State.DEGRADED,
    State.STARTING,
    State.PAUSED,
    State.SERVING,
)


def paused(fleet: Fleet, at: float) -> bool:
    """Whether aion only observes: paused by the operator, or in the shadow."""
    world = fleet.world
    if fleet.config.shadow:
        return True
    if world.paused_since is None:
        return False
    return world.paused_until is None or at < world.paused_until


def suspect(state: BackendState, at: float) -> bool:
    """Whether there is doubt about a backend that is believed alive."""
    if state.fails and state.health in ALIVE:
        return True
    return state.session is not None and lease(state.session, at) is Lease.SUSPECT


def barred(backend: Backend, state: BackendState, at: float) -> str:
    """Why a backend cannot serve although it lives, or ""."""
    if not backend.assignable:
        return "it is served by the gateway only, which does not exist yet"
    if state.denied:
        return f"denied: {state.denied}"
    if state.cooldown_until is not None and at < state.cooldown_until:
        return "it asked us to come back later"
    if state.exhausted_until is not None and at < state.exhausted_until:
        return "its quota is used up"
    if state.session is not None and lease(state.session, at) is Lease.OUT:
        return "its session is over"
    return ""


def able(backend: Backend, state: BackendState, at: float) -> bool:
    """Whether a backend could serve now, if need be."""
    return state.health in ALIVE and not state.drained and not barred(backend, state, at)


def address(backend: Backend, service: Service) -> str | None:
    """Where clients reach it; the URL of an `api` backend is never shown."""
    return backend.url or service.gateway


def service_state(fleet: Fleet, name: str, at: float) -> State:
    """Say how a service stands."""
    assignment = fleet.services.get(name)
    if fleet.world.isolated_since is not None:
        return State.ISOLATED
    if paused(fleet, at):
        return State.PAUSED
    if assignment is None or not assignment.settled:
        return State.STARTING
    backend = fleet.config.backends.get(assignment.active or "")
    if backend is None:
        return State.DOWN
    state = fleet.backends.get(backend.name)
    well = state is not None and state.health is Health.UP and not suspect(state, at)
    return State.SERVING if well and backend.tier is not Tier.PAID else State.DEGRADED


def worst(fleet: Fleet, at: float) -> State:
    """Say how the services stand, all in all."""
    states = {service_state(fleet, name, at) for name in fleet.config.services}
    return next((state for state in WORST_FIRST if state in states), State.SERVING)


def fallbacks(fleet: Fleet, service: Service, state: ServiceState, at: float) -> Iterator[Backend]:
    """Yield the others that could serve, in order of preference: those in full health first."""
    reserve: list[Backend] = []
    for name in service.backends:
        backend, believed = fleet.config.backends.get(name), fleet.backends.get(name)
        if backend is None or believed is None or name == state.active:
            continue
        if not able(backend, believed, at):
            continue
        if believed.health is Health.UP and not suspect(believed, at):
            yield backend
        else:
            reserve.append(backend)
    yield from reserve


def rfc3339(steady: float | None, now: Now) -> str | None:
    """Show a steady time as the wall clock would: RFC 3339, UTC, whole seconds.

    None for "never" and "for ever".
    """
    if steady is None or not math.isfinite(steady):
        return None
    shift_s = now.wall - now.at
    if abs(shift_s) < 1.0:  # below a second it is noise that would make equal answers differ
        shift_s = 0.0
    shown = datetime.fromtimestamp(int(steady + round(shift_s)), UTC)
    return shown.strftime("%Y-%m-%dT%H:%M:%SZ")
