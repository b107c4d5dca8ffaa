from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from jobs.triggers import cron, every
from orchestrator.errors import ConfigError

LISBON = ZoneInfo("Europe/Lisbon")


def fires(line: str, start: datetime, count: int) -> list[datetime]:
    """Ask as the scheduler does: the previous time, and an instant after it."""
    trigger, found, previous, now = cron(line, LISBON.key), [], None, start
    for _ in range(count):
        previous = trigger.get_next_fire_time(previous, now)
        now = previous + timedelta(microseconds=1)
        found.append(previous)
    return found


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("0", {"Sun"}),
        ("7", {"Sun"}),
        ("1", {"Mon"}),
        ("6", {"Sat"}),
        ("sun", {"Sun"}),
        ("MON-fri", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("5-7", {"Fri", "Sat", "Sun"}),
        ("6-1", {"Sat", "Sun", "Mon"}),
        ("0,3", {"Sun", "Wed"}),
        ("*/2", {"Sun", "Tue", "Thu", "Sat"}),
        ("1-5/2", {"Mon", "Wed", "Fri"}),
        ("*", {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}),
    ],
)
def test_weekdays_mean_what_cron_means(field, days):
    found = fires(f"0 3 * * {field}", utc(2026, 11, 1), 14)
    assert {when.strftime("%a") for when in found} == days


def test_two_restricted_day_fields_mean_either():
    found = [when.day for when in fires("0 3 1 * 1", utc(2026, 11, 27), 4)]
    assert found == [30, 1, 7, 14]  # Monday, the first, Monday, Monday


def test_a_daily_job_runs_once_a_day_through_both_changes_of_the_clock():
    for line in ("30 1 * * *", "0 3 * * *", "30 0 * * *"):
        for start in (utc(2026, 10, 20), utc(2027, 3, 24)):
            found = fires(line, start, 10)
            days = [when.astimezone(LISBON).date() for when in found]
            assert len(set(days)) == 10, line
            assert all(b - a == timedelta(days=1) for a, b in pairwise(days))


def test_the_hour_of_a_job_follows_the_operators_clock():
    before, after = fires("0 3 * * *", utc(2026, 10, 24), 2)
    assert (before.hour, after.hour) == (2, 3)


def test_a_job_of_every_half_hour_never_stands_still():
    for start in (utc(2026, 10, 24, 22), utc(2027, 3, 27, 22)):
        found = fires("*/30 * * * *", start, 12)
        assert all(b - a == timedelta(minutes=30) for a, b in pairwise(found))


def test_aliases_are_known():
    assert fires("@daily", utc(2026, 11, 1, 5), 1) == [utc(2026, 11, 2)]


@pytest.mark.parametrize(
    "line",
    ["", "* * * *", "61 * * * *", "0 3 * * 8", "0 3 * * mun", "a b c d e", "0 3 * * 1/0", "@noon"],
)
def test_what_is_no_cron_line_is_refused_in_one_line(line):
    with pytest.raises(ConfigError) as raised:
        cron(line, "UTC")
    assert "\n" not in str(raised.value)


def test_an_unknown_time_zone_is_refused():
    with pytest.raises(ConfigError, match="Mars/Olympus"):
        cron("0 3 * * *", "Mars/Olympus")


def test_an_interval_waits_once_before_it_first_fires():
    now = utc(2026, 11, 1)
    first = every(300).get_next_fire_time(None, now)
    assert first is not None
