"""`aion pause` and `aion resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.services import tell


def pause(
    ctx: typer.Context,
    *,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Default: until resumed.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Observe only: nothing is published, started or stopped, whoever dies."""
    from orchestrator.cli.times import duration as seconds_of

    given = ctx.obj
    seconds = seconds_of(duration) if duration else None
    end = f"for {duration}" if duration else "until `aion resume`"
    given.ask(f"aion only observes {end}: a dead backend is not replaced meanwhile", yes=yes)
    body = {"for": f"{seconds:g}s" if seconds else None}
    tell(given, given.client().post("/api/pause", body))


def resume(ctx: typer.Context, *, yes: Yes = False) -> None:
    """End a pause: what should have been done meanwhile is done now."""
    given = ctx.obj
    given.ask("aion acts again: services may move at once", yes=yes)
    tell(given, given.client().post("/api/resume"))
