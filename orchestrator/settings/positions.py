"""Where each key and value of a TOML text stands, which tomllib does not tell.

`tomllib` decides what is valid and what it means; this scanner only walks along and notes places.
On text that tomllib refuses it notes what it can and stops.
"""

from __future__ import annotations

import bisect
import contextlib
import re
import tomllib
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
"""Names of tables and keys from the top; a number is the place in an array."""

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{1,2}(?!"))?', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{1,2}(?!'))?", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^,\[\]{}#\n]+")
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of one line: `line` counts from 1, `column` from 0, both in characters."""

    line: int
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class Again:
    """A key or table given a second time. `start`, `end`: what to leave out to read the rest."""

    path: Path
    mark: Mark
    first: Mark
    start: int
    end: int


@dataclass(slots=True)
class Places:
    """Keys, values and repetitions found in a text. A key given twice keeps its first place."""

    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    again: list[Again] = field(default_factory=list)


class _Stop(Exception):
    """The text is not TOML from here on."""


def scan(text: str) -> Places:
    """Note the places in `text`, whose line ends must be plain newlines."""
    scanner = _Scanner(text)
    with contextlib.suppress(_Stop):
        scanner.document()
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places = Places()
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._arrays: dict[Path, int] = {}
        self._headers: dict[Path, Mark] = {}
        self._repeated: Again | None = None

    def mark(self, start: int, end: int) -> Mark:
        line = bisect.bisect_right(self._lines, start)
        return Mark(line, start - self._lines[line - 1], max(1, end - start))

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def take(self, literal: str) -> None:
        if not self.text.startswith(literal, self.at):
            raise _Stop
        self.at += len(literal)

    def document(self) -> None:
        table: Path = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                break
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table, 0)
        self._end_repeated(len(self.text))

    def header(self) -> Path:
        """Read `[a.b]` or `[[a.b]]`; return where its keys go."""
        start = self.at
        self._end_repeated(start)
        array = self.text.startswith("[[", self.at)
        self.take("[[" if array else "[")
        segments = self.key()
        self.take("]]" if array else "]")
        path: Path = ()
        for name, mark in segments[:-1]:
            path = self._inside((*path, name))
            self.places.keys.setdefault(path, mark)
        name, mark = segments[-1]
        path = (*path, name)
        column = segments[0][1].column
        whole = Mark(mark.line, column, mark.column + mark.width - column)
        if array and path not in self.places.values:
            number = self._arrays[path] = self._arrays.get(path, -1) + 1
            self.places.keys.setdefault(path, whole)
            self.places.keys[(*path, number)] = whole
            return (*path, number)
        first = self._headers.get(path) or self.places.values.get(path)
        if first is None and path not in self._arrays:
            self._headers[path] = whole
            self.places.keys[path] = whole
        else:
            first = first or self.places.keys[path]
            self._repeated = Again(path, whole, first, start, start)
        return path

    def _end_repeated(self, end: int) -> None:
        """Note where a repeated table ends: at the next header."""
        if self._repeated is not None:
            again, self._repeated = self._repeated, None
            self.places.again.append(Again(again.path, again.mark, again.first, again.start, end))

    def _inside(self, path: Path) -> Path:
        return (*path, self._arrays[path]) if path in self._arrays else path

    def key(self) -> list[tuple[str, Mark]]:
        """Read a dotted key; return its parts, each with its place."""
        parts: list[tuple[str, Mark]] = []
        while True:
            self.skip(_SPACE)
            start = self.at
            for pattern in (_BARE, _STRINGS[2], _STRINGS[3]):
                if match := pattern.match(self.text, self.at):
                    break
            else:
                raise _Stop
            self.at = match.end()
            parts.append((_unquote(match[0]), self.mark(start, self.at)))
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return parts
            self.at += 1

    def pair(self, table: Path, depth: int) -> None:
        """Read `key = value`."""
        start = self.at
        segments = self.key()
        path = table
        for name, mark in segments[:-1]:
            path = (*path, name)
            self.places.keys.setdefault(path, mark)
        name, mark = segments[-1]
        path = (*path, name)
        first = self.places.values.get(path) or self._headers.get(path)
        self.take("=")
        self.skip(_SPACE)
        if first is None:
            self.places.keys[path] = mark
            self.value(path, depth)
            return
        keep, self.places = self.places, Places()
        self.value(path, depth)
        self.places = keep
        if self._repeated is None:
            self.places.again.append(Again(path, mark, keep.keys[path], start, self.at))

    def value(self, path: Path, depth: int) -> None:
        """Read one value."""
        if depth > _DEEPEST:
            raise _Stop
        start = self.at
        opener = self.text[start : start + 1]
        if opener == "[":
            self.array(path, depth)
        elif opener == "{":
            self.inline(path, depth)
        else:
            for pattern in _STRINGS if opener in {'"', "'"} else (_SCALAR,):
                if match := pattern.match(self.text, self.at):
                    break
            else:
                raise _Stop
            self.at = start + len(match[0].rstrip(" \t"))
        self.places.values[path] = self.mark(start, self.at)

    def array(self, path: Path, depth: int) -> None:
        self.take("[")
        number = 0
        while True:
            self.skip(_BLANK)
            if self.text.startswith("]", self.at):
                break
            self.value((*path, number), depth + 1)
            number += 1
            self.skip(_BLANK)
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
        self.take("]")

    def inline(self, path: Path, depth: int) -> None:
        self.take("{")
        while True:
            self.skip(_SPACE)
            if self.text.startswith("}", self.at):
                break
            self.pair(path, depth + 1)
            self.skip(_SPACE)
            if not self.text.startswith(",", self.at):
                break
            self.at += 1
        self.take("}")


def _unquote(key: str) -> str:
    """Give the name that a key stands for."""
    if key[0] == "'" or (key[0] == '"' and "\\" not in key):
        return key[1:-1]
    if key[0] != '"':
        return key
    try:
        return next(iter(tomllib.loads(f"{key} = 0")))
    except tomllib.TOMLDecodeError:
        raise _Stop from None
