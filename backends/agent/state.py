"""What the next run has to know: one small file, for this user's eyes only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .children import ticks
from .errors import Refused
from .settings import Settings


def boot() -> str:
    """Which boot of the machine this is: process numbers mean nothing in another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class State:
    """The state of a backend's agent: a few named parts, each a plain dictionary.

    `agent`: the run itself; `session`: the last session; `engine`, `tunnel`: children.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = Path(settings.state).expanduser()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise Refused(f"state: {self.folder}: {error.strerror}") from None
        self._path = self.folder / f"{settings.backend}.json"
        self._parts: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Take up what is written: another run may have written since."""
        self._parts = self._read(self._settings)

    def _read(self, settings: Settings) -> dict[str, dict[str, Any]]:
        try:
            read = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(read, dict):
            return {}
        parts = {name: one for name, one in read.items() if isinstance(one, dict)}
        run = parts.get("agent", {})
        ours = run.get("boot") == boot() and run.get("aion") == settings.aion
        return parts if ours else {}

    def get(self, part: str) -> dict[str, Any]:
        """Give a part; empty if there is none."""
        return dict(self._parts.get(part, {}))

    def put(self, part: str, **fields: Any) -> None:
        """Replace a part, and write everything down; without fields: forget it."""
        self._parts[part] = fields
        self._write()

    def begin(self, **fields: Any) -> None:
        """Say who runs now."""
        pid = os.getpid()
        self.put("agent", boot=boot(), pid=pid, began=ticks(pid), **fields)

    def _write(self) -> None:
        draft = self._path.with_suffix(".new")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                json.dump(self._parts, file)
            draft.replace(self._path)
        except OSError:
            return  # a full disk must not end what serves; the next run registers anew
