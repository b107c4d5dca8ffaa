"""`aion incident`: what is wrong, and saying that one knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.cli.pin import For
from orchestrator.cli.services import tell
from orchestrator.cli.status import INCIDENT_COLUMNS, SEVERITY_STYLES, incident
from orchestrator.cli.times import ago, until

if TYPE_CHECKING:
    from orchestrator.cli.output import Output

app = typer.Typer()
Which = Annotated[str, typer.Argument(metavar="ID", help="Its id or key, as `list` shows it.")]


@app.callback()
def incidents() -> None:
    """Look at what is wrong, and say that you know."""


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the open incidents, oldest first."""
    output, client = ctx.obj.output(), ctx.obj.client()
    seen = client.get("/api/status")
    if output.json:
        output.data(seen["incidents"])
    elif seen["incidents"]:
        output.table(INCIDENT_COLUMNS, [incident(one, seen["as_of"]) for one in seen["incidents"]])
    else:
        output.say("no incident is open")


@app.command()
def show(ctx: typer.Context, which: Which) -> None:
    """Show one open incident."""
    output, client = ctx.obj.output(), ctx.obj.client()
    one = client.get(_path(which))
    if output.json:
        output.data(one)
    else:
        _show(output, one, client.get("/api/status")["as_of"])


def _show(output: Output, one: Mapping[str, Any], at: str) -> None:
    acked = f"{ago(one['acked_at'], at)} ago" if one["acked_at"] else ""
    output.fields(
        {
            "incident": Cell(one["id"], "strong"),
            "key": one["key"],
            "severity": Cell(one["severity"], SEVERITY_STYLES.get(one["severity"], "")),
            "what": one["text"],
            "open for": ago(one["opened_at"], at),
            "acknowledged": acked + (f" by {one['acked_by']}" if one["acked_by"] else ""),
            "muted until": until(one["muted_until"], at),
            "reminders sent": str(one["reminders"] or ""),
            "escalated": f"{ago(one['escalated_at'], at)} ago" if one["escalated_at"] else "",
        }
        | {name: value for name, value in one["params"].items() if name not in one["text"]}
    )


@app.command()
def ack(ctx: typer.Context, which: Which, *, yes: Yes = False) -> None:
    """Say that you know: no more reminders, no escalation."""
    ctx.obj.ask(f"incident {which} is acknowledged: no more reminders of it", yes=yes)
    tell(ctx.obj, ctx.obj.client().post(f"{_path(which)}/ack"))


@app.command()
def mute(ctx: typer.Context, which: Which, *, duration: For = "4h", yes: Yes = False) -> None:
    """Be silent about an incident for a while."""
    from orchestrator.cli.times import duration as seconds_of

    seconds = seconds_of(duration)
    ctx.obj.ask(f"nothing is sent about incident {which} for {duration}", yes=yes)
    tell(ctx.obj, ctx.obj.client().post(f"{_path(which)}/mute", {"for": f"{seconds:g}s"}))


def _path(which: str) -> str:
    return f"/api/incidents/{quote(which, safe='')}"
