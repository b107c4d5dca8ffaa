"""Orders: drain, save, restart, stop; from the daemon, or as files in a watched folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from .printing import Printer

KINDS = ("drain", "save", "restart", "stop")
WATCH_S = 5.0
REMEMBERED = 200
Handler = Callable[[str], Awaitable[bool]]


class Orders:
    """Carries out each order once, one after the other; says what was done until that is heard.

    The daemon repeats an order until it is acknowledged, so the same id comes more than once.
    """

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._known: dict[str, bool | None] = {}
        self._unheard: dict[str, bool] = {}
        self.carry_out: Handler
        self.on_change: Callable[[], None] = lambda: None

    def take(self, orders: Iterable[tuple[str, str]]) -> None:
        """Queue what is new, and say again what is done already."""
        for ident, kind in orders:
            known = self._known.get(ident, ...)
            if known is ...:
                self._known[ident] = None
                while len(self._known) > REMEMBERED:
                    self._known.pop(next(iter(self._known)))
                self._queue.put_nowait((ident, kind))
            elif isinstance(known, bool):
                self._unheard[ident] = known

    def done(self) -> dict[str, bool]:
        """Give what was done and not yet heard of: id → whether it went well."""
        return dict(self._unheard)

    def acknowledged(self, heard: Iterable[str]) -> None:
        """Stop saying these."""
        for ident in heard:
            self._unheard.pop(ident, None)

    def forget(self) -> None:
        """Another session: its orders are others."""
        self._unheard.clear()

    async def run(self) -> None:
        """Carry orders out until cancelled."""
        while True:
            ident, kind = await self._queue.get()
            source = "the watched folder" if ident.startswith("file:") else "the daemon"
            self._printer.say("order", f"{kind}, from {source}")
            ok = kind in KINDS and await self.carry_out(kind)
            self._known[ident] = ok
            if not ident.startswith("file:"):
                self._unheard[ident] = ok
            self.on_change()

    async def watch(self, folder: Path, every_s: float = WATCH_S) -> None:
        """Look for files named as orders until cancelled; each is removed and carried out.

        A mounted Drive may hang or be read-only: it is asked in a thread, and a file that cannot be
        removed counts once for each time it is written.
        """
        seen: dict[str, float] = {}
        while True:
            with contextlib.suppress(OSError):
                for kind, at in await asyncio.to_thread(_found, folder):
                    if seen.get(kind) != at:
                        seen[kind] = at
                        self.take([(f"file:{kind}:{at}", kind)])
            await asyncio.sleep(every_s)


def _found(folder: Path) -> list[tuple[str, float]]:
    """Find and remove order files: `restart`, or `restart.txt`, as Drive may call it."""
    found = []
    for kind in KINDS:
        for path in (folder / kind, folder / f"{kind}.txt"):
            if path.is_file():
                found.append((kind, path.stat().st_mtime))
                with contextlib.suppress(OSError):
                    path.unlink()
    return found
