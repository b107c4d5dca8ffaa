"""`aion explain`: why this one, and why not each of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.status import HEALTH_STYLES, STATE_STYLES
from orchestrator.cli.times import ago, until

if TYPE_CHECKING:
    from orchestrator.cli.output import Output


def explain(
    ctx: typer.Context,
    service: Annotated[str | None, typer.Argument(help="Default: every service.")] = None,
) -> None:
    """Say why the backend that serves was chosen, and why not each of the others."""
    output, client = ctx.obj.output(), ctx.obj.client()
    if service is not None:
        names = [service]
    else:
        names = [one["name"] for one in client.get("/api/services")]
    seen = [client.get(f"/api/explain/{quote(name, safe='')}") for name in names]
    if output.json:
        output.data(seen[0] if service is not None else seen)
        return
    status = client.get("/api/status")
    ends = {one["name"]: _ends(one, status["as_of"]) for one in status["backends"]}
    for i, one in enumerate(seen):
        if i:
            output.line()
        _show(output, one, status["as_of"], ends)


def _ends(backend: Mapping[str, Any], at: str) -> str:
    """Say until when its session lasts, and that another one is waiting."""
    session, pending = backend["session"], backend["pending"]
    waits = f"no. {pending['generation']} registered" if pending else ""
    return "; ".join(filter(None, (until((session or {}).get("ends_at"), at), waits)))


def _show(output: Output, seen: Mapping[str, Any], as_of: str, ends: Mapping[str, str]) -> None:
    state, active = seen["state"], seen["active"]
    since = ago(seen["since"], as_of)
    output.line(
        Cell(seen["service"], "strong"),
        " is ",
        Cell(state, STATE_STYLES.get(state, "")),
        f": {active or 'nobody'} serves" + (f", for {since}" if since and active else ""),
        f" (epoch {seen['epoch']})",
    )
    output.line(f"Why: {seen['reason']}")
    if seen["would"]:
        output.line(Cell(f"If it did not only observe: {seen['would']}", "warn"))
    output.line()
    output.table(
        ("backend", "health", "can serve", "session", "why"),
        [
            (
                Cell(one["backend"], "strong" if one["serves"] else ""),
                Cell(one["health"], HEALTH_STYLES.get(one["health"], "bad")),
                "serves" if one["serves"] else "yes" if one["able"] else "no",
                ends.get(one["backend"], ""),
                one["note"],
            )
            for one in seen["candidates"]
        ],
    )
