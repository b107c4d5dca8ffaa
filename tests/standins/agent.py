"""A notebook's agent with an engine behind it, on loopback: it answers as told, and remembers."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from aiohttp import web

from backends import identity
from backends.base import SessionPlan

LIST = {"object": "list", "data": [{"id": "theirs"}]}
DONE = {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}}]}
HANG = "hang"

Answer = tuple[int, Any]  # status and JSON, or a text; HANG: no answer at all


class Agent:
    """`answers` are by path and may be changed at any time; `asked` are the paths, in order."""

    def __init__(self, ident: str = "s-1", token: str = "s3cret", host: str = "") -> None:
        self.ident, self.token, self._host = ident, token, host
        self.answers: dict[str, Answer | str] = {
            "/v1/models": (200, LIST),
            "/v1/chat/completions": (200, DONE),
        }
        self.asked: list[str] = []
        self.nonces: list[str] = []
        self.keys: list[str] = []
        self.replayed = ""  # a nonce that is answered whatever is asked

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(identity.PATH, self._identity)
        app.router.add_route("*", "/{path:.*}", self._engine)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def session(self) -> SessionPlan:
        """Give its session as the daemon knows it."""
        return SessionPlan(self.ident, self.url, identity.secret_of(self.token))

    async def _identity(self, request: web.Request) -> web.Response:
        self.asked.append(identity.PATH)
        self.keys += request.headers.getall("Authorization", [])
        nonce = request.query["nonce"]
        self.nonces.append(nonce)
        if identity.PATH in self.answers:
            return await self._as_told(identity.PATH)
        host = self._host or identity.host_of(self.url)
        proof = identity.proof(self.session.secret, self.replayed or nonce, self.ident, host)
        return web.json_response({"version": 1, "session": self.ident, "proof": proof})

    async def _engine(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        key = identity.gateway_key(self.session.secret, self.ident)
        if request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"detail": "no"}, status=401)
        return await self._as_told(request.path)

    async def _as_told(self, path: str) -> web.Response:
        answer = self.answers.get(path, (404, {"detail": "Not Found"}))
        if isinstance(answer, str):
            await asyncio.sleep(3600)
        status, body = answer
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.json_response(body, status=status)
