"""Quiet hours: when messages that can wait do wait."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo

Window = tuple[time, time]


def quiet_until(wall: float, window: Window | None, zone: tzinfo) -> float | None:
    """Return the Unix time at which the quiet hours around `wall` end, None when it is not quiet.

    `window` is start and end by the operator's clock in `zone`; it may cross midnight. Equal start
    and end: never quiet. Start and end are instants, so an hour that daylight saving repeats does
    not begin the quiet a second time, and one that it skips does not swallow the end.
    """
    if window is None or window[0] == window[1]:
        return None
    start, end = window
    today = datetime.fromtimestamp(wall, zone).date()
    for day in (today - timedelta(days=1), today):
        last = day if start < end else day + timedelta(days=1)
        begins = instant(datetime.combine(day, start), zone)
        ends = instant(datetime.combine(last, end), zone)
        if begins <= wall < ends:
            return ends
    return None


def instant(local: datetime, zone: tzinfo) -> float:
    """Return the Unix time of a clock reading: the first of two, the shifted one of none."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC).timestamp()
