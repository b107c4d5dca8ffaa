"""Carries out what the core decided of backends that are started and stopped: one at a time each.

Whatever happens is reported: an answer, or that it is lost. Nothing is repeated here; the core asks
again where that is safe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import structlog

from backends.base import Clock, Launch, Powered
from orchestrator.core.powering import (
    Ask,
    AskPower,
    PowerReport,
    PowerReported,
    Snag,
    StartBackend,
    StopBackend,
)
from orchestrator.errors import AionError

# Drivers have their own time-outs, which are shorter.
LIMITS_S = {Ask.START: 320.0, Ask.STOP: 320.0, Ask.STATUS: 90.0}
WAITING = 4  # asked of one backend and not yet begun

log = structlog.get_logger("power")

Wish = StartBackend | StopBackend | AskPower
_ASKS = {StartBackend: Ask.START, StopBackend: Ask.STOP, AskPower: Ask.STATUS}


def powered(driver: object) -> Powered | None:
    """Give a driver as what can start and stop its backend, if it can."""
    able = all(callable(getattr(driver, name, None)) for name in ("start", "stop", "status"))
    return cast("Powered", driver) if able else None


class Powers:
    """Asks providers. `report` takes each answer; `limits_s`: how long each question may take.

    `mint` makes the token of a launch, for drivers whose launches carry one.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        report: Callable[[PowerReported], None],
        limits_s: Mapping[Ask, float] = LIMITS_S,
        mint: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> None:
        self._clock, self._report, self._limits_s = clock, report, limits_s
        self._mint = mint
        self._drivers: dict[str, Powered] = {}
        self._waiting: dict[str, deque[tuple[Powered, Wish]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, name: str, driver: Powered) -> None:
        """Ask this one for that backend from now on."""
        self._drivers[name] = driver

    def remove(self, name: str) -> None:
        """Forget a backend; what was asked of it already is still carried out."""
        self._drivers.pop(name, None)

    def carry(self, wish: Wish) -> None:
        """Carry out one effect, after those before it; a question waits for nobody."""
        name = wish.backend
        driver = self._drivers.get(name)
        if driver is None:
            return
        waiting = self._waiting.setdefault(name, deque())
        busy = name in self._tasks
        if isinstance(wish, AskPower) and busy:
            return  # what is under way reports, and the core asks again
        if any(other == wish for _, other in waiting) or len(waiting) >= WAITING:
            return
        waiting.append((driver, wish))
        if not busy:
            task = asyncio.create_task(self._work(name, waiting), name=f"power:{name}")
            self._tasks[name] = task

    async def close(self) -> None:
        """Give up what is under way; its answer is lost, and read after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, name: str, waiting: deque[tuple[Powered, Wish]]) -> None:
        try:
            while waiting:
                driver, wish = waiting.popleft()
                await self._one(driver, wish)
        finally:
            self._tasks.pop(name, None)
            waiting.clear()

    async def _one(self, driver: Powered, wish: Wish) -> None:
        began_at = self._clock.steady()
        try:
            token = await self._token(driver, wish)
        except AionError as error:  # it is not even asked
            self._tell(wish, PowerReport(snag=Snag.TRANSIENT, detail=str(error)), began_at)
            return
        ask, call = _call(driver, wish, token)
        try:
            async with asyncio.timeout(self._limits_s[ask]):
                report = await call()
        except TimeoutError:
            detail = f"no answer within {self._limits_s[ask]:g} s"
            report = PowerReport(snag=Snag.LOST, detail=detail)
        except Exception as error:  # a driver's bug: what it did is not known
            log.exception("power_failed", backend=wish.backend, ask=ask.value)
            report = PowerReport(snag=Snag.LOST, detail=f"internal error: {type(error).__name__}")
        self._tell(wish, report, began_at)

    def _tell(self, wish: Wish, report: PowerReport, began_at: float) -> None:
        launch = "" if isinstance(wish, AskPower) else wish.launch
        self._report(PowerReported(wish.backend, _ASKS[type(wish)], report, launch, began_at))

    async def _token(self, driver: Powered, wish: Wish) -> str:
        """Make the token of a launch that carries one, stored before anybody can use it."""
        if self._mint is None or not isinstance(wish, StartBackend):
            return ""
        carries = getattr(driver, "carries_token", False)
        return await self._mint(wish.backend, wish.launch) if carries else ""


def _call(
    driver: Powered, wish: Wish, token: str
) -> tuple[Ask, Callable[[], Awaitable[PowerReport]]]:
    if isinstance(wish, StartBackend):
        launch = Launch(wish.launch, wish.max_run_s, token)
        return Ask.START, lambda: driver.start(launch)
    if isinstance(wish, StopBackend):
        return Ask.STOP, lambda: driver.stop(wish.launch)
    return Ask.STATUS, driver.status
