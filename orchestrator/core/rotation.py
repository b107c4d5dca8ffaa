"""Planned moves, make-before-break: prove, publish, verify, let resolvers forget, drain."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.assignment import assign, candidate, failed
from orchestrator.core.choice import Candidate, Rank, trouble
from orchestrator.core.draft import Draft
from orchestrator.core.events import CanarySoon, CheckName, ProbeSoon
from orchestrator.core.model import Health, Phase, Rotation, ServiceState
from orchestrator.core.stopping import drained

CANARY_WAIT_S = 90.0  # a rotation's next one must complete a canary by then
VERIFY_LIMIT_S = 300.0
RETRY_S = 60.0  # after one was given up


def rotate(draft: Draft, name: str, to: str, why: str, *, hold_until: float | None = None) -> None:
    """Begin a planned move: first the next one proves itself by a canary.

    One that is still being made ready is let finish; one that failed is not repeated at once.
    `hold_until`: how long failback may not undo it.
    """
    state = draft.service(name)
    turn = state.rotation
    if state.active is None or resting(state, draft.at):
        return
    if turn is not None and (turn.new == to or turn.phase is Phase.CANARY):
        return
    turn = Rotation(old=state.active, new=to, phase=Phase.CANARY, since=draft.at, why=why)
    draft.put_service(replace(state, rotation=turn, hold_until=hold_until), durable=True)
    draft.note("rotation_started", name, f"{name}: {to} is made ready to follow {state.active}")
    _ask(draft, to)
    advance(draft, name)


def resting(state: ServiceState, at: float) -> bool:
    """Say whether a rotation failed so lately that no other is begun."""
    return state.rotation_failed_at is not None and at - state.rotation_failed_at < RETRY_S


def _ask(draft: Draft, to: str) -> None:
    draft.do(ProbeSoon(to))
    if draft.config.backends[to].health.canary_s is not None:
        draft.do(CanarySoon(to))


def rewound(turn: Rotation, at: float) -> Rotation:
    """Begin the phase anew: for a while nobody looked."""
    return replace(turn, since=at, good_since=None)


def rewind(draft: Draft, name: str) -> None:
    """Begin the phase of a rotation under way anew, if there is one."""
    state = draft.service(name)
    if state.rotation is None:
        return
    draft.put_service(replace(state, rotation=rewound(state.rotation, draft.at)), durable=True)
    new = state.rotation.new
    if state.rotation.phase is Phase.CANARY and new in draft.config.backends:
        _ask(draft, new)


def advance(draft: Draft, name: str) -> None:
    """Take a rotation one phase on if it may; give it up if the next one is not fit."""
    state = draft.service(name)
    turn = state.rotation
    if turn is None or draft.observing() or draft.world.isolated_since is not None:
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
    elif draft.at - turn.since >= service.rotation.drain_s:
        draft.put_service(replace(state, rotation=None), durable=True)
        draft.note("rotation_done", name, f"{name}: {turn.old} is drained", old=turn.old)
        drained(draft, turn.old)


def _after_canary(draft: Draft, name: str, turn: Rotation, new: Candidate) -> None:
    state = draft.backend(turn.new)
    no_canary = draft.config.backends[turn.new].health.canary_s is None
    proven = state.canary_at is not None and state.canary_at >= turn.since
    well = new.health is Health.UP and new.rank >= Rank.RESERVE
    if well and (no_canary or (proven and state.canary_fails == 0)):
        following = replace(turn, phase=Phase.VERIFY, since=draft.at)
        assign(draft, name, turn.new, turn.why, rotation=following)
        draft.do(CheckName(name))
    elif new.health is Health.DOWN or new.barred or new.drained:
        _give_up(draft, name, trouble(new))
    elif draft.at - turn.since >= CANARY_WAIT_S:
        _give_up(draft, name, f"{turn.new} did not prove itself: {state.reason}")


def _after_verify(draft: Draft, name: str, turn: Rotation) -> None:
    verify_s = draft.config.services[name].rotation.verify_s
    if turn.good_since is not None and draft.at - turn.good_since >= verify_s:
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
    failed(draft, name, turn, why)
    if turn.phase is Phase.CANARY:  # nothing moved, so there is nothing to hold
        state = replace(state, hold_until=None)
    draft.put_service(replace(state, rotation=None, rotation_failed_at=draft.at), durable=True)
    draft.stale[name] = None
