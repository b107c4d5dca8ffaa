"""Tokens that backends register with: those of the operator, and those of one launch.

What is started with its code in the provider's hands carries a token of its own, which is good for
that launch alone: it opens sessions until one of them served, and it ends with its launch.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.draft import Draft
from orchestrator.core.lives import PowerPhase, Session, Token
from orchestrator.core.model import BackendState
from orchestrator.core.refusal import Refused, known
from orchestrator.core.registry import MintLaunchToken, Register

LONGEST_S = 86_400.0  # a launch that nobody heard of for a day registers no more
RUNS = (PowerPhase.STARTING, PowerPhase.ON)


def good(token: Token, state: BackendState | None, at: float) -> bool:
    """Say whether a token opens sessions of its backend, whose state this is."""
    if token.revoked_at is not None:
        return False
    if not token.launch:
        return True
    power = state.power if state is not None else None
    current = power is not None and power.launch == token.launch and power.phase in RUNS
    return current and token.spent_at is None and at - token.created_at < LONGEST_S


def permitted(draft: Draft, event: Register) -> Token:
    """Give the token that lets this one register. Raises Refused if there is none."""
    state = draft.backend(event.backend)
    token = draft.fleet.tokens.get(event.token)
    if token is None or token.backend != event.backend or token.revoked_at is not None:
        raise Refused("the token it came with is revoked")
    if event.holder:
        living = (state.session, state.pending)
        if not any(one and (one.id, one.token) == (event.holder, token.id) for one in living):
            raise Refused("the session whose token it came with is over")
    elif not good(token, state, draft.at):
        raise Refused("the launch that its token belongs to is over, or has registered already")
    return token


def mint(draft: Draft, event: MintLaunchToken) -> None:
    """Add the token of a launch that is about to be made; forget those of launches long over."""
    known(draft, event.backend, "backend")
    state = draft.backend(event.backend)
    power = state.power
    if power is None or power.launch != event.launch or power.phase is not PowerPhase.STARTING:
        raise Refused(f"{event.launch} is not to be started any more")
    by = f"launch {event.launch}"
    made = Token(event.id, event.backend, event.secret, draft.at, by, launch=event.launch)
    used = {one.token for one in (state.session, state.pending) if one is not None}
    for token in draft.fleet.tokens.values():
        over = token.launch and token.backend == event.backend and token.id not in used
        if over and draft.at - token.created_at >= LONGEST_S:
            draft.tokens[token.id] = None
    draft.tokens[made.id] = made
    draft.note("token_made", event.backend, f"{event.backend}: {event.launch} got its token")


def spend(draft: Draft, session: Session) -> None:
    """Note that a session serves: a token of one launch opens no other."""
    token = draft.tokens.get(session.token) or draft.fleet.tokens.get(session.token)
    if token is not None and token.launch and token.spent_at is None:
        draft.tokens[token.id] = replace(token, spent_at=draft.at)
