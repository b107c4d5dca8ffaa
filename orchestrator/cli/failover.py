"""`aion failover` and `aion switchover`: moves an operator orders."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.services import one_service, tell


def failover(
    ctx: typer.Context,
    service: Annotated[str | None, typer.Argument(help="May be left out if there is one.")] = None,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="BACKEND", help="Default: the best other one.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Move a service to another backend now. Failback does not undo it for an hour."""
    given, client = ctx.obj, ctx.obj.client()
    seen = one_service(client, service)
    name, active = seen["name"], seen["active"] or "nobody"
    best = next((one for one in seen["fallbacks"] if one != active), "the best other one")
    given.ask(f"{name} moves from {active} to {to or best} now", yes=yes)
    tell(given, client.post(f"/api/services/{quote(name, safe='')}/failover", {"to": to}))


def switchover(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument()],
    *,
    to: Annotated[str, typer.Option("--to", metavar="BACKEND")],
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="22:30, +2h, or RFC 3339.")],
    yes: Yes = False,
) -> None:
    """Move a service at a given time, the new one made ready before the old one is left."""
    from orchestrator.cli.times import clock, moment, parsed, rfc3339
    from orchestrator.core.durations import spoken

    given, client = ctx.obj, ctx.obj.client()
    now = parsed(client.get("/api/status")["as_of"])
    assert now is not None
    when = moment(at, now)
    seen = one_service(client, service)
    left = spoken((when - now).total_seconds())
    given.ask(
        f"{seen['name']} moves from {seen['active'] or 'nobody'} to {to} at {clock(when, now)}"
        f" (in {left})",
        yes=yes,
    )
    path = f"/api/services/{quote(seen['name'], safe='')}/switchover"
    tell(given, client.post(path, {"to": to, "at": rfc3339(when)}))
