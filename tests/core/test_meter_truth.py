"""I6: spent + reserved ≤ limit, by the provider's truth, whatever crashes and whoever is wrong.

A provider keeps its own naive books, second by second, in the calendar of its place. Ours are
played against it: blocks, crashes at any moment, restarts after any time, wall clocks that are an
hour wrong for a while, and figures that lag, jump back and disagree.
"""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.core import ledger
from orchestrator.core.meters import (
    MeterSpec,
    MeterState,
    Unit,
    exhausted_until,
    reserved,
    usable,
    used,
)
from orchestrator.core.windows import Per, Window

HOUR, TICK = 3600.0, 30.0
PLACE = "Europe/Berlin"
SPECS = {
    "hours a day": MeterSpec("k", Unit.HOURS, 3.0, Window(Per.DAY, PLACE), "b", rate_per_hour=1.0),
    "hours a rolling day": MeterSpec(
        "k", Unit.HOURS, 3.0, Window(Per.DAY, rolling=True), "b", rate_per_hour=1.0
    ),
    "hours a week": MeterSpec(
        "k", Unit.HOURS, 8.0, Window(Per.WEEK, PLACE, weekday=6), "b", rate_per_hour=1.0
    ),
    "dollars": MeterSpec("k", Unit.USD, 7.0, backend="b", rate_per_hour=0.7),
    "requests a day": MeterSpec("k", Unit.REQUESTS, 200.0, Window(Per.DAY, PLACE), "b"),
}
STARTS = [
    datetime.fromisoformat(text).timestamp()
    for text in ("2026-10-24T20:00+02:00", "2027-03-27T20:00+01:00", "2026-11-21T15:00+01:00")
]


class Provider:
    """The truth: what was used when, and what is on. It stops what is over its time by itself."""

    def __init__(self, spec: MeterSpec) -> None:
        self.spec = spec
        self.uses: list[tuple[float, float]] = []
        self.on_until: float | None = None

    def use(self, t: float, amount: float) -> None:
        self.uses.append((t, amount))

    def figure(self, t: float) -> float:
        return sum(amount for when, amount in self.uses if when <= t and self._same(when, t))

    def _same(self, when: float, t: float) -> bool:
        window = self.spec.window
        if window.per is Per.EVER:
            return True
        if window.rolling:
            return when > t - 24 * HOUR
        one = datetime.fromtimestamp(when, ZoneInfo(PLACE)).date()
        two = datetime.fromtimestamp(t, ZoneInfo(PLACE)).date()
        if window.per is Per.DAY:
            return one == two
        return (one.toordinal()) // 7 == two.toordinal() // 7  # ordinal 7 was a Sunday


@dataclass
class Rules:
    """What can be tampered with."""

    forfeit: Callable[..., MeterState] = ledger.forfeit
    told: Callable[..., MeterState] = ledger.told
    ran: Callable[..., MeterState] = ledger.ran
    store_all: bool = True
    ask_first: bool = True


class Play:
    """One meter, its provider, and a daemon that lives and dies."""

    def __init__(self, spec: MeterSpec, start: float, rules: Rules | None = None) -> None:
        self.spec, self.t, self.rules = spec, start, rules or Rules()
        self.provider = Provider(spec)
        self.state = self.stored = ledger.timed(MeterState("k"), start, start)
        self.on_since: float | None = None
        self.pending = 0.0
        self.skew = 0.0
        self.skewed_until = 0.0
        self.alive = True
        self.wanted = True
        self.glitch: Callable[[float], float] | None = None
        self.glitch_until = 0.0
        self.crash_in: float | None = None
        self.leave_at: float | None = None

    @property
    def wall(self) -> float:
        return ledger.believed(self.state, self.t, self.t + self.skew)

    @property
    def timed(self) -> bool:
        return self.spec.rate_per_hour is not None

    def advance(self, seconds: float) -> None:
        end = self.t + seconds
        while self.t < end:
            self._world_goes_on(TICK)
            if self.alive:
                self.tick()

    def _world_goes_on(self, seconds: float) -> None:
        self.t += seconds
        if self.skew and self.t >= self.skewed_until:
            self.skew = 0.0
        if self.provider.on_until is not None:
            self.provider.use(self.t - 1, (self.spec.rate_per_hour or 0) * seconds / HOUR)
            if self.t >= self.provider.on_until:
                self.provider.on_until = None

    def tick(self) -> None:
        if self.timed and self.provider.on_until is None:
            self.on_since = None
        self.state = ledger.timed(self.state, self.t, self.t + self.skew)
        if self.pending:
            self.state = ledger.count(self.state, self.spec, self.pending, self.t, self.wall)
            self.pending = 0.0
        self.state = self.rules.ran(self.state, self.spec, self.on_since, self.t, self.wall)
        if not self._commit():
            return
        out = exhausted_until(self.state, self.spec, self.wall) is not None
        if self.timed:
            self._switch(out)

    def _commit(self) -> bool:
        """Store what must survive; False if the daemon died at that."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash()
                return False
        if self.rules.store_all and ledger.worth_storing(self.stored, self.state):
            self.stored = self.state
        return True

    def _switch(self, out: bool) -> None:
        if self.on_since is None:
            self.leave_at = None
            room = usable(self.state, self.spec, self.wall) or 0.0
            if self.wanted and not out:
                self.on_since = self.t
                run_s = room / (self.spec.rate_per_hour or 1.0) * HOUR
                self.provider.on_until = self.t + run_s  # the limit is also set there
        elif out or not self.wanted:
            self.leave_at = self.t + 4 * TICK if self.leave_at is None else self.leave_at
            if self.t >= self.leave_at:
                self.provider.on_until = self.on_since = self.leave_at = None

    def request(self, times: int) -> None:
        """Send requests, none beyond what is reserved."""
        for _ in range(times):
            may = self.pending + 1 <= reserved(self.state) or not self.rules.ask_first
            if self.alive and not self.timed and may:
                self.provider.use(self.t, 1.0)
                self.pending += 1

    def crash(self) -> None:
        self.alive, self.crash_in, self.pending = False, None, 0.0

    def restart(self) -> None:
        self.alive, self.leave_at = True, None
        at = self.t
        self.state = ledger.timed(self.stored, at, at + self.skew)
        self.state = self.rules.forfeit(
            self.state, self.spec, self.wall, at=at, on_since=self.on_since
        )
        self.stored = self.state

    def jump(self, seconds: float, lasts: float) -> None:
        if self.alive and not self.skew:  # noticed while it runs
            self.skew, self.skewed_until = seconds, self.t + lasts

    def say(self, lag: float, share: float) -> None:
        """Have the provider say its figure: late, and less than it is for a while."""
        if not self.alive:
            return
        figure = self.provider.figure(self.t - lag) * share
        self.state = self.rules.told(self.state, self.spec, figure, self.t, self.wall)
        self._commit()

    def check(self) -> None:
        limit = self.spec.limit
        assert limit is not None
        truth = self.provider.figure(self.t)
        assert truth <= limit + 1e-6, f"{truth} of {limit} was spent"
        if self.alive and not self.skew and self.state.strange is None:
            slack = (self.spec.rate_per_hour or 0.0) * TICK / HOUR + 1e-6 + self.pending
            assert used(self.state, self.wall) >= truth - slack, "the books show too little"


class MeterMachine(RuleBasedStateMachine):
    """Any order of anything."""

    @initialize(spec=st.sampled_from(sorted(SPECS)), start=st.sampled_from(STARTS))
    def begin(self, spec: str, start: float) -> None:
        self.play = Play(SPECS[spec], start)
        self.silent_until = 0.0

    @rule(minutes=st.integers(1, 240))
    def time_passes(self, minutes: int) -> None:
        self.play.advance(minutes * 60)

    @rule(times=st.integers(1, 9), rounds=st.integers(1, 40))
    def requests(self, times: int, rounds: int) -> None:
        for _ in range(rounds):
            self.play.request(times)
            self.play.advance(TICK)

    @rule(wanted=st.booleans())
    def want(self, wanted: bool) -> None:
        self.play.wanted = wanted

    @rule(commits=st.integers(1, 40))
    def crash_soon(self, commits: int) -> None:
        self.play.crash_in = commits

    @rule()
    def restart(self) -> None:
        if not self.play.alive:
            self.play.restart()

    @rule(forward=st.booleans(), minutes=st.integers(1, 55))
    def clock_is_wrong(self, forward: bool, minutes: int) -> None:
        self.play.jump(HOUR if forward else -HOUR, minutes * 60)

    @rule(lag=st.integers(0, 40))
    def provider_speaks(self, lag: int) -> None:
        self.play.say(lag * 60.0, 1.0)

    @rule(share=st.floats(0, 0.99), minutes=st.integers(1, 50))
    def provider_jumps_back_for_a_while(self, share: float, minutes: int) -> None:
        self.play.say(0.0, share)
        self.play.advance(minutes * 60.0)
        self.play.say(0.0, 1.0)

    @rule(share=st.floats(1.0, 1.2))
    def provider_disagrees(self, share: float) -> None:
        self.play.say(0.0, share)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        if hasattr(self, "play"):
            self.play.check()


TestMeters = MeterMachine.TestCase
TestMeters.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ── it can fail ─────────────────────────────────────────────────────────────────────────────────


def _forgotten(
    state: MeterState, spec: MeterSpec, wall: float, *, at: float, on_since: float | None = None
) -> MeterState:
    return replace(state, block=None, paid_until=at)


def _gullible(
    state: MeterState, spec: MeterSpec, figure: float, at: float, wall: float
) -> MeterState:
    return ledger.told(replace(state, slots=(), low=None), spec, figure, at, wall)


def _unreserved(
    state: MeterState, spec: MeterSpec, on_since: float | None, at: float, wall: float
) -> MeterState:
    return ledger.ran(replace(state, out=False), replace(spec, limit=1e9), on_since, at, wall)


SABOTAGES = {
    "a crash forgets its block": ("hours a day", Rules(forfeit=_forgotten)),
    "a crash forgets its requests": ("requests a day", Rules(forfeit=_forgotten)),
    "lower figures are believed at once": ("hours a week", Rules(told=_gullible)),
    "nothing is ever stored": ("dollars", Rules(store_all=False)),
    "requests are sent beyond what is reserved": ("requests a day", Rules(ask_first=False)),
    "blocks are reserved beyond the limit": ("requests a day", Rules(ran=_unreserved)),
}


def _go(play: Play, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(120):
        act = dice.randrange(6)
        if act == 0:
            play.advance(dice.randint(1, 120) * 60)
        elif act == 1:
            for _ in range(10):
                play.request(dice.randint(1, 9))
                play.advance(TICK)
        elif act == 2 and play.alive:
            play.crash_in = dice.randint(1, 20)
        elif act == 3 and not play.alive:
            play.restart()
        elif act == 4:
            play.say(0.0, dice.choice((0.0, 0.5, 1.0)))
            play.advance(30 * 60)
            play.say(0.0, 1.0)
        else:
            play.advance(TICK)
        play.check()


@pytest.mark.parametrize("name", SABOTAGES)
def test_what_is_broken_is_noticed(name):
    spec, rules = SABOTAGES[name]
    for seed in range(40):
        try:
            _go(Play(SPECS[spec], STARTS[2], rules), seed)
        except AssertionError:
            return
    pytest.fail("nobody noticed")


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_dice_find_nothing_wrong_when_nothing_is_broken(spec):
    for seed in range(8):
        _go(Play(SPECS[spec], STARTS[seed % 3]), seed)
