"""Turns what pydantic found into problems an operator can act on."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted, nearest, shown

_TYPES = {
    "string_type": "expected text in quotes",
    "string_pattern_mismatch": "holds a character that has no place here",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected an ordinary number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "date_type": "expected a date such as 2027-02-18, without quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def problems(
    error: ValidationError, model: type[BaseModel], data: Any, start: Path = ()
) -> list[Problem]:
    """Word each of `error`'s findings about `data`, which stands at `start`; `model` checked it."""
    found: dict[Path, Problem] = {}
    for item in error.errors(include_url=False, include_input=False):
        path, value = _within(item["loc"], data)
        if item["type"] == "missing":
            path = tuple(item["loc"])  # what is missing is not in the data
        problem = _problem(item, (*start, *path), value, model, path)
        found.setdefault((*start, *path), problem)
    return list(found.values())


def _within(loc: Iterable[int | str], data: Any) -> tuple[Path, Any]:
    """Follow `loc` as far as the data goes: beyond that stand pydantic's names of alternatives."""
    path: Path = ()
    for part in loc:
        if isinstance(data, Mapping):
            if part not in data:
                break
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            break
        path = (*path, part)
    return path, data


def _problem(item: Any, path: Path, value: Any, model: type[BaseModel], inner: Path) -> Problem:
    kind: str = item["type"]
    context: Mapping[str, Any] = item.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(path, keys_at(model, inner[:-1]))
    if kind == "missing":
        return Problem(path, f"{dotted(path[:-1])}: `{path[-1]}` is missing", on_key=True)
    if kind == "literal_error":
        hint = nearest(
            value, context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        )
        text = f"expected {context['expected'].replace(chr(39), chr(34))}{hint}"
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        text = f"must be {words} {context[key]}"
    elif kind == "value_error":
        text = str(context.get("error", item["msg"]))
    else:
        text = _TYPES.get(kind, item["msg"])
    return Problem(path, f"{dotted(path)}: {text}", secret=kind == "literal_secret")


def unknown(path: Path, known: Iterable[str]) -> Problem:
    """Word a key that nothing reads."""
    table = f"{dotted(path[:-1])}: " if len(path) > 1 else ""
    hint = nearest(path[-1], known)
    name = "" if hint else f" `{shown(path[-1])}`"
    return Problem(path, f"{table}unknown key{name}{hint}", on_key=True)


def keys_at(model: type[BaseModel], path: Path) -> set[str]:
    """List the keys that a table of `model` at `path` may hold."""
    current: Any = model
    for part in path:
        current = _step(current, part)
        if current is None:
            return set()
    found = _model(current)
    fields = found.model_fields.items() if found else ()
    return {field.alias or name for name, field in fields}


def _step(annotation: Any, part: str | int) -> Any:
    found = _model(annotation)
    if found is not None:
        field = found.model_fields.get(str(part))
        return field.annotation if field else None
    for option in _options(annotation):
        arguments = typing.get_args(option)
        if typing.get_origin(option) in {dict, list} and arguments:
            return arguments[-1]
    return None


def _model(annotation: Any) -> type[BaseModel] | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    """Take `X | None` and `Annotated[X, …]` apart."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return tuple(o for part in typing.get_args(annotation) for o in _options(part))
    return (annotation,)
