"""How services and backends stand, in the words of the contract.

Plain functions over the fleet; shared by discovery, `/api`, `/status` and `/metrics`.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.core.assignment import candidate
from orchestrator.core.choice import Candidate, Rank
from orchestrator.core.draft import Draft
from orchestrator.core.health import ALIVE
from orchestrator.core.model import BackendState, Fleet, Health, Now
from orchestrator.core.specs import Backend, Service, Tier


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


NOWHERE = Service(name="", backends=())


def candidate_of(fleet: Fleet, name: str, now: Now, service: Service = NOWHERE) -> Candidate | None:
    """Say how a backend stands, exactly as the choice sees it; None if it is not known."""
    backend = fleet.config.backends.get(name)
    if backend is None or name not in fleet.backends:
        return None
    return candidate(Draft.of(fleet, now), backend, service)


def suspect(state: BackendState, one: Candidate) -> bool:
    """Whether there is doubt about a backend that is believed alive."""
    return state.health in ALIVE and (one.suspect or state.fails > 0)


def able(one: Candidate) -> bool:
    """Whether a backend could take a service over now."""
    return one.rank >= Rank.RESERVE


def address(fleet: Fleet, backend: Backend, service: Service) -> str | None:
    """Where clients reach it; the URL of an `api` backend is never shown."""
    if backend.registers:
        state = fleet.backends.get(backend.name)
        return state.session.url if state is not None and state.session is not None else None
    state = fleet.backends.get(backend.name)
    given = state.power.address if backend.powered and state and state.power else ""
    return given or backend.url or service.gateway


def service_state(fleet: Fleet, name: str, now: Now) -> State:
    """Say how a service stands."""
    assignment = fleet.services.get(name)
    if fleet.world.isolated_since is not None:
        return State.ISOLATED
    if paused(fleet, now.at):
        return State.PAUSED
    if assignment is None or not assignment.settled:
        return State.STARTING
    one = candidate_of(fleet, assignment.active or "", now)
    if one is None:
        return State.DOWN
    # One that is about to end, or drained, and still serves, serves as well as ever.
    well = one.rank >= Rank.LAST and one.health is Health.UP
    well = well and not one.suspect and not suspect(fleet.backends[one.name], one)
    return State.SERVING if well and one.tier is not Tier.PAID else State.DEGRADED


def worst(fleet: Fleet, now: Now) -> State:
    """Say how the services stand, all in all."""
    states = {service_state(fleet, name, now) for name in fleet.config.services}
    return next((state for state in WORST_FIRST if state in states), State.SERVING)


def fallbacks(
    fleet: Fleet, service: Service, active: str | None, now: Now, most: int = 1_000_000
) -> list[Backend]:
    """List the others that could serve, in order of preference: those in full health first.

    At most `most` of them; a pool is not searched further once that many are in full health.
    """
    draft = Draft.of(fleet, now)
    ranked: list[tuple[int, Backend]] = []
    well = 0
    for name in service.backends:
        backend = fleet.config.backends.get(name)
        if backend is None or name == active or name not in fleet.backends:
            continue
        one = candidate(draft, backend, service)
        if able(one):
            doubted = suspect(fleet.backends[name], one) or one.rank is not Rank.READY
            ranked.append((int(doubted), backend))
            well += not doubted
            if well >= most:
                break
    return [backend for _, backend in sorted(ranked, key=lambda pair: pair[0])][:most]


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
