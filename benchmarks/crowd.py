"""Thousands of backends in one process: each address of 127.1.0.0/16 on one port is one of them.

python -m benchmarks.crowd [--closing]

Prints its port. For each line on stdin it answers one of JSON: `mark` begins a new count, `look`
tells of the time since: requests, seconds, and the longest any backend waited for its next one.
`--closing`: each answer ends its connection, so that each request has to open one.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time  # noqa: TID251
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks.world import PYTHON, ROOT, pin

BODY = b'{"object":"list","data":[{"id":"m","object":"model","created":0,"owned_by":"b"}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"


@dataclass(slots=True)
class Asked:
    """When one backend was asked last since the mark, and the longest it was not."""

    last: float | None = None
    longest_s: float = 0.0


class Counts:
    def __init__(self) -> None:
        self.backends: dict[str, Asked] = {}
        self.mark()

    def mark(self) -> None:
        self.since, self.requests, self.connections = time.perf_counter(), 0, 0
        for name in self.backends:
            self.backends[name] = Asked()

    def look(self) -> dict[str, float]:
        now = time.perf_counter()
        open_gaps = (now - (one.last or self.since) for one in self.backends.values())
        gaps = [one.longest_s for one in self.backends.values()]
        return {
            "backends": len(self.backends),
            "requests": self.requests,
            "connections": self.connections,
            "seconds": now - self.since,
            "longest_s": max([*gaps, *open_gaps], default=0.0),
        }


class Backend(asyncio.Protocol):
    """Probes come whole and one at a time, so what arrives is one request."""

    def __init__(self, counts: Counts, answer: bytes, *, closing: bool) -> None:
        self._counts, self._answer, self._closing = counts, answer, closing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._name = transport.get_extra_info("sockname")[0]
        self._counts.backends.setdefault(self._name, Asked())
        self._counts.connections += 1

    def data_received(self, _data: bytes) -> None:
        asked, now = self._counts.backends[self._name], time.perf_counter()
        if asked.last is not None:
            asked.longest_s = max(asked.longest_s, now - asked.last)
        asked.last = now
        self._counts.requests += 1
        self._transport.write(self._answer)
        if self._closing:
            self._transport.close()


async def serve(*, closing: bool) -> None:
    counts, loop = Counts(), asyncio.get_running_loop()
    answer = HEAD % (len(BODY), b"Connection: close\r\n" if closing else b"", BODY)
    server = await loop.create_server(
        lambda: Backend(counts, answer, closing=closing), "0.0.0.0", 0, backlog=8192
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    said = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(said), sys.stdin)
    while line := (await said.readline()).strip():
        print(json.dumps(counts.look()), flush=True)
        if line == b"mark":
            counts.mark()


class Crowd:
    """The process, from the outside."""

    def __init__(self, *, closing: bool = False) -> None:
        more = ["--closing"] if closing else []
        self._process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.crowd", *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        pin(self._process.pid, 1)

    def url(self, number: int) -> str:
        return f"http://127.1.{number // 250}.{number % 250 + 1}:{self.port}"

    def say(self, word: str) -> dict[str, float]:
        """Send `mark` or `look`; returns the counts so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        told: dict[str, float] = json.loads(self._process.stdout.readline())
        return told

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def crowd(*, closing: bool = False) -> Iterator[Crowd]:
    one = Crowd(closing=closing)
    try:
        yield one
    finally:
        one.end()


if __name__ == "__main__":
    uvloop.run(serve(closing="--closing" in sys.argv))
