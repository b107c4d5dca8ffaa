"""`aion reload`: have the daemon read its configuration again."""

from __future__ import annotations

import typer

from orchestrator.cli.options import Yes


def reload(ctx: typer.Context, *, yes: Yes = False) -> None:
    """Read the configuration again. A file with problems is refused; the last good one stays."""
    given = ctx.obj
    given.ask("the daemon takes over the configuration file as it is now", yes=yes)
    answer = given.client().post("/api/reload")
    output = given.output()
    if output.json:
        output.data(answer)
        return
    for line in answer.get("changes", ()):
        output.line(str(line))
    if not answer.get("changes"):
        output.say("nothing has changed")
