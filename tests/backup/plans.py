"""Plans, clocks and programs for the tests of backups."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from jobs.backup.form import Copy, DumpId, Limits, Plan, Timeouts
from jobs.backup.targets import Target
from orchestrator.edge.store import Store, inline
from tests.backup.conftest import BINS

DAY_S = 86_400.0


class HandClock:
    """Stands still until it is moved; a pause moves it."""

    def __init__(self, wall: float = 1_800_000_000.0) -> None:
        self.at = wall
        self.jump = 0.0
        self.paused: list[float] = []

    def steady(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at + self.jump

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.at += seconds


def plan(dsn: str, spool: Path, *stores: Path, **more) -> Plan:
    given = {
        "name": "main",
        "dsn": dsn,
        "copies": tuple(Copy(Target.parse(f"file:{store}")) for store in stores),
        "spool": str(spool),
        "timeouts": Timeouts(connect_s=10, silence_s=30),
        "limits": Limits(min_free_bytes=1 << 20, attempts=3),
    }
    spool.mkdir(exist_ok=True)
    return Plan(**{**given, **more})


def aion_database(path: Path) -> Path:
    """Make a database as aion's own is."""

    async def made() -> None:
        store = Store(f"sqlite:///{path}", inline(), instance="home", create=True)
        await store.load()
        await store.close()

    asyncio.run(made())
    return path


def first(clock: HandClock, sequence: int = 1) -> DumpId:
    from datetime import UTC, datetime

    return DumpId.new("main", sequence, datetime.fromtimestamp(clock.wall(), UTC))


def clients(folder: Path, major: int, *, pg_dump: str = "", pg_restore: str = "") -> str:
    """Return a folder with the programs of `major`; a script given replaces one.

    In a script `$REAL` is the real program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in (("pg_dump", pg_dump), ("pg_restore", pg_restore)):
        real = BINS[major] / name
        path = folder / name
        path.unlink(missing_ok=True)
        if script:
            path.write_text(
                f'#!/bin/sh\nREAL={shlex.quote(str(real))}\ncase "$*" in *--version*|*/nonexistent*) exec "$REAL" "$@";; esac\n{script}\n'
            )
            path.chmod(0o755)
        else:
            path.symlink_to(real)
    for name in ("psql", "initdb", "pg_ctl", "postgres"):
        if not (folder / name).exists():
            (folder / name).symlink_to(BINS[major] / name)
    return str(folder)
