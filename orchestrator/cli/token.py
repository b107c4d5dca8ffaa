"""`aion token`: what backends register with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell, clean
from orchestrator.cli.services import tell
from orchestrator.cli.times import ago

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.output import Row

app = typer.Typer()
Name = Annotated[str, typer.Argument(metavar="BACKEND")]
Only = Annotated[str | None, typer.Argument(metavar="[BACKEND]", help="Default: every backend.")]
Ids = Annotated[
    list[str] | None,
    typer.Option("--id", metavar="ID", help="Only this one, as `list` shows it; may be repeated."),
]
KEEP = """\
Token {id} lets {backend} register. It is shown this once and not kept.
Keep it where the notebook runs, as the secret AION_TOKEN: in Colab behind the key symbol at
the left (Secrets; allow this notebook), in Kaggle under Add-ons, Secrets, elsewhere as an
environment variable. Whoever has it can register as this backend; to end that:
aion token revoke {backend} --id {id}"""


@app.callback()
def token() -> None:
    """Make, list and revoke the tokens that backends register with."""


@app.command()
def new(ctx: typer.Context, backend: Name, *, yes: Yes = False) -> None:
    """Make a token and print it; it is not shown again."""
    output, client = ctx.obj.output(), ctx.obj.client()
    ctx.obj.ask(f"a new token lets {backend} register, besides those it has", yes=yes)
    made = client.post("/api/tokens", {"backend": backend})
    if output.json:
        output.data(made)
        return
    output.say(KEEP.format(id=made["id"], backend=backend))
    output.line(made["token"])


@app.command("list")
def list_(ctx: typer.Context, backend: Only = None) -> None:
    """List the tokens, valid and revoked; what they are is not kept."""
    output, client = ctx.obj.output(), ctx.obj.client()
    found = [one for one in client.get("/api/tokens") if backend in (None, one["backend"])]
    if output.json:
        output.data(found)
    elif found:
        at = client.get("/api/status")["as_of"]
        columns = ("token", "backend", "made", "by", "state")
        output.table(columns, [_row(one, at) for one in found])
    else:
        output.say("there is no token; aion token new BACKEND makes one")


def _row(one: Mapping[str, Any], at: str) -> Row:
    revoked = one["revoked_at"]
    return (
        Cell(one["id"], "strong" if one["valid"] else "dim"),
        one["backend"],
        f"{ago(one['created_at'], at)} ago" if one["created_at"] else "",
        one["by"],
        Cell(f"revoked {ago(revoked, at)} ago", "bad") if revoked else _standing(one),
    )


def _standing(one: Mapping[str, Any]) -> Cell:
    """Say how a token that was not revoked stands: a launch's is good but once."""
    if one["valid"]:
        return Cell("valid", "good")
    return Cell("used" if one["spent_at"] else "its launch is over", "dim")


@app.command()
def revoke(ctx: typer.Context, backend: Name, ids: Ids = None, *, yes: Yes = False) -> None:
    """End all tokens of a backend, or those named, and at once the sessions opened with them."""
    client = ctx.obj.client()
    which = f"the tokens {', '.join(ids)}" if ids else f"all tokens of {backend}"
    ctx.obj.ask(
        f"{which} end for good, and every session opened with them{_serving(client, backend)}",
        yes=yes,
    )
    body = {"ids": _own(client, backend, ids)} if ids else {"backend": backend}
    tell(ctx.obj, client.post("/api/tokens/revoke", body))


def _serving(client: Client, backend: str) -> str:
    """Say what would be left without it; nothing of one that is not configured any more."""
    seen = client.get("/api/status")["backends"]
    serves: list[str] = next((one["serves"] for one in seen if one["name"] == backend), [])
    return f" ({backend} serves {', '.join(serves)} now)" if serves else ""


def _own(client: Client, backend: str, ids: list[str]) -> list[str]:
    """Check that these are this backend's. Raises Declined."""
    from orchestrator.errors import Declined

    own = {one["id"] for one in client.get("/api/tokens") if one["backend"] == backend}
    if strange := [one for one in ids if one not in own]:
        raise Declined(f"{clean(backend)} has no token {clean(', '.join(strange))}")
    return ids
