"""The file as text: found, read, parsed, with the place of everything in it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.settings.positions import Again, Mark, Places, scan
from orchestrator.settings.problems import Problem, dotted, shown

LARGEST = 4_000_000
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Document:
    """One file read: its tables, where they stand, and what is wrong with it as TOML."""

    path: File | None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    places: Places = field(default_factory=Places)
    problems: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return shown(self.path, 200) if self.path else "the environment"


def find_path(
    given: File | None, *, environ: Mapping[str, str], cwd: File | None = None
) -> File | None:
    """Say which file to read: `given` (`--config`), `$AION_CONFIG`, `./aion.toml`, `/etc/aion/…`.

    None: there is none. Raises ConfigError for a file that was asked for by name and is not there.
    """
    asked = given or (File(environ["AION_CONFIG"]) if environ.get("AION_CONFIG") else None)
    if asked is not None:
        if not asked.is_file():
            why = "is not a file" if asked.exists() else "does not exist"
            raise ConfigError(f"{shown(asked, 200)} {why}; `aion init` writes a configuration")
        return asked
    for candidate in ((cwd or File.cwd()) / "aion.toml", File("/etc/aion/aion.toml")):
        if candidate.is_file():
            return candidate
    return None


def read(path: File | None) -> Document:
    """Read and parse a file; None is an empty one. Raises ConfigError if it cannot be read."""
    if path is None:
        return Document(None)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        said = os.strerror(error.errno) if error.errno else "cannot be read"
        raise ConfigError(f"{shown(path, 200)}: {said.lower()}") from error
    if len(raw) > LARGEST:
        raise ConfigError(f"{shown(path, 200)} is larger than {LARGEST // 1_000_000} MB")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{shown(path, 200)} is not UTF-8 text (line {line})") from error
    return parse(text.removeprefix("\ufeff").replace("\r\n", "\n"), path)


def parse(text: str, path: File | None = None) -> Document:
    """Parse a text. Repeated keys and tables are left out and named, so that the rest is read."""
    places = scan(text)
    problems = [_repeated(again) for again in places.again]
    try:
        data = tomllib.loads(_without(text, places.again))
    except tomllib.TOMLDecodeError as error:
        if not problems:
            problems = [_broken(text, str(error))]
        data = {}
    except RecursionError:
        problems, data = [Problem((), "nested too deeply to be read")], {}
    return Document(path, text, data, places, tuple(problems))


def _repeated(again: Again) -> Problem:
    text = f"{dotted(again.path)}: given twice; first on line {again.first.line}"
    return Problem(again.path, text, mark=again.mark)


def _without(text: str, repeated: list[Again]) -> str:
    for again in repeated:
        gap = re.sub(r"[^\n]", " ", text[again.start : again.end])
        text = text[: again.start] + gap + text[again.end :]
    return text


def _broken(text: str, said: str) -> Problem:
    match = _AT.search(said)
    what = _AT.sub("", said)
    what = what[:1].lower() + what[1:]
    if match and match[1]:
        line, column = int(match[1]), int(match[2])
    else:
        last = text.rstrip("\n")
        line, column = last.count("\n") + 1, len(last) - last.rfind("\n")
    mark = Mark(line, column - 1, 1)
    return Problem((), f"column {column}: not TOML: {shown(what, 120)}", mark=mark, raw=True)
