"""The admin token: who may pass, and how wrong guesses are slowed down.

The token is judged before a body is read or parsed. Only its SHA-256 is kept, compared in constant
time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict

from orchestrator.web.clients import client_of
from orchestrator.web.ports import App, Receive, Scope, Send
from orchestrator.web.problems import Problem, send_problem

ADDRESSES = 1024  # how many addresses' wrong guesses are remembered
WAITING = 20  # how many wrong guesses are made to wait at once; more are sent away at once
LONGEST_S = 4.0
FREE_GUESSES = 3


class Gate:
    """Lets the admin token pass. A right token never waits, whatever its address did before."""

    def __init__(self, app: App, token_sha256: bytes, longest_s: float = LONGEST_S) -> None:
        self.longest_s = longest_s
        self._app = app
        self._token = token_sha256
        self._wrong: OrderedDict[str, int] = OrderedDict()
        self._waiting = 0

    def change(self, token_sha256: bytes) -> None:
        """Take a new token; the old one passes no more."""
        self._token = token_sha256

    def allows(self, scope: Scope) -> bool:
        """Whether the request carries the admin token."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        return hmac.compare_digest(digest, self._token) and scheme.lower() == b"bearer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; 429 where too many wrong guesses are waiting."""
        if self.allows(scope):
            self._wrong.pop(client_of(scope), None)
            await self._app(scope, receive, send)
            return
        if not any(name == b"authorization" for name, _ in scope["headers"]):
            await send_problem(send, _refusal("this address needs the admin token"))
            return
        if self._waiting >= WAITING:
            later = {"retry-after": "5"}
            problem = Problem(429, "too_many_guesses", "too many wrong tokens", headers=later)
            await send_problem(send, problem)
            return
        await self._slow_down(client_of(scope))
        await send_problem(send, _refusal("this is not the admin token"))

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


def _refusal(detail: str) -> Problem:
    challenge = {"www-authenticate": 'Bearer realm="aion"'}
    return Problem(401, "not_allowed", detail, headers=challenge)
