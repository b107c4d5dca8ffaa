"""From the sources to settings that are valid one by one: what is wrong is noted and left out.

So that everything wrong is reported at once, what remains after leaving out is read on, and
`checks` looks at it; `bad` says what it must not draw conclusions from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from backends import KINDS
from backends import options as options_of
from backends.base import Credential
from orchestrator.errors import ConfigError
from orchestrator.settings import credentials, layers, wording
from orchestrator.settings.document import Document
from orchestrator.settings.layers import Layer
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, named, nearest
from orchestrator.settings.schema import Backend, Settings

WHOLE_FILES = frozenset({"rclone_config", "google", "google_expire", "account"})
"""Keys of backups and backends whose credential is a file of several lines."""
_ROUNDS = 50  # each leaves something out, so a few are enough


@dataclass(slots=True)
class Reading:
    """What was read. `declared` names every backend in the sources, also those left out.

    `options` are the kinds' own keys and `secrets` what the credentials hold, by path;
    `credentials` says which one each key asks for. `origins` names the flag or variable a path
    came from. `bad` are the paths that were left out.
    """

    document: Document
    settings: Settings
    origins: dict[Path, str]
    declared: tuple[str, ...]
    problems: list[Problem]
    bad: set[Path]
    warnings: list[Problem] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    secrets: dict[Path, str] = field(default_factory=dict, repr=False)
    credentials: dict[str, str] = field(default_factory=dict)

    def sound(self, path: Path) -> bool:
        """Tell whether nothing at or under `path` was left out."""
        return not any(bad[: len(path)] == path for bad in self.bad)


def read(
    document: Document,
    environ: Mapping[str, str],
    given: Mapping[str, Any],
    sources: credentials.Sources,
) -> Reading:
    """Read settings from flags, environment and file, in this order of precedence."""
    env = layers.environment(environ, document.data, set(Settings.model_fields))
    flags = layers.flags(given)
    trees = [_copy(flags.tables), _copy(env.tables), _copy(dict(document.data))]
    backends = _merged(trees).get("backends", {})
    declared = tuple(str(name) for name in backends) if isinstance(backends, dict) else ()
    settings, found, bad = _validated(trees, env)
    reading = Reading(
        document=document,
        settings=settings,
        origins={**env.origins, **flags.origins},
        declared=declared,
        problems=[*document.problems, *env.problems, *flags.problems, *found],
        bad=bad,
    )
    for name, backend in settings.backends.items():
        _read_options(reading, name, backend)
    _read_secrets(reading, sources)
    return reading


def _validated(
    trees: list[dict[str, Any]], env: Layer
) -> tuple[Settings, list[Problem], set[Path]]:
    """Validate, leaving out what is wrong until the rest is right."""
    found: list[Problem] = []
    bad: set[Path] = set()
    retry = dict(env.texts)
    for _ in range(_ROUNDS):
        try:
            return Settings.of(*trees), found, bad
        except ValidationError as error:
            merged = _merged(trees)
            new = wording.problems(error, Settings, merged)
            again = [p for p in new if retry.get(p.path, 0) != 0]
            for problem in again:  # it looked like a number, but text is wanted
                layers.replace(trees[1], problem.path, retry.pop(problem.path))
            if again:
                continue
            found += [p for p in new if p.path not in bad]  # missing, for it was left out
            for problem in new:
                path = _cut(trees, problem.path)
                if not problem.on_key or path != problem.path:
                    bad.add(path)
    raise AssertionError("leaving out what is wrong must come to an end")


def _cut(trees: list[dict[str, Any]], path: Path) -> Path:
    """Leave out what is wrong: the key, or the whole table or list that cannot be without it."""
    for length in range(len(path), 0, -1):
        part = path[:length]
        if any(isinstance(step, int) for step in part):
            continue
        if sum(_remove(tree, part) for tree in trees):
            return part
    return path


def _remove(tree: dict[str, Any], path: Path) -> bool:
    table: Any = tree
    for part in path[:-1]:
        table = table.get(part) if isinstance(table, dict) else None
    if not isinstance(table, dict) or path[-1] not in table:
        return False
    del table[path[-1]]
    return True


def _copy(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, dict) else v for k, v in tree.items()}


def _merged(trees: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge tables, the first winning; as pydantic-settings does."""
    merged: dict[str, Any] = {}
    for tree in reversed(trees):
        _merge(merged, tree)
    return merged


def _merge(onto: dict[str, Any], tree: Mapping[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        else:
            onto[key] = _copy(value) if isinstance(value, dict) else value


def _read_options(reading: Reading, name: str, backend: Backend) -> None:
    """Read a backend's keys that belong to its kind."""
    path: Path = ("backends", name)
    if backend.kind not in KINDS:
        reading.problems.append(_unknown_kind((*path, "kind"), backend.kind))
        return
    options = options_of(backend.kind)
    data = dict(backend.model_extra or {})
    shared = set(options.model_fields) & set(Backend.model_fields) & backend.model_fields_set
    data |= {key: getattr(backend, key) for key in shared}
    try:
        reading.options[name] = options.model_validate(data)
    except ValidationError as error:
        for problem in wording.problems(error, options, data, path):
            last = problem.path[-1]
            if problem.path == (*path, last) and problem.on_key and last in data:
                known = {*Backend.model_fields, *options.model_fields}
                problem = wording.unknown(problem.path, known)  # noqa: PLW2901
            reading.problems.append(problem)
            reading.bad.add(problem.path)


def _unknown_kind(path: Path, kind: str) -> Problem:
    hint = nearest(kind, KINDS) or f"; known are {', '.join(KINDS)}"
    return Problem(path, f"{dotted(path[:-1])}: unknown kind `{named(kind)}`{hint}")


def _read_secrets(reading: Reading, sources: credentials.Sources) -> None:
    wanted = [item for item in _credentials(reading.settings, ()) if item[0][:1] != ("backends",)]
    for name, backend in reading.settings.backends.items():
        options = reading.options.get(name)
        if options is not None:
            wanted += _credentials(options, ("backends", name))
        elif backend.kind in KINDS:  # its table is wrong elsewhere; its credentials are named too
            wanted += _references(backend.model_extra or {}, ("backends", name))
    for path, name in wanted:
        bad_name = credentials.name_problem(name)
        if bad_name is None:
            reading.credentials[dotted(path)] = name
        try:
            lines = path[0] in ("backups", "backends") and path[-1] in WHOLE_FILES
            reading.secrets[path] = credentials.find(name, sources, lines=lines)
        except ConfigError as error:
            reading.problems.append(Problem(path, str(error), secret=bad_name is not None))


def _references(table: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    """Find `{ credential = "name" }` in a table as it was written."""
    for key, value in table.items():
        if isinstance(value, dict):
            name = value.get("credential")
            if len(value) == 1 and isinstance(name, str):
                yield (*path, key), name
            else:
                yield from _references(value, (*path, key))


def _credentials(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Find every credential asked for, with its path."""
    if isinstance(value, Credential):
        yield path, value.credential
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _credentials(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _credentials(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _credentials(item, (*path, number))
