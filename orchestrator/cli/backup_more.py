"""`aion backup rows` and `fetch`: what exports and syncs keep, brought back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from orchestrator.errors import ConfigError, Declined

if TYPE_CHECKING:
    from jobs.backup.form import Copy, Plan, Sync
    from jobs.backup.run import Ports
    from jobs.backup.stores.base import Store
    from orchestrator.cli.options import Given

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The backup, as in [backups.NAME].")]
_From = Annotated[
    str,
    typer.Option("--from", metavar="STORE", help="One place only; with it no configuration."),
]
_Rclone = Annotated[
    Path | None, typer.Option("--rclone-config", metavar="FILE", help="With --from rclone:…")
]
_Google = Annotated[
    Path | None, typer.Option("--google", metavar="FILE", help="With --from gs://…")
]
_Identity = Annotated[
    Path | None, typer.Option("--identity", metavar="FILE", help="The age identity's file.")
]


def rows(
    ctx: typer.Context,
    name: _Name,
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="As in its `name`.")],
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Absent: to the standard output.")
    ] = None,
    source: _From = "",
    identity: _Identity = None,
    rclone: _Rclone = None,
    google: _Google = None,
) -> int:
    """Write all rows that an export keeps, as JSON lines in the order of their keys."""
    from jobs.backup import readback
    from jobs.backup.errors import StoreBroken
    from orchestrator.cli.backup_places import Bars, Keys, identity_of, plans, ports_of

    given: Given = ctx.obj
    output = given.output()
    with plans(given, name, source, Keys(rclone, google)) as (plan,), ExitStack() as stack:
        Path(plan.spool).mkdir(mode=0o700, parents=True, exist_ok=True)
        bars = Bars(output)
        ports = ports_of(bars)
        stores: list[Store] = []
        for copy in plan.copies:
            try:
                stores.append(stack.enter_context(_opened(plan, copy, ports)))
            except StoreBroken as error:
                output.say(str(error))
        key = identity_of(identity) if identity else _identity(plan)
        out: BinaryIO = stack.enter_context(_written(to)) if to else sys.stdout.buffer
        with bars:
            count, problems = readback.rows(plan, export, stores, ports, out, key)
        out.flush()
    for line in problems:
        output.say(line)
    output.say(f"{count} rows")
    return 0


@contextmanager
def _written(to: Path) -> Iterator[BinaryIO]:
    from jobs.backup.stores.landing import landing

    if to.exists():
        raise Declined(f"{to} is there already")
    with landing(to) as file:
        yield file


@contextmanager
def _opened(plan: Plan, copy: Copy, ports: Ports) -> Iterator[Store]:
    from orchestrator.cli.backup_places import opened

    with opened(plan, copy, ports) as store:
        yield store


def _identity(plan: Plan) -> str:
    return plan.encrypt.identity if plan.encrypt else ""


def fetch(
    ctx: typer.Context,
    name: _Name,
    sync: Annotated[str, typer.Argument(metavar="SYNC", help="As in its `name`.")],
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="An empty folder, or a new one.")],
    at: Annotated[
        str,
        typer.Option("--at", metavar="DATE", help="As of 2026-11-21, or …T03:00; absent: now."),
    ] = "",
    source: _From = "",
    identity: _Identity = None,
    rclone: _Rclone = None,
    google: _Google = None,
) -> int:
    """Bring the files that a sync keeps back into a folder, as they were on any day."""
    from jobs.backup.errors import NotEmpty, StoreBroken, WrongKey
    from jobs.backup.fetching import fetch as fetching
    from orchestrator.cli.backup_places import Bars, Keys, identity_of, ports_of

    given: Given = ctx.obj
    output = given.output()
    when = moment(at) if at else None
    last: StoreBroken | None = None
    with _meant(given, name, sync, source, Keys(rclone, google)) as (plan, one):
        key = identity_of(identity) if identity else _identity(plan)
        for copy in one.to:
            bars = Bars(output)
            try:
                with bars:
                    done = fetching(plan, one, copy, to, ports_of(bars), when=when, identity=key)
            except (NotEmpty, WrongKey):
                raise
            except StoreBroken as error:
                output.say(str(error))
                last = error
                continue
            return _said(given, done, to)
    raise last or Declined("there is no place to bring it back from")


def _said(given: Given, done: Any, to: Path) -> int:
    output = given.output()
    about = {"snapshot": done.snapshot, "store": done.store, "files": done.files}
    if output.json:
        output.data({**about, "size": done.size, "bad": list(done.bad), "folder": str(to)})
    else:
        output.line(f"{done.files} files of {done.snapshot} from {done.store} are in {to}")
        for path in done.bad[:20]:
            output.say(f"not there, or not what it was: {path.encode(errors='replace').decode()}")
    return 1 if done.bad else 0


def moment(text: str) -> datetime:
    """Read a day (its end) or a time, by the clock here unless it says otherwise."""
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        shown = text[:40]
        raise ConfigError(f"`{shown}` is no date, such as 2026-11-21 or 2026-11-21T03:00") from None
    if len(text) == len("2026-11-21"):
        made = made.replace(hour=23, minute=59, second=59)
    return made.astimezone()


@contextmanager
def _meant(
    given: Given, name: str, sync: str, source: str, keys: Any
) -> Iterator[tuple[Plan, Sync]]:
    """Yield the sync that is meant: of the configuration, or of one place alone."""
    from dataclasses import replace

    from jobs.backup.form import Sync
    from orchestrator.cli.backup_places import of_name, plans

    if source:
        with plans(given, name, source, keys) as (plan,):
            (copy,) = plan.copies
            yield plan, Sync(sync, copy, (copy,))
        return
    plan = of_name(given, name).plan
    Path(plan.spool).mkdir(mode=0o700, parents=True, exist_ok=True)
    one = next((one for one in plan.syncs if one.name == sync), None)
    if one is None:
        known = ", ".join(one.name for one in plan.syncs) or "none"
        raise ConfigError(f"{name} has no sync {sync[:60]}; there are: {known}")
    yield plan, replace(one)
