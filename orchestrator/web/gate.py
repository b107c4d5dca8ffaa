"""Who may pass by a token, and how wrong guesses are slowed down.

A token is judged before a body is read or parsed. Only its SHA-256 is kept, compared in constant
time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from typing import Protocol

from orchestrator.web.clients import client_of
from orchestrator.web.ports import App, Receive, Scope, Send
from orchestrator.web.problems import Problem, send_problem

ADDRESSES = 1024  # how many addresses' wrong guesses are remembered
WAITING = 20  # how many wrong guesses are made to wait at once; more are sent away at once
LONGEST_S = 4.0
FREE_GUESSES = 3


class Lock(Protocol):
    """What a gate is locked with. `missing` and `wrong` say in one line what it wants."""

    missing: str
    wrong: str

    def tried(self, scope: Scope) -> bool:
        """Whether the request carries any token at all."""
        ...

    def opens(self, scope: Scope) -> bool:
        """Whether the request carries the right one."""
        ...


class AdminLock:
    """Opens for the admin token."""

    missing = "this address needs the admin token"
    wrong = "this is not the admin token"

    def __init__(self, token_sha256: bytes) -> None:
        self._token = token_sha256

    def change(self, token_sha256: bytes) -> None:
        """Take a new token; the old one passes no more."""
        self._token = token_sha256

    def tried(self, scope: Scope) -> bool:
        """Whether there is an `Authorization` header."""
        return bool(headers_of(scope, b"authorization"))

    def opens(self, scope: Scope) -> bool:
        """Whether the request carries the admin token."""
        return matches(bearer(scope), self._token)


class Gate:
    """Lets the right token pass. It never waits, whatever its address did before."""

    def __init__(self, app: App, lock: Lock, longest_s: float = LONGEST_S) -> None:
        self.longest_s = longest_s
        self._app = app
        self._lock = lock
        self._wrong: OrderedDict[str, int] = OrderedDict()
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; 429 where too many wrong guesses are waiting."""
        if self._lock.opens(scope):
            self._wrong.pop(client_of(scope), None)
            await self._app(scope, receive, send)
            return
        if not self._lock.tried(scope):
            await send_problem(send, _refusal(self._lock.missing))
            return
        if self._waiting >= WAITING:
            later = {"retry-after": "5"}
            problem = Problem(429, "too_many_guesses", "too many wrong tokens", headers=later)
            await send_problem(send, problem)
            return
        await self._slow_down(client_of(scope))
        await send_problem(send, _refusal(self._lock.wrong))

    async def _slow_down(self, client: str) -> None:
        wrong = self._wrong.pop(client, 0) + 1
        self._wrong[client] = wrong
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)
        if wrong <= FREE_GUESSES:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(min(0.25 * 2.0 ** min(wrong - FREE_GUESSES, 10), self.longest_s))
        finally:
            self._waiting -= 1


def headers_of(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header, each time it was sent."""
    return [value for given, value in scope["headers"] if given == name]


def bearer(scope: Scope) -> bytes | None:
    """Return the bearer token of a request; None without one, or with several."""
    given = headers_of(scope, b"authorization")
    if len(given) != 1:
        return None
    scheme, _, token = given[0].partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


def matches(token: bytes | None, sha256: bytes) -> bool:
    """Compare a token with the digest of the right one, in constant time."""
    digest = hashlib.sha256(token or b"").digest()
    return hmac.compare_digest(digest, sha256) and token is not None


def _refusal(detail: str) -> Problem:
    challenge = {"www-authenticate": 'Bearer realm="aion"'}
    return Problem(401, "not_allowed", detail, headers=challenge)
