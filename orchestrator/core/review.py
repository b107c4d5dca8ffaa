"""Looking at a service's choice again, and doing what it says."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import health as rules
from orchestrator.core import rotation
from orchestrator.core.assignment import (
    FRESH_S,
    assign,
    margin_s,
    next_epoch,
    pool_of,
    resets,
    retry_at,
    targets,
)
from orchestrator.core.choice import HOUR_S, Candidate, Choice, Rank, choose
from orchestrator.core.draft import Draft
from orchestrator.core.events import ProbeSoon, Reconcile
from orchestrator.core.model import Health, Phase, ServiceState
from orchestrator.core.specs import Service

START_S = 30.0  # after a start, by when everything is decided
SHOWN_S = 5.0  # for so long an answer is one of this moment
PLANNED = "the operator planned it"


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
    waits = choice.voluntary and choice.to is not None and not _shown(draft, choice.to)
    if waits or choice.to == state.active:
        _stay(draft, service, state, choice, pool)
    elif choice.planned and choice.to is not None:
        draft.put_service(state)
        rotation.rotate(draft, name, choice.to, choice.why)
    else:
        if not choice.voluntary:  # what the operator held is gone
            state = replace(state, hold_until=None)
        assign(draft, name, choice.to, choice.why, voluntary=choice.voluntary, state=state)


def _shown(draft: Draft, name: str) -> bool:
    """Say whether this one answered well just now; if not, have it looked at first.

    It may have been looked at minutes ago, and nothing hurries: whoever serves serves well. Its
    answer has the choice looked at again.
    """
    state = draft.backend(name)
    if state.shown_at is not None and draft.at - state.shown_at <= SHOWN_S:
        return True
    if state.asked_at is None:
        draft.put_backend(replace(state, asked_at=draft.at))
        draft.do(ProbeSoon(name))
    return False


def _stay(
    draft: Draft, service: Service, state: ServiceState, choice: Choice, pool: list[Candidate]
) -> None:
    """Note that the choice stands: why nobody serves, and when asking again may help."""
    state = replace(state, settled=state.settled or _confirmed(draft, service, state))
    if state.active is None:
        retry = state.retry_at
        soonest = retry_at(draft, service)
        if retry is None or retry <= draft.at or (soonest is not None and soonest < retry):
            retry = soonest
        state = replace(state, reason=choice.why, retry_at=retry)
    turn = state.rotation
    needless = turn is not None and turn.phase is Phase.CANARY and turn.why != PLANNED
    if needless and any(one.name == state.active and one.rank is Rank.READY for one in pool):
        text = f"{service.name}: {state.active} is well again and goes on serving"
        draft.note("rotation_needless", service.name, text)
        state = replace(state, rotation=None)
    draft.put_service(state)
    if draft.world.settled:
        _retarget(draft, service)


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
    if state.active is None and state.retry_at is not None:
        times.append(state.retry_at)
    if choice.planned and rotation.resting(state, draft.at):
        times.append((state.rotation_failed_at or draft.at) + rotation.RETRY_S)
    for one in pool:
        backend = draft.backend(one.name)
        times += resets(backend, draft.at)
        if one.fresh:
            times.append(draft.world.started_at + FRESH_S)
        if one.flapping:
            times.append(rules.calmer_at(backend, draft.at))
        session = backend.session
        if session is not None and session.ends_at is not None:
            spec, service = draft.config.backends[one.name], draft.config.services[state.name]
            margin = session.ends_at - margin_s(spec, service)
            times += [time for time in (margin, session.ends_at) if time > draft.at]
    return min(times, default=None)


def _retarget(draft: Draft, service: Service) -> None:
    """Publish anew where the one that serves has other records now than were wanted of it.

    The configuration changed, by a reload or while we were not there; or nobody ever served, and
    the name should point at the gateway.
    """
    state = draft.service(service.name)
    record, wanted = state.publication, targets(draft, service, state.active)
    stands = state.active in service.backends or (state.active is None and state.settled)
    if not stands or not wanted or wanted == record.wanted:
        return
    epoch = next_epoch(state)
    record = replace(record, wanted=wanted, wanted_epoch=epoch)
    draft.put_service(replace(state, epoch=epoch, publication=record), durable=True)
    where = ", ".join(target.content for target in wanted)
    draft.note(
        "retargeted", state.name, f"{state.name}: {state.active or 'nobody'} is at {where} now"
    )
    draft.do(Reconcile(state.name))
