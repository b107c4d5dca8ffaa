"""What each month took: counted by us, corrected by whoever bills, kept for a year."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core import ledger
from orchestrator.core.meters import MeterSpec, MeterState, Unit
from orchestrator.core.months import KEPT, bounds, name_of, shares, took
from orchestrator.core.powering import Halt, Start
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import World, backend, config

LISBON = "Europe/Lisbon"
GPU = MeterSpec("v:usd", Unit.USD, None, backend="v", rate_per_hour=2.0, zone=LISBON)
CALLS = MeterSpec("v:requests", Unit.REQUESTS, 1000.0, backend="v", zone=LISBON)


def wall(text):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(LISBON)).timestamp()


def month(state, name="2026-11"):
    return next(one for one in state.months if one.name == name)


def test_months_are_those_of_the_operators_calendar():
    assert name_of(wall("2026-07-01T00:30"), LISBON) == "2026-07"
    assert name_of(wall("2026-07-01T00:30"), "UTC") == "2026-06"
    begins, ends = bounds("2026-10", LISBON)
    assert ends - begins == (31 * 24 + 1) * 3600, "summer time ends in it"
    assert bounds("2026-12", LISBON)[1] == wall("2027-01-01")
    for wrong in ("2026-13", "2026", "2026-1", "x"):
        with pytest.raises(ValueError, match="expected a month"):
            bounds(wrong, LISBON)


def test_what_was_on_over_the_end_of_a_month_is_in_both():
    midnight = wall("2026-12-01")
    found = dict(shares(midnight - 600, midnight + 300, LISBON))
    assert found == {"2026-11": 600, "2026-12": 300}
    state = replace(MeterState("v:usd"), paid_until=midnight - 7200)
    state = ledger.ran(state, GPU, midnight - 7200, midnight + 3600, midnight + 3600)
    assert month(state).counted == pytest.approx(4.0)
    assert month(state, "2026-12").counted == pytest.approx(2.0)


def test_a_year_and_the_present_month_are_kept_and_no_more():
    months = ()
    for year in (2024, 2025, 2026):
        for number in range(1, 13):
            months = took(months, LISBON, wall(f"{year}-{number:02d}-15"), counted=1.0)
    assert len(months) == KEPT
    assert [one.name for one in months][::12] == ["2025-12", "2026-12"]


def test_what_is_settled_and_what_is_counted_one_by_one_is_in_the_month():
    at = wall("2026-11-10")
    state = ledger.ran(MeterState("v:usd"), GPU, at, at, at)
    state = ledger.ran(state, GPU, None, at + 600, at + 600)
    assert month(state).counted == pytest.approx(2.0 / 6)
    calls = MeterState("v:requests")
    for _ in range(30):
        calls = ledger.count(calls, CALLS, 3, at, at)
    calls = ledger.settle(calls, CALLS, at)
    assert month(calls).counted == 90


def test_a_providers_figure_stands_beside_ours_and_what_it_changes_is_no_count_of_ours():
    at = wall("2026-11-10")
    state = ledger.settle(ledger.count(MeterState("v:requests"), CALLS, 40, at, at), CALLS, at)
    state = ledger.told(state, CALLS, 50.0, at + 60, at + 60)
    found = month(state)
    assert (found.said, found.ours, found.said_at) == (50.0, 40.0, at + 60)
    assert (found.counted, found.corrected) == (40, 10)
    again = ledger.told(state, CALLS, 50.0, at + 120, at + 120)
    assert month(again).corrected == 10, "what is believed is not put on top twice"
    assert not ledger.worth_storing(state, again), "the same figure again costs no write"
    assert ledger.worth_storing(state, ledger.told(state, CALLS, 51.0, at + 120, at + 120))


def test_a_lower_figure_that_is_believed_is_taken_off():
    at = wall("2026-11-10")
    state = ledger.settle(ledger.count(MeterState("v:requests"), CALLS, 40, at, at), CALLS, at)
    for after in (0, 3700):
        state = ledger.told(state, CALLS, 30.0, at + after, at + after)
    assert (month(state).counted, month(state).corrected) == (40, -10)


def test_starts_failures_and_the_time_on_are_counted():
    world = World(config(backend("a"), vm("v"), timezone=LISBON), wall("2026-11-30T23:00"))
    cloud = Cloud(world, fates=["stockout"])
    cloud.lives(20, down="a")
    world.give(Start("v"))
    cloud.lives(3600 + 600, up="a")
    world.give(Halt("v"))
    cloud.lives(200, up="a")
    november, *rest = power(world, "v").months
    assert (november.name, november.starts, november.failed) == ("2026-11", 2, 1)
    on_s = november.on_s + sum(one.on_s for one in rest)
    ran_s = cloud.stops[0][0] - cloud.starts[-1][0]
    assert on_s == pytest.approx(ran_s, abs=20)
