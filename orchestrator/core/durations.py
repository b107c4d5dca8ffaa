"""Durations as people write and say them."""

from __future__ import annotations

import re
from typing import Final

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
ONE: Final = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)"
_ONE: Final = re.compile(ONE)
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def seconds(text: str) -> float:
    """Read `"250ms"` as 0.25. Raises ValueError in the user's words."""
    found = _ONE.fullmatch(text)
    if found is None:
        raise ValueError("a duration is a number with ms, s, m, h or d, such as `90s` or `4h`")
    return float(found[1]) * UNITS_S[found[2]]


def spoken(seconds: float) -> str:
    """Say a length of time in one or two units: `45 s`, `12 min`, `2 h`, `1 h 30 min`, `3 d`."""
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    big, small, big_s, small_s = ("h", "min", _HOUR, _MINUTE)
    if whole >= 2 * _DAY:
        big, small, big_s, small_s = ("d", "h", _DAY, _HOUR)
    rest = whole % big_s // small_s
    return f"{whole // big_s} {big}" + (f" {rest} {small}" if rest else "")
