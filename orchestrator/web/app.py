"""The web as one ASGI application: what is asked for most is answered in front of the framework.

`build` puts it together; `WebSettings`, `Parts` and the ports are what `main` deals in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.web.carrier import HookSettings, WebSettings
from orchestrator.web.discovery import Discovery
from orchestrator.web.framework import framework
from orchestrator.web.gate import AdminLock, Gate
from orchestrator.web.guard import Limits, Throttle
from orchestrator.web.hooks import HookLock, Hooks
from orchestrator.web.live import Live
from orchestrator.web.metrics import Metrics
from orchestrator.web.openai_gap import openai_gap
from orchestrator.web.parts import Parts
from orchestrator.web.ports import App, LoopPort, Message, Receive, Scope, Send
from orchestrator.web.problems import NOSNIFF, Problem, method_not_allowed, respond, send_problem
from orchestrator.web.register import AgentFile, RegisterLock, Registrar
from orchestrator.web.sending import counted
from orchestrator.web.server import Server
from orchestrator.web.sessions import SessionLock, Sessions
from orchestrator.web.status import Pages
from orchestrator.web.streams import Streams

STALE_S = 10.0  # a loop that has not turned for this long is stuck


class Web:
    """The application, and what `main` wires: `metrics`, and `close` before a stop."""

    def __init__(self, parts: Parts, metrics: Metrics | None = None) -> None:
        settings, loop = parts.settings, parts.loop
        self.parts = parts
        self.streams = Streams()
        self.metrics = metrics or Metrics(loop, parts.version, parts.backups)
        self.discovery = Discovery(loop, settings.max_age_s, self.streams)
        self._hooks = Hooks(parts)
        api = framework(parts, self.streams, self._hooks)
        self._admin = AdminLock(settings.admin_token_sha256)
        self._hook = HookLock(settings.hooks)
        live = Live(loop)
        self._registrar = Registrar(loop, live, settings)
        sessions = Sessions(loop, live, parts.store, self._registrar)
        self._front: dict[str, App] = {
            "healthz": healthz(loop),
            "readyz": readyz(loop),
            "v1": openai_gap,
            "metrics": Gate(self.metrics, self._admin),
            "api": Gate(api, self._admin),
            "hooks": Gate(api, self._hook),
            "register": Gate(self._registrar, RegisterLock(live)),
            "sessions": Gate(sessions, SessionLock(live)),
            "agent.py": AgentFile(),
            "docs": api,
            "openapi.json": api,
        }
        self._pages = Pages(loop, settings.language)
        self._rest = Throttle(self._route, limits(settings).requests, _is_stream)
        loop.subscribe(lambda turn: self.streams.publish("events", b"") if turn.entries else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["path"].startswith("/discovery") and scope["path"][10:11] in ("", "/"):
            await self.discovery(scope, receive, send)
            return
        await self._rest(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["path"][1:].partition("/")[0]
        handler: App = self._front.get(first, self._pages)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await handler(scope, receive, sending)
        except Exception:
            if not started:  # the log has the trace; the client gets none
                problem = Problem(500, "defect", "something went wrong here; the log says what")
                await send_problem(send, problem)
            raise

    def change_token(self, token_sha256: bytes) -> None:
        """Take a new admin token, after a reload."""
        self._admin.change(token_sha256)

    def change_hooks(self, hooks: Mapping[str, HookSettings]) -> None:
        """Take other hooks, after a reload."""
        self._hook.change(hooks)
        self._hooks.change(hooks)

    def change_registering(self, settings: WebSettings) -> None:
        """Take other client keys and other hosts to register from, after a reload."""
        self._registrar.change(settings)

    def close(self) -> None:
        """End all streams, so that a stop need not wait for them."""
        self.streams.close()


def build(parts: Parts, metrics: Metrics | None = None) -> Web:
    """Put the application together."""
    return Web(parts, metrics)


def limits(settings: WebSettings) -> Limits:
    """Return what a connection may cost by these settings."""
    return Limits(
        header_deadline_s=settings.header_deadline_s,
        body_deadline_s=settings.body_deadline_s,
        idle_s=settings.idle_s,
        body=settings.body_limit,
    )


def servers(web: Web) -> list[Server]:
    """Return the listeners the settings ask for: the main one, and one for metrics if wanted."""
    settings = web.parts.settings
    app = counted(web, web.parts.sent) if web.parts.sent is not None else web
    main = Server(app, settings.host, settings.port, limits(settings), web.close)
    if settings.metrics is None:
        return [main]
    return [main, Server(web.metrics, *settings.metrics, limits(settings))]


def healthz(loop: LoopPort) -> App:
    """Answer 200 while the loop turns."""

    def check() -> str:
        still_s = loop.now().at - loop.turned_at
        return "" if still_s < STALE_S else f"the loop has not turned for {still_s:.0f} s"

    return _probe(check)


def readyz(loop: LoopPort) -> App:
    """Answer 200 after the first round of observations, while the loop turns."""

    def check() -> str:
        still_s = loop.now().at - loop.turned_at
        if still_s >= STALE_S:
            return f"the loop has not turned for {still_s:.0f} s"
        return "" if loop.fleet.world.settled else "not everything was looked at yet"

    return _probe(check)


def _probe(check: Callable[[], str]) -> App:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
        if scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, method_not_allowed("GET, HEAD"))
            return
        trouble = check()
        if trouble:
            await send_problem(
                send, Problem(503, "not_ready", trouble, headers={"retry-after": "1"})
            )
            return
        headers = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store"), NOSNIFF]
        await respond(send, 200, headers, b"ok\n")

    return answer


def _is_stream(scope: Scope) -> bool:
    return scope["path"] == "/api/events" and b"follow=" in scope["query_string"]
