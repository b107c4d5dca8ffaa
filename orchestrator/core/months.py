"""What each calendar month took: kept beside the meters and the power of backends, for receipts.

Months are those of the operator's calendar, whatever periods a quota has. All times here are Unix
seconds by the wall clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from orchestrator.core.hours import zone_of
from orchestrator.core.quiet import instant

KEPT = 13  # the present month and the twelve before it
NAME = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Month:
    """What one month took of a meter, in the meter's unit.

    `counted`: by us; `corrected`: what the provider's figures put on top of that, or took off.
    `said`: the last figure that the provider gave in it, of the meter's own period, at `said_at`,
    and `ours`: what we had counted in that period till then.
    """

    name: str
    counted: float = 0.0
    corrected: float = 0.0
    said: float | None = None
    ours: float = 0.0
    said_at: float | None = None


@dataclass(frozen=True, slots=True)
class PowerMonth:
    """What one month saw of a backend that is started and stopped.

    `starts` asked for, `failed` of these that came to nothing, and for how long it was on.
    """

    name: str
    starts: int = 0
    failed: int = 0
    on_s: float = 0.0


M = TypeVar("M", Month, PowerMonth)


def name_of(wall: float, zone: str) -> str:
    """Name the month around that time, such as "2026-11"."""
    return f"{datetime.fromtimestamp(wall, zone_of(zone)):%Y-%m}"


def bounds(name: str, zone: str) -> tuple[float, float]:
    """Say when a month begins and when the next one does. Raises ValueError for no month."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError('expected a month, such as "2026-11"')
    first = datetime(int(found[1]), int(found[2]), 1)  # noqa: DTZ001 - local
    after = (first + timedelta(days=32)).replace(day=1)
    return instant(first, zone_of(zone)), instant(after, zone_of(zone))


def lately(months: tuple[Month, ...], wall: float) -> bool:
    """Say whether anything is known of a month that is still kept."""
    oldest = name_of(wall - KEPT * 31 * 86400.0, "UTC")
    return any(one.name >= oldest for one in months)


def shares(begins: float, ends: float, zone: str) -> Iterator[tuple[str, float]]:
    """Yield the months that a time touches, each with how many seconds of it."""
    while begins < ends:
        name = name_of(begins, zone)
        until = min(ends, bounds(name, zone)[1])
        yield name, until - begins
        begins = until


def took(
    months: tuple[Month, ...],
    zone: str,
    wall: float,
    *,
    counted: float = 0.0,
    corrected: float = 0.0,
    over_s: float = 0.0,
) -> tuple[Month, ...]:
    """Note what was taken until `wall`, evenly over the last `over_s` seconds."""
    parts = list(shares(wall - over_s, wall, zone)) if over_s > 0 else []
    parts = parts or [(name_of(wall, zone), 1.0)]
    whole = sum(share for _, share in parts)
    for name, share in parts:
        one = _of(months, Month(name))
        one = replace(
            one,
            counted=one.counted + counted * share / whole,
            corrected=one.corrected + corrected * share / whole,
        )
        months = _with(months, one)
    return months


def said(
    months: tuple[Month, ...], zone: str, wall: float, figure: float, ours: float
) -> tuple[Month, ...]:
    """Note a provider's figure beside what we had counted till then."""
    one = _of(months, Month(name_of(wall, zone)))
    return _with(months, replace(one, said=figure, ours=ours, said_at=wall))


def _of(months: tuple[M, ...], new: M) -> M:
    """Give what is known of that month, else the new one."""
    return next((one for one in months if one.name == new.name), new)


def _with(months: tuple[M, ...], one: M) -> tuple[M, ...]:
    found = [each for each in months if each.name != one.name]
    found.append(one)
    found.sort(key=lambda each: each.name)
    return tuple(found[-KEPT:])


# ── power ───────────────────────────────────────────────────────────────────────────────────────


def started(
    months: tuple[PowerMonth, ...], zone: str, wall: float, *, failed: bool = False
) -> tuple[PowerMonth, ...]:
    """Note a start, or that one came to nothing."""
    one = _of(months, PowerMonth(name_of(wall, zone)))
    more = replace(one, failed=one.failed + 1) if failed else replace(one, starts=one.starts + 1)
    return _with(months, more)


def was_on(
    months: tuple[PowerMonth, ...], zone: str, begins: float, ends: float
) -> tuple[PowerMonth, ...]:
    """Note for how long it was on."""
    for name, seconds in shares(begins, ends, zone):
        one = _of(months, PowerMonth(name))
        months = _with(months, replace(one, on_s=one.on_s + seconds))
    return months
