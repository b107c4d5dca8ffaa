"""The drill of aion's own state: taken apart as a rebuild would, and compared; then thrown away."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jobs.backup.catalogue import pick, read
from jobs.backup.drill import Outcome
from jobs.backup.errors import NotComplete
from jobs.backup.form import Manifest, Plan
from jobs.backup.itself import DATABASE, look
from jobs.backup.ports import Clock, Tell, nobody
from jobs.backup.stores.base import Store
from jobs.backup.unpack import fetched, unpack


def rehearse(
    plan: Plan, store: Store, *, clock: Clock, wanted: str = "", tell: Tell = nobody
) -> Outcome:
    """Bring a state back into a private folder; as `drill.drill`."""
    began = clock.steady()
    found = pick(read(store, plan.name), wanted)
    identity = plan.encrypt.identity if plan.encrypt else ""
    spool = Path(plan.spool)
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        fetched(store, found, identity, spool, tell=tell) as (manifest, archive),
        tempfile.TemporaryDirectory(prefix="restore-", dir=spool) as folder,
    ):
        tell("compare", 0, manifest.size)
        problems = _compared(manifest, archive, Path(folder))
    return Outcome(
        dump=manifest.id,
        store=store.url,
        problems=tuple(problems),
        tables=len(manifest.tables),
        rows=sum(max(table.rows, 0) for table in manifest.tables),
        seconds=round(clock.steady() - began, 3),
        server=manifest.server_version,
    )


def _compared(manifest: Manifest, archive: Path, folder: Path) -> list[str]:
    try:
        index = unpack(archive, folder)
        held = look(folder / DATABASE)
    except NotComplete as error:
        return [str(error)]
    found = []
    if index.state != manifest.state:
        found.append("the archive is of another state than its manifest says")
    if held.tables != manifest.tables:
        found.append("the tables and rows in it are not those that were copied")
    return found
