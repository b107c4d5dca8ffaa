"""`/sessions/{id}`: an agent's heartbeats, and its farewell.

The busiest address of all, so it is answered from the snapshot: what the agent says is handed to
the loop, and nobody waits for the turn.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.core.lives import Session
from orchestrator.core.registry import Heartbeat, Left
from orchestrator.errors import AionError
from orchestrator.loop import INBOX
from orchestrator.web.gate import bearer, headers_of
from orchestrator.web.live import Live, opens
from orchestrator.web.ports import LoopPort, Receive, Scope, Send, StorePort
from orchestrator.web.problems import (
    NOSNIFF,
    Problem,
    busy,
    method_not_allowed,
    not_found,
    of_error,
    respond,
    send_problem,
)
from orchestrator.web.reading import Line, Said, body_of, parsed
from orchestrator.web.register import JSON, Registrar
from orchestrator.web.standing import rfc3339

BODY = 16_384
LOOKUPS = 8  # searches at once for sessions that do not live: each reads the database
PATH = re.compile(r"/sessions/([A-Za-z0-9_-]{8,64})(/heartbeat)?")


class Carried(Said):
    """An order that the agent carried out, or could not."""

    id: Annotated[int, Field(ge=0, le=2**53, strict=False)]  # some keep it as text
    ok: bool


class Beat(Said):
    """How an agent and what it keeps are. `busy`: streams open now."""

    seq: Annotated[int, Field(ge=1, le=2**53)]
    state: Literal["starting", "loading", "ready", "draining", "saving", "stopping", "failed"]
    engine_ready: bool
    tunnel_ready: bool
    busy: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    done: Annotated[list[Carried], Field(max_length=100)] = []  # noqa: RUF012 - pydantic copies
    detail: Line = ""


class SessionLock:
    """Opens for a live session's own token; one that does not live is looked up behind it."""

    missing = "a session needs its own token"
    wrong = "this is not the session's token"

    def __init__(self, live: Live) -> None:
        self._live = live

    def tried(self, scope: Scope) -> bool:
        """Whether there is an `Authorization` header."""
        return bool(headers_of(scope, b"authorization"))

    def opens(self, scope: Scope) -> bool:
        """Whether the request carries the token of the session that it names."""
        match = PATH.fullmatch(scope["path"])
        found = self._live.session(match[1]) if match else None
        if found is None:
            return self.tried(scope)
        return opens(bearer(scope), found[1].secret)


class Sessions:
    """Answers agents that have registered."""

    def __init__(self, loop: LoopPort, live: Live, store: StorePort, registrar: Registrar) -> None:
        self._loop = loop
        self._live = live
        self._store = store
        self._registrar = registrar
        self._lookups = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below `/sessions` (ASGI)."""
        try:
            match = PATH.fullmatch(scope["path"])
            if match is None:
                raise not_found(scope["path"])
            allowed = "POST" if match[2] else "DELETE"
            if scope["method"] != allowed:
                raise method_not_allowed(allowed)
            body = await body_of(scope, receive, BODY)
            if body is None:
                return
            found = self._live.session(match[1])
            if found is None:
                raise await self._over(match[1], bearer(scope))
            if allowed == "POST":
                answer = self._beat(*found, parsed(Beat, body))
                await respond(send, 200, JSON, json.dumps(answer).encode())
            else:
                await self._leave(*found)
                await send({"type": "http.response.start", "status": 204, "headers": [NOSNIFF]})
                await send({"type": "http.response.body", "body": b""})
        except Problem as problem:
            await send_problem(send, problem)

    def _beat(self, backend: str, session: Session, beat: Beat) -> dict[str, Any]:
        if self._loop.waiting >= INBOX:
            raise busy("too much is waiting to be decided", retry_after_s=5)
        ready = beat.engine_ready and beat.tunnel_ready and beat.state == "ready"
        done = tuple((one.id, one.ok) for one in beat.done)
        self._loop.report(
            Heartbeat(
                backend,
                session.id,
                ready,
                beat.detail or ("" if ready else _amiss(beat)),
                seq=beat.seq,
                state=beat.state,
                loading=beat.state in ("starting", "loading"),
                busy=beat.busy,
                done=done,
            )
        )
        acknowledged = {number for number, _ in done}
        return {
            "ends_at": rfc3339(session.ends_at, self._loop.now()),
            "access": self._registrar.access(backend),
            "client_keys": self._registrar.keys(backend),
            "commands": [
                {"id": order.id, "do": order.do.value}
                for order in session.orders
                if order.id not in acknowledged
            ],
        }

    async def _leave(self, backend: str, session: Session) -> None:
        try:
            await self._loop.committed(Left(backend, session.id))
        except AionError as error:
            raise of_error(error) from error

    async def _over(self, ident: str, secret: bytes | None) -> Problem:
        """Say to whoever holds its token why a session is over; who does not, learns nothing."""
        if self._lookups >= LOOKUPS:
            return busy("too many ask for sessions that are over", retry_after_s=5)
        self._lookups += 1
        try:
            past = await self._store.past_session(ident)
        except AionError as error:
            return of_error(error)
        finally:
            self._lookups -= 1
        if past is None:
            return Problem(404, "unknown", "no such session; register anew")
        if not opens(secret, past.secret):
            return Problem(401, "not_allowed", SessionLock.wrong)
        return Problem(410, "over", f"this session is over: {past.why}")


def _amiss(beat: Beat) -> str:
    """Say in a clause what the agent's flags say is wrong."""
    if not beat.engine_ready and beat.state == "ready":
        return "its agent says that the engine does not answer"
    if not beat.tunnel_ready and beat.state in ("ready", "loading"):
        return "its agent says that the tunnel does not work"
    return f"its agent says that it is {beat.state}"
