"""`aion pin` and `aion unpin`."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.services import one_service, tell

For = Annotated[str, typer.Option("--for", metavar="DURATION", help="90s, 15m, 4h, 1h30m.")]


def pin(
    ctx: typer.Context,
    service: Annotated[str, typer.Argument()],
    backend: Annotated[str, typer.Argument()],
    *,
    duration: For = "4h",
    hard: Annotated[
        bool, typer.Option("--hard", help="Keep it whatever happens, even when it is dead.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Prefer one backend for a while. A dead pin is left and returned to, unless it is hard."""
    from orchestrator.cli.times import duration as seconds_of

    given, seconds = ctx.obj, seconds_of(duration)
    if hard:
        what = f"{service} stays on {backend} for {duration} even if it is dead"
    else:
        what = f"{service} prefers {backend} for {duration}, and moves there when it can"
    given.ask(what, yes=yes)
    path = f"/api/services/{quote(service, safe='')}/pin"
    body = {"backend": backend, "for": f"{seconds:g}s", "hard": hard}
    tell(given, given.client().post(path, body))


def unpin(
    ctx: typer.Context,
    service: Annotated[str | None, typer.Argument(help="May be left out if there is one.")] = None,
    *,
    yes: Yes = False,
) -> None:
    """End a pin: the usual preference decides again."""
    given, client = ctx.obj, ctx.obj.client()
    seen = one_service(client, service)
    held = seen["pin"]
    to = f"its pin to {held['backend']} ends" if held else "it has no pin"
    given.ask(f"{seen['name']}: {to}; the usual preference decides again", yes=yes)
    tell(given, client.post(f"/api/services/{quote(seen['name'], safe='')}/unpin"))
