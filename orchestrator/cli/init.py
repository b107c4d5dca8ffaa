"""`aion init`: five questions, then a configuration that works and a token only its owner reads."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from orchestrator.cli.options import Given

DEFAULT_SERVER = "http://127.0.0.1:11434"
ALERT = "alert_url"
# The port a server listens on unless told otherwise says which one it is.
PORTS = {
    11434: "ollama",
    8000: "vllm",
    8080: "llamacpp",
    1234: "lmstudio",
    5000: "textgen",
    5001: "koboldcpp",
    4000: "litellm",
    3000: "tgi",
}


@dataclass(slots=True)
class Answers:
    """What the operator said. `alert` is a secret."""

    server: str
    engine: str
    second: str
    alert: str
    timezone: str


def init(
    ctx: typer.Context,
    *,
    server: Annotated[str, typer.Option(help="Address of the server that runs your model.")] = "",
    engine: Annotated[str, typer.Option(help="What it is: ollama, vllm, llamacpp …")] = "",
    second: Annotated[str, typer.Option(help="Address of another one, to fail over to.")] = "",
    alert_file: Annotated[
        Path | None, typer.Option(help="A file with the Apprise URL that alerts go to; `-`: stdin.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Your time zone.")] = "",
    into: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    overwrite: Annotated[bool, typer.Option(help="Replace a configuration that is there.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing; defaults for the rest.")
    ] = False,
) -> None:
    """Ask five questions, write aion.toml and credentials."""
    from orchestrator.errors import Declined

    given: Given = ctx.obj
    path = (given.config or into / "aion.toml").absolute()
    if not yes and not sys.stdin.isatty():
        raise Declined("nobody can be asked here; -y takes the defaults, see aion init --help")
    _allowed(given, path, overwrite=overwrite, yes=yes)
    said = Answers(server, engine, second, _from_file(alert_file), timezone)
    if not yes:
        _ask(given, said)
    said.server = said.server or DEFAULT_SERVER
    said.engine = said.engine or guess(said.server)
    said.timezone = said.timezone or system_zone()
    _write(path, said)
    out = given.output()
    if given.json:
        out.data({"file": str(path), "credentials": str(path.parent / "credentials")})
    out.say(f"written: {path} and its credentials, which only you can read")
    from orchestrator.cli.where import ourselves

    aion = ourselves()
    out.say(f"next: {aion} serve, then {aion} status; every other key: docs/configuration.md")


def guess(server: str) -> str:
    """Guess the engine by its usual port."""
    from urllib.parse import urlsplit

    try:
        return PORTS.get(urlsplit(server).port or 0, "openai")
    except ValueError:
        return "openai"


def system_zone() -> str:
    """Name the machine's time zone; UTC if it does not say."""
    from orchestrator.settings.values import timezone

    zone = os.environ.get("TZ") or ""
    link = Path("/etc/localtime")
    if not zone and link.is_symlink():
        zone = str(link.readlink()).partition("zoneinfo/")[2]
    try:
        return timezone(zone)
    except ValueError:
        return "UTC"


def render(said: Answers) -> str:
    """Write the configuration."""
    blocks = [
        f"timezone = {_quoted(said.timezone)}",
        '[server]\nlisten = "127.0.0.1:8765"\nadmin_token = { credential = "admin_token" }',
        _backend("main", said.engine, said.server, 10),
    ]
    if said.second:
        blocks.append(_backend("second", guess(said.second), said.second, 20))
    blocks.append("[services.chat]")
    if said.alert:
        blocks.append(f'[alerts]\nurls = [{{ credential = "{ALERT}" }}]')
    head = "# Written by `aion init`. Every key is explained in docs/configuration.md."
    return head + "\n" + "\n\n".join(blocks) + "\n"


def _backend(name: str, engine: str, url: str, priority: int) -> str:
    lines = (
        f"[backends.{name}]",
        'kind = "static"',
        f"engine = {_quoted(engine)}",
        f"url = {_quoted(url)}",
        f"priority = {priority}",
    )
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text)


def _allowed(given: Given, path: Path, *, overwrite: bool, yes: bool) -> None:
    """Never replace a file that was not asked about. Raises Declined."""
    from orchestrator.errors import Declined

    if not path.exists() or overwrite:
        return
    if yes:
        raise Declined(f"{path} is there already; --overwrite replaces it and keeps a copy")
    given.ask(f"{path} is there already; it is replaced, a copy is kept beside it", yes=False)


def _from_file(file: Path | None) -> str:
    from orchestrator.errors import ConfigError

    if file is None:
        return ""
    try:
        return (sys.stdin.read() if str(file) == "-" else file.read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot read {file}: {why.lower()}") from None


def _ask(given: Given, said: Answers) -> None:
    """Ask what the flags did not say."""
    import getpass

    say = given.output().say
    say("Enter takes what is in brackets.")
    if not said.server:
        said.server = _line("1/5 Address of the server that runs your model", DEFAULT_SERVER)
    if not said.engine:
        said.engine = _line(
            "2/5 What is it? (ollama, vllm, llamacpp, openai …)", guess(said.server)
        )
    if not said.second:
        said.second = _line("3/5 Address of another one, to fail over to", "")
    if not said.alert:
        say("4/5 Where do alerts go? An Apprise URL, such as mailtos://… or tgram://… [nowhere]")
        said.alert = getpass.getpass("    (not shown): ").strip()
    if not said.timezone:
        said.timezone = _line("5/5 Your time zone", system_zone())


def _line(question: str, default: str) -> str:
    sys.stderr.write(f"{question} [{default or 'none'}]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or default


def _write(path: Path, said: Answers) -> None:
    """Check what was said, then write everything; nothing is left half done."""
    from orchestrator.errors import ConfigError
    from orchestrator.settings.credentials import ADMIN_TOKEN, new_token, write

    text = render(said)
    folder = path.parent / "credentials"
    wanted = {ALERT: said.alert} if said.alert else {}
    if not (folder / ADMIN_TOKEN).exists():
        wanted[ADMIN_TOKEN] = new_token()
    _try(path, text, {ADMIN_TOKEN: new_token(), **wanted})
    for name, value in wanted.items():
        write(folder / name, value)
    try:
        if path.exists():
            path.replace(path.with_name(path.name + ".old"))
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {(error.strerror or '').lower()}") from error


def _try(path: Path, text: str, secrets: dict[str, str]) -> None:
    """Load what would be written. Raises ConfigError."""
    from orchestrator.errors import ConfigError
    from orchestrator.settings import report, study_text
    from orchestrator.settings.credentials import variable

    environ = {variable(name): value for name, value in secrets.items()}
    reading = study_text(text, path, environ=environ)
    if reading.problems:
        raise ConfigError(f"nothing was written: {report(reading)}")
