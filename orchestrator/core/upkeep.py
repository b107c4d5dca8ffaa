"""Backends that aion starts and stops: looked after every second.

Nothing is started or stopped while we only observe or are cut off from it, except what has spent
its budget.
"""

from __future__ import annotations

from orchestrator.core import demand
from orchestrator.core.draft import Draft
from orchestrator.core.power import ASK_LOST_S, RUNS, learn, of, put
from orchestrator.core.powering import AskPower
from orchestrator.core.starting import provide
from orchestrator.core.stopping import tidy


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
        tidy(draft, name)
    provide(draft, {service: None for name in names for service in draft.pools.get(name, ())})


def _keep_asking(draft: Draft, name: str) -> None:
    power = of(draft.backend(name))
    if draft.isolated_from(draft.config.backends[name]):
        return
    if draft.at >= power.look_at:
        put(draft, name, look_at=draft.at + ASK_LOST_S)
        draft.do(AskPower(name))


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
