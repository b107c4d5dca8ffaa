"""`POST /register`: a backend's agent says where it is. `GET /agent.py`: the agent itself.

The gate in front has judged the token already; everything else that the agent says is looked at
here before the loop hears of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections import deque
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from orchestrator.core.addresses import LONGEST_URL, why_not_url
from orchestrator.core.durations import spoken
from orchestrator.core.registry import Register
from orchestrator.core.sessions import current
from orchestrator.edge.queries import Audit
from orchestrator.errors import AionError
from orchestrator.web.carrier import RegisterSettings, WebSettings
from orchestrator.web.clients import client_of
from orchestrator.web.discovery import matches
from orchestrator.web.gate import bearer, headers_of
from orchestrator.web.live import Live, Permit, digest
from orchestrator.web.ports import LoopPort, Receive, Scope, Send
from orchestrator.web.problems import (
    NOSNIFF,
    Headers,
    Problem,
    method_not_allowed,
    not_found,
    of_error,
    respond,
    send_problem,
)
from orchestrator.web.reading import Line, Name, Said, Word, body_of, parsed
from orchestrator.web.standing import rfc3339

BODY = 65_536
HEARTBEAT_S = 15
A_MINUTE = 6  # registrations of one backend
MINUTE_S = 60.0
OLDEST_S = 366 * 86400.0  # a run's age beyond this is a broken clock
YOUNGEST_S = -86400.0
JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), NOSNIFF]


class Gpu(Said):
    """What computes there."""

    name: Name = ""
    memory_mb: Annotated[int, Field(ge=0, le=100_000_000)] | None = None


class Registration(Said):
    """Where a backend's agent is, and since when; both times by its own clock."""

    backend: Annotated[str, Field(min_length=1, max_length=100)]
    url: Annotated[str, Field(max_length=LONGEST_URL)]
    engine: Word = ""  # said for people: the configured one counts
    models: Annotated[list[Line], Field(max_length=500)] = []  # noqa: RUF012 - pydantic copies
    started_at: AwareDatetime
    now: AwareDatetime | None = None
    gpu: Gpu | None = None
    agent: Word = ""


class RegisterLock:
    """Opens for every valid token of a backend, and for that of its session that lives."""

    missing = "a registration needs the backend's token; aion token new BACKEND makes one"
    wrong = "this token lets no backend register: it is wrong or revoked"

    def __init__(self, live: Live) -> None:
        self._live = live

    def tried(self, scope: Scope) -> bool:
        """Whether there is an `Authorization` header."""
        return bool(headers_of(scope, b"authorization"))

    def opens(self, scope: Scope) -> bool:
        """Whether the request carries a valid token."""
        return self._live.permit(bearer(scope)) is not None


class Registrar:
    """Takes registrations; `change` after a reload."""

    def __init__(self, loop: LoopPort, live: Live, settings: WebSettings) -> None:
        self._loop = loop
        self._live = live
        self._lately: dict[str, deque[float]] = {}
        self.change(settings)

    def change(self, settings: WebSettings) -> None:
        """Take the hosts, accesses and client keys of a new configuration."""
        self._hosts: Mapping[str, RegisterSettings] = settings.registering
        self._keys = sorted(settings.clients.values())

    def access(self, backend: str) -> str:
        """Say who may use the agent's address besides us."""
        return self._hosts.get(backend, RegisterSettings()).access

    def keys(self, backend: str) -> list[str]:
        """Give the digests of the client keys that this backend's agent is to let in."""
        return self._keys if self.access(backend) == "clients" else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to `/register` (ASGI)."""
        try:
            if scope["path"] != "/register":
                raise not_found(scope["path"])
            if scope["method"] != "POST":
                raise method_not_allowed("POST")
            body = await body_of(scope, receive, BODY)
            permit = self._live.permit(bearer(scope))
            if body is None:
                return
            if permit is None:  # revoked while the body came
                raise _revoked()
            answer = await self._register(permit, parsed(Registration, body), client_of(scope))
        except Problem as problem:
            await send_problem(send, problem)
            return
        await respond(send, 201, JSON, json.dumps(answer).encode())

    async def _register(self, permit: Permit, said: Registration, whence: str) -> dict[str, Any]:
        name = self._backend(permit, said)
        settings = self._hosts.get(name, RegisterSettings())
        private = settings.allow_private
        if why := why_not_url(said.url, settings.allow_hosts, allow_private=private):
            raise Problem(422, "address", f"`url`: {why}")
        age_s = self._age_s(said)
        self._slow_down(name)
        ident, secret = secrets.token_hex(16), secrets.token_urlsafe(32)
        command = Register(
            backend=name,
            session=ident,
            secret=digest(secret.encode()),
            token=permit.token,
            holder=permit.holder,
            url=said.url,
            age_s=age_s,
            models=tuple(said.models),
            gpu=said.gpu.name if said.gpu else "",
            gpu_memory_mb=said.gpu.memory_mb if said.gpu else None,
            agent=said.agent,
        )
        await self._give(command, whence)
        state = self._loop.fleet.backends.get(name)
        session = current(state, ident) if state is not None else None
        ends_at = session.ends_at if session is not None else None
        return {
            "session": ident,
            "token": secret,
            "lease_s": int(session.lease_s) if session is not None else 60,
            "heartbeat_s": HEARTBEAT_S,
            "ends_at": rfc3339(ends_at, self._loop.now()),
            "access": settings.access,
            "client_keys": self.keys(name),
        }

    def _backend(self, permit: Permit, said: Registration) -> str:
        """Hold the backend it names against its token."""
        if permit.backend != said.backend:
            raise Problem(403, "other_backend", "this token is another backend's")
        spec = self._loop.fleet.config.backends.get(said.backend)
        if spec is None:
            raise Problem(403, "unknown", "the backend of this token is not configured any more")
        if not spec.registers:
            text = f"`{spec.name}` is of kind `{spec.kind}`, which does not register"
            raise Problem(422, "kind", text)
        return spec.name

    def _age_s(self, said: Registration) -> float:
        """Say how long its run has lasted, by the notebook's own clock if it says what that is."""
        now = said.now.timestamp() if said.now is not None else self._loop.now().wall
        age_s = now - said.started_at.timestamp()
        if not YOUNGEST_S <= age_s <= OLDEST_S:
            which = "`now` and `started_at` lie" if said.now else "`started_at` lies"
            far = spoken(abs(age_s)) + (" apart" if said.now else " off")
            raise Problem(422, "time", f"{which} {far}: look at the clock there")
        return max(0.0, age_s)

    def _slow_down(self, name: str) -> None:
        at = self._loop.now().at
        lately = self._lately.setdefault(name, deque(maxlen=A_MINUTE))
        if len(lately) == A_MINUTE and at - lately[0] < MINUTE_S:
            wait_s = math.ceil(lately[0] + MINUTE_S - at)
            text = f"`{name}` registered {A_MINUTE} times within a minute"
            raise Problem(429, "too_often", text, headers={"retry-after": str(max(1, wait_s))})
        lately.append(at)

    async def _give(self, command: Register, whence: str) -> None:
        audit = Audit(key=None, who=f"backend:{command.backend}", whence=whence)
        try:
            answer = await self._loop.command(command, audit)
        except AionError as error:
            raise of_error(error) from error
        if answer.problem is None:
            return
        known = self._loop.fleet.tokens.get(command.token)
        if known is None or known.revoked_at is not None:
            raise _revoked()
        raise Problem(403 if answer.problem == "unknown" else 409, answer.problem, answer.text)


def _revoked() -> Problem:
    return Problem(401, "not_allowed", RegisterLock.wrong)


# ── the agent itself ────────────────────────────────────────────────────────────────────────────


class AgentFile:
    """Answers `/agent.py`: one file that a notebook fetches and runs. No secret is in it."""

    def __init__(self) -> None:
        self._made: tuple[bytes, bytes, Headers] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Answer one request (ASGI)."""
        if scope["path"] != "/agent.py":
            await send_problem(send, not_found(scope["path"]))
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, method_not_allowed("GET, HEAD"))
        else:
            etag, source, headers = self._file()
            if any(matches(value, etag) for value in headers_of(scope, b"if-none-match")):
                await send({"type": "http.response.start", "status": 304, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await respond(send, 200, headers, source)

    def _file(self) -> tuple[bytes, bytes, Headers]:
        if self._made is None:
            source: str = import_module("backends.agent.bundle").source()
            content = source.encode()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'.encode()
            headers: Headers = [
                (b"content-type", b"text/x-python; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"etag", etag),
                NOSNIFF,
            ]
            self._made = etag, content, headers
        return self._made
