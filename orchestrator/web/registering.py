"""`/api/sessions`, `/api/tokens`, and what a backend's agent can be told."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request

from orchestrator.core import registry
from orchestrator.core.events import Answer
from orchestrator.core.lives import Do
from orchestrator.edge.queries import Audit
from orchestrator.web import bodies
from orchestrator.web.admin import Admin, Done, Nothing
from orchestrator.web.commands import told, who
from orchestrator.web.live import digest
from orchestrator.web.problems import Problem
from orchestrator.web.session_views import (
    MadeToken,
    SessionsView,
    TokenView,
    sessions_view,
    token_view,
)

PAST = 1000  # most sessions that are over in one answer


def router(admin: Admin) -> APIRouter:
    """Return the routes under `/api` about what registers."""
    routes = APIRouter(prefix="/api")
    _sessions(routes, admin)
    _tokens(routes, admin)
    return routes


def _sessions(routes: APIRouter, admin: Admin) -> None:
    loop, store = admin.parts.loop, admin.parts.store

    @routes.get("/sessions", tags=["look"])
    async def sessions(
        past: Annotated[int, Query(ge=0, le=PAST)] = 0,
        backend: Annotated[str | None, Query(max_length=100)] = None,
    ) -> SessionsView:
        """Who is registered; `past`: so many of those that are over, latest first."""
        over = await told(lambda: store.past_sessions(backend, past)) if past else []
        shown = sessions_view(admin.fleet, list(over), loop.now())
        if backend is None:
            return shown
        name = admin.backend(backend)
        return SessionsView(
            live=[one for one in shown.live if one.backend == name],
            pending=[one for one in shown.pending if one.backend == name],
            past=shown.past,
        )

    async def order(name: str, do: Do, request: Request) -> Done:
        return await admin.give(registry.Tell(admin.backend(name), do), request)

    @routes.post("/backends/{name}/restart", tags=["command"])
    async def restart(name: str, request: Request, body: Nothing = None) -> Done:  # noqa: ARG001
        """Have a backend's agent restart its engine."""
        return await order(name, Do.RESTART, request)

    @routes.post("/backends/{name}/save", tags=["command"])
    async def save(name: str, request: Request, body: Nothing = None) -> Done:  # noqa: ARG001
        """Have a backend's agent save what it was told to keep."""
        return await order(name, Do.SAVE, request)


def _tokens(routes: APIRouter, admin: Admin) -> None:
    loop = admin.parts.loop

    @routes.get("/tokens", tags=["look"])
    async def tokens() -> list[TokenView]:
        """List all tokens, oldest first; what they are is not kept."""
        found = sorted(admin.fleet.tokens.values(), key=lambda one: (one.created_at, one.id))
        states, now = admin.fleet.backends, loop.now()
        return [token_view(one, states.get(one.backend), now) for one in found]

    @routes.post("/tokens", tags=["command"], status_code=201)
    async def mint(request: Request, body: bodies.TokenBody) -> MadeToken:
        """Make a token that lets a backend register. It is shown in this answer only."""
        name = admin.backend(body.backend)
        made: list[tuple[str, str]] = []

        async def work(audit: Audit) -> Answer:
            token = secrets.token_urlsafe(32)
            kept = digest(token.encode())
            made.append((kept[:12], token))
            return await loop.command(registry.MintToken(kept[:12], name, kept, audit.who), audit)

        sent = body.model_dump_json()
        answer = await admin.commands.once(request, who(request), work, sent)
        if not made:  # the key was used before, and what it made then is not kept
            text = f"this Idempotency-Key made a token already ({answer.text}); it is not kept"
            raise Problem(409, "conflict", f"{text}: make another one, and revoke that")
        ident, token = made[-1]
        return MadeToken(id=ident, backend=name, token=token, text=answer.text)

    @routes.post("/tokens/revoke", tags=["command"])
    async def revoke(request: Request, body: bodies.RevokeBody) -> Done:
        """End tokens, and at once every session that was opened with them."""
        if (body.backend is None) == (not body.ids):
            raise Problem(422, "invalid", "either `ids` or `backend`: which tokens")
        # The backend may be gone from the configuration; its tokens can still be revoked.
        command = registry.RevokeTokens(tuple(body.ids), body.backend or "")
        return await admin.give(command, request, body)
