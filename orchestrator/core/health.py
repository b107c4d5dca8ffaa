"""What is believed of a backend: `fold(state, observation, policy)`.

Hysteresis as in HAProxy: `fall` failures in a row from anyone take a backend down, `rise`
successes in a row bring it up. Slowness alone never moves anyone. 401, 403 and 429 are answers,
not deaths.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Health, Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy

HOUR_S = 3600.0
FLAPS = 3  # falls within an hour that are flapping
LONGEST_WAIT_S = 7200.0  # a doubled failback wait ends here
DEEPEST = 12  # doublings that still matter; keeps 2**level small
CANARY_FALL = 2  # canaries in a row that must fail: one may be a poisoned prompt or a full queue
JITTER = 0.1  # of every interval, so that backends never fall into step
COOL_DOWN_S = 60.0  # after a 429 that does not say for how long

ALIVE = (Health.UP, Health.DEGRADED)


def fold(
    state: BackendState,
    seen: Observation,
    policy: HealthPolicy,
    at: float,
    *,
    frozen: bool = False,
    held: bool = False,
) -> BackendState:
    """Take one observation into account; returns `state` itself when it changes nothing.

    `frozen`: we are isolated and the backend is remote, so failures say nothing of it. `held`:
    failures count, but a verdict waits until `settle` is called (the controls have not answered
    yet).
    """
    if seen.verdict is Verdict.OK:
        return _good(state, seen, policy, at)
    if seen.verdict is Verdict.BUSY:
        wait_s = max(seen.retry_after_s or COOL_DOWN_S, policy.fast_interval_s)
        return replace(_answered(state), cooldown_until=at + wait_s, ok_since=None)
    if seen.verdict is Verdict.DENIED:
        return _denied(state, seen, policy, at)
    if frozen:
        return _doubted(state, at)
    if seen.source is Source.CANARY:
        return _bad_canary(state, seen, at, held=held)
    state = _bad(state, seen, policy, at)
    return state if held else settle(state, policy, at, seen)


def settle(
    state: BackendState, policy: HealthPolicy, at: float, seen: Observation | None = None
) -> BackendState:
    """Draw the verdict that enough failures in a row call for."""
    if state.canary_fails >= CANARY_FALL and state.health is Health.UP:
        state = replace(state, health=Health.DEGRADED, since=at, ok_since=None)
    if state.fails < policy.fall or state.health is Health.DOWN:
        return state
    loading = seen is not None and seen.verdict is Verdict.LOADING
    if loading and state.health is Health.WARMING:
        return state
    health = Health.WARMING if loading else Health.DOWN
    if state.health in ALIVE:
        state = _fallen(state, at)
    return replace(state, health=health, since=at, doubt=False, doubt_since=None)


def _good(state: BackendState, seen: Observation, policy: HealthPolicy, at: float) -> BackendState:
    if seen.source in (Source.CANARY, Source.TRAFFIC):
        state = _completed(state, at)
        if seen.source is Source.CANARY:
            return state
    elif state.health is Health.DEGRADED and policy.canary_s is None:
        state = _completed(state, at)  # nothing would ever clear it
    missing = state.missing if seen.models is None else seen.missing
    settled = state.health in ALIVE and not (state.doubt or state.fails or state.denials)
    settled = settled and state.ok_since is not None
    if settled and not state.denied and state.missing == missing:
        return state
    oks = min(state.oks + 1, policy.rise)
    state = replace(
        _answered(state),
        oks=oks,
        denials=0,
        denied="",
        missing=missing,
        ok_since=state.ok_since if state.ok_since is not None else at,
    )
    if state.health in ALIVE:
        return replace(state, doubt=False, doubt_since=None)
    if oks < policy.rise:
        return replace(state, doubt=True)
    return replace(
        state,
        health=Health.UP,
        since=at,
        ok_since=at,
        reason=f"answered well {policy.rise} times in a row",
        doubt=False,
        doubt_since=None,
        canary_fails=0,
    )


def _completed(state: BackendState, at: float) -> BackendState:
    """Note that a real completion came back, whoever asked for it."""
    if state.health is Health.DEGRADED:
        state = replace(state, health=Health.UP, since=at, ok_since=at, reason="completions work")
    return replace(state, canary_fails=0, canary_at=at)


def _answered(state: BackendState) -> BackendState:
    return replace(state, fails=0) if state.fails else state


def _denied(
    state: BackendState, seen: Observation, policy: HealthPolicy, at: float
) -> BackendState:
    """Take 401 or 403: its configuration is wrong, or ours; it is not dead."""
    denials = min(state.denials + 1, policy.fall)
    state = replace(_answered(state), denials=denials, oks=0, ok_since=None)
    if denials < policy.fall:
        return replace(state, doubt=True, doubt_since=_first(state.doubt_since, at))
    if state.health in (Health.DOWN, Health.WARMING):
        state = replace(state, health=Health.UNKNOWN, since=at)
    return replace(state, denied=seen.detail or "it refuses our key", doubt=False, doubt_since=None)


def _doubted(state: BackendState, at: float) -> BackendState:
    if state.doubt:
        return state
    return replace(state, doubt=True, doubt_since=at, ok_since=None)


def _bad(state: BackendState, seen: Observation, policy: HealthPolicy, at: float) -> BackendState:
    if seen.source is Source.TRAFFIC:
        last = state.traffic_fail_at
        if last is not None and at - last < policy.fast_interval_s:
            return state
        # Passive evidence alone never takes anyone down: an active probe completes the fall.
        fails = min(state.fails + 1, max(policy.fall - 1, state.fails))
        state = replace(state, traffic_fail_at=at)
    elif state.health is Health.DOWN and state.fails >= policy.fall and not state.oks:
        if seen.verdict is not Verdict.LOADING:
            return state if state.reason == seen.detail else replace(state, reason=seen.detail)
        fails = state.fails
    else:
        fails = min(state.fails + 1, policy.fall)
    state = replace(
        state,
        fails=fails,
        oks=0,
        denials=0,
        ok_since=None,
        failed_at=at,
        reason=seen.detail or seen.verdict.value,
    )
    if seen.verdict is Verdict.LOADING and state.health in (
        Health.UNKNOWN,
        Health.STARTING,
        Health.DOWN,
    ):
        return replace(state, health=Health.WARMING, since=at, fails=0, doubt=False)
    if seen.verdict is Verdict.LOADING and state.health is Health.WARMING:
        return replace(state, fails=0)
    if state.health is Health.DOWN:
        return replace(state, doubt=False, doubt_since=None)
    return replace(state, doubt=True, doubt_since=_first(state.doubt_since, at))


def _bad_canary(state: BackendState, seen: Observation, at: float, *, held: bool) -> BackendState:
    fails = min(state.canary_fails + 1, CANARY_FALL)
    state = replace(
        state,
        canary_fails=fails,
        canary_at=at,
        reason=f"canary: {seen.detail}",
        failed_at=at,
        ok_since=None,
    )
    if state.health is Health.UP and fails >= CANARY_FALL and not held:
        return replace(state, health=Health.DEGRADED, since=at, ok_since=None)
    return _doubted(state, at)


def _first(earlier: float | None, at: float) -> float:
    return at if earlier is None else earlier


# ── flapping ────────────────────────────────────────────────────────────────────────────────────


def _fallen(state: BackendState, at: float) -> BackendState:
    level = flap_level(state, at)
    falls = (*(fall for fall in state.falls if at - fall < HOUR_S), at)[-DEEPEST:]
    if len(falls) >= FLAPS:
        level = min(level + 1, DEEPEST)
    return replace(state, falls=falls, flap_level=level, ok_since=None)


def flap_level(state: BackendState, at: float) -> int:
    """How often the failback wait is doubled now: one less for each hour of calm."""
    if not state.flap_level or not state.falls:
        return 0
    return max(0, state.flap_level - int((at - state.falls[-1]) // HOUR_S))


def calmer_at(state: BackendState, at: float) -> float:
    """Say when the failback wait of a flapping backend is doubled once less."""
    calm_h = (at - state.falls[-1]) // HOUR_S
    return state.falls[-1] + (calm_h + 1) * HOUR_S


def failback_wait_s(state: BackendState, failback_after_s: float, at: float) -> float:
    """Seconds of unbroken health this backend must show before a voluntary move to it."""
    wait_s = failback_after_s * 2.0 ** flap_level(state, at)
    return max(failback_after_s, min(wait_s, LONGEST_WAIT_S))


# ── when to look again ──────────────────────────────────────────────────────────────────────────


def next_probe_s(
    state: BackendState, policy: HealthPolicy, at: float, *, isolated: bool = False
) -> float:
    """Seconds from the end of this probe to the start of the next, before jitter."""
    if state.cooldown_until is not None and state.cooldown_until > at:
        return max(policy.fast_interval_s, (state.cooldown_until - at) / (1 - JITTER))
    if isolated:
        return policy.interval_s
    if state.denied:
        return policy.down_interval_s
    if state.health is Health.DOWN and not state.oks:
        return policy.down_interval_s
    if state.doubt or state.health not in ALIVE:
        return policy.fast_interval_s
    return policy.interval_s


def next_canary_s(state: BackendState, policy: HealthPolicy, at: float) -> float | None:
    """Seconds until a canary is due; None where there are none, or none makes sense now."""
    if policy.canary_s is None or state.health not in ALIVE or state.denied:
        return None
    if state.cooldown_until is not None and state.cooldown_until > at:
        return state.cooldown_until - at
    if state.canary_at is None:
        return 0.0
    wait_s = policy.interval_s if state.canary_fails else policy.canary_s
    return max(0.0, state.canary_at + wait_s - at)


# ── sessions ────────────────────────────────────────────────────────────────────────────────────


class Lease(StrEnum):
    """Where a session's lease stands."""

    HELD = "held"
    LATE = "late"
    SUSPECT = "suspect"
    OUT = "out"


def lease(session: Session, at: float) -> Lease:
    """Judge a session (Consul's lease, softened): late is doubt, lapsed but proven is suspect.

    OUT: past its end, or lapsed and not answering the signed challenge.
    """
    if session.ends_at is not None and at >= session.ends_at:
        return Lease.OUT
    silent_s = at - session.beat_at
    if silent_s < session.late_s:
        return Lease.HELD
    if silent_s < session.lease_s:
        return Lease.LATE
    return Lease.SUSPECT if session.challenge_ok else Lease.OUT
