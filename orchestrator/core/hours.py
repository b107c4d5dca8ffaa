"""Operator hours: when a human can start something, by the clock on the operator's wall."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from orchestrator.core.quiet import instant
from orchestrator.core.spans import Span

Hours = tuple[int, int]
"""From and until, in minutes of the day; until before from: over midnight; equal: always."""


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Give a time zone by its name."""
    return ZoneInfo(name)


def awake(hours: Hours | None, zone: str, begins: float, ends: float) -> list[Span]:
    """List the operator hours that touch the time between two Unix times, whole, in order.

    They are instants, so on the day that daylight saving begins or ends they are an hour shorter or
    longer where the clock says so. None: always.
    """
    if hours is None or hours[0] % 1440 == hours[1] % 1440:
        return [(begins, ends)]
    local = zone_of(zone)
    day = datetime.fromtimestamp(begins, local).date() - timedelta(days=1)
    last = datetime.fromtimestamp(ends, local).date()
    found: list[Span] = []
    while day <= last:
        over = day if hours[0] < hours[1] else day + timedelta(days=1)
        span = (_instant(day, hours[0], local), _instant(over, hours[1], local))
        if span[0] < ends and span[1] > begins:
            found.append(span)
        day += timedelta(days=1)
    return found


def _instant(day: date, minute: int, zone: ZoneInfo) -> float:
    day += timedelta(days=minute // 1440)
    return instant(datetime.combine(day, time(minute % 1440 // 60, minute % 60)), zone)


def clock(wall: float, zone: str) -> str:
    """Say a Unix time as the operator's clock does, with the day of the week."""
    return f"{datetime.fromtimestamp(wall, zone_of(zone)):%a %H:%M}"
