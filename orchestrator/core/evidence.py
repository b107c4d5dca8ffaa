"""What the world says: probes, traffic, heartbeats, and whether our own network works.

No verdict on a remote backend is drawn before it is known that the fault is not ours: the controls
answered, or something remote did, since the failure that completes the verdict began; and where the
controls had failed before, it began only after we were proven online.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from orchestrator.core import health as rules
from orchestrator.core import power, stopping
from orchestrator.core.draft import Draft
from orchestrator.core.events import (
    AskControls,
    Challenge,
    ControlsAnswered,
    Observed,
    ProbeSoon,
    Prove,
    Traffic,
)
from orchestrator.core.health import ALIVE, CANARY_FALL, Lease, lease
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Fleet, Health, Observation, Source, Verdict
from orchestrator.core.registry import Challenged, Heartbeat
from orchestrator.core.rotation import rewind
from orchestrator.core.sessions import LOADING_S, current
from orchestrator.core.specs import Backend

FRESH_EVIDENCE_S = 1.0  # being online this long before a failure began still counts
REMOTE_OK_EVERY_S = 0.5  # how finely the last remote success is remembered
CONTROLS_FALL = 2  # controls that must fail before it may be us
LATELY = 1.2  # intervals, jitter and the answer's own time included, in which a success is recent
PROVEN_S = 6.0  # while controls fail: how long before a request an answer proves us online
PROOFS_KEPT_S = 15.0  # longer than that and a time-out
ASK_AHEAD_S = 20.0  # before a lease lapses, so that nobody moves for want of an answer
WITNESSES = 3  # healthy remote backends asked when the controls' word is not believed
BEATS = 4  # of its agent that a lease is long
PROVEN_AGAIN_S = 60.0  # a silent one that proved itself is asked so often: tunnels count requests
BAD = (Verdict.FAILED, Verdict.LOADING)


def unchanged(fleet: Fleet, event: Observed, at: float) -> bool:
    """Say quickly that a good answer of a backend in good health changes nothing."""
    seen = event.observation
    state = fleet.backends.get(seen.backend)
    if state is None:
        return True
    spec = fleet.config.backends[seen.backend]
    if seen.verdict is not Verdict.OK or seen.source is not Source.PROBE or fleet.unseen:
        return False
    if state.asked_at is not None:
        return False
    if spec.remote and fleet.config.controls and _remote_news(fleet, at):
        return False
    return rules.fold(state, seen, spec.health, at) is state


def _remote_news(fleet: Fleet, at: float) -> bool:
    last = fleet.world.remote_ok_at
    isolated = fleet.world.isolated_since is not None
    return isolated or last is None or at - last >= REMOTE_OK_EVERY_S


def observed(draft: Draft, event: Observed) -> None:
    """Take one observation into account."""
    seen = event.observation
    if seen.backend not in draft.fleet.backends:
        return  # it was removed while the probe was under way
    spec = draft.config.backends[seen.backend]
    state = draft.backend(seen.backend)
    if spec.registers and state.session is None:
        return  # its session ended while the probe was under way
    if seen.backend in draft.fleet.unseen:
        draft.seen = seen.backend
    gap_at = draft.world.gap_at
    if seen.verdict in BAD and gap_at is not None and event.started_at < gap_at:
        return  # it timed out while we slept
    news = (
        spec.remote and seen.verdict is not Verdict.FAILED and _remote_news(draft.fleet, draft.at)
    )
    if news:
        lately = (p for p in draft.world.proofs if draft.at - p < PROOFS_KEPT_S)
        proofs = (*lately, draft.at)
        draft.change_world(remote_ok_at=draft.at, online_at=draft.at, proofs=proofs)
    frozen = draft.isolated_from(spec)
    asked = seen.source is not Source.HEARTBEAT  # what its own agent says needs no controls
    held = spec.remote and draft.config.controls > 0 and asked
    after = rules.fold(state, seen, spec.health, draft.at, frozen=frozen, held=held)
    if seen.verdict is Verdict.OK and state.asked_at is not None:
        after = _shown(after, state.asked_at, event.started_at, draft.at)
    if held and not frozen and seen.verdict in BAD:
        after = _weigh(draft, spec, replace(after, failed_at=event.started_at), seen)
    changed(draft, state, after)
    if news:  # after its own evidence: what others waited for must not judge the one that answered
        _remote_answered(draft)


def _shown(state: BackendState, asked_at: float, began_at: float, at: float) -> BackendState:
    """Note that this is what a voluntary move waited for, if it is no older than the question."""
    return replace(state, asked_at=None, shown_at=at) if began_at >= asked_at else state


def changed(draft: Draft, before: BackendState, after: BackendState) -> None:
    """Put a backend's new state, and have its services looked at if it can serve differently."""
    if after is before:
        return
    after = power.expected(before, after)
    moved = after.health is not before.health
    kept = moved or after.falls != before.falls or after.denied != before.denied
    kept = kept or after.cooldown_until != before.cooldown_until or after.session != before.session
    draft.put_backend(after, durable=kept)
    if moved:
        text = f"{after.name} is {after.health.value}: {after.reason}"
        draft.note("health", after.name, text, old=before.health.value, new=after.health.value)
        power.learn(draft, after.name)
    if moved or _ability(after) != _ability(before):
        draft.touch(after.name)
    if before.canary_at is None and after.canary_at is not None:
        draft.stirred[after.name] = None


def _ability(state: BackendState) -> tuple[object, ...]:
    return (
        state.health,
        state.denied,
        state.cooldown_until,
        state.drained,
        state.exhausted_until,
        state.ok_since is None,
        state.fails == 0 and state.health is Health.UNKNOWN,
        state.missing,
        state.session,
        state.shown_at,
    )


# ── is it us? ───────────────────────────────────────────────────────────────────────────────────


def _weigh(
    draft: Draft, spec: Backend, state: BackendState, seen: Observation | None
) -> BackendState:
    """Draw a remote backend's verdict if we are known to be online, else ask the controls first."""
    if state.health is Health.DOWN:
        return state
    answered = seen is not None and seen.verdict is not Verdict.FAILED
    if answered or online_since(draft, state.failed_at or draft.at):
        return rules.settle(state, spec.health, draft.at, seen)
    if draft.world.asked_at is None:
        draft.change_world(asked_at=draft.at)
        draft.do(AskControls())
    return state


def online_since(draft: Draft, began_at: float) -> bool:
    """Say whether our own network is known to have worked when that failure began.

    To be online again afterwards says nothing of a request that was sent into a dead network. So
    while the controls fail it takes something remote that answered shortly before it was sent, and
    once they answer again, one sent since.
    """
    world = draft.world
    if world.suspected_at is not None:
        earliest = max(world.suspected_at, began_at - PROVEN_S)
        return any(earliest <= proof <= began_at for proof in world.proofs)
    if world.cleared_at is not None and began_at < world.cleared_at:
        return False
    return world.online_at is not None and world.online_at >= began_at - FRESH_EVIDENCE_S


def _remote_answered(draft: Draft) -> None:
    if draft.world.isolated_since is not None:
        _reconnected(draft)
    elif draft.world.controls_failed:  # their word did not settle what waits; this does
        _settle_held(draft)


def controls_answered(draft: Draft, event: ControlsAnswered) -> None:
    """Take the controls' word on whether we are cut off, or it was the backend."""
    draft.change_world(asked_at=None, controls_failed=event.failed)
    cut_off = event.total > 0 and event.failed >= min(CONTROLS_FALL, event.total)
    if not cut_off:
        online_at = max(event.started_at, draft.world.online_at or 0.0)
        draft.change_world(online_at=online_at)
        if draft.world.suspected_at is not None:
            draft.change_world(suspected_at=None, cleared_at=event.started_at)
        if draft.world.isolated_since is not None:
            _reconnected(draft)
        _settle_held(draft)
        return
    if draft.world.suspected_at is None:
        draft.change_world(suspected_at=event.started_at)
    if draft.world.isolated_since is not None:
        return
    last = draft.world.remote_ok_at
    if last is not None and draft.at - last < draft.config.interval_s * LATELY:
        _call_witnesses(draft)
        return
    draft.change_world(isolated_since=draft.at, durable=True)
    draft.note("isolated", "", f"{event.failed} of {event.total} controls do not answer: it is us")
    draft.stirred[""] = None
    for name, spec in draft.config.backends.items():
        state = draft.backend(name)
        known = state.fails or state.canary_fails or state.ok_since is not None
        if spec.remote and state.health is not Health.DOWN and known:  # nor is it seen to be well
            draft.put_backend(replace(state, fails=0, canary_fails=0, ok_since=None))


def _call_witnesses(draft: Draft) -> None:
    """Look at some that are well: one good answer says that it is not us, whatever controls say."""
    left = WITNESSES
    for name, spec in draft.config.backends.items():
        state = draft.backend(name)
        if left and spec.remote and state.health is Health.UP and not state.doubt:
            draft.do(ProbeSoon(name))
            left -= 1


def _settle_held(draft: Draft) -> None:
    """Draw the verdicts that waited for the controls; ask again for failures that are newer."""
    for name, spec in draft.config.backends.items():
        _weigh_unmet(draft, name)
        state = draft.backend(name)
        waits = state.fails >= spec.health.fall or state.canary_fails >= CANARY_FALL
        if not spec.remote or not waits or state.health is Health.DOWN:
            continue
        changed(draft, state, _weigh(draft, spec, state, None))


def _reconnected(draft: Draft) -> None:
    draft.change_world(isolated_since=None, durable=True)
    draft.note("reconnected", "", "the network is back; everything remote is looked at again")
    draft.stirred[""] = None
    unheard(draft, 0.0)
    doubt_all(draft, remote_only=True)
    for name in draft.config.services:
        draft.stale[name] = None
        rewind(draft, name)


def doubt_all(draft: Draft, *, remote_only: bool = False) -> None:
    """Be in doubt about everything: probe at once, route by the last verdict meanwhile."""
    for name, spec in draft.config.backends.items():
        if remote_only and not spec.remote:
            continue
        state = draft.backend(name)
        if state.health in ALIVE and not state.doubt:
            state = replace(state, doubt=True, doubt_since=draft.at)
        if state.fails and state.health is not Health.DOWN:
            state = replace(state, fails=0)
        draft.put_backend(state)
        if state.cooldown_until is None or state.cooldown_until <= draft.at:
            draft.do(ProbeSoon(name))


# ── traffic ─────────────────────────────────────────────────────────────────────────────────────


def traffic(draft: Draft, event: Traffic) -> None:
    """Take a proxied request's end as evidence; one that fails on two backends blames neither."""
    if len(set(event.failed)) == 1:
        _passive(draft, event.failed[0], Verdict.FAILED, event.detail)
    if event.served is not None and event.served not in event.failed:
        _passive(draft, event.served, Verdict.OK, "")
    stopping.worked(draft, event.served)


def _passive(draft: Draft, name: str, verdict: Verdict, detail: str) -> None:
    if name not in draft.fleet.backends:
        return
    seen = Observation(name, Source.TRAFFIC, verdict, detail)
    before = draft.backend(name)
    observed(draft, Observed(seen, draft.at))
    if verdict is Verdict.FAILED and draft.backend(name) is not before:
        draft.do(ProbeSoon(name))


# ── sessions ────────────────────────────────────────────────────────────────────────────────────


def heartbeat(draft: Draft, event: Heartbeat) -> None:
    """Renew a session's lease, and take the agent's word that something does not work.

    That all works is only its word: a probe has to say so too, for a tunnel can hang behind a
    lively agent.
    """
    if event.backend not in draft.fleet.backends:
        return
    state = draft.backend(event.backend)
    session = current(state, event.session)
    if session is None or 0 < event.seq <= session.seq:
        return
    fresh = _beaten(draft, session, event)
    durable = fresh.ends_at != session.ends_at or fresh.orders != session.orders
    if state.session is not session:
        if event.loading and draft.at - session.registered_at < LOADING_S:
            fresh = replace(fresh, loading_at=draft.at)
        if event.ready and not session.ready:
            fresh = replace(fresh, tried_at=draft.at, proving=True)
            draft.do(Prove(event.backend))
        draft.put_backend(replace(state, pending=fresh), durable=durable)
        return
    draft.put_backend(replace(state, session=fresh), durable=durable)
    if draft.world.inbound_lost_since is not None:
        draft.change_world(inbound_lost_since=None)
        draft.stirred[""] = None
    changed_mind = event.ready is not session.ready or not event.ready
    if lease(session, draft.at) is not Lease.HELD or changed_mind:
        draft.touch(event.backend)
        draft.do(ProbeSoon(event.backend))
    elif state.health not in ALIVE:
        draft.do(ProbeSoon(event.backend))
    if not event.ready:
        verdict = Verdict.LOADING if event.loading else Verdict.FAILED
        detail = event.detail or "its agent says that it does not work"
        seen = Observation(event.backend, Source.HEARTBEAT, verdict, detail)
        observed(draft, Observed(seen, draft.at))


def _beaten(draft: Draft, session: Session, event: Heartbeat) -> Session:
    """Note what an agent said, and what of its orders it has done."""
    done = dict(event.done)
    for order in session.orders:
        if order.id in done:
            what = f"did {order.do.value}" if done[order.id] else f"could not {order.do.value}"
            draft.note("agent_did", event.backend, f"{event.backend}: its agent {what}")
    return replace(
        session,
        beat_at=draft.at,
        ends_at=event.ends_at if event.ends_at is not None else session.ends_at,
        challenged_at=None,
        challenge_ok=False,
        unmet_at=None,
        unheard=None,
        seq=max(session.seq, event.seq),
        ready=event.ready,
        state=event.state,
        busy=event.busy,
        detail=event.detail,
        orders=tuple(order for order in session.orders if order.id not in done),
    )


def challenged(draft: Draft, event: Challenged) -> None:
    """Take the answer of a session that was asked to prove itself.

    That it did not answer counts once it is known that the fault is not ours.
    """
    if event.backend not in draft.fleet.backends:
        return
    state = draft.backend(event.backend)
    session = state.session
    if session is None or session.id != event.session:
        return
    asked_at, gap_at = session.challenged_at, draft.world.gap_at
    session = replace(session, challenged_at=draft.at)
    if event.ok:
        session = replace(session, challenge_ok=True, unmet_at=None, unheard=None)
    elif asked_at is None or (gap_at is not None and asked_at <= gap_at):
        return  # it spoke meanwhile, or we slept
    else:
        session = replace(session, unmet_at=asked_at)
    draft.put_backend(replace(state, session=session))
    _weigh_unmet(draft, event.backend)
    draft.touch(event.backend)


def _weigh_unmet(draft: Draft, name: str) -> None:
    """Believe that a challenge was not met if we are known to be online, else ask the controls."""
    state, spec = draft.backend(name), draft.config.backends[name]
    session = state.session
    unmet_at = session.unmet_at if session is not None else None
    if session is None or unmet_at is None or draft.isolated_from(spec):
        return
    cleared_at = draft.world.cleared_at
    if cleared_at is not None and unmet_at < cleared_at:  # another one has to tell
        session = replace(session, unmet_at=None, challenged_at=None)
        draft.put_backend(replace(state, session=session))
        return
    if not spec.remote or not draft.config.controls or online_since(draft, unmet_at):
        session = replace(session, challenge_ok=False, unmet_at=None)
        if session.unheard is not None:
            session = _missed(session, draft.at)
        draft.put_backend(replace(state, session=session))
        draft.touch(name)
    elif draft.world.asked_at is None:
        draft.change_world(asked_at=draft.at)
        draft.do(AskControls())


def _missed(session: Session, at: float) -> Session:
    """Count a challenge that was not met as a heartbeat missed: it says as much, and sooner."""
    over_at = at - session.lease_s
    beat_at = max(session.beat_at - session.lease_s / BEATS, over_at)
    return replace(session, beat_at=min(session.beat_at, beat_at))


def unheard(draft: Draft, gap_s: float) -> None:
    """Have every session prove itself: for `gap_s` seconds we could not listen.

    Lease time stood still meanwhile, so that a lease alone says nothing yet.
    """
    for name in draft.fleet.backends:
        state = draft.backend(name)
        session = state.session
        if session is not None:
            beat_at = session.beat_at + gap_s
            session = replace(session, beat_at=beat_at, challenged_at=draft.at, unheard=draft.at)
            draft.put_backend(replace(state, session=session))


def watch_leases(draft: Draft, elapsed_s: float) -> None:
    """Go through the leases once a second; they stand still while we cannot listen."""
    held = [name for name, state in draft.fleet.backends.items() if state.session is not None]
    if not held:
        return
    _watch_inbound(draft, held)
    cut_off, lost_at = draft.world.isolated_since is not None, draft.world.inbound_lost_since
    for name in held:
        state = draft.backend(name)
        session = cast("Session", state.session)
        before = lease(session, draft.at - elapsed_s)
        if cut_off or lost_at is not None:
            since = lost_at if session.unheard is None else session.unheard
            later = session.beat_at + elapsed_s
            state = replace(state, session=replace(session, beat_at=later, unheard=since))
            draft.put_backend(state)
        if not cut_off:
            _watch_lease(draft, state, before)


def _watch_lease(draft: Draft, state: BackendState, before: Lease) -> None:
    session = cast("Session", state.session)
    standing, unheard_at = lease(session, draft.at), session.unheard
    if standing is Lease.HELD and unheard_at is None:
        return
    if standing not in (before, Lease.HELD):
        draft.touch(state.name)
        state = replace(state, doubt=True, doubt_since=state.doubt_since or draft.at)
        draft.put_backend(state)
        draft.do(ProbeSoon(state.name))
    if standing is Lease.OUT and state.ok_since is not None:  # its engine may answer all the same
        draft.put_backend(replace(state, ok_since=None))
    lapsing = draft.at - session.beat_at >= session.lease_s - ASK_AHEAD_S
    health = draft.config.backends[state.name].health
    again_s = health.down_interval_s if standing is Lease.OUT else health.fast_interval_s
    asked = session.challenged_at
    if session.challenge_ok and session.unmet_at is None and (asked or 0.0) > (unheard_at or 0.0):
        again_s = PROVEN_AGAIN_S
    if (lapsing or unheard_at is not None) and (asked is None or draft.at - asked >= again_s):
        session = replace(session, challenged_at=draft.at)
        draft.put_backend(replace(draft.backend(state.name), session=session))
        draft.do(Challenge(state.name))


def _watch_inbound(draft: Draft, held: list[str]) -> None:
    """Notice that all leases lapse together while probes pass: then it is our own ingress.

    Those that cannot prove themselves say nothing of it, and where nobody can it is them.
    """
    states = [draft.backend(name) for name in held]
    sessions = [cast("Session", state.session) for state in states]
    there = [session for session in sessions if lease(session, draft.at) is not Lease.OUT]
    if draft.world.inbound_lost_since is not None:
        if not there:
            draft.change_world(inbound_lost_since=None, durable=True)
            draft.stirred[""] = None
        return
    if len(there) < CONTROLS_FALL:
        return
    for state, session in zip(states, sessions, strict=True):
        if draft.at - session.beat_at < session.late_s or state.health not in ALIVE or state.fails:
            return
    draft.change_world(inbound_lost_since=draft.at, durable=True)
    text = f"all {len(held)} agents are silent while their backends answer: our own ingress"
    draft.note("inbound_lost", "", text)
    draft.stirred[""] = None
