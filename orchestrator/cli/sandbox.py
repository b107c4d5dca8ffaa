"""What every demo lives in: child processes and a daemon, in a temporary folder.

Everything here goes when the demo goes: on leaving the `Sandbox`, and, should the demo be killed
outright, because each child notices its parent's death.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from orchestrator.errors import AionError

START_S = 60.0
STOP_S = 5.0
MODEL = "demo-8b"
USUAL_PORT = 8765
PORTS = range(10_000, 32_768)  # below those that a kernel gives to whoever names none


class Sandbox(ABC):
    """An async context manager: enter to start everything, leave to remove every trace of it.

    A demo of its own says in `parts` what is started, in `configuration` what the daemon runs on.
    """

    def __init__(self) -> None:
        self.folder = Path()
        self.port = USUAL_PORT
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self._given: set[int] = set()

    @abstractmethod
    async def parts(self) -> None:
        """Start what has to be there before the daemon."""

    @abstractmethod
    def configuration(self) -> str:
        """Return the daemon's aion.toml."""

    @abstractmethod
    def introduction(self) -> str:
        """Say what was made shorter than usual."""

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
            self.port = self.free_port(USUAL_PORT)
            self.keep("admin_token", secrets.token_urlsafe(32))
            await self.parts()
            self.config.write_text(self.configuration())
            await self._start_daemon()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # Shielded: a second Ctrl-C must not leave half of it behind.
        await asyncio.shield(self._remove())

    async def _remove(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        gone = asyncio.gather(*(process.wait() for process in self.running.values()))
        try:
            await asyncio.wait_for(gone, STOP_S)
        except TimeoutError:
            for process in self.running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in self.running.values()))
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep(self, name: str, secret: str) -> Path:
        """Put a credential where the daemon and its verbs look for it: beside the file."""
        path = self.folder / "credentials" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secret)
        return path

    def secret(self, name: str) -> str:
        """Read a credential back."""
        return (self.folder / "credentials" / name).read_text()

    def pid(self, name: str) -> int:
        """Return the process id of a part, or of the `daemon`."""
        return self.running[name].pid

    async def ended(self, name: str) -> int:
        """Wait until a part, or the `daemon`, ends by itself or by anyone's hand."""
        return await self.running[name].wait()

    async def kill(self, name: str) -> None:
        """End a part with SIGKILL, as an out-of-memory killer would; returns when it is gone."""
        process = self.running[name]
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def engine(self, name: str, *, port: int = 0, latency_s: float = 0.05) -> int:
        """Start a fake engine; returns its port. Raises AionError when it won't start."""
        options = {
            "--port": str(port),
            "--name": name,
            "--model": MODEL,
            "--latency": f"{latency_s * 1000:.0f}ms",
        }
        flat = [word for pair in options.items() for word in pair]
        process = await self.spawn(name, "-m", "backends.fake_server", *flat, "--with-parent")
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
            return int(json.loads(line)["port"])
        except (TimeoutError, ValueError, KeyError) as error:
            raise AionError(f"the demo's backend {name} did not start: {self.log(name)}") from error

    async def _start_daemon(self) -> None:
        words = ("serve", "--config", str(self.config), "--with-parent", str(os.getpid()))
        await self.spawn("daemon", "-m", "orchestrator.cli", *words, watched=False)

    async def spawn(
        self, name: str, *words: str, watched: bool = True, **environ: Any
    ) -> asyncio.subprocess.Process:
        """Start a Python child; `watched`: its stdout is ours to read, its stdin's end its end."""
        with self._log_path(name).open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                # A backend ends when its stdin does, which is when we end, however we end.
                stdin=asyncio.subprocess.PIPE if watched else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if watched else log,
                stderr=log,
                env={**self.environment(), **environ},
                # A Ctrl-C on the terminal is ours alone: we stop them in order.
                start_new_session=True,
            )
        return self.running[name]

    def environment(self) -> Mapping[str, str]:
        """Return our own environment without what configures another aion."""
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

    def free_port(self, wanted: int = 0) -> int:
        """Return `wanted` if nobody listens there on loopback, else a port that is free.

        It is free until its server takes it, however late that starts: nobody else is given it.
        """
        others = (secrets.choice(PORTS) for _ in range(1000))
        for port in itertools.chain([wanted] if wanted else [], others):
            if port not in self._given and not _taken(port):
                self._given.add(port)
                return port
        raise AionError("no port is free on 127.0.0.1")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
