"""Commits until it is killed, many times over: run by test_kill.py in a process of its own.

argv: database path, then one delay in microseconds for each life. Each life is a fork that commits
turn after turn and is shot by the kernel's timer, anywhere within or between commits. After each,
the database is opened again and what it holds is printed as a line of JSON.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys

from orchestrator.core.events import Answer, Entry, Turn
from orchestrator.core.model import (
    BackendState,
    Incident,
    Notice,
    NoticeKind,
    Now,
    Publication,
    ServiceState,
    Severity,
    World,
)
from orchestrator.core.specs import Target
from orchestrator.edge.store import Audit, Store, inline

URL = "sqlite:///" + sys.argv[1]


def turn(n: int) -> Turn:
    """Turn n: every table is touched, and the notice of the turn before is sent."""
    targets = (Target("A", f"192.0.2.{n % 250}"),)
    notices = {f"n{n}": Notice(f"n{n}", NoticeKind.MOVED, "moved", "s", Severity.INFO, float(n))}
    incidents = {f"k{n}": Incident(f"i{n}", f"k{n}", "kind", "s", Severity.INFO, float(n))}
    if n > 1:
        old = n - 1
        notices[f"n{old}"] = Notice(
            f"n{old}", NoticeKind.MOVED, "moved", "s", Severity.INFO, float(old), sent_at=float(n)
        )
        incidents[f"k{old}"] = Incident(
            f"i{old}", f"k{old}", "kind", "s", Severity.INFO, float(old), closed_at=float(n)
        )
    return Turn(
        backends={f"b{i}": BackendState(f"b{i}", flap_level=n) for i in range(20)},
        services={"s": ServiceState("s", epoch=n, publication=Publication(targets, n))},
        incidents=incidents,
        notices=notices,
        world=World(incident_seq=n),
        entries=tuple(Entry("moved", "s", "x" * 300, {"n": str(n)}) for _ in range(5)),
        answer=Answer(str(n)),
    )


async def life(delay_us: int, acknowledge: int) -> None:
    store = Store(URL, inline(), create=True)
    saved = await store.load()
    first = n = saved.world.incident_seq
    while True:
        n += 1
        await store.commit(turn(n), Now(float(n), float(n)), Audit(f"key{n}", "ann", ""))
        os.write(acknowledge, f"{n}\n".encode())
        if n == first + 1:  # statements are compiled now: from here on it is SQLite that is hit
            signal.setitimer(signal.ITIMER_REAL, delay_us / 1e6)


async def look() -> dict:
    store = Store(URL, inline())
    saved = await store.load()
    n = saved.world.incident_seq
    events = await store.events(limit=5)
    found = {
        "n": n,
        "epoch": saved.services["s"].epoch if n else 0,
        "wanted_epoch": saved.services["s"].publication.wanted_epoch if n else 0,
        "backends": sorted({b.flap_level for b in saved.backends.values()}) or [0],
        "outbox": list(saved.outbox),
        "incidents": [one.id for one in saved.incidents.values()],
        "events": sorted({e.data["n"] for e in events}),
        "answered": (await store.answered(f"key{n}")).text if n else "0",
        "next": await store.answered(f"key{n + 1}") is not None,
        "written_at": saved.written_at,
    }
    await store.close()
    db = sqlite3.connect(sys.argv[1])
    found["rows"] = db.execute(
        "select (select count(*) from event), (select count(*) from notice)"
    ).fetchone()
    found["check"] = db.execute("pragma integrity_check").fetchone()[0]
    db.close()
    return found


def main() -> None:
    for delay in sys.argv[2:]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process where it stands
            asyncio.run(life(int(delay), writer))
        os.close(writer)
        with os.fdopen(reader) as lines:
            acknowledged = [int(line) for line in lines if line.endswith("\n")]
        _, status = os.waitpid(pid, 0)
        found = asyncio.run(look())
        found |= {"acknowledged": acknowledged[-1:], "signal": os.WTERMSIG(status)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


main()
