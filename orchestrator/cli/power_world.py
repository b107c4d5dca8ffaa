"""The world of the story `power`: a box at home, and three machines that aion starts and stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.demo_cloud import starts
from orchestrator.cli.sandbox import MODEL, Sandbox
from orchestrator.cli.world import INTERVALS

HOME = "home"
FAILBACK_AFTER, IDLE_STOP = "3s", "3s"
RATE, LIMIT = 360.0, 2.0  # dollars an hour, and in all: twenty seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """One that aion starts: what it costs, its place, and how its starts go."""

    name: str
    tier: str
    priority: int
    fates: tuple[str, ...]
    cost: str = ""


SPOT = Machine("spot", "credit", 20, ("stockout",))
RESERVE = Machine("reserve", "credit", 30, ("lost", "stockout"))
RENTED = Machine(
    "rented", "paid", 40, ("boot",), f"cost = {{ per_hour = {RATE:g}, limit = {LIMIT:g} }}"
)
MACHINES = (SPOT, RESERVE, RENTED)


class PowerWorld(Sandbox):
    """The daemon, a provider's machines, and a box at home that is off at first."""

    def __init__(self) -> None:
        super().__init__()
        self._home_port = 0
        self._back = asyncio.Event()
        self._killed = False

    async def parts(self) -> None:
        """Say how each machine is run; none does yet."""
        self._home_port = self.free_port()
        for one in MACHINES:
            machine = {
                "name": one.name,
                "port": self.free_port(),
                "model": MODEL,
                "folder": str(self.folder),
                "owner": os.getpid(),
                "fates": one.fates,
            }
            self.file(one.name).write_text(json.dumps(machine))

    def file(self, name: str) -> Path:
        """Return where a machine is described."""
        return self.folder / f"{name}.json"

    def starts(self, name: str) -> list[str]:
        """List the labels of all starts that its provider was asked for."""
        return starts(json.loads(self.file(name).read_text()))

    def process(self, name: str) -> int:
        """Return the process of a machine, 0 where none was ever begun."""
        with suppress(OSError, ValueError, KeyError):
            return int(json.loads((self.folder / f"{name}.run").read_text())["pid"])
        return 0

    async def switch_on_home(self) -> None:
        """Have the box at home answer."""
        await self.engine(HOME, port=self._home_port)

    async def kill_daemon(self) -> None:
        """End the daemon with SIGKILL; the story begins it anew."""
        self._killed = True
        await self.kill("daemon")

    async def revive_daemon(self) -> None:
        """Start the daemon again on what it had stored."""
        await self._start_daemon()
        self._killed = False
        self._back.set()
        self._back = asyncio.Event()

    async def ended(self, name: str) -> int:
        """Wait until a part ends; a daemon that the story kills has not."""
        while True:
            back = self._back
            code = await super().ended(name)
            if name != "daemon" or not self._killed:
                return code
            await back.wait()

    async def _remove(self) -> None:
        for one in MACHINES:
            if pid := self.process(one.name):
                with suppress(OSError):
                    os.kill(pid, signal.SIGTERM)
        await super()._remove()

    def introduction(self) -> str:
        """Say what was made shorter than usual."""
        return (
            f"shortened for the demo: a look every {INTERVALS['interval']} (usually 10s), failback"
            f" after {FAILBACK_AFTER} (5m), an idle machine is stopped after {IDLE_STOP} (20m),"
            f" and {RENTED.name} costs ${RATE:g} an hour of ${LIMIT:.2f}"
        )

    def configuration(self) -> str:
        """Return the demo's aion.toml."""
        lines = [
            "[server]",
            f'listen = "127.0.0.1:{self.port}"',
            'admin_token = { credential = "admin_token" }',
            "[health]  # shortened, so that the story takes a minute",
            *(f'{name} = "{value}"' for name, value in INTERVALS.items()),
            "controls = []  # everything here is on this machine",
            "[services.chat]",
            f'failback_after = "{FAILBACK_AFTER}"',
            f"[backends.{HOME}]",
            'kind = "static"',
            f'url = "http://127.0.0.1:{self._home_port}"',
            "priority = 10",
            f'models = ["{MODEL}"]',
        ]
        for one in MACHINES:
            lines += self._machine(one)
        return "\n".join(lines) + "\n"

    def _machine(self, one: Machine) -> list[str]:
        file = self.file(one.name)
        port = json.loads(file.read_text())["port"]
        program = [sys.executable, "-m", "orchestrator.cli.demo_cloud"]
        verbs = {
            "start": [*program, "start", str(file), "{launch}"],
            "stop": [*program, "stop", str(file), "{launch}"],
            "status": [*program, "status", str(file)],
        }
        commands = ", ".join(f"{verb} = {json.dumps(words)}" for verb, words in verbs.items())
        return [
            f"[backends.{one.name}]",
            'kind = "command"',
            f'url = "http://127.0.0.1:{port}"',
            f'tier = "{one.tier}"',
            f"priority = {one.priority}",
            f'models = ["{MODEL}"]',
            'start = "auto"',
            f'idle_stop = "{IDLE_STOP}"',
            f"commands = {{ {commands} }}",
            *([one.cost] if one.cost else []),
        ]
