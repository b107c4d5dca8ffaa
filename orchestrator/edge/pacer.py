"""When each backend is looked at: one heap of due times, one task, bounded work in flight.

Intervals run from the end of a look to the start of the next, with ±10 % jitter, so that backends
never fall into step. A look starts only when its turn has come and the one before was digested.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

import structlog

from backends.base import Clock, Driver, Random
from orchestrator.core.events import Observed
from orchestrator.core.health import JITTER
from orchestrator.core.model import Observation, Source, Verdict

GRID = 0.01  # due times fall on multiples of this share of the interval …
GRID_S = 0.1  # … at most this: what is due about now starts together, for waking up costs too
IN_FLIGHT = 1000  # probes under way at once; more wait their turn
CANARIES_APART_S = 10.0  # one that decided nothing (429, we are cut off) is not repeated at once
NEEDLESS_S = 1.0  # a canary not due for longer than this is put off
PATIENCE = 4.0  # a driver that takes this many time-outs is stuck

log = structlog.get_logger()

Key = tuple[str, Source]
Interval = Callable[[str, Source], float | None]
Report = Callable[[Observed, Callable[[], None]], None]


class Pacer:
    """Looks at backends when they are due.

    `interval_s(name, source)` gives seconds to the next look, None for never; it is asked once a
    look was digested. `limit_s(name, source)` bounds one request of it. `report(event, done)` hands
    an observation in and calls `done` when it was taken into account.
    """

    def __init__(
        self,
        *,
        interval_s: Interval,
        limit_s: Callable[[str, Source], float],
        report: Report,
        clock: Clock,
        random: Random,
    ) -> None:
        self._interval_s, self._limit_s, self._report = interval_s, limit_s, report
        self._clock, self._random = clock, random
        self._drivers: dict[str, Driver] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._wanted: set[Key] = set()  # asked for, so not put off
        self._no_canary: set[str] = set()  # their drivers have none
        self._seq = 0
        self._woken = asyncio.Event()
        self.late_s = 0.0  # how late the latest look started

    def add(self, name: str, driver: Driver) -> None:
        """Look at this backend from now on; a driver of that name is replaced.

        A probe under way goes on to its end and still counts.
        """
        self._drivers[name] = driver
        self._no_canary.discard(name)
        self.soon(name)

    def remove(self, name: str) -> None:
        """Stop looking at this backend; what a look under way finds is nobody's business."""
        self._drivers.pop(name, None)
        for source in (Source.PROBE, Source.CANARY):
            key = (name, source)
            self._due.pop(key, None)
            self._again.discard(key)
            self._wanted.discard(key)
            task = self._running.pop(key, None)
            if task is not None:
                task.cancel()
        self._woken.set()  # there is room for somebody else

    def soon(self, name: str, source: Source = Source.PROBE) -> None:
        """Look now; once more after the look under way, if there is one."""
        key = (name, source)
        if key in self._running:
            self._again.add(key)
        elif name in self._drivers:
            self._wanted.add(key)
            self._plan(key, 0.0)

    async def run(self) -> None:
        """Start looks as they fall due, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._woken.clear()
                wait_s = self._start_due()
                alarm = None if wait_s is None else loop.call_later(wait_s, self._woken.set)
                await self._woken.wait()
                if alarm is not None:
                    alarm.cancel()
        finally:
            for task in list(self._running.values()):
                task.cancel()

    def _plan(self, key: Key, after_s: float) -> None:
        due = self._clock.steady() + after_s
        self._due[key] = due
        self._seq += 1
        heapq.heappush(self._heap, (due, self._seq, key))
        if self._heap[0][2] == key:
            self._woken.set()

    def _spread(self, after_s: float) -> float:
        """Put jitter on an interval, and its end on the grid; never more than JITTER away."""
        now = self._clock.steady()
        due = now + after_s * self._random.uniform(1 - JITTER, 1 + JITTER)
        grid = min(after_s * GRID, GRID_S)
        if grid > 0:
            due = round(due / grid) * grid
        return min(max(due - now, after_s * (1 - JITTER)), after_s * (1 + JITTER))

    def _start_due(self) -> float | None:
        now = self._clock.steady()
        while self._heap and len(self._running) < IN_FLIGHT:
            due, _, key = self._heap[0]
            if due > now:
                return due - now
            heapq.heappop(self._heap)
            if self._due.get(key) == due and key[0] in self._drivers:
                del self._due[key]
                if not self._put_off(key):
                    self.late_s = now - due
                    name = f"{key[1]}:{key[0]}"
                    self._running[key] = asyncio.create_task(self._look(key), name=name)
        return None

    def _put_off(self, key: Key) -> bool:
        """Skip a canary that something has made needless since it was planned."""
        if key in self._wanted or key[1] is not Source.CANARY:
            self._wanted.discard(key)
            return False
        wait_s = self._interval_s(*key)
        if wait_s is not None and wait_s > NEEDLESS_S:
            self._plan(key, wait_s)
        return wait_s is None or wait_s > NEEDLESS_S

    async def _look(self, key: Key) -> None:
        name, source = key
        driver = self._drivers[name]
        began_at = self._clock.steady()
        look = driver.probe if source is Source.PROBE else driver.canary
        seen = await self._bounded(name, source, look)
        if self._running.get(key) is not asyncio.current_task():
            return  # removed meanwhile
        if seen is None:  # it has no canary, and will have none: no look of this kind again
            self._running.pop(key)
            self._again.discard(key)
            self._no_canary.add(name)
            self._woken.set()
        else:
            task = asyncio.current_task()
            self._report(Observed(seen, began_at), lambda: self._digested(key, task))

    async def _bounded(
        self, name: str, source: Source, look: Callable[[], Awaitable[Observation | None]]
    ) -> Observation | None:
        try:
            async with asyncio.timeout(self._limit_s(name, source) * PATIENCE):
                return await look()
        except TimeoutError:
            detail = "the driver got stuck"
        except Exception as error:  # a driver's bug must cost its backend, not the daemon
            log.exception("driver_failed", backend=name)
            detail = f"internal error: {type(error).__name__}"
        return Observation(name, source, Verdict.FAILED, detail)

    def _revive_canary(self, name: str) -> None:
        """Plan a canary again that made no sense when its turn came: it was down, or denied us.

        A degraded one comes up by its canary alone, so none may be forgotten.
        """
        key = (name, Source.CANARY)
        if key in self._due or key in self._running or name in self._no_canary:
            return
        after_s = self._interval_s(*key)
        if after_s is not None:
            self._plan(key, max(after_s, CANARIES_APART_S))

    def _digested(self, key: Key, task: asyncio.Task[None] | None) -> None:
        """Plan the next look, now that this one was taken into account."""
        if self._running.get(key) is not task:
            return  # removed meanwhile
        del self._running[key]
        if key in self._again:
            self._again.discard(key)
            self._plan(key, 0.0)
        else:
            after_s = self._interval_s(*key)
            if after_s is not None:
                if key[1] is Source.CANARY:
                    after_s = max(after_s, CANARIES_APART_S)
                self._plan(key, self._spread(after_s))
        if key[1] is Source.PROBE:
            self._revive_canary(key[0])
        if self._heap and len(self._running) >= IN_FLIGHT - 1:
            self._woken.set()
