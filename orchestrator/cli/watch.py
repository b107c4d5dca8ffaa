"""Follows a service's discovery stream and waits for what should be seen there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx

Sight = Mapping[str, Any]  # one discovery answer
_RETRY_S = 0.1


class Watch:
    """The latest discovery answer of one service, and every one since `run` began."""

    def __init__(self, url: str, service: str) -> None:
        self._url = f"{url}/discovery/{service}/events"
        self.now: Sight = {}
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Follow the stream until cancelled, coming back when it breaks."""
        async with httpx.AsyncClient(
            trust_env=False, timeout=httpx.Timeout(5, read=None)
        ) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
                    async for sight in self._events(client):
                        async with self._changed:
                            self.now = sight
                            self._changed.notify_all()
                await asyncio.sleep(_RETRY_S)

    async def _events(self, client: httpx.AsyncClient) -> AsyncIterator[Sight]:
        async with client.stream("GET", self._url) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    async def until(self, true: Callable[[Sight], bool], deadline_s: float) -> Sight | None:
        """Return the first answer from now on of which `true` holds; None past the deadline."""
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: bool(self.now) and true(self.now))
                return self.now
        except TimeoutError:
            return None

    async def changes(self) -> AsyncIterator[Sight]:
        """Yield the present answer, then each that differs in more than its time."""
        last: Sight = {}
        while True:
            async with self._changed:
                while not self.now or _same(self.now, last):
                    await self._changed.wait()
                last = self.now
            yield last


def active(sight: Sight) -> str | None:
    """Return who serves."""
    return (sight.get("active") or {}).get("backend")


def standing_by(sight: Sight) -> set[str]:
    """Return who else could serve."""
    return {fallback["backend"] for fallback in sight.get("fallbacks", ())}


def _same(one: Sight, other: Sight) -> bool:
    return {**one, "as_of": None} == {**other, "as_of": None}
