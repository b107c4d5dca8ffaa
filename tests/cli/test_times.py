"""How operators write durations and moments, and how they are told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from orchestrator.cli.times import BadTime, ago, duration, moment, rfc3339, until
from orchestrator.core.durations import spoken

LISBON = ZoneInfo("Europe/Lisbon")
NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("4h", 14400), ("1h30m", 5400), ("7d", 604800), ("250ms", 0.25)],
)
def test_a_duration_is_read_as_the_configuration_reads_it_and_may_be_put_together(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "4 h", "-4h", "0s", "h", "4x", "1h-30m", "1h 30m"])
def test_what_is_no_duration_is_refused_as_a_usage_error(text):
    with pytest.raises(BadTime) as caught:
        duration(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:30", "2026-11-21T22:30:00Z"),
        ("19:30", "2026-11-22T19:30:00Z"),
        ("20:00", "2026-11-22T20:00:00Z"),
        ("+2h", "2026-11-21T22:00:00Z"),
        ("2026-12-01T08:00:00+01:00", "2026-12-01T07:00:00Z"),
        ("2026-12-01 08:00", "2026-12-01T08:00:00Z"),
    ],
)
def test_a_moment_is_the_next_one_that_is_meant(text, expected):
    assert rfc3339(moment(text, NOW, LISBON)) == expected


def test_a_time_of_day_across_a_change_of_clocks_is_the_one_on_the_wall():
    before = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)  # 23:00 in Lisbon, summer time
    at = moment("22:30", before, LISBON)  # tomorrow, when winter time holds
    assert rfc3339(at) == "2026-10-25T22:30:00Z"


@pytest.mark.parametrize("text", ["25:00", "soon", "2026-13-01T00:00:00Z", "2026-11-21T19:59:00Z"])
def test_a_moment_that_is_none_or_is_past_is_refused(text):
    with pytest.raises(BadTime):
        moment(text, NOW, LISBON)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "60 s"),
        (120, "2 min"),
        (3600, "1 h"),
        (11100, "3 h 5 min"),
        (86400, "24 h"),
        (176400, "2 d 1 h"),
        (864000, "10 d"),
    ],
)
def test_a_duration_is_told_in_its_largest_units(seconds, text):
    assert spoken(seconds) == text


def test_times_are_told_from_the_daemons_own_present():
    as_of = rfc3339(NOW)
    assert ago(rfc3339(NOW - timedelta(minutes=5)), as_of) == "5 min"
    assert until(rfc3339(NOW + timedelta(hours=2)), as_of).endswith("(in 2 h)")
    assert ago(None, as_of) == until(None, as_of) == ""
