"""How things are printed: data on stdout, prose on stderr.

On a terminal tables are drawn by Rich, in colour unless `NO_COLOR`; a table too wide for the
terminal becomes a list, one record after the other, rather than cut-off words. Piped output is
plain aligned columns, never cut. `--json` prints the API's own shape. Text that came from outside
(model names, error bodies) is made harmless first: see `clean`.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STYLES = {
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "dim": "dim",
    "strong": "bold",
    "": "",
}
_PROSE_MIN = 24  # columns that a last, wrapping column needs to stay readable


def clean(text: object, *, lines: bool = False, limit: int = 2000) -> str:
    """Make text from outside harmless: control and invisible format characters become escapes.

    `lines` keeps line ends. The result has at most `limit` characters.
    """
    kept = "\n" if lines else ""
    shown = "".join(
        char
        if char in kept or not unicodedata.category(char).startswith(("C", "Zl", "Zp"))
        else char.encode("unicode_escape").decode()
        for char in str(text)[:limit]
    )
    return shown + ("…" if len(str(text)) > limit else "")


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text and how it is meant: a key of `STYLES`."""

    text: str
    style: str = ""


Row = Sequence["Cell | str"]


def _cell(value: Cell | str) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return Cell(clean(cell.text), cell.style)


class Output:
    """Prints for one verb."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.terminal = sys.stdout.isatty() and not json
        self._console: Any = None

    @property
    def console(self) -> Any:
        """Rich's console on stdout; only on a terminal, for it takes 60 ms to import."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(markup=False, highlight=False, emoji=False, soft_wrap=False)
        return self._console

    def data(self, value: Any) -> None:
        """Print one JSON document: indented for a terminal's reader, one line when piped."""
        import json

        indent = 2 if sys.stdout.isatty() else None
        sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Prose for the operator, on stderr; not with -q."""
        if not self.quiet:
            sys.stderr.write(clean(text, lines=True) + "\n")
            sys.stderr.flush()

    def line(self, *parts: Cell | str) -> None:
        """Print one line of data made of pieces; it wraps on a narrow terminal."""
        cells = [_cell(part) for part in parts]
        if not self.terminal:
            sys.stdout.write("".join(cell.text for cell in cells) + "\n")
            return
        from rich.text import Text

        self.console.print(Text.assemble(*((cell.text, STYLES[cell.style]) for cell in cells)))

    def heading(self, text: str) -> None:
        """Print a heading above a table."""
        self.line(Cell(text, "strong"))

    def fields(self, pairs: Mapping[str, Cell | str]) -> None:
        """Print names and values, one pair to a line; pairs without a value are left out."""
        shown = {name: _cell(value) for name, value in pairs.items() if _cell(value).text}
        width = max((len(name) for name in shown), default=0)
        for name, cell in shown.items():
            if self.terminal:
                self._field(name, cell, width)
            else:
                sys.stdout.write(f"{name:<{width}}  {cell.text}\n")

    def _field(self, name: str, cell: Cell, width: int) -> None:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=width, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(name, "dim"), Text(cell.text, STYLES[cell.style]))
        self.console.print(grid)

    def table(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Print rows under `columns`; the last column may wrap. Columns empty throughout go."""
        cells = [[_cell(value) for value in row] for row in rows]
        used = [i for i in range(len(columns)) if any(row[i].text for row in cells)]
        columns = [columns[i] for i in used]
        cells = [[row[i] for i in used] for row in cells]
        if not cells:
            return
        if not self.terminal:
            self._plain(columns, cells)
        elif self._fits(columns, cells):
            self._drawn(columns, cells)
        else:
            self._list(columns, cells)

    @staticmethod
    def _plain(columns: Sequence[str], cells: list[list[Cell]]) -> None:
        texts = [[name.upper() for name in columns], *([c.text for c in row] for row in cells)]
        widths = [max(_width(row[i]) for row in texts) for i in range(len(columns))]
        for row in texts:
            padded = (t + " " * (w - _width(t)) for t, w in zip(row, widths, strict=True))
            sys.stdout.write("  ".join(padded).rstrip() + "\n")

    def _fits(self, columns: Sequence[str], cells: list[list[Cell]]) -> bool:
        widths = [
            max(_width(columns[i]), *(_width(row[i].text) for row in cells))
            for i in range(len(columns))
        ]
        widths[-1] = min(widths[-1], _PROSE_MIN)
        return bool(sum(widths) + 2 * (len(widths) - 1) <= self.console.width)

    def _drawn(self, columns: Sequence[str], cells: list[list[Cell]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for i, name in enumerate(columns):
            last = i == len(columns) - 1
            table.add_column(Text(name), no_wrap=not last, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell.text, STYLES[cell.style]) for cell in row))
        self.console.print(table)

    def _list(self, columns: Sequence[str], cells: list[list[Cell]]) -> None:
        for i, row in enumerate(cells):
            if i:
                self.console.print()
            self.fields(dict(zip(columns, row, strict=True)))


def _width(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
