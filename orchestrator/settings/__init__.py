"""TOML, environment, flags and credentials → one frozen `Config`; read nowhere else.

The way of the data: `document` (text, places) and `layers` (environment, flags) → `reading`
(each value valid) → `checks` (what they say together) → `build` (carriers). `load` does nothing
but read, so that a reload can try a file and refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.settings.build import build, database, fleet
from orchestrator.settings.carriers import Config, signed, with_admin_token
from orchestrator.settings.checks import check
from orchestrator.settings.credentials import Sources, ensure_admin_token
from orchestrator.settings.difference import Difference, diff
from orchestrator.settings.document import Document, find_path, parse, read
from orchestrator.settings.problems import render
from orchestrator.settings.reading import Reading
from orchestrator.settings.reading import read as read_settings

__all__ = [
    "Config",
    "Difference",
    "Reading",
    "database",
    "diff",
    "ensure_admin_token",
    "find_path",
    "fleet",
    "load",
    "report",
    "signed",
    "study",
    "study_text",
    "with_admin_token",
]


def load(
    path: Path | None, *, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Config:
    """Read the configuration at `path`; None: from environment and flags alone.

    `flags` are dotted keys, `{"server.listen": "127.0.0.1:0"}`. Raises ConfigError that lists every
    problem, a line and a caret each.
    """
    reading = study(path, environ=environ, flags=flags)
    if reading.problems:
        raise ConfigError(report(reading))
    return build(reading, environ)


def study(
    path: Path | None, *, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Reading:
    """Read and check, problems included. Raises ConfigError only for a file that is unreadable."""
    return _study(read(path), Sources.of(path, environ), environ, flags or {})


def study_text(text: str, path: Path, *, environ: Mapping[str, str]) -> Reading:
    """Read and check a text that may become the file at `path`; credentials from `environ` only."""
    return _study(parse(text, path), Sources(None, Path("/nonexistent"), environ), environ, {})


def _study(
    document: Document, sources: Sources, environ: Mapping[str, str], flags: Mapping[str, Any]
) -> Reading:
    reading = read_settings(document, environ, flags, sources)
    check(reading)
    return reading


def report(reading: Reading, *, warnings: bool = False) -> str:
    """Print a reading's problems, or its warnings."""
    return render(
        reading.warnings if warnings else reading.problems,
        name=reading.document.name,
        text=reading.document.text,
        places=reading.document.places,
        origins=reading.origins,
        title="warning" if warnings else "problem",
    )
