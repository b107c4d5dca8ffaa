"""Hours in which a backend should be on: levels by the operator's calendar, never replayed.

What counts is whether it should be on now. A daemon that was not there while they began starts it
late; one that was not there for all of them starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from orchestrator.core.hours import zone_of
from orchestrator.core.quiet import instant
from orchestrator.core.spans import Span, joined

EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)
WEEK_DAYS = 8  # so many days ahead the next hours begin, if there are any
DAY_MIN = 1440


@dataclass(frozen=True, slots=True)
class OnHours:
    """From and until in minutes of the day, on these days (Monday is 0).

    `until` up to `from`: over midnight; the hours belong to the day on which they begin. 0 to 1440:
    the whole day.
    """

    begins: int
    ends: int
    days: tuple[int, ...] = EVERY_DAY


def spans(hours: OnHours, zone: str, begins: float, ends: float) -> list[Span]:
    """List these hours as far as they touch the time between two Unix times, whole, in order.

    They are instants, so on the day that daylight saving begins or ends they are an hour shorter or
    longer where the clock says so. What the clock skips belongs to none; what it shows twice begins
    them once. Hours that touch are one span.
    """
    local = zone_of(zone)
    first = datetime.fromtimestamp(begins, local).toordinal() - 1
    last = datetime.fromtimestamp(ends, local).toordinal()
    found = (_of_day(hours, zone, day) for day in range(first, last + 1))
    whole = joined(span for span in found if span is not None)
    return [span for span in whole if span[0] < ends and span[1] > begins]


def until(hours: OnHours | None, zone: str, wall: float) -> float | None:
    """Say until when (Unix) it should be on, if it should be now."""
    if hours is None:
        return None
    today = datetime.fromtimestamp(wall, zone_of(zone)).toordinal()
    ends: float | None = None
    for day in range(today - 1, today + WEEK_DAYS):
        span = _of_day(hours, zone, day)
        if span is not None and span[0] <= (wall if ends is None else ends) < span[1]:
            ends = span[1]
    return ends


def next_from(hours: OnHours, zone: str, wall: float) -> float | None:
    """Say when (Unix) these hours begin after that; None: never."""
    today = datetime.fromtimestamp(wall, zone_of(zone)).toordinal()
    found = (_of_day(hours, zone, day) for day in range(today, today + WEEK_DAYS))
    return next((span[0] for span in found if span is not None and span[0] > wall), None)


@lru_cache(maxsize=1024)
def _of_day(hours: OnHours, zone: str, day: int) -> Span | None:
    """Give the hours that begin on that day (an ordinal), None if none do."""
    begin = date.fromordinal(day)
    if begin.weekday() not in hours.days:
        return None
    over = begin if hours.ends > hours.begins else begin + timedelta(days=1)
    return _instant(begin, hours.begins, zone), _instant(over, hours.ends, zone)


def _instant(day: date, minute: int, zone: str) -> float:
    day += timedelta(days=minute // DAY_MIN)
    local = datetime.combine(day, time(minute % DAY_MIN // 60, minute % 60))
    late = instant(local, zone_of(zone))
    early = local.replace(tzinfo=zone_of(zone), fold=1).timestamp()
    return late if early >= late else _jump(zone_of(zone), early, late)


def _jump(zone: ZoneInfo, early: float, late: float) -> float:
    """Find when the clock was put forward between these: a reading that it skips counts as then."""
    after = datetime.fromtimestamp(late, zone).utcoffset()
    while late - early > 1.0:
        middle = (early + late) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late
