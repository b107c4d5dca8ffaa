"""`aion notebook`: the notebook that runs a backend which registers itself."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backends import ipynb, terms
from orchestrator.errors import AionError, ConfigError, Declined

if TYPE_CHECKING:
    from orchestrator.cli.options import Given
    from orchestrator.settings import Reading


class Platform(StrEnum):
    """Where the notebook is to run."""

    COLAB = terms.COLAB
    KAGGLE = terms.KAGGLE
    JUPYTER = ipynb.JUPYTER


def notebook(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A backend that registers itself.")],
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; `-`: print it. [NAME.ipynb]")
    ] = None,
    platform: Annotated[
        Platform | None, typer.Option(help="Where it runs, if not where the backend says.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write the notebook that runs a backend: one cell to run. No secret is in it.

    Needs the configuration only, with server.public_url in it; no daemon and no credentials.
    """
    given: Given = ctx.obj
    reading = _read(given)
    where = str(platform or _platform(reading, _checked(reading, name)))
    told = _told(reading, _checked(reading, name), where)
    document = ipynb.document(told, where)
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    path = output or Path(f"{name}.ipynb")
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        _write(path, text, force=force)
        if given.json:
            given.output().data({"file": str(path), "platform": where, "aion": told.aion})
    _explain(given, reading, told, where, path)


def _read(given: Given) -> Reading:
    """Read the configuration. Raises ConfigError; credentials need not be there."""
    from orchestrator.settings import find_path, report, study
    from orchestrator.settings.problems import dotted

    path = find_path(given.config, environ=os.environ)
    if path is None:
        raise ConfigError("no configuration; `aion init` writes one, or give it with --config")
    reading = study(path, environ=os.environ)
    if any(dotted(problem.path) not in reading.credentials for problem in reading.problems):
        raise ConfigError(report(reading))
    return reading


def _checked(reading: Reading, name: str) -> str:
    from orchestrator.settings import fleet
    from orchestrator.settings.problems import nearest

    found = reading.settings.backends.get(name)
    if found is None:
        known = ", ".join(reading.settings.backends)
        hint = nearest(name, reading.settings.backends) or f"; there are: {known}"
        raise AionError(f"there is no backend `{name}`{hint}")
    if not fleet(reading).backends[name].registers:
        text = f"`{name}` is of kind `{found.kind}`, which does not register itself"
        raise AionError(f"{text}: only a backend that does, such as a `notebook`, needs this")
    return name


def _platform(reading: Reading, name: str) -> str:
    """Choose by the backend's own keys; what is neither Colab nor Kaggle is Jupyter."""
    backend, options = reading.settings.backends[name], reading.options[name]
    found: str = getattr(options, "platform", backend.kind)
    if terms.COLAB_LINK in (backend.restart_url or ""):
        return terms.COLAB
    return found if found in ipynb.PLATFORMS else ipynb.JUPYTER


def _told(reading: Reading, name: str, platform: str) -> ipynb.Told:
    from orchestrator.settings.values import is_remote

    public = reading.settings.server.public_url
    if public is None:
        text = "server.public_url is not set: the notebook has to know where this daemon is reached"
        raise ConfigError(f'{text}; add public_url = "https://…" under [server]')
    if platform != ipynb.JUPYTER and not is_remote(public):
        where = platform.capitalize()
        raise ConfigError(f"{where} cannot reach {public}: server.public_url is a local address")
    backend = reading.settings.backends[name]
    tunnel, url, listen = ipynb.way_in(_hosts(reading, name), platform)
    return ipynb.Told(
        aion=public.rstrip("/"),
        backend=name,
        engine=backend.engine,
        models=tuple(backend.models.values()),
        tunnel=tunnel,
        url=url,
        listen=listen,
        insecure=public.startswith("http:"),
    )


def _hosts(reading: Reading, name: str) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(reading.options[name], "allow_hosts", ())
    return found


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write the file at once or not at all. Raises Declined, AionError."""
    try:
        if path.exists() and not force and path.read_text() != text:
            raise Declined(f"{path} is there already; --force replaces it")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise AionError(f"cannot write {path}: {why.lower()}") from error


def _explain(given: Given, reading: Reading, told: ipynb.Told, platform: str, path: Path) -> None:
    """Say what to do next, and what to mind."""
    say = given.output().say
    if str(path) != "-":
        say(f"{path} written; open it in {platform.capitalize()} and run its cell")
    kept = reading.credentials.get(f"backends.{told.backend}.token")
    token = f"the credential {kept}" if kept else f"from: aion token new {told.backend}"
    say(f"the token ({token}): {ipynb.where_the_token_goes(platform)}")
    if told.tunnel == "ngrok":
        say("ngrok needs its own token as well, in the same place, as NGROK_AUTHTOKEN")
    elif told.tunnel == "cloudflared" and told.url:
        say(f"{told.url} needs its tunnel's token as well, in the same place, as TUNNEL_TOKEN")
    elif told.tunnel == "none" and not told.url:
        say('add url="https://…" to the last line: where the world finds this machine')
    if rules := terms.of(platform):
        say(f"terms: {rules.text} ({rules.link}); {rules.advice}")
