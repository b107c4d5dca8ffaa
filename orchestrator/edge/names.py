"""Looking at ourselves from outside: through the public name, as clients do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.base import Http
from orchestrator.core.events import Flagged, NameChecked
from orchestrator.errors import Unreachable

TIMEOUT_S = 8.0
SERVER_ERROR = 500
DOUBTS = 2  # failures in a row before it is worth an incident


class Names:
    """Asks for services, and for the daemon itself, through their public names.

    `report` takes `NameChecked` and `Flagged`. `address_of` gives the URL of a service's name.
    """

    def __init__(
        self,
        *,
        http: Http,
        address_of: Callable[[str], str | None],
        report: Callable[[NameChecked | Flagged], None],
    ) -> None:
        self._http, self._address_of, self._report = http, address_of, report
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0

    def check(self, service: str) -> None:
        """Ask for a service through its name; the answer is reported."""
        task = asyncio.create_task(self._check(service), name=f"name:{service}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reached(self, url: str) -> bool:
        """Say whether `url` answers without a server's error; tell when it repeatedly does not."""
        problem = await self._ask(url)
        self._failures = self._failures + 1 if problem else 0
        if not problem:
            self._report(Flagged("name_unreachable", url, ""))
        elif self._failures >= DOUBTS:
            self._report(Flagged("name_unreachable", url, problem))
        return not problem

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _check(self, service: str) -> None:
        address = self._address_of(service)
        if address is None:
            self._report(NameChecked(service, ok=True, detail="it has no public name"))
            return
        problem = await self._ask(address)
        self._report(NameChecked(service, ok=not problem, detail=problem))

    async def _ask(self, url: str) -> str:
        try:
            reply = await self._http.request("GET", url, timeout_s=TIMEOUT_S, max_bytes=1024)
        except Unreachable as error:
            return str(error)
        return f"HTTP {reply.status}" if reply.status >= SERVER_ERROR else ""
