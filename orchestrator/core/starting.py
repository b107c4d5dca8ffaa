"""Starting what a service needs, the cheapest that may be started, one at a time.

What is wanted is committed before the provider is asked, under a label of our own.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core import demand, metering, months
from orchestrator.core.boots import boot_s
from orchestrator.core.draft import Draft
from orchestrator.core.lives import PowerPhase
from orchestrator.core.power import ASK_FAST_S, SLOWEST_S, of, put
from orchestrator.core.powering import StartBackend


def provide(draft: Draft, services: Iterable[str]) -> None:
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
        deadline_at=draft.at + max(2 * boot_s(state), SLOWEST_S),
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
