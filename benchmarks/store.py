"""What the store costs: CPU and wall time for each observation and each commit.

The peer, in the same run, is one SQLModel session per row.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time  # noqa: TID251
from pathlib import Path

from sqlmodel import Session, create_engine

from benchmarks.world import PYTHON, Row, limited
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
from orchestrator.edge.tables import Row as Tables
from orchestrator.edge.tables import TallyRow

BACKENDS = 1000
SECONDS = 60
COUNTS = [column.name for column in TALLY.c if column.name not in {"backend", "buckets"}]


async def observations(folder: Path) -> list[Row]:
    """1,000 backends each probed every 10 s, flushed every second."""
    store = Store(f"sqlite:///{folder}/a.db", in_thread(), create=True)
    await store.load()
    cpu, probes = time.process_time(), 0
    for second in range(SECONDS):
        for number in range(second % 10, BACKENDS, 10):
            seen = Observation(f"b{number}", Source.PROBE, Verdict.OK, "", 0.01 + number / 1e5, 200)
            store.observe(seen, 1.8e9 + second)
            probes += 1
        await store.flush()
    used = (time.process_time() - cpu) / probes
    await store.close()
    size = (folder / "a.db").stat().st_size
    return [
        limited("store: an observation", used * 1e6, None, "µs CPU"),
        limited(f"store: on disk after {probes} probes of {BACKENDS}", size / 1e6, None, "MB"),
    ]


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
    await store.close()
    return used


def sessions(folder: Path) -> float:
    """The peer: a SQLModel session for each row."""
    engine = create_engine(f"sqlite:///{folder}/c.db")
    Tables.metadata.create_all(engine)
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
    engine.dispose()
    return used


async def commits(folder: Path) -> list[Row]:
    """A failover's turn, synced to disk; and loading what `observations` left."""
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
    middle, worst = walls[count // 2] * 1e3, walls[int(count * 0.99)] * 1e3
    began = time.perf_counter()
    again = Store(f"sqlite:///{folder}/a.db", in_thread())
    await again.load()
    load_ms = (time.perf_counter() - began) * 1e3
    await again.close()
    await store.close()
    value = f"{used * 1e3:.2f} ms CPU, {middle:.1f} ms (p99 {worst:.1f} ms)"
    figures = {"cpu_ms": used * 1e3, "median_ms": middle, "p99_ms": worst}
    return [
        Row("store: a failover's commit, synced", value, figures=figures),
        limited(f"store: load with {BACKENDS} backends", load_ms, None, "ms"),
    ]


def imports() -> list[Row]:
    """What importing the store adds to a bare interpreter."""
    code = (
        "import time, sys\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "b, r = time.process_time(), rss()\n"
        "import orchestrator.edge.store, orchestrator.edge.migrate\n"
        "print(time.process_time() - b, (rss() - r) / 1e6, 'alembic' in sys.modules)"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes, alembic = done.stdout.split()
    assert alembic == "False", "Alembic is in the daemon"
    value = f"{float(seconds):.2f} s CPU, {float(megabytes):.0f} MB"
    return [Row("store: importing it", value)]


def run() -> list[Row]:
    """Measure; the store has no bound of its own but what a probe may cost all in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = asyncio.run(observations(folder))
        ours, peer = asyncio.run(rows(folder)), sessions(folder)
        value = f"{ours * 1e6:.0f} µs CPU (SQLModel session: {peer * 1e6:.0f} µs)"
        figures = {"us": ours * 1e6, "peer_us": peer * 1e6}
        found.append(Row("store: an observation that is news", value, figures=figures))
        return [*found, *asyncio.run(commits(folder)), *imports()]
