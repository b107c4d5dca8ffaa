"""What `/openapi.json` says of the addresses that agents use.

They are answered in front of the framework; these routes are never reached.
"""

from __future__ import annotations

from typing import Annotated, Literal, NoReturn

from fastapi import APIRouter, Path
from fastapi.responses import PlainTextResponse

from orchestrator.web.problems import not_found
from orchestrator.web.register import Registration
from orchestrator.web.sessions import Beat
from orchestrator.web.viewing import Time, View

Ident = Annotated[str, Path(max_length=64)]


class Registered(View):
    """What an agent works with from now on. `token` is the session's own, told this once."""

    session: str
    token: str
    lease_s: int
    heartbeat_s: int
    ends_at: Time | None
    access: Literal["gateway", "clients", "open"]
    client_keys: list[str]


class Commanded(View):
    """Something to do, said again until it is done."""

    id: int
    do: Literal["drain", "save", "restart", "stop"]


class Beaten(View):
    """What an agent is told with each heartbeat."""

    ends_at: Time | None
    access: Literal["gateway", "clients", "open"]
    client_keys: list[str]
    commands: list[Commanded]


def router() -> APIRouter:
    """Return the routes to be described."""
    routes = APIRouter(tags=["agent"])

    @routes.post("/register", status_code=201)
    async def register(body: Registration) -> Registered:  # noqa: ARG001 - described, not run
        """Say where a backend is; one of its tokens is needed, or that of its live session."""
        _unreached()

    @routes.post("/sessions/{id}/heartbeat")
    async def heartbeat(id: Ident, body: Beat) -> Beaten:  # noqa: A002, ARG001 - the contract's name
        """Say how an agent is, and hear what it is to do; the session's own token is needed.

        410: the session is over. 401, 404: register anew.
        """
        _unreached()

    @routes.delete("/sessions/{id}", status_code=204)
    async def leave(id: Ident) -> None:  # noqa: A002, ARG001
        """End a session in good order; its own token is needed."""
        _unreached()

    @routes.get("/agent.py", response_class=PlainTextResponse)
    async def agent() -> str:
        """Return the agent, one file for a notebook to run."""
        _unreached()

    return routes


def _unreached() -> NoReturn:
    raise not_found("")
