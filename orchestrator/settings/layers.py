"""Settings that do not come from the file: environment variables and command-line flags."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, nearest, shown

PREFIX = "AION_"
_OURS = ("AION_CONFIG", "AION_URL", "AION_BOOT_ID")  # read elsewhere, not settings
_CREDENTIAL = "AION_CREDENTIAL_"


@dataclass(slots=True)
class Layer:
    """One source: its tables, and which variable or flag each value came from.

    `texts`: what a value was before it was read as TOML, for keys that turn out to want text.
    """

    tables: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, path: Path, value: Any, origin: str) -> None:
        """Set one value; a path through something that is not a table is a problem."""
        table = self.tables
        for part in path[:-1]:
            table = table.setdefault(str(part), {})
            if not isinstance(table, dict):
                text = f"{origin} and another variable set the same key"
                self.problems.append(Problem(path, text))
                return
        table[str(path[-1])] = value
        self.origins[path] = origin


def environment(environ: Mapping[str, str], file: Mapping[str, Any], known: set[str]) -> Layer:
    """Read variables such as `AION_HEALTH__INTERVAL`; `known` are the top-level keys.

    A name in the file that reads the same (`gpu-vm` for `GPU_VM`) is the one that is meant. Values
    are TOML where they can be, else text.
    """
    layer = Layer()
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(_CREDENTIAL):
            continue
        parts = variable.removeprefix(PREFIX).lower().split("__")
        if parts[0] not in known:
            hint = nearest(parts[0], known)
            if variable not in _OURS and (len(parts) > 1 or hint):
                hint = re.sub("`(.+)`", lambda match: PREFIX + match[1].upper(), hint)
                text = f"unknown key{hint}"
                layer.origins[("", variable)] = shown(variable)
                layer.problems.append(Problem(("", variable), text))
            continue
        path = _resolved(parts, file)
        text = environ[variable]
        layer.put(path, _value(text), variable)
        layer.texts[path] = text
    return layer


def flags(given: Mapping[str, Any]) -> Layer:
    """Read flags given as dotted keys, `{"server.listen": "…"}`; a value of None was not given."""
    layer = Layer()
    for key, value in given.items():
        if value is not None:
            layer.put(tuple(key.split(".")), value, "--" + key.rpartition(".")[2].replace("_", "-"))
    return layer


def _resolved(parts: list[str], file: Mapping[str, Any]) -> Path:
    """Find which keys of the file are meant: names may hold what a variable's name cannot."""
    path: list[str] = []
    table: Any = file
    for part in parts:
        names = table if isinstance(table, Mapping) else {}
        found = next((n for n in names if re.sub(r"[^a-z0-9]", "_", n.lower()) == part), part)
        path.append(found)
        table = names.get(found)
    return tuple(path)


def _value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text


def replace(tree: dict[str, Any], path: Path, value: Any) -> None:
    """Set a value that is in `tree` already."""
    table = tree
    for part in path[:-1]:
        table = table[str(part)]
    table[str(path[-1])] = value
