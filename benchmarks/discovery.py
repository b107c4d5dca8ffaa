"""CPU a discovery request costs, against a plain FastAPI JSON route in the same server process.

    python benchmarks/discovery.py [--requests 20000] [--listeners 500]

The server runs on core 0, the load on core 1. CPU is user + system time of the server process from
/proc, over all requests of a row. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time  # noqa: TID251 - measures real time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "web")]

CONNECTIONS = 16
LIMIT_US = 75.0
RATIO = 3.0
TOLD_S = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


async def serve() -> None:
    """The child: our discovery, and its peer; told on stdin when to change something."""
    import uvicorn
    from fastapi import FastAPI
    from webkit import serving

    from orchestrator.core.model import Verdict
    from orchestrator.web.discovery import answer

    async with serving() as site:
        peer = FastAPI()

        @peer.get("/plain")
        async def plain() -> dict:
            return answer(site.stand.fleet, "chat", site.stand.now()) | {"as_of": "now"}

        @peer.get("/ready-made")
        async def ready_made() -> dict:
            return shown

        shown = answer(site.stand.fleet, "chat", site.stand.now()) | {"as_of": "now"}
        config = uvicorn.Config(peer, port=0, http="httptools", access_log=False, log_level="error")
        other = uvicorn.Server(config)
        task = asyncio.create_task(other._serve())  # noqa: SLF001 - without its signal handlers
        while not other.started:  # noqa: ASYNC110 - uvicorn only has a flag
            await asyncio.sleep(0.01)
        port = other.servers[0].sockets[0].getsockname()[1]
        print(site.port, port, flush=True)
        stdin = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        down = False
        while (await stdin.readline()).strip() == b"change":
            verdict = Verdict.OK if down else Verdict.FAILED
            at = time.monotonic()
            site.stand.at += 4000.0 if down else 1.0
            site.stand.seen("colab", verdict, times=3)
            down = not down
            print(at, flush=True)
        other.should_exit = True
        await task


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def one_connection(port: int, request: bytes, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(number):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: " in head:
            length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
    writer.close()


async def row(name: str, pid: int, port: int, path: str, number: int, extra: str = "") -> float:
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n{extra}\r\n".encode()
    await one_connection(port, request, 200)
    before, begun = cpu_s(pid), time.perf_counter()
    each = number // CONNECTIONS
    async with asyncio.timeout(300):
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(one_connection(port, request, each))
    took_s, used_us = (
        time.perf_counter() - begun,
        (cpu_s(pid) - before) / (each * CONNECTIONS) * 1e6,
    )
    print(f"{name:44} {used_us:7.1f} µs CPU   {each * CONNECTIONS / took_s:8.0f} requests/s")
    return used_us


async def listeners(child: asyncio.subprocess.Process, port: int, number: int) -> float:
    """Seconds from a change until the last of `number` listeners was told."""
    assert child.stdin is not None
    assert child.stdout is not None
    request = b"GET /discovery/chat/events HTTP/1.1\r\nHost: a\r\n\r\n"
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    for reader, writer in streams:
        writer.write(request)
        await reader.readuntil(b"data: ")
        await reader.readuntil(b"\n\n")

    async def told(reader: asyncio.StreamReader) -> float:
        await reader.readuntil(b"\ndata: ")
        return time.monotonic()

    waiting = [asyncio.create_task(told(reader)) for reader, _ in streams]
    await asyncio.sleep(0.2)
    child.stdin.write(b"change\n")
    changed_at = float(await child.stdout.readline())
    async with asyncio.timeout(30):
        times = await asyncio.gather(*waiting)
    for _, writer in streams:
        writer.transport.abort()
    late_s = sorted(at - changed_at for at in times)
    last, middle = late_s[-1], late_s[len(late_s) // 2]
    print(f"{number} listeners told: median {middle * 1e3:.0f} ms, last {last * 1e3:.0f} ms")
    return last


async def measure(requests: int, number: int) -> bool:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    ours, peer = (int(port) for port in (await child.stdout.readline()).split())
    pid = child.pid
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", ours)
        writer.write(b"GET /discovery/chat HTTP/1.1\r\nHost: a\r\n\r\n")
        tag = (await reader.readuntil(b"\r\n\r\n")).split(b"etag: ", 1)[1].split(b"\r\n", 1)[0]
        writer.transport.abort()
        plain = await row(
            "plain FastAPI route, JSON made each time", pid, peer, "/plain", requests // 2
        )
        made = await row(
            "plain FastAPI route, the same dict", pid, peer, "/ready-made", requests // 2
        )
        whole = await row("discovery, 200", pid, ours, "/discovery/chat", requests)
        none = f"If-None-Match: {tag.decode()}\r\n"
        same = await row("discovery, 304", pid, ours, "/discovery/chat", requests, none)
        last = await listeners(child, ours, number)
        print(f"plain route / ours: {plain / whole:.1f}; with its dict ready: {made / whole:.1f}")
    finally:
        assert child.stdin is not None
        child.stdin.close()
        await asyncio.wait_for(child.wait(), 30)
    good = whole <= LIMIT_US and plain / whole >= RATIO and same < whole and last <= TOLD_S
    print("within the bounds" if good else "MISSED a bound")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0] if given.serve else cores[-1]})
    if given.serve:
        import uvloop

        uvloop.run(serve())
        return
    sys.exit(0 if asyncio.run(measure(given.requests, given.listeners)) else 1)


if __name__ == "__main__":
    main()
