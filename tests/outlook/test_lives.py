"""Lives and outages: how long, why they end, and what history teaches."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core.windows import FOREVER, Per, Window
from orchestrator.outlook.lives import (
    NOTEBOOK,
    OWN,
    RENTED,
    Allowance,
    End,
    Fate,
    Habits,
    Past,
    assumed,
    learned,
    overruled,
)
from orchestrator.outlook.person import Person, person
from orchestrator.outlook.scene import Way

HOUR = 3600.0
LISBON = ZoneInfo("Europe/Lisbon")
NIGHT = (time(23), time(8))


def wall(text: str, zone=UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def test_failures_come_as_often_as_the_rates_say():
    fate = Fate(Habits("a", OWN), random.Random(1))
    lives = [fate.death(0.0).at for _ in range(4000)]
    outs = [fate.back(0.0) for _ in range(4000)]
    assert sum(lives) / len(lives) == pytest.approx(OWN.mtbf_s, rel=0.05)
    assert sum(outs) / len(outs) == pytest.approx(OWN.mttr_s, rel=0.05)
    hangs = [fate.death(0.0).way is Way.HANGS for _ in range(4000)]
    assert sum(hangs) / len(hangs) == pytest.approx(OWN.hangs, abs=0.03)


def test_a_session_ends_at_its_limit_whatever_its_age_when_the_play_begins():
    fate = Fate(Habits("a", OWN, session_s=12 * HOUR), random.Random(1))
    for age in (0.0, 3 * HOUR, 11 * HOUR):
        deaths = [fate.death(1000.0, age) for _ in range(200)]
        at_limit = [death for death in deaths if death.why is End.SESSION]
        assert len(at_limit) > 150
        assert all(death.at == 1000.0 + 12 * HOUR - age for death in at_limit)
        assert all(death.at <= 1000.0 + 12 * HOUR - age for death in deaths)
        assert all(death.way is Way.REFUSES for death in at_limit)
    assert all(0 <= fate.first_age_s() <= 12 * HOUR for _ in range(100))


def test_a_quota_of_hours_ends_a_life_and_gives_no_other_before_the_period_does():
    monday = wall("2026-11-16T00:00:00")
    never = OWN.__class__(1e12, 60.0, 0.0, 300.0, "")
    habits = Habits(
        "k", never, session_s=9 * HOUR, allowances=(Allowance(30 * HOUR, Window(Per.WEEK)),)
    )
    fate, at, ends = Fate(habits, random.Random(1)), monday, []
    while at < monday + 7 * 86400:
        death = fate.death(at)
        ends.append((death.why, death.at - at))
        at = fate.booted(death.at)
    assert [why for why, _ in ends] == [End.SESSION] * 3 + [End.QUOTA]
    assert sum(lived for _, lived in ends) == pytest.approx(30 * HOUR)
    assert monday + 7 * 86400 < at < monday + 7 * 86400 + 600  # booted as soon as it may


def test_a_quota_that_outlasts_its_period_never_ends_a_life():
    habits = Habits(
        "k",
        OWN.__class__(1e9, 60.0, 0.0, 0.0, ""),
        allowances=(Allowance(25 * HOUR, Window(Per.DAY)),),
    )
    assert Fate(habits, random.Random(1)).death(0.0).why is End.FAILED


def test_credit_ends_a_life_for_good_when_it_is_spent_or_expired():
    begin, never = wall("2026-11-16T00:00:00"), OWN.__class__(1e12, 60.0, 0.0, 300.0, "")
    for window, lasts in (
        (Window(), 100 * HOUR),
        (Window(expires_at=begin + 20 * HOUR), 20 * HOUR),
    ):
        habits = Habits("k", never, allowances=(Allowance(100 * HOUR, window),))
        fate = Fate(habits, random.Random(1))
        death = fate.death(begin)
        assert (death.why, death.at) == (End.QUOTA, begin + lasts)
        assert fate.booted(death.at) >= FOREVER
        assert fate.back(death.at) >= FOREVER


def test_what_is_assumed_depends_on_how_a_backend_lives():
    plain = {"session": False, "restarted_by_hand": False}
    assert assumed("static", **plain) is OWN
    assert assumed("gce", **plain) is RENTED
    assert assumed("kaggle", **plain) is NOTEBOOK
    assert assumed("static", session=True, restarted_by_hand=False) is NOTEBOOK
    assert assumed("static", session=False, restarted_by_hand=True) is NOTEBOOK


def test_history_takes_the_place_of_what_is_assumed_bit_by_bit():
    nothing = learned(OWN, Past(0, ()), None)
    assert nothing == OWN
    calm = learned(OWN, Past(240, ()), None)  # ten days without a failure
    assert calm.mtbf_s == OWN.mtbf_s + 240 * HOUR
    assert calm.basis == "history: 0 failures in 10 d"
    falls = [(day * 86400.0, day * 86400.0 + 600.0) for day in range(1, 30)]
    often = learned(OWN, Past(720, falls), None)
    assert 0.9 * 86400 < often.mtbf_s < 1.5 * 86400
    assert often.mttr_s == pytest.approx(600.0, rel=0.1)


def test_a_session_that_was_over_was_no_failure_in_history():
    falls, up = [], 0.0
    for _ in range(20):
        falls.append((up + 12 * HOUR, up + 13 * HOUR))
        up += 13 * HOUR
    found = learned(NOTEBOOK, Past(260, falls), 12 * HOUR)
    assert found.basis.startswith("history: 1 failure in")  # the first one's beginning is unknown
    assert found.mtbf_s > 5 * 86400


def test_given_rates_overrule_all_others():
    names = {"a": Habits("a", OWN), "b": Habits("b", OWN)}
    found = overruled(names, {"a": HOUR}, {"a": 60.0, "b": 30.0})
    assert (found["a"].rates.mtbf_s, found["a"].rates.mttr_s) == (HOUR, 60.0)
    assert found["a"].rates.basis == "given"
    assert (found["b"].rates.mtbf_s, found["b"].rates.mttr_s) == (OWN.mtbf_s, 30.0)


# ── the human ───────────────────────────────────────────────────────────────────────────────────


def test_the_human_answers_within_minutes_awake_and_in_the_morning_asleep():
    chance, human = random.Random(1), Person(NIGHT, LISBON)
    noon, night = wall("2026-11-20T12:00:00", LISBON), wall("2026-11-20T02:00:00", LISBON)
    waits = sorted(human.answers_at(noon, chance) - noon for _ in range(1001))
    assert waits[500] == pytest.approx(15 * 60, rel=0.15)
    morning = wall("2026-11-20T08:00:00", LISBON)
    assert all(human.answers_at(night, chance) > morning for _ in range(100))


def test_nothing_is_done_in_the_sleep_not_even_what_was_asked_for_at_bedtime():
    chance, human = random.Random(1), Person(NIGHT, UTC)
    late = wall("2026-11-20T22:55:00")
    for _ in range(300):
        assert human.wakes_at(human.answers_at(late, chance)) is None


def test_whose_hours_they_are_is_said():
    hours, quiet = (time(9), time(21)), (time(1), time(6))
    assert person(hours, quiet, UTC).sleep == (time(21), time(9))
    assert person(None, quiet, UTC).sleep == quiet
    assert person(None, None, UTC).basis.startswith("assumed")
    for human in (person(hours, quiet, UTC), person(None, quiet, UTC)):
        for hour in range(24):
            at = wall(f"2026-11-20T{hour:02d}:30:00")
            assert human.asleep(time(hour, 30)) == (human.wakes_at(at) is not None)
