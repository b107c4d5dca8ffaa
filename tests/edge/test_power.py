"""Carrying out starts and stops: one at a time for each backend, and whatever happens is reported."""

import asyncio
import hashlib

import pytest

from orchestrator.core.events import Answer, Turn
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import (
    Ask,
    AskPower,
    PowerReport,
    Snag,
    StartBackend,
    StopBackend,
)
from orchestrator.edge.clock import SeededRandom
from orchestrator.edge.launching import Minter, NotMinted
from orchestrator.edge.power import Powers, powered
from orchestrator.errors import StoreFull
from tests.backends.worlds import HandClock

START, STOP, ASK = StartBackend("vm", "l1", 60.0), StopBackend("vm", "l1"), AskPower("vm")


class Provider:
    """Notes what it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def start(self, launch):
        return await self._answer(f"start {launch.label} {launch.max_run_s:g}")

    async def stop(self, launch):
        return await self._answer(f"stop {launch}")

    async def status(self):
        return await self._answer("status")

    async def _answer(self, what):
        self.asked.append(what)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        return PowerReport(PowerPhase.ON, "l1")


class Bench:
    def __init__(self, **more) -> None:
        self.clock = HandClock()
        self.told = []
        self.provider = Provider()
        self.powers = Powers(clock=self.clock, report=self.told.append, **more)
        self.powers.add("vm", self.provider)

    async def done(self, number):
        async with asyncio.timeout(25):
            while len(self.told) < number:  # noqa: ASYNC110 - the parts under test set no event
                await asyncio.sleep(0.001)

    @property
    def snags(self):
        return [(one.ask, one.report.snag) for one in self.told]


def test_each_effect_is_carried_out_and_its_answer_reported():
    async def story():
        bench = Bench()
        for number, wish in enumerate((START, ASK, STOP), 1):
            bench.clock.now += 1
            bench.powers.carry(wish)
            await bench.done(number)
        assert bench.provider.asked == ["start l1 60", "status", "stop l1"]
        assert [(one.ask, one.launch) for one in bench.told] == [
            (Ask.START, "l1"),
            (Ask.STATUS, ""),
            (Ask.STOP, "l1"),
        ]
        assert [one.began_at - HandClock().now for one in bench.told] == [1, 2, 3]
        assert {one.report.phase for one in bench.told} == {PowerPhase.ON}

    asyncio.run(story())


def test_of_one_backend_only_one_thing_is_under_way_and_a_stop_waits_for_the_start():
    async def story():
        bench = Bench()
        bench.provider.go.clear()
        for wish in (START, STOP, STOP, ASK):
            bench.powers.carry(wish)
        await asyncio.sleep(0)
        assert bench.provider.asked == ["start l1 60"]
        bench.provider.go.set()
        await bench.done(2)
        assert bench.provider.asked == ["start l1 60", "stop l1"]
        assert bench.provider.most_at_once == 1

    asyncio.run(story())


def test_a_provider_that_hangs_keeps_no_other_waiting():
    async def story():
        bench, other = Bench(), Provider()
        bench.powers.add("other", other)
        bench.provider.go.clear()
        bench.powers.carry(START)
        bench.powers.carry(AskPower("other"))
        await bench.done(1)
        assert bench.told[0].backend == "other"
        await bench.powers.close()

    asyncio.run(story())


def test_an_answer_that_does_not_come_is_lost_and_said_to_be():
    async def story():
        bench = Bench(limits_s=dict.fromkeys(Ask, 0.05))
        bench.provider.go.clear()
        for number, wish in enumerate((START, STOP, ASK), 1):
            bench.powers.carry(wish)
            await bench.done(number)
        assert bench.snags == [
            (Ask.START, Snag.LOST),
            (Ask.STOP, Snag.LOST),
            (Ask.STATUS, Snag.LOST),
        ]
        assert bench.provider.at_once == 0

    asyncio.run(story())


def test_a_drivers_bug_is_a_lost_answer_and_the_next_is_carried_out():
    async def story():
        bench = Bench()
        bench.provider.error = RuntimeError("token=s3cret")
        bench.powers.carry(START)
        await bench.done(1)
        assert bench.snags == [(Ask.START, Snag.LOST)]
        assert "s3cret" not in repr(bench.told)
        bench.provider.error = None
        bench.powers.carry(ASK)
        await bench.done(2)
        assert bench.snags[1] == (Ask.STATUS, Snag.NONE)

    asyncio.run(story())


def test_what_is_no_longer_configured_is_still_stopped_and_not_asked_again():
    async def story():
        bench = Bench()
        bench.powers.carry(STOP)
        bench.powers.remove("vm")
        await bench.done(1)
        bench.powers.carry(ASK)
        await asyncio.sleep(0.01)
        assert bench.provider.asked == ["stop l1"]

    asyncio.run(story())


def test_when_the_daemon_ends_nothing_is_said_of_what_was_under_way():
    async def story():
        bench = Bench()
        bench.provider.go.clear()
        bench.powers.carry(START)
        await asyncio.sleep(0.01)
        await bench.powers.close()
        assert bench.told == []
        assert bench.provider.at_once == 0

    asyncio.run(story())


@pytest.mark.parametrize(("thing", "can"), [(Provider, True), (object, False), (dict, False)])
def test_what_can_be_started_is_known_by_its_verbs(thing, can):
    async def story():
        assert (powered(thing()) is not None) is can

    asyncio.run(story())


# ── launches that carry a token ─────────────────────────────────────────────────────────────────


class Carrying(Provider):
    """A provider whose launches carry a token."""

    carries_token = True

    async def start(self, launch):
        return await self._answer(f"start {launch.label} {launch.token}")


def test_a_launch_gets_its_token_before_its_provider_is_asked_and_nothing_else_does():
    minted = []

    async def mint(backend, launch):
        minted.append((backend, launch))
        return "t0ken"

    async def story():
        bench = Bench(mint=mint)
        bench.powers.add("vm", carrying := Carrying())
        for wish in (START, ASK, STOP):
            bench.powers.carry(wish)
            await bench.done(len(bench.told) + 1)
        assert carrying.asked == ["start l1 t0ken", "status", "stop l1"]
        assert minted == [("vm", "l1")]
        bench.powers.add("vm", bench.provider)
        bench.powers.carry(START)
        await bench.done(4)
        assert minted == [("vm", "l1")]

    asyncio.run(story())


def test_what_gets_no_token_is_not_started_and_that_is_said():
    async def mint(_backend, _launch):
        raise StoreFull("the disk is full")

    async def story():
        bench = Bench(mint=mint)
        bench.powers.add("vm", carrying := Carrying())
        bench.powers.carry(START)
        await bench.done(1)
        assert carrying.asked == []
        [told] = bench.told
        assert (told.ask, told.launch) == (Ask.START, "l1")
        assert told.report.snag is Snag.TRANSIENT
        assert "disk is full" in told.report.detail

    asyncio.run(story())


def test_only_the_hash_of_a_launch_s_token_is_handed_in_and_a_refusal_is_one():
    events = []

    async def committed(event):
        events.append(event)
        return Turn(answer=None if len(events) == 1 else Answer("it is over", "conflict"))

    async def story():
        mint = Minter(committed, SeededRandom(1))
        token = await mint("vm", "l1")
        assert len(bytes.fromhex(token)) == 32
        [event] = events
        assert event.secret == hashlib.sha256(token.encode()).hexdigest()
        assert event.id == event.secret[:12]
        assert token not in repr(event)
        assert (event.backend, event.launch) == ("vm", "l1")
        with pytest.raises(NotMinted, match="it is over"):
            await mint("vm", "l1")

    asyncio.run(story())
