"""`aion session`: who is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.times import ago, until

if TYPE_CHECKING:
    from orchestrator.cli.output import Row

app = typer.Typer()
Past = Annotated[int, typer.Option("--past", min=0, help="So many of those that are over, too.")]


@app.callback()
def session() -> None:
    """Look at the sessions of backends that register themselves."""


@app.command("list")
def list_(ctx: typer.Context, *, past: Past = 0) -> None:
    """List who is registered: those that may serve, and those that have yet to prove themselves."""
    output, client = ctx.obj.output(), ctx.obj.client()
    found = client.get("/api/sessions", past=past or None)
    if output.json:
        output.data(found)
        return
    at = client.get("/api/status")["as_of"]
    rows = [_row(one, at) for one in (*found["live"], *found["pending"])]
    rows += [_over(one, at) for one in found["past"]]
    if not rows:
        output.say("nobody is registered")
    columns = (
        "backend",
        "no.",
        "session",
        "for",
        "ends",
        "heard",
        "gpu",
        "address",
        "what is known",
    )
    output.table(columns, rows)


GPU_MOST = 24  # what a machine says of itself may not push the rest off the screen


def _row(one: Mapping[str, Any], at: str) -> Row:
    pending = one["promoted_at"] is None
    heard = f"{ago(one['beat_at'], at)} ago" if one["beat_at"] else ""
    return (
        Cell(one["backend"], "strong"),
        str(one["generation"]),
        Cell("pending", "warn") if pending else Cell(one["state"] or "live", "good"),
        ago(one["started_at"], at),
        until(one["ends_at"], at),
        heard,
        (one["gpu"] or {}).get("name", "")[:GPU_MOST],
        one["url"],
        Cell("; ".join(known(one)), "dim"),
    )


def known(one: Mapping[str, Any]) -> list[str]:
    """Say what is worth a word of a session: why it does not serve yet, what it was told."""
    told = [f"told to {order['do']}" for order in one["orders"]]
    busy = f"{one['busy']} open" if one["busy"] else ""
    return [word for word in (one["problem"], one["detail"], busy, *told) if word]


def _over(one: Mapping[str, Any], at: str) -> Row:
    ended = f"ended {ago(one['ended_at'], at)} ago"
    row = (
        one["backend"],
        str(one["generation"]),
        "over",
        "",
        ended,
        "",
        "",
        one["url"],
        one["why"],
    )
    return [Cell(text, "dim") for text in row]
