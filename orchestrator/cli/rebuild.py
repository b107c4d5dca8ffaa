"""`aion rebuild`: a new machine goes on where one that is gone left off, from one copy alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import Given, Yes
from orchestrator.cli.output import Cell
from orchestrator.errors import Declined, NotAllowed

if TYPE_CHECKING:
    from jobs.backup.catalogue import Found
    from jobs.backup.form import Manifest
    from jobs.backup.run import Ports
    from jobs.backup.stores.base import Store
    from orchestrator.cli.output import Output
    from orchestrator.cli.rebuilding import Place, Stage

SYSTEM = (Path("/etc/aion/aion.toml"), Path("/var/lib/aion"))
NAMES = 6


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator said."""

    dump: str
    key: str
    force: bool
    dry: bool
    yes: bool


def rebuild(
    ctx: typer.Context,
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="STORE", help="One store: file:/…, rclone:…, gs://…")
    ],
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="The age identity's file.")
    ] = None,
    dump: Annotated[
        str, typer.Option("--dump", metavar="DUMP", help="Not the newest good one, but this.")
    ] = "",
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Here; absent: /etc/aion and /var/lib/aion."),
    ] = None,
    rclone: Annotated[
        Path | None, typer.Option("--rclone-config", metavar="FILE", help="With rclone:…")
    ] = None,
    google: Annotated[
        Path | None, typer.Option("--google", metavar="FILE", help="With gs://…")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move aside what is there.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only try it, and say.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Then install the systemd unit.")] = False,
    yes: Yes = False,
) -> int:
    """Bring configuration, history and credentials back from a copy of aion's own state.

    The old machine, should it still live, gives way to this one. Exit 5 if something is missing
    yet, such as credentials that the copy does not have; it is said what, and how to set it.
    """
    from orchestrator.cli.backup_places import Keys, identity_of

    wish = Wish(dump, identity_of(identity) if identity else "", force, dry, yes)
    place = _place(to, wish, start=start)
    code = _rebuild(ctx.obj, wish, place, source, Keys(rclone, google))
    if code == 0 and start and not dry:
        from orchestrator.cli.service import install

        ctx.obj.config = place.config
        install(ctx, dry_run=False, root=None, yes=yes)
    return code


def _place(to: Path | None, wish: Wish, *, start: bool) -> Place:
    """Say where it goes. Raises NotAllowed, Declined."""
    from orchestrator.cli.rebuilding import Place, occupied

    if to is not None:
        folder = Path(os.path.normpath(Path.cwd() / to))
        if start:
            raise Declined("the unit's sandbox does not see --to; leave out one of the two")
        place = Place(folder / "aion.toml", folder / "var")
    else:
        if os.geteuid() != 0 and not wish.dry:
            raise NotAllowed("only root can write to /etc/aion: use sudo, or give --to DIR")
        place = Place(*SYSTEM)
    if (there := occupied(place)) and not (wish.force or wish.dry):
        raise Declined(f"{there} is there already; --force moves it aside")
    return place


def _rebuild(given: Given, wish: Wish, place: Place, source: str, keys: Any) -> int:
    from jobs.backup.form import STATE
    from orchestrator.cli.backup_places import Bars, opened, plans, ports_of

    output = given.output()
    bars = Bars(output)
    with plans(given, STATE, source, keys) as (plan,):
        ports = ports_of(bars)
        with opened(plan, plan.copies[0], ports) as store:
            base = Path(plan.spool) if wish.dry else place.state
            with _prepared(store, wish, base, ports, bars, output) as (made, stage):
                about = f"{made.id} from {store.url}, of {made.created_at:%Y-%m-%d %H:%M} UTC"
                if wish.dry:
                    output.say(f"{about}: would go to {place.config} and {place.state}")
                    return _told(given, made, store.url, place, stage, settled=False)
                output.say(f"{about}: instance {instance_of(made)}")
                consequence = (
                    f"it goes to {place.config} and {place.state}, and takes over from the old "
                    "machine, should that still live"
                )
                given.ask(consequence, yes=wish.yes)
                stage.settle(place, force=wish.force)
                return _told(given, made, store.url, place, stage, settled=True)


@contextmanager
def _prepared(
    store: Store, wish: Wish, base: Path, ports: Ports, bars: Any, output: Output
) -> Iterator[tuple[Manifest, Stage]]:
    """Yield the newest state that is whole, made ready; a damaged one is told of and passed."""
    from jobs.backup.errors import Corrupt, NotComplete, NotFound
    from jobs.backup.unpack import fetched
    from orchestrator.cli.rebuilding import staged

    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="aion-rebuild-") as private:
        last: Exception | None = None
        for found in _candidates(store, wish.dump, output):
            with ExitStack() as attempt:
                try:
                    with bars:
                        manifest, archive = attempt.enter_context(
                            fetched(store, found, wish.key, Path(private), tell=bars.tell)
                        )
                    wall = ports.clock.wall()
                    stage = attempt.enter_context(staged(archive, manifest, base, wall))
                except (Corrupt, NotFound, NotComplete) as error:
                    output.say(f"{found.id}: {error}")
                    last = error
                    continue
                stack.push(attempt.pop_all())
                break
        else:
            raise last or Declined(f"{store.url} has no good copy of aion's own state")
        yield manifest, stage


def _candidates(store: Store, wanted: str, output: Output) -> Iterator[Found]:
    """Yield the states to try, the newest first. Raises `BackupError`."""
    from jobs.backup.catalogue import pick, read
    from jobs.backup.errors import BackupError
    from jobs.backup.form import STATE, DumpId

    found = read(store, STATE)
    if not found:
        folders = {entry.name.partition("/")[0] for entry in store.list()}
        names = sorted({dump.name for folder in folders if (dump := DumpId.parse(folder))})
        what = f"only dumps of {', '.join(names[:NAMES])}" if names else "no dumps at all"
        raise BackupError(f"{store.url} holds no copy of aion's own state ({STATE}-…): {what}")
    if wanted:
        one = pick(found, wanted)
        if one.manifest is None or one.manifest.state is None:
            raise BackupError(f"{one.id} is no copy of aion's own state")
        yield one
        return
    for one in found:
        ours = one.manifest is not None and one.manifest.state is not None
        if ours and one.vouched is not False and not one.quarantined:
            yield one
            continue
        why = "in quarantine, as suspicious" if one.quarantined else one.problem or "none of ours"
        output.say(f"{one.id} is passed over: {why}")


def _told(
    given: Given, made: Manifest, store: str, place: Place, stage: Stage, *, settled: bool
) -> int:
    """Say what there is now and what is missing yet; return the exit status."""
    from orchestrator.cli.rebuilding import missing

    reading = stage.study(place, settled=settled)
    lacking = missing(reading, place.config.parent if settled else stage.folder)
    other = [p.text for p in reading.problems if not p.text.startswith("credential `")]
    config = "" if place.config == SYSTEM[0] else f" --config {place.config}"
    fixes = {name: f"aion secret set {name}{config}" for name in sorted(lacking)}
    files = [b.rclone_config_path for b in reading.settings.backups.values()]
    lost = sorted({path for path in files if path and not Path(path).exists()})
    if given.json:
        given.output().data(
            {
                "dump": made.id,
                "store": store,
                "instance": instance_of(made),
                "config": str(place.config),
                "database": str(place.database(reading)),
                "epoch": stage.epoch,
                "credentials": list(stage.credentials),
                "missing": fixes,
                "missing_files": lost,
                "problems": other,
                "done": settled,
            }
        )
    else:
        new_token = not (stage.token or reading.settings.server.admin_token)
        _lines(
            given.output(),
            place,
            stage,
            fixes,
            lost,
            other,
            settled=settled,
            new_token=new_token,
        )
    return 5 if fixes or lost or other else 0


def instance_of(made: Manifest) -> str:
    """Return who it was, by the configuration or else by the database."""
    return made.state.instance if made.state else ""


def _lines(
    output: Output,
    place: Place,
    stage: Stage,
    fixes: dict[str, str],
    lost: list[str],
    other: list[str],
    *,
    settled: bool,
    new_token: bool,
) -> None:
    there = "is" if settled else "would be"
    rows = sum(max(table.rows, 0) for table in stage.held.tables)
    output.line(f"the configuration {there} {place.config}")
    output.line(f"the database {there} in {place.state}: {rows} rows; epochs from {stage.epoch}")
    count = len(stage.credentials)
    also = " and the admin token" if stage.token else ""
    output.line(f"{count or 'no'} credential{'' if count == 1 else 's'}{also} came with it")
    if new_token:
        output.line("the admin token did not: a new one is made at the start, which says where")
    if stage.held.paused:
        text = f"it is paused by {stage.held.paused}, as it was; to end that: aion resume"
        output.line(Cell(text, "warn"))
    for name, fix in fixes.items():
        output.line(Cell(f"missing: the credential {name}; set it: {fix}", "bad"))
    for path in lost:
        output.line(Cell(f"missing: the file {path}, which a backup uses in place", "bad"))
    for text in other:
        output.line(Cell(f"wrong: {text}", "bad"))
    if settled:
        system = place.config == SYSTEM[0]
        serve = f"cd {place.config.parent} && aion serve"
        then = "then start it" if fixes or lost or other else "start it"
        output.line(f"{then}: {'sudo aion service install' if system else serve}")
