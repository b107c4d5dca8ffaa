"""Ways to start the agent: from a shell, and from a notebook's cell."""

from __future__ import annotations

import argparse
import asyncio
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from . import VERSION
from .errors import Refused
from .keys import Redactor, gather
from .printing import Printer, to_stdout
from .settings import Settings, made, option_of
from .whole import Whole

LOOK_S = 0.5
LEAVES_S = 30.0
THREAD = "aion-agent"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agent.py",
        description="Serve a model from here as a backend of aion.",
        epilog="Each option may also stand in the environment: AION_ENGINE_URL for --engine-url. "
        "The backend's token is in the secret AION_TOKEN, never an option.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=VERSION)
    for one in fields(Settings):
        option = option_of(one.name)
        flag = "--" + option.replace("_", "-")
        says = one.metadata["says"].replace("%", "%%")
        if isinstance(one.default, bool):
            parser.add_argument(
                flag, dest=option, default=None, action=argparse.BooleanOptionalAction, help=says
            )
        else:
            parser.add_argument(flag, dest=option, metavar="…", help=says)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run from a shell; returns the exit code: 0 ended in good order, 1 refused, 2 usage."""
    given = vars(_parser().parse_args(argv))
    printer = Printer(Redactor())
    try:
        settings = made(given)
        whole = Whole(settings, gather(settings), printer)
    except Refused as error:
        printer.say("error", str(error))
        return 1
    return asyncio.run(_signalled(whole))


async def _signalled(whole: Whole) -> int:
    """Run; SIGTERM, SIGINT and SIGHUP end it in good order, a second one at once."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []
    task = asyncio.ensure_future(whole.run())

    def heard(name: str) -> None:
        asked.append(name)
        if len(asked) > 1:
            task.cancel()
        else:
            whole.stop(f"{name}: ending")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, heard, number.name)
    try:
        return await task
    except asyncio.CancelledError:
        return 1


class Thread(threading.Thread):
    """The thread of a run; by it, a cell that loads the agent anew finds the runs of others."""

    def __init__(self, run: Run) -> None:
        super().__init__(target=run.live, name=THREAD, daemon=True)
        self.stop_run = run.stop


class Run:
    """An agent in a thread of its own, beside a notebook's event loop."""

    def __init__(self, whole: Whole) -> None:
        self._whole = whole
        self.code: int | None = None
        self._thread = Thread(self)
        self._thread.start()

    def live(self) -> None:
        """Run to the end, in this thread."""
        with asyncio.Runner() as runner:
            self.code = runner.run(self._whole.run())

    @property
    def alive(self) -> bool:
        """Say whether it runs."""
        return self._thread.is_alive()

    def stop(self, within_s: float = LEAVES_S) -> None:
        """End it in good order, and wait for that."""
        self._whole.stop("stopped")
        self._thread.join(within_s)

    def __repr__(self) -> str:
        return f"<aion agent: {'running' if self.alive else 'ended'}>"


def start(*, wait: bool = True, token: str = "", **options: Any) -> Run | None:
    """Run in a notebook: until it ends or the cell is interrupted, or in the background.

    Options are those of the command line. Secrets are looked for here and now: Colab gives them
    to the main thread only. With `wait=False` the run is returned; `stop()` ends it.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    printer = Printer(Redactor(), lines.put if wait else to_stdout)
    try:
        settings = made(options)
        whole = Whole(settings, gather(settings, token), printer)
    except Refused as error:
        Printer(printer.redactor).say("error", str(error))
        return None
    run = Run(whole)
    if not wait:
        return run
    try:
        _show(run, lines)
    except KeyboardInterrupt:
        threading.Thread(target=run.stop, daemon=True).start()
        try:
            _show(run, lines)
        except KeyboardInterrupt:
            to_stdout("It is still ending, in the background.")
    return None


def _show(run: Run, lines: queue.SimpleQueue[str]) -> None:
    """Print what the run says, from this thread: a notebook knows which cell that belongs to."""
    while run.alive or not lines.empty():
        try:
            sys.stdout.write(lines.get(timeout=LOOK_S) + "\n")
            sys.stdout.flush()
        except queue.Empty:
            continue


def stop() -> None:
    """End every run in this kernel, in good order."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            end: Any = getattr(thread, "stop_run", None)
            end()
