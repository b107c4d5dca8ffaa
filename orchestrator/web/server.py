"""The listener: a socket bound before anything starts, uvicorn behind it, a bounded stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from orchestrator.errors import AionError
from orchestrator.web.guard import Limits, guarded
from orchestrator.web.ports import App

BACKLOG = 2048
GRACE_S = 3.0  # requests at work get this long at a stop; with the rest it stays below 5 s


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers of its own: signals are `main`'s business.

    It wakes once a second for the date header, not ten times, and leaves when told.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._leaving.wait()

    def leave(self) -> None:
        """Begin the graceful stop."""
        self.should_exit = True
        self._leaving.set()


class Server:
    """Serves one ASGI application on one address."""

    def __init__(
        self,
        app: App,
        host: str,
        port: int,
        limits: Limits | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._limits = limits or Limits()
        self._on_stop = on_stop
        self._socket: socket.socket | None = None
        self._uvicorn: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on; the real one where 0 was asked for."""
        return int(self._socket.getsockname()[1]) if self._socket is not None else self._port

    def bind(self) -> None:
        """Take the address. Raises `AionError` in one line where that cannot be.

        Listens at once: two sockets may be bound to one port, only one of them can listen.
        """
        where = (
            f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        )
        made: socket.socket | None = None
        try:
            found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            made = socket.socket(found[0][0], socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(found[0][4])
            made.listen(BACKLOG)
        except OSError as error:
            if made is not None:
                made.close()
            raise AionError(_refusal(where, error)) from error
        made.setblocking(False)
        self._socket = made

    async def start(self) -> None:
        """Accept connections; returns once they are."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        config = uvicorn.Config(
            self._app,
            http=guarded(self._limits),
            ws="none",
            lifespan="off",
            loop="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=max(1, round(self._limits.idle_s)),
            timeout_graceful_shutdown=round(GRACE_S),
        )
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.create_task(self._uvicorn.serve(sockets=[self._socket]), name="web")
        while not self._uvicorn.started:
            if self._task.done():
                self._task.result()
                raise AionError("the web server ended before it had started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop within 5 s: streams end at once, requests at work get a moment."""
        if self._uvicorn is None or self._task is None:
            if self._socket is not None:
                self._socket.close()
            return
        if self._on_stop is not None:
            self._on_stop()
        self._uvicorn.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S + 1.5):
                await asyncio.shield(self._task)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.2)
        self._uvicorn = self._task = None


def _refusal(where: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where} is in use by another program; stop it, or set another port in server.listen"
        )
    if error.errno == errno.EACCES:
        return f"{where}: ports below 1024 need a right we lack; set another in server.listen"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{where} is not an address of this machine; correct server.listen"
    return f"cannot listen on {where}: {error.strerror or error}"
