"""When jobs run: cron lines as cron means them, and plain intervals.

APScheduler's own cron trigger differs from cron: it counts weekdays from Monday = 0, asks for both
day fields where cron asks for either, and goes round in circles in the hour that daylight saving
repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from orchestrator.errors import ConfigError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = 5
_INSTANT = timedelta(microseconds=1)


def every(seconds: float) -> BaseTrigger:
    """Return a trigger that fires each `seconds`, the first time one interval from now."""
    return IntervalTrigger(seconds=seconds, timezone="UTC")


def cron(line: str, timezone: str) -> BaseTrigger:
    """Return a trigger for a crontab line (crontab(5)), by the clock of `timezone`.

    Sunday is 0 or 7; when both day fields are restricted, either is enough. Raises `ConfigError`.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"time zone `{timezone}` is not known here") from error
    fields = _ALIASES.get(line.strip().lower(), line).split()
    if len(fields) != _FIELDS:
        raise ConfigError(f"`{line}` is not a cron line: it has {len(fields)} fields, not 5")
    minute, hour, day, month, weekday = fields
    weekdays = _weekdays(weekday, line)
    common: dict[str, Any] = {"minute": minute, "hour": hour, "month": month, "timezone": zone}
    try:
        if day.startswith("*") or weekday.startswith("*"):
            found = CronTrigger(day=day, day_of_week=weekdays, **common)
        else:
            either = CronTrigger(day=day, **common), CronTrigger(day_of_week=weekdays, **common)
            found = OrTrigger(either)
    except (ValueError, KeyError) as error:
        raise ConfigError(f"`{line}` is not a cron line: {error}") from error
    return _Cron(found, once=not hour.startswith("*"))


def _weekdays(field: str, line: str) -> str:
    """Translate cron's weekday field into names, which mean the same to everyone."""
    if field == "*":
        return "*"
    days: set[int] = set()
    for part in field.split(","):
        days.update(_range(part.lower(), line))
    return ",".join(_DAYS[day] for day in sorted(days))


def _range(part: str, line: str) -> Iterator[int]:
    span, _, step = part.partition("/")
    first, dash, last = span.partition("-")
    if span == "*":
        low, high = 0, 6
    else:
        low = _day(first, line)
        high = _day(last, line) if dash else (6 if step else low)
    if high < low:
        high += 7  # fri-mon
    if step and not (step.isdigit() and int(step)):
        raise ConfigError(f"`{line}` is not a cron line: `{part}`")
    for day in range(low, high + 1, int(step or 1)):
        yield day % 7


def _day(name: str, line: str) -> int:
    if name in _DAYS:
        return _DAYS.index(name)
    if len(name) == 1 and name in "01234567":
        return int(name)
    raise ConfigError(f"`{line}` is not a cron line: `{name}` is no weekday")


class _Cron(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """Asks a cron trigger in UTC; `once`: passes over the second of two equal clock readings.

    Given a previous time within the repeated hour, APScheduler 3.11's cron trigger returns that
    same time for ever. Asked afresh for the first time after an instant in UTC, it is right.
    Answers are in UTC too: Python compares times of one zone without looking at the fold.
    """

    def __init__(self, inner: BaseTrigger, *, once: bool) -> None:
        self.inner = inner
        self.once = once

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        after = now.astimezone(UTC)
        if previous_fire_time is not None:
            after = min(after, previous_fire_time.astimezone(UTC) + _INSTANT)
        found = self._after(after)
        while self.once and found is not None and found.fold:
            found = self._after(found.astimezone(UTC) + _INSTANT)
        return found.astimezone(UTC) if found is not None else None

    def _after(self, instant: datetime) -> datetime | None:
        found: datetime | None = self.inner.get_next_fire_time(None, instant)
        return found

    def __repr__(self) -> str:
        return repr(self.inner)
