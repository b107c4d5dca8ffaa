"""Frozen dataclasses to JSON and back, checked on the way in."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, Union, get_args, get_origin, get_type_hints

_MISSING: Final = dataclasses.MISSING


class Coded:
    """Base of a dataclass that travels as JSON.

    Fields are str, int, float, bool, datetime (aware; RFC 3339 in UTC), another `Coded`,
    `tuple[X, ...]`, `Mapping[str, X]`, or one of those `| None`.
    """

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, value: object, *, strict: bool = True) -> Self:
        """Read what `to_json` wrote. Raises ValueError naming the place, never the value.

        `strict` refuses unknown keys; else they are passed over, as a reader of files that a newer
        version may have written must.
        """
        return cls.decode(value, cls.__name__, strict)

    @classmethod
    def decode(cls, value: object, place: str, strict: bool) -> Self:
        """Do as `from_json`, for the value at `place` of something larger."""
        if not isinstance(value, dict):
            raise ValueError(f"{place} is not an object")  # noqa: TRY004 - a wrong file, not a wrong call
        hints = get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # as above
        unknown = sorted(str(key) for key in value.keys() - fields.keys())
        if unknown and strict:
            raise ValueError(f"{place}: unknown key {unknown[0][:40]!r}")
        made: dict[str, Any] = {}
        for name, one in fields.items():
            if name in value:
                made[name] = _read(hints[name], value[name], f"{place}.{name}", strict)
            elif one.default is _MISSING and one.default_factory is _MISSING:
                raise ValueError(f"{place}.{name} is missing")
        return cls(**made)


def _plain(value: Any) -> Any:
    if isinstance(value, Coded):
        return value.to_json()
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _read(kind: Any, value: Any, place: str, strict: bool) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        inner = next(arg for arg in args if arg is not type(None))
        return None if value is None else _read(inner, value, place, strict)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(args[0], item, f"{place}[{i}]", strict) for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {k: _read(args[1], item, f"{place}.{k}", strict) for k, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Coded):
        return kind.decode(value, place, strict)
    return _scalar(kind, value, place)


def _scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is datetime and isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{place} is not a time") from None
        if when.tzinfo is None:
            raise ValueError(f"{place} is a time without a zone")
        return when.astimezone(UTC)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Any or (type(value) is kind and kind in {str, int, float, bool}):
        return value
    raise ValueError(f"{place} is not {getattr(kind, '__name__', 'of the right kind')}")
