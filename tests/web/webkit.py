"""A small daemon for the web's tests: the real core, a stand-in for loop and store, a real server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from orchestrator.core.events import Answer, Command, Event, Observed, Tick, Turn
from orchestrator.core.fleet import apply, resumed, step
from orchestrator.core.lives import PastSession
from orchestrator.core.model import Now, Observation, Source, Verdict
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy, Service, Tier
from orchestrator.edge.queries import Audit
from orchestrator.web.app import Web, build, servers
from orchestrator.web.carrier import WebSettings
from orchestrator.web.parts import Parts
from orchestrator.web.server import Server

TOKEN = "0123456789abcdef" * 4
START = 1_790_000_000.0
PATIENCE_S = 25.0  # a bound on waiting, which measures nothing; less than a net has


@dataclass(frozen=True)
class Row:
    seq: int
    wall: float
    action: str
    subject: str
    text: str
    data: dict[str, str] = field(default_factory=dict)
    who: str = ""


class MemoryStore:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.answers: dict[str, Answer] = {}
        self.past: list[PastSession] = []

    async def answered(self, key: str) -> Answer | None:
        return self.answers.get(key)

    async def past_session(self, ident: str) -> PastSession | None:
        return next((one for one in self.past if one.id == ident), None)

    async def past_sessions(
        self, backend: str | None = None, limit: int = 100
    ) -> list[PastSession]:
        found = [one for one in self.past if backend in (None, one.backend)]
        return found[::-1][:limit]

    async def events(
        self, after: int = 0, limit: int = 100, subject: str | None = None
    ) -> list[Row]:
        rows = [row for row in self.rows if row.seq > after and subject in (None, row.subject)]
        return rows[:limit] if after else rows[-limit:]


class Stand:
    """The loop's stand-in: turns the real core at once, on a clock that the test moves."""

    def __init__(self, config: FleetConfig, store: MemoryStore) -> None:
        self.at = START
        self.store = store
        self.fleet = resumed(config, self.now())
        self.turned_at = self.at
        self.waiting = 0
        self.audits: list[Audit | None] = []
        self.failing: Exception | None = None
        self._subscribers: list[Callable[[Turn], None]] = []

    def now(self) -> Now:
        return Now(self.at, self.at)

    def subscribe(self, callback: Callable[[Turn], None]) -> None:
        self._subscribers.append(callback)

    def feed(self, event: Event) -> Turn:
        turn = step(self.fleet, event, self.now())
        for entry in turn.entries:
            row = Row(len(self.store.rows) + 1, self.at, entry.action, entry.subject, entry.text)
            self.store.rows.append(replace(row, data=dict(entry.data)))
        self.store.past += turn.past
        apply(self.fleet, turn)
        self.turned_at = self.at
        for callback in self._subscribers:
            callback(turn)
        return turn

    async def command(self, command: Command, audit: Audit | None) -> Answer:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        self.audits.append(audit)
        answer = self.feed(command).answer
        assert answer is not None
        if audit is not None and audit.key is not None:
            self.store.answers[audit.key] = answer
        return answer

    def report(self, event: Event) -> None:
        self.feed(event)

    async def committed(self, event: Event) -> Turn:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        return self.feed(event)

    def seen(self, backend: str, verdict: Verdict = Verdict.OK, times: int = 1) -> None:
        for _ in range(times):
            seen = Observation(backend, Source.PROBE, verdict, detail="seen so")
            self.feed(Observed(seen, self.at))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a tick a second."""
        for _ in range(int(seconds)):
            self.at += 1.0
            self.feed(Tick(self.at))

    def settle(self) -> None:
        """Have every backend looked at and found well."""
        for name in self.fleet.config.backends:
            self.seen(name, times=2)
        self.pass_time(1)


def backend(name: str, priority: int = 10, **more: Any) -> Backend:
    given = {"url": f"http://{name}.example:8000", "models": ("qwen3:8b",), **more}
    given.setdefault("health", HealthPolicy(canary_s=None))
    return Backend(name=name, kind="static", engine="openai", priority=priority, **given)


def world(**more: Any) -> FleetConfig:
    """Three backends and an API; a service for all, and one for the last two."""
    backends = [
        backend("colab", 10),
        backend("kaggle", 20),
        backend("lab", 30),
        backend("groq", 90, url=None, assignable=False, tier=Tier.PAID),
    ]
    services = [
        Service("chat", ("colab", "kaggle", "lab", "groq")),
        Service("embed", ("kaggle", "lab")),
    ]
    return FleetConfig(
        backends={one.name: one for one in backends},
        services={one.name: one for one in services},
        **more,
    )


class Site:
    """A running server, and ways to talk to it."""

    def __init__(self, stand: Stand, web: Web, listeners: list[Server]) -> None:
        self.stand, self.web, self.listeners = stand, web, listeners
        self.port, self.metrics_port = listeners[0].port, listeners[-1].port
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S)
        self.admin = httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE_S, headers={"authorization": f"Bearer {TOKEN}"}
        )

    @property
    def connections(self) -> set[Any]:
        running = self.listeners[0]._uvicorn
        return running.server_state.connections if running is not None else set()

    async def raw(self, *pieces: bytes, within_s: float = PATIENCE_S) -> bytes:
        """Send bytes on a new connection and read until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
            async with asyncio.timeout(within_s):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def until(self, holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - a condition with a deadline
                await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    config: FleetConfig | None = None, *, settled: bool = True, parts: Any = None, **given: Any
) -> AsyncIterator[Site]:
    """Run a site. `given` are fields of WebSettings; `parts` more of Parts."""
    store = MemoryStore()
    stand = Stand(config or world(), store)
    if settled:
        stand.settle()
    digest = hashlib.sha256(TOKEN.encode()).digest()
    settings = WebSettings(
        **{
            "host": "127.0.0.1",
            "port": 0,
            "public_url": None,
            "admin_token_sha256": digest,
            **given,
        }
    )
    web = build(Parts(settings, stand, store, version="1.2.3", **(parts or {})))
    listeners = servers(web)
    for one in listeners:
        one.bind()
        await one.start()
    site = Site(stand, web, listeners)
    try:
        yield site
    finally:
        await site.client.aclose()
        await site.admin.aclose()
        for one in listeners:
            await one.stop()


def run(test: Callable[[Site], Any], config: FleetConfig | None = None, **given: Any) -> None:
    """Run one asynchronous test against a site of its own."""

    async def whole() -> None:
        async with serving(config, **given) as site:
            await test(site)

    asyncio.run(whole())
