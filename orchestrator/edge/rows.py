"""Core values to table rows and back.

A `Shape` pairs a dataclass with a table: a field that the table has a column for is stored, any
other is not and comes back as its default. Plain fields go as they are, enums as their text,
anything with parts as JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter
from sqlalchemy import Table

from orchestrator.core.lives import PastSession, Token
from orchestrator.core.meters import MeterState
from orchestrator.core.model import BackendState, Incident, Notice, Publication, ServiceState, World
from orchestrator.edge import tables

V = TypeVar("V")
Convert = Callable[[Any], Any]


def clean(text: str) -> str:
    """Replace what a database or UTF-8 cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "?").encode("utf-8", "replace").decode("utf-8")


def plain(value: Any) -> Any:
    """Turn a core value into what JSON knows."""
    if isinstance(value, str):
        return clean(str(value))
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def to_json(value: Any) -> str:
    """Write a core value as JSON text; infinite times are `Infinity`, as Python reads them."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def _same(value: Any) -> Any:
    return value


def _or_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _converters(hint: Any) -> tuple[Convert, Convert]:
    """Say how a field of this type is written and read."""
    kinds = [part for part in get_args(hint) or (hint,) if part is not NoneType]
    if kinds == [str]:
        return _or_none(clean), _same
    if len(kinds) == 1 and kinds[0] in {float, int, bool}:
        return _same, _same
    if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], StrEnum):
        return _or_none(str), _or_none(kinds[0])
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    return _or_none(to_json), _or_none(lambda text: adapter.validate_python(json.loads(text)))


class Shape(Generic[V]):
    """How values of `kind` lie in `table`."""

    def __init__(self, kind: type[V], table: Table) -> None:
        self._kind = kind
        self.table = table
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.name in table.c]  # type: ignore[arg-type]
        self.stored = frozenset(names)
        self._fields = [(name, *_converters(hints[name])) for name in names]

    def row(self, value: V) -> dict[str, Any]:
        """Write the stored fields of `value` as columns."""
        return {name: write(getattr(value, name)) for name, write, _ in self._fields}

    def value(self, row: Mapping[str, Any], **others: Any) -> V:
        """Read a value back. `others` are fields kept elsewhere; the rest get their defaults.

        Raises ValueError when the row holds what no such value can.
        """
        return self._kind(**{name: read(row[name]) for name, _, read in self._fields}, **others)


def table(name: str) -> Table:
    """Look up one of our tables."""
    return tables.Row.metadata.tables[name]


WORLD = Shape(World, table("world"))
BACKEND = Shape(BackendState, table("backend"))
SERVICE = Shape(ServiceState, table("service"))
PUBLICATION = Shape(Publication, table("publication"))
INCIDENT = Shape(Incident, table("incident"))
NOTICE = Shape(Notice, table("notice"))
TOKEN = Shape(Token, table("token"))
PAST = Shape(PastSession, table("past_session"))
_METERS: TypeAdapter[MeterState] = TypeAdapter(MeterState)


def meter_of(text: str) -> MeterState:
    """Read a meter's state back. Raises ValueError for what is none."""
    return _METERS.validate_python(json.loads(text))
