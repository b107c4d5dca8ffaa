"""`aion secret`: credentials beside the configuration, each a file that only its owner reads.

A secret is typed without being shown, or comes on stdin or in a file; never as an argument, where
every user of the machine could read it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.settings.credentials import Sources

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The credential's name, as in the configuration.")]
File = Annotated[
    Path | None, typer.Option("--from-file", help="Take it from this file; `-` is stdin.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@app.callback()
def secret() -> None:
    """Keep credentials: set, list, rotate."""


@app.command("set")
def set_(ctx: typer.Context, name: Name, *, from_file: File = None, yes: Yes = False) -> None:
    """Keep a secret under a name: typed, piped, or from a file."""
    given: Given = ctx.obj
    path = _sources(given).folder / _checked(name)
    if path.exists():
        given.ask(f"the credential {name} in {path} is replaced", yes=yes)
    lines = from_file is not None and _whole_file(_wanted(given).get(name, []))
    _keep(given, path, _asked(name, from_file, lines=lines))
    given.output().say("the daemon reads it at `aion reload`")


@app.command("list")
def list_(ctx: typer.Context) -> int:
    """List the credentials that the configuration asks for, and where each is; 1 if one is not."""
    given: Given = ctx.obj
    wanted = _wanted(given)
    sources = _sources(given)
    kept = {p.name for p in sources.folder.glob("*") if not p.name.startswith(".")}
    rows = [_standing(name, wanted.get(name, []), sources) for name in sorted({*wanted, *kept})]
    out = given.output()
    if given.json:
        keys = ("name", "state", "where", "used_by")
        listed = [dict(zip(keys, row, strict=True)) for row in rows]
        out.data({"folder": str(sources.folder), "credentials": listed})
    else:
        table = [(n, s, where or "", ", ".join(used) or "nobody") for n, s, where, used in rows]
        out.table(("name", "state", "where", "used by"), table)
        if not rows:
            out.say("the configuration asks for no credential")
    return int(any(row[1] != "ok" and row[3] for row in rows))


@app.command()
def rotate(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Which one.")] = "admin_token",
    *,
    from_file: File = None,
    yes: Yes = False,
) -> None:
    """Replace a secret: the admin token by a new random one, any other by what you give."""
    from orchestrator.settings.credentials import ADMIN_TOKEN, new_token

    given: Given = ctx.obj
    users = _wanted(given).get(_checked(name), [])
    if name == ADMIN_TOKEN or users == ["server.admin_token"]:
        path = _admin_path(given, name, users)
        given.ask(f"the admin token in {path} is replaced; the old one ends at a restart", yes=yes)
        _keep(given, path, new_token())
        given.output().say("restart the daemon to put it in force: systemctl restart aion")
        return
    path = _sources(given).folder / name
    given.ask(f"the credential {name} in {path} is replaced", yes=yes)
    lines = from_file is not None and _whole_file(users)
    _keep(given, path, _asked(name, from_file, lines=lines))
    text = "the daemon reads it at `aion reload`; then revoke the old one where it was issued"
    given.output().say(text)


def _checked(name: str) -> str:
    from orchestrator.errors import ConfigError
    from orchestrator.settings.credentials import name_problem

    if problem := name_problem(name):
        raise ConfigError(problem)
    return name


def _config_path(given: Given) -> Path | None:
    from orchestrator.settings import find_path

    return find_path(given.config, environ=os.environ)


def _sources(given: Given) -> Sources:
    from orchestrator.settings.credentials import Sources

    return Sources.of(_config_path(given), os.environ)


def _wanted(given: Given) -> dict[str, list[str]]:
    """Say which credentials the configuration asks for, and by which keys."""
    from orchestrator.settings import study

    path = _config_path(given)
    if path is None:
        return {}
    wanted: dict[str, list[str]] = {}
    for key, name in study(path, environ=os.environ).credentials.items():
        wanted.setdefault(name, []).append(key)
    return wanted


def _standing(
    name: str, used: list[str], sources: Sources
) -> tuple[str, str, str | None, list[str]]:
    from orchestrator.errors import ConfigError
    from orchestrator.settings.credentials import find, name_problem, where

    if name_problem(name):
        return "(not a name)", "refused", None, used
    place = where(name, sources)
    if place is None:
        return name, f"missing; fix: aion secret set {name}", None, used
    try:
        find(name, sources, lines=_whole_file(used))
    except ConfigError as error:
        return name, str(error), place, used
    return name, "ok", place, used


def _admin_path(given: Given, name: str, users: list[str]) -> Path:
    """Find the file that holds the admin token: a credential, or the daemon's own."""
    from orchestrator.errors import ConfigError
    from orchestrator.settings.build import state_dir
    from orchestrator.settings.credentials import where

    sources = _sources(given)
    if not users:
        return state_dir(os.environ) / name
    place = where(name, sources)
    if place is None or place == str(sources.folder / name):
        return sources.folder / name
    raise ConfigError(f"{name} comes from {place}: replace it there")


def _whole_file(users: list[str]) -> bool:
    """Say whether a secret may have several lines: such as an rclone.conf, or nobody's yet."""
    from orchestrator.settings.reading import WHOLE_FILES

    return all(key.rpartition(".")[2] in WHOLE_FILES for key in users)


def _asked(name: str, from_file: Path | None, *, lines: bool = False) -> str:
    """Get a secret from the operator, without showing it."""
    from orchestrator.errors import ConfigError

    try:
        if from_file is not None and str(from_file) != "-":
            value = from_file.read_text()
        elif from_file is not None or not sys.stdin.isatty():
            value = sys.stdin.read()
        else:
            import getpass

            value = getpass.getpass(f"{name} (not shown): ")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot read the secret: {why.lower()}") from None
    value = value.strip("\r\n")
    if lines and value.strip() and not any(c < " " and c not in "\r\n\t" for c in value):
        return value
    if not value.strip() or not value.isprintable() or value != value.strip():
        raise ConfigError(
            f"{name}: a secret is one line, without blanks around it; nothing was kept"
        )
    return value


def _keep(given: Given, path: Path, value: str) -> None:
    from orchestrator.settings.credentials import write

    write(path, value)
    given.output().say(f"kept in {path}, readable by you only")
