"""Deadlines and limits on receiving a request, which uvicorn does not have.

A connection must send its headers and its body within a time of their own, counted from the first
byte and per connection: a client that sends one byte a second is cut, whatever the application is
doing. Too much is refused before it is held in memory. What could be read in two ways (both
Transfer-Encoding and Content-Length, two lengths, an odd coding) is refused: llhttp refuses most
of it, the rest is refused here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from orchestrator.web.ports import App, Receive, Scope, Send
from orchestrator.web.problems import MEDIA_TYPE, Problem, busy, send_problem

METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"})
LINGER_S = 2.0  # how long what is still coming is thrown away, so that the refusal can be read


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost. Times in seconds, sizes in bytes."""

    header_deadline_s: float = 10.0
    body_deadline_s: float = 30.0
    idle_s: float = 60.0
    body: int = 2_000_000
    head: int = 32_768
    headers: int = 100
    connections: int = 4_000
    requests: int = 200


class Refused(Exception):
    """Raised inside a parser callback to stop the parser; the reason is in the protocol."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines; `limits` is set by `guarded`.

    `_stage` is where the message being received stands: "idle", "head" or "body".
    """

    limits = Limits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._stage = "idle"
        self._received = 0
        self._refusal: Problem | None = None
        self._refused = False
        self._running: RequestResponseCycle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            self._refuse(busy("too many connections", retry_after_s=5))
        else:
            self._arm(self.limits.header_deadline_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    # ── receiving ───────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        was = self._stage
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refused = True  # answered as if it had not asked; what follows is not HTTP
        except httptools.HttpParserError:
            self._refuse(self._refusal or Problem(400, "not_http", "this is not HTTP/1.1"))
            return
        if self._stage == "idle" and was == "idle" and not data.strip(b"\r\n"):
            self._stage = "head"  # empty lines before a request are allowed, but not for ever
        self._watch(len(data))

    def _watch(self, received: int) -> None:
        """Set or clear the deadline after each piece of data; whole requests never need one."""
        if self._stage == "idle":
            if self._deadline is not None:
                self._disarm()
            return
        if self._stage == "head":
            self._received += received
            if self._received > 2 * self.limits.head:
                self._refuse(Problem(431, "headers", "the request's headers are too large"))
                return
        if self._deadline is None:
            body = self._stage == "body"
            self._arm(self.limits.body_deadline_s if body else self.limits.header_deadline_s)

    def on_message_begin(self) -> None:
        self._stage = "head"
        self._received = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.head // 4:
            self._stop(Problem(414, "address", "the address is too long"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage == "body":
            return  # trailers are dropped: nobody may add a header after it was judged
        self._received += len(name) + len(value)
        if len(self.headers) >= self.limits.headers or self._received > self.limits.head:
            self._stop(Problem(431, "headers", "the request's headers are too large"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        problem = self._judge()
        if problem is not None:
            self._stop(problem)
        self._stage = "body"
        self._received = 0
        if self._deadline is not None:
            self._disarm()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def _judge(self) -> Problem | None:
        """Refuse what can be read in two ways, and what is too large by its own account."""
        if self.parser.get_method() not in METHODS:
            return Problem(405, "method", "this method is not known here")
        if not self.url.startswith(b"/"):
            return Problem(400, "address", "the address must begin with a slash")
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                version = self.parser.get_http_version()
                if value.strip().lower() != b"chunked" or version == "1.0":
                    return Problem(400, "framing", "the only transfer coding taken is chunked")
            elif name == b"content-length" and int(value) > self.limits.body:
                return self._too_large()
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            return Problem(400, "host", "exactly one Host header is needed")
        return None

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"the body may have {self.limits.body} bytes at most")

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        if self._received > self.limits.body:
            self._stop(self._too_large())
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stage = "idle"
        super().on_message_complete()

    def _stop(self, problem: Problem) -> None:
        self._refusal = problem
        raise Refused

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # ── deadlines ───────────────────────────────────────────────────────────────────────────────

    def _arm(self, after_s: float) -> None:
        self._deadline = self.loop.call_later(after_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self.flow.read_paused and not self.transport.is_closing():
            self._arm(self.limits.header_deadline_s)  # it is we who do not read; see pause_writing
            return
        if self._stage == "idle":
            self.transport.close()
            return
        self._refuse(Problem(408, "too_slow", f"the request's {self._stage} took too long"))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.limits.idle_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    # ── refusing ────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, problem: Problem) -> None:
        """Answer, unless an answer is under way; then read no more of this connection."""
        if self._refused:
            return
        self._refused = True
        self._disarm()
        cycle = self._running
        answering = cycle is not None and not cycle.response_complete
        if cycle is not None and answering:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if not (cycle is not None and answering and cycle.response_started):
            self.transport.write(self._rendered(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _rendered(self, problem: Problem) -> bytes:
        body = problem.body()
        lines = [STATUS_LINE[problem.status]]
        headers = [*self.server_state.default_headers, (b"connection", b"close")]
        headers += [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        headers += [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        for name, value in headers:
            lines += [name, b": ", value, b"\r\n"]
        return b"".join([*lines, b"\r\n", body])


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """Return the protocol class for these limits, as uvicorn's `http=` takes it."""
    return type("Guarded", (GuardedProtocol,), {"limits": limits})


class Throttle:
    """At most `limit` requests at work at once, streams not counted; more are told to come back."""

    def __init__(self, app: App, limit: int, is_stream: Callable[[Scope], bool]) -> None:
        self._app = app
        self._limit = limit
        self._is_stream = is_stream
        self.at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if self._is_stream(scope):
            await self._app(scope, receive, send)
            return
        if self.at_work >= self._limit:
            await send_problem(send, busy("too many requests at once"))
            return
        self.at_work += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.at_work -= 1
