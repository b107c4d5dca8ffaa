"""Backends that register themselves: one life after the other, each proved before it may serve.

A registration is *pending* until its host answered the identity challenge, showed its engine and
completed a canary; only then is it promoted and the session before it over. Each has a generation,
and what an earlier one says is no longer heard: its agent is told so and exits.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import lookahead, tokens
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import Answer, Deliver, Prove, Rewire
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import PastSession, Session, Token
from orchestrator.core.model import BackendState, Health, Notice, NoticeKind, Severity
from orchestrator.core.refusal import Refused, known
from orchestrator.core.registry import Left, MintToken, Proved, Register, RevokeTokens
from orchestrator.core.specs import Backend, FleetConfig

PENDING_S = 900.0  # a registration that did not prove itself by then is forgotten …
LOADING_S = 3600.0  # … counted from when its agent last said that it loads, for so long at most
AGAIN_S = 120.0  # … and after a start of ours it has at least this long left
PROOF_LIMIT_S = 90.0  # a proof takes less; then its answer was lost
SLOWEST_RETRY_S = 15.0  # between proofs
FORGOTTEN_S = 900.0  # a lapsed session that is silent and dead for so long is over
LEAST_S = 60.0  # a run with less time left than this is not worth a registration
WAITING = "nobody has registered"
PROVING = "registered; it has to prove itself"
HELD = "proved, and waits until aion no longer only observes"
BOOTS = 20  # starts whose duration is remembered


def current(state: BackendState, ident: str) -> Session | None:
    """Find a live session of this backend by its id: the one that serves or the pending one."""
    for session in (state.session, state.pending):
        if session is not None and session.id == ident:
            return session
    return None


def tokens_of(config: FleetConfig, stored: dict[str, Token], at: float) -> dict[str, Token]:
    """Add the tokens that the configuration seeds. One that was revoked stays so."""
    known_secrets = {token.secret for token in stored.values()}
    seeded = {
        secret[:12]: Token(secret[:12], backend, secret, at, "configuration")
        for backend, secret in config.seeds.items()
        if secret not in known_secrets
    }
    return {**stored, **seeded}


# ── registering ─────────────────────────────────────────────────────────────────────────────────


def register(draft: Draft, event: Register) -> None:
    """Take a registration; it serves once it has proved itself."""
    known(draft, event.backend, "backend")
    spec = draft.config.backends[event.backend]
    if not spec.registers:
        raise Refused(f"`{spec.name}` is of kind `{spec.kind}`, which does not register")
    token = tokens.permitted(draft, event)
    ends_at = _ends_at(draft, spec, max(0.0, event.age_s))
    state = draft.backend(spec.name)
    if state.pending is not None:
        _past(draft, spec.name, state.pending, "a newer one registered")
    draft.tokens[token.id] = token  # one from the configuration is stored once it was used
    session = _opened(draft, event, state.generation + 1, ends_at)
    state = replace(state, pending=session, generation=session.generation)
    if state.session is None:
        state = replace(state, health=Health.STARTING, since=draft.at, reason=PROVING)
    draft.put_backend(state, durable=True)
    draft.touch(spec.name)
    draft.note(
        "registered",
        spec.name,
        f"{spec.name} registered (generation {session.generation}) and is asked to prove itself",
        generation=str(session.generation),
        url=event.url,
    )
    draft.do(Prove(spec.name))
    draft.answer = Answer(f"{spec.name} is registered")


def _ends_at(draft: Draft, spec: Backend, age_s: float) -> float | None:
    """Say when a run of that age ends; refuses one that is over, or nearly."""
    if spec.session_s is None:
        return None
    ends_at = draft.at + spec.session_s - age_s
    if ends_at <= draft.at + min(LEAST_S, spec.session_s / 4):
        raise Refused(
            f"this run began {spoken(age_s)} ago, and a session of `{spec.name}` lasts"
            f" {spoken(spec.session_s)}: start a new one"
        )
    return ends_at


def _opened(draft: Draft, event: Register, generation: int, ends_at: float | None) -> Session:
    return Session(
        id=event.session,
        started_at=draft.at - max(0.0, event.age_s),
        beat_at=draft.at,
        ends_at=ends_at,
        generation=generation,
        url=event.url,
        secret=event.secret,
        token=event.token,
        registered_at=draft.at,
        tried_at=draft.at,
        proving=True,
        ready=False,  # so that its agent's first word that all works is news
        models=event.models,
        gpu=event.gpu,
        gpu_memory_mb=event.gpu_memory_mb,
        agent=event.agent,
    )


def proved(draft: Draft, event: Proved) -> None:
    """Take the outcome of a proof: promote the pending session, or try again later."""
    if event.backend not in draft.fleet.backends:
        return
    state = draft.backend(event.backend)
    pending = state.pending
    if pending is None or pending.id != event.session:
        return
    if event.ok and not _must_wait(draft, state):
        _promote(draft, state, pending, event)
        return
    why = HELD if event.ok else event.detail
    if why != pending.problem:
        draft.note("proof_failed", event.backend, f"{event.backend} may not serve yet: {why}")
    tried = replace(pending, tried_at=draft.at, proving=False, problem=why)
    draft.put_backend(replace(state, pending=tried))


def _must_wait(draft: Draft, state: BackendState) -> bool:
    """While only observing, a session that serves is not replaced."""
    return draft.observing() and state.session is not None


def _promote(draft: Draft, state: BackendState, pending: Session, event: Proved) -> None:
    old = state.session
    if old is not None:
        _past(draft, state.name, old, f"generation {pending.generation} took over")
    session = replace(pending, promoted_at=draft.at, problem="", proving=False)
    # Its agent may be silent by now, but it has just met the challenge.
    session = replace(session, challenged_at=draft.at, challenge_ok=True)
    fresh = BackendState(
        name=state.name,
        health=Health.UP,
        since=draft.at,
        reason="it proved itself: identity, engine and a completion",
        doubt=False,
        oks=draft.config.backends[state.name].health.rise,
        ok_since=draft.at,
        canary_at=draft.at if event.canary else None,
        missing=event.missing,
        falls=state.falls,
        flap_level=state.flap_level,
        drained=state.drained,
        exhausted_until=state.exhausted_until,
        session=session,
        generation=state.generation,
        power=state.power,
        boots=state.boots,
        hand_starts=lookahead.arrived(draft, state),
    )
    draft.put_backend(fresh, durable=True)
    tokens.spend(draft, session)
    took = spoken(draft.at - pending.registered_at)
    draft.note(
        "promoted",
        state.name,
        f"{state.name}: generation {pending.generation} proved itself after {took}",
        generation=str(pending.generation),
        url=pending.url,
    )
    if state.health is not Health.UP:
        text = f"{state.name} is up: {fresh.reason}"
        draft.note("health", state.name, text, old=state.health.value, new=Health.UP.value)
    if old is not None and state.health in ALIVE and _host(old) != _host(pending):
        _tell_takeover(draft, old, session, state.name)
    draft.do(Rewire(state.name))
    draft.touch(state.name)


def _host(session: Session) -> str:
    return session.url.partition("://")[2].lower()


def _tell_takeover(draft: Draft, old: Session, new: Session, name: str) -> None:
    """Tell whose place was taken while it was alive: had a token been stolen, it would look so."""
    notice = Notice(
        id=f"taken_over:{name}:{new.generation}",
        kind=NoticeKind.MOVED,
        topic="taken_over",
        subject=name,
        severity=Severity.INFO,
        created_at=draft.at,
        params={"backend": name, "host": _host(new), "old": _host(old)},
    )
    draft.notices[notice.id] = notice
    draft.do(Deliver())


# ── ending ──────────────────────────────────────────────────────────────────────────────────────


def _past(draft: Draft, backend: str, session: Session, why: str) -> None:
    draft.past.append(
        PastSession(
            id=session.id,
            backend=backend,
            generation=session.generation,
            secret=session.secret,
            token=session.token,
            url=session.url,
            started_at=session.started_at,
            ended_at=draft.at,
            why=why,
        )
    )
    draft.durable = True


def end(draft: Draft, name: str, why: str) -> None:
    """End the session that serves; the backend is down until another one proves itself."""
    state = draft.backend(name)
    if state.session is None:
        return
    _past(draft, name, state.session, why)
    pending = state.pending
    health = Health.STARTING if pending is not None else Health.DOWN
    gone = replace(
        state,
        session=None,
        health=health,
        since=draft.at,
        reason=why,
        oks=0,
        fails=0,
        denials=0,
        denied="",
        doubt=False,
        doubt_since=None,
        ok_since=None,
        canary_at=None,
        canary_fails=0,
        cooldown_until=None,
        missing=(),
    )
    draft.put_backend(gone, durable=True)
    draft.note("session_over", name, f"{name}: its session is over: {why}")
    if state.health is not health:
        text = f"{name} is {health.value}: {why}"
        draft.note("health", name, text, old=state.health.value, new=health.value)
    draft.do(Rewire(name))
    draft.touch(name)


def drop_pending(draft: Draft, name: str, why: str) -> None:
    """Forget a registration that has not proved itself."""
    state = draft.backend(name)
    if state.pending is None:
        return
    _past(draft, name, state.pending, why)
    state = replace(state, pending=None)
    if state.session is None:
        state = replace(state, health=Health.DOWN, since=draft.at, reason=why)
    draft.put_backend(state, durable=True)
    draft.note("registration_over", name, f"{name}: its registration is over: {why}")
    draft.touch(name)


def left(draft: Draft, event: Left) -> None:
    """End a session as its agent or the edge says."""
    if event.backend not in draft.fleet.backends:
        return
    state = draft.backend(event.backend)
    if state.session is not None and state.session.id == event.session:
        end(draft, event.backend, event.why)
    elif state.pending is not None and state.pending.id == event.session:
        drop_pending(draft, event.backend, event.why)


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def watch(draft: Draft) -> None:
    """Go through sessions and registrations once a second: what is over, what to prove again."""
    for name, state in draft.fleet.backends.items():
        if state.session is not None:
            _watch_end(draft, draft.backend(name))
        if draft.backend(name).pending is not None:
            _watch_pending(draft, draft.backend(name))


def _watch_end(draft: Draft, state: BackendState) -> None:
    session = state.session
    assert session is not None
    if session.ends_at is not None and draft.at >= session.ends_at:
        end(draft, state.name, "its time is over")
        return
    silent_s = draft.at - session.beat_at
    lost = silent_s >= session.lease_s + FORGOTTEN_S and state.health not in ALIVE
    if lost and not session.challenge_ok:
        end(draft, state.name, f"nothing was heard of it for {spoken(silent_s)}")


def _watch_pending(draft: Draft, state: BackendState) -> None:
    pending = state.pending
    assert pending is not None
    waited_s = draft.at - pending.registered_at
    idle_s = draft.at - max(pending.registered_at, pending.loading_at or 0.0)
    held = pending.problem == HELD  # after the pause too, until it was asked once more
    if idle_s >= PENDING_S and not held:
        drop_pending(
            draft, state.name, f"it did not prove itself: {pending.problem or 'no answer'}"
        )
    elif pending.ends_at is not None and draft.at >= pending.ends_at:
        drop_pending(draft, state.name, "its time is over")
    elif not draft.isolated_from(draft.config.backends[state.name]):
        fast_s = draft.config.backends[state.name].health.fast_interval_s
        wait_s = min(max(fast_s, waited_s / 4), max(fast_s, SLOWEST_RETRY_S))
        if pending.proving:  # the answer is still out
            wait_s = PROOF_LIMIT_S
        if pending.tried_at is None or draft.at - pending.tried_at >= wait_s:
            again = replace(pending, tried_at=draft.at, proving=True)
            draft.put_backend(replace(state, pending=again))
            draft.do(Prove(state.name))


def slept(draft: Draft, seconds: float) -> None:
    """Bring the ends of sessions nearer: where they run time went on while this machine slept."""
    for name in draft.fleet.backends:
        state = draft.backend(name)
        session, pending = _older(state.session, seconds), _older(state.pending, seconds)
        if session is not None or pending is not None:
            state = replace(state, session=session, pending=pending)
            draft.put_backend(state, durable=True)


def _older(session: Session | None, seconds: float) -> Session | None:
    if session is None:
        return None
    ends_at = None if session.ends_at is None else session.ends_at - seconds
    return replace(session, started_at=session.started_at - seconds, ends_at=ends_at)


# ── what the operator asks for ──────────────────────────────────────────────────────────────────


def mint(draft: Draft, command: MintToken) -> None:
    """Add a token."""
    known(draft, command.backend, "backend")
    spec = draft.config.backends[command.backend]
    if not spec.registers:
        raise Refused(f"`{spec.name}` is of kind `{spec.kind}`, which does not register")
    if command.id in draft.fleet.tokens:
        raise Refused(f"there is a token {command.id} already")
    made = Token(command.id, command.backend, command.secret, draft.at, command.by)
    draft.tokens[command.id] = made
    draft.note("token_made", command.backend, f"{command.backend}: token {command.id} was made")
    draft.answer = Answer(f"token {command.id} lets {command.backend} register")


def revoke(draft: Draft, command: RevokeTokens) -> None:
    """End tokens, and at once every session that was opened with one of them."""
    live = {
        token.id
        for token in draft.fleet.tokens.values()
        if token.revoked_at is None
        and (token.id in command.ids or (not command.ids and token.backend == command.backend))
    }
    if not live:
        what = ", ".join(command.ids) or f"of `{command.backend}`"
        raise Refused(f"there is no valid token {what}", "unknown")
    for ident in sorted(live):
        token = draft.fleet.tokens[ident]
        draft.tokens[ident] = replace(token, revoked_at=draft.at)
        text = f"{token.backend}: token {ident} is revoked"
        draft.note("token_revoked", token.backend, text)
    ended = [name for name in draft.fleet.backends if _revoked(draft, name, live)]
    over = f"; the session of {', '.join(ended)} is over" if ended else ""
    draft.answer = Answer(f"{len(live)} token{'s' * (len(live) != 1)} revoked{over}")


def _revoked(draft: Draft, name: str, gone: set[str]) -> bool:
    state = draft.backend(name)
    hit = False
    if state.pending is not None and state.pending.token in gone:
        drop_pending(draft, name, "its token was revoked")
        hit = True
    if state.session is not None and state.session.token in gone:
        end(draft, name, "its token was revoked")
        hit = True
    return hit


def woken(stored: BackendState, spec: Backend, at: float) -> BackendState:
    """Say how a backend that registers stands at a start: without a session it is down.

    What had not proved itself is asked anew, and is as old as it was; but it has a while for that,
    since nobody could ask before.
    """
    if not spec.registers:
        return stored
    pending = stored.pending
    if pending is not None:
        registered_at = max(pending.registered_at, at - PENDING_S + AGAIN_S)
        pending = replace(pending, registered_at=registered_at, tried_at=None, proving=False)
    if stored.session is not None:
        return replace(stored, pending=pending)
    health = Health.STARTING if pending is not None else Health.DOWN
    reason = stored.reason if stored.health is Health.DOWN and stored.reason else WAITING
    if pending is not None:
        reason = PROVING
    return replace(
        stored, health=health, since=at, reason=reason, pending=pending, doubt=False, ok_since=None
    )
