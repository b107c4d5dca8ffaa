"""Which dumps are kept: small worlds exhaustively, then many at random."""

from __future__ import annotations

import itertools
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.retention import FLOOR, Held, Policy, fates, room_for

DAY = date(2027, 1, 1)


def nightly(count: int, **more) -> list[Held]:
    return [Held(f"d{i:04}", i, DAY + timedelta(days=i), 10, True, **more) for i in range(count)]


def kept(held, policy) -> set[str]:
    return {fate.id for fate in fates(held, policy) if fate.keep}


def test_a_year_of_nights_leaves_the_last_days_weeks_and_months() -> None:
    stay = kept(nightly(365), Policy(daily=7, weekly=4, monthly=6))
    assert {f"d{i:04}" for i in range(358, 365)} <= stay
    # 31 December, the last of its week and month; then three more Sundays, five ends of months.
    sundays = {i for i in range(365) if (DAY + timedelta(days=i)).isoweekday() == 7}
    assert {f"d{i:04}" for i in sorted(sundays)[-3:]} <= stay
    ends = [i for i in range(364) if (DAY + timedelta(days=i + 1)).day == 1]
    assert {f"d{i:04}" for i in ends[-5:]} <= stay
    assert len(stay) == 7 + 3 - 1 + 5  # one of the Sundays is among the days


def test_what_is_kept_today_would_have_been_kept_on_the_way() -> None:
    policy = Policy(daily=7, weekly=4, monthly=6, yearly=2)
    left: list[Held] = []
    for one in nightly(800):
        left = [h for h in [*left, one] if h.id in kept([*left, one], policy)]
    assert {h.id for h in left} == kept(nightly(800), policy)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_is_wrong_by_a_year_expires_nothing_that_it_should_not(days: int) -> None:
    held = nightly(20)
    odd = Held("odd", 20, held[-1].made + timedelta(days=days), 10, True)
    policy = Policy(daily=7)
    before, after = kept(held, policy), kept([*held, odd], policy)
    assert "odd" in after
    assert len(after) == 7
    assert len(before - after) == 1


@given(st.lists(st.integers(-4000, 4000), min_size=1, max_size=30))
def test_the_order_is_by_sequence_whatever_the_days_say(days: list[int]) -> None:
    held = [Held(f"d{i}", i, DAY + timedelta(days=d), 1, True) for i, d in enumerate(days)]
    stay = kept(held, Policy(daily=2))
    assert {h.id for h in held[-FLOOR:]} <= stay
    assert len(stay) <= FLOOR + 2


def test_only_what_counts_is_counted_and_the_floor_stays() -> None:
    for flaws in itertools.product("vuq", repeat=6):
        held = [
            Held(f"d{i}", i, DAY + timedelta(days=i), 1, flaw != "u", flaw == "q")
            for i, flaw in enumerate(flaws)
        ]
        good = [h.id for h in held if h.counts]
        stay = kept(held, Policy(daily=1))
        assert set(good[-FLOOR:]) <= stay
        if len(good) < FLOOR:
            assert stay == {h.id for h in held}
        for one in held:
            if not one.counts and one.id not in stay:
                assert sum(h.counts and h.sequence > one.sequence for h in held) >= FLOOR
        for needed in (1, 2, 6):
            gone = room_for(held, Policy(daily=6), needed)
            assert not set(gone) & set(good[-FLOOR:])
            assert not gone or len(gone) >= needed


def test_a_full_store_gives_up_what_no_rule_keeps_first_then_the_oldest_down_to_the_floor() -> None:
    held = nightly(8)
    policy = Policy(daily=6)
    assert room_for(held, policy, 15) == ("d0000", "d0001")
    assert room_for(held, policy, 25) == ("d0000", "d0001", "d0002")
    assert room_for(held, policy, 50) == tuple(f"d{i:04}" for i in range(5))
    assert room_for(held, policy, 51) == ()
    assert room_for(nightly(2), policy, 1) == ()


@pytest.mark.parametrize("rules", [(0, 0, 0, 0), (-1, 2, 0, 0)])
def test_a_policy_that_keeps_nothing_is_refused(rules: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no policy"):
        Policy(*rules)


def test_a_floor_below_three_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        Policy(7, floor=2)


def test_each_fate_says_why() -> None:
    said = {f.id: f.why for f in fates(nightly(10), Policy(daily=4, weekly=1))}
    assert said["d0009"] == "one of the last 3, the last of its day, the last of its week"
    assert said["d0006"] == "the last of its day"
    assert said["d0000"] == "no rule keeps it"
    assert fates([], Policy(daily=1)) == ()
