"""Machines that aion starts and stops, in a play: the rules decide, money and quotas are counted."""

import random  # noqa: TID251 - seeded, so the same each time
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.configuring import resumed
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import Now
from orchestrator.core.onhours import OnHours
from orchestrator.core.specs import HealthPolicy, Tier
from orchestrator.core.windows import Per, Window
from orchestrator.outlook.lives import Allowance, End, Habits, Rates
from orchestrator.outlook.machines import Rented
from orchestrator.outlook.play import Cover, Life, Plot, Stint, play
from orchestrator.outlook.story import Setting, tell
from orchestrator.outlook.summary import summarise
from orchestrator.outlook.tally import Tally
from orchestrator.outlook.whatif import parse
from tests.core.worlds import backend, config
from tests.outlook.test_play import DAY, HOUR, HUMAN, MIDNIGHT, Records, notebook
from tests.outlook.worlds import START

BOOT_S = 300.0
STEADY = Rates(1e9, 1800.0, 0.0, BOOT_S, "given")  # never fails
FRAIL = Rates(6 * HOUR, 1800.0, 0.0, BOOT_S, "given")
IDLE_S = 1200.0


def vm(name="vm", **more):
    given = {"powered": True, "auto_start": True, "idle_stop_s": IDLE_S, "tier": Tier.CREDIT}
    return backend(name, **{**given, "health": HealthPolicy(), **more})


def plot(*machines, rates=STEADY, days=10.0, meters=(), allowances=(), colab=True, session_s=None):
    """A notebook that only a human starts, and machines that aion does."""
    found, habits = [], {}
    if colab:
        page = {"restart_url": "https://c.example", "remote": True, "health": HealthPolicy()}
        found.append(backend("colab", **page))
        habits["colab"] = notebook("colab")
    for one in machines:
        found.append(one)
        habits[one.name] = Habits(one.name, rates, session_s, tuple(allowances))
    fleet = replace(config(*found), meters={spec.key: spec for spec in meters})
    return Plot(fleet, habits, HUMAN, MIDNIGHT, days * DAY)


def played(one, seed=1):
    records = Records()
    play(one, random.Random(seed), [records])
    return records


def test_a_machine_is_on_only_while_it_is_needed_and_stopped_when_idle():
    records = played(plot(vm()))
    starts = records.of(Rented)
    assert len(starts) > 5
    assert {one.why for one in starts} <= {End.STOPPED, End.OVER}
    for one, other in pairwise(starts):
        assert other.began >= one.ended, "never two at once"
    colab = sum(one.ended - one.began for one in records.of(Life) if one.backend == "colab")
    on = sum(one.ended - one.began for one in starts)
    assert on < 10 * DAY - colab + len(starts) * (IDLE_S + 900.0)


def test_the_hole_that_a_boot_leaves_is_told_as_that():
    records = played(plot(vm()))
    covers = {one.cover for one in records.of(Stint)}
    assert Cover.BOOTING in covers
    longest = max(one.ended - one.began for one in records.of(Stint) if one.cover is Cover.BOOTING)
    assert longest <= BOOT_S * 1.3 + 60.0


def test_the_cheaper_one_is_started_and_the_dearer_one_only_when_it_is_refused():
    two = (vm("credit"), vm("paid", tier=Tier.PAID))
    assert {one.backend for one in played(plot(*two)).of(Rented)} == {"credit"}
    both = played(plot(*two, rates=FRAIL, days=20.0, colab=False)).of(Rented)
    assert {one.backend for one in both} == {"credit", "paid"}


def test_an_allowance_that_is_spent_ends_it_and_refuses_the_next_start_until_there_is_more():
    daily = Allowance(4 * HOUR, Window(Per.DAY))
    starts = played(plot(vm(), colab=False, allowances=[daily])).of(Rented)
    assert End.QUOTA in {one.why for one in starts if not one.refused}
    by_day: dict[float, float] = {}
    for one in starts:
        day = one.began // DAY
        by_day[day] = by_day.get(day, 0.0) + one.ended - one.began
    assert max(by_day.values()) <= 4 * HOUR + 1.0
    assert len(by_day) == 10


def test_a_session_ends_it_and_it_is_started_again():
    starts = played(plot(vm(), colab=False, session_s=9 * HOUR, days=3.0)).of(Rented)
    whole = [one for one in starts if one.why is End.SESSION]
    assert len(whole) >= 6
    assert all(one.ended - one.began == pytest.approx(9 * HOUR) for one in whole[1:])


def test_in_its_hours_it_is_on_though_nobody_needs_it():
    own = backend("lab", health=HealthPolicy())
    one = plot(vm(on_hours=OnHours(480, 1140)), colab=False, days=5.0)
    one = replace(
        one,
        config=config(own, *one.config.backends.values()),
        habits={**one.habits, "lab": Habits("lab", STEADY)},
    )
    starts = [start for start in played(one).of(Rented) if start.began >= MIDNIGHT]
    assert len(starts) == 5
    for start in starts:
        assert start.began % DAY == pytest.approx(8 * HOUR, abs=30)
        assert start.ended % DAY == pytest.approx(19 * HOUR + IDLE_S, abs=60)


def test_the_outlook_counts_starts_hours_and_dollars():
    dollars = MeterSpec("vm:usd", Unit.USD, 300.0, backend="vm", rate_per_hour=0.5)
    one, found = plot(vm(), meters=[dollars]), []
    for seed in range(3):
        tally = Tally(one.person)
        play(one, random.Random(seed), [tally])
        found.append(tally)
    outlook = summarise(one, found)
    machine = next(each for each in outlook.backends if each.name == "vm")
    assert machine.starts.p50 > 5
    assert machine.usd.mean == pytest.approx(machine.hours.mean * 0.5)
    assert machine.hours.mean / 24 / 10 == pytest.approx(machine.alive, rel=0.5)
    assert machine.deaths.mean == 0, "what nobody needs is stopped, and did not die"
    assert outlook.services[0].covers[Cover.BOOTING] > 0


def test_the_same_seed_gives_the_same_month():
    assert played(plot(vm(), rates=FRAIL), 3).all == played(plot(vm(), rates=FRAIL), 3).all


def test_one_mishap_tells_of_the_start_that_follows_it():
    fleet = plot(vm()).config
    habits = {"vm": Habits("vm", STEADY)}
    setting = Setting(lambda at: resumed(fleet, Now(at, at)), START, START, machines=habits)
    told = tell(setting, parse("colab dies", ("colab", "vm")), random.Random(1))
    texts = [line.text for line in told.lines]
    started = next(at for at, text in enumerate(texts) if text.startswith("vm is started: nobody"))
    up = next(at for at, text in enumerate(texts) if text.startswith("vm is up, "))
    assert started < up
    (ending,) = told.endings
    assert (ending.began_with, ending.ended_with) == ("colab", "vm")
    assert BOOT_S * 0.7 < ending.uncovered_s < BOOT_S * 1.3 + 90
