"""Who should serve: every small pool there is."""

import itertools

import pytest

from orchestrator.core.choice import Candidate, Rank, choose
from orchestrator.core.model import Health, Pin
from orchestrator.core.specs import Tier

AT = 10_000.0
HEALTHS = tuple(Health)
LIVE = (Health.UP, Health.DEGRADED)


def pool(*healths: Health, ok_since: float | None = 0.0) -> list[Candidate]:
    return [
        Candidate(name, health, ok_since=ok_since if health is Health.UP else None)
        for name, health in zip("abcdef", healths, strict=False)
    ]


@pytest.mark.parametrize("serving", [None, "a", "b", "c"])
def test_a_dead_backend_never_serves_while_a_live_one_exists(serving):
    for healths in itertools.product(HEALTHS, repeat=3):
        found = choose(pool(*healths), serving, AT)
        if any(health in LIVE for health in healths) and found.to is not None:
            chosen = healths["abc".index(found.to)]
            undecided_incumbent = chosen is Health.UNKNOWN and found.to == serving
            assert chosen in LIVE or undecided_incumbent, (healths, serving, found)
        if any(health in LIVE for health in healths):
            assert found.to is not None


def test_nobody_serves_when_nobody_can():
    for healths in itertools.product((Health.DOWN, Health.WARMING, Health.STARTING), repeat=3):
        for serving in (None, "a", "b", "c"):
            assert choose(pool(*healths), serving, AT).to is None


def test_the_first_of_those_that_are_up_is_chosen_when_nobody_serves():
    for healths in itertools.product(HEALTHS, repeat=3):
        found = choose(pool(*healths), None, AT)
        up = [name for name, health in zip("abc", healths, strict=True) if health is Health.UP]
        if up:
            assert found.to == up[0]


def test_a_degraded_one_is_chosen_only_while_nobody_is_up():
    for healths in itertools.product(HEALTHS, repeat=3):
        for serving in (None, "a", "b", "c"):
            found = choose(pool(*healths), serving, AT)
            if found.to is not None and healths["abc".index(found.to)] is Health.DEGRADED:
                assert Health.UP not in healths, (healths, serving, found)


def test_an_incumbent_that_is_up_stays_until_a_better_one_has_been_well_long_enough():
    a, b = pool(Health.UP, Health.UP)
    for well_s in (0, 1, 299, 300, 301, 5000):
        a = Candidate("a", Health.UP, ok_since=AT - well_s, wait_s=300)
        found = choose([a, b], "b", AT)
        assert found.to == ("a" if well_s >= 300 else "b")
        assert found.voluntary == (well_s >= 300)
        if well_s < 300:
            assert found.review_at == AT - well_s + 300


def test_a_better_one_whose_health_was_broken_is_not_waited_for():
    a = Candidate("a", Health.UP, ok_since=None)
    found = choose([a, Candidate("b", Health.UP, ok_since=0)], "b", AT)
    assert found.to == "b"
    assert found.review_at is None, "only new evidence can change that"


@pytest.mark.parametrize(
    ("moves", "tiers", "moved"),
    [
        ((), (Tier.FREE, Tier.FREE), True),
        ((AT - 59,), (Tier.FREE, Tier.FREE), False),
        ((AT - 60,), (Tier.FREE, Tier.FREE), True),
        ((AT - 3000, AT - 2000), (Tier.FREE, Tier.FREE), False),
        ((AT - 3600, AT - 2000), (Tier.FREE, Tier.FREE), True),
        ((AT - 3000, AT - 2000), (Tier.FREE, Tier.PAID), True),
        ((AT - 3000, AT - 59), (Tier.FREE, Tier.PAID), False),
        ((AT - 3000, AT - 2000), (Tier.FREE, Tier.CREDIT), False),
        ((AT - 3000, AT - 2000), (Tier.CREDIT, Tier.PAID), False),
    ],
)
def test_voluntary_moves_are_two_an_hour_a_minute_apart_except_from_paid_to_free(
    moves, tiers, moved
):
    a = Candidate("a", Health.UP, ok_since=0, tier=tiers[0])
    b = Candidate("b", Health.UP, ok_since=0, tier=tiers[1])
    assert choose([a, b], "b", AT, moves=moves).to == ("a" if moved else "b")


def test_leaving_the_dead_is_never_rate_limited():
    found = choose(pool(Health.UP, Health.DOWN), "b", AT, moves=(AT - 2, AT - 1), hold_until=AT + 9)
    assert found.to == "a"
    assert not found.voluntary


def test_a_suspect_incumbent_keeps_serving_and_a_suspect_other_is_a_reserve():
    suspect = Candidate("a", Health.UP, suspect=True, ok_since=0)
    well = Candidate("b", Health.UP, ok_since=0)
    assert choose([well, suspect], "a", AT, moves=(AT - 1,)).to == "a"
    assert choose([suspect, well], None, AT).to == "b"
    assert choose([suspect, Candidate("b", Health.DOWN)], None, AT).to == "a"


def test_a_hold_keeps_failback_away_until_it_ends():
    both = pool(Health.UP, Health.UP)
    held = choose(both, "b", AT, hold_until=AT + 10)
    assert held.to == "b"
    assert held.review_at == AT + 10
    assert choose(both, "b", AT, hold_until=AT).to == "a"


def test_a_pinned_one_is_preferred_left_when_dead_and_returned_to():
    pin = Pin("c", AT + 100)
    for healths in itertools.product((Health.UP, Health.DOWN), repeat=3):
        for serving in "abc":
            found = choose(pool(*healths), serving, AT, pin=pin)
            if healths[2] is Health.UP:
                assert found.to == "c", (healths, serving)
            elif any(health is Health.UP for health in healths):
                assert found.to in "ab"


def test_a_hard_pin_stands_whatever_happens():
    pin = Pin("c", AT + 100, hard=True)
    for healths in itertools.product(HEALTHS, repeat=3):
        for serving in (None, "a", "b", "c"):
            assert choose(pool(*healths), serving, AT, pin=pin).to == "c"


def test_a_flapping_one_is_passed_over_unless_it_is_the_only_live_one():
    flapping = Candidate("a", Health.UP, flapping=True, ok_since=AT - 10, wait_s=1200)
    calm = Candidate("b", Health.UP, ok_since=0)
    assert choose([flapping, calm], None, AT).to == "b"
    assert choose([flapping, Candidate("b", Health.DOWN)], "b", AT).to == "a"


def test_one_that_drains_serves_to_the_end_if_nobody_else_can():
    drained = Candidate("a", Health.UP, drained=True, ok_since=0)
    assert choose([drained, Candidate("b", Health.DOWN)], "a", AT).to == "a"
    leaving = choose([drained, Candidate("b", Health.UP, ok_since=AT)], "a", AT)
    assert leaving.to == "b"
    assert leaving.planned
    assert not leaving.voluntary


def test_one_whose_deadline_is_near_is_left_only_for_a_successor():
    ending = Candidate("a", Health.UP, ending=True, ok_since=0)
    assert choose([ending], "a", AT).to == "a"
    assert choose([ending, Candidate("b", Health.UP, ok_since=AT)], "a", AT).to == "b"


@pytest.mark.parametrize("health", HEALTHS)
def test_one_that_is_barred_never_serves(health):
    barred = Candidate("a", health, barred="its quota is spent", ok_since=0)
    assert barred.rank is Rank.CANNOT
    assert choose([barred], "a", AT).to is None
    assert choose([barred, Candidate("b", Health.UP, ok_since=AT)], "a", AT).to == "b"


def test_an_incumbent_not_looked_at_yet_keeps_its_place():
    for other in HEALTHS:
        assert choose(pool(Health.UNKNOWN, other), "a", AT).to == "a"


def test_at_the_start_the_first_word_of_a_preferred_one_is_waited_for():
    fresh = Candidate("a", Health.UNKNOWN, fresh=True)
    up = Candidate("b", Health.UP, ok_since=AT)
    assert choose([fresh, up], None, AT).to is None
    assert choose([up, fresh], None, AT).to == "b"
    assert choose([Candidate("a", Health.UNKNOWN), up], None, AT).to == "b"


def test_an_incumbent_that_left_the_pool_is_left():
    found = choose(pool(Health.UP), "gone", AT)
    assert found.to == "a"
    assert "gone" in found.why


def test_every_choice_says_why():
    for healths in itertools.product(HEALTHS, repeat=2):
        for serving in (None, "a", "b", "gone"):
            found = choose(pool(*healths), serving, AT)
            assert found.why
            assert "None" not in found.why
