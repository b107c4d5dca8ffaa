"""The verbs of `aion`, a file for each noun.

`NOUNS` says which module holds a noun; it is imported when the noun is used, so that `aion --help`
and every verb start fast. To add one: a module here with a `typer.Typer` named `app` (one command
without a callback is a verb; a group needs `@app.callback()`), or a plain function, and a line in
`NOUNS`. A verb takes `ctx: typer.Context`, finds what the operator said in `ctx.obj` (an
`options.Given`), and returns its exit status, None for 0. The common options (`--json`, `-q` …) are
added to every verb.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from orchestrator.cli.options import Given, add_common, common
from orchestrator.cli.output import clean
from orchestrator.errors import AionError, Declined

REPORT = 200_000  # characters of a report on a configuration, however broken it is
LOOK, STEER, SET_UP = "Look", "Steer", "Set up and run"


class Noun(NamedTuple):
    """Where a verb lives: `attribute` of `module` is a `typer.Typer` or a function."""

    name: str
    module: str
    attribute: str
    help: str
    panel: str


NOUNS = (
    Noun("status", "status", "status", "Who serves what, until when, what is next", LOOK),
    Noun("explain", "explain", "explain", "Why this one, and why not each of the others", LOOK),
    Noun("plan", "plan", "plan", "Who serves when, what to start by when, uncovered hours", LOOK),
    Noun("events", "events", "events", "What happened, and why", LOOK),
    Noun("incident", "incident", "app", "What is wrong: list, show, ack, mute", LOOK),
    Noun("session", "session", "app", "Who is registered, and until when", LOOK),
    Noun("meters", "meters", "meters", "What is left, and when it runs out", LOOK),
    Noun("simulate", "simulate", "simulate", "The coming weeks, or a mishap, played", LOOK),
    Noun("doctor", "doctor", "doctor", "Check everything it depends on", LOOK),
    Noun("failover", "failover", "failover", "Move a service now", STEER),
    Noun("switchover", "failover", "switchover", "Move a service at a given time", STEER),
    Noun("pin", "pin", "pin", "Prefer one backend for a while", STEER),
    Noun("unpin", "pin", "unpin", "End a pin", STEER),
    Noun("pause", "pause", "pause", "Observe only: change nothing in the world", STEER),
    Noun("resume", "pause", "resume", "End a pause", STEER),
    Noun("backend", "backend", "app", "List, show, check, drain, start, stop, restart …", STEER),
    Noun("token", "token", "app", "What backends register with: new, list, revoke", STEER),
    Noun("job", "job", "app", "Scheduled work: list, run", STEER),
    Noun("backup", "backup", "app", "Dumps: run, list, verify, restore, drill, accept", STEER),
    Noun("dns", "dns", "app", "The stable name's record: show, sync", STEER),
    Noun("alert", "alert", "app", "Try the alert channels", STEER),
    Noun("reload", "reload", "reload", "Read the configuration again", STEER),
    Noun("init", "init", "init", "Ask five questions, write aion.toml and credentials", SET_UP),
    Noun("demo", "demo", "demo", "Demo backends and the daemon, on loopback", SET_UP),
    Noun("serve", "serve", "serve", "Run the daemon", SET_UP),
    Noun("notebook", "notebook", "notebook", "Write the notebook that runs a backend", SET_UP),
    Noun("config", "config", "app", "The configuration: check, show, schema", SET_UP),
    Noun("secret", "secret", "app", "Credentials: set, list, rotate", SET_UP),
    Noun("rebuild", "rebuild", "rebuild", "A new machine from a copy of the old one", SET_UP),
    Noun("service", "service", "app", "The systemd unit: install, status", SET_UP),
)
_BY_NAME = {noun.name: noun for noun in NOUNS}


class _Root(TyperGroup):
    """The `aion` command: knows its nouns by name and loads the one that is used."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(_BY_NAME)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Return a stand-in that help and completion can name, without importing the noun."""
        noun = _BY_NAME.get(cmd_name)
        return TyperCommand(noun.name, help=noun.help) if noun else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        noun = _BY_NAME.get(args[0])
        if noun is not None:
            return noun.name, load(noun), args[1:]
        self.commands.update({name: TyperCommand(name) for name in _BY_NAME})  # to suggest from
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        for panel in (LOOK, STEER, SET_UP):
            with formatter.section(panel):
                formatter.write_dl([(n.name, n.help) for n in NOUNS if n.panel == panel])


def load(noun: Noun) -> Any:
    """Import a noun's module and return its command, common options added."""
    found = getattr(importlib.import_module(f"orchestrator.cli.{noun.module}"), noun.attribute)
    if isinstance(found, typer.Typer):
        app = found
        app.rich_markup_mode = None
    else:
        app = typer.Typer(rich_markup_mode=None)
        app.command(noun.name)(found)
    command = typer.main.get_command(app)
    command.name = noun.name
    add_common(command)
    return command


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"aion {version('aion-orchestrator')}")
        raise typer.Exit


def root() -> Any:
    """Return the whole command, nouns unloaded."""
    app = typer.Typer(cls=_Root, rich_markup_mode=None, no_args_is_help=True)

    @app.callback()
    def aion(
        *,
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_version, help="Show the version and stop."
        ),
    ) -> None:
        """Keep an AI service on the air, on backends that come and go.

        Exit status: 0 done, 1 failed, 2 usage or declined, 3 degraded or down, 4 not allowed,
        5 bad configuration, 6 daemon not reachable.
        """

    command = typer.main.get_command(app)
    command.params = [*common(), *command.params]
    return command


def main() -> None:
    """Run `aion`: the console script. Never returns; its exit status is the contract's."""
    given = Given()
    code = 1
    try:
        answer = root().main(prog_name="aion", standalone_mode=False, obj=given)
        code = answer if isinstance(answer, int) else 0
        sys.stdout.flush()
    except BrokenPipeError:  # `aion events | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        code = 130
    except typer.Abort:
        code = Declined.exit_code
    except typer.TyperException as error:
        code = _usage(error)
    except Exception as error:  # noqa: BLE001  # the last line of defence: one line, no traceback
        code = _failed(error, given)
    sys.exit(code)


def _usage(error: typer.TyperException) -> int:
    """Say what was wrong with the command line; no arguments where some are needed: the help."""
    context = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        return error.exit_code
    see = f"; see {context.command_path} --help" if context is not None else ""
    typer.echo(f"error: {clean(error.format_message()).rstrip('.')}{see}", err=True)
    return error.exit_code


def _failed(error: Exception, given: Given) -> int:
    """Say in one line what failed; with --debug also where."""
    if given.debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, AionError):
        typer.echo(f"error: {clean(str(error), lines=True, limit=REPORT)}", err=True)
        return error.exit_code
    what = clean(str(error)) or type(error).__name__
    if isinstance(error, OSError):
        typer.echo(f"error: {what}", err=True)
    else:
        typer.echo(
            f"error: unexpected {type(error).__name__}: {what}; --debug shows where", err=True
        )
    return 1
