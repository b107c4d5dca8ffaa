"""Asking a human early enough, and learning how long that takes.

Once a minute the coming two days are planned. What a human has to start is asked for from then on
when it may be (`Ask.at`): in operator hours, and so early that it is up when it is needed.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.coverage import Means, means_of
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.hours import awake
from orchestrator.core.model import BackendState, Incident, Severity
from orchestrator.core.notices import ASKED_EARLY, Wrong, close_incident, open_incident
from orchestrator.core.planner import Ask, plan

HORIZON_S = 172_800.0
EVERY_S = 60
MOVED_S = 900.0  # a moment that moves by less is not said anew
STARTS = 20  # whose duration is remembered
ASKED = ("restart_needed", ASKED_EARLY)


def watch(draft: Draft) -> None:
    """Plan, and open or close the incidents that ask for a start ahead of time."""
    if not draft.world.settled or draft.world.isolated_since is not None:
        return
    due: dict[str, Ask] = {}
    if any(means_of(spec) is Means.HUMAN for spec in draft.config.backends.values()):
        found = plan(draft.fleet, draft.now, HORIZON_S).services
        for name, service in found.items():
            ask = next((one for one in service.asks if one.at <= draft.now.wall), None)
            if ask is not None:
                due[name] = ask
    for incident in [one for one in draft.open_incidents() if one.kind == ASKED_EARLY]:
        ask = due.pop(incident.subject, None)
        if ask is not None:
            _say_anew(draft, incident, _params(draft, incident.subject, ask))
        elif not _proving(draft, incident):
            close_incident(draft, incident)
    for name, ask in due.items():
        if not _explained(draft, name, ask):
            params = _params(draft, name, ask)
            open_incident(draft, Wrong(ASKED_EARLY, name, Severity.WARNING, params))


def _params(draft: Draft, service: str, ask: Ask) -> dict[str, str]:
    shift_s = draft.now.wall - draft.at
    return {
        "service": service,
        "backend": ask.backend,
        "url": ask.url,
        "latest": f"{ask.by - shift_s:.0f}",
        "gap_at": f"{ask.needed_at - shift_s:.0f}",
        "reason": ask.why,
    }


def _say_anew(draft: Draft, incident: Incident, params: dict[str, str]) -> None:
    """Bring an open incident up to date where that makes a difference."""
    old = incident.params
    moved_s = abs(float(params["latest"]) - float(old.get("latest") or 0.0))
    late = float(params["latest"]) <= draft.at  # it slips on with every minute
    if old.get("backend") != params["backend"] or (moved_s >= MOVED_S and not late):
        draft.incidents[incident.key] = replace(incident, params=params)
        draft.durable = True


def _proving(draft: Draft, incident: Incident) -> bool:
    """Say whether what was asked for has registered and is about to show that it can serve."""
    name = incident.params.get("backend", "")
    return name in draft.config.backends and draft.backend(name).pending is not None


def _explained(draft: Draft, service: str, ask: Ask) -> bool:
    """Say whether something that is told already asks for the same."""
    told = ("restart_needed", "service_down")  # what is wanted at once is not wanted soon
    if any(draft.incident(f"{kind}:{service}") is not None for kind in told):
        return True
    ending = draft.incident(f"session_ending:{ask.backend}")
    return ending is not None and _soon(draft, ask)


def _soon(draft: Draft, ask: Ask) -> bool:
    """Say whether the hours in question begin when the session ends that is told of."""
    return ask.needed_at - draft.now.wall <= draft.config.backends[ask.backend].warn_before_s


# ── what was asked for is there ─────────────────────────────────────────────────────────────────


def arrived(draft: Draft, state: BackendState) -> tuple[float, ...]:
    """Take note that a backend is up that a human may have been asked to start.

    Returns how long its last starts by hand took; what early asking was open for it is over.
    """
    asked = [one for one in draft.open_incidents() if one.params.get("backend") == state.name]
    asked = [one for one in asked if one.kind in ASKED]
    for incident in asked:
        if incident.kind == ASKED_EARLY:
            close_incident(draft, incident)
    by_machine = state.power is not None and bool(state.power.launch)
    if not asked or by_machine:
        return state.hand_starts
    took_s = _awake_s(draft, min(one.opened_at for one in asked))
    known = any(one.acked_at is not None for one in asked)
    draft.note(
        "restarted_by_hand",
        state.name,
        f"{state.name} was started by hand, {spoken(took_s)} after it was asked for",
        seconds=f"{took_s:.0f}",
        acknowledged="yes" if known else "no",
    )
    return (*state.hand_starts, took_s)[-STARTS:]


def _awake_s(draft: Draft, since: float) -> float:
    """Say for how much of the time since then somebody was there to do it."""
    begins, ends = since + draft.now.wall - draft.at, draft.now.wall
    config = draft.config
    hours = awake(config.operator_hours, config.timezone, begins, ends)
    return sum(max(0.0, min(e, ends) - max(b, begins)) for b, e in hours)
