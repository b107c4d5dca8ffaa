"""`aion backup restore` and `accept`: what puts a dump to use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.backup_words import AnyName, Dump, From, Google, Name, Rclone
from orchestrator.cli.options import Yes
from orchestrator.errors import Declined

if TYPE_CHECKING:
    from jobs.backup.form import Plan
    from jobs.backup.restore import Into
    from orchestrator.cli.options import Given


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
