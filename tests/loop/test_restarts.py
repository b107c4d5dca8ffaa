"""What is stored with a time in it means the same moment to the next process."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from orchestrator.core.events import Observed, PinTo, Tick
from orchestrator.core.fleet import resumed
from orchestrator.core.model import Now, Pin, Verdict
from orchestrator.edge.clock import CarriedClock
from orchestrator.edge.store import Store, inline
from orchestrator.loop import Loop
from tests.loop.kit import config, seen

HOUR = 3600.0


class Machine:
    """A machine that has been up for `up_s`, and whose wall clock is wrong by `wrong_s`."""

    def __init__(self) -> None:
        self.up_s, self.wrong_s = 500.0, 0.0

    def clock(self) -> CarriedClock:
        def up_s() -> float:
            return self.up_s

        return CarriedClock(up_s, lambda: 1_790_000_000.0 + self.up_s + self.wrong_s, up_s, "one")


@contextlib.asynccontextmanager
async def living(path, machine):
    """One life of a loop on the store at `path`, begun as the daemon begins."""
    store = Store(f"sqlite:///{path / 'aion.db'}", inline(), create=True)
    saved = await store.load()
    clock = machine.clock()
    store.anchor = clock.resume(saved.written_at, saved.anchor)
    fleet = resumed(
        config(),
        Now(clock.steady(), clock.wall()),
        world=saved.world,
        backends=saved.backends,
        services=saved.services,
        incidents=saved.incidents,
        outbox=saved.outbox,
    )
    loop = Loop(fleet, clock=clock, store=store)
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.wait([task])
        await store.close()


async def look(loop, machine):
    """Let the loop see everybody well, and the time."""
    for name in loop.fleet.backends:
        await loop.committed(Observed(seen(name)))
    await loop.committed(Tick(machine.up_s))
    return loop.fleet.services["chat"].pin


@pytest.mark.parametrize("wrong_s", [0.0, HOUR, -HOUR])
def test_a_pin_ends_when_it_was_to_end_though_the_wall_clock_was_wrong_at_a_restart(
    tmp_path, wrong_s
):
    async def go():
        machine = Machine()
        async with living(tmp_path, machine) as loop:
            await look(loop, machine)
            await loop.command(PinTo("chat", "b", for_s=4 * HOUR), None)
            ends_at = loop.now().at + 4 * HOUR
            machine.up_s += 10.0
            await loop.committed(Observed(seen("a", Verdict.FAILED)))  # the last thing stored
        machine.wrong_s = wrong_s
        for _ in range(2):  # the second life wrote; the third goes by that
            machine.up_s += 95.0
            async with living(tmp_path, machine) as loop:
                assert await look(loop, machine) == Pin("b", ends_at)
        machine.up_s += 4 * HOUR - 201.0
        async with living(tmp_path, machine) as loop:
            assert await look(loop, machine) == Pin("b", ends_at)
            assert loop.fleet.services["chat"].active == "b"
            machine.up_s += 2.0
            assert await look(loop, machine) is None

    asyncio.run(go())
