"""Saving what must outlive the session: on a schedule, on order, and before the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from .children import Child
from .clock import spoken, steady
from .errors import Refused
from .keys import environment
from .printing import Printer
from .settings import Settings

LOOK_S = 0.5


class Saver:
    """Runs the save command, or rclone for each path; never two saves at once.

    `ends` gives when the session ends, on the steady clock, or None.
    """

    def __init__(self, settings: Settings, folder: Path, printer: Printer) -> None:
        self._settings = settings
        self._log = folder / f"{settings.backend}-save.log"
        self._printer = printer
        self._lock = asyncio.Lock()
        self._saved_at = steady()
        self._saved_for: float | None = None
        self.ends: Callable[[], float | None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Say whether there is anything to save."""
        return bool(self._settings.save_command or self._settings.save_from)

    async def run(self) -> None:
        """Save when it is time, until cancelled."""
        if not self.wanted:
            return
        while True:
            await asyncio.sleep(LOOK_S)
            if why := self._due():
                await self.save(why)

    def _due(self) -> str:
        ends = self.ends()
        if ends is not None and steady() >= ends - self._settings.save_margin_s:
            # A moved end is another end; one that moves by the clocks' noise is not.
            if (
                self._saved_for is None
                or abs(ends - self._saved_for) > self._settings.save_margin_s
            ):
                self._saved_for = ends
                return "before the end"
            return ""
        every_s = self._settings.save_every_s
        return "on schedule" if every_s and steady() - self._saved_at >= every_s else ""

    async def save(self, why: str) -> bool:
        """Save now, or wait for the save that runs and save after it; says whether it went well."""
        if not self.wanted:
            return True
        async with self._lock:
            self._saved_at = began = steady()
            wrong = ""
            for argv in self._commands():
                wrong = await self._one(argv) or wrong
            if wrong:
                self._printer.say("save", f"failed {why}: {wrong}")
            else:
                self._printer.say("save", f"done {why}, in {spoken(steady() - began)}")
            return not wrong

    def _commands(self) -> list[list[str]]:
        found = [list(self._settings.save_command)] if self._settings.save_command else []
        for path in self._settings.save_from:
            source = Path(path).expanduser()
            to = f"{self._settings.save_to.rstrip('/')}/{source.name}"
            verb = "copyto" if source.is_file() else "copy"
            found.append(["rclone", verb, "--stats=0", "--retries=3", "--", str(source), to])
        return found

    async def _one(self, argv: list[str]) -> str:
        """Run one command; returns what went wrong, or nothing."""
        try:
            child = Child.start(argv, self._log, environment())
        except Refused as error:
            return str(error)
        until = steady() + self._settings.save_timeout_s
        try:
            while not (ended := child.ended()):
                if steady() > until:
                    return f"{argv[0]} took longer than {spoken(self._settings.save_timeout_s)}"
                await asyncio.sleep(0.05)
        finally:
            with contextlib.suppress(OSError):
                await child.stop(grace_s=2.0)
        return "" if ended == "ended with 0" else f"{argv[0]} {ended} {child.last_words()}".strip()
