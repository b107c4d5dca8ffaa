"""`aion backup`: dumps made, looked at, drilled and brought back.

The daemon makes the nightly ones; `run` asks it. The rest talks to the stores itself, so that it
works where the daemon, or the machine it ran on, is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from orchestrator.cli import backup_more
from orchestrator.cli.options import Yes
from orchestrator.cli.output import Cell
from orchestrator.errors import DaemonUnreachable, Declined

if TYPE_CHECKING:
    from jobs.backup.form import Manifest, Plan
    from jobs.backup.restore import Into
    from orchestrator.cli.client import Client
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output

LOOK_S = 0.5

Name = Annotated[str, typer.Argument(help="The backup, as in [backups.NAME].")]
AnyName = Annotated[str, typer.Argument(help="The backup; absent: all.")]
Dump = Annotated[str, typer.Argument(help="The dump, by id or number; absent: the newest good.")]
From = Annotated[
    str,
    typer.Option("--from", metavar="STORE", help="One store: file:/…, rclone:…, gs://…, hf://…"),
]
Rclone = Annotated[
    Path | None, typer.Option("--rclone-config", metavar="FILE", help="With --from rclone:…")
]
Google = Annotated[Path | None, typer.Option("--google", metavar="FILE", help="With --from gs://…")]

app = typer.Typer()
app.command()(backup_more.rows)
app.command()(backup_more.fetch)


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
        client.post(f"/api/backups/{quote(name, safe='')}/run")
    except DaemonUnreachable:
        given.output().say("the daemon is not running here, so it is made without it")
        return _run_here(given, name)
    return _follow(given, client, name)


def _follow(given: Given, client: Client, name: str) -> int:
    """Wait for the daemon's run to end, showing how far it is."""
    from orchestrator.cli.backup_places import Bars

    output = given.output()
    output.say("the daemon backs up; it goes on if you leave")
    with Bars(output) as bars:
        while True:
            (one,) = [one for one in client.get("/api/backups") if one["name"] == name]
            if not one["running"]:
                break
            if at := one["progress"]:
                bars.tell(at["step"], at["done"], at["total"])
            threading.Event().wait(LOOK_S)
    if output.json:
        output.data(one)
    elif one["problem"]:
        output.line(Cell(f"{name}: {one['problem']}", "bad"))
    else:
        if one["dump"]:
            output.line(f"{one['dump']}, {_size(one['size'])}, in {len(one['copies'])} places")
        for more in one["more"]:
            output.line(f"{more['kind']} {more['name']}: {more['said']}")
    return 1 if one["problem"] else 0


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
    answer, output = _do(given, "expire", plan), given.output()
    if output.json:
        output.data(answer)
    else:
        output.table(
            ("store", "would go", "why"),
            [(one["store"], one["dump"], one["why"]) for one in answer["found"]],
        )
        if not answer["found"]:
            output.say("nothing would go")
    _say_problems(given, answer)
    return 0 if answer["ok"] else 1


def _do(given: Given, do: str, plan: Plan, store: str = "", dump: str = "") -> dict[str, Any]:
    """Do in this process what the child does; see `jobs.backup.child`."""
    from jobs.backup.child import DO
    from orchestrator.cli.backup_places import Bars, ports_of

    with Bars(given.output()) as bars:
        return DO[do](plan, ports_of(bars), store, dump)


def _say_problems(given: Given, answer: Mapping[str, Any]) -> None:
    for one in answer.get("problems", ()):
        given.output().say(f"{one['store']}: {one['detail']}")


@app.command("list")
def list_(
    ctx: typer.Context,
    name: AnyName = "",
    *,
    source: From = "",
    rclone: Rclone = None,
    google: Google = None,
) -> int:
    """List the dumps that the stores hold, by what is there and not by what was once written."""
    from jobs.backup import readback
    from jobs.backup.catalogue import read
    from jobs.backup.errors import StoreBroken
    from orchestrator.cli.backup_places import Bars, Keys, opened, plans, ports_of

    given: Given = ctx.obj
    output = given.output()
    rows: list[dict[str, Any]] = []
    exports: list[dict[str, Any]] = []
    syncs: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    with plans(given, name, source, Keys(rclone, google)) as found:
        for plan in found:
            for copy in plan.copies:
                try:
                    with opened(plan, copy, ports_of(Bars(output))) as store:
                        rows += [_row(store.url, one) for one in read(store, plan.name)]
                        exports += readback.shown(plan, store)
                except StoreBroken as error:
                    failed.append({"store": copy.target.url, "detail": str(error)})
            for sync, copy in [(one, copy) for one in plan.syncs for copy in one.to]:
                try:
                    Path(plan.spool).mkdir(mode=0o700, parents=True, exist_ok=True)
                    syncs.append(readback.kept(plan, sync, copy, ports_of(Bars(output))))
                except StoreBroken as error:
                    failed.append({"store": copy.target.url, "detail": str(error)})
    rows.sort(key=lambda row: str(row["dump"]), reverse=True)
    if output.json:
        output.data({"dumps": rows, "exports": exports, "syncs": syncs, "problems": failed})
    else:
        output.table(("dump", "size", "tables", "store", "state"), [_shown(row) for row in rows])
        _list_more(output, exports, syncs)
        if not (rows or exports or syncs or failed):
            output.say("there is no dump")
    _say_problems(given, {"problems": failed})
    return 1 if failed else 0


def _list_more(output: Output, exports: list[dict[str, Any]], syncs: list[dict[str, Any]]) -> None:
    def state(one: Mapping[str, Any]) -> Cell:
        return Cell(one["problem"] or "there", "bad" if one["problem"] else "good")

    if exports:
        output.table(
            ("export", "parts", "rows", "up to", "size", "store", "state"),
            [
                (
                    Cell(one["export"], "strong"),
                    str(one["parts"]),
                    str(one["rows"]),
                    one["last"] or "",
                    _size(one["size"]),
                    one["store"],
                    state(one),
                )
                for one in exports
            ],
        )
    if syncs:
        output.table(
            ("sync", "versions", "files", "size", "newest", "place", "state"),
            [
                (
                    Cell(one["sync"], "strong"),
                    str(one["versions"]),
                    str(one["files"]),
                    _size(one["size"]),
                    (one["created_at"] or "")[:16],
                    one["store"],
                    state(one),
                )
                for one in syncs
            ],
        )


def _row(store: str, one: Any) -> dict[str, Any]:
    made: Manifest | None = one.manifest
    return {
        "dump": str(one.id),
        "store": store,
        "size": one.size,
        "created_at": None if made is None else made.created_at.isoformat(),
        "tables": None if made is None else len(made.tables),
        "rows": None if made is None else sum(max(table.rows, 0) for table in made.tables),
        "encrypted": made is not None and made.encrypted is not None,
        "quarantined": one.quarantined,
        "problem": one.problem,
    }


def _shown(row: Mapping[str, Any]) -> tuple[Cell | str, ...]:
    state = Cell(row["problem"], "bad") if row["problem"] else Cell("there", "good")
    if row["quarantined"]:
        state = Cell("in quarantine: see aion backup accept", "warn")
    tables = "" if row["tables"] is None else str(row["tables"])
    return Cell(row["dump"], "strong"), _size(row["size"]), tables, row["store"], state


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - of SI's prefixes
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


@app.command()
def verify(
    ctx: typer.Context,
    name: AnyName = "",
    dump: Dump = "",
    *,
    download: Annotated[bool, typer.Option("--download", help="Read one dump back whole.")] = False,
    source: From = "",
    rclone: Rclone = None,
    google: Google = None,
) -> int:
    """Check the copies against the stores' own hashes; --download reads one back and hashes it."""
    from orchestrator.cli.backup_places import Keys, plans

    given: Given = ctx.obj
    output = given.output()
    found: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    ok = True
    with plans(given, name, source, Keys(rclone, google)) as meant:
        for plan in meant:
            answer = _do(given, "rehash" if download else "verify", plan, "", dump)
            found += [one for one in answer["found"] if dump in {"", one["dump"]} or download]
            problems += answer["problems"]
            ok = ok and answer["ok"]
    if output.json:
        output.data({"ok": ok, "found": found, "problems": problems})
    else:
        output.table(
            ("dump", "store", "state"),
            [
                (
                    Cell(one["dump"], "strong"),
                    one["store"],
                    Cell(one["detail"] or "whole", "good" if one["ok"] else "bad"),
                )
                for one in found
            ],
        )
    _say_problems(given, {"problems": problems})
    return 0 if ok else 1


@app.command()
def drill(ctx: typer.Context, name: Name, dump: Dump = "") -> int:
    """Restore a dump into a scratch database and compare; the database itself is not touched."""
    from orchestrator.cli.backup_places import of_name

    given: Given = ctx.obj
    output = given.output()
    answer = _do(given, "drill", of_name(given, name).plan, "", dump)
    if output.json:
        output.data(answer)
    elif answer["ok"]:
        text = f"{answer['dump']} from {answer['store']} restores: {answer['tables']} tables"
        output.line(f"{text}, {answer['rows']} rows, in {answer['seconds']:.1f} s")
    else:
        for line in answer["problems"]:
            output.line(Cell(f"{answer['dump']} from {answer['store']}: {line}", "bad"))
    return 0 if answer["ok"] else 1


@app.command()
def accept(ctx: typer.Context, name: Name, dump: Dump, *, yes: Yes = False) -> None:
    """Let a dump count that is in quarantine, or a sync (by its name) remove most of its files."""
    from jobs.backup import syncs
    from jobs.backup import verify as verifying
    from jobs.backup.catalogue import pick, read
    from orchestrator.cli.backup_places import Bars, of_name, opened, ports_of
    from orchestrator.cli.where import operator

    given: Given = ctx.obj
    plan, ports = of_name(given, name).plan, ports_of(Bars(given.output()))
    for one in plan.syncs:
        if one.name == dump:
            given.ask(f"the next run of {dump} removes what is gone from its source", yes=yes)
            syncs.accept(plan, one)
            given.output().line(f"{dump} follows its source in the next run")
            return
    given.ask(f"{dump} counts as good from now on, and older ones may expire for it", yes=yes)
    spool = Path(plan.spool)
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    for copy in plan.copies:
        with opened(plan, copy, ports) as store:
            found = pick(read(store, plan.name), dump)
            verifying.accept(store, found, spool, ports.clock.wall(), operator())
            given.output().line(f"{found.id} counts in {store.url}")


@app.command()
def restore(
    ctx: typer.Context,
    name: AnyName = "",
    dump: Dump = "",
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="DSN", help="A DSN without password, or a credential.")
    ],
    source: From = "",
    force: Annotated[
        str, typer.Option("--force", metavar="DATABASE", help="Its name, if it is not empty.")
    ] = "",
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="The age identity's file.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=16, help="Tables at a time.")] = 1,
    owners: Annotated[bool, typer.Option("--owners", help="Restore owners and grants.")] = False,
    rclone: Rclone = None,
    google: Google = None,
    yes: Yes = False,
) -> int:
    """Bring a dump back into an empty database; --from needs nothing of aion's but the store."""
    from jobs.backup.form import STATE
    from jobs.backup.restore import Into
    from orchestrator.cli.backup_places import Keys, database, identity_of, plans

    given: Given = ctx.obj
    if name == STATE:
        raise Declined("aion's own state goes into no database: aion rebuild --from … uses it")
    with plans(given, name, source, Keys(rclone, google)) as every:
        found = [plan for plan in every if plan.name != STATE]
        if len(found) != 1:
            names = ", ".join(plan.name for plan in found)
            raise Declined(f"say which one: {names}" if names else "there is no dump")
        plan = found[0]
        key = identity_of(identity) if identity else ""
        into = Into(
            database(given, to),
            identity=key or (plan.encrypt.identity if plan.encrypt else ""),
            force=force,
            jobs=jobs,
            owners=owners,
            pg_bin=plan.pg_bin,
            timeouts=plan.timeouts,
        )
        return _restore(given, plan, dump, into, yes=yes)


def _restore(given: Given, plan: Plan, wanted: str, into: Into, *, yes: bool) -> int:
    """Restore from the first store that gives a whole dump; a damaged copy is told and passed."""
    from jobs.backup import restore as restoring
    from jobs.backup.catalogue import pick, read
    from jobs.backup.errors import StoreBroken
    from orchestrator.cli.backup_places import Bars, opened, ports_of

    output = given.output()
    server = restoring.into_empty(into)
    last: StoreBroken | None = None
    for copy in plan.copies:
        ports = ports_of(Bars(output))
        try:
            with opened(plan, copy, ports) as store:
                found = pick(read(store, plan.name), wanted)
                given.ask(f"{found.id} from {store.url} goes into {server.database}", yes=yes)
                yes, wanted = True, str(found.id)
                began = ports.clock.steady()
                with Bars(output) as bars:
                    made = restoring.restore(
                        store, plan.name, wanted, into, Path(plan.spool), tell=bars.tell
                    )
        except StoreBroken as error:
            output.say(f"{copy.target.url}: {error}")
            last = error
            continue
        rows = sum(max(table.rows, 0) for table in made.tables)
        seconds = round(ports.clock.steady() - began, 1)
        if output.json:
            about = {"dump": made.id, "store": copy.target.url, "database": server.database}
            output.data({**about, "tables": len(made.tables), "rows": rows, "seconds": seconds})
        else:
            text = f"{made.id} is in {server.database}: {len(made.tables)} tables, {rows} rows"
            output.line(f"{text}, in {seconds:.1f} s, from {copy.target.url}")
        return 0
    raise last or Declined("there is no store to restore from")
