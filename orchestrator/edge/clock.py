"""The machine's clocks and randomness: the only file that reads them."""

from __future__ import annotations

import random  # noqa: TID251 - this is the port
import time  # noqa: TID251 - this is the port
from collections.abc import Callable
from typing import Final

BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

SystemRandom = random.SystemRandom
SeededRandom = random.Random  # the same numbers again for the same seed


class CarriedClock:
    """Implements `backends.base.Clock` on three readings, in seconds.

    Steady seconds are Unix time at construction carried on by `monotonic`; `not_before` moves them
    past what an earlier run stored, should the wall clock have been set back since. `boot` goes on
    while the machine is suspended.
    """

    def __init__(
        self, monotonic: Callable[[], float], wall: Callable[[], float], boot: Callable[[], float]
    ) -> None:
        self._monotonic, self.wall, self.boot = monotonic, wall, boot
        self._offset = wall() - monotonic()

    def not_before(self, at: float) -> None:
        """Make steady seconds start no earlier than `at`; call before anything reads them."""
        self._offset = max(self._offset, at - self._monotonic())

    def steady(self) -> float:
        return self._monotonic() + self._offset


class SystemClock(CarriedClock):
    """The machine's clocks."""

    def __init__(self) -> None:
        super().__init__(time.monotonic, time.time, lambda: time.clock_gettime(BOOTTIME))
