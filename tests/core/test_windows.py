"""When periods begin and end: by the calendar of a place, rolling, or never."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.windows import FOREVER, LENGTHS_S, Per, Window, begins, counts_until

BERLIN, NEW_YORK, UTC_NAME = "Europe/Berlin", "America/New_York", "UTC"
CALENDAR = [Per.MINUTE, Per.HOUR, Per.DAY, Per.WEEK, Per.MONTH]
ZONES = [UTC_NAME, BERLIN, NEW_YORK, "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo"]
FROM, TO = 1_700_000_000, 1_900_000_000

windows = st.builds(
    Window,
    per=st.sampled_from(CALENDAR),
    timezone=st.sampled_from(ZONES),
    weekday=st.integers(0, 6),
    hour=st.integers(0, 23),
)


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def local(wall: float, zone: str) -> datetime:
    return datetime.fromtimestamp(wall, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("window", "inside", "began", "ends"),
    [
        (
            Window(Per.WEEK, weekday=5),
            "2026-11-18T12:00+00:00",
            "2026-11-14T00:00+00:00",
            "2026-11-21T00:00+00:00",
        ),
        (
            Window(Per.WEEK, weekday=5, hour=7),
            "2026-11-21T06:59:59+00:00",
            "2026-11-14T07:00+00:00",
            "2026-11-21T07:00+00:00",
        ),
        (  # the day on which summer begins has 23 hours …
            Window(Per.DAY, BERLIN),
            "2027-03-28T12:00+02:00",
            "2027-03-28T00:00+01:00",
            "2027-03-29T00:00+02:00",
        ),
        (  # … and the one on which it ends 25
            Window(Per.DAY, NEW_YORK),
            "2026-11-01T12:00-05:00",
            "2026-11-01T00:00-04:00",
            "2026-11-02T00:00-05:00",
        ),
        (  # an hour that is skipped does not swallow the reset
            Window(Per.DAY, BERLIN, hour=2),
            "2027-03-28T03:30+02:00",
            "2027-03-28T03:00+02:00",
            "2027-03-29T02:00+02:00",
        ),
        (  # and one that comes twice does not reset twice
            Window(Per.DAY, BERLIN, hour=2),
            "2026-10-25T02:30+01:00",
            "2026-10-25T02:00+02:00",
            "2026-10-26T02:00+01:00",
        ),
        (
            Window(Per.MONTH, NEW_YORK),
            "2026-02-14T12:00-05:00",
            "2026-02-01T00:00-05:00",
            "2026-03-01T00:00-05:00",
        ),
        (
            Window(Per.MONTH, UTC_NAME, hour=8),
            "2026-03-01T07:59+00:00",
            "2026-02-01T08:00+00:00",
            "2026-03-01T08:00+00:00",
        ),
        (
            Window(Per.HOUR, "Asia/Kolkata"),
            "2026-11-21T10:45+05:30",
            "2026-11-21T10:00+05:30",
            "2026-11-21T11:00+05:30",
        ),
    ],
)
def test_a_period_begins_and_ends_by_the_calendar(window, inside, began, ends):
    assert begins(window, unix(inside)) == unix(began)
    assert counts_until(window, unix(inside)) == unix(ends)
    assert counts_until(window, unix(ends)) > unix(ends)


@given(windows, st.integers(FROM, TO))
def test_every_moment_is_in_exactly_one_period(window, wall):
    began, ends = begins(window, wall), counts_until(window, wall)
    assert began is not None
    assert began <= wall < ends
    assert begins(window, began) == began
    assert begins(window, ends) == ends
    assert counts_until(window, began) == ends


@given(windows, st.integers(FROM, TO))
def test_periods_begin_when_the_local_clock_says_so(window, wall):
    ends = local(counts_until(window, wall), window.timezone)
    assert (ends.second, ends.microsecond) == (0, 0)
    if window.per in (Per.DAY, Per.WEEK, Per.MONTH):
        skipped = ends - timedelta(hours=1)  # an hour there is not that day, so it is the next one
        back = skipped.astimezone(UTC).astimezone(ZoneInfo(window.timezone))
        assert ends.hour == window.hour or back.replace(tzinfo=None) != skipped.replace(tzinfo=None)
    if window.per is Per.WEEK:
        assert ends.weekday() == window.weekday
    if window.per is Per.MONTH:
        assert ends.day == 1


@given(st.sampled_from(CALENDAR), st.floats(FROM, TO))
def test_what_rolls_counts_for_a_whole_period_and_little_more(per, wall):
    until = counts_until(Window(per, rolling=True), wall)
    assert wall + LENGTHS_S[per] <= until <= wall + LENGTHS_S[per] * (1 + 1 / 59)


def test_what_never_starts_again_counts_for_ever():
    assert counts_until(Window(), FROM) == FOREVER
    assert begins(Window(), FROM) is None
