"""A month of a fleet: what is noted of it, and what many months say together."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time
from dataclasses import replace
from datetime import UTC, time
from itertools import pairwise

import pytest

from orchestrator.core.specs import HealthPolicy, Service, Tier
from orchestrator.outlook.advice import advice, stretch
from orchestrator.outlook.lives import NOTEBOOK, OWN, End, Habits, Rates
from orchestrator.outlook.person import Person
from orchestrator.outlook.play import Ask, Cover, Kind, Life, Move, Plot, Stint, play
from orchestrator.outlook.summary import Spread, quantile, summarise
from orchestrator.outlook.tally import Tally
from tests.core.worlds import backend, config
from tests.outlook.worlds import START

DAY, HOUR = 86400.0, 3600.0
MIDNIGHT = START - START % DAY
HUMAN = Person((time(23), time(8)), UTC, "assumed")
POLICY = HealthPolicy()


class Records:
    """A ledger that keeps every record as it is."""

    def __init__(self) -> None:
        self.all = []

    def note(self, record) -> None:
        self.all.append(record)

    def of(self, kind):
        return [record for record in self.all if isinstance(record, kind)]


def notebook(name: str, session_h: float = 12.0) -> Habits:
    return Habits(name, NOTEBOOK, session_h * HOUR, by_hand=True)


def plot(*, days: float = 30, lab: bool = True, **more) -> Plot:
    """Two notebooks that only a human starts, and perhaps a machine of one's own."""
    found = [
        backend("colab", restart_url="https://c.example", remote=True, health=POLICY),
        backend("kaggle", restart_url="https://k.example", remote=True, health=POLICY),
    ]
    habits = {"colab": notebook("colab"), "kaggle": notebook("kaggle", 9.0)}
    if lab:
        found.append(backend("lab", health=POLICY, tier=Tier.CREDIT))
        habits["lab"] = Habits("lab", OWN)
    given = {"config": config(*found, controls=4), "habits": habits, "person": HUMAN}
    return Plot(**{**given, "begins": MIDNIGHT, "lasts_s": days * DAY, **more})


def played(one: Plot, seed: int = 1) -> Records:
    records = Records()
    play(one, random.Random(seed), [records])
    return records


def tallies(one: Plot, seeds: int) -> list[Tally]:
    found = []
    for seed in range(seeds):
        tally = Tally(one.person)
        play(one, random.Random(seed), [tally])
        found.append(tally)
    return found


# ── one month ───────────────────────────────────────────────────────────────────────────────────


def test_the_same_seed_gives_the_same_month_and_another_one_another():
    assert played(plot(), 3).all == played(plot(), 3).all
    assert played(plot(), 3).all != played(plot(), 4).all


def test_the_stints_of_a_service_cover_the_whole_time_without_a_gap():
    stints = played(plot()).of(Stint)
    assert stints[0].began == MIDNIGHT
    assert stints[-1].ended == MIDNIGHT + 30 * DAY
    assert all(one.ended == other.began for one, other in pairwise(stints))


def test_a_life_ends_at_its_sessions_limit_at_the_latest():
    lives = played(plot()).of(Life)
    limits = {"colab": 12 * HOUR, "kaggle": 9 * HOUR, "lab": float("inf")}
    assert {life.why for life in lives} == {End.FAILED, End.SESSION, End.OVER}
    assert all(life.ended - life.began <= limits[life.backend] + 1e-3 for life in lives)


def test_nobody_is_served_by_the_dead_for_longer_than_it_takes_to_notice():
    unnoticed = [one for one in played(plot()).of(Stint) if one.cover is Cover.UNNOTICED]
    assert unnoticed
    assert max(one.ended - one.began for one in unnoticed) < 35  # 28 s, or 30 s till one is back


def test_the_dead_are_left_and_the_better_are_gone_back_to():
    moves = played(plot()).of(Move)
    kinds = [move.kind for move in moves]
    assert kinds.count(Kind.FORCED) > 20
    assert kinds.count(Kind.VOLUNTARY) > 20
    for move in moves:
        assert (move.kind is Kind.LOST) == (move.new is None)
        assert (move.kind is Kind.FOUND) == (move.old is None)


def test_a_restart_is_asked_for_once_for_each_death_and_nobody_starts_anything_asleep():
    records = played(plot())
    asks, lives = records.of(Ask), records.of(Life)
    deaths = [life for life in lives if life.why is not End.OVER and life.backend != "lab"]
    urgent = [ask for ask in asks if ask.urgent]
    assert 0 < len(urgent) <= len(deaths)
    assert any(ask.asleep for ask in urgent)
    for life in lives:
        if life.backend != "lab" and life.began > MIDNIGHT:
            asked_for = life.began - 390.0  # it boots for six and a half minutes at most
            assert HUMAN.wakes_at(asked_for) is None or HUMAN.wakes_at(life.began) is None


def test_what_cannot_serve_is_not_asked_for_and_costs_nothing():
    given = plot()
    api = backend("api", assignable=False, restart_url="https://a.example", tier=Tier.PAID)
    whole = config(*given.config.backends.values(), api, controls=4)
    records = played(replace(given, config=whole))
    assert not [one for one in records.of(Ask) if one.backend == "api"]
    assert not [one for one in records.of(Move) if one.new == "api"]


def test_a_fleet_that_never_dies_is_never_uncovered():
    never = Rates(1e15, 60.0, 0.0, 0.0, "given")
    given = plot()
    records = played(replace(given, habits={name: Habits(name, never) for name in given.habits}))
    assert [one.cover for one in records.of(Stint)] == [Cover.SERVED]
    assert records.of(Move) == records.of(Ask) == []


def test_two_services_on_one_backend_ask_for_it_once():
    given = plot(lab=False)
    services = {
        **given.config.services,
        "drafts": Service("drafts", ("colab", "kaggle")),
    }
    one = played(given, 5)
    two = played(replace(given, config=replace(given.config, services=services)), 5)
    for records in (one, two):
        deaths = [life for life in records.of(Life) if life.why is not End.OVER]
        assert len([ask for ask in records.of(Ask) if ask.urgent]) <= len(deaths)
    assert {stint.service for stint in two.of(Stint)} == {"chat", "drafts"}


# ── many months ─────────────────────────────────────────────────────────────────────────────────


def test_spreads_are_those_of_the_values():
    spread = Spread.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.mean, spread.p50) == (3.0, 3.0)
    assert (spread.p5, spread.p95) == (pytest.approx(1.2), pytest.approx(4.8))
    assert quantile([7.0], 0.05) == 7.0


def test_the_books_balance():
    given = plot(lab=False)
    books = tallies(given, 5)
    outlook = summarise(given, books)
    (chat,) = outlook.services
    minutes = 30 * DAY / 60
    assert sum(chat.covers.values()) == pytest.approx(minutes)
    assert sum(chat.hours) == pytest.approx(chat.uncovered_min.mean)
    assert chat.available.mean == pytest.approx(1 - chat.uncovered_min.mean / minutes)
    assert sum(one.served for one in outlook.backends) == pytest.approx(chat.available.mean)
    assert 0 < chat.asleep_min < chat.covers[Cover.BY_HAND]
    assert chat.available.p5 <= chat.available.p50 <= chat.available.p95 < 1
    assert chat.longest_min.p95 <= chat.uncovered_min.p95


def test_a_backend_more_makes_it_better_and_a_worse_human_makes_it_worse():
    with_lab, without = (summarise(one, tallies(one, 8)) for one in (plot(), plot(lab=False)))
    sleepy = plot(lab=False, person=Person((time(18), time(12)), UTC, ""))
    worse = summarise(sleepy, tallies(sleepy, 8))
    shares = [one.services[0].available.mean for one in (with_lab, without, worse)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.999


# ── what would help ─────────────────────────────────────────────────────────────────────────────


def test_the_sentences_follow_the_figures():
    human = plot(lab=False)
    by_hand = advice(summarise(human, tallies(human, 8)), human)
    assert len(by_hand) == 3
    assert "of the uncovered time falls between" in by_hand[0]
    assert "nobody is awake to start" in by_hand[0]
    assert "that starts by itself" in by_hand[1]
    fragile = Rates(2 * HOUR, 600.0, 0.0, 0.0, "given")
    alone = replace(human, habits={name: Habits(name, fragile) for name in human.habits})
    outages = " ".join(advice(summarise(alone, tallies(alone, 4)), alone))
    assert "every backend is out at once" in outages
    assert "awake" not in outages
    never = Rates(1e15, 60.0, 0.0, 0.0, "given")
    eternal = replace(human, habits={name: Habits(name, never) for name in human.habits})
    assert advice(summarise(eternal, tallies(eternal, 2)), eternal) == [
        "No minute of 30 d was uncovered."
    ]


def test_the_stretch_of_the_day_is_the_shortest_that_holds_most():
    hours = [0.0] * 24
    hours[23], hours[0], hours[1], hours[12] = 30.0, 30.0, 20.0, 20.0
    assert stretch(hours) == (23, 2, 0.6)
    assert stretch([1.0] * 24)[1] == 15


def test_nobody_who_waits_for_the_human_is_forgotten():
    """Not even one that dies again before aion has seen it up, or was asked for and then was not."""
    nervous = Rates(3 * HOUR, 600.0, 0.2, 300.0, "given")
    given = plot(lab=True)
    given = replace(
        given,
        habits={
            "colab": Habits("colab", nervous, by_hand=True),
            "kaggle": Habits("kaggle", nervous, by_hand=True),
            "lab": Habits("lab", nervous),
        },
    )
    longest = 0.0
    for seed in range(5):
        lives = played(given, seed).of(Life)
        for name in ("colab", "kaggle"):
            mine = [life for life in lives if life.backend == name]
            gaps = [later.began - life.ended for life, later in pairwise(mine)]
            gaps.append(MIDNIGHT + 30 * DAY - mine[-1].ended)
            longest = max(longest, *gaps)
    assert longest < 3 * DAY
