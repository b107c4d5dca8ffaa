"""Who is registered now, found without a scan: 500 agents ask every few seconds."""

from __future__ import annotations

import hashlib
import hmac

from orchestrator.core.events import Turn
from orchestrator.core.lives import Session, Token
from orchestrator.core.model import BackendState
from orchestrator.core.sessions import current
from orchestrator.web.ports import LoopPort


class Live:
    """The valid tokens by their digest, and the sessions that live by their id."""

    def __init__(self, loop: LoopPort) -> None:
        self._loop = loop
        self._backends: dict[str, str] = {}  # by the session's id
        self._ids: dict[str, tuple[str, ...]] = {}  # by the backend's name
        self._tokens: dict[str, Token] = {}
        self._read_tokens()
        for name, state in loop.fleet.backends.items():
            self._note(name, state)
        loop.subscribe(self._turned)

    def token(self, secret: bytes | None) -> Token | None:
        """Find the token that this is, unless it is revoked. What is looked up is its digest."""
        return self._tokens.get(digest(secret)) if secret else None

    def session(self, ident: str) -> tuple[str, Session] | None:
        """Find a live session, that serves or is pending, and the name of its backend."""
        name = self._backends.get(ident)
        if name is None:
            return None
        found = current(self._loop.fleet.backends[name], ident)
        return (name, found) if found is not None else None

    def _turned(self, turn: Turn) -> None:
        for name, state in turn.backends.items():
            self._note(name, state)
        if turn.tokens:
            self._read_tokens()

    def _note(self, name: str, state: BackendState | None) -> None:
        both = (state.session, state.pending) if state is not None else ()
        ids = tuple(session.id for session in both if session is not None)
        before = self._ids.get(name, ())
        if ids == before:
            return
        for ident in before:
            self._backends.pop(ident, None)
        for ident in ids:
            self._backends[ident] = name
        self._ids[name] = ids

    def _read_tokens(self) -> None:
        tokens = self._loop.fleet.tokens.values()
        self._tokens = {token.secret: token for token in tokens if token.revoked_at is None}


def digest(secret: bytes) -> str:
    """Give what is kept of a secret: its SHA-256, hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


def opens(secret: bytes | None, kept: str) -> bool:
    """Compare a secret with what is kept of the right one, in constant time."""
    return secret is not None and bool(kept) and hmac.compare_digest(digest(secret), kept)
