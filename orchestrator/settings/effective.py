"""The configuration in force, key by key, with where each value came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from orchestrator.settings.build import DEFAULT_SERVICE
from orchestrator.settings.checks import url_of
from orchestrator.settings.policies import policy
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import BackendHealth
from orchestrator.settings.values import written


@dataclass(frozen=True, slots=True)
class Row:
    """One key. `source`: flag, env, file or default; `where`: which flag, variable or line.

    A secret's value is its credential's name.
    """

    key: str
    value: Any
    source: str
    where: str = ""


def rows(reading: Reading) -> list[Row]:
    """List every key that has a value, in the order of the schema."""
    found: list[Row] = []
    left = {"backends", "services"}
    tables = reading.settings.model_dump(mode="json", by_alias=True, exclude=left)
    found += _walk(reading, tables, ())
    for name in reading.settings.backends:
        found += _backend(reading, name)
    services = reading.settings.model_dump(mode="json", include={"services"})["services"]
    found += _walk(reading, services, ("services",))
    everyone = sorted(
        reading.settings.backends, key=lambda n: (reading.settings.backends[n].priority, n)
    )
    if not services:
        found.append(Row(f"services.{DEFAULT_SERVICE}.backends", everyone, "default"))
    return found


def _backend(reading: Reading, name: str) -> Iterator[Row]:
    path: Path = ("backends", name)
    backend = reading.settings.backends[name]
    common = backend.model_dump(mode="json", exclude={*(backend.model_extra or {}), "health"})
    yield from _walk(reading, common, path)
    options = reading.options[name]
    if isinstance(options, BaseModel):
        own = options.model_dump(mode="json", by_alias=True)
        yield from _walk(reading, {k: v for k, v in own.items() if k not in common}, path)
    found = policy(reading.settings, backend, url_of(reading, name))
    for key in BackendHealth.model_fields:
        value = getattr(found, key if key in {"fall", "rise"} else f"{key}_s")
        text = value if isinstance(value, int) else written(value) if value else "off"
        source, where = _source(reading, (*path, "health", key))
        if source == "default":
            general = getattr(reading.settings.health, key)
            same = general == (value or "off")
            source, where = _source(reading, ("health", key)) if same else ("default", "its kind")
        yield Row(dotted((*path, "health", key)), text, source, where)


def _walk(reading: Reading, table: dict[str, Any], start: Path) -> Iterator[Row]:
    for key, value in table.items():
        path = (*start, key)
        if isinstance(value, dict) and set(value) != {"credential"} and path[2:] != ("models",):
            yield from _walk(reading, value, path)
        elif value not in (None, "", {}):
            yield Row(dotted(path), value, *_source(reading, path))


def _source(reading: Reading, path: Path) -> tuple[str, str]:
    for length in (len(path), len(path) + 1):
        for at, name in reading.origins.items():
            if at[: len(path)] == path[: len(at)] and len(at) <= length:
                return ("flag" if name.startswith("--") else "env"), name
    place = reading.document.places.keys.get(path)
    if place and reading.document.path:
        return "file", f"{reading.document.path.name}:{place.line}"
    return "default", ""
