"""One run of backups into every kind of store, and back from each of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobs.backup.catalogue import pick, read
from jobs.backup.drill import drill
from jobs.backup.form import STATE, Copy, Drill, Itself
from jobs.backup.itself import look
from jobs.backup.restore import Into, restore
from jobs.backup.run import run
from jobs.backup.unpack import fetched, unpack
from jobs.backup.verify import rehash, survey
from tests.backup.conftest import Postgres
from tests.backup.plans import DAY_S, HandClock, aion_database, plan
from tests.backup.test_run import ROWS, ports
from tests.backup.test_stores import WORLDS
from tests.backup.worlds import SECRET, World

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# sftp and s3 go through the same program as `drive`, with hashes as it has.
KINDS = ("file", "drive", "crypt", "gcs", "bucket", "hub")


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "world"
    folder.mkdir()
    made = WORLDS[request.param](folder)
    found = next(made)
    yield found
    for store in found.opened:
        store.close()
    with pytest.raises(StopIteration):
        next(made)


def test_nights_of_backups_are_kept_checked_drilled_and_restored(
    world: World, pg16: Postgres, tmp_path: Path
) -> None:
    dsn, clock = pg16.new(ROWS), HandClock()
    copy = Copy(world.target, world.access)
    one = plan(dsn, tmp_path / "spool", copies=(copy,), drill=Drill(dsn=pg16.dsn()))
    for _ in range(2):
        report = run(one, ports(clock))
        assert report.ok, report
        clock.at += DAY_S
    store = world.open()
    seen = survey(store, "main")
    assert [one.id.sequence for one, _ in seen] == [2, 1]
    assert [finding.ok for _, finding in seen] == [True] * 2
    assert [entry.name for entry in store.list("locks/")] == []
    assert rehash(store, seen[0][0], tmp_path).ok
    target = pg16.new()
    restore(store, "main", "", Into(target), tmp_path)
    with psycopg.connect(dsn) as before, psycopg.connect(target) as after:
        query = "select * from a order by i"
        assert before.execute(query).fetchall() == after.execute(query).fetchall()
    assert drill(one, store, clock=clock).problems == ()
    name = f"{seen[1][0].id}/archive.dump.zst"
    world.flip(name)
    said = {finding.dump: finding.ok for _, finding in survey(store, "main")}
    if said[str(seen[1][0].id)]:  # the store's hash is of what it was given, and it does not know
        assert not rehash(store, seen[1][0], tmp_path).ok
    assert said[str(seen[0][0].id)]
    for path in (tmp_path / "spool").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_aions_own_state_goes_to_every_kind_of_place_and_comes_back_from_it(
    world: World, tmp_path: Path
) -> None:
    database, clock = tmp_path / "aion.db", HandClock()
    aion_database(database)
    copy = Copy(world.target, world.access)
    one = plan("", tmp_path / "spool", copies=(copy,), name=STATE, itself=Itself(str(database)))
    for _ in range(2):
        report = run(one, ports(clock))
        assert report.ok, report
    store, to = world.open(), tmp_path / "to"
    to.mkdir()
    found = pick(read(store, STATE))
    with fetched(store, found, "", tmp_path) as (manifest, archive):
        unpack(archive, to)
    assert manifest.sequence == 2
    assert look(to / "aion.db") == look(database)
    assert rehash(store, found, tmp_path).ok
