"""Starts that are under way: whether one is, and how long they take by what was learned."""

from __future__ import annotations

import math

from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import BackendState
from orchestrator.core.specs import Backend

BOOT_S = 300.0  # how long a start takes, as long as none is known
UNDER_WAY = (PowerPhase.STARTING, PowerPhase.ON)


def boot_s(state: BackendState) -> float:
    """Say within how many seconds nine of ten of its starts were up."""
    boots = state.boots
    return sorted(boots)[math.ceil(0.9 * len(boots)) - 1] if boots else BOOT_S


def starting(state: BackendState) -> bool:
    """Say whether a start of ours is under way: asked for, and not up yet."""
    power = state.power
    return bool(power and power.launch and power.phase in UNDER_WAY and not power.booted)


def resting(spec: Backend, state: BackendState) -> bool:
    """Say whether a backend is off, or not on yet: what is amiss with that is told otherwise.

    Nor is one known to be broken whose provider has never said yet whether it is on.
    """
    power = state.power
    if not spec.powered:
        return False
    if power is None or (power.phase is PowerPhase.UNKNOWN and not power.launch):
        return True
    away = power.phase in (PowerPhase.OFF, PowerPhase.STARTING, PowerPhase.STOPPING)
    return away or starting(state)


def up_at(spec: Backend, state: BackendState, at: float) -> float | None:
    """Say when one that rests may be up by itself; None if it does not come by itself.

    Its hours say nothing of it: out of them it is started when it is needed, as any other.
    """
    power = state.power
    if power is None:
        return None
    if starting(state):
        began = power.launched_at if power.launched_at is not None else at
        return began + boot_s(state)
    if not spec.auto_start or not spec.assignable or state.drained or state.denied:
        return None
    return max(at, power.retry_at or at, state.exhausted_until or at) + boot_s(state)
