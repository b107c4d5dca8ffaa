"""Tells what happens in the demo: typeset on a terminal, plain when piped, JSON lines on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from orchestrator.cli.output import STYLES, Output, clean

_MARKS = {"seen": ("✓", "good"), "missed": ("✗", "bad"), "did": ("▸", "strong"), "note": (" ", "")}


class Narrator:
    """Prints one line per happening, with seconds since the start by `elapsed`."""

    def __init__(self, output: Output, elapsed: Callable[[], float]) -> None:
        self._output = output
        self._elapsed = elapsed

    def did(self, text: str, **data: Any) -> None:
        """Say what the demo did itself."""
        self._tell("did", text, data)

    def seen(self, text: str, **data: Any) -> None:
        """Say what was observed."""
        self._tell("seen", text, data)

    def missed(self, text: str, **data: Any) -> None:
        """Say what should have been observed and was not."""
        self._tell("missed", text, data)

    def note(self, text: str, **data: Any) -> None:
        """Explain something; such lines are prose, and go with -q."""
        if not self._output.quiet:
            self._tell("note", text, data)

    def plain(self, text: str = "") -> None:
        """Print a line without a time, for a person only."""
        if not (self._output.quiet or self._output.json):
            self._output.line(text)

    def _tell(self, kind: str, text: str, data: dict[str, Any]) -> None:
        at, text = self._elapsed(), clean(text)
        if self._output.json:
            line = {"t": round(at, 3), "kind": kind, "text": text, **data}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        elif self._output.terminal:
            self._typeset(at, kind, text)
        else:
            sys.stdout.write(f"{at:6.1f} s  {_MARKS[kind][0]} {text}\n")
        sys.stdout.flush()

    def _typeset(self, at: float, kind: str, text: str) -> None:
        from rich.table import Table
        from rich.text import Text

        mark, style = _MARKS[kind]
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=8, no_wrap=True, justify="right")
        grid.add_column(width=1)
        grid.add_column(overflow="fold")
        body = Text(text, "dim" if kind == "note" else "")
        clock = "" if kind == "note" else f"{at:.1f} s"
        grid.add_row(Text(clock, "dim"), Text(mark, STYLES[style]), body)
        self._output.console.print(grid)
