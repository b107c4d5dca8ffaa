"""Budgets over all services: set aside before a start, one start at a time, never above the limit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.boots import boot_s, starting
from orchestrator.core.events import Pause, Resume
from orchestrator.core.ledger import first_block, ran
from orchestrator.core.meters import (
    MeterSpec,
    MeterState,
    ProviderSaid,
    Unit,
    block_of,
    reserved,
    usable,
    used,
)
from orchestrator.core.model import Fleet, Verdict
from orchestrator.core.powering import Halt, Start, StartBackend
from orchestrator.core.specs import Service, Tier
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import World, backend, config

RATE = 2.0  # dollars an hour, so a block is 0.50
VMS = ("v", "w", "x")


def dollars(name, limit, rate=RATE):
    key = f"{name}:usd"
    return key, MeterSpec(key, Unit.USD, limit, backend=name, rate_per_hour=rate)


def two_services(limits=None, **tiers):
    """`chat` may use v and w, `code` w and x; `a` and `b` are their free ones."""
    limits = limits or {}
    members = [backend("a"), backend("b")]
    members += [vm(name, tier=tiers.get(name, Tier.CREDIT)) for name in VMS]
    fleet = config(*members, meters=dict(dollars(name, limits.get(name)) for name in VMS))
    services = {
        "chat": Service("chat", ("a", "v", "w")),
        "code": Service("code", ("b", "w", "x")),
    }
    return replace(fleet, services=services)


def started(cloud):
    return [name for _, name, _ in cloud.starts]


def told(world, action):
    return [entry.text for entry in world.entries if entry.action == action]


# ── one at a time ───────────────────────────────────────────────────────────────────────────────


def test_one_at_a_time_over_all_services_and_the_cheapest_first():
    world = World(two_services(v=Tier.PAID, w=Tier.PAID))
    cloud = Cloud(world)
    cloud.lives(10, down="ab")
    assert started(cloud) == ["x"], "credit before money, whichever service is named first"
    cloud.lives(30, down="ab")
    assert started(cloud) == ["x"], "it boots"
    cloud.lives(30, down="ab")
    assert started(cloud) == ["x", "v"]


def test_one_that_both_need_is_started_once():
    world = World(two_services(v=Tier.PAID, x=Tier.PAID))
    cloud = Cloud(world)
    cloud.lives(120, down="ab")
    assert started(cloud) == ["w"]
    assert [world.fleet.services[name].active for name in ("chat", "code")] == ["w", "w"]


def test_a_start_that_takes_too_long_holds_up_no_service_that_it_would_not_help():
    world = World(two_services(x=Tier.PAID, w=Tier.PAID))
    cloud = Cloud(world, fates=["never"])
    cloud.lives(290, down="ab")
    assert started(cloud) == ["v"]
    cloud.lives(30, down="ab")
    assert started(cloud) == ["v", "w"], (
        "five minutes is what a start takes as long as none is known"
    )


# ── set aside before ────────────────────────────────────────────────────────────────────────────


def test_the_first_block_is_set_aside_in_the_turn_of_the_start():
    world = World(two_services({"v": 5.0}))
    cloud = Cloud(world)
    cloud.lives(5, up="b", down="a")
    turn = next(t for t in world.turns for e in t.effects if isinstance(e, StartBackend))
    assert reserved(turn.meters["v:usd"]) == pytest.approx(0.5)
    assert turn.durable


def test_where_the_first_block_does_not_fit_nothing_is_started_and_the_next_has_its_turn():
    world = World(two_services({"v": 5.0}))
    cloud = Cloud(world)
    world.give(ProviderSaid("v:usd", 4.6))  # twelve minutes are left: not spent, and no start
    cloud.lives(5, up="b", down="a")
    assert world.fleet.backends["v"].exhausted_until is None
    assert started(cloud) == ["w"]
    turn = world.give(Start("v"))
    assert turn.answer is not None
    assert "too little is left of v:usd" in turn.answer.text
    assert started(cloud) == ["w"]


def test_what_the_last_run_cost_until_now_is_paid_before_the_next_is_set_aside():
    at = 1_000_000.0
    _, spec = dollars("v", 5.0)
    on = ran(MeterState(spec.key), spec, at, at, at)
    again = first_block(on, spec, at + 360.0, at + 360.0)
    assert used(again, at + 360.0) == pytest.approx(RATE / 10)
    assert reserved(again) == pytest.approx(0.5)


def test_of_a_budget_smaller_than_four_blocks_a_quarter_is_enough_for_a_start():
    world = World(two_services({"v": 0.3}))
    cloud = Cloud(world)
    cloud.lives(5, up="b", down="a")
    assert started(cloud) == ["v"]
    turn = next(t for t in world.turns for e in t.effects if isinstance(e, StartBackend))
    assert reserved(turn.meters["v:usd"]) == pytest.approx(0.3 / 4)


def test_its_provider_is_told_to_end_it_when_all_that_is_left_is_spent_and_not_later():
    world = World(two_services({"v": 5.0}))
    cloud = Cloud(world)
    world.give(ProviderSaid("v:usd", 3.0))
    cloud.lives(5, up="b", down="a")
    start = next(one for one in world.effects if isinstance(one, StartBackend))
    assert start.max_run_s == pytest.approx(3600.0)


# ── any sequence of mishaps ─────────────────────────────────────────────────────────────────────


class Paying(Cloud):
    """A provider that keeps books of its own, and ends by itself what it was told to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.books = dict.fromkeys(VMS, 0.0)
        self.ends = {}

    def _start(self, effect) -> None:
        before = self.machines[effect.backend].launch
        super()._start(effect)
        if self.machines[effect.backend].launch != before and effect.max_run_s is not None:
            self.ends[effect.backend] = self.world.at + effect.max_run_s

    def second(self) -> None:
        for name, one in self.machines.items():
            if one.launch:
                self.books[name] += RATE / 3600.0
                if self.world.at >= self.ends.get(name, float("inf")):
                    one.launch = ""


class Walk:
    """Two services, three machines with budgets, and a daemon that dies with what it had stored."""

    def __init__(self, limits) -> None:
        self.limits = limits
        self.well = set("ab")
        fleet = two_services(limits, w=Tier.PAID)
        self.world = World(fleet)
        self.world.checks.append(self.check)
        self.cloud = Paying(self.world)
        self.stored: Fleet = self.world.fleet
        self.meters = {}

    def check(self, world, turn) -> None:
        if turn.durable:
            self.meters = dict(world.fleet.meters)
        for key, spec in world.fleet.config.meters.items():
            state = world.fleet.meters.get(key, MeterState(key))
            all_of_it = used(state, world.at) + reserved(state)
            assert all_of_it <= spec.limit + 0.02, f"{key}: {all_of_it:.3f} of {spec.limit}"
        starts = [one for one in turn.effects if isinstance(one, StartBackend)]
        for start in starts:
            key = f"{start.backend}:usd"
            spec, state = world.fleet.config.meters[key], turn.meters[key]
            assert turn.durable
            assert reserved(state) == pytest.approx(min(block_of(spec), spec.limit / 4))
            assert start.max_run_s * RATE / 3600 <= usable(state, spec, world.at) + 1e-6
            if power(world, start.backend).why != "the operator said so":
                self.alone(world, start.backend)
        assert len(starts) <= 1

    def alone(self, world, name) -> None:
        for other in VMS:
            state = world.fleet.backends[other]
            if other != name and starting(state):
                assert world.at - state.power.launched_at >= boot_s(state), f"{name} beside {other}"

    def pass_(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.tick()
            self.cloud.serve()
            self.cloud.second()
            for name in "ab":
                self.world.sees(name, Verdict.OK if name in self.well else Verdict.FAILED)
            for name in VMS:
                self.world.sees(name, Verdict.OK if self.cloud.up(name) else Verdict.FAILED)
            self.cloud.serve()

    def step(self, word, what) -> None:
        moves = {
            "wait": self.pass_,
            "die": self.well.discard,
            "well": self.well.add,
            "fate": self.cloud.fates.append,
            "mute": lambda mute: setattr(self.cloud, "mute", mute),
            "start": lambda name: self.world.give(Start(name)),
            "halt": lambda name: self.world.give(Halt(name)),
            "pause": lambda on: self.world.give(Pause() if on else Resume()),
            "lags": lambda name: self.world.give(
                ProviderSaid(f"{name}:usd", self.cloud.books[name])
            ),
            "kill": self.kill,
        }
        moves[word](what)
        self.cloud.serve()

    def kill(self, away_s: int) -> None:
        """The daemon dies: meters come back as they were last stored; machines go on."""
        old, cloud = self.world, self.cloud
        for _ in range(away_s):
            old.at += 1.0
            cloud.second()
        fleet = old.fleet
        self.world = World(
            fleet.config,
            old.at,
            world=fleet.world,
            backends=fleet.backends,
            services=fleet.services,
            incidents=fleet.incidents,
            outbox=fleet.outbox,
            meters=self.meters,
        )
        self.world.checks.append(self.check)
        self.cloud = Paying(self.world, machines=cloud.machines, fates=cloud.fates, mute=cloud.mute)
        self.cloud.books, self.cloud.ends = cloud.books, cloud.ends


moments = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 300, 900])),
    st.tuples(st.just("die"), st.sampled_from("ab")),
    st.tuples(st.just("well"), st.sampled_from("ab")),
    st.tuples(st.just("fate"), st.sampled_from(["", "lost", "gone", "never", "stockout", "quota"])),
    st.tuples(st.just("mute"), st.booleans()),
    st.tuples(st.just("start"), st.sampled_from(VMS)),
    st.tuples(st.just("halt"), st.sampled_from(VMS)),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("lags"), st.sampled_from(VMS)),
    st.tuples(st.just("kill"), st.sampled_from([2, 60, 700])),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(moments, min_size=5, max_size=25),
    st.fixed_dictionaries({name: st.sampled_from([0.3, 0.9, 2.0]) for name in VMS}),
)
def test_no_budget_is_ever_overspent_and_no_start_is_made_that_was_not_set_aside(words, limits):
    walk = Walk(limits)
    walk.pass_(3)
    for word, what in words:
        walk.step(word, what)
        for name in VMS:
            assert walk.cloud.books[name] <= limits[name] + 0.01, f"{name} by its provider's books"
