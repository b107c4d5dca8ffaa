"""A small JSON body, read and checked in front of the framework: all of it may be hostile."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from orchestrator.web.gate import headers_of
from orchestrator.web.ports import Receive, Scope
from orchestrator.web.problems import Problem

M = TypeVar("M", bound="Said")


class Said(BaseModel):
    """Base of what agents say. What a newer one adds is not read."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )


def words(text: str) -> str:
    """Make one line of it: runs of blanks and control characters become one space."""
    seen = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(seen.split())


def _cut(most: int) -> AfterValidator:
    return AfterValidator(lambda text: words(text)[:most].rstrip())


Word = Annotated[str, _cut(40)]
Name = Annotated[str, _cut(100)]
Line = Annotated[str, _cut(200)]
"""Texts that are cut rather than refused when they are longer."""


async def body_of(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """Read a body of at most `most` bytes; None if the client went. Raises `Problem` 413."""
    length = headers_of(scope, b"content-length")
    if length and length[0].isdigit() and int(length[0][:20]) > most:
        raise _too_large(most)
    read = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        read += message.get("body", b"")
        if len(read) > most:
            raise _too_large(most)
        if not message.get("more_body"):
            return bytes(read)


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"a body has at most {most} bytes here")


def parsed(model: type[M], body: bytes) -> M:
    """Read a body as JSON. Raises `Problem` 422 with one line that repeats nothing of it."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise Problem(422, "invalid", "the body is not JSON")
    where = ".".join(str(part) for part in first["loc"])[:60]
    said = first["msg"].removeprefix("Value error, ")
    raise Problem(422, "invalid", words(f"{where}: {said}" if where else said)[:200])
