"""The machine's clocks and randomness: the only file that reads them."""

from __future__ import annotations

import random  # noqa: TID251 - this is the port
import time  # noqa: TID251 - this is the port
from typing import Final

BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

SystemRandom = random.SystemRandom


class SystemClock:
    """Implements `backends.base.Clock` with the system's clocks.

    Steady seconds are Unix time at construction carried on by the monotonic clock; `not_before`
    moves them past what an earlier run stored, should the wall clock have been set back since.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def not_before(self, at: float) -> None:
        """Make steady seconds start no earlier than `at`; call before anything reads them."""
        self._offset = max(self._offset, at - time.monotonic())

    def steady(self) -> float:
        return time.monotonic() + self._offset

    def wall(self) -> float:
        return time.time()

    def boot(self) -> float:
        return time.clock_gettime(BOOTTIME)
