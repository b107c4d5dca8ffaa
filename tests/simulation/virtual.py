"""Virtual time: an event loop in which waiting takes none, and the clocks of a simulated machine.

The loop is asyncio's own; only its selector is ours. It watches no file: `select(t)` moves the
clock on by `t` and runs what the world has on its agenda meanwhile. Waiting for nothing is a
deadlock and is reported; threads are refused, for they would run in real time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, NoReturn

from orchestrator.edge.clock import CarriedClock

EPOCH = 1_780_000_000.0  # Unix time at the beginning of every simulation


class Deadlock(Exception):
    """Everybody waits for something that will never come."""


class Time:
    """True seconds since the beginning, the agenda of the world, and how the clocks are wrong.

    `true` is what an onlooker's watch says. The machine's monotonic clock stands still while it is
    suspended; its wall clock is off by `wall_error`.
    """

    def __init__(self) -> None:
        self.true = 0.0
        self.suspended = 0.0
        self.wall_error = 0.0
        self._asleep = False
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, true: float, what: Callable[[], None]) -> None:
        """Have `what` done at that time, or now if it is past."""
        self._number += 1
        heapq.heappush(self._agenda, (max(true, self.true), self._number, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Have `what` done so many seconds from now."""
        self.at(self.true + seconds, what)

    def advance(self, seconds: float) -> None:
        """Let that much time pass, or less: until the next thing on the agenda was done."""
        until, before = self.true + seconds, self.true
        due = self._agenda and self._agenda[0][0] <= until
        if due:
            self.true, _, what = heapq.heappop(self._agenda)
        else:
            self.true = until
        if self._asleep:
            self.suspended += self.true - before
        if due:
            what()

    def pass_until(self, true: float) -> None:
        """Let time pass with nobody running on this machine."""
        while self.true < true:
            self.advance(true - self.true)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the world goes on, the monotonic clock does not."""
        self._asleep = True
        try:
            self.pass_until(self.true + seconds)
        finally:
            self._asleep = False

    # ── the machine's clocks ────────────────────────────────────────────────────────────────────

    def monotonic(self) -> float:
        return self.true - self.suspended

    def wall(self) -> float:
        return EPOCH + self.true + self.wall_error

    def boot(self) -> float:
        return self.true

    def clock(self) -> CarriedClock:
        """Make the clock of a process that starts now."""
        return CarriedClock(self.monotonic, self.wall, self.boot, "simulated")


class _Selector:
    """Stands where asyncio waits for files. `frozen`: the process is dead, nobody waits."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.frozen = False

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("no timer is set and nobody is ready")
        if timeout > 0 and self.frozen:
            raise Deadlock("a cancelled task waits for a timer")
        if timeout > 0:
            self._time.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on `time`. It has no files, no signals and no threads."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time
        self._selector = _Selector(time)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._time.monotonic()

    def freeze(self) -> None:
        """Let no more time pass: what still runs is cleared away."""
        self._selector.frozen = True

    def _run_once(self) -> None:
        """Do as asyncio does, without looking for files and timers while somebody is ready.

        No time passes meanwhile. This is what most of a simulated day consists of.
        """
        ready = self._ready
        if not ready:
            super()._run_once()
            return
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        raise RuntimeError("a thread would run in real time; use the runner `inline()`")
