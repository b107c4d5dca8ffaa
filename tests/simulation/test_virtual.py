"""The simulator itself: its clocks, its kills, its zone, and that the same seed is the same run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.events import Drain, Failover, PinTo
from orchestrator.core.records import Action, Change, Plan, Record, Verdict
from orchestrator.edge.clock import SeededRandom
from tests.simulation.faults import Faults
from tests.simulation.scripted import Act, Rig, short_run
from tests.simulation.trace import Trace
from tests.simulation.virtual import EPOCH, Deadlock, Time, VirtualLoop
from tests.simulation.zone import STALE_S, Ill, Zone

ROOT = Path(__file__).parents[2]


def ran(time: Time, work: Coroutine[Any, Any, Any]) -> Any:
    loop = VirtualLoop(time)
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def test_waiting_takes_the_time_that_it_says_and_the_agenda_is_kept_meanwhile():
    time, seen = Time(), []
    time.at(30.0, lambda: seen.append(time.true))
    time.at(90.0, lambda: seen.append(time.true))

    async def wait() -> float:
        await asyncio.sleep(60.0)
        return asyncio.get_running_loop().time()

    assert ran(time, wait()) == pytest.approx(60.0)
    assert seen == [30.0]
    assert time.true == pytest.approx(60.0)


def test_waiting_for_what_never_comes_is_a_deadlock():
    async def forever() -> None:
        await asyncio.Event().wait()

    work = forever()
    with pytest.raises(Deadlock, match="nobody is ready"):
        ran(Time(), work)


def test_a_thread_is_refused():
    async def thread() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="real time"):
        ran(Time(), thread())


def test_a_machine_that_sleeps_stops_its_monotonic_clock_and_not_its_boot_time():
    time, seen = Time(), []
    time.at(50.0, lambda: seen.append((time.true, time.monotonic(), time.boot())))
    time.advance(10.0)
    clock = time.clock()
    steady, boot = clock.steady(), clock.boot()
    time.suspend(90.0)
    assert (time.true, time.monotonic(), time.boot()) == (100.0, 10.0, 100.0)
    assert seen == [(50.0, 10.0, 50.0)]
    assert clock.steady() == steady
    assert clock.boot() == boot + 90.0
    assert clock.wall() == EPOCH + 100.0


def test_a_wall_clock_that_is_set_wrong_changes_nothing_else():
    time = Time()
    time.advance(10.0)
    clock = time.clock()
    before = clock.steady(), clock.boot()
    time.wall_error = -3600.0
    assert (clock.steady(), clock.boot()) == before
    assert clock.wall() == EPOCH + 10.0 - 3600.0


# ── kills ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "survives"), [("commit", False), ("committed", True)])
def test_a_kill_takes_the_database_as_it_is(kind, survives):
    """What was being committed is gone, what was committed stands; the operator asks once only."""
    found = []

    def order(rig: Rig) -> None:
        rig.order(Drain("lab"))
        rig.kill_in = kind

    def forget(rig: Rig) -> None:
        assert rig.assembly is None
        rig._orders.clear()

    def look(rig: Rig) -> None:
        assert rig.assembly is not None
        found.append(rig.assembly.loop.fleet.backends["lab"].drained)

    run = short_run(60.0, script=((40.0, order), (40.5, forget), (50.0, look)))
    assert (run.machine.lives, run.breaches) == (2, [])
    assert found == [survives]


def test_what_is_in_memory_only_is_gone_with_the_process():
    """The tallies of the last seconds: a stop in good order writes them, a kill does not."""
    looked = {}
    for how in (Rig.kill, Rig.stop):
        run = short_run(40.0, script=((35.0, how), (37.5, tallied(looked, how.__name__))))
        assert (run.machine.lives, run.breaches) == (2, [])
    assert looked["kill"] < looked["stop"]


def tallied(into: dict[str, int], name: str) -> Act:
    """Count the looks at backends that the database holds."""

    def act(rig: Rig) -> None:
        assert rig.store is not None
        into[name] = rig.store.raw.execute("select sum(ok) from tally").fetchone()[0]

    return act


def test_the_dead_do_nothing_more():
    """Once killed, nothing that was under way reaches the world."""
    asked = []

    def kill(rig: Rig) -> None:
        rig.outage_s = lambda: 20.0
        rig.time.after(0.1, lambda: asked.append(rig.world.asked))
        rig.time.after(19.0, lambda: asked.append(rig.world.asked))
        rig.kill()

    short_run(70.0, script=((40.0, kill),))
    assert asked[0] == asked[1]


# ── the world is not what is seen of it ─────────────────────────────────────────────────────────


def test_a_stale_read_shows_what_stood_there_before():
    time = Time()
    zone = Zone(time, SeededRandom(1), Trace(time))

    def write(content: str) -> None:
        record = Record("", "A", content)
        zone.change("aion", Plan(Verdict.CHANGE, "", (Change(Action.CREATE, after=record),)))

    def shown() -> list[str]:
        return [one.content for one in zone.seen() if one.type == "A"]

    time.advance(100.0)
    write("203.0.113.1")
    time.advance(100.0)
    write("203.0.113.2")
    assert shown() == ["203.0.113.1", "203.0.113.2"]
    zone.suffer(Ill.STALE)
    assert shown() == ["203.0.113.1"]
    assert [one.content for one in zone.standing()] == ["203.0.113.1", "203.0.113.2"]
    time.advance(STALE_S)
    assert shown() == ["203.0.113.1", "203.0.113.2"]


def test_a_service_moves_in_truth_while_stale_reads_show_the_old_record():
    """The reconciler neither writes twice nor takes its own old record for somebody else's."""
    seen = []

    def look(rig: Rig) -> None:
        seen.append(
            [sorted(one.content for one in each) for each in (rig.zone.standing(), lagging(rig))]
        )

    run = short_run(
        90.0,
        script=(
            (39.0, lambda rig: rig.zone.suffer(Ill.STALE)),
            (40.0, lambda rig: rig.order(Failover("chat", "lab"))),
            (42.0, look),
        ),
        last=("finished",),
    )
    assert run.breaches == []
    assert seen == [[["203.0.113.12"], ["203.0.113.10"]]]
    assert [write.by for write in run.machine.zone.writes] == ["aion", "aion"]


def lagging(rig: Rig) -> list[Record]:
    return [one for one in rig.zone.seen() if one.type == "A"]


# ── the same again ──────────────────────────────────────────────────────────────────────────────


def unlucky(seed: int) -> str:
    """Live through twenty minutes of bad luck; returns the digest."""

    def rage(rig: Rig) -> None:
        Faults(rig, rig.human, SeededRandom(seed + 1)).rage(1200.0)

    run = short_run(1260.0, script=((30.0, rage),), seed=seed)
    assert run.breaches == []
    return run.machine.trace.digest


def elsewhere(seed: int, hash_seed: str) -> str:
    """Do it in a process of its own."""
    code = f"from tests.simulation.test_virtual import unlucky; print(unlucky({seed}))"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_same_seed_is_the_same_run_and_another_is_another():
    digests = [unlucky(seed) for seed in (4, 4, 5)]
    assert digests[0] == digests[1] != digests[2]
    assert elsewhere(4, "1") == elsewhere(4, "2") == digests[0]


def test_a_script_is_the_same_run_each_time():
    script = ((40.0, lambda rig: rig.order(PinTo("chat", "lab", 60.0))), (70.0, Rig.kill))
    first, second = (short_run(120.0, script=script).machine.trace.digest for _ in range(2))
    assert first == second != short_run(120.0, script=script, seed=2).machine.trace.digest


def test_after_a_sleep_the_next_life_goes_on_from_where_this_one_was():
    """Once anything was written since: what happened then must not seem older by the sleep."""
    steady = []
    short_run(
        360.0,
        script=(
            (60.0, lambda rig: rig.suspend(90.0)),
            (320.0, lambda rig: rig.kill()),
            (350.0, lambda rig: steady.append(rig.steady())),
        ),
    )
    assert abs(steady[0] - (EPOCH + 350.0 - 90.0)) < 0.01
