"""Is it us? Asks a few well-known servers of different operators, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from backends.base import Clock, Http
from orchestrator.core.events import ControlsAnswered
from orchestrator.errors import Unreachable

TIMEOUT_S = 3.0


class Controls:
    """Tries the controls when asked to. Any HTTP answer means that our network works."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        http: Http,
        clock: Clock,
        report: Callable[[ControlsAnswered], None],
    ) -> None:
        self._urls = tuple(urls)
        self._http, self._clock, self._report = http, clock, report
        self._task: asyncio.Task[None] | None = None

    def configure(self, urls: Sequence[str]) -> None:
        """Take other controls from the next question on."""
        self._urls = tuple(urls)

    def ask(self) -> None:
        """Try them all; the answer is reported once. A question under way is not asked twice."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(self._urls), name="controls")

    async def close(self) -> None:
        """Give up a question under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self, urls: tuple[str, ...]) -> None:
        began_at = self._clock.steady()
        failed, answered = 0, 0
        tasks = [asyncio.ensure_future(self._answers(url)) for url in urls]
        try:
            for one in asyncio.as_completed(tasks):
                if await one:
                    answered += 1
                else:
                    failed += 1
                # One that hangs must not delay the verdict that all the others have decided.
                if answered and answered >= len(urls) - 1:
                    break
        finally:
            for task in tasks:
                task.cancel()
        self._report(ControlsAnswered(failed, len(urls), began_at))

    def _answers(self, url: str) -> Awaitable[bool]:
        return answers(self._http, url)


async def answers(http: Http, url: str) -> bool:
    """Say whether this server gives any HTTP answer within three seconds."""
    try:
        await http.request("HEAD", url, timeout_s=TIMEOUT_S, max_bytes=0)
    except Unreachable:
        return False
    return True
