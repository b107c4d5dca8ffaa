"""What the operator said: the options that every verb has, and asking before acting."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.errors import Declined

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Output

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


@dataclass(slots=True)
class Given:
    """The common options; every verb finds it in `ctx.obj`."""

    config: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    json: bool = False
    quiet: bool = False
    debug: bool = False

    def output(self) -> Output:
        """Return what to print with."""
        from orchestrator.cli.output import Output

        return Output(json=self.json, quiet=self.quiet)

    def client(self) -> Client:
        """Return a client of the daemon, its address and token found. Raises ConfigError."""
        from orchestrator.cli.client import connect

        return connect(self)

    def ask(self, consequence: str, *, yes: bool) -> None:
        """Say what is about to happen and ask; `yes` skips. Raises Declined.

        Without a terminal nobody can answer, so nothing is done.
        """
        if yes:
            return
        from orchestrator.cli.output import clean

        text = clean(consequence)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Declined(f"not done, for nobody can be asked here: {text}; -y does it")
        sys.stderr.write(f"{text}. Go on? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise Declined("not done")


def _remember(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Keep what was said; a default never undoes what was said before the verb."""
    if value and not ctx.resilient_parsing:
        setattr(ctx.obj, str(param.name), value)
    return value


def _option(*names: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(
        *names,
        help=text,
        metavar=metavar,
        callback=_remember,
        expose_value=False,
        show_default=False,
    )


_Config = Annotated[
    Path | None, _option("--config", text="The configuration file.", metavar="FILE")
]
_Url = Annotated[
    str | None, _option("--url", text="The daemon's address, if not the usual.", metavar="URL")
]
_TokenFile = Annotated[
    Path | None, _option("--token-file", text="A file with the admin token.", metavar="FILE")
]
_Json = Annotated[bool, _option("--json", text="Print data as JSON.")]
_Quiet = Annotated[bool, _option("--quiet", "-q", text="No prose, only data and errors.")]
_Debug = Annotated[bool, _option("--debug", text="Show a traceback when something fails.")]


def common() -> list[Any]:
    """Return the common options as parameters of a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    def template(
        *,
        config: _Config = None,
        url: _Url = None,
        token_file: _TokenFile = None,
        json: _Json = False,
        quiet: _Quiet = False,
        debug: _Debug = False,
    ) -> None:
        pass

    return [param for param in typer.main.get_command(app).params if param.name != "help"]


def add_common(command: Any) -> None:
    """Give every verb of `command` the common options it does not define itself."""
    for child in getattr(command, "commands", {}).values():
        add_common(child)
    taken = {name for param in command.params for name in param.opts}
    command.params = [
        *(p for p in command.params if p.name not in {"install_completion", "show_completion"}),
        *(param for param in common() if not taken & set(param.opts)),
    ]
