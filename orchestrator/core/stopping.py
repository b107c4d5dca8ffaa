"""Stopping what aion started: what is spent, overdue, dead, idle, drained or configured no more.

Nothing is stopped while we only observe or are cut off from it, except what has spent its budget.
"""

from __future__ import annotations

from orchestrator.core import demand, queueing, whereabouts
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.lives import Do, Power, PowerPhase
from orchestrator.core.model import BackendState, Health
from orchestrator.core.orders import order
from orchestrator.core.power import ASK_FAST_S, ASK_LOST_S, LATER_S, RUNS, failed, of, put
from orchestrator.core.powering import StopBackend
from orchestrator.core.specs import Backend, Tier

DEAD_S = 300.0  # what we started and is down for so long is no use any more
SAVE_S = 120.0  # its agent may save before it is stopped
STOP_AGAIN_S = 180.0


def tidy(draft: Draft, name: str) -> None:
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
        last = draft.backend(name).reason
        why = f"it was not up {spoken(took_s)} after it was started"
        failed(draft, name, f"{why}: {last}" if last else why)
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


def abandon(draft: Draft, name: str) -> None:
    """Stop what a configuration no longer names: nobody would later."""
    power = of(draft.backend(name))
    if power.launch and power.phase in RUNS and not draft.observing():
        draft.note("power_stop", name, f"{name} is stopped: it is no longer configured")
        draft.do(StopBackend(name, power.launch))
