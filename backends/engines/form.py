"""The form of an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.base import Reply
from backends.engines.answers import OK, Finding, failed, parse
from backends.engines.names import Listed, Same, exact, ids


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a one-token completion, and how to know one: `done(parsed body)`."""

    path: str
    body: bytes
    done: Callable[[Any], bool]


def chat(model: str) -> Call:
    """Ask in OpenAI's form, as most engines understand it."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "stream": False,
    }
    return Call("/v1/chat/completions", json.dumps(body).encode(), _chosen)


def _chosen(body: Any) -> bool:
    choices = body.get("choices") if isinstance(body, dict) else None
    return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)


def _never(_: Reply) -> str:
    return ""


def _not_busy(_: Reply) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of server software.

    `health`: path asked at each probe; `ready` reads its 2xx answer, `loading` what another
    answer says of loading ("": nothing). `models`: path of its model list, asked now and then;
    None: the health answer lists them, as it does with `health_lists` where that path has none.
    `listed` reads that list, None where it is not one; `same` compares names. `canary`: the
    request for one token of a model, None where there is none. `busy`: whether a refused canary
    only says that all hands are full.
    """

    name: str
    health: str
    ready: Callable[[Reply], Finding]
    loading: Callable[[Reply], str] = _never
    models: str | None = "/v1/models"
    listed: Callable[[Any], tuple[Listed, ...] | None] = ids
    health_lists: bool = False
    same: Same = exact
    canary: Callable[[str], Call] | None = chat
    busy: Callable[[Reply], bool] = _not_busy


def empty_is_ready(reply: Reply) -> Finding:
    """Read a health answer that says all by its status: a bare 200, or JSON without an error."""
    if not reply.body.strip():
        return OK
    body = parse(reply)
    if isinstance(body, dict) and not body.get("error"):
        return OK
    return failed("answers 200, but not as this engine does")
