"""The world of the story `sessions`: a notebook that a human starts, one that aion starts."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path

from orchestrator.cli.sandbox import MODEL, Sandbox
from orchestrator.cli.world import INTERVALS

NOTEBOOK, MACHINE = "colab", "kaggle"
SESSION, WARN_BEFORE = "45s", "22s"
LEAD, VERIFY, DRAIN = "10s", "2s", "2s"
FAILBACK_AFTER = "2s"


class SessionsWorld(Sandbox):
    """The daemon, with two backends that register when they run."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, int] = {}

    async def parts(self) -> None:
        """Make the tokens, and say how each box is run."""
        for name in (NOTEBOOK, MACHINE):
            token = self.keep(f"{name}_token", secrets.token_urlsafe(32))
            self.at[name] = self.free_port()
            box = {
                "name": name,
                "aion": self.url,
                "port": self.at[name],
                "engine_port": self.free_port(),
                "model": MODEL,
                "token_file": str(token),
                "folder": str(self.folder),
                "owner": os.getpid(),
            }
            self.file(name).write_text(json.dumps(box))

    def file(self, name: str) -> Path:
        """Return where a box is described."""
        return self.folder / f"{name}.json"

    async def run(self, name: str) -> None:
        """Run the notebook's cell, as its human would."""
        await self.spawn(
            name, "-m", "orchestrator.cli.demo_box", "run", str(self.file(name)), watched=False
        )

    async def _remove(self) -> None:
        with suppress(OSError, ValueError):  # the daemon's, so nobody waits for it here
            os.kill(int((self.folder / f"{MACHINE}.pid").read_text()), signal.SIGTERM)
        await super()._remove()

    def introduction(self) -> str:
        """Say what was made shorter than usual."""
        return (
            f"shortened for the demo: a session lasts {SESSION} (usually 12h), the end is warned"
            f" of {WARN_BEFORE} before (45m), the next one is up {LEAD} before (7m), the name is"
            f" verified for {VERIFY} (1m)"
        )

    def configuration(self) -> str:
        """Return the demo's aion.toml."""
        return "\n".join((*self._common(), *self._notebook(), *self._machine())) + "\n"

    def _common(self) -> list[str]:
        return [
            "[server]",
            f'listen = "127.0.0.1:{self.port}"',
            'admin_token = { credential = "admin_token" }',
            "[health]  # shortened, so that the story takes a minute",
            *(f'{name} = "{value}"' for name, value in INTERVALS.items()),
            "controls = []  # everything here is on this machine",
            "[services.chat]",
            f'failback_after = "{FAILBACK_AFTER}"',
            f'rotation = {{ lead = "{LEAD}", verify = "{VERIFY}", drain = "{DRAIN}" }}',
        ]

    def _notebook(self) -> list[str]:
        return [
            f"[backends.{NOTEBOOK}]",
            'kind = "notebook"',
            "priority = 10",
            f'session = "{SESSION}"',
            f'warn_before = "{WARN_BEFORE}"',
            'drain_margin = "8s"',
            'restart_url = "https://colab.research.google.com/"',
            *self._registering(NOTEBOOK),
        ]

    def _machine(self) -> list[str]:
        box = str(self.file(MACHINE))
        verbs = {
            verb: [sys.executable, "-m", "orchestrator.cli.demo_box", verb, box]
            for verb in ("start", "stop", "status")
        }
        commands = ", ".join(f"{verb} = {json.dumps(words)}" for verb, words in verbs.items())
        return [
            f"[backends.{MACHINE}]",
            'kind = "command"',
            "registers = true",
            f"commands = {{ {commands} }}",
            "priority = 20",
            'session = "10m"',
            'start = "auto"',
            'idle_stop = "2s"',
            'warn_before = "1m"',
            'drain_margin = "8s"',
            *self._registering(MACHINE),
        ]

    def _registering(self, name: str) -> list[str]:
        return [
            'engine = "openai"',
            f'models = ["{MODEL}"]',
            f'token = {{ credential = "{name}_token" }}',
            'allow_hosts = ["127.0.0.1"]',
            "allow_private = true",
            'access = "open"',
        ]
