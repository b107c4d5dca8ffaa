"""The child that does the baselines' work: the standard library alone, nothing of ours.

python -m benchmarks.yardstick

For each line `KIND COUNT` on stdin it does that work so many times and answers with one line of
JSON: for each time, milliseconds of CPU (ended children included) and on the clock. What is written
goes to a folder where the benchmarks' databases are too.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time  # noqa: TID251
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

MODULES = "asyncio, argparse, dataclasses, decimal, email, http.client, json, logging, sqlite3, ssl"


@dataclass
class Thing:
    name: str
    number: int
    words: list[str]


@contextmanager
def python(_folder: Path) -> Iterator[Callable[[], None]]:
    """1,000 dataclasses into a dict, to JSON, back, and sorted."""

    def work() -> None:
        things = {
            f"t{at}": Thing(f"t{at}", at * 7919 % 1000, ["a", "b", "c"]) for at in range(1000)
        }
        told = json.dumps({name: asdict(one) for name, one in things.items()})
        back = [Thing(**one) for one in json.loads(told).values()]
        back.sort(key=lambda one: one.number)
        assert back[0].number == 0

    yield work


class Echo(asyncio.Protocol):
    """Gives back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@contextmanager
def echo(_folder: Path) -> Iterator[Callable[[], None]]:
    """100 requests of 200 bytes and their answers over loopback, both sides in this process."""

    async def listen() -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(b"x" * 200)
            await reader.readexactly(200)

    with asyncio.Runner() as runner:
        server = runner.run(listen())
        address = server.sockets[0].getsockname()
        reader, writer = runner.run(asyncio.open_connection(*address))
        yield lambda: runner.run(ask(reader, writer))
        writer.transport.abort()
        server.close()


@contextmanager
def _database(path: Path, synchronous: str) -> Iterator[sqlite3.Connection]:
    base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with closing(base):
        base.execute("PRAGMA journal_mode=WAL")
        base.execute(f"PRAGMA synchronous={synchronous}")
        base.execute("CREATE TABLE t (name TEXT PRIMARY KEY, n INTEGER, x REAL, s TEXT)")
        yield base


@contextmanager
def rows(folder: Path) -> Iterator[Callable[[], None]]:
    """2,000 rows written by one executemany in a transaction."""
    with _database(folder / "rows.db", "NORMAL") as base:

        def work() -> None:
            base.execute("BEGIN IMMEDIATE")
            base.executemany(
                "INSERT INTO t VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET n = n + 1",
                [(f"b{at}", at, at / 7, "a few words") for at in range(2000)],
            )
            base.execute("COMMIT")

        yield work


@contextmanager
def sync(folder: Path) -> Iterator[Callable[[], None]]:
    """One row committed with synchronous=FULL, by a thread that is waited for."""
    with _database(folder / "sync.db", "FULL") as base, ThreadPoolExecutor(1) as thread:

        def commit() -> None:
            base.execute("BEGIN IMMEDIATE")
            base.execute("INSERT OR REPLACE INTO t VALUES ('a', 1, 0.5, ?)", ("x" * 500,))
            base.execute("COMMIT")

        yield lambda: thread.submit(commit).result()


@contextmanager
def start(_folder: Path) -> Iterator[Callable[[], None]]:
    """A new Python that imports much of its standard library, and ends."""
    argv = [sys.executable, "-I", "-c", f"import {MODULES}"]

    def work() -> None:
        subprocess.run(argv, check=True)

    yield work


WORKS = {"python": python, "echo": echo, "rows": rows, "sync": sync, "start": start}


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds of CPU and on the clock."""
    cpu, wall = _cpu_s(), time.perf_counter()
    work()
    return (_cpu_s() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def _cpu_s() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def main() -> None:
    ready: dict[str, Callable[[], None]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for line in sys.stdin:
            kind, count = line.split()
            if kind not in ready:
                ready[kind] = stack.enter_context(WORKS[kind](Path(folder)))
                ready[kind]()  # the first time is not like the others
            print(json.dumps([timed(ready[kind]) for _ in range(int(count))]), flush=True)


if __name__ == "__main__":
    main()
