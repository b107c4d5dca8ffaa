"""`/hooks/{name}`: what outside schedulers may have done, one thing for each token.

The gate in front has judged the token already. A body is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Path, Request, Response

from orchestrator.core import events, powering
from orchestrator.core.events import Answer, Command
from orchestrator.edge.queries import Audit
from orchestrator.errors import ConfigError
from orchestrator.web.carrier import HookSettings
from orchestrator.web.commands import Commands
from orchestrator.web.gate import bearer, headers_of, matches
from orchestrator.web.parts import Parts
from orchestrator.web.ports import Scope
from orchestrator.web.problems import method_not_allowed, unknown
from orchestrator.web.viewing import View

NOBODY = bytes(32)  # compared with where there is no such hook: that takes as long, and says no
LONGEST_QUERY = 2048

Name = Annotated[str, Path(max_length=100)]
DOES: dict[str, Callable[[HookSettings, str], Command]] = {
    "check": lambda hook, _: events.Check(hook.target),
    "drain": lambda hook, _: events.Drain(hook.target),
    "undrain": lambda hook, _: events.Drain(hook.target, drained=False),
    "start": lambda hook, _: powering.Start(hook.target),
    "stop": lambda hook, _: powering.Halt(hook.target),
    "failover": lambda hook, _: events.Failover(hook.target, hook.to),
    "pause": lambda hook, by: events.Pause(hook.for_s, by),
    "resume": lambda _, __: events.Resume(),
}
"""The commands of the loop that a hook may give; `job` and `reload` are none of the loop's."""


class Called(View):
    """What was done, in one sentence. 202: a job runs on; `aion job list` shows how it ends."""

    text: str


class HookLock:
    """Opens for the token of the hook that a request is for; `change` after a reload.

    The token comes as `X-Aion-Token`, else as a bearer, else, where the hook allows it, as `token`
    in the query. A scheduler that signs its requests needs `Authorization` for itself, so the
    header of our own goes first.
    """

    missing = "this hook needs its token"
    wrong = "this is not the hook's token; in the address it counts only with `in_url = true`"

    def __init__(self, hooks: Mapping[str, HookSettings]) -> None:
        self._hooks = hooks

    def change(self, hooks: Mapping[str, HookSettings]) -> None:
        """Take the hooks of a new configuration."""
        self._hooks = hooks

    def tried(self, scope: Scope) -> bool:
        """Whether there is a token anywhere, also where none is allowed."""
        headers = headers_of(scope, b"authorization") or headers_of(scope, b"x-aion-token")
        return bool(headers) or _in_query(scope) is not None

    def opens(self, scope: Scope) -> bool:
        """Whether the request carries its hook's token."""
        hook = self._hooks.get(scope["path"].removeprefix("/hooks/"))
        own = headers_of(scope, b"x-aion-token")
        if own:
            token = own[0].strip() if len(own) == 1 else None
        elif headers_of(scope, b"authorization"):
            token = bearer(scope)
        else:
            token = _in_query(scope) if hook is not None and hook.in_url else None
        return matches(token, hook.token_sha256 if hook is not None else NOBODY)


def _in_query(scope: Scope) -> bytes | None:
    query: bytes = scope["query_string"][:LONGEST_QUERY]
    found = [value for name, value in parse_qsl(query) if name == b"token"]
    return found[0] if len(found) == 1 else None


class Hooks:
    """Does what a hook is for. Each has its own space of idempotency keys."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.settings = parts.settings.hooks
        self._keys: dict[str, Commands] = {}

    def change(self, settings: Mapping[str, HookSettings]) -> None:
        """Take the hooks of a new configuration."""
        self.settings = settings
        self._keys = {name: keys for name, keys in self._keys.items() if name in settings}

    async def call(self, name: str, request: Request) -> tuple[Answer, int]:
        """Do it; returns what to say and the status. Raises `Problem`."""
        hook = self.settings.get(name)
        if hook is None:  # it went with a reload, after the gate had let it pass
            raise unknown("hook", name, ())
        if request.method != "POST" and not hook.get:
            raise method_not_allowed("POST")
        keys = self._keys.setdefault(name, Commands(self.parts.loop, self.parts.store))
        running = False

        async def work(audit: Audit) -> Answer:
            nonlocal running
            answer = await self._do(name, hook, audit)
            running = answer.problem == "running"
            return Answer(answer.text) if running else answer

        answer = await keys.once(request, f"hook:{name}", work, sent=hook.job or hook.do)
        return answer, 202 if hook.job and not running else 200

    async def _do(self, name: str, hook: HookSettings, audit: Audit) -> Answer:
        loop = self.parts.loop
        if hook.do in DOES:
            return await loop.command(DOES[hook.do](hook, audit.who), audit)
        done = await self._reload() if hook.do == "reload" else self._start(hook)
        if done.problem is not None:
            return done
        return await loop.command(events.Called(name, done.text), audit)

    async def _reload(self) -> Answer:
        if self.parts.reload is None:
            return Answer("this daemon has no configuration file", "conflict")
        try:
            changes = await self.parts.reload()
        except ConfigError:  # what is in the file is not the scheduler's business
            text = "the configuration has problems and stays as it was; see `aion config check`"
            return Answer(text, "conflict")
        return Answer(f"the configuration was read again; changes: {len(changes)}")

    def _start(self, hook: HookSettings) -> Answer:
        if not hook.job:
            kind = self.parts.loop.fleet.config.backends[hook.target].kind
            text = f"{hook.target} is of kind `{kind}`, which aion cannot start or stop"
            return Answer(text, "conflict")
        if self.parts.jobs is None:
            return Answer(f"no job is called {hook.job}", "conflict")
        return self.parts.jobs.start_now(hook.job)


def router(hooks: Hooks) -> APIRouter:
    """Return the route of all hooks."""
    routes = APIRouter()
    more: dict[int | str, Any] = {202: {"model": Called, "description": "a job was started"}}

    async def call(name: Name, request: Request, response: Response) -> Called:
        """Have done what this hook is for; its own token is needed. A body is ignored."""
        answer, response.status_code = await hooks.call(name, request)
        return Called(text=answer.text)

    async def call_by_get(name: Name, request: Request, response: Response) -> Called:
        """Do the same for schedulers that cannot POST, where the hook allows it."""
        return await call(name, request, response)

    routes.post("/hooks/{name}", tags=["hook"], responses=more)(call)
    routes.get("/hooks/{name}", tags=["hook"], responses=more)(call_by_get)
    routes.head("/hooks/{name}", include_in_schema=False)(call_by_get)
    return routes
