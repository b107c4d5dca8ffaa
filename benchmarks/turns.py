"""How long a turn of the loop takes: the real loop, its store on disk, from handing in to applied.

Durable turns are failovers: whoever serves fails, and what that changes is synced to disk. The
others are good answers of healthy backends, while observations are flushed. The daemon's tick goes
on every second. Everything is on one core, as the daemon is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time  # noqa: TID251
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.baseline import Beside, beside
from benchmarks.world import Base, Row, limited, quantile
from orchestrator.core.events import Observed, Tick
from orchestrator.core.fleet import resumed
from orchestrator.core.model import Now, Observation, Source, Verdict
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy, Service
from orchestrator.edge.clock import SystemClock
from orchestrator.edge.log import Log
from orchestrator.edge.store import Store, in_thread
from orchestrator.loop import Loop

SIZES = (10, 1000)
POOL = 100  # backends of one service, as in `probes`
POLICY = HealthPolicy(fall=1, rise=1, canary_s=None)
FAILOVERS = 990  # a multiple of what a fleet of either size gives
ANSWERS = 20_000
FLUSH_S = 1.5


def run() -> list[Row]:
    """Measure both kinds of turns in a small fleet and in a large one."""
    with one_core(), quiet():
        return [row for number in SIZES for row in asyncio.run(measure(number))]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on the first core for as long as the block lasts."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def quiet() -> Iterator[None]:
    """Have log lines made as the daemon makes them, and thrown away."""
    with Path(os.devnull).open("w") as nowhere:
        Log(nowhere, time.time).install()
        try:
            yield
        finally:
            Log(sys.stderr, time.time).install("warning")


@dataclass
class Took:
    """What turns took, each: seconds on the clock and of all this process's CPU."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Time one turn."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)

    def rows(self, name: str, unit: str, bases: tuple[Base, Base, Base]) -> list[Row]:
        """Give median and p99 on the clock and the median of CPU, in `ms` or `µs`."""
        times = 1e3 if unit == "ms" else 1e6
        middle, late, cpu = (
            quantile(found, share) * times
            for found, share in ((self.wall_s, 0.5), (self.wall_s, 0.99), (self.cpu_s, 0.5))
        )
        worst = limited(f"{name}, p99", late, None, unit, base=bases[1])
        longest = max(self.wall_s) * times
        worst.value += f" (longest {longest:,.1f} {unit}, {len(self.wall_s):,} times)"
        return [
            limited(f"{name}, median", middle, None, unit, base=bases[0]),
            worst,
            limited(f"{name}, CPU", cpu, None, f"{unit} CPU", base=bases[2]),
        ]


async def measure(number: int) -> list[Row]:
    """Give the rows of a fleet of so many backends."""
    durable, plain = Took(), Took()
    with tempfile.TemporaryDirectory() as folder, beside("sync", "python") as base:
        store = Store(f"sqlite:///{folder}/aion.db", in_thread(), create=True)
        await store.load()
        while len(durable.wall_s) < FAILOVERS:
            async with turning(number, store) as loop:
                await failovers(loop, durable, base)
        async with turning(number, store) as loop:
            await answers(loop, store, plain, base)
        await store.close()
    python = (base.wall("python"), base.wall("python"), base.cpu("python"))
    synced = (base.wall("sync"), base.wall("sync", 0.99), base.cpu("python"))
    return [
        *durable.rows(f"durable turn, {number:,} backends", "ms", synced),
        *plain.rows(f"other turn, {number:,} backends", "µs", python),
    ]


@asynccontextmanager
async def turning(number: int, store: Store) -> AsyncIterator[Loop]:
    """Run a loop over a new fleet in which everybody is up and every service is served."""
    clock, names = SystemClock(), [f"b{at}" for at in range(number)]
    config = FleetConfig(
        backends={
            name: Backend(
                name, "static", "openai", url=f"http://{name}", remote=False, health=POLICY
            )
            for name in names
        },
        services={
            f"s{at}": Service(f"s{at}", tuple(names[at : at + POOL]))
            for at in range(0, number, POOL)
        },
    )
    loop = Loop(resumed(config, Now(clock.steady(), clock.wall())), clock=clock, store=store)
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(loop.tick())]
    try:
        for name in names:
            await loop.committed(_seen(name, Verdict.OK, clock.steady()))
        await loop.committed(Tick(clock.boot()))
        assert loop.fleet.world.settled
        assert all(service.active for service in loop.fleet.services.values())
        yield loop
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _seen(name: str, verdict: Verdict, at: float) -> Observed:
    return Observed(Observation(name, Source.PROBE, verdict, verdict.value, 0.01, 200), at)


async def failovers(loop: Loop, took: Took, base: Beside) -> None:
    """Time failovers, in every service in turn, until only its last is up."""
    rounds = min(len(loop.fleet.backends), POOL) - 1
    for name in [name for _ in range(rounds) for name in loop.fleet.services]:
        old = loop.fleet.services[name].active
        assert old is not None
        event = _seen(old, Verdict.FAILED, loop.now().at)
        with took.one():
            turn = await loop.committed(event)
        assert turn.durable
        assert loop.fleet.services[name].active not in {None, old}
        if len(took.wall_s) % 99 == 0:
            base.more()


async def answers(loop: Loop, store: Store, took: Took, base: Beside) -> None:
    """Time the turns of good answers."""
    flushing = asyncio.create_task(_flush(store))
    names = list(loop.fleet.backends)
    for at in range(ANSWERS):
        event = _seen(names[at % len(names)], Verdict.OK, loop.now().at)
        with took.one():
            turn = await loop.committed(event)
        assert not turn.durable
        if at % 5000 == 4999:
            base.more()
    assert not flushing.done(), flushing
    flushing.cancel()
    await asyncio.wait([flushing])


async def _flush(store: Store) -> None:
    while True:
        await asyncio.sleep(FLUSH_S)
        await store.flush()
