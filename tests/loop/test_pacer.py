"""When backends are looked at: on time, one look at a time, whatever a driver does."""

from __future__ import annotations

import asyncio
import contextlib
import random  # noqa: TID251 - seeded

import pytest

from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.edge import pacer as pacing
from orchestrator.edge.pacer import Pacer
from tests.loop.kit import Clock, in_virtual_time


class Driver:
    """Takes `takes_s` for a look, then answers or raises; None: never comes back."""

    def __init__(self, name, *, takes_s=0.0, raises=None):
        self.name, self.takes_s, self.raises = name, takes_s, raises
        self.looks = []  # (start, end or None)
        self.canaries = []
        self.at_once = self.most_at_once = 0

    async def probe(self):
        now = asyncio.get_running_loop().time
        began = now()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(3600 if self.takes_s is None else self.takes_s)
        finally:
            self.at_once -= 1
            self.looks.append((began, now()))
        if self.raises:
            raise self.raises
        return Observation(self.name, Source.PROBE, Verdict.OK)

    async def canary(self):
        self.canaries.append(asyncio.get_running_loop().time())
        return Observation(self.name, Source.CANARY, Verdict.OK)


class Desk:
    """Takes the observations; digests them at once unless told to wait."""

    def __init__(self):
        self.seen = []
        self.held = None

    def __call__(self, event, done):
        self.seen.append(event.observation)
        if self.held is None:
            done()
        else:
            self.held.append(done)

    def of(self, name):
        return [one for one in self.seen if one.backend == name]


@contextlib.asynccontextmanager
async def pacing_with(*drivers, interval_s=10.0, limit_s=2.0):
    desk = Desk()
    every = interval_s if callable(interval_s) else lambda *_: interval_s
    made = Pacer(
        interval_s=every,
        limit_s=lambda *_: limit_s,
        report=desk,
        clock=Clock(),
        random=random.Random(7),
    )
    for driver in drivers:
        made.add(driver.name, driver)
    task = asyncio.create_task(made.run())
    try:
        yield made, desk
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)


def test_intervals_run_from_end_to_start_with_a_tenth_of_jitter():
    async def go():
        one = Driver("a", takes_s=3.0)
        async with pacing_with(one):
            await asyncio.sleep(13.0 * 300)
        gaps = [
            after[0] - before[1] for before, after in zip(one.looks, one.looks[1:], strict=False)
        ]
        assert 290 < len(gaps) < 310
        assert min(gaps) >= 9.0
        assert max(gaps) <= 11.0
        assert min(gaps) < 9.1
        assert max(gaps) > 10.9
        assert 9.9 < sum(gaps) / len(gaps) < 10.1

    in_virtual_time(go())


def test_backends_that_begin_together_do_not_stay_in_step():
    async def go():
        drivers = [Driver(str(number)) for number in range(50)]
        async with pacing_with(*drivers):
            await asyncio.sleep(200)
        # a few share a point of the grid that due times fall on
        assert len({round(driver.looks[-1][0], 3) for driver in drivers}) > 25

    in_virtual_time(go())


def test_asked_for_while_looking_it_looks_exactly_once_more():
    async def go():
        one = Driver("a", takes_s=1.0)
        async with pacing_with(one) as (pacer, _):
            await asyncio.sleep(0.5)
            for _ in range(5):
                pacer.soon("a")
            await asyncio.sleep(5)
        assert [began for began, _ in one.looks] == [0.0, 1.0]

    in_virtual_time(go())


def test_asked_for_while_idle_it_looks_at_once_and_then_at_its_own_pace():
    async def go():
        one = Driver("a")
        async with pacing_with(one) as (pacer, _):
            await asyncio.sleep(4)
            pacer.soon("a")
            pacer.soon("a")
            pacer.soon("nobody")
            await asyncio.sleep(8)
            assert [began for began, _ in one.looks] == [0.0, 4.0]
            await asyncio.sleep(4)
            assert len(one.looks) == 3

    in_virtual_time(go())


def test_the_next_look_waits_until_this_one_was_taken_into_account():
    async def go():
        one = Driver("a")
        async with pacing_with(one) as (_, desk):
            desk.held = []
            await asyncio.sleep(100)
            assert len(one.looks) == 1
            desk.held.pop()()
            await asyncio.sleep(11)
            assert len(one.looks) == 2

    in_virtual_time(go())


def test_what_a_removed_one_finds_is_dropped_and_it_is_looked_at_no_more():
    async def go():
        one, other = Driver("a", takes_s=1.0), Driver("b")
        async with pacing_with(one, other) as (pacer, desk):
            await asyncio.sleep(0.5)
            pacer.soon("a")
            pacer.remove("a")
            await asyncio.sleep(50)
            assert (desk.of("a"), len(one.looks)) == ([], 1)
            assert len(desk.of("b")) >= 5
            pacer.add("a", one)
            await asyncio.sleep(1.5)
            assert (len(desk.of("a")), len(one.looks)) == (1, 2), (
                "once: what was asked is forgotten"
            )

    in_virtual_time(go())


def test_removed_and_added_while_a_result_waits_there_is_one_look_at_a_time():
    async def go():
        one = Driver("a", takes_s=1.0)
        async with pacing_with(one) as (pacer, desk):
            desk.held = []
            await asyncio.sleep(1.5)
            (late,), desk.held = desk.held, None
            pacer.remove("a")
            pacer.add("a", one)
            await asyncio.sleep(0.5)
            late()
            pacer.soon("a")
            await asyncio.sleep(60)
        assert one.most_at_once == 1

    in_virtual_time(go())


def test_a_replaced_driver_ends_its_look_and_the_new_one_goes_on():
    async def go():
        old, new = Driver("a", takes_s=1.0), Driver("a")
        async with pacing_with(old) as (pacer, desk):
            await asyncio.sleep(0.5)
            pacer.add("a", new)
            await asyncio.sleep(1)
            assert (len(old.looks), len(new.looks), len(desk.seen)) == (1, 1, 2)
            assert new.looks[0][0] == 1.0

    in_virtual_time(go())


def test_a_stuck_driver_costs_its_backend_and_nobody_else():
    async def go():
        stuck, well = Driver("stuck", takes_s=None), Driver("well")
        async with pacing_with(stuck, well, limit_s=2.0) as (_, desk):
            await asyncio.sleep(7.9)
            assert desk.of("stuck") == []
            await asyncio.sleep(40)
        assert {one.verdict for one in desk.of("stuck")} == {Verdict.FAILED}
        assert len(desk.of("stuck")) == 3
        assert len(desk.of("well")) >= 4

    in_virtual_time(go())


@pytest.mark.parametrize("error", [RuntimeError("secret-in-a-bug"), KeyError("x"), ValueError()])
def test_a_driver_that_raises_costs_its_backend_and_nobody_else(error):
    async def go():
        bad, well = Driver("bad", raises=error), Driver("well")
        async with pacing_with(bad, well) as (_, desk):
            await asyncio.sleep(35)
        assert {one.verdict for one in desk.of("bad")} == {Verdict.FAILED}
        assert "secret-in-a-bug" not in desk.of("bad")[0].detail
        assert len(desk.of("bad")) >= 3
        assert len(desk.of("well")) >= 3

    in_virtual_time(go())


def test_where_there_is_no_interval_it_looks_only_when_asked():
    async def go():
        one = Driver("a")
        async with pacing_with(one, interval_s=lambda *_: None) as (pacer, _):
            await asyncio.sleep(1000)
            assert len(one.looks) == 1
            pacer.soon("a")
            await asyncio.sleep(1)
            assert len(one.looks) == 2

    in_virtual_time(go())


def test_a_canary_that_traffic_made_needless_is_put_off_and_one_asked_for_is_not():
    async def go():
        one = Driver("a")
        done_at = [0.0]

        def every(_name, source):
            now = asyncio.get_running_loop().time()
            return 10.0 if source is Source.PROBE else max(0.0, done_at[0] + 300.0 - now)

        async with pacing_with(one, interval_s=every) as (pacer, _):
            pacer.soon("a", Source.CANARY)
            await asyncio.sleep(250)
            assert len(one.canaries) == 1
            done_at[0] = 250.0  # a real completion came back
            await asyncio.sleep(200)
            assert len(one.canaries) == 1
            await asyncio.sleep(140)
            count = len(one.canaries)
            assert 2 <= count <= 5, "one that decides nothing is not repeated at once"
            done_at[0] = asyncio.get_running_loop().time()
            pacer.soon("a", Source.CANARY)
            await asyncio.sleep(0.1)
            assert len(one.canaries) == count + 1

    in_virtual_time(go())


def test_with_too_many_under_way_the_others_wait_their_turn_and_all_get_it():
    async def go():
        drivers = [Driver(str(number), takes_s=4.0) for number in range(pacing.IN_FLIGHT + 500)]
        async with pacing_with(*drivers, limit_s=60.0) as (pacer, desk):
            await asyncio.sleep(1)
            under_way = sum(driver.at_once for driver in drivers)
            assert under_way == pacing.IN_FLIGHT
            pacer.remove("0")
            await asyncio.sleep(1)
            assert sum(driver.at_once for driver in drivers) == pacing.IN_FLIGHT
            await asyncio.sleep(60)
        assert {one.backend for one in desk.seen} == {driver.name for driver in drivers[1:]}
        assert all(len(driver.looks) >= 2 for driver in drivers[1:])

    in_virtual_time(go())


def test_of_a_thousand_backends_none_is_looked_at_a_second_late():
    async def go() -> bool:
        drivers = [Driver(str(number), takes_s=0.01) for number in range(1000)]
        latest = 0.0
        async with pacing_with(*drivers, interval_s=1.0) as (pacer, _):
            for _ in range(300):
                await asyncio.sleep(0.01)
                latest = max(latest, pacer.late_s)
        return latest < 1.0 and all(len(driver.looks) >= 2 for driver in drivers)

    assert any(asyncio.run(go()) for _ in range(5))  # a busy machine is slow at times


def test_a_canary_that_made_no_sense_when_its_turn_came_is_not_forgotten():
    """One that is degraded and denies us for a while comes up again by a canary alone."""

    async def go():
        one, sense = Driver("a"), True

        def every(_name, source):
            if source is Source.PROBE:
                return 10.0
            now = asyncio.get_running_loop().time()
            return max(0.0, one.canaries[-1] + 30.0 - now) if sense else None

        async with pacing_with(one, interval_s=every) as (pacer, _):
            pacer.soon("a", Source.CANARY)
            sense = False
            await asyncio.sleep(100)
            assert len(one.canaries) == 1
            sense = True
            await asyncio.sleep(100)
            assert 3 <= len(one.canaries) <= 5

    in_virtual_time(go())


def test_a_driver_without_canaries_is_asked_for_one_once():
    async def go():
        one = Driver("a")

        async def none():
            one.canaries.append(0.0)

        one.canary = none
        async with pacing_with(one, interval_s=lambda _, s: 10.0 * (s is Source.PROBE)):
            await asyncio.sleep(100)
        assert len(one.canaries) == 1

    in_virtual_time(go())
