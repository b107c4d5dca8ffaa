"""What the store costs: CPU and wall time for each observation and each commit, rows a second.

The peer, in the same run, is one SQLModel session per row.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time  # noqa: TID251
from pathlib import Path

from sqlmodel import Session, create_engine

from benchmarks.baseline import Beside, beside
from benchmarks.world import PYTHON, Row, limited, quantile
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
COMMITS = 600
COUNTS = [column.name for column in TALLY.c if column.name not in {"backend", "buckets"}]


async def observations(folder: Path, base: Beside) -> list[Row]:
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
    base.more()
    size = (folder / "a.db").stat().st_size
    return [
        limited("store: an observation", used * 1e6, None, "µs CPU", base=base.cpu("rows")),
        limited(f"store: on disk after {probes} probes of {BACKENDS}", size / 1e6, None, "MB"),
    ]


async def rows(folder: Path, base: Beside) -> tuple[float, list[float]]:
    """The worst case: every observation is a change, and so a row of its own.

    Microseconds of CPU of a row, and on the clock in each second's batch of them.
    """
    store = Store(f"sqlite:///{folder}/b.db", in_thread(), create=True)
    await store.load()
    cpu, walls = 0.0, []
    for second in range(SECONDS // 2):
        used, began = time.process_time(), time.perf_counter()
        for number in range(BACKENDS):
            verdict = Verdict.OK if second % 2 else Verdict.FAILED
            store.observe(Observation(f"b{number}", Source.PROBE, verdict, "refused"), 1.8e9)
        await store.flush()
        walls.append((time.perf_counter() - began) / BACKENDS * 1e6)
        cpu += time.process_time() - used
        if second % 10 == 9:
            base.more()
    await store.close()
    return cpu / len(walls) / BACKENDS * 1e6, walls


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


async def commits(folder: Path, base: Beside) -> list[Row]:
    """A failover's turn, synced to disk; and loading what `observations` left."""
    store = Store(f"sqlite:///{folder}/d.db", in_thread(), create=True)
    await store.load()
    walls, cpu = [], 0.0
    for number in range(COMMITS):
        used, began = time.process_time(), time.perf_counter()
        await store.commit(
            _failover(number), Now(1.8e9 + number, 1.8e9), Audit(f"k{number}", "", "")
        )
        walls.append((time.perf_counter() - began) * 1e3)
        cpu += time.process_time() - used
        if number % 100 == 99:
            base.more()
    loads = []
    for _ in range(5):
        began = time.perf_counter()
        again = Store(f"sqlite:///{folder}/a.db", in_thread())
        await again.load()
        loads.append((time.perf_counter() - began) * 1e3)
        await again.close()
    await store.close()
    middle, worst = quantile(walls, 0.5), quantile(walls, 0.99)
    return [
        limited(
            "store: a failover's commit", cpu / COMMITS * 1e3, None, "ms CPU", base=base.cpu("rows")
        ),
        Row(
            "store: a failover's commit, synced",
            f"{middle:.2f} ms (p99 {worst:.1f} ms), {COMMITS / sum(walls) * 1e3:,.0f} commits/s",
            figures={"p99_ms": worst, "per_s": COMMITS / sum(walls) * 1e3},
        ).against(middle, base.wall("sync")),
        limited(
            f"store: load with {BACKENDS} backends",
            quantile(loads, 0.5),
            None,
            "ms",
            base=base.wall("rows"),
        ),
    ]


def _failover(number: int) -> Turn:
    key = f"n{number}"
    return Turn(
        backends={"a": BackendState("a"), "b": BackendState("b")},
        services={"chat": ServiceState("chat", active="b", epoch=number)},
        notices={key: Notice(key, NoticeKind.MOVED, "moved", "chat", Severity.INFO, 1.8e9)},
        entries=(Entry("moved", "chat", "chat: a is down; b is the first that can serve"),),
    )


def imports() -> list[Row]:
    """What importing the store adds to a bare interpreter."""
    code = (
        "import time, sys\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "b, r = time.process_time(), rss()\n"
        "import orchestrator.edge.store, orchestrator.edge.migrate\n"
        "print(time.process_time() - b, (rss() - r) / 1e6, 'alembic' in sys.modules)"
    )
    with beside("start") as base:
        done = [
            subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(5)
        ]
    found = [one.stdout.split() for one in done]
    assert not any(alembic == "True" for _, _, alembic in found), "Alembic is in the daemon"
    seconds, megabytes = (quantile([float(one[at]) for one in found], 0.5) for at in (0, 1))
    return [
        limited("store: importing it", seconds, None, "s CPU", base=base.cpu("start")),
        limited("store: importing it, memory", megabytes, None, "MB"),
    ]


def run() -> list[Row]:
    """Measure; the store has no bound of its own but what a probe may cost all in."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with beside("rows") as base:
            found = asyncio.run(observations(folder, base))
        with beside("rows") as base:
            ours, walls = asyncio.run(rows(folder, base))
            peer = sessions(folder) * 1e6
        wall = quantile(walls, 0.5)
        value = f"{ours:.0f} µs CPU (SQLModel session: {peer:.0f} µs)"
        news = Row("store: an observation that is news", value, figures={"peer_us": peer})
        rate = Row(
            "store: rows written", f"{1e6 / wall:,.0f} rows/s", figures={"per_s": 1e6 / wall}
        )
        found += [news.against(ours, base.cpu("rows")), rate.against(wall, base.wall("rows"))]
        with beside("rows", "sync") as base:
            found += asyncio.run(commits(folder, base))
        return found + imports()
