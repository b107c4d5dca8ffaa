"""A launch that its provider took and is not up yet: for how long it is waited for.

A queue is no failed boot, so it does not count against the time that a boot may take; but it is
not waited for without end, and nobody else waits for it longer than for a boot. Nor has one failed
whose agent says that it still loads its model.
"""

from __future__ import annotations

from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import BackendState

PATIENCE_S = 900.0  # in a queue for longer than this, it holds up no other start
LONGEST_S = 7200.0  # in a queue for longer than this, it is given up
BEGUN_S = 900.0  # what leaves the queue has at least this long to come up
LOADING_S = 3600.0  # what loads for longer than this after it registered is given up
HEARD_S = 60.0  # its agent's word counts for so long
LONG_S = 600.0  # what does not end within this is asked for less often


def overdue(state: BackendState, at: float) -> bool:
    """Say whether it has waited for its turn for so long that it is not counted on."""
    power = state.power
    if power is None or not power.queued:
        return False
    return at - (power.launched_at if power.launched_at is not None else at) >= PATIENCE_S


def deadline(power: Power, at: float, boot_s: float, *, queued: bool) -> float:
    """Say until when it has to be up, given that it is in the queue, or has just left it."""
    began = power.launched_at if power.launched_at is not None else at
    last = began + LONGEST_S
    fresh = at + max(BEGUN_S, 2 * boot_s if not queued else 0.0)
    return max(power.deadline_at or 0.0, min(fresh, last) if queued else fresh)


def loads(state: BackendState, at: float) -> bool:
    """Say whether its agent has registered and said just now that it loads."""
    pending = state.pending
    if pending is None or pending.loading_at is None:
        return False
    return at - pending.loading_at < HEARD_S and at - pending.registered_at < LOADING_S


def lasting(power: Power, at: float) -> bool:
    """Say whether it is in a state that may last for hours, so that it need not be asked fast."""
    return power.queued or (power.phase is PowerPhase.STOPPING and at - power.since >= LONG_S)
