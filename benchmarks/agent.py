"""The agent as a notebook runs it: its memory, what its proxy adds, streams delivered on time.

python -m benchmarks.agent PORT is the engine: it streams numbered tokens, each with the time at
which it was sent, by a clock that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time  # noqa: TID251
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp

from backends.agent.access import gateway_key
from backends.agent.bundle import source
from benchmarks.baseline import beside
from benchmarks.world import (
    PYTHON,
    ROOT,
    Base,
    Row,
    cpu_s,
    limited,
    pin,
    quantile,
    rss_mb,
    say,
    wait,
)

TOKEN, SESSION = "token-of-a-session", "s1"
PATH = "/v1/chat/completions"
STREAMS, PER_S, TOKENS = 20, 50, 500
FIRSTS = 300
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


# ── the engine ──────────────────────────────────────────────────────────────────────────────────


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"GET"):
        body = b'{"object": "list", "data": []}'
        length = str(len(body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n" + body)
        writer.close()
        return
    low = head.lower()
    length_of = int(low.partition(b"content-length:")[2].partition(b"\r\n")[0])
    asked = json.loads(await reader.readexactly(length_of))
    writer.write(HEAD)
    began = time.perf_counter()
    for at in range(asked["tokens"]):
        await asyncio.sleep(max(0.0, began + at / PER_S - time.perf_counter()))
        piece = b"data: %.6f\n\n" % time.perf_counter()
        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def engine(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port)
    await server.serve_forever()


# ── the daemon, and the agent between ───────────────────────────────────────────────────────────


class Daemon(BaseHTTPRequestHandler):
    """Registers whoever comes, and hears heartbeats; `ready` once one says so."""

    protocol_version = "HTTP/1.1"
    ready = threading.Event()

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fresh = self.path == "/register"
        if body.get("state") == "ready":
            self.ready.set()
        said: dict[str, object] = {"ends_at": None, "client_keys": [], "commands": []}
        if fresh:
            said |= {"session": SESSION, "token": TOKEN, "lease_s": 60, "heartbeat_s": 15}
            said |= {"access": "gateway"}
        raw = json.dumps(said).encode()
        self.send_response(201 if fresh else 200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def world() -> Iterator[tuple[int, str, str]]:
    """Give the agent's process, the engine's address and the agent's."""
    Daemon.ready.clear()
    daemon = ThreadingHTTPServer(("127.0.0.1", 0), Daemon)
    threading.Thread(target=daemon.serve_forever, daemon=True).start()
    ports = _free_port(), _free_port()
    direct, through = (f"http://127.0.0.1:{port}" for port in ports)
    children = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.py"
        file.write_text(source())
        argv = [PYTHON, "-m", "benchmarks.agent", str(ports[0])]
        children.append(subprocess.Popen(argv, cwd=ROOT))
        aion = f"http://127.0.0.1:{daemon.server_address[1]}"
        options = ["--aion", aion, "--backend", "b", "--engine", "openai", "--models", "m"]
        options += ["--engine-url", direct, "--url", through, "--port", str(ports[1])]
        argv = [PYTHON, str(file), *options, "--state", folder]
        env = {**os.environ, "AION_TOKEN": "token-of-a-backend"}
        children.append(subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL))
        pin(children[0].pid, 1)
        pin(children[1].pid, 0)
        try:
            wait(Daemon.ready.is_set, 60)
            yield children[1].pid, direct, through
        finally:
            for child in reversed(children):
                child.terminate()
                child.wait(30)
            daemon.shutdown()
            daemon.server_close()


# ── what is measured ────────────────────────────────────────────────────────────────────────────


class Asker:
    """Asks the engine, directly or through the agent."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {gateway_key(TOKEN, SESSION)}"}

    async def first_ms(self, url: str) -> float:
        """Give the milliseconds from asking to the first byte of the first token."""
        began = time.perf_counter()
        asked = {"tokens": 1}
        async with self._http.post(url + PATH, json=asked, headers=self._headers) as reply:
            assert reply.status == 200
            await reply.content.readany()
            return (time.perf_counter() - began) * 1e3

    async def late_ms(self, url: str) -> list[float]:
        """Stream; give for each token the milliseconds from its being sent to its being here."""
        asked = {"tokens": TOKENS}
        async with self._http.post(url + PATH, json=asked, headers=self._headers) as reply:
            late = [
                (time.perf_counter() - float(line[5:])) * 1e3
                async for line in reply.content
                if line.startswith(b"data:")
            ]
        assert len(late) == TOKENS
        return late


async def _firsts(direct: str, through: str) -> tuple[list[float], list[float]]:
    """First bytes, by turns, so that what disturbs the machine disturbs both."""
    found: tuple[list[float], list[float]] = ([], [])
    limits = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=limits) as http:
        asker = Asker(http)
        for at in range(FIRSTS + 20):
            times = [await asker.first_ms(direct), await asker.first_ms(through)]
            if at >= 20:  # the first ones are not like the others
                for one, value in zip(found, times, strict=True):
                    one.append(value)
    return found


async def _streams(url: str) -> list[float]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        asker = Asker(http)
        runs = await asyncio.gather(*(asker.late_ms(url) for _ in range(STREAMS)))
    return [late for run in runs for late in run]


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with beside("echo") as base:
        with world() as (pid, direct, through):
            firsts = asyncio.run(_firsts(direct, through))
            base.more()
            say(f"{STREAMS} streams, directly and through the agent")
            plain = asyncio.run(_streams(direct))
            before = cpu_s(pid)
            late = asyncio.run(_streams(through))
            token_us = (cpu_s(pid) - before) / len(late) * 1e6
            memory = rss_mb(pid)
        base.more()
    echo = base.wall("echo")
    cost = limited("agent, CPU for a token", token_us, None, "µs", base=base.cpu("echo"))
    return [*_rows(memory, firsts, plain, late, echo), cost]


def _rows(
    memory: float,
    firsts: tuple[list[float], list[float]],
    plain: list[float],
    late: list[float],
    echo: Base,
) -> list[Row]:
    direct, through = firsts
    added = [b - a for a, b in zip(direct, through, strict=True)]
    name = f"agent, {STREAMS} streams of {PER_S} tokens/s"

    def tail(times: list[float]) -> str:
        return f"{quantile(times, 0.95):.1f}"

    # On time: a token is here before the next one is sent.
    share = sum(one <= 1e3 / PER_S for one in late) / len(late)
    on_time = Row(f"{name}: on time", f"{share:.2%}", "≥ 99.9%", share >= 0.999)
    return [
        limited("agent, memory", memory, 60.0, "MB"),
        limited("agent, added to the first byte", quantile(added, 0.5), 5.0, "ms", base=echo),
        Row("agent, first byte, p95", f"{tail(through)} ms, {tail(direct)} ms without the agent"),
        limited(f"{name}: late, p99", quantile(late, 0.99), 20.0, "ms", base=echo),
        Row(f"{name}: late without the agent, p99", f"{quantile(plain, 0.99):.2f} ms"),
        on_time,
    ]


if __name__ == "__main__":
    asyncio.run(engine(int(sys.argv[1])))
