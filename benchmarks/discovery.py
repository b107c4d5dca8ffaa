"""CPU a discovery request costs the real daemon, against a plain FastAPI JSON route.

Both are servers of their own on one core, asked in turn by the same load on the other. The peer
makes the same answer on uvicorn with uvloop and httptools. CPU is user + system time of the server
over all requests of a row. Listeners are told of real failovers; the time runs from the daemon's
decision, as its log has it, until the last of them has read it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time  # noqa: TID251
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from benchmarks.baseline import Beside, beside
from benchmarks.world import (
    PYTHON,
    ROOT,
    Daemon,
    Fake,
    Row,
    backend,
    cpu_s,
    daemon,
    fakes,
    limited,
    pin,
    quantile,
    rss_mb,
    say,
    wait,
)

SETTINGS = (
    '[health]\ncontrols = []\ncanary = "off"\n'
    'interval = "2s"\nfast_interval = "250ms"\ndown_interval = "1s"\n'
)
CONNECTIONS = 16
REQUESTS = 4_000  # a round
ROUNDS = 5
LISTENERS = 500
FAILOVERS = 5
RATIO = 3.0


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with fakes("colab", "lab") as found, beside("echo") as base:
        toml = SETTINGS + backend("colab", found["colab"].port, 10)
        toml += backend("lab", found["lab"].port, 20)
        with daemon(toml) as one:
            wait(lambda: one.get("/discovery/default").body["state"] == "serving", 60)
            time.sleep(6)
            with _fastapi() as (pid, port):
                plain, made, whole, same = asyncio.run(_costs(one, pid, port, base))
            late, each_kb = asyncio.run(_told(one, found))
    cpu, wall = base.cpu("echo"), base.wall("echo")
    last, middle = max(late), quantile(late, 0.5)
    told = limited(f"{LISTENERS} SSE listeners told of a failover, worst", last, 250.0, "ms")
    told.value += f" (median {middle:.0f} ms, {len(late)} times)"
    return [
        limited("discovery, CPU of a request", whole, 75.0, "µs", base=cpu),
        limited("discovery, CPU of a 304, below that", same, round(whole, 1), "µs", base=cpu),
        _ratio(plain, whole, made),
        told.against(middle, wall),
        limited(f"{LISTENERS} SSE listeners, memory of each", each_kb, None, "KB"),
    ]


@contextmanager
def _fastapi() -> Iterator[tuple[int, int]]:
    """Run the peer; gives its process and port."""
    argv = [PYTHON, "-m", "benchmarks.discovery"]
    peer = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
    pin(peer.pid, 0)
    try:
        assert peer.stdout is not None
        yield peer.pid, int(peer.stdout.readline())
    finally:
        peer.kill()
        peer.communicate()


async def _costs(one: Daemon, pid: int, port: int, base: Beside) -> list[float]:
    """Microseconds a request of the plain route, the same with its dict ready, ours, a 304.

    In turns, for whatever else the machine does to hit all alike; the median of the rounds.
    """
    path, none = "/discovery/default", f"If-None-Match: {await _tag(one.port)}\r\n"
    asked = {
        "plain FastAPI route": (pid, port, "/plain", ""),
        "the same, its dict ready": (pid, port, "/ready", ""),
        "discovery": (one.pid, one.port, path, ""),
        "304": (one.pid, one.port, path, none),
    }
    found: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(ROUNDS):
        for name, (server, at, what, extra) in asked.items():
            found[name].append(await _cost(server, at, what, extra))
        base.more()
    middle = {name: sorted(times)[ROUNDS // 2] for name, times in found.items()}
    say(", ".join(f"{name} {us:.1f} µs" for name, us in middle.items()))
    return list(middle.values())


def _ratio(plain: float, ours: float, made: float) -> Row:
    value = f"{plain / ours:.1f} times less ({plain:.0f} µs; {made:.0f} µs with its dict ready)"
    figures = {"times": plain / ours, "plain_us": plain, "ready_us": made}
    return Row(
        "  peer: plain FastAPI JSON route", value, "≥ 3 times", plain / ours >= RATIO, figures
    )


async def _tag(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /discovery/default HTTP/1.1\r\nHost: a\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    return head.split(b"etag: ", 1)[1].split(b"\r\n", 1)[0].decode()


async def _asking(port: int, request: bytes, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(number):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
    writer.close()


async def _cost(pid: int, port: int, path: str, extra: str) -> float:
    """Microseconds of the server's CPU for each request."""
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode()
    await _asking(port, request, 200)
    before, each = cpu_s(pid), REQUESTS // CONNECTIONS
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_asking(port, request, each))
    return (cpu_s(pid) - before) / (each * CONNECTIONS) * 1e6


async def _told(one: Daemon, found: dict[str, Fake]) -> tuple[list[float], float]:
    """Milliseconds from each decision until the last listener has read it; KB of each listener."""
    request = b"GET /discovery/default/events HTTP/1.1\r\nHost: a\r\n\r\n"
    before = rss_mb(one.pid)
    streams = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(LISTENERS)]
    for reader, writer in streams:
        writer.write(request)
        await reader.readuntil(b"data: ")
        await reader.readuntil(b"\n\n")
    each_kb = (rss_mb(one.pid) - before) * 1024 / LISTENERS
    late = []
    for at in range(FAILOVERS):
        old, new = ("colab", "lab") if at % 2 == 0 else ("lab", "colab")
        waiting = [asyncio.create_task(_names(reader, new)) for reader, _ in streams]
        found[old].send(signal.SIGKILL)
        async with asyncio.timeout(60):
            times = await asyncio.gather(*waiting)
        moved_at = one.said("assigned")[-1]["at"]
        say(f"told: first {min(times) - moved_at:.3f} s, last {max(times) - moved_at:.3f} s")
        late.append((max(times) - moved_at) * 1e3)
        found[old].end()
        await asyncio.to_thread(found[old].start)
        await asyncio.sleep(3)  # until it is up again: down interval, twice the fast one
    for _, writer in streams:
        writer.transport.abort()
    return late, each_kb


async def _names(reader: asyncio.StreamReader, who: str) -> float:
    """Wait until this listener is told that `who` serves; Unix time."""
    while True:
        await reader.readuntil(b"data: ")
        answer = json.loads(await reader.readuntil(b"\n\n"))
        if answer["active"] and answer["active"]["backend"] == who:
            return time.time()


async def _peer() -> None:
    """The child: FastAPI as its page says to write such a route."""
    import uvicorn
    from fastapi import FastAPI

    peer = FastAPI()
    lab = {"backend": "lab", "url": "http://127.0.0.1:40155"}

    def answer() -> dict:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")  # noqa: TID251
        active = {"backend": "colab", "url": "http://127.0.0.1:40155", "models": ["m"]}
        return {
            "service": "default",
            "epoch": 1,
            "state": "serving",
            "active": active | {"since": now, "ends_at": None},
            "gateway": None,
            "fallbacks": [lab],
            "retry_at": None,
            "as_of": now,
        }

    @peer.get("/plain")
    async def plain() -> dict:
        return answer()

    shown = answer()

    @peer.get("/ready")
    async def ready() -> dict:
        return shown

    config = uvicorn.Config(peer, port=0, http="httptools", access_log=False, log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn only has a flag
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task


if __name__ == "__main__":
    import uvloop

    sys.exit(uvloop.run(_peer()))
