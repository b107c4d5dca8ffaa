"""What is believed of a backend: every short history there is."""

import itertools
from dataclasses import replace

import pytest

from orchestrator.core.health import (
    JITTER,
    Lease,
    failback_wait_s,
    flap_level,
    fold,
    lease,
    next_canary_s,
    next_probe_s,
)
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Health, Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy

POLICY = HealthPolicy()
OK, BAD, LOADING = Verdict.OK, Verdict.FAILED, Verdict.LOADING
DENIED, BUSY = Verdict.DENIED, Verdict.BUSY


def see(state, verdict, at=0.0, source=Source.PROBE, policy=POLICY, **more):
    frozen = more.pop("frozen", False)
    held = more.pop("held", False)
    seen = Observation("a", source, verdict, more.pop("detail", "it said so"), **more)
    return fold(state, seen, policy, at, frozen=frozen, held=held)


def after(*verdicts, state=None, start=0.0):
    state = state or BackendState("a")
    for number, verdict in enumerate(verdicts):
        state = see(state, verdict, start + number)
    return state


UP = after(OK, OK)
DOWN = after(BAD, BAD, BAD)


def test_every_history_of_seven_is_judged_by_its_last_streak():
    for history in itertools.product((OK, BAD), repeat=7):
        state = BackendState("a")
        believed = Health.UNKNOWN
        streak = 0
        last = None
        for number, verdict in enumerate(history):
            streak = streak + 1 if verdict is last else 1
            last = verdict
            if verdict is OK and streak >= POLICY.rise:
                believed = Health.UP
            if verdict is BAD and streak >= POLICY.fall:
                believed = Health.DOWN
            state = see(state, verdict, number)
            assert state.health is believed, (history, number)


@pytest.mark.parametrize(("fall", "rise"), list(itertools.product((1, 2, 5), repeat=2)))
def test_fall_and_rise_are_what_the_policy_says(fall, rise):
    policy = replace(POLICY, fall=fall, rise=rise)
    state = BackendState("a")
    for count in range(1, rise + 1):
        state = see(state, OK, count, policy=policy)
        assert (state.health is Health.UP) == (count >= rise)
    for count in range(1, fall + 1):
        state = see(state, BAD, 10 + count, policy=policy)
        assert (state.health is Health.DOWN) == (count >= fall)


def test_a_good_answer_of_a_healthy_backend_changes_nothing_at_all():
    assert see(UP, OK, 99) is UP
    assert see(UP, OK, 99, latency_s=3.9) is UP, "slowness alone never moves anyone"


def test_a_dead_backend_that_fails_again_the_same_way_changes_nothing_at_all():
    assert see(DOWN, BAD, 99) is DOWN


@pytest.mark.parametrize("verdict", [DENIED, BUSY])
def test_a_refused_key_and_a_cool_down_are_not_deaths(verdict):
    state = UP
    for number in range(10):
        state = see(state, verdict, number)
        assert state.health is Health.UP


def test_a_cool_down_lasts_as_long_as_the_server_says():
    assert see(UP, BUSY, 100, retry_after_s=30).cooldown_until == 130
    assert see(UP, BUSY, 100).cooldown_until == 160
    next_s = next_probe_s(see(UP, BUSY, 100, retry_after_s=30), POLICY, 100)
    assert next_s * (1 - JITTER) == pytest.approx(30), "jitter must not bring us back too early"


def test_refusals_count_like_failures_before_they_are_believed_and_one_good_answer_ends_them():
    state = UP
    for count in range(1, 4):
        state = see(state, DENIED, count)
        assert bool(state.denied) == (count >= 3)
    assert not see(state, OK, 9).denied


def test_a_backend_that_answers_loading_is_warming_not_dead():
    assert after(LOADING).health is Health.WARMING
    assert after(BAD, BAD, BAD, LOADING).health is Health.WARMING
    assert after(LOADING, OK, OK).health is Health.UP
    assert after(LOADING, *[LOADING] * 50).health is Health.WARMING
    assert after(LOADING, BAD, BAD).health is Health.WARMING
    assert after(LOADING, BAD, BAD, BAD).health is Health.DOWN


def test_an_up_backend_that_says_loading_falls_only_after_enough_of_it():
    assert after(LOADING, LOADING, state=UP).health is Health.UP
    assert after(LOADING, LOADING, LOADING, state=UP).health is Health.WARMING


def test_traffic_alone_never_completes_a_fall_and_counts_once_per_fast_interval():
    state = UP
    for number in range(100):
        state = see(state, BAD, number * POLICY.fast_interval_s, Source.TRAFFIC)
        assert state.health is Health.UP
    assert see(state, BAD, 500).health is Health.DOWN, "an active probe completes it"
    quick = UP
    for number in range(100):
        quick = see(quick, BAD, number / 1000, Source.TRAFFIC)
    assert quick.fails == 1


def test_two_failed_canaries_degrade_and_one_good_one_ends_it():
    once = see(UP, BAD, 1, Source.CANARY)
    assert once.health is Health.UP
    twice = see(once, BAD, 2, Source.CANARY)
    assert twice.health is Health.DEGRADED
    assert see(twice, OK, 3).health is Health.DEGRADED, "a probe proves less than a completion"
    assert see(twice, OK, 3, Source.CANARY).health is Health.UP
    assert see(twice, OK, 3, Source.TRAFFIC).health is Health.UP


def test_while_frozen_no_failure_counts():
    state = UP
    for number in range(10):
        state = see(state, BAD, number, frozen=True)
        state = see(state, BAD, number, Source.CANARY, frozen=True)
    assert state.health is Health.UP
    assert state.fails == 0
    assert state.canary_fails == 0


def test_while_held_failures_count_but_no_verdict_is_drawn():
    state = UP
    for number in range(5):
        state = see(state, BAD, number, held=True)
    assert state.health is Health.UP
    assert state.fails >= POLICY.fall


def test_any_failure_breaks_unbroken_health():
    state = after(BAD, OK, state=UP, start=100)
    assert state.health is Health.UP
    assert state.ok_since == 101


# ── flapping ──


def fallen(*at, state=UP):
    for moment in at:
        state = after(BAD, BAD, BAD, OK, OK, state=state, start=moment)
    return state


def test_three_falls_within_an_hour_are_flapping():
    assert flap_level(fallen(0, 100), 200) == 0
    assert flap_level(fallen(0, 100, 200), 300) == 1
    assert flap_level(fallen(0, 3700, 7400), 7500) == 0


def test_each_further_fall_doubles_the_wait_up_to_two_hours():
    waits = []
    for count in range(3, 12):
        state = fallen(*(n * 100 for n in range(count)))
        waits.append(failback_wait_s(state, 300, count * 100))
    assert waits[:4] == [600, 1200, 2400, 4800]
    assert set(waits[5:]) == {7200}


def test_calm_takes_the_doubling_back_an_hour_at_a_time():
    state = fallen(0, 100, 200, 300)
    assert [flap_level(state, 310 + 3600 * hours) for hours in range(4)] == [2, 1, 0, 0]


def test_calm_begins_at_the_last_fall_however_long_ago_the_first_one_was():
    state = fallen(0, 1700, 3400)
    assert state.falls == (2, 1702, 3402)
    assert [flap_level(state, 3402 + calm_s) for calm_s in (0, 300, 3599, 3600)] == [1, 1, 1, 0]
    assert failback_wait_s(state, 300, 3402 + 300) == 600


def test_a_wait_longer_than_two_hours_is_never_shortened():
    assert failback_wait_s(UP, 9000, 0) == 9000
    assert failback_wait_s(fallen(0, 100, 200), 9000, 300) == 9000


# ── pace ──


def test_the_pace_follows_the_doubt():
    assert next_probe_s(BackendState("a"), POLICY, 0) == POLICY.fast_interval_s
    assert next_probe_s(UP, POLICY, 0) == POLICY.interval_s
    assert next_probe_s(after(BAD, state=UP), POLICY, 0) == POLICY.fast_interval_s
    assert next_probe_s(DOWN, POLICY, 0) == POLICY.down_interval_s
    assert next_probe_s(after(OK, state=DOWN), POLICY, 0) == POLICY.fast_interval_s
    assert next_probe_s(after(DENIED, DENIED, DENIED, state=UP), POLICY, 0) == 30
    assert next_probe_s(after(BAD, state=UP), POLICY, 0, isolated=True) == POLICY.interval_s


def test_a_fall_takes_no_longer_than_promised():
    """Refused: one interval and two fast ones; a hang: three time-outs more."""
    slow = POLICY.interval_s * 1.1 + 2 * POLICY.fast_interval_s * 1.1
    assert slow <= 16
    assert slow + 3 * POLICY.timeout_s <= 28


def test_canaries_are_paced_and_a_real_completion_replaces_one():
    assert next_canary_s(UP, POLICY, 0) == 0
    assert next_canary_s(DOWN, POLICY, 0) is None
    fresh = see(UP, OK, 50, Source.TRAFFIC)
    assert next_canary_s(fresh, POLICY, 50) == POLICY.canary_s
    failed = see(UP, BAD, 50, Source.CANARY)
    assert next_canary_s(failed, POLICY, 50) == POLICY.interval_s
    assert next_canary_s(UP, replace(POLICY, canary_s=None), 0) is None


# ── leases ──


@pytest.mark.parametrize(
    ("silent_s", "proven", "standing"),
    [
        (0, False, Lease.HELD),
        (21.9, False, Lease.HELD),
        (22, False, Lease.LATE),
        (59.9, False, Lease.LATE),
        (60, True, Lease.SUSPECT),
        (600, True, Lease.SUSPECT),
        (60, False, Lease.OUT),
    ],
)
def test_a_lease_goes_from_held_to_late_to_suspect_or_out(silent_s, proven, standing):
    session = Session("s", started_at=0, beat_at=1000, challenge_ok=proven)
    assert lease(session, 1000 + silent_s) is standing


def test_a_session_past_its_end_is_out_however_well_it_beats():
    assert lease(Session("s", 0, 1000, ends_at=1001), 1000) is Lease.HELD
    assert lease(Session("s", 0, 1000, ends_at=1001, challenge_ok=True), 1001) is Lease.OUT


def test_a_canary_waits_out_a_cool_down():
    state = see(UP, BUSY, 10.0, Source.CANARY, retry_after_s=90.0)
    assert next_canary_s(state, POLICY, 10.0) == 90.0


def test_one_that_asked_to_be_left_alone_has_to_be_well_anew_before_it_is_gone_back_to():
    """Its health was broken: it could not serve."""
    well = see(UP, OK, 50.0)
    busy = see(well, BUSY, 100.0, retry_after_s=90.0)
    assert busy.health is Health.UP
    again = see(busy, OK, 191.0)
    assert (well.ok_since, again.ok_since) == (UP.ok_since, 191.0)
    assert see(again, OK, 201.0) is again
