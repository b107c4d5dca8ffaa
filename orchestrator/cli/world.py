"""The demo's world: three fake backends and a daemon as child processes, in a temporary folder.

Everything here goes when the demo goes: on leaving the `World`, and, should the demo be killed
outright, because each child notices its parent's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator.errors import AionError

START_S = 20.0
STOP_S = 5.0
MODEL = "demo-8b"
USUAL_PORT = 8765
INTERVALS = {"interval": "1s", "fast_interval": "250ms", "down_interval": "2s", "timeout": "1s"}
FAILBACK_AFTER = "8s"


@dataclass(frozen=True, slots=True)
class Part:
    """One backend of the demo; `latency_s` is how long it takes to answer."""

    name: str
    priority: int
    latency_s: float


PARTS = (Part("alpha", 10, 0.05), Part("beta", 20, 0.05), Part("slow", 90, 1.5))


class World:
    """An async context manager: enter to start everything, leave to remove every trace of it."""

    def __init__(self) -> None:
        self.folder = Path()
        self.port = USUAL_PORT
        self.ports: dict[str, int] = {}
        self._running: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """The daemon's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The configuration file the daemon runs on."""
        return self.folder / "aion.toml"

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="aion-demo-"))
        try:
            await self._start_parts()
            self.port = free_port(USUAL_PORT)
            self._make_token()
            self.config.write_text(configuration(self.port, self.ports))
            await self._start_daemon()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start_parts(self) -> None:
        # All are waited for, also when one fails: none may be half started when we clean up.
        started = (self.start(part.name) for part in PARTS)
        for result in await asyncio.gather(*started, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def __aexit__(self, *_: object) -> None:
        # Shielded: a second Ctrl-C must not leave half of it behind.
        await asyncio.shield(self._remove())

    async def _remove(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        gone = asyncio.gather(*(process.wait() for process in self._running.values()))
        try:
            await asyncio.wait_for(gone, STOP_S)
        except TimeoutError:
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in self._running.values()))
        shutil.rmtree(self.folder, ignore_errors=True)

    def pid(self, name: str) -> int:
        """Return the process id of a part, or of the `daemon`."""
        return self._running[name].pid

    async def ended(self, name: str) -> int:
        """Wait until a part, or the `daemon`, ends by itself or by anyone's hand."""
        return await self._running[name].wait()

    async def kill(self, name: str) -> None:
        """End a part with SIGKILL, as an out-of-memory killer would; returns when it is gone."""
        process = self._running[name]
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def start(self, name: str) -> None:
        """Start a part; a second time on the port it had. Raises AionError when it won't start."""
        part = next(part for part in PARTS if part.name == name)
        options = {
            "--port": str(self.ports.get(name, 0)),
            "--name": name,
            "--model": MODEL,
            "--latency": f"{part.latency_s * 1000:.0f}ms",
        }
        flat = [word for pair in options.items() for word in pair]
        process = await self._spawn(name, "backends.fake_server", *flat, "--with-parent")
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
            self.ports[name] = int(json.loads(line)["port"])
        except (TimeoutError, ValueError, KeyError) as error:
            raise AionError(f"the demo's backend {name} did not start: {self.log(name)}") from error

    def _make_token(self) -> None:
        """Give the daemon its admin token where its own verbs look for it: beside the file."""
        path = self.folder / "credentials" / "admin_token"
        path.parent.mkdir(mode=0o700)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))

    async def _start_daemon(self) -> None:
        words = ("serve", "--config", str(self.config), "--with-parent", str(os.getpid()))
        await self._spawn("daemon", "orchestrator.cli", *words)

    async def _spawn(self, name: str, module: str, *words: str) -> asyncio.subprocess.Process:
        with self._log_path(name).open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *words,
                # A backend ends when its stdin does, which is when we end, however we end.
                stdin=asyncio.subprocess.DEVNULL if name == "daemon" else asyncio.subprocess.PIPE,
                stdout=log if name == "daemon" else asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment(),
                # A Ctrl-C on the terminal is ours alone: we stop them in order.
                start_new_session=True,
            )
        return self._running[name]

    def _environment(self) -> Mapping[str, str]:
        """Our own environment without what configures another aion."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AION_")}
        kept.pop("CREDENTIALS_DIRECTORY", None)
        kept.pop("NOTIFY_SOCKET", None)
        kept.pop("WATCHDOG_USEC", None)
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        return {**kept, "STATE_DIRECTORY": str(state)}

    def _log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str, lines: int = 5) -> str:
        """Return the last lines a child wrote, joined."""
        with contextlib.suppress(OSError):
            text = self._log_path(name).read_text(errors="replace")
            return " | ".join(text.strip().splitlines()[-lines:]) or "it said nothing"
        return "it said nothing"


def free_port(wanted: int) -> int:
    """Return `wanted` if nobody listens there on loopback, else a port that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AionError("no port is free on 127.0.0.1")


def configuration(port: int, ports: Mapping[str, int]) -> str:
    """Return the demo's aion.toml."""
    return "\n".join(_lines(port, ports)) + "\n"


def _lines(port: int, ports: Mapping[str, int]) -> Iterator[str]:
    yield "[server]"
    yield f'listen = "127.0.0.1:{port}"'
    yield 'admin_token = { credential = "admin_token" }'
    yield ""
    yield "[health]  # shortened, so that the story takes half a minute"
    for name, value in INTERVALS.items():
        yield f'{name} = "{value}"'
    yield "controls = []  # everything here is on this machine"
    for part in PARTS:
        yield ""
        yield f"[backends.{part.name}]"
        yield 'kind = "static"'
        yield 'engine = "openai"'
        yield f'url = "http://127.0.0.1:{ports[part.name]}"'
        yield f"priority = {part.priority}"
        yield f'models = ["{MODEL}"]'
    yield ""
    yield "[services.chat]"
    yield f'failback_after = "{FAILBACK_AFTER}"'
