"""Each backend as something that can cover time: there already, or to be started, and by whom."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.boots import boot_s, starting
from orchestrator.core.demand import TIERS
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import PowerPhase, Session
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import BackendState, Fleet, Health, Now
from orchestrator.core.onhours import spans
from orchestrator.core.purses import Draws, draws_of, hours_left
from orchestrator.core.spans import Span
from orchestrator.core.specs import Backend, Tier

BY_HAND_S = 600.0  # from asking a human to being up, where that was never measured
COMING = (Health.UNKNOWN, Health.STARTING, Health.WARMING)
DRAINED = "it is drained"


class Means(StrEnum):
    """Who can start it."""

    NOBODY = "nobody"
    MACHINE = "machine"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Cover:
    """One backend, in Unix time.

    `there`: when it is up without anybody's doing, None for never. `free_at`: before this a start
    makes no sense. `warm`: it is on, so the first start costs no time. `takes_s`: from being asked
    for to being up. `lasts_s`: one session, None without end. `url`: what a human opens. `why_not`:
    why starting it is of no use, or ""; `reason`: why else it is not there. `hours`: when a machine
    has it on, whoever needs it.
    """

    backend: str
    tier: int
    priority: int
    there: Span | None
    means: Means
    free_at: float
    takes_s: float
    lasts_s: float | None = None
    warm: bool = False
    draws: Draws = ()
    usd_per_hour: float | None = None
    url: str = ""
    why_not: str = ""
    reason: str = ""
    hours_left: float = math.inf
    hours: tuple[Span, ...] = ()

    @property
    def turn(self) -> tuple[int, bool, float, int, str]:
        """Cheapest tier first, what needs no human before what does, then by preference.

        Of what a human starts first what may be on for longest, as `restart_needed` names it.
        """
        by_hand = self.means is Means.HUMAN
        return self.tier, by_hand, -self.hours_left if by_hand else 0.0, self.priority, self.backend


def by_hand_s(state: BackendState) -> float:
    """Say within how many seconds of being asked nine of ten had it up."""
    took = state.hand_starts
    return sorted(took)[math.ceil(0.9 * len(took)) - 1] if took else BY_HAND_S


def covers_of(fleet: Fleet, now: Now, ends: float) -> list[Cover]:
    """See every backend of some service this way, in the order in which they are called for."""
    wanted = {name for service in fleet.config.services.values() for name in service.backends}
    found = [
        _cover(fleet, spec, now, ends)
        for name, spec in fleet.config.backends.items()
        if name in wanted
    ]
    return sorted(found, key=lambda one: one.turn)


def _cover(fleet: Fleet, spec: Backend, now: Now, ends: float) -> Cover:
    config, meters = fleet.config, fleet.meters
    state = fleet.backends.get(spec.name) or BackendState(spec.name)
    shift_s = now.wall - now.at
    why_not = _never(spec, state)
    means = Means.NOBODY if why_not else means_of(spec)
    free_at, warm = now.wall, False
    there = None if why_not else _there(spec, state, now, ends)
    barred = max(state.exhausted_until or 0.0, state.cooldown_until or 0.0) + shift_s
    if there is not None and barred > there[0]:
        there = (barred, there[1]) if barred < there[1] else None
    free_at = max(free_at, barred)
    power = state.power
    if power is not None and power.retry_at is not None:
        free_at = max(free_at, power.retry_at + shift_s)
    if there is not None and means is Means.MACHINE:
        if there[1] >= ends:  # on without an end: kept on while it is needed, and no longer
            free_at, there, warm = max(free_at, there[0]), None, True
        else:
            free_at = max(free_at, there[1])
    by_hand = means is Means.HUMAN
    return Cover(
        backend=spec.name,
        tier=TIERS.index(spec.tier),
        priority=spec.priority,
        there=there,
        means=means,
        free_at=free_at,
        takes_s=by_hand_s(state) if by_hand else boot_s(state),
        lasts_s=spec.session_s,
        warm=warm,
        draws=draws_of(config.meters, spec.name),
        usd_per_hour=price_of(config.meters.values(), spec.name),
        url=spec.restart_url or "",
        why_not=why_not,
        hours=_hours(spec, config.timezone, now.wall, ends) if means is Means.MACHINE else (),
        hours_left=hours_left(config.meters, meters, spec.name, now.wall),
        reason="only the operator starts it" if spec.powered else state.reason,
    )


def _hours(spec: Backend, zone: str, begins: float, ends: float) -> tuple[Span, ...]:
    """List when it should be on by its hours, as far as the plan goes."""
    if spec.on_hours is None:
        return ()
    found = spans(spec.on_hours, zone, begins, ends)
    return tuple((max(begins, since), min(ends, until)) for since, until in found)


def means_of(spec: Backend) -> Means:
    """Say who can start this backend. What costs money is not asked of a human in advance."""
    if spec.powered and spec.auto_start:
        return Means.MACHINE
    if spec.restart_url is not None or spec.registers or (spec.powered and spec.tier is Tier.FREE):
        return Means.HUMAN
    return Means.NOBODY


def price_of(specs: Iterable[MeterSpec], backend: str) -> float | None:
    """Give what an hour of being on costs in USD; None where nobody said."""
    for spec in specs:
        if spec.backend == backend and spec.unit is Unit.USD and spec.rate_per_hour is not None:
            return float(spec.rate_per_hour)
    return None


def _never(spec: Backend, state: BackendState) -> str:
    """Say why it covers nothing however long one waits, or ""."""
    if not spec.assignable:
        return "it is reached through the gateway only"
    if state.drained:
        return DRAINED
    return f"it refuses us ({state.denied})" if state.denied else ""


def _there(spec: Backend, state: BackendState, now: Now, ends: float) -> Span | None:
    """Say from when to when it is up with nobody doing anything, in Unix time."""
    shift_s = now.wall - now.at
    if spec.registers:
        lives = [state.session if state.health in ALIVE else None, _coming(state.pending)]
        until = [_end_of(one, shift_s, ends) for one in lives if one is not None]
        if not until:
            return _booting(spec, state, now, ends)
        return (now.wall, max(until)) if max(until) > now.wall else None
    if starting(state):
        return _booting(spec, state, now, ends)
    if state.power is not None and state.power.phase in (PowerPhase.OFF, PowerPhase.STOPPING):
        return None
    if state.health not in ALIVE and (spec.powered or state.health not in COMING):
        return None
    return now.wall, ends


def _coming(pending: Session | None) -> Session | None:
    """Count on a registration until it failed its proof for another reason than that it loads."""
    failed = pending is not None and pending.problem and pending.loading_at is None
    return None if failed else pending


def _booting(spec: Backend, state: BackendState, now: Now, ends: float) -> Span | None:
    """Say when a start under way is done and how long it lasts; None if none is."""
    power = state.power
    if power is None or not starting(state):
        return None
    asked = power.launched_at if power.launched_at is not None else now.at
    asked += now.wall - now.at
    up = max(now.wall, asked + boot_s(state))
    over = ends if spec.session_s is None else min(ends, asked + spec.session_s)
    return (up, over) if up < over else None


def _end_of(session: Session, shift_s: float, ends: float) -> float:
    return ends if session.ends_at is None else min(ends, session.ends_at + shift_s)
