"""A JSON Schema of `aion.toml`: editors complete keys, explain them and mark wrong ones."""

from __future__ import annotations

from typing import Any

from backends import ENGINES, KINDS
from backends import options as options_of
from orchestrator.settings.schema import Backend, Settings
from orchestrator.settings.values import written


def schema() -> dict[str, Any]:
    """Make the schema; each kind of backend has its own keys."""
    found = Settings.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = found["$defs"]
    common = Backend.model_json_schema(by_alias=True)
    definitions.pop("Backend", None)
    definitions |= common.pop("$defs", {})
    kinds = []
    for kind in KINDS:
        own = options_of(kind).model_json_schema(by_alias=True)
        definitions |= own.pop("$defs", {})
        definitions[f"backend_{kind}"] = _of_kind(kind, common, own)
        kinds.append({"$ref": f"#/$defs/backend_{kind}"})
    found["properties"]["backends"] = {
        "type": "object",
        "description": "The places that can serve the model.",
        "additionalProperties": {"anyOf": kinds},
    }
    _tidy(found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "aion.toml",
    }


def _tidy(node: Any) -> None:
    """Write defaults as they stand in the file, and leave out titles that repeat the key."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    default = node.get("default")
    if default is None or isinstance(default, dict):
        node.pop("default", None)
    elif isinstance(default, float) and "number" not in str(node):
        node["default"] = written(default)
    elif isinstance(default, list) and node.get("type") == "string":
        node["default"] = ":".join(str(part) for part in default)
    for item in node.values():
        _tidy(item)


def _of_kind(kind: str, common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    properties = {**common["properties"], **own.get("properties", {})}
    properties["kind"] = {"const": kind, "description": "How it lives."}
    properties["engine"] = {**properties["engine"], "enum": list(ENGINES)}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted({*common.get("required", ()), *own.get("required", ())}),
        "additionalProperties": False,
    }
