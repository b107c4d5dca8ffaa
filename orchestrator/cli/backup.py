"""`aion backup`: dumps made, looked at, drilled and brought back.

The daemon makes the nightly ones; `run` asks it. The rest talks to the stores itself, so that it
works where the daemon, or the machine it ran on, is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli import backup_looks, backup_more, backup_restoring
from orchestrator.cli.backup_words import Name, do_here, say_problems, size
from orchestrator.cli.following import follow, standing
from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.errors import AionError, DaemonUnreachable

if TYPE_CHECKING:
    from jobs.backup.form import Plan
    from orchestrator.cli.client import Client
    from orchestrator.cli.following import Row
    from orchestrator.cli.options import Given

app = typer.Typer()


@app.callback()
def backup() -> None:
    """Make dumps of the database, look at them, drill, bring them back."""


@app.command()
def run(
    ctx: typer.Context,
    name: Name,
    *,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would expire.")] = False,
    yes: Yes = False,
) -> int:
    """Back up now, besides the schedule: by the daemon, else here."""
    given: Given = ctx.obj
    if dry:
        from orchestrator.cli.backup_places import of_name

        return _show_expiry(given, of_name(given, name).plan)
    given.ask(f"the backup {name} is made now, besides its schedule", yes=yes)
    client = given.client()
    try:
        before = standing(client, f"backup-{name}")
        client.post(f"/api/backups/{quote(name, safe='')}/run")
    except DaemonUnreachable:
        given.output().say("the daemon is not running here, so it is made without it")
        return _run_here(given, name)
    return _follow(given, client, name, before)


def _follow(given: Given, client: Client, name: str, before: Row | None) -> int:
    """Wait for the daemon's run to end, showing how far it is."""
    from orchestrator.cli.backup_places import Bars

    def stands() -> Row:
        return next(one for one in client.get("/api/backups") if one["name"] == name)

    output, problem = given.output(), ""
    with Bars(output) as bars:

        def meanwhile() -> None:
            if at := stands()["progress"]:
                bars.tell(at["step"], at["done"], at["total"])

        try:
            follow(given, client, f"backup-{name}", before, meanwhile)
        except DaemonUnreachable:
            raise
        except AionError as error:
            problem = str(error).removeprefix("backup-")
    one = stands()
    if output.json:
        output.data({**one, "problem": problem.removeprefix(f"{name}: ") or one["problem"]})
    elif problem:
        output.line(Cell(problem, "bad"))
    else:
        if one["dump"]:
            output.line(f"{one['dump']}, {size(one['size'])}, in {len(one['copies'])} places")
        for more in one["more"]:
            output.line(f"{more['kind']} {more['name']}: {more['said']}")
    return 1 if problem else 0


def _run_here(given: Given, name: str) -> int:
    import asyncio

    from jobs.backing import BackupFailed, back_up
    from jobs.backup.child import DO
    from jobs.backup.errors import BackupError
    from orchestrator.cli.backup_places import Bars, of_name, ports_of

    settings, output = of_name(given, name), given.output()
    with Bars(output) as bars:
        ports = ports_of(bars)

        def work(do: str) -> Mapping[str, Any]:
            try:
                return DO[do](settings.plan, ports, "", "")
            except BackupError as error:
                return {"ok": False, "kind": type(error).__name__, "detail": str(error)}

        async def ask(do: str) -> Mapping[str, Any]:
            return await asyncio.to_thread(work, do)

        try:
            said, problem = asyncio.run(back_up(settings, ask, ports.clock.wall)), ""
        except BackupFailed as error:
            said, problem = str(error), str(error)
    if output.json:
        output.data({"name": name, "text": said, "problem": problem})
    else:
        output.line(Cell(f"{name}: {said}", "bad" if problem else ""))
    return 1 if problem else 0


def _show_expiry(given: Given, plan: Plan) -> int:
    answer, output = do_here(given, "expire", plan), given.output()
    if output.json:
        output.data(answer)
    else:
        output.table(
            ("store", "would go", "why"),
            [(one["store"], one["dump"], one["why"]) for one in answer["found"]],
        )
        if not answer["found"]:
            output.say("nothing would go")
    say_problems(given, answer)
    return 0 if answer["ok"] else 1


app.command("list")(backup_looks.list_)
app.command()(backup_looks.verify)
app.command()(backup_looks.drill)
app.command()(backup_restoring.restore)
app.command()(backup_restoring.accept)
app.command()(backup_more.rows)
app.command()(backup_more.fetch)
