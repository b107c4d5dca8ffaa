"""What agents cost: heartbeats of 500 sessions, web, loop and everything that follows of them.

The real daemon on one core, the agents' load on the other, over kept connections and over new ones.
Their sessions lie in its database when it starts; it finds their engines well and then does not
look again within the hour, so that what is counted is the heartbeats and its own idling.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time  # noqa: TID251
from collections.abc import Sequence
from pathlib import Path

from benchmarks.baseline import Beside, beside
from benchmarks.crowd import Crowd, crowd
from benchmarks.world import Daemon, Row, cpu_s, limited, say, wait
from orchestrator.core.events import Turn
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Health, Now
from orchestrator.edge.store import Store, in_thread

SESSIONS = 500
EVERY_S = 15.0
CONNECTIONS = 16
ROUNDS = 5
BEATS = 4  # of each session in a round
LIMIT = 5.0  # % of a core
SETTINGS = (
    '[health]\ncontrols = []\ncanary = "off"\n'
    'interval = "1h"\nfast_interval = "2s"\ndown_interval = "1h"\n'
)


class Agent:
    """One session from the outside."""

    def __init__(self, number: int, url: str) -> None:
        self.name, self.url, self.seq = f"n{number}", url, 0
        self.token = hashlib.sha256(f"token of {number}".encode()).hexdigest()
        self.id = hashlib.sha256(f"id of {number}".encode()).hexdigest()[:32]

    def table(self) -> str:
        host = self.url.split("/")[2].split(":")[0]
        return (
            f'[backends.{self.name}]\nkind = "notebook"\nengine = "openai"\nmodels = ["m"]\n'
            f'session = "12h"\nallow_private = true\nallow_hosts = ["{host}"]\n'
        )

    def state(self, at: float) -> BackendState:
        secret = hashlib.sha256(self.token.encode()).hexdigest()
        session = Session(self.id, at, at, at + 43200, generation=1, url=self.url, secret=secret)
        return BackendState(self.name, Health.UP, at, generation=1, session=session)

    def request(self, *, kept: bool) -> bytes:
        """Make the next heartbeat as an agent sends it, behind a proxy on the same machine."""
        self.seq += 1
        said = {
            "seq": self.seq,
            "state": "ready",
            "engine_ready": True,
            "tunnel_ready": True,
            "busy": 1,
            "gpu": {"name": "Tesla T4", "memory_mb": 15360, "used_mb": 9000},
            "done": [],
            "detail": "",
        }
        body = json.dumps(said).encode()
        head = (
            f"POST /sessions/{self.id}/heartbeat HTTP/1.1\r\nHost: aion.example.org\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"User-Agent: Python/3.11 aiohttp/3.14\r\nX-Forwarded-For: 192.0.2.1\r\n"
            f"Connection: {'keep-alive' if kept else 'close'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with crowd() as far, beside("echo") as base:
        kept_us, new_us, idle = _measured(far, base)
    cpu = base.cpu("echo")
    share = {us: SESSIONS / EVERY_S * us / 1e4 for us in (kept_us, new_us)}
    name = f"{SESSIONS} agents every {EVERY_S:g} s"
    return [
        limited("heartbeat, CPU of one", kept_us, 400.0, "µs", base=cpu),
        limited("heartbeat, new connection each time", new_us, 800.0, "µs", base=cpu),
        limited(f"{name}, of a core", share[kept_us], LIMIT, "%", base=cpu),
        limited(f"{name}, new connections, of a core", share[new_us], LIMIT, "%", base=cpu),
        Row(f"{SESSIONS} sessions, none beating, of a core", f"{idle * 100:.2f} %"),
    ]


def _measured(far: Crowd, base: Beside) -> tuple[float, float, float]:
    """Microseconds of CPU of a heartbeat, kept alive and not; the share of a core when idle."""
    agents = [Agent(number, far.url(number)) for number in range(SESSIONS)]
    toml = SETTINGS + "".join(agent.table() for agent in agents)
    with tempfile.TemporaryDirectory() as folder:
        one = Daemon(Path(folder), toml)
        asyncio.run(_stored(one, agents))
        one.start(60)
        try:
            wait(lambda: one.get("/readyz").status == 200, 60)
            asyncio.run(_beaten(one, agents, kept=True))
            time.sleep(8)  # until the turns that follow a start are over
            idle = _idle(one)
            kept, new = [], []
            for _ in range(ROUNDS):
                kept.append(asyncio.run(_cost(one, agents, kept=True)))
                new.append(asyncio.run(_cost(one, agents, kept=False)))
                base.more()
            say(f"kept {[f'{us:.0f}' for us in kept]} µs, new {[f'{us:.0f}' for us in new]} µs")
            assert one.get("/discovery/default").body["state"] == "serving"
            assert one.said("session_over") == []
        finally:
            one.stop()
    return sorted(kept)[ROUNDS // 2], sorted(new)[ROUNDS // 2], idle


async def _stored(one: Daemon, agents: Sequence[Agent]) -> None:
    """Put the sessions where a daemon that was stopped would have left them."""
    at = time.time()
    store = Store(f"sqlite:///{one.folder}/var/aion.db", in_thread(), create=True)
    await store.load()
    states = {agent.name: agent.state(at) for agent in agents}
    await store.commit(Turn(backends=states, durable=True), Now(at, at))
    await store.close()


def _idle(one: Daemon) -> float:
    before, began = cpu_s(one.pid), time.perf_counter()
    time.sleep(5)
    return (cpu_s(one.pid) - before) / (time.perf_counter() - began)


async def _cost(one: Daemon, agents: Sequence[Agent], *, kept: bool) -> float:
    before = cpu_s(one.pid)
    for _ in range(BEATS):
        await _beaten(one, agents, kept=kept)
    return (cpu_s(one.pid) - before) / (BEATS * len(agents)) * 1e6


async def _beaten(one: Daemon, agents: Sequence[Agent], *, kept: bool) -> None:
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for first in range(CONNECTIONS):
            group.create_task(_beating(one.port, agents[first::CONNECTIONS], kept=kept))


async def _beating(port: int, agents: Sequence[Agent], *, kept: bool) -> None:
    reader, writer = None, None
    for agent in agents:
        if reader is None or writer is None or not kept:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(agent.request(kept=kept))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        if not kept:
            writer.close()
    if writer is not None:
        writer.close()
