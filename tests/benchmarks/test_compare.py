"""What is held against what; nothing here is timed."""

import json

import pytest

from benchmarks.__main__ import read, same, table, write
from benchmarks.baseline import TIMES
from benchmarks.compare import blind, change, changes, gone, merged, refreshed
from benchmarks.world import Base, Row, limited, quantile
from benchmarks.yardstick import WORKS


def timed(ms: float, base_ms: float, name: str = "a turn", kind: str = "sync", **more) -> Row:
    row = limited(name, ms, None, "ms", base=Base(kind, base_ms))
    for key, value in more.items():
        setattr(row, key, value)
    return row


def held(mb: float, name: str = "memory", **more) -> Row:
    row = limited(name, mb, 100, "MB")
    for key, value in more.items():
        setattr(row, key, value)
    return row


# ── one row ─────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_half_as_fast_changes_nothing():
    assert change(timed(6, 2), timed(3, 1)).times == pytest.approx(1.0)


def test_a_time_that_grew_while_its_baseline_did_not_is_worse():
    found = change(timed(4, 1), timed(3, 1))
    assert (found.times, found.worse) == (pytest.approx(4 / 3), True)
    assert "WORSE" in str(found)


def test_what_is_within_the_bound_is_not_worse():
    assert not change(timed(3.7, 1), timed(3, 1)).worse
    assert change(timed(3.7, 1), timed(3, 1), bound=1.2).worse


def test_what_became_better_is_not_worse():
    found = change(timed(1, 1), timed(3, 1))
    assert not found.worse
    assert str(found) == "0.33 times"


def test_what_has_no_time_is_compared_by_itself():
    assert change(held(90), held(60)).times == pytest.approx(1.5)


def test_a_row_that_varies_by_itself_is_allowed_twice_that():
    noisy = timed(3, 1, noise=0.4)
    assert not change(timed(5.3, 1), noisy).worse
    assert change(timed(5.5, 1), noisy).worse


def test_a_calm_row_is_not_allowed_less_than_the_bound():
    assert not change(timed(3.7, 1), timed(3, 1, noise=0.01)).worse


@pytest.mark.parametrize(
    "old",
    [
        None,
        timed(3, 1, kind="echo"),  # measured against other work
        held(3, name="a turn"),  # had no baseline then
        timed(0, 1),
        Row("a turn", "as text"),
    ],
)
def test_what_cannot_be_compared_is_not(old):
    assert change(timed(3, 1), old) is None


def test_a_row_that_only_tells_is_not_compared():
    assert change(Row("peer", "16 ms"), Row("peer", "8 ms")) is None


# ── a run ───────────────────────────────────────────────────────────────────────────────────────


def test_every_row_meets_the_committed_one_of_its_name():
    found = changes([timed(4, 1), held(90), held(1, "new")], [held(90), timed(2, 1)])
    assert {name: one and one.times for name, one in found.items()} == {
        "a turn": 2.0,
        "memory": 1.0,
        "new": None,
    }


def test_two_rows_of_one_name_are_refused():
    with pytest.raises(ValueError, match="memory"):
        changes([held(1), held(2)], [])


def test_what_a_measured_part_no_longer_gives_is_named_and_other_parts_are_not():
    before = [held(1, "kept", part="p"), held(1, "lost", part="p"), held(1, "other", part="q")]
    assert gone([held(1, "kept", part="p")], before) == ["lost"]


def test_of_several_runs_the_middle_one_is_kept_with_their_range():
    row = merged([[timed(3, 1)], [timed(8, 2)], [timed(3.3, 1)]])[0]
    assert row.figures["value"] == 3.3, "the ratios are 3, 4 and 3.3"
    assert row.noise == pytest.approx(4 / 3 - 1)


def test_one_run_says_nothing_of_noise():
    assert merged([[timed(3, 1)]])[0].noise is None


def test_a_bound_missed_in_one_of_several_runs_is_missed():
    row = merged([[held(90)], [held(101)], [held(91)]])[0]
    assert row.ok is False


def test_a_part_that_failed_in_one_of_several_runs_is_seen():
    failed = Row("store", "failed: OSError", ok=False)
    assert [row.name for row in merged([[held(90)], [failed]])] == ["memory", "store"]


# ── what is committed ───────────────────────────────────────────────────────────────────────────


def test_parts_that_were_not_measured_stay_as_they_were():
    before = [held(1, "one", part="p"), held(2, "two", part="q")]
    after = refreshed([held(3, "two", part="q")], before)
    assert [(row.name, row.figures["value"]) for row in after] == [("one", 1), ("two", 3)]


def test_a_row_measured_once_keeps_the_noise_that_was_found_before():
    before = [held(1, noise=0.1, part="p")]
    assert refreshed([held(2, part="p")], before)[0].noise == 0.1
    assert refreshed([held(2, noise=0.3, part="p")], before)[0].noise == 0.3


def test_rows_that_vary_too_much_to_be_compared_with_are_named():
    assert blind([held(1, "calm", noise=0.2), held(1, "wild", noise=1.5), held(1, "once")]) == [
        "wild"
    ]


def test_what_is_written_is_read_again(tmp_path):
    rows = [timed(3, 2, part="turns", noise=0.1), held(90)]
    write(tmp_path / "new" / "a.json", {"cpu": "x"}, rows)
    assert read(tmp_path / "new" / "a.json") == ({"cpu": "x"}, rows)
    figures = json.loads((tmp_path / "new" / "a.json").read_text())["rows"][0]["figures"]
    assert figures == {"value": 3, "baseline_ms": 2, "ratio": 1.5}


def test_without_a_file_there_is_nothing_to_compare_with(tmp_path):
    assert read(tmp_path / "none.json") == ({}, [])


def test_a_machine_is_the_same_on_another_day():
    one = {"cpu": "x", "date": "2026-01-01", "load_before": 0.1}
    assert same(one, {**one, "date": "2026-01-02", "load_before": 3.0})
    assert not same(one, {**one, "cpu": "y"})
    assert not same(one, {})


def test_the_table_shows_the_change_beside_its_row():
    rows = [timed(4, 1), held(90)]
    lines = table(rows, changes(rows, [timed(2, 1)])).splitlines()
    assert lines[0].endswith("2.00 times WORSE (≤ 1.25)")
    assert lines[1].endswith("ok")


# ── small ones ──────────────────────────────────────────────────────────────────────────────────


def test_quantiles_are_values_that_were_there():
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 3, 5, 5]


def test_every_kind_of_baseline_can_be_asked_for():
    assert TIMES.keys() == WORKS.keys()


@pytest.mark.parametrize("kind", sorted(WORKS))
def test_the_work_of_a_baseline_can_be_done_again_and_again(kind, tmp_path):
    with WORKS[kind](tmp_path) as work:
        work()
        work()
