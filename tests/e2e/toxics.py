"""A TCP proxy on loopback that spoils what passes it, to the order of a test.

The names are those of Shopify's toxiproxy, so are their meanings: `upstream` is from the client to
the server, `downstream` is the answer. Times are in seconds, sizes in bytes. A toxic changed at run
time holds for open connections too; bytes that wait in the proxy then go on under the new ones.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - jitter, seeded
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

CHUNK = 65536
PATIENCE_S = 10.0  # for an order to be carried out
TICKS_S = 20  # pieces a second of a narrow band
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """What befalls a connection. `stream`: upstream, downstream or both."""

    stream: str = "both"
    ends_after_s = None  # the connection ends so long after it met this toxic
    resets = False

    def most(self, passed: int) -> int:
        """Say how many bytes may go in one piece, when `passed` went this way before."""
        return CHUNK

    def spent(self, passed: int) -> bool:
        """Say whether the connection ends now."""
        return False

    async def meet(self, piece: bytes, first: bool, regime: Regime) -> bytes:
        """Delay a piece, change or swallow it. `first`: of those that arrived together."""
        return piece


@dataclass(frozen=True)
class Latency(Toxic):
    """What arrives goes on `latency_s` later, give or take `jitter_s`."""

    latency_s: float
    jitter_s: float = 0.0

    async def meet(self, piece, first, regime):
        if first:
            await regime.rest(self.latency_s + regime.chance.uniform(-1, 1) * self.jitter_s)
        return piece


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """No more than so many bytes a second."""

    rate_bytes_s: int

    def most(self, passed):
        return max(1, self.rate_bytes_s // TICKS_S)

    async def meet(self, piece, first, regime):
        await regime.rest(len(piece) / self.rate_bytes_s)
        return piece


@dataclass(frozen=True)
class Slicer(Toxic):
    """Small pieces with a pause before each."""

    size: int
    delay_s: float = 0.0

    def most(self, passed):
        return self.size

    async def meet(self, piece, first, regime):
        await regime.rest(self.delay_s)
        return piece


@dataclass(frozen=True)
class LimitData(Toxic):
    """The connection is closed once so many bytes went that way, since it was opened."""

    most_bytes: int

    def most(self, passed):
        return max(1, self.most_bytes - passed)

    def spent(self, passed):
        return passed >= self.most_bytes


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """The connection is reset (RST) after so long, at once by default."""

    ends_after_s: float = 0.0
    resets = True


@dataclass(frozen=True)
class Timeout(Toxic):
    """Everything is swallowed; the connection is closed after so long, None: never."""

    ends_after_s: float | None = None

    async def meet(self, piece, first, regime):
        return b""


@dataclass(frozen=True)
class BlackHole(Toxic):
    """Nothing goes on and nothing is closed; what waited goes on when this is over."""

    async def meet(self, piece, first, regime):
        await regime.rest(None)
        return piece


class Regime:
    """The toxics in force from one order to the next."""

    def __init__(self, toxics: tuple[Toxic, ...], chance: random.Random) -> None:
        self.toxics = toxics
        self.chance = chance
        self.over = asyncio.Event()

    def of(self, stream: str) -> list[Toxic]:
        return [toxic for toxic in self.toxics if toxic.stream in ("both", stream)]

    async def rest(self, seconds: float | None) -> None:
        """Wait so long (None: for ever), but not beyond the end of this regime."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self.over.wait()


class Link:
    """One connection through the proxy."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self._doom: asyncio.TimerHandle | None = None
        self.pumps: list[asyncio.Task[None]] = []

    def meet(self, regime: Regime) -> None:
        """Set the end that these toxics call for, if any; an earlier one is called off."""
        self._call_off()
        for toxic in regime.toxics:
            if toxic.ends_after_s == 0:  # before anything that waits can go on
                self.end(toxic.resets)
            elif toxic.ends_after_s is not None:
                here = asyncio.get_running_loop()
                self._doom = here.call_later(toxic.ends_after_s, self.end, toxic.resets)

    def end(self, reset: bool = False) -> None:
        self._call_off()
        for writer in self._writers:
            if reset:
                sock = writer.get_extra_info("socket")
                with suppress(OSError):  # it is gone already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                writer.transport.abort()
            else:
                writer.close()
        for pump in self.pumps:
            if pump is not asyncio.current_task():
                pump.cancel()

    def _call_off(self) -> None:
        if self._doom is not None:
            self._doom.cancel()
            self._doom = None


class Proxy:
    """Forwards 127.0.0.1:`port` to the server at `upstream`; orders may come from any thread."""

    def __init__(self, upstream: int, seed: int = 1) -> None:
        self.upstream = upstream
        self.accepted = 0
        self._chance = random.Random(seed)
        # Bound and never listening: nobody else gets the port while the proxy is down.
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.port: int = self._kept.getsockname()[1]
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)))
        self._thread.start()
        started.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.kill()

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def set(self, *toxics: Toxic) -> None:
        """Put these in force, in place of those before."""
        self._order(self._change(toxics))

    def clear(self) -> None:
        """Spoil nothing, and listen."""
        self._order(self._change(()))
        self._order(self._up())

    def down(self) -> None:
        """Stop listening and close what is open: connections are refused."""
        self._order(self._down())

    def kill(self) -> None:
        """End it, and give the port back."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
            self._kept.close()

    def _order(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    # ── carried out on the proxy's own thread ───────────────────────────────────────────────────

    async def _run(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._regime = Regime((), self._chance)
        await self._up()
        started.set()
        await self._ended.wait()
        await self._down()

    async def _change(self, toxics: tuple[Toxic, ...]) -> None:
        before, self._regime = self._regime, Regime(toxics, self._chance)
        before.over.set()
        for link in self._links:
            link.meet(self._regime)

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        pumps = [pump for link in self._links for pump in link.pumps]
        for link in self._links:
            link.end()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            writer.close()
            return
        link = Link(writer, far_writer)
        link.pumps = [
            asyncio.create_task(self._pump(link, "upstream", reader, far_writer)),
            asyncio.create_task(self._pump(link, "downstream", far_reader, writer)),
        ]
        self._links.add(link)
        link.meet(self._regime)
        await asyncio.gather(*link.pumps, return_exceptions=True)
        link.end()
        self._links.discard(link)

    async def _pump(
        self, link: Link, stream: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                passed = await self._pass_on(link, stream, data, writer, passed)
            while any(isinstance(one, Timeout | BlackHole) for one in self._regime.of(stream)):
                await self._regime.rest(None)  # an end is not heard either
            if not writer.is_closing():
                writer.write_eof()
            return
        link.end()

    async def _pass_on(
        self, link: Link, stream: str, data: bytes, writer: asyncio.StreamWriter, passed: int
    ) -> int:
        first = True
        while data:
            regime = self._regime
            toxics = regime.of(stream)
            if any(toxic.spent(passed) for toxic in toxics):
                link.end()
                break
            piece = data[: min((toxic.most(passed) for toxic in toxics), default=CHUNK)]
            kept = piece
            for toxic in toxics:
                kept = await toxic.meet(kept, first, regime)
            if regime.over.is_set() and kept:
                continue  # what has not gone yet is the next regime's
            writer.write(kept)
            await writer.drain()
            first = False
            passed += len(piece)
            data = data[len(piece) :]
            if any(toxic.spent(passed) for toxic in regime.of(stream)):
                link.end()
        return passed
