"""Time and chance, as the agent reads them: it has no ports, it runs where the daemon does not."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime

from .errors import Refused

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def steady() -> float:
    """Seconds on a clock that is never set."""
    return time.monotonic()


def wall() -> float:
    """Unix time by this machine, which may be wrong."""
    return time.time()


def rfc3339(unix: float) -> str:
    """Write a Unix time down, in UTC."""
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parsed(text: str) -> float:
    """Read an RFC 3339 time. Raises ValueError."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def clock_face(unix: float) -> str:
    """Hours and minutes by the local clock."""
    return time.strftime("%H:%M", time.localtime(unix))


def seconds(text: str, name: str) -> float:
    """Read a duration as in the daemon's configuration: 250ms, 90s, 15m, 12h, 7d, or seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", text)
    if match is None:
        raise Refused(f"{name}: “{text}” is no duration; write it as 250ms, 90s, 15m or 12h")
    return float(match[1]) * UNITS[match[2] or "s"]


def spoken(duration_s: float) -> str:
    """Say a duration in one unit or two."""
    whole = max(0, round(duration_s))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


class Backoff:
    """How long to wait before the next try: doubled each time, with jitter, up to `most_s`."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next(self) -> float:
        """Give the wait before the next try. Jitter keeps many agents from coming at once."""
        wait_s = min(self._next_s, self._most_s)
        self._next_s = min(self._next_s * 2, self._most_s)
        return wait_s * random.uniform(0.6, 1.0)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin with the first wait again."""
        self._next_s = self._first_s
