"""FastAPI for `/api`, `/docs` and `/openapi.json`, with every error as problem details."""

from __future__ import annotations

from functools import lru_cache

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from orchestrator.errors import AionError
from orchestrator.web import docs
from orchestrator.web.admin import Admin, router
from orchestrator.web.agent_docs import router as agent_routes
from orchestrator.web.hooks import Hooks
from orchestrator.web.hooks import router as hook_routes
from orchestrator.web.parts import Parts
from orchestrator.web.ports import App, Message, Receive, Scope, Send
from orchestrator.web.problems import MEDIA_TYPE, NOSNIFF, Problem, not_found, of_error, one_line
from orchestrator.web.registering import router as registering_routes
from orchestrator.web.status import HTML
from orchestrator.web.streams import Streams

CODES = {400: "malformed", 413: "too_large", 415: "media_type"}
SHOWN = 20  # problems told of one request


def framework(parts: Parts, streams: Streams, hooks: Hooks) -> App:
    """Return the part of the web that FastAPI serves."""
    app = FastAPI(
        title="aion",
        version=parts.version,
        description="The operator's API. Every address below `/api` needs the admin token,"
        " each below `/hooks` a token of its own; agents have tokens too.",
        docs_url=None,
        redoc_url=None,
        responses={"default": {"description": "a problem (RFC 9457)", "content": {MEDIA_TYPE: {}}}},
    )
    admin = Admin(parts, streams)
    app.include_router(router(admin))
    app.include_router(registering_routes(admin))
    app.include_router(hook_routes(hooks))
    app.include_router(agent_routes())

    @lru_cache(maxsize=1)
    def rendered() -> bytes:
        return docs.page(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        shown = [one for one in HTML if one != NOSNIFF]
        return Response(
            rendered(), headers={name.decode(): value.decode() for name, value in shown}
        )

    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(AionError, _ours)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _defect)
    return _cautious(app)


def _cautious(app: App) -> App:
    """Forbid keeping answers, and guessing their type; done without the framework's middleware.

    That would run each request in a task of its own and buffer streams.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-store"), NOSNIFF]
            await send(message)

        await app(scope, receive, sending)

    return answer


def _answer(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(error)


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, AionError)
    return _answer(of_error(error))


async def _defect(_: Request, __: Exception) -> Response:
    return _answer(Problem(500, "defect", "something went wrong here; the log says what"))


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:  # noqa: PLR2004 - the status
        return _answer(not_found(request.url.path))
    headers = dict(error.headers or {})
    code = "method" if error.status_code == 405 else CODES.get(error.status_code, "refused")  # noqa: PLR2004
    detail = "this address does not answer this method" if code == "method" else str(error.detail)
    return _answer(Problem(error.status_code, code, detail, headers=headers))


async def _invalid(_: Request, error: Exception) -> Response:
    """Say what is wrong and where; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "where": one_line(".".join(str(part) for part in one["loc"])),
            "problem": one["msg"].removeprefix("Value error, "),
        }
        for one in error.errors()[:SHOWN]
    ]
    if any(one["type"] == "json_invalid" for one in error.errors()):
        return _answer(Problem(400, "malformed", "the body is not JSON"))
    detail = "; ".join(f"{one['where']}: {one['problem']}" for one in errors)
    return _answer(Problem(422, "invalid", detail, errors=errors))
