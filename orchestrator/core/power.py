"""Backends that aion starts and stops: when, which one, and what to believe of their provider.

What is wanted is committed before the provider is asked, under a label of our own; a launch whose
answer is lost is not repeated before the provider said how it is. Nothing is started or stopped
while we only observe or are cut off from it, except what has spent its budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from orchestrator.core import demand, metering, months, queueing, whereabouts
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import Answer, Rewire
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import Do, Power, PowerPhase
from orchestrator.core.model import Backend, BackendState, Health, Tier
from orchestrator.core.months import PowerMonth
from orchestrator.core.orders import order, tell
from orchestrator.core.powering import AskPower, Halt, Start, StartBackend, StopBackend
from orchestrator.core.refusal import Refused, known
from orchestrator.core.registry import Tell
from orchestrator.core.sessions import BOOTS

SLOWEST_S = 900.0  # a start may take this long, or twice its p90
BACKOFF_S, LONGEST_BACKOFF_S = 60.0, 1800.0
FORGIVEN_S = 3600.0  # after the last wait, failures are forgotten; so are they …
STEADY_S = 600.0  # … once it has been up for so long
DEAD_S = 300.0  # what we started and is down for so long is no use any more
SAVE_S = 120.0  # its agent may save before it is stopped
LATER_S = 120.0  # what stood still while we were cut off has at least this long left
STOP_AGAIN_S = 180.0
ASK_S, ASK_FAST_S = 300.0, 12.0
ASK_LOST_S = 60.0  # the question itself was lost
HELD_S = 3600.0  # what the operator stopped is not started automatically within the hour
RUNS = (PowerPhase.STARTING, PowerPhase.ON)


def abandon(draft: Draft, name: str) -> None:
    """Stop what a configuration no longer names: nobody would later."""
    power = of(draft.backend(name))
    if power.launch and power.phase in RUNS and not draft.observing():
        draft.note("power_stop", name, f"{name} is stopped: it is no longer configured")
        draft.do(StopBackend(name, power.launch))


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
        look_at=at,
        would="",
        deadline_at=None if deadline is None else max(deadline, at + LATER_S),
    )


# ── every second ────────────────────────────────────────────────────────────────────────────────


def watch(draft: Draft) -> None:
    """Go through all that can be started: ask, learn, stop what is not needed, start what is."""
    names = [name for name, spec in draft.config.backends.items() if spec.powered]
    if not names:
        return
    for name in names:
        _keep_asking(draft, name)
        learn(draft, name)
        _keep_hours(draft, name)
    if not draft.world.settled:
        return
    for name in names:
        _tidy(draft, name)
    _provide(draft, {service: None for name in names for service in draft.pools.get(name, ())})


def _keep_asking(draft: Draft, name: str) -> None:
    power = of(draft.backend(name))
    if draft.isolated_from(draft.config.backends[name]):
        return
    if draft.at >= power.look_at:
        put(draft, name, look_at=draft.at + ASK_LOST_S)
        draft.do(AskPower(name))


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


def _keep_hours(draft: Draft, name: str) -> None:
    """Note that what we started is on in its hours, and once that they are over."""
    power = of(draft.backend(name))
    if draft.config.backends[name].on_hours is None and power.in_hours is None:
        return
    inside = demand.on_until(draft, name) is not None
    if not power.launch or power.phase not in RUNS or inside is bool(power.in_hours):
        return
    put(draft, name, durable=True, in_hours=inside)
    if not inside:
        draft.note("power_hours", name, f"{name}: its hours are over, so it is let go")
    for service in draft.pools.get(name, ()):
        draft.stale[service] = None


def _up(draft: Draft, name: str, began: float) -> None:
    state = draft.backend(name)
    power = of(state)
    took_s = draft.at - began
    if not power.stray:  # how long one of an earlier life took is not known
        draft.put_backend(replace(state, boots=(*state.boots, took_s)[-BOOTS:]))
    put(draft, name, durable=True, booted=True, phase=PowerPhase.ON, deadline_at=None)
    draft.note("power_up", name, f"{name} is up, {spoken(took_s)} after it was started")


# ── stopping ────────────────────────────────────────────────────────────────────────────────────


def _tidy(draft: Draft, name: str) -> None:
    """Stop what we started and is spent, overdue, dead or idle."""
    spec, power = draft.config.backends[name], of(draft.backend(name))
    if power.phase is PowerPhase.STOPPING:
        _go_on_stopping(draft, name, power)
        return
    if not power.launch or power.phase not in RUNS:
        return
    if demand.exhausted(draft.backend(name), draft.at):
        stop(draft, name, "its quota or budget is spent", forced=True)
    elif draft.observing() or draft.isolated_from(spec):
        if power.deadline_at is not None and power.deadline_at < draft.at + LATER_S:
            put(draft, name, deadline_at=draft.at + LATER_S)
    elif power.deadline_at is not None and draft.at >= power.deadline_at:
        if queueing.loads(draft.backend(name), draft.at):
            return
        took_s = draft.at - (power.launched_at if power.launched_at is not None else draft.at)
        failed(draft, name, f"it was not up {spoken(took_s)} after it was started")
        stop(draft, name, "it did not come up")
    elif _dead(draft, spec, draft.backend(name)):
        why = f"died and did not come back: {draft.backend(name).reason}"
        failed(draft, name, why, lost=True)
        stop(draft, name, "it is dead")
    else:
        _tidy_idle(draft, spec, power)


def _dead(draft: Draft, spec: Backend, state: BackendState) -> bool:
    down_s = draft.at - state.since if state.health is Health.DOWN else 0.0
    young_s = draft.at - draft.world.started_at
    return spec.auto_start and of(state).booted and min(down_s, young_s) >= DEAD_S


def _tidy_idle(draft: Draft, spec: Backend, power: Power) -> None:
    name = spec.name
    if demand.wanted(draft, name):
        if power.stray:
            put(draft, name, durable=True, stray=False)
            draft.note("power_adopted", name, f"{name}: {power.launch} is needed and goes on")
        if power.idle_since is not None:
            put(draft, name, durable=True, idle_since=None)
        return
    if power.stray:
        stop(draft, name, f"{power.launch} runs, is ours, and nobody needs it")
    elif power.idle_since is None:
        put(draft, name, durable=True, idle_since=draft.at)
    elif spec.idle_stop_s is not None and draft.at - power.idle_since >= spec.idle_stop_s:
        stop(draft, name, f"nobody needed it for {spoken(draft.at - power.idle_since)}")


def worked(draft: Draft, name: str | None) -> None:
    """Note that a backend answered somebody, so it is not idle."""
    power = draft.backend(name).power if name in draft.fleet.backends and name else None
    if name is None or power is None or power.idle_since is None:
        return
    ago_s = draft.at - power.idle_since
    if ago_s >= 1.0:  # a busy gateway must not cost a change of state for each request
        put(draft, name, idle_since=draft.at, durable=ago_s >= ASK_LOST_S)


def stop(draft: Draft, name: str, why: str, *, forced: bool = False) -> None:
    """Stop a backend: its agent saves first, if it has one, then its provider is asked."""
    told = draft.backend(name).session is not None
    for do in (Do.SAVE, Do.STOP) if told else ():
        order(draft, name, do)
    put(
        draft,
        name,
        durable=True,
        phase=PowerPhase.STOPPING,
        since=draft.at,
        stop_at=draft.at + SAVE_S if told else draft.at,
        deadline_at=None,
        idle_since=None,
        stray=False,
        forced=forced,
        why=why,
    )
    draft.note("power_stop", name, f"{name} is stopped: {why}", why=why)
    draft.touch(name)
    _go_on_stopping(draft, name, of(draft.backend(name)))


def _go_on_stopping(draft: Draft, name: str, power: Power) -> None:
    """Ask the provider once the agent is gone or had its time, and again until it is off."""
    held = draft.observing() or draft.isolated_from(draft.config.backends[name])
    if power.stop_at is None or (held and not power.forced):
        return
    asked = power.asked_at is not None and power.asked_at >= power.since
    if draft.at < power.stop_at and (asked or draft.backend(name).session is not None):
        return
    away_by = power.since + whereabouts.AWAY_FIRST_S
    if draft.at < away_by and not (asked or power.forced) and whereabouts.named(draft, name):
        return
    put(
        draft,
        name,
        durable=True,
        asked_at=draft.at,
        answered=False,
        look_at=draft.at + ASK_FAST_S,
        stop_at=draft.at + STOP_AGAIN_S,
    )
    draft.do(StopBackend(name, power.launch))


def drained(draft: Draft, name: str) -> None:
    """Stop what a rotation drained, if it costs or is about to end anyway."""
    spec, state = draft.config.backends.get(name), draft.fleet.backends.get(name)
    if spec is None or state is None or demand.wanted(draft, name):
        return
    session, power = draft.backend(name).session, of(draft.backend(name))
    left_s = demand.ends_at(draft.backend(name)) - draft.at
    if spec.tier is Tier.FREE and left_s > spec.warn_before_s:
        return
    if spec.powered and power.launch and power.phase in RUNS:
        stop(draft, name, "a rotation has drained it")
    elif session is not None:
        for do in (Do.SAVE, Do.STOP):
            order(draft, name, do)


# ── starting ────────────────────────────────────────────────────────────────────────────────────


def _provide(draft: Draft, services: Iterable[str]) -> None:
    """Start the cheapest that may be started, if a service needs it: one at a time."""
    found = demand.next_start(draft, services)
    if found is None:
        return
    name, why = found
    if draft.observing():
        if of(draft.backend(name)).would != why:
            put(draft, name, would=why)
            draft.note("would_start", name, f"{name} would be started: {why} (only observing)")
        return
    launch(draft, name, why)


def launch(draft: Draft, name: str, why: str) -> None:
    """Start a backend. Its label and its first block are written down before anybody is asked.

    What cannot be set aside is not spent: then nothing is started.
    """
    if metering.short_of(draft, name):
        return
    spec, state = draft.config.backends[name], draft.backend(name)
    limits = [spec.session_s, metering.reserve_start(draft, name)]
    seen = months.started(of(state).months, draft.config.timezone, draft.now.wall)
    # It follows the clock, so that a label is not given again after a restore from an old backup.
    number = max(of(state).number + 1, int(draft.now.wall))
    label = f"{demand.label_start(draft.config.instance, name)}{number}"
    put(
        draft,
        name,
        durable=True,
        phase=PowerPhase.STARTING,
        since=draft.at,
        launch=label,
        asked_at=draft.at,
        answered=False,
        look_at=draft.at + ASK_FAST_S,
        number=number,
        months=seen,
        launched_at=draft.at,
        deadline_at=draft.at + max(2 * demand.boot_s(state), SLOWEST_S),
        booted=False,
        stray=False,
        idle_since=None,
        stop_at=None,
        forced=False,
        why=why,
        would="",
        detail="",
    )
    draft.note("power_start", name, f"{name} is started: {why}", launch=label, why=why)
    # Its provider is to end it by itself: a daemon that is dead stops nothing.
    longest_s = min((one for one in limits if one is not None), default=None)
    draft.do(StartBackend(name, label, longest_s))


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


# ── what the operator asks for ──────────────────────────────────────────────────────────────────


def _powered(draft: Draft, name: str) -> Backend:
    known(draft, name, "backend")
    spec = draft.config.backends[name]
    if not spec.powered:
        raise Refused(f"{name} is of kind `{spec.kind}`, which aion cannot start or stop")
    if draft.config.shadow:
        raise Refused("this daemon only observes (--shadow)")
    if draft.world.paused_since is not None:
        raise Refused("aion is paused; `aion resume` first")
    if draft.isolated_from(spec):
        raise Refused("aion has lost its network, so nothing is started or stopped")
    return spec


def start(draft: Draft, command: Start) -> None:
    """Start a backend because the operator says so."""
    name = command.backend
    spec = _powered(draft, name)
    state = draft.backend(name)
    power = of(state)
    if demand.exhausted(state, draft.at):
        raise Refused(f"the quota of {name} is spent")
    if power.phase is PowerPhase.STOPPING:
        raise Refused(f"{name} is being stopped; start it once it is off")
    if not power.answered and power.phase in RUNS:
        put(draft, name, look_at=draft.at)
        raise Refused(f"what became of its last start ({power.launch}) is not known yet")
    if power.phase in RUNS:
        draft.answer = Answer(f"{name} is {power.phase.value} already")
        return
    if key := metering.short_of(draft, name):
        raise Refused(f"too little is left of {key} for a start, which takes some ahead")
    put(draft, name, failures=0, retry_at=None)
    launch(draft, name, "the operator said so")
    about = spoken(demand.boot_s(state))
    idle = spec.idle_stop_s
    ends = f"; it is stopped after {spoken(idle)} without work" if idle is not None else ""
    draft.answer = Answer(f"{name} is being started, which takes about {about}{ends}")


def halt(draft: Draft, command: Halt) -> None:
    """Stop a backend because the operator says so; it is not started again within the hour.

    One that we cannot stop is told to by its agent, if it has one.
    """
    name = command.backend
    known(draft, name, "backend")
    spec = draft.config.backends[name]
    if spec.registers and not spec.powered:
        tell(draft, Tell(name, Do.STOP))
        return
    spec = _powered(draft, name)
    power = of(draft.backend(name))
    if power.theirs:
        raise Refused(f"{name} runs {power.theirs}, which somebody else started: it is left alone")
    if power.phase is PowerPhase.OFF:
        draft.answer = Answer(f"{name} is off already")
        return
    if power.phase is PowerPhase.STOPPING:
        draft.answer = Answer(f"{name} is being stopped already")
        return
    put(draft, name, durable=True, retry_at=draft.at + HELD_S)
    stop(draft, name, "the operator said so")
    later = "; it is not started automatically within the hour" if spec.auto_start else ""
    draft.answer = Answer(f"{name} is being stopped{later}")


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
