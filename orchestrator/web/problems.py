"""Errors as RFC 9457 problem details, and the few lines that answer without a framework."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from orchestrator.errors import (
    AionError,
    ConfigError,
    NotAllowed,
    Overloaded,
    StoreError,
    StoreFull,
)
from orchestrator.web.ports import Send

Headers = list[tuple[bytes, bytes]]

MEDIA_TYPE = "application/problem+json"
NOSNIFF = (b"x-content-type-options", b"nosniff")
TEXT_LIMIT = 500  # the longest detail shown


class Problem(Exception):
    """An answer that says what is wrong. `code` is a stable machine name, `detail` one line."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def document(self) -> dict[str, Any]:
        """Return the problem as the JSON object that is sent."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": one_line(self.detail),
            **self.more,
        }

    def body(self) -> bytes:
        """Return the document as bytes."""
        return json.dumps(self.document()).encode()


def one_line(text: str) -> str:
    """Make text fit for one line: control characters become spaces, the length is capped."""
    clean = "".join(char if char.isprintable() else " " for char in text[: TEXT_LIMIT + 1])
    return clean if len(clean) <= TEXT_LIMIT else clean[: TEXT_LIMIT - 1] + "…"


def unknown(noun: str, name: str, known: Iterable[str]) -> Problem:
    """No such name: 404, with the nearest known one."""
    near = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    text = f"there is no {noun} `{one_line(name)[:80]}`{hint}"
    return Problem(404, "unknown", text, nearest=near[0] if near else None)


def not_found(path: str) -> Problem:
    """No such route."""
    return Problem(404, "no_route", f"nothing is served at {one_line(path)[:120]}")


def method_not_allowed(allowed: str) -> Problem:
    """Say that the route is there, but not for this method."""
    return Problem(
        405, "method", f"this address answers {allowed} only", headers={"allow": allowed}
    )


def busy(detail: str, retry_after_s: int = 1) -> Problem:
    """Come back later: 503 with Retry-After."""
    return Problem(503, "busy", detail, headers={"retry-after": str(retry_after_s)})


def of_error(error: AionError) -> Problem:
    """Which problem one of our own errors is."""
    match error:
        case Overloaded():
            return busy(str(error))
        case StoreFull():
            return Problem(507, "disk_full", str(error))
        case StoreError():
            return Problem(503, "store", str(error), headers={"retry-after": "5"})
        case NotAllowed():
            return Problem(401, "not_allowed", str(error))
        case ConfigError():
            lines = str(error).splitlines()
            return Problem(422, "configuration", lines[0] if lines else "", problems=lines)
        case _:
            return Problem(502, "failed", str(error))


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, problem: Problem, extra: Headers | None = None) -> None:
    """Answer with a problem."""
    headers: Headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"cache-control", b"no-store"),
        NOSNIFF,
        *(extra or []),
    ]
    headers += [(name.encode(), value.encode()) for name, value in problem.headers.items()]
    await respond(send, problem.status, headers, problem.body())
