"""Meters: what is left, what is reserved, what the provider says, and when it runs out."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.core.ledger import (
    believed,
    count,
    forfeit,
    ran,
    reserve,
    rolled,
    settle,
    slept,
    timed,
    told,
    worth_storing,
)
from orchestrator.core.meters import (
    Block,
    MeterSpec,
    MeterState,
    Slot,
    Unit,
    exhausted_until,
    forecast,
    left,
    level,
    reserved,
    short,
    spent,
    used,
)
from orchestrator.core.windows import FOREVER, Per, Window

HOUR = 3600.0
MONDAY = datetime.fromisoformat("2026-11-16T00:00+00:00").timestamp()
WEEK = Window(Per.WEEK, weekday=0)
GPU = MeterSpec("kaggle:hours", Unit.HOURS, 30.0, WEEK, "kaggle", rate_per_hour=1.0)
CALLS = MeterSpec("groq:requests", Unit.REQUESTS, 1000.0, Window(Per.DAY), "groq")
CREDIT = MeterSpec(
    "vm:usd", Unit.USD, 300.0, Window(expires_at=MONDAY + 90 * 86400), "vm", rate_per_hour=0.35
)


def on_for(state: MeterState, spec: MeterSpec, start: float, hours: float) -> MeterState:
    at = start
    while at < start + hours * HOUR:
        at = min(at + 60, start + hours * HOUR)
        state = ran(state, spec, start, at, at)
    return state


def spending(spec: MeterSpec, amount: float, wall: float) -> MeterState:
    return replace(count(MeterState(spec.key), spec, amount, wall, wall), block=None)


# ── reserving ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_reserved_that_does_not_fit():
    state = spending(CALLS, 990, MONDAY)
    assert reserve(state, CALLS, 11, 0, MONDAY) is None
    opened = reserve(state, CALLS, 10, 0, MONDAY)
    assert opened is not None
    assert left(opened, CALLS, MONDAY) == 0
    assert reserve(opened, CALLS, 1, 0, MONDAY) is None


def test_what_was_not_used_of_a_block_is_free_again_and_a_crash_forfeits_it():
    opened = reserve(MeterState("k"), CALLS, 10, 0, MONDAY)
    assert opened is not None
    half = count(opened, CALLS, 4, 5, MONDAY)
    assert spent(settle(half, CALLS, MONDAY), MONDAY) == 4
    assert spent(forfeit(half, CALLS, MONDAY, at=9), MONDAY) == 10


def test_an_hour_on_costs_an_hour_and_is_reserved_by_the_quarter():
    state = on_for(MeterState("k"), GPU, MONDAY, 1.6)
    assert used(state, MONDAY) == pytest.approx(1.6)
    assert reserved(state) == pytest.approx(0.25 - 0.1)
    off = ran(state, GPU, None, MONDAY + 1.6 * HOUR, MONDAY + 1.6 * HOUR)
    assert (off.block, used(off, MONDAY)) == (None, pytest.approx(1.6))


def test_only_opening_and_closing_a_block_is_worth_storing():
    state, stored = MeterState("k"), 0
    for second in range(0, int(HOUR), 5):
        at = MONDAY + second
        after = ran(state, GPU, MONDAY, at, at)
        stored += worth_storing(state, after)
        state = after
    assert stored == 4


def test_restarts_in_quick_succession_forfeit_one_block_and_not_one_each():
    state = ran(MeterState("k"), GPU, MONDAY, MONDAY + 1, MONDAY + 1)
    for second in range(10, 600, 10):
        at = MONDAY + second
        state = ran(forfeit(state, GPU, at, at=at), GPU, MONDAY, at, at)
    assert used(state, MONDAY) + reserved(state) <= 0.25


def test_a_daemon_that_was_away_pays_for_what_was_on_meanwhile():
    state = on_for(MeterState("k"), GPU, MONDAY, 1)
    back = MONDAY + 5 * HOUR
    assert used(forfeit(state, GPU, back, at=back, on_since=MONDAY), back) == pytest.approx(5)
    assert used(forfeit(state, GPU, back, at=back), back) <= 1.25
    later = ran(forfeit(state, GPU, back, at=back), GPU, MONDAY, back, back)
    assert used(later, back) == pytest.approx(5)  # it turns out to be the same life


def test_a_crash_before_the_first_block_was_stored_costs_what_was_on():
    back = MONDAY + 2 * HOUR
    state = forfeit(MeterState("k"), GPU, back, at=back, on_since=MONDAY)
    assert used(state, back) == pytest.approx(2)


def test_what_was_on_before_it_was_heard_of_is_paid_from_its_start():
    state = ran(MeterState("k"), GPU, MONDAY, MONDAY + 2 * HOUR, MONDAY + 2 * HOUR)
    assert used(state, MONDAY + 2 * HOUR) == pytest.approx(2)


def test_a_machine_that_slept_pays_for_what_went_on_without_it():
    state = on_for(MeterState("k"), GPU, MONDAY, 0.1)
    at, wall = MONDAY + 0.1 * HOUR, MONDAY + 8.1 * HOUR
    state = ran(slept(state, 8 * HOUR), GPU, MONDAY, at, wall)
    assert used(state, wall) == pytest.approx(8.1)


def test_what_is_on_without_anything_left_is_still_counted():
    tiny = replace(GPU, limit=0.5)
    state = on_for(MeterState("k"), tiny, MONDAY, 2)
    assert used(state, MONDAY) == pytest.approx(2, abs=0.26)
    assert left(state, tiny, MONDAY) == 0


# ── resets ──────────────────────────────────────────────────────────────────────────────────────


def test_a_reset_gives_everything_back_and_splits_what_is_on():
    sunday = MONDAY + 7 * 86400 - 2 * HOUR
    state = on_for(MeterState("k"), GPU, sunday, 5)
    assert used(state, sunday + 5 * HOUR) == pytest.approx(3, abs=0.02)


def test_time_before_a_reset_is_not_charged_after_it_though_nobody_was_there():
    sunday = MONDAY + 7 * 86400 - 2 * HOUR
    state = ran(MeterState("k"), GPU, sunday, sunday, sunday)
    back = sunday + 3 * HOUR
    assert used(forfeit(state, GPU, back, at=back, on_since=sunday), back) == pytest.approx(1)


def test_a_block_forfeited_right_after_a_reset_pays_for_the_time_to_come():
    state = ran(MeterState("k"), GPU, MONDAY, MONDAY, MONDAY)
    assert used(forfeit(state, GPU, MONDAY + 60, at=MONDAY + 60), MONDAY + 60) == 0.25


def test_a_clock_that_goes_back_over_a_reset_gives_nothing_twice():
    midnight = MONDAY + 86400
    state = count(MeterState("k"), CALLS, 600, 0, midnight - 60)
    state = rolled(count(state, CALLS, 300, 120, midnight + 60), CALLS, midnight + 60)
    assert used(state, midnight + 60) == 300
    back = count(state, CALLS, 100, 180, midnight - 120)
    assert used(back, midnight - 120) == 1000
    assert used(back, midnight + 60) == 400


def test_a_clock_that_is_put_forward_or_back_is_not_believed_for_an_hour():
    for jump in (HOUR, -HOUR):
        state = timed(timed(MeterState("k"), 100.0, MONDAY), 110.0, MONDAY + 10 + jump)
        assert believed(state, 120.0, MONDAY + 20 + jump) == MONDAY + 20
        righted = timed(state, 130.0, MONDAY + 30)
        assert (righted.strange, believed(righted, 130.0, MONDAY + 30)) == (None, MONDAY + 30)
        later = MONDAY + HOUR + 10
        stands = timed(state, 110.0 + HOUR, later + jump)
        assert believed(stands, 110.0 + HOUR, later + jump) == later + jump


def test_what_rolls_is_free_again_bit_by_bit():
    rolling = replace(CALLS, window=Window(Per.DAY, rolling=True))
    state = count(MeterState("k"), rolling, 400, 0, MONDAY)
    state = count(state, rolling, 500, 0, MONDAY + 12 * HOUR)
    assert used(state, MONDAY + 23 * HOUR) == 900
    assert used(state, MONDAY + 25 * HOUR) == 500


def test_credit_that_has_expired_is_gone_for_good():
    state, end = MeterState("k"), MONDAY + 90 * 86400
    assert exhausted_until(state, CREDIT, end - 1) is None
    assert exhausted_until(state, CREDIT, end) == FOREVER
    assert left(state, CREDIT, end) == 0
    assert level(state, CREDIT, end) == 100


# ── being spent ─────────────────────────────────────────────────────────────────────────────────


def test_it_is_spent_five_minutes_before_its_end_until_its_reset():
    state = on_for(MeterState("k"), GPU, MONDAY, 29.9)
    assert exhausted_until(state, GPU, MONDAY + 29.9 * HOUR) is None
    state = on_for(state, GPU, MONDAY, 29.95)
    assert exhausted_until(state, GPU, MONDAY + 29.95 * HOUR) == MONDAY + 7 * 86400
    off = ran(state, GPU, None, MONDAY + 30 * HOUR, MONDAY + 30 * HOUR)
    assert exhausted_until(off, GPU, MONDAY + 31 * HOUR) == MONDAY + 7 * 86400
    new = MONDAY + 7 * 86400
    assert exhausted_until(ran(off, GPU, None, new, new), GPU, new) is None


def test_what_rolls_is_of_use_again_only_with_a_good_part_of_it():
    rolling = replace(CALLS, window=Window(Per.DAY, rolling=True))
    state = MeterState("k")
    for hour in range(20):
        state = count(state, rolling, 50, 0, MONDAY + hour * HOUR)
    wall = MONDAY + 20 * HOUR
    state = ran(state, rolling, None, 0, wall)
    until = exhausted_until(state, rolling, wall)
    assert until is not None
    assert until >= MONDAY + 26 * HOUR
    assert exhausted_until(ran(state, rolling, None, 0, until), rolling, until) is None


def test_without_a_limit_it_is_counted_and_never_spent():
    free = replace(CALLS, limit=None)
    state = count(MeterState("k"), free, 10**9, 0, MONDAY)
    assert used(state, MONDAY) == 10**9
    assert (left(state, free, MONDAY), level(state, free, MONDAY)) == (None, 0)
    assert exhausted_until(state, free, MONDAY) is None
    assert forecast(state, free, MONDAY) is None


@pytest.mark.parametrize(
    ("amount", "said"), [(799, 0), (800, 80), (949, 80), (950, 95), (1000, 100)]
)
def test_warnings_are_at_80_and_95_percent_and_at_the_end(amount, said):
    assert level(spending(CALLS, amount, MONDAY), CALLS, MONDAY) == said


# ── the provider's figure ───────────────────────────────────────────────────────────────────────


def test_a_higher_figure_is_believed_at_once():
    state = told(spending(CALLS, 100, MONDAY), CALLS, 700, 0, MONDAY)
    assert used(state, MONDAY) == 700
    state = told(state, CALLS, 1000, 0, MONDAY)
    assert exhausted_until(state, CALLS, MONDAY) == MONDAY + 86400


def test_use_since_a_figure_is_added_to_it():
    state = told(spending(CALLS, 100, MONDAY), CALLS, 700, 0, MONDAY)
    assert used(count(state, CALLS, 30, 1, MONDAY), MONDAY) == 730


def test_a_lower_figure_is_believed_after_an_hour_of_no_use():
    state = told(spending(CALLS, 700, MONDAY), CALLS, 100, 0, MONDAY)
    assert used(told(state, CALLS, 100, HOUR - 1, MONDAY), MONDAY) == 700
    assert used(told(state, CALLS, 100, HOUR, MONDAY), MONDAY) == 100


def test_a_lower_figure_is_not_believed_if_anything_was_used_since():
    state = told(spending(CALLS, 700, MONDAY), CALLS, 100, 0, MONDAY)
    state = count(state, CALLS, 1, 60, MONDAY)
    assert used(told(state, CALLS, 100, HOUR, MONDAY), MONDAY) == 701


def test_a_figure_that_is_catching_up_is_not_believed_yet():
    state = told(spending(CALLS, 700, MONDAY), CALLS, 100, 0, MONDAY)
    state = told(state, CALLS, 400, HOUR, MONDAY)
    assert used(state, MONDAY) == 700
    assert used(told(state, CALLS, 300, 2 * HOUR, MONDAY), MONDAY) == 400


def test_a_figure_that_jumped_back_for_a_moment_changes_nothing():
    state = told(spending(CALLS, 700, MONDAY), CALLS, 0, 0, MONDAY)
    state = told(state, CALLS, 700, 60, MONDAY)
    assert used(told(state, CALLS, 0, HOUR, MONDAY), MONDAY) == 700


# ── forecast ────────────────────────────────────────────────────────────────────────────────────


def test_while_it_is_on_it_runs_out_as_if_it_stayed_on():
    state = on_for(MeterState("k"), GPU, MONDAY, 10)
    wall = MONDAY + 10 * HOUR
    assert forecast(state, GPU, wall) == pytest.approx(MONDAY + 30 * HOUR)


def test_the_learned_rate_says_whether_it_lasts_to_its_reset():
    hardly = on_for(MeterState("k"), GPU, MONDAY, 1)
    assert short(hardly, GPU, MONDAY + HOUR) is None
    often = on_for(hardly, GPU, MONDAY, 12)
    gone = short(often, GPU, MONDAY + 12 * HOUR)
    assert gone == pytest.approx(MONDAY + 12 * HOUR + 18 / 12 * 86400, rel=1e-6)
    off = ran(often, GPU, None, MONDAY + 12 * HOUR, MONDAY + 12 * HOUR)
    idle = ran(off, GPU, None, MONDAY + 72 * HOUR, MONDAY + 72 * HOUR)
    assert short(idle, GPU, MONDAY + 72 * HOUR) is None


def test_credit_is_forecast_against_its_last_day():
    state = on_for(MeterState("k"), CREDIT, MONDAY, 72)
    gone = short(state, CREDIT, MONDAY + 72 * HOUR)
    assert gone is not None
    assert gone == pytest.approx(MONDAY + 300 / 0.35 * HOUR, rel=0.05)


# ── storing ─────────────────────────────────────────────────────────────────────────────────────

amounts = st.floats(0, 1e6)
slots = st.builds(Slot, until=amounts, amount=amounts)


@given(
    st.builds(
        MeterState,
        key=st.just("k"),
        slots=st.lists(slots, max_size=3).map(tuple),
        block=st.none() | st.builds(Block, amount=amounts, used=amounts, opened_at=amounts),
        paces=st.lists(slots, max_size=3).map(tuple),
        out=st.booleans(),
    )
)
def test_a_state_survives_being_stored(state):
    adapter = TypeAdapter(MeterState)
    assert adapter.validate_json(adapter.dump_json(state)) == state
