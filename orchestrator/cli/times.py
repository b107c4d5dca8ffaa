"""Durations and moments as an operator writes and reads them.

The daemon's own `as_of` is the present, so that a skewed clock on this machine misleads nobody.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from orchestrator.core.durations import ONE, UNITS_S, spoken
from orchestrator.errors import Declined

_DURATION = re.compile(ONE)
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class BadTime(Declined):
    """A time or duration that cannot be read: a usage error."""


def duration(text: str) -> float:
    """Read "90s", "15m", "4h" or "1h30m" as seconds. Raises BadTime."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadTime(f"{text!r} is not a duration; write 90s, 15m, 4h or 1h30m")
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in parts)
    if seconds <= 0:
        raise BadTime("a duration must be longer than zero")
    return float(seconds)


def moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read "22:30" (the next one, in `zone`, by default this machine's), "+2h" or RFC 3339.

    Raises BadTime for anything else and for the past.
    """
    if text.startswith("+"):
        return now + timedelta(seconds=duration(text[1:]))
    if match := _CLOCK.fullmatch(text):
        return _next(now, int(match[1]), int(match[2]), zone)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        example = "write 22:30, +2h or 2026-11-21T22:30:00Z"
        raise BadTime(f"{text!r} is not a time; {example}") from error
    if at.tzinfo is None:
        at = at.astimezone() if zone is None else at.replace(tzinfo=zone)
    if at <= now:
        raise BadTime(f"{text} is in the past")
    return at


def _next(now: datetime, hour: int, minute: int, zone: tzinfo | None) -> datetime:
    """Return the next moment at which the clock on the wall says so.

    Zone-less times are compared, for on the day of a clock change tomorrow's offset is another.
    """
    here = now.astimezone(zone).replace(tzinfo=None)
    at = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if at <= here:
        at += timedelta(days=1)
    return at.replace(tzinfo=zone) if zone else at.astimezone()


def rfc3339(at: datetime) -> str:
    """Write a moment for the API."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str | None) -> datetime | None:
    """Read a time of the API; None stays None."""
    return datetime.fromisoformat(text) if text else None


def ago(text: str | None, as_of: str | None) -> str:
    """Say how long before `as_of` it was ("12 min"); "" if it never was."""
    then, now = parsed(text), parsed(as_of)
    return spoken((now - then).total_seconds()) if then and now else ""


def until(text: str | None, as_of: str | None) -> str:
    """Say when it will be: on the clock here, and in how long; "" if never."""
    then, now = parsed(text), parsed(as_of)
    if not then or not now:
        return ""
    left_s = (then - now).total_seconds()
    return f"{clock(then, now)} (in {spoken(left_s)})" if left_s > 0 else clock(then, now)


def clock(at: datetime, now: datetime) -> str:
    """Write the time of day here, with the date if that is not today's."""
    here, today = at.astimezone(), now.astimezone()
    return here.strftime("%H:%M" if here.date() == today.date() else "%a %d %b %H:%M")
