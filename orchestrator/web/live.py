"""Who is registered now, found without a scan: 500 agents ask every few seconds."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from orchestrator.core.events import Turn
from orchestrator.core.lives import Session, Token
from orchestrator.core.model import BackendState
from orchestrator.core.sessions import current
from orchestrator.core.tokens import good
from orchestrator.web.ports import LoopPort


@dataclass(frozen=True, slots=True)
class Permit:
    """What lets a backend register: `token`, by its id, or its live session `holder` opened so."""

    backend: str
    token: str
    holder: str = ""


class Live:
    """The valid tokens by their digest, and the sessions that live by their id."""

    def __init__(self, loop: LoopPort) -> None:
        self._loop = loop
        self._backends: dict[str, str] = {}  # by the session's id
        self._live: dict[str, tuple[tuple[str, str], ...]] = {}  # id and digest, by backend
        self._holders: dict[str, str] = {}  # a live session's id, by the digest of its token
        self._tokens: dict[str, Token] = {}
        self._read_tokens()
        for name, state in loop.fleet.backends.items():
            self._note(name, state)
        loop.subscribe(self._turned)

    def permit(self, secret: bytes | None) -> Permit | None:
        """Say what this secret lets register, if anything. What is looked up is its digest."""
        if not secret:
            return None
        kept = digest(secret)
        if (token := self._tokens.get(kept)) is not None:
            state = self._loop.fleet.backends.get(token.backend)
            valid = good(token, state, self._loop.now().at)
            return Permit(token.backend, token.id) if valid else None
        found = self.session(self._holders.get(kept, ""))
        if found is None:
            return None
        return Permit(found[0], found[1].token, found[1].id)

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
        live = tuple((session.id, session.secret) for session in both if session is not None)
        before = self._live.get(name, ())
        if live == before:
            return
        for ident, kept in before:
            self._backends.pop(ident, None)
            self._holders.pop(kept, None)
        for ident, kept in live:
            self._backends[ident] = name
            self._holders[kept] = ident
        self._live[name] = live

    def _read_tokens(self) -> None:
        tokens = self._loop.fleet.tokens.values()
        self._tokens = {token.secret: token for token in tokens if token.revoked_at is None}


def digest(secret: bytes) -> str:
    """Give what is kept of a secret: its SHA-256, hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


def opens(secret: bytes | None, kept: str) -> bool:
    """Compare a secret with what is kept of the right one, in constant time."""
    return secret is not None and bool(kept) and hmac.compare_digest(digest(secret), kept)
