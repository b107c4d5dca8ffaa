"""Durations as people write them. Small, because the fake server imports it too."""

from __future__ import annotations

import re
from typing import Final

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)")


def seconds(text: str) -> float:
    """Read `"250ms"` as 0.25. Raises ValueError in the user's words."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("a duration is a number with ms, s, m, h or d, such as `250ms`")
    return float(found[1]) * UNITS[found[2]]
