"""The proxy before the engine: a door, and bytes that go through as they come.

Its own paths are below `/.aion/`: `identity`, `health` and `takeover`. Everything else is the
engine's, for those whom the door lets in.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from . import VERSION
from .access import NONCE, Door, admitted, proof
from .errors import Refused
from .headers import (
    TO_CLIENT,
    TO_CLIENT_STARTS,
    TO_ENGINE,
    TO_ENGINE_STARTS,
    cors,
    passing,
)
from .settings import Settings

MB = 1_000_000
BODY_S = 60.0  # longest silence within a request's body
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
RETRY_S = {"loading": 5, "draining": 5, "full": 1}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Identity:
    """Who this agent is to the daemon, once it is registered; and who it is to itself."""

    instance: str
    takeover: str = field(repr=False)
    session: str = ""
    token: str = field(default="", repr=False)
    url: str = ""


@dataclass(slots=True)
class Incoming:
    """A request's body on its way: read as the engine takes it, and never more than is allowed."""

    request: web.BaseRequest
    most: int
    refused: str = ""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the body's pieces; stops at what is too much, and says so in `refused`."""
        taken = 0
        while True:
            try:
                async with asyncio.timeout(BODY_S):
                    piece = await self.request.content.readany()
            except TimeoutError:
                self.refused = "408 the body did not come"
                raise
            if not piece:
                return
            taken += len(piece)
            if taken > self.most:
                self.refused = too_large(self.most)
                raise ValueError(self.refused)
            yield piece


def too_large(most: int) -> str:
    """Say that a body is larger than `most` bytes, with the status before it."""
    return f"413 the body is larger than {most // MB} MB"


class Proxy:
    """Serves one engine at `settings.listen`. What it needs to know is set from outside."""

    def __init__(self, settings: Settings, engine_key: str, identity: Identity) -> None:
        self._settings = settings
        self._engine_key = engine_key
        self.identity = identity
        self.door: Door | None = None
        self.engine: str = ""
        self.health: Callable[[], dict[str, Any]] = dict
        self.on_takeover: Callable[[], None] = lambda: None
        self.draining = False
        self.busy = 0
        self.port = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._most = int(settings.max_body_mb * MB)
        self._runner: web.ServerRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self, port: int) -> None:
        """Listen. Raises Refused if the port is taken."""
        # Engines close idle connections sooner than clients do, and then a POST would be lost:
        # a new one over loopback costs less than that.
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(sock_connect=5, sock_read=self._settings.idle_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.listen, port)
        try:
            await site.start()
        except OSError as error:
            raise Refused(f"port {port} is taken or not allowed: {error.strerror}") from None
        self.port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()

    async def drained(self, most_s: float) -> bool:
        """Wait until no request is open; False if that took longer than `most_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._idle.wait()
        return self.busy == 0

    # ── what it answers itself ──────────────────────────────────────────────────────────────────

    def _own(self, status: int, body: Mapping[str, Any] | None, retry_s: int = 0) -> web.Response:
        text = None if body is None else json.dumps(body)
        reply = web.Response(status=status, text=text)
        if body is not None:
            reply.content_type = "application/json"
        reply.headers["Server"] = f"aion-agent/{VERSION}"
        reply.headers["Aion-Agent"] = self.identity.instance
        reply.headers["Cache-Control"] = "no-store"
        if retry_s:
            reply.headers["Retry-After"] = str(retry_s)
        if status == 401:
            reply.headers["WWW-Authenticate"] = "Bearer"
        reply.headers.update(cors(self._settings.origins, {}))
        return reply

    def _error(self, said: str, retry_s: int = 0) -> web.Response:
        """Answer with an error, in the form that OpenAI's clients understand."""
        status, _, text = said.partition(" ")
        kind = {"4": "invalid_request_error", "5": "server_error"}[status[0]]
        body = {"error": {"message": text, "type": kind, "code": int(status)}}
        return self._own(int(status), body, retry_s)

    def _aion(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.path
        if path == "/.aion/identity" and request.method == "GET":
            return self._prove(request.query.get("nonce", ""))
        if path == "/.aion/health" and request.method == "GET":
            return self._own(200, self.health())
        if path == "/.aion/takeover" and request.method == "POST":
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            if hmac.compare_digest(given, f"Bearer {self.identity.takeover}".encode()):
                self.on_takeover()
                return self._own(202, {})
            return self._error("401 not yours to take")
        return self._error("404 the agent has no such path")

    def _prove(self, nonce: str) -> web.Response:
        one = self.identity
        if not NONCE.fullmatch(nonce):
            return self._error("400 a nonce of 16 to 128 hexadecimal digits is needed")
        if not one.session:
            return self._error("503 not registered yet", RETRY_S["loading"])
        proven = proof(one.token, nonce, one.session, one.url)
        return self._own(200, {"version": 1, "session": one.session, "proof": proven})

    # ── what goes through ───────────────────────────────────────────────────────────────────────

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if refused := malformed(request):
            reply = self._error(refused)
            reply.force_close()
            return reply
        if request.method == "OPTIONS":
            return self._preflight(request)
        if request.rel_url.path.startswith("/.aion/"):
            return self._aion(request)
        if refusal := self._refusal(request):
            return refusal
        with self._counted():
            return await self._pass(request)

    def _preflight(self, request: web.BaseRequest) -> web.Response:
        reply = self._own(204, None)
        reply.headers.update(cors(self._settings.origins, request.headers))
        return reply

    def _refusal(self, request: web.BaseRequest) -> web.Response | None:
        """Say why this request cannot go on now; None if it can."""
        if self.door is None:
            return self._error("503 not registered yet", RETRY_S["loading"])
        authorization = request.headers.get("Authorization", "")
        path = request.raw_path.partition("?")[0]
        if said := admitted(self.door, authorization, path, self._settings.paths):
            return self._error(said)
        if (request.content_length or 0) > self._most:
            reply = self._error(too_large(self._most))
            reply.force_close()
            return reply
        if self.draining:
            return self._error("503 this backend is being drained", RETRY_S["draining"])
        if self.busy >= self._settings.max_streams:
            return self._error("503 too many requests are open", RETRY_S["full"])
        return None

    @contextmanager
    def _counted(self) -> Any:
        self.busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.busy -= 1
            if not self.busy:
                self._idle.set()

    async def _pass(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._http is not None
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(CONTINUE)
            request.writer.output_size = 0
        headers = passing(list(request.headers.items()), TO_ENGINE, TO_ENGINE_STARTS)
        if self._engine_key:
            headers.append(("Authorization", f"Bearer {self._engine_key}"))
        body = Incoming(request, self._most) if request.body_exists else None
        if body is not None and request.content_length is not None:
            headers.append(("Content-Length", str(request.content_length)))
        try:
            found = await self._http.request(
                request.method,
                URL(self.engine + request.raw_path, encoded=True),
                headers=headers,
                data=None if body is None else aiter(body),
                skip_auto_headers=AUTOMATIC,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return self._failed(error, body)
        async with found:
            return await self._back(request, found)

    def _failed(self, error: Exception, body: Incoming | None) -> web.Response:
        if body is not None and body.refused:
            reply = self._error(body.refused)
            reply.force_close()
            return reply
        if isinstance(error, aiohttp.ClientConnectorError):
            return self._error("503 the engine does not listen", RETRY_S["loading"])
        if isinstance(error, TimeoutError):
            return self._error("504 the engine was silent for too long")
        return self._error("502 the engine broke the connection off", RETRY_S["full"])

    async def _back(
        self, request: web.BaseRequest, found: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        """Send the engine's answer on, each piece as it comes."""
        reply = web.StreamResponse(status=found.status, reason=found.reason)
        for name, value in passing(list(found.headers.items()), TO_CLIENT, TO_CLIENT_STARTS):
            reply.headers.add(name, value)
        length = found.headers.get("Content-Length", "")
        if length.isdigit() and "Transfer-Encoding" not in found.headers:
            reply.content_length = int(length)
        reply.headers["Server"] = f"aion-agent/{VERSION}"
        reply.headers.update(cors(self._settings.origins, {}))
        try:
            await reply.prepare(request)
            async for piece in found.content.iter_any():
                await reply.write(piece)
            await reply.write_eof()
        except (aiohttp.ClientError, TimeoutError, OSError):
            # Cut off, not ended: half an answer must not look like a whole one.
            if request.transport is not None:
                request.transport.abort()
        return reply


def malformed(request: web.BaseRequest) -> str:
    """Say what is wrong with a request's form, with the status before it; empty if nothing is.

    Two statements of one length are how requests are smuggled (RFC 9112 6.3).
    """
    headers = request.headers
    if "Transfer-Encoding" in headers and "Content-Length" in headers:
        return "400 both a length and an encoding"
    if len(headers.getall("Content-Length", [])) > 1 or len(headers.getall("Host", [])) > 1:
        return "400 a header that may be there once is there twice"
    if request.method not in METHODS and request.method != "OPTIONS":
        return "405 the agent does not know this method"
    if not request.raw_path.startswith("/"):
        return "400 a path is needed"
    return ""
