"""When a meter starts again: calendar periods in a time zone, rolling periods, or never.

All times are Unix seconds by the wall clock, since calendars are about that. A day is from one
local start of day to the next, so it lasts 23 or 25 hours when daylight saving begins or ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

FOREVER = 221845392000.0  # the year 9000: a meter that never starts again
SLICES = 60  # a rolling period forgets in this many steps


class Per(StrEnum):
    """How long a period is. EVER: what is spent stays spent."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    EVER = "ever"


LENGTHS_S = {
    Per.MINUTE: 60.0,
    Per.HOUR: 3600.0,
    Per.DAY: 86400.0,
    Per.WEEK: 604800.0,
    Per.MONTH: 2592000.0,  # a rolling month has 30 days
}


@dataclass(frozen=True, slots=True)
class Window:
    """The period that a limit is for.

    `rolling`: use is forgotten one period after it happened; else periods begin by the calendar of
    `timezone`: days at `hour`, weeks on `weekday` (Monday is 0) at `hour`, months on the first at
    `hour`. `expires_at`: Unix seconds from which nothing is left.
    """

    per: Per = Per.EVER
    timezone: str = "UTC"
    rolling: bool = False
    weekday: int = 0
    hour: int = 0
    expires_at: float | None = None


EVER = Window()


def counts_until(window: Window, wall: float) -> float:
    """Say until when something spent at `wall` counts."""
    if window.per is Per.EVER:
        return FOREVER
    if window.rolling:
        slice_s = LENGTHS_S[window.per] / SLICES
        return (wall // slice_s + 1) * slice_s + LENGTHS_S[window.per]
    return _next(window, wall)


def begins(window: Window, wall: float) -> float | None:
    """Say when the period around `wall` began; None where there is none."""
    if window.per is Per.EVER:
        return None
    if window.rolling:
        return wall - LENGTHS_S[window.per]
    return _last(window, wall)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _short(window: Window) -> float | None:
    """Give the length of periods that are simply so many seconds; None for the calendar's."""
    return LENGTHS_S[window.per] if window.per in (Per.MINUTE, Per.HOUR) else None


def _last(window: Window, wall: float) -> float:
    short_s = _short(window)
    if short_s is not None:
        return wall - (wall + _offset_s(window, wall)) % short_s
    local = datetime.fromtimestamp(wall, _zone(window.timezone))
    start = _start_of(window, local)
    if _instant(window, start) > wall:
        start = _start_of(window, _back(window, start))
    return _instant(window, start)


def _next(window: Window, wall: float) -> float:
    short_s = _short(window)
    if short_s is not None:
        return _last(window, wall) + short_s
    local = datetime.fromtimestamp(wall, _zone(window.timezone))
    start = _start_of(window, local)
    if _instant(window, start) > wall:
        return _instant(window, start)
    return _instant(window, _forward(window, start))


def _offset_s(window: Window, wall: float) -> float:
    offset = datetime.fromtimestamp(wall, _zone(window.timezone)).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _start_of(window: Window, local: datetime) -> datetime:
    """Give the start, by the clock on the wall, of the period of that date, at `hour`."""
    day = datetime(local.year, local.month, local.day, window.hour)  # noqa: DTZ001 - local
    if window.per is Per.WEEK:
        return day - timedelta(days=(day.weekday() - window.weekday) % 7)
    if window.per is Per.MONTH:
        return day.replace(day=1)
    return day


def _back(window: Window, start: datetime) -> datetime:
    return start - timedelta(days=7 if window.per is Per.WEEK else 1)


def _forward(window: Window, start: datetime) -> datetime:
    if window.per is Per.WEEK:
        return start + timedelta(days=7)
    if window.per is Per.MONTH:
        return (start + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=1)


def _instant(window: Window, local: datetime) -> float:
    """Return the Unix time of a clock reading: the first of two, the shifted one of none."""
    return local.replace(tzinfo=_zone(window.timezone), fold=0).astimezone(UTC).timestamp()
