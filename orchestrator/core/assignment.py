"""How members of a pool stand, and carrying an assignment into the state."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import health as rules
from orchestrator.core import whereabouts
from orchestrator.core.boots import resting, up_at
from orchestrator.core.choice import Candidate, Rank
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import Deliver, Reconcile
from orchestrator.core.health import Lease, lease
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import (
    BackendState,
    Health,
    Notice,
    NoticeKind,
    Phase,
    Rotation,
    ServiceState,
    Severity,
)
from orchestrator.core.specs import Backend, Service, Target, Tier

TIERS = list(Tier)
FRESH_S = 10.0  # after a start, how long a preferred backend's first word is waited for


def margin_s(spec: Backend, service: Service) -> float:
    """Say with how little time left a backend is about to end: a move must be over by then."""
    if service.dns is None:
        return spec.drain_margin_s
    turn = service.rotation
    return max(spec.drain_margin_s, turn.verify_s + service.dns.ttl_s + turn.drain_s)


def candidate(draft: Draft, spec: Backend, service: Service) -> Candidate:
    """Say how one member of a pool stands, from its state as this turn leaves it."""
    state = draft.backend(spec.name)
    barred, suspect = _barred(draft, spec, state)
    ends_at = state.session.ends_at if state.session is not None else None
    young = draft.at - draft.world.started_at < FRESH_S
    return Candidate(
        name=spec.name,
        health=state.health,
        tier=spec.tier,
        reason=state.reason,
        barred=barred,
        suspect=suspect,
        drained=state.drained,
        ending=ends_at is not None and ends_at - draft.at <= margin_s(spec, service),
        ok_since=state.ok_since,
        wait_s=rules.failback_wait_s(state, service.failback_after_s, draft.at),
        flapping=rules.flap_level(state, draft.at) > 0,
        fresh=young and not barred and state.health is Health.UNKNOWN and state.fails == 0,
    )


def _barred(draft: Draft, spec: Backend, state: BackendState) -> tuple[str, bool]:
    """Say why this backend cannot serve although it may live, and whether it is suspect."""
    if not spec.assignable:
        return "requests to an API go through the gateway, which is not there yet", False
    if state.denied:
        return f"it refuses us ({state.denied})", False
    if state.cooldown_until is not None and state.cooldown_until > draft.at:
        return (
            f"it asked to be left alone for {spoken(state.cooldown_until - draft.at)} more",
            False,
        )
    if state.exhausted_until is not None and state.exhausted_until > draft.at:
        return "its quota is spent", False
    if state.power is not None and spec.powered and state.power.phase is PowerPhase.STOPPING:
        return "it is being stopped", False
    if state.session is not None:
        standing = lease(state.session, draft.at)
        if standing is Lease.OUT:
            return "its session is over", False
        return "", standing is Lease.SUSPECT
    return "", False


def pool_of(draft: Draft, service: Service) -> list[Candidate]:
    """List a service's candidates in order of preference."""
    specs = (draft.config.backends[name] for name in service.backends)
    pool = [candidate(draft, spec, service) for spec in specs]
    gone = {one.name for one in pool if _let_go(draft, one.name)}
    if not gone:
        return pool
    ready = [one for one in pool if one.rank is Rank.READY and one.name not in gone]
    return [
        replace(one, over=True) if one.name in gone and _spared(draft, service, one, ready) else one
        for one in pool
    ]


def _let_go(draft: Draft, name: str) -> bool:
    """Say whether the hours in which it should have been on are over."""
    power = draft.backend(name).power
    return power is not None and power.in_hours is False


def _spared(draft: Draft, service: Service, one: Candidate, ready: list[Candidate]) -> bool:
    """Say whether others that cost no more make it needless. What the operator wants goes first."""
    state, price = draft.service(service.name), TIERS.index(one.tier)
    wished = state.hold_until is not None or (state.pin and state.pin.backend == one.name)
    return not wished and any(TIERS.index(each.tier) <= price for each in ready)


def resets(state: BackendState, at: float) -> list[float]:
    """List when this backend may serve again by time alone."""
    times = (state.cooldown_until, state.exhausted_until)
    return [time for time in times if time is not None and time > at]


# ── assigning ───────────────────────────────────────────────────────────────────────────────────


def next_epoch(state: ServiceState) -> int:
    """Give the number of the next assignment: above all that was stored or published."""
    record = state.publication
    return max(state.epoch, record.wanted_epoch, record.confirmed_epoch) + 1


def targets(draft: Draft, service: Service, active: str | None) -> tuple[Target, ...]:
    """Say where the name should point: the backend's own records, else the gateway's."""
    if service.dns is None:
        return ()
    spec = draft.config.backends.get(active or "")
    if spec is None:
        return service.dns.gateway
    return whereabouts.own(spec, draft.backend(spec.name).power) or service.dns.gateway


def assign(
    draft: Draft,
    name: str,
    to: str | None,
    why: str,
    *,
    voluntary: bool = False,
    state: ServiceState | None = None,
    rotation: Rotation | None = None,
) -> None:
    """Make `to` the one that serves: a new epoch, a wanted record, a line in the log, a notice."""
    service = draft.config.services[name]
    state = state if state is not None else draft.service(name)
    epoch = next_epoch(state)
    wanted = targets(draft, service, to) or state.publication.wanted
    moves = (*state.moves, draft.at) if voluntary else state.moves
    old = state.active
    given_up = state.rotation if rotation is None else None
    if given_up is not None and given_up.new != to and given_up.phase is not Phase.DRAIN:
        failed(draft, name, given_up, why)
    draft.put_service(
        replace(
            state,
            active=to,
            since=draft.at,
            epoch=epoch,
            reason=why,
            settled=True,
            moves=moves,
            rotation=rotation,
            retry_at=retry_at(draft, service) if to is None else None,
            review_at=draft.at,  # who is better than this one, and from when, is another question
            publication=replace(state.publication, wanted=wanted, wanted_epoch=epoch),
        ),
        durable=True,
    )
    _tell(draft, name, old, to, why, epoch)
    draft.stirred[name] = None
    if (old is None) != (to is None):  # what everybody's being down explained, or explains now
        for backend in service.backends:
            draft.stirred[backend] = None
    if wanted:
        draft.do(Reconcile(name))


def _tell(draft: Draft, name: str, old: str | None, to: str | None, why: str, epoch: int) -> None:
    text = f"{name}: {old or 'nobody'} → {to or 'nobody'}: {why}"
    data = {"old": old or "", "new": to or "", "epoch": str(epoch)}
    draft.note("assigned", name, text, **data)
    if to is None:
        return  # the incident "service down" tells of it
    notice = Notice(
        id=f"moved:{name}:{epoch}",
        kind=NoticeKind.MOVED,
        topic="moved",
        subject=name,
        severity=Severity.INFO if old is None else Severity.WARNING,
        created_at=draft.at,
        params={"service": name, "reason": why, **data},
    )
    draft.notices[notice.id] = notice
    draft.do(Deliver())


def retry_at(draft: Draft, service: Service) -> float | None:
    """Say when asking again may help: the soonest reset or boot, or the next look at somebody.

    One that is off is not looked for: what counts is when it may be up, if it comes by itself.
    """
    times, looks = [], []
    for name in service.backends:
        state = draft.backend(name)
        spec = draft.config.backends[name]
        policy = spec.health
        look = draft.at + min(policy.down_interval_s, policy.interval_s * 3)
        if resting(spec, state):
            back = up_at(spec, state, draft.at)
            looks.append(look if back is None else max(back, look))
            times += [] if back is None else looks[-1:]
            continue
        times += resets(state, draft.at)
        nowhere = spec.registers and state.session is None and state.pending is None
        if spec.assignable and not state.denied and not nowhere:
            times.append(look)
    return min(times or looks, default=None)


def failed(draft: Draft, name: str, turn: Rotation, why: str) -> None:
    """Tell that a planned move was given up."""
    draft.note("rotation_failed", name, f"{name}: the move to {turn.new} was given up: {why}")
    notice = Notice(
        id=f"rotation_failed:{name}:{turn.since:.3f}",
        kind=NoticeKind.MOVED,
        topic="rotation_failed",
        subject=name,
        severity=Severity.WARNING,
        created_at=draft.at,
        params={"service": name, "old": turn.old, "new": turn.new, "reason": why},
    )
    draft.notices[notice.id] = notice
    draft.do(Deliver())
