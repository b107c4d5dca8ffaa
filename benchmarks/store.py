"""What the store costs: CPU and wall time for each observation and each commit.

Run: `python benchmarks/store.py`. The peer, in the same run, is one SQLModel session per row.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time  # noqa: TID251
from pathlib import Path

from sqlmodel import Session, create_engine

from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import (
    BackendState,
    Notice,
    NoticeKind,
    Now,
    Observation,
    ServiceState,
    Severity,
    Source,
    Verdict,
)
from orchestrator.edge.queries import TALLY
from orchestrator.edge.store import Audit, Store, in_thread
from orchestrator.edge.tables import Row, TallyRow

BACKENDS = 1000
SECONDS = 60
COUNTS = [column.name for column in TALLY.c if column.name not in {"backend", "buckets"}]


async def observations(folder: Path) -> float:
    """1,000 backends each probed every 10 s, flushed every second; µs of CPU a probe, all in."""
    store = Store(f"sqlite:///{folder}/a.db", in_thread(), create=True)
    await store.load()
    began, cpu, probes = time.perf_counter(), time.process_time(), 0
    for second in range(SECONDS):
        for number in range(second % 10, BACKENDS, 10):
            seen = Observation(f"b{number}", Source.PROBE, Verdict.OK, "", 0.01 + number / 1e5, 200)
            store.observe(seen, 1.8e9 + second)
            probes += 1
        await store.flush()
    used, wall = time.process_time() - cpu, time.perf_counter() - began
    print(f"observations   {used / probes * 1e6:8.1f} µs CPU  {wall / probes * 1e6:8.1f} µs wall")
    await store.close()
    size = (folder / "a.db").stat().st_size
    print(f"on disk        {size / 1e6:8.1f} MB after {probes} probes of {BACKENDS} backends")
    return used / probes


async def rows(folder: Path) -> float:
    """The worst case: every observation is a change, and so a row of its own."""
    store = Store(f"sqlite:///{folder}/b.db", in_thread(), create=True)
    await store.load()
    cpu, count = time.process_time(), 0
    for second in range(SECONDS // 2):
        for number in range(BACKENDS):
            verdict = Verdict.OK if second % 2 else Verdict.FAILED
            store.observe(Observation(f"b{number}", Source.PROBE, verdict, "refused"), 1.8e9)
            count += 1
        await store.flush()
    used = (time.process_time() - cpu) / count
    print(f"a row each     {used * 1e6:8.1f} µs CPU")
    await store.close()
    return used


def sessions(folder: Path) -> float:
    """The peer: a SQLModel session for each row."""
    engine = create_engine(f"sqlite:///{folder}/c.db")
    Row.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
    cpu, count = time.process_time(), 1000
    for number in range(count):
        with Session(engine) as session:
            session.add(
                TallyRow(
                    **dict.fromkeys(COUNTS, 1),
                    backend=f"b{number}",
                    buckets="0,1",
                )
            )
            session.commit()
    used = (time.process_time() - cpu) / count
    print(f"session a row  {used * 1e6:8.1f} µs CPU  (SQLModel, the peer)")
    engine.dispose()
    return used


async def commits(folder: Path) -> None:
    """A failover's turn, synced to disk, and for scale how long a bare sync takes here."""
    store = Store(f"sqlite:///{folder}/d.db", in_thread(), create=True)
    await store.load()
    walls = []
    cpu, count = time.process_time(), 300
    for number in range(count):
        turn = Turn(
            backends={"a": BackendState("a"), "b": BackendState("b")},
            services={"chat": ServiceState("chat", active="b", epoch=number)},
            notices={
                f"n{number}": Notice(
                    f"n{number}", NoticeKind.MOVED, "moved", "chat", Severity.INFO, 1.8e9
                )
            },
            entries=(Entry("moved", "chat", "chat: a is down; b is the first that can serve"),),
        )
        began = time.perf_counter()
        await store.commit(turn, Now(1.8e9 + number, 1.8e9), Audit(f"k{number}", "ann", "here"))
        walls.append(time.perf_counter() - began)
    used = (time.process_time() - cpu) / count
    walls.sort()
    print(
        f"commit         {used * 1e6:8.1f} µs CPU  {walls[count // 2] * 1e6:8.1f} µs wall (p50)"
        f"  {walls[int(count * 0.99)] * 1e6:8.1f} µs (p99)"
    )
    began = time.perf_counter()
    again = Store(f"sqlite:///{folder}/a.db", in_thread())
    await again.load()
    print(f"load           {(time.perf_counter() - began) * 1e3:8.1f} ms with {BACKENDS} backends")
    await again.close()
    await store.close()


def imports() -> None:
    """What importing the store adds to a bare interpreter."""
    code = (
        "import time, sys\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "b, r = time.process_time(), rss()\n"
        "import orchestrator.edge.store, orchestrator.edge.migrate\n"
        "print(time.process_time() - b, (rss() - r) / 1e6, 'alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes, alembic = done.stdout.split()
    print(f"import         {float(seconds):8.2f} s CPU  {float(megabytes):8.1f} MB more memory")
    assert alembic == "False", "Alembic is in the daemon"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(observations(folder))
        ours = asyncio.run(rows(folder))
        print(f"ratio          {sessions(folder) / ours:8.1f} times cheaper a row than the peer")
        asyncio.run(commits(folder))
    imports()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory    {peak:8.1f} MB")


if __name__ == "__main__":
    main()
