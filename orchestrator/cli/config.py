"""`aion config`: is the file right, what is in force, what an editor can know of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.settings import Reading

app = typer.Typer(no_args_is_help=True, help="The configuration: check, show, schema.")


@app.callback()
def config() -> None:
    """Look at the configuration: check, show, schema."""


@app.command()
def check(ctx: typer.Context) -> int:
    """Say everything that is wrong with the configuration; exit 5 if anything is."""
    given: Given = ctx.obj
    reading = _read(given)
    from orchestrator.settings import report

    out = given.output()
    if given.json:
        from orchestrator.settings.problems import located

        sets = {"problems": reading.problems, "warnings": reading.warnings}
        listed = {name: located(found, reading.document.places) for name, found in sets.items()}
        out.data({"file": reading.document.name, "ok": not reading.problems, **listed})
    elif reading.problems:
        sys.stderr.write(f"error: {report(reading)}\n")
    else:
        settings = reading.settings
        services = max(1, len(settings.services))
        counts = f"{_count(len(settings.backends), 'backend')}, {_count(services, 'service')}"
        out.line(f"{reading.document.name} is right: {counts}")
    if reading.warnings and not given.json and not given.quiet:
        sys.stderr.write(f"warning: {report(reading, warnings=True)}\n")
    return 5 if reading.problems else 0


@app.command()
def show(ctx: typer.Context) -> int:
    """Print the configuration in force, and where each value came from."""
    given: Given = ctx.obj
    reading = _read(given)
    from orchestrator.settings import report
    from orchestrator.settings.effective import rows

    if reading.problems:
        sys.stderr.write(f"error: {report(reading)}\n")
        return 5
    out = given.output()
    found = rows(reading)
    if given.json:
        values = [
            {"key": row.key, "value": row.value, "source": row.source, "where": row.where}
            for row in found
        ]
        out.data({"file": reading.document.name, "values": values})
        return 0
    table = [(row.key, _spelled(row.value), row.where or row.source) for row in found]
    out.table(("key", "value", "from"), table)
    return 0


@app.command()
def schema(ctx: typer.Context) -> None:
    """Print a JSON Schema of aion.toml, for editors (taplo, Even Better TOML)."""
    from orchestrator.settings.editor import schema as made

    ctx.obj.output().data(made())


def _read(given: Given) -> Reading:
    from orchestrator.errors import ConfigError
    from orchestrator.settings import find_path, study

    path = find_path(given.config, environ=os.environ)
    if path is None:
        raise ConfigError(
            "no configuration: neither ./aion.toml nor /etc/aion/aion.toml; `aion init` writes one"
        )
    return study(path, environ=os.environ)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spelled(value: object) -> str:
    """Write a value as in TOML."""
    import json

    if isinstance(value, dict):
        pairs = (f"{_key(key)} = {_spelled(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_spelled(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    import json
    import re

    plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
    return key if plain else json.dumps(key, ensure_ascii=False)
