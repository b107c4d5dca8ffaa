"""What is known of a backend that aion starts and stops, and how that changes.

`core.upkeep` looks after all of them each second, `core.starting` and `core.stopping` do what is
needed, `core.switching` what the operator says, and `core.provider` believes what comes back. A
launch whose answer is lost is not repeated before the provider said how it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.core import months, queueing
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import Rewire
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import BackendState, Health
from orchestrator.core.months import PowerMonth
from orchestrator.core.sessions import BOOTS

SLOWEST_S = 900.0  # a start may take this long, or twice its p90
BACKOFF_S, LONGEST_BACKOFF_S = 60.0, 1800.0
FORGIVEN_S = 3600.0  # after the last wait, failures are forgotten; so are they …
STEADY_S = 600.0  # … once it has been up for so long
LATER_S = 120.0  # what stood still while we were cut off has at least this long left
ASK_S, ASK_FAST_S = 300.0, 12.0
ASK_LOST_S = 60.0  # the question itself was lost
RUNS = (PowerPhase.STARTING, PowerPhase.ON)


def of(state: BackendState) -> Power:
    """Give what is known of a backend's power."""
    return state.power if state.power is not None else Power()


def put(draft: Draft, name: str, *, durable: bool = False, **changes: Any) -> Power:
    """Change what is known of a backend's power."""
    state = draft.backend(name)
    power = replace(of(state), **changes)
    draft.put_backend(replace(state, power=power), durable=durable)
    if durable:
        draft.stirred[name] = None
        for service in draft.pools.get(name, ()):
            draft.stirred[service] = None
    return power


def woken(stored: Power | None, at: float) -> Power | None:
    """Say what is known after a start: what was remembered, and that it has to be asked for."""
    if stored is None:
        return None
    deadline = stored.deadline_at
    return replace(
        stored,
        confirmed_at=None,
        refused_at=None,
        look_at=at,
        would="",
        deadline_at=None if deadline is None else max(deadline, at + LATER_S),
    )


def next_look(power: Power, at: float) -> float:
    """Say when a provider is to be asked again."""
    settled = power.phase is PowerPhase.OFF or (power.phase is PowerPhase.ON and power.booted)
    settled = settled or (power.phase is PowerPhase.ON and not power.launch)
    if queueing.lasting(power, at):
        return at + ASK_LOST_S
    return at + (ASK_S if settled and power.answered else ASK_FAST_S)


def learn(draft: Draft, name: str) -> None:
    """Note that what was started is up, and how long it took; forgive what failed long ago.

    Also at the moment it comes up: one that is lost within the same second was up all the same.
    """
    state = draft.backend(name)
    power = of(state)
    if power.launch and power.phase in RUNS and state.health is Health.UP:
        began = power.launched_at if power.launched_at is not None else draft.at
        if not power.booted and (state.since >= began or draft.at - began >= ASK_LOST_S):
            _up(draft, name, began)
        elif power.failures and draft.at - state.since >= STEADY_S:
            put(draft, name, durable=True, failures=0, retry_at=None)
    elif (
        power.phase is PowerPhase.OFF
        and power.failures
        and draft.at >= (power.retry_at or 0.0) + FORGIVEN_S
    ):
        put(draft, name, durable=True, failures=0, retry_at=None, detail="")


def _up(draft: Draft, name: str, began: float) -> None:
    state = draft.backend(name)
    power = of(state)
    took_s = draft.at - began
    if not power.stray:  # how long one of an earlier life took is not known
        draft.put_backend(replace(state, boots=(*state.boots, took_s)[-BOOTS:]))
    put(draft, name, durable=True, booted=True, phase=PowerPhase.ON, deadline_at=None)
    draft.note("power_up", name, f"{name} is up, {spoken(took_s)} after it was started")


def failed(draft: Draft, name: str, why: str, wait_s: float = 0.0, *, lost: bool = False) -> None:
    """Note that a start came to nothing; the next one waits twice as long each time.

    `lost`: it had been up, and did not last.
    """
    failures = of(draft.backend(name)).failures + 1
    wait_s = max(min(BACKOFF_S * 2.0 ** min(failures - 1, 10), LONGEST_BACKOFF_S), wait_s)
    seen = of(draft.backend(name)).months
    if not lost:
        seen = months.started(seen, draft.config.timezone, draft.now.wall, failed=True)
    changes = {"failures": failures, "retry_at": draft.at + wait_s, "detail": why, "lost": lost}
    put(draft, name, durable=True, months=seen, **changes)
    action, what = ("power_lost", why) if lost else ("power_failed", f"could not be started: {why}")
    draft.note(action, name, f"{name} {what}; not again within {spoken(wait_s)}")


def off(draft: Draft, name: str, **changes: Any) -> None:
    """Note that a backend is off. An address it had may be somebody else's from now on."""
    had = of(draft.backend(name)).address
    seen = _on_until_now(draft, name)
    put(
        draft,
        name,
        durable=True,
        phase=PowerPhase.OFF,
        since=draft.at,
        launch="",
        address="",
        answered=True,
        deadline_at=None,
        stop_at=None,
        idle_since=None,
        booted=False,
        stray=False,
        forced=False,
        queued=False,
        in_hours=None,
        months=seen,
        theirs="",
        **changes,
    )
    draft.touch(name)
    if had:
        draft.do(Rewire(name))


def on_from(power: Power) -> float | None:
    """Say since when (steady) it is on, as far as its provider said so; None if it is not."""
    if power.phase not in (*RUNS, PowerPhase.STOPPING) or not (power.answered or power.booted):
        return None
    return power.launched_at if power.launch and power.launched_at is not None else power.since


def _on_until_now(draft: Draft, name: str) -> tuple[PowerMonth, ...]:
    power, shift_s = of(draft.backend(name)), draft.now.wall - draft.at
    began = on_from(power)
    if began is None:
        return power.months
    zone = draft.config.timezone
    return months.was_on(power.months, zone, began + shift_s, draft.now.wall)


def expected(before: BackendState, after: BackendState) -> BackendState:
    """Count no fall of what is stopped on purpose; ask at once how another is that is down."""
    power = after.power
    down = after.health is Health.DOWN and before.health is not Health.DOWN
    if down and power is not None and power.phase is PowerPhase.ON and power.answered:
        after = replace(after, power=replace(power, look_at=min(power.look_at, after.since)))
    fell = after.health not in ALIVE and after.falls != before.falls
    if fell and power is not None and power.phase in (PowerPhase.STOPPING, PowerPhase.OFF):
        return replace(after, falls=before.falls, flap_level=before.flap_level)
    return after
