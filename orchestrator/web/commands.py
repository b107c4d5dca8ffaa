"""Operator commands on their way to the loop: once per idempotency key, audited, answered."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from orchestrator.core.events import Answer, Command
from orchestrator.edge.queries import Audit
from orchestrator.errors import AionError
from orchestrator.web.clients import client_of
from orchestrator.web.ports import LoopPort, StorePort
from orchestrator.web.problems import Problem, of_error, one_line

KEYS = 1024  # how many idempotency keys are remembered with what they were used for
KEY = re.compile(r"[\x21-\x7e]{1,100}")
NAME = re.compile(r"[\w.@ -]{1,64}")
Work = Callable[[Audit], Awaitable[Answer]]
STATUS = {"unknown": 404, "conflict": 409}


class Commands:
    """Gives commands to the loop, for those who share one space of idempotency keys."""

    def __init__(self, loop: LoopPort, store: StorePort) -> None:
        self._loop = loop
        self._store = store
        self._keys: OrderedDict[str, tuple[str, asyncio.Lock]] = OrderedDict()

    async def give(self, command: Command, request: Request, body: Any = None) -> Answer:
        """Give one command; returns its answer once committed, or raises `Problem`.

        With an `Idempotency-Key`, a repeat gets the first answer, and nothing is done twice.
        """
        sent = body.model_dump_json() if body is not None else ""
        return await self.once(
            request, who(request), lambda audit: self._loop.command(command, audit), sent
        )

    async def once(self, request: Request, by: str, work: Work, sent: str = "") -> Answer:
        """Have `work` done, once per `Idempotency-Key`; it commits its answer with the audit given.

        `by`: who asks for it; `sent`: what else than the address makes it another command.
        """
        what = hashlib.sha256(f"{request.method} {request.url.path} {sent}".encode()).hexdigest()
        key = _key(request)
        audit = Audit(key=None, who=by, whence=client_of(request.scope))
        if key is None:
            return _told(await told(lambda: work(audit)))
        lock = self._known(key, what)
        async with lock:
            stored = f"{key}:{what[:16]}"
            try:
                before = await self._store.answered(stored)
            except AionError as error:
                raise of_error(error) from error
            if before is not None:
                return _told(before)
            return _told(await told(lambda: work(replace(audit, key=stored))))

    def _known(self, key: str, what: str) -> asyncio.Lock:
        """Refuse a key that was used for something else; lets one request at a time use it."""
        used_for, lock = self._keys.pop(key, (what, asyncio.Lock()))
        self._keys[key] = (used_for, lock)
        if len(self._keys) > KEYS:
            self._keys.popitem(last=False)
        if used_for != what:
            text = "this Idempotency-Key was used for another command"
            raise Problem(422, "key_reused", text)
        return lock


async def told(work: Callable[[], Awaitable[Any]]) -> Any:
    """Await `work`; its errors become problems."""
    try:
        return await work()
    except AionError as error:
        raise of_error(error) from error


def who(request: Request) -> str:
    """Return who gives the command: the admin token, and the name its user goes by."""
    name = request.headers.get("aion-user", "")
    return f"admin ({name})" if NAME.fullmatch(name) else "admin"


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise Problem(400, "key", "an Idempotency-Key has 1 to 100 visible ASCII characters")
    return key


def _told(answer: Answer) -> Answer:
    if answer.problem is not None:
        raise Problem(STATUS.get(answer.problem, 409), answer.problem, one_line(answer.text))
    return answer
