"""What is used at the edge, counted: requests, tokens, requests through tunnels, our own traffic.

Sums wait here for a moment and reach the loop in batches. What a crash loses of them is less than
the block that its meter holds reserved, and forfeits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backends.base import Http, Reply
from backends.tunnels import metered
from orchestrator.core.events import Event
from orchestrator.core.meters import EGRESS, TUNNEL, ProviderSaid, Spent, Unit
from orchestrator.core.model import Fleet, Observation, Source

REQUEST_BYTES: Final = 320  # a request line, our headers, and what TLS, TCP and IP put around it
CONNECT_BYTES: Final = 200
EGRESS_EVERY: Final = 20  # batches
ALIKE: Final = 0.01  # a provider speaks of the same limit if it differs by less than this share


class Counts:
    """Adds up what is used, by meter. `sent(size)` is told of bytes, and must stay cheap."""

    def __init__(self, fleet: Callable[[], Fleet], report: Callable[[Event], None]) -> None:
        self._fleet, self._report = fleet, report
        self._waiting: dict[str, float] = {}
        self._bytes = 0
        self._batches = 0

    def sent(self, size: int) -> None:
        """Count bytes that we sent."""
        self._bytes += size

    def add(self, key: str, amount: float) -> None:
        """Count use of a meter, if there is such a one."""
        if amount > 0 and key in self._fleet().config.meters:
            self._waiting[key] = self._waiting.get(key, 0.0) + amount

    def seen(self, observation: Observation) -> None:
        """Count what a look used up, and hand on what the provider says is left."""
        if observation.source is Source.CANARY:
            self.add(f"{observation.backend}:{Unit.REQUESTS}", 1.0)
            self.add(f"{observation.backend}:{Unit.TOKENS}", observation.tokens)
        for what, limit, left in observation.budget:
            key = f"{observation.backend}:{what}"
            spec = self._fleet().config.meters.get(key)
            if spec is None or spec.limit is None or abs(limit - spec.limit) > spec.limit * ALIKE:
                continue  # it speaks of another period, such as a minute
            self._report(ProviderSaid(key, max(limit, spec.limit) - left))

    def requested(self, url: str, size: int) -> None:
        """Count a request of ours, of so many bytes besides its headers."""
        self._bytes += REQUEST_BYTES + size
        if metered(url):
            self._through_tunnel(url)

    def flush(self) -> None:
        """Tell the loop what was used since the last time."""
        self._batches += 1
        if self._bytes and self._batches % EGRESS_EVERY == 0:
            self.add(EGRESS, self._bytes)
            self._bytes = 0
        if self._waiting:
            amounts, self._waiting = tuple(self._waiting.items()), {}
            self._report(Spent(amounts))

    def over(self, http: Http) -> Http:
        """Give the same client, its requests counted."""
        return _Counted(http, self)

    def _through_tunnel(self, url: str) -> None:
        fleet = self._fleet()
        for name, state in fleet.backends.items():
            spec = fleet.config.backends[name]
            lives = [life.url for life in (state.session, state.pending) if life is not None]
            if any(at and url.startswith(at.rstrip("/")) for at in (*lives, spec.url)):
                self.add(f"{name}:{TUNNEL}", 1.0)
                return


class _Counted:
    """A client whose requests are counted before they are sent."""

    def __init__(self, http: Http, counts: Counts) -> None:
        self._http, self._counts = http, counts

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int = 65536,
        once: bool = False,
    ) -> Reply:
        self._counts.requested(url, len(body) if body else 0)
        return await self._http.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout_s=timeout_s,
            max_bytes=max_bytes,
            once=once,
        )

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        self._counts.sent(CONNECT_BYTES)
        return await self._http.connect(host, port, timeout_s=timeout_s)
