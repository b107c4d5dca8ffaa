"""`/docs`: the API as one plain page made from the OpenAPI document; nothing comes from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.web.status import environment

Json = dict[str, Any]
GOOD = ("200", "201")


def page(document: Json) -> bytes:
    """Render an OpenAPI document."""
    template = environment().get_template("docs.html")
    shapes = document.get("components", {}).get("schemas", {})
    rendered = template.render(
        version=document["info"]["version"],
        operations=list(_operations(document, shapes)),
        shapes=[
            {"name": name, "text": shape.get("description", ""), "fields": list(_fields(shape))}
            for name, shape in sorted(shapes.items())
            if shape.get("properties")
        ],
    )
    return rendered.encode()


def _operations(document: Json, shapes: Json) -> Iterator[Json]:
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            fields = [
                {
                    "name": field["name"],
                    "where": field["in"],
                    "type": _kind(field["schema"]),
                    "required": field.get("required", False),
                }
                for field in one.get("parameters", [])
            ]
            content = one.get("requestBody", {}).get("content", {})
            body = _shape(content.get("application/json", {}).get("schema", {}), shapes)
            fields += [{**field, "where": "body"} for field in _fields(body)]
            said: Json = next((one["responses"][s] for s in GOOD if s in one["responses"]), {})
            answers: Json = said.get("content", {})
            answer: Json = next(iter(answers.values()), {})
            yield {
                "id": one.get("operationId", ""),
                "path": path,
                "method": method,
                "text": one.get("description") or one.get("summary", ""),
                "fields": fields,
                "answer": _kind(answer.get("schema", {})),
            }


def _fields(shape: Json) -> Iterator[Json]:
    required = shape.get("required", [])
    for name, schema in shape.get("properties", {}).items():
        yield {"name": name, "type": _kind(schema), "required": name in required}


def _shape(schema: Json, shapes: Json) -> Json:
    for one in (schema, *schema.get("anyOf", [])):
        if "$ref" in one:
            found: Json = shapes.get(_name(one["$ref"]), {})
            return found
    return {}


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        return _name(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type", ""))


def _name(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]
