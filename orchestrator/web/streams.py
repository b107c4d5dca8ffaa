"""Server-sent events: many listeners, one latest message each.

A listener that reads slowly misses what was overtaken and gets the latest; one that reads nothing
is cut by the connection's own deadline. Nothing is queued for anyone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.web.clients import LOCAL, client_of
from orchestrator.web.ports import Receive, Scope, Send
from orchestrator.web.problems import NOSNIFF, Headers, busy, send_problem

KEEP_ALIVE_S = 15.0
COMMENT = b": still here\n\n"


class Listener:
    """One open stream; `news` is the latest message not sent yet."""

    __slots__ = ("ended", "news", "wake")

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.news: bytes | None = None
        self.ended = False

    async def heard(self, within_s: float) -> bool:
        """Wait for news or the end; False if neither came in time."""
        try:
            async with asyncio.timeout(within_s):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True


class Streams:
    """All open streams of the daemon, by topic. At most `limit`, and `each` per client address.

    Loopback counts as one client without a limit of its own: a proxy stands there.
    """

    def __init__(
        self, limit: int = 2000, each: int = 50, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self.limit = limit
        self.each = each
        self.keep_alive_s = keep_alive_s
        self.open = 0
        self._clients: Counter[str] = Counter()
        self._topics: dict[str, set[Listener]] = {}
        self._closing = False

    @staticmethod
    def headers(extra: Headers) -> Headers:
        """Return the headers of a stream; proxies are told not to hold anything back."""
        return [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            NOSNIFF,
            *extra,
        ]

    def publish(self, topic: str, message: bytes) -> None:
        """Tell everyone who listens to `topic`."""
        for listener in self._topics.get(topic, ()):
            listener.news = message
            listener.wake.set()

    def end(self, topic: str) -> None:
        """End all streams of `topic`: it is no more."""
        for listener in self._topics.get(topic, ()):
            listener.ended = True
            listener.wake.set()

    def close(self) -> None:
        """End all streams and take no more: the daemon stops."""
        self._closing = True
        for topic in self._topics:
            self.end(topic)

    async def serve(
        self,
        topic: str,
        first: bytes,
        scope: Scope,
        receive: Receive,
        send: Send,
        extra: Headers,
    ) -> None:
        """Send `first` at once, then each message of `topic`, until the client leaves."""
        client = client_of(scope)
        full = self.full or (client not in LOCAL and self._clients[client] >= self.each)
        if full or self._closing:
            why = "too many listeners; poll instead" if full else "aion is stopping"
            await send_problem(send, busy(why, retry_after_s=10), extra)
            return
        self._clients[client] += 1
        try:
            async with self.listening(topic) as listener:
                left = asyncio.create_task(_gone(receive, listener))
                try:
                    headers = self.headers(extra)
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    await send({"type": "http.response.body", "body": first, "more_body": True})
                    await self._pump(listener, send)
                finally:
                    left.cancel()
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    @property
    def full(self) -> bool:
        """Whether no more streams are taken."""
        return self.open >= self.limit

    @asynccontextmanager
    async def listening(self, topic: str) -> AsyncIterator[Listener]:
        """Listen to a topic for as long as the block lasts."""
        listener = Listener()
        listener.ended = self._closing
        self.open += 1
        listeners = self._topics.setdefault(topic, set())
        listeners.add(listener)
        try:
            yield listener
        finally:
            self.open -= 1
            listeners.discard(listener)
            if not listeners and self._topics.get(topic) is listeners:
                del self._topics[topic]

    async def _pump(self, listener: Listener, send: Send) -> None:
        while not listener.ended:
            if not await listener.heard(self.keep_alive_s):
                await send({"type": "http.response.body", "body": COMMENT, "more_body": True})
                continue
            message, listener.news = listener.news, None
            if message is not None:
                await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive, listener: Listener) -> None:
    """Wait until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.ended = True
    listener.wake.set()
