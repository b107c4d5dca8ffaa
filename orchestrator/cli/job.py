"""`aion job`: scheduled work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from orchestrator.cli.following import follow, standing
from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.cli.services import tell
from orchestrator.cli.times import ago, until

if TYPE_CHECKING:
    from orchestrator.cli.options import Given

app = typer.Typer()


@app.callback()
def job() -> None:
    """Look at scheduled work, and run it now."""


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the jobs, when they run and how they ended last."""
    output, client = ctx.obj.output(), ctx.obj.client()
    jobs = client.get("/api/jobs")
    if output.json:
        output.data(jobs)
        return
    if not jobs:
        output.say("no job is configured")
        return
    at = client.get("/api/status")["as_of"]
    output.table(
        ("job", "next", "last", "state"),
        [
            (
                Cell(one["name"], "strong"),
                until(one["next_at"], at),
                f"{ago(one['last_at'], at)} ago" if one["last_at"] else "never",
                Cell("quarantined", "bad")
                if one["quarantined"]
                else "running"
                if one["running"]
                else one["problem"] or one.get("said", ""),
            )
            for one in jobs
        ],
    )


@app.command()
def run(ctx: typer.Context, name: Annotated[str, typer.Argument()], *, yes: Yes = False) -> None:
    """Run a job now, besides its schedule, and wait for its end."""
    given: Given = ctx.obj
    given.ask(f"the job {name} runs now, besides its schedule", yes=yes)
    client = given.client()
    before = standing(client, name)
    client.post(f"/api/jobs/{quote(name, safe='')}/run?wait=false")
    tell(given, {"text": follow(given, client, name, before)})
