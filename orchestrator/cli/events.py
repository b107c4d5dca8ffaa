"""`aion events`: what happened, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.times import parsed
from orchestrator.errors import AionError

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Output


def events(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    last: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many to begin with.")] = 20,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="Only this backend or service.")
    ] = None,
) -> None:
    """Show what happened and why, oldest first."""
    output, client = ctx.obj.output(), ctx.obj.client()
    seen = client.get("/api/events", limit=last, subject=subject)
    if output.json and not follow:
        output.data(seen)
        return
    for event in seen:
        _print(output, event)
    if follow:
        try:
            for event in _following(client, seen[-1]["seq"] if seen else None, subject):
                _print(output, event)
        except KeyboardInterrupt:
            return
    elif not seen:
        output.say("nothing has happened yet")


def _following(client: Client, after: int | None, subject: str | None) -> Iterator[Any]:
    """Yield what comes after `after`, coming back when the daemon ends a stream in good order."""
    while True:
        # `after` 0 asks for the newest lines: nothing was seen yet, so those are new.
        query = {"follow": "true", "after": after or 0, "limit": 1000, "subject": subject}
        for event in client.follow("/api/events", **query):
            after = event["seq"]
            yield event
        if after is None:
            raise AionError("the daemon ended the stream")


def _print(output: Output, event: Mapping[str, Any]) -> None:
    if output.json:
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    at = parsed(event["at"])
    when = at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""
    by = f"  ({event['who']})" if event.get("who") else ""
    subject, text = event["subject"] or "aion", event["text"]
    named = "" if subject in text else f"{subject}: "
    output.line(Cell(when, "dim"), f"  {named}{text}", Cell(by, "dim"))
    sys.stdout.flush()
