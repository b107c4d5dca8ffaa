"""Who is needed: which backend a service should have started, and whether one may be let go.

A service is covered by whoever serves or could serve it at once, or will within minutes by itself,
and costs no more than the one in question. One whose session ends covers it until the start of
another would come too late.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.core import metering
from orchestrator.core.assignment import candidate, margin_s
from orchestrator.core.boots import boot_s, starting
from orchestrator.core.choice import Candidate, Rank
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import BackendState, Health
from orchestrator.core.onhours import until
from orchestrator.core.queueing import overdue
from orchestrator.core.specs import Backend, Service, Tier

COMING_S = 900.0  # what loads for longer than this is not coming
UNSEEN_S = 60.0  # what nobody looked at yet is waited for
SOON_S = 300.0  # a cool-down that ends sooner is waited for
BY_HOURS = "these are its hours"
TIERS = list(Tier)


def label_start(instance: str, backend: str) -> str:
    """Say how the labels of our launches of a backend begin: what every provider can hold."""
    return re.sub(r"[^a-z0-9-]", "-", f"aion-{instance}-{backend}-".lower())


def ours(instance: str, backend: str, label: str) -> bool:
    """Say whether a launch with that label is one of ours, in this life or an earlier one."""
    start = label_start(instance, backend)
    return label.startswith(start) and label.removeprefix(start).isdigit()


def exhausted(state: BackendState, at: float) -> bool:
    """Say whether what may be used of it is used up."""
    return state.exhausted_until is not None and state.exhausted_until > at


def ends_at(state: BackendState) -> float:
    """Say when its session ends; infinite where none does."""
    session = state.session
    return math.inf if session is None or session.ends_at is None else session.ends_at


def startable(draft: Draft, name: str) -> bool:
    """Say whether aion may start this backend by itself now."""
    spec, state = draft.config.backends[name], draft.backend(name)
    power = state.power
    if power is None or not (spec.powered and spec.auto_start and spec.assignable):
        return False
    if power.phase is not PowerPhase.OFF or not power.answered or power.confirmed_at is None:
        return False
    if state.drained or exhausted(state, draft.at) or draft.isolated_from(spec):
        return False
    if power.retry_at is not None and draft.at < power.retry_at:
        return False
    return not metering.short_of(draft, name)


def hopeful(draft: Draft, name: str) -> bool:
    """Say whether it will come without a human: it may be started and has not failed to."""
    spec, state = draft.config.backends[name], draft.backend(name)
    power = state.power if state.power is not None else Power()
    able = spec.powered and spec.auto_start and not state.drained and not draft.observing()
    held = power.retry_at is not None and power.retry_at > draft.at
    if not able or exhausted(state, draft.at) or power.failures or held or power.booted:
        return False
    return starting(state) or not metering.short_of(draft, spec.name)


# ── is it covered? ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Cover:
    """One that a service can count on, until when, and the place of its tier."""

    name: str
    tier: int
    until: float


def covers(draft: Draft, service: Service) -> list[Cover]:
    """List everybody that this service can count on."""
    found = []
    for name in service.backends:
        spec, state = draft.config.backends[name], draft.backend(name)
        if not spec.assignable or state.drained:
            continue
        one = candidate(draft, spec, service)
        if _serves(draft, service, one):
            found.append(Cover(name, TIERS.index(spec.tier), ends_at(state)))
        elif _coming(draft, spec, state):
            found.append(Cover(name, TIERS.index(spec.tier), math.inf))
    return found


def _serves(draft: Draft, service: Service, one: Candidate) -> bool:
    if one.barred or one.health is not Health.UP:
        return False
    active = draft.service(service.name).active == one.name
    return one.rank is Rank.READY or one.ending or (active and one.suspect)


def _coming(draft: Draft, spec: Backend, state: BackendState) -> bool:
    """Say whether it will serve within minutes by itself."""
    if state.denied or exhausted(state, draft.at):
        return False
    if spec.powered and starting(state):
        return not overdue(state, draft.at)
    if state.cooldown_until is not None and state.cooldown_until > draft.at:
        return state.health in ALIVE and state.cooldown_until - draft.at <= SOON_S
    patience_s = {
        Health.STARTING: COMING_S,
        Health.WARMING: COMING_S,
        Health.UNKNOWN: UNSEEN_S,
    }.get(state.health, 0.0)
    return draft.at - state.since < patience_s


def lead_s(draft: Draft, service: Service, name: str) -> float:
    """Say how long before it is needed a backend has to be started."""
    spec = draft.config.backends[name]
    return boot_s(draft.backend(name)) + max(service.rotation.lead_s, margin_s(spec, service))


def uncovered(
    draft: Draft, service: Service, name: str, counted: list[Cover], *, but: str = ""
) -> str:
    """Say why this service needs that backend; "" while others, `but` not among them, cover it."""
    tier = TIERS.index(draft.config.backends[name].tier)
    lead = lead_s(draft, service, name)
    able = [one for one in counted if one.tier <= tier and one.name != but]
    if any(one.until - draft.at > lead for one in able):
        return ""
    if able:
        last = max(able, key=lambda one: one.until)
        return f"{last.name} ends in {spoken(max(0.0, last.until - draft.at))}"
    dearer = [one for one in counted if one.name != but]
    if dearer:
        return f"nobody as cheap serves {service.name}"
    return f"nobody serves {service.name}"


def _at_ease(draft: Draft, service: Service, *names: str) -> bool:
    """Say whether this service needs none of these, for who serves it is as cheap and stays.

    `uncovered` would say the same of each of them; asked each second, this looks at one only.
    """
    active = draft.service(service.name).active
    if active is None or active in names or active not in service.backends:
        return False
    specs, state = draft.config.backends, draft.backend(active)
    spec = specs[active]
    if not spec.assignable or state.drained:
        return False
    left_s = ends_at(state) - draft.at
    if left_s < math.inf and any(left_s <= lead_s(draft, service, name) for name in names):
        return False
    cheapest = min(TIERS.index(specs[name].tier) for name in names)
    if TIERS.index(spec.tier) > cheapest:
        return False
    return _serves(draft, service, candidate(draft, spec, service))


# ── who is to be started, who may go ────────────────────────────────────────────────────────────


def next_start(draft: Draft, services: Iterable[str]) -> tuple[str, str] | None:
    """Name the one to be started now, and why: the cheapest needed, else one whose hours these are.

    One at a time, over all services. A start that takes longer than nine of ten of its own holds up
    those no more that it would not help.
    """
    needed = [one for name in services if (one := to_start(draft, name)) is not None]
    found = needed or [(name, BY_HOURS) for name in _due(draft)]
    return min(found, key=lambda one: _place(draft, one[0]), default=None)


def _place(draft: Draft, name: str) -> tuple[int, int, str]:
    spec = draft.config.backends[name]
    return TIERS.index(spec.tier), spec.priority, name


def _under_way(draft: Draft, members: Collection[str]) -> bool:
    """Say whether a start is under way that these have to wait for."""
    for name, spec in draft.config.backends.items():
        state = draft.backend(name)
        if not spec.powered or not starting(state) or state.power is None:
            continue
        if overdue(state, draft.at):
            continue
        began = state.power.launched_at if state.power.launched_at is not None else draft.at
        if name in members or draft.at - began < boot_s(state):
            return True
    return False


def on_until(draft: Draft, name: str) -> float | None:
    """Say until when (wall) a backend should be on by its hours, if it should be now."""
    spec = draft.config.backends[name]
    if spec.on_hours is None or not spec.auto_start or draft.backend(name).drained:
        return None
    return until(spec.on_hours, draft.config.timezone, draft.now.wall)


def _due(draft: Draft) -> list[str]:
    """List those that should be on by their hours, may be started, and would be up in time."""
    found = []
    for name, spec in draft.config.backends.items():
        ends = on_until(draft, name) if spec.on_hours is not None else None
        if ends is None or ends - draft.now.wall <= boot_s(draft.backend(name)):
            continue
        pools = (draft.config.services[one] for one in draft.pools.get(name, ()))
        beside = {one for service in pools for one in service.backends}
        if startable(draft, name) and not _under_way(draft, beside):
            found.append(name)
    return found


def to_start(draft: Draft, service_name: str) -> tuple[str, str] | None:
    """Name the one to be started for this service now, and why; None if nobody is."""
    service, state = draft.config.services[service_name], draft.service(service_name)
    members = [name for name in service.backends if draft.config.backends[name].powered]
    if state.planned is None and members and _at_ease(draft, service, *members):
        return None
    if _under_way(draft, service.backends):
        return None
    able = [name for name in members if startable(draft, name)]
    if state.pin is not None and state.pin.hard:
        able = [name for name in able if name == state.pin.backend]
    if not able:
        return None
    plan = state.planned
    if plan is not None and plan.to in able and _is_soon(draft, service, plan.to, plan.at):
        return plan.to, "the operator planned to move there"
    # The first of them can be ready in time, so no dearer one is started before it.
    first = min(able, key=lambda name: TIERS.index(draft.config.backends[name].tier))
    why = uncovered(draft, service, first, covers(draft, service))
    return (first, why) if why else None


def _is_soon(draft: Draft, service: Service, name: str, at: float) -> bool:
    return at - draft.at <= lead_s(draft, service, name)


def wanted(draft: Draft, name: str) -> bool:
    """Say whether a running backend has work, or is about to."""
    session = draft.backend(name).session
    if session is not None and session.busy:
        return True
    if on_until(draft, name) is not None:
        return True
    return any(_wanted_by(draft, service, name) for service in draft.pools.get(name, ()))


def _wanted_by(draft: Draft, service_name: str, name: str) -> bool:
    service, state = draft.config.services[service_name], draft.service(service_name)
    turn, plan = state.rotation, state.planned
    if state.active == name or (state.pin is not None and state.pin.backend == name):
        return True
    if turn is not None and name in (turn.old, turn.new):
        return True
    if plan is not None and plan.to == name and _is_soon(draft, service, name, plan.at):
        return True
    spec = draft.config.backends[name]
    if not spec.auto_start or draft.backend(name).drained or _at_ease(draft, service, name):
        return False
    return bool(uncovered(draft, service, name, covers(draft, service), but=name))
