"""Virtual time: an event loop in which waiting takes none, and the clocks of a simulated machine.

The loop is asyncio's own, but for how it waits: it watches no file, moves the clock on instead and
runs what the world has on its agenda meanwhile. Waiting for nothing is a deadlock and is reported;
threads are refused, for they would run in real time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import copy_context
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


class _Handle(asyncio.Handle):
    """A callback that is due, as asyncio's own, without what is there for debugging."""

    def __init__(
        self, callback: Any, args: tuple[Any, ...], loop: VirtualLoop, context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled, self._repr, self._source_traceback = False, None, None


class _Timer(asyncio.TimerHandle):
    """A callback that is due at a time of its own."""

    def __init__(
        self, when: float, callback: Any, args: tuple[Any, ...], loop: VirtualLoop, context: Any
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop, self._callback, self._args = loop, callback, args
        self._cancelled, self._repr, self._source_traceback = False, None, None
        self._when, self._scheduled = when, True

    def __lt__(self, other: _Timer) -> bool:
        return self._when < other._when

    def cancel(self) -> None:
        self._cancelled, self._callback, self._args = True, None, None


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on `time`. It has no files, no signals and no threads.

    What asyncio does for each callback is most of what a simulated day costs, so it is done here in
    as few steps as can be, in asyncio's own order.
    """

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time
        self._clock_resolution = 1e-9
        self._frozen = False  # the process is dead, nobody waits

    def time(self) -> float:
        return self._time.monotonic()

    def freeze(self) -> None:
        """Let no more time pass: what still runs is cleared away."""
        self._frozen = True

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        return timer

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time.monotonic() + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Call whoever is ready; if nobody is, let time pass until somebody may be."""
        ready = self._ready
        if not ready:
            self._wait()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _wait(self) -> None:
        scheduled, time = self._scheduled, self._time
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        if self._stopping:
            return
        if not scheduled:
            raise Deadlock("no timer is set and nobody is ready")
        wait_s = scheduled[0]._when - time.monotonic()
        if wait_s > 0:
            if self._frozen:
                raise Deadlock("a cancelled task waits for a timer")
            time.advance(wait_s)
        due = time.monotonic() + self._clock_resolution
        while scheduled and scheduled[0]._when < due:
            self._ready.append(heapq.heappop(scheduled))

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        raise RuntimeError("a thread would run in real time; use the runner `inline()`")
