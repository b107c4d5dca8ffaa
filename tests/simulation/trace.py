"""What happened, in order: a hash of all of it, and the lines a reader needs to follow it."""

from __future__ import annotations

import hashlib
from collections import deque

from tests.simulation.virtual import Time

KEPT = 20_000


class Trace:
    """The story of one run. Everything goes into `digest`; what a reader wants, into `lines`."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self._hash = hashlib.blake2b(digest_size=16)
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=KEPT)

    def mark(self, what: str) -> None:
        """Take a detail into the hash."""
        self._hash.update(f"{self._time.true:.6f} {what}\n".encode())

    def tell(self, who: str, what: str) -> None:
        """Take a line into the hash and the story."""
        self.mark(f"{who}: {what}")
        self.lines.append((self._time.true, who, what))

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def story(self, *, before: float, seconds: float = 600.0) -> str:
        """Lay out the lines of the last `seconds` before a moment."""
        shown = [line for line in self.lines if before - seconds <= line[0] <= before + 1.0]
        return "\n".join(f"  {clock(at)}  {who:<9} {what}" for at, who, what in shown)


def clock(at: float) -> str:
    """Write a true time as day and time of day."""
    day, rest = divmod(at, 86400.0)
    hour, rest = divmod(rest, 3600.0)
    minute, second = divmod(rest, 60.0)
    return f"{day:.0f}d {hour:02.0f}:{minute:02.0f}:{second:06.3f}"
