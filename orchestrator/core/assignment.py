"""Who serves a service now.

Looking at the choice again, and carrying an assignment into the state.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import health as rules
from orchestrator.core.choice import HOUR_S, Candidate, Choice, choose, explain
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import CanarySoon, CheckName, Deliver, ProbeSoon, Reconcile, Stop
from orchestrator.core.health import Lease, lease
from orchestrator.core.model import (
    Backend,
    BackendState,
    Health,
    Notice,
    NoticeKind,
    Phase,
    Rotation,
    Service,
    ServiceState,
    Severity,
    Target,
)

HOLD_S = 3600.0  # a manual failover stands this long before failback may undo it
FRESH_S = 10.0  # after a start, how long a preferred backend's first word is waited for
START_S = 30.0  # after a start, by when everything is decided
CANARY_WAIT_S = 90.0  # a rotation's next one must complete a canary by then
VERIFY_S = 60.0  # the public name must answer well for this long after a planned move
VERIFY_LIMIT_S = 300.0
DRAIN_S = 120.0
RETRY_ROTATION_S = 60.0


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
        ending=ends_at is not None and ends_at - draft.at <= spec.drain_margin_s,
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
    if state.session is not None:
        standing = lease(state.session, draft.at)
        if standing is Lease.OUT and draft.world.inbound_lost_since is None:
            return "its session is over", False
        return "", standing in (Lease.SUSPECT, Lease.OUT)
    return "", False


def pool_of(draft: Draft, service: Service) -> list[Candidate]:
    """List a service's candidates in order of preference."""
    specs = (draft.config.backends[name] for name in service.backends)
    return [candidate(draft, spec, service) for spec in specs]


def why_not(draft: Draft, service: Service) -> dict[str, str]:
    """Say of each candidate why it does or does not serve, for `aion explain`."""
    return explain(pool_of(draft, service), draft.service(service.name).active, draft.at)


def review(draft: Draft, name: str) -> None:
    """Look at a service's choice again, and assign where it says so."""
    service = draft.config.services[name]
    state = _expired(draft.service(name), draft.at)
    pool = pool_of(draft, service)
    choice = choose(
        pool,
        state.active,
        draft.at,
        pin=state.pin,
        hold_until=state.hold_until,
        moves=state.moves,
    )
    draft.stirred[name] = None
    due = _soonest(draft, pool, choice, state)
    if draft.observing():
        would = "" if choice.to == state.active else f"would move to {choice.to}: {choice.why}"
        if would and would != state.would:
            draft.note("would_move", name, f"{name} {would} (only observing)")
        draft.put_service(replace(state, would=would, review_at=due))
        return
    state = replace(state, would="", review_at=due)
    if choice.to == state.active:
        why = choice.why if state.active is None else state.reason
        settled = state.settled or _confirmed(draft, service, state)
        draft.put_service(replace(state, reason=why, settled=settled))
        if draft.world.settled:
            _retarget(draft, service)
        return
    if choice.planned and choice.to is not None and state.active is not None:
        draft.put_service(state)
        rotate(draft, name, choice.to, choice.why)
        return
    assign(draft, name, choice.to, choice.why, voluntary=choice.voluntary, state=state)


def _expired(state: ServiceState, at: float) -> ServiceState:
    """Let pins and holds end by themselves, and old moves be forgotten."""
    if state.pin is not None and at >= state.pin.until:
        state = replace(state, pin=None)
    if state.hold_until is not None and at >= state.hold_until:
        state = replace(state, hold_until=None)
    if state.moves and at - state.moves[0] >= HOUR_S:
        state = replace(state, moves=tuple(t for t in state.moves if at - t < HOUR_S))
    return state


def _confirmed(draft: Draft, service: Service, state: ServiceState) -> bool:
    """Say whether the stored assignment was confirmed by a probe and a read of the record."""
    waited = draft.at - draft.world.started_at >= START_S
    if state.active is None:
        decided = not any(
            draft.backend(name).health is Health.UNKNOWN
            and not draft.backend(name).denied
            and draft.config.backends[name].assignable
            for name in service.backends
        )
        return decided or waited
    if draft.backend(state.active).health is Health.UNKNOWN:
        return False
    record = state.publication
    looked = (
        not record.wanted
        or record.trouble is not None
        or (record.confirmed_at is not None and record.confirmed_at >= draft.world.started_at)
    )
    return looked or waited


def _soonest(
    draft: Draft, pool: list[Candidate], choice: Choice, state: ServiceState
) -> float | None:
    """Say when the choice may change with no new evidence."""
    times = [choice.review_at] if choice.review_at is not None else []
    if state.pin is not None:
        times.append(state.pin.until)
    for one in pool:
        backend = draft.backend(one.name)
        times += _resets(backend, draft.at)
        if one.fresh:
            times.append(draft.world.started_at + FRESH_S)
        session = backend.session
        if session is not None and session.ends_at is not None:
            margin = session.ends_at - draft.config.backends[one.name].drain_margin_s
            times += [time for time in (margin, session.ends_at) if time > draft.at]
    return min(times, default=None)


def _resets(state: BackendState, at: float) -> list[float]:
    times = (state.cooldown_until, state.exhausted_until)
    return [time for time in times if time is not None and time > at]


def _retarget(draft: Draft, service: Service) -> None:
    """Publish anew where the one that serves has other records now than were wanted of it.

    The configuration changed: by a reload, or while we were not there.
    """
    state = draft.service(service.name)
    record, wanted = state.publication, targets(draft, service, state.active)
    if state.active not in service.backends or not wanted or wanted == record.wanted:
        return
    epoch = _next_epoch(state)
    record = replace(record, wanted=wanted, wanted_epoch=epoch)
    draft.put_service(replace(state, epoch=epoch, publication=record), durable=True)
    where = ", ".join(target.content for target in wanted)
    draft.note("retargeted", state.name, f"{state.name}: {state.active} is at {where} now")
    draft.do(Reconcile(state.name))


def _next_epoch(state: ServiceState) -> int:
    record = state.publication
    return max(state.epoch, record.wanted_epoch, record.confirmed_epoch) + 1


# ── assigning ───────────────────────────────────────────────────────────────────────────────────


def targets(draft: Draft, service: Service, active: str | None) -> tuple[Target, ...]:
    """Say where the name should point: the backend's own records, else the gateway's."""
    if service.dns is None:
        return ()
    spec = draft.config.backends.get(active or "")
    return (spec.targets if spec is not None else ()) or service.dns.gateway


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
    epoch = _next_epoch(state)
    wanted = targets(draft, service, to) or state.publication.wanted
    moves = (*state.moves, draft.at) if voluntary else state.moves
    old = state.active
    if state.rotation is not None and rotation is None and state.rotation.phase is not Phase.DRAIN:
        _failed(draft, name, state.rotation, why)
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
            retry_at=_retry_at(draft, service) if to is None else None,
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


def _retry_at(draft: Draft, service: Service) -> float | None:
    """Say when asking again may help: the soonest reset, else the next look at somebody."""
    resets = []
    for name in service.backends:
        state = draft.backend(name)
        resets += _resets(state, draft.at)
        if draft.config.backends[name].assignable and not state.denied:
            policy = draft.config.backends[name].health
            resets.append(draft.at + min(policy.down_interval_s, policy.interval_s * 3))
    return min(resets, default=None)


# ── planned moves, make-before-break ────────────────────────────────────────────────────────────


def rotate(draft: Draft, name: str, to: str, why: str) -> None:
    """Begin a planned move: first the next one proves itself by a canary."""
    state = draft.service(name)
    if state.active is None or (state.rotation is not None and state.rotation.new == to):
        return
    if state.rotation is None and _resting(state, draft.at):
        return
    turn = Rotation(old=state.active, new=to, phase=Phase.CANARY, since=draft.at, why=why)
    draft.put_service(replace(state, rotation=turn), durable=True)
    draft.note("rotation_started", name, f"{name}: {to} is made ready to follow {state.active}")
    draft.do(ProbeSoon(to))
    if draft.config.backends[to].health.canary_s is not None:
        draft.do(CanarySoon(to))
    advance(draft, name)


def _resting(state: ServiceState, at: float) -> bool:
    return state.rotation_failed_at is not None and at - state.rotation_failed_at < RETRY_ROTATION_S


def advance(draft: Draft, name: str) -> None:
    """Take a rotation one phase on if it may; give it up if the next one is not fit."""
    state = draft.service(name)
    turn = state.rotation
    if turn is None or draft.observing():
        return
    service = draft.config.services[name]
    if turn.new not in service.backends:
        _give_up(draft, name, f"{turn.new} is no longer in the pool")
        return
    new = candidate(draft, draft.config.backends[turn.new], service)
    if turn.phase is Phase.CANARY:
        _after_canary(draft, name, turn, new)
    elif turn.phase is Phase.VERIFY:
        _after_verify(draft, name, turn)
    elif turn.phase is Phase.TTL:
        ttl_s = service.dns.ttl_s if service.dns is not None and state.publication.wanted else 0.0
        if draft.at - turn.since >= ttl_s:
            _phase(draft, name, turn, Phase.DRAIN)
    elif draft.at - turn.since >= DRAIN_S:
        draft.put_service(replace(state, rotation=None), durable=True)
        draft.note("rotation_done", name, f"{name}: {turn.old} is drained")
        draft.do(Stop(turn.old))


def _after_canary(draft: Draft, name: str, turn: Rotation, new: Candidate) -> None:
    state = draft.backend(turn.new)
    no_canary = draft.config.backends[turn.new].health.canary_s is None
    proven = state.canary_at is not None and state.canary_at >= turn.since
    if new.health is Health.UP and (no_canary or (proven and state.canary_fails == 0)):
        following = replace(turn, phase=Phase.VERIFY, since=draft.at, good_since=draft.at)
        assign(draft, name, turn.new, turn.why, rotation=following)
        draft.do(CheckName(name))
    elif draft.at - turn.since >= CANARY_WAIT_S or new.health is Health.DOWN:
        _give_up(draft, name, f"{turn.new} did not prove itself: {state.reason}")


def _after_verify(draft: Draft, name: str, turn: Rotation) -> None:
    if turn.good_since is not None and draft.at - turn.good_since >= VERIFY_S:
        _phase(draft, name, turn, Phase.TTL)
    elif draft.at - turn.since >= VERIFY_LIMIT_S:
        _give_up(draft, name, "the public name never answered well")
    elif int(draft.at) % 5 == 0:
        draft.do(CheckName(name))


def _phase(draft: Draft, name: str, turn: Rotation, phase: Phase) -> None:
    state = draft.service(name)
    draft.put_service(
        replace(state, rotation=replace(turn, phase=phase, since=draft.at)), durable=True
    )
    draft.note("rotation_phase", name, f"{name}: moving on from {turn.old}: {phase.value}")


def _give_up(draft: Draft, name: str, why: str) -> None:
    state = draft.service(name)
    turn = state.rotation
    if turn is None:
        return
    _failed(draft, name, turn, why)
    draft.put_service(
        replace(state, rotation=None, rotation_failed_at=draft.at, planned=None), durable=True
    )
    draft.stale[name] = None


def _failed(draft: Draft, name: str, turn: Rotation, why: str) -> None:
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
