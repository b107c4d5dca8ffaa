"""`-w`: shows something again and again, in place on a terminal, when it changes in a pipe."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DaemonUnreachable

if TYPE_CHECKING:
    from orchestrator.cli.output import Output

_HOME, _TO_LINE_END, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"


def keep_showing(
    output: Output,
    fetch: Callable[[], Any],
    show: Callable[[Output, Any], None],
    every_s: float,
) -> None:
    """Show what `fetch` returns, each `every_s` seconds, until Ctrl-C.

    The first fetch may fail as any verb does; later a daemon that is away is waited for.
    """
    seen, last = fetch(), None
    pause = threading.Event()  # never set: an interruptible wait
    try:
        while True:
            if output.json:
                last = _print_changed(seen, last)
            elif output.terminal:
                _redraw(output, partial(show, output, seen))
            elif _steady(seen) != last:
                last = _steady(seen)
                show(output, seen)
                output.line()
            pause.wait(every_s)
            seen = _again(fetch, output, seen)
    except KeyboardInterrupt:
        return


def _again(fetch: Callable[[], Any], output: Output, seen: Any) -> Any:
    try:
        return fetch()
    except DaemonUnreachable as error:
        if output.terminal:
            sys.stdout.write(f"\x1b[7m{error}\x1b[0m{_TO_LINE_END}\r")
            sys.stdout.flush()
        return seen


def _print_changed(seen: Any, last: Any) -> Any:
    if _steady(seen) != last:
        sys.stdout.write(json.dumps(seen, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return _steady(seen)


def _steady(seen: Any) -> Any:
    """Leave out the time of the answer, which alone is no change."""
    return {**seen, "as_of": None} if isinstance(seen, dict) else seen


def _redraw(output: Output, draw: Callable[[], None]) -> None:
    """Draw over what was drawn before, cut to the screen's height."""
    console = output.console
    with console.capture() as captured:
        draw()
    lines = captured.get().splitlines()
    room = console.height - 1
    if len(lines) > room:
        lines = [*lines[: room - 1], "…"]
    text = "".join(f"{line}{_TO_LINE_END}\r\n" for line in lines)
    sys.stdout.write(_HOME + text + _TO_END)
    sys.stdout.flush()
