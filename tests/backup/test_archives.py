"""Each form an archive is stored in: what damages it is found, and it restores."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest

from jobs.backup import dump
from jobs.backup.drill import drill
from jobs.backup.errors import BackupError, Corrupt, NoRoom, WrongKey
from jobs.backup.form import MANIFEST, SUMS, Access, Encryption, Manifest
from jobs.backup.restore import Into, local, restore
from jobs.backup.stores import open_store
from jobs.backup.stores.base import Store
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom
from tests.backup.conftest import BINS, Postgres
from tests.backup.plans import HandClock, first, plan
from tests.backup.test_dump import small_disk

KEY = pyrage.x25519.Identity.generate()
ROWS = (
    "create table a(i int primary key, t text);"
    " insert into a select g, md5(g::text) from generate_series(1, 300) g;"
    " create table \"b\\.\" (t text); insert into \"b\\.\" values (E'\\\\.'), (E'\\n\\\\.\\n'), (null)"
)
FORMS = {
    "around": "archive.dump.zst",
    "around, sealed": "archive.dump.zst.age",
    "plain": "archive.dump",
    "plain, sealed": "archive.dump.age",
    "of old, zlib inside": "archive.dump",
}


@pytest.fixture(scope="module")
def dsn(pg16: Postgres) -> str:
    return pg16.new(ROWS)


@pytest.fixture(scope="module", params=FORMS)
def kept(request: pytest.FixtureRequest, dsn: str, tmp_path_factory) -> Iterator[Path]:
    """A folder of dumps with one in it, as a store that is a folder has them."""
    form, base = request.param, tmp_path_factory.mktemp("kept")
    sealed = Encryption(str(KEY.to_public())) if "sealed" in form else None
    one = plan(dsn, base, encrypt=sealed, level=3 if "around" in form else 0)
    made = dump.make(one, first(HandClock()), None, clock=HandClock())
    folder = base / "dumps" / made.id
    if "old" in form:
        _as_of_old(folder, made, dsn)
    assert (folder / FORMS[form]).exists()
    return base / "dumps"


def _as_of_old(folder: Path, made: Manifest, dsn: str) -> None:
    """Put there what was made before archives were compressed around."""
    archive = folder / "archive.dump"
    argv = [BINS[16] / "pg_dump", "-Fc", "-f", archive, dsn]
    subprocess.run(argv, check=True, capture_output=True)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    size = archive.stat().st_size
    old = replace(
        made, size=size, sha256=sha256, plain_sha256=sha256, hashes={}, compressed="gzip:1"
    )
    value = old.to_json()
    del value["packed"], value["plain_size"]
    (folder / MANIFEST).write_text(json.dumps(value))
    (folder / SUMS).write_text(f"{sha256}  archive.dump\n")


def rows(dsn: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return [
            connection.execute(query).fetchall()
            for query in ("select * from a order by i", 'select * from "b\\." order by t')
        ]


def at(kept: Path) -> Store:
    return open_store(Target.parse(f"file:{kept}"), Access(), kept.parent)


def test_every_flip_and_every_cut_of_an_archive_is_found(kept: Path, tmp_path: Path) -> None:
    folder = next(kept.glob("main-*"))
    archive = next(folder.glob("archive*"))
    whole, chance = archive.read_bytes(), SeededRandom(5)
    for turn in range(1000):
        data = bytearray(whole)
        place = chance.randrange(len(data))
        if turn % 4:
            data[place] ^= 1 << chance.randrange(8)
        else:
            del data[place:]
        archive.write_bytes(data)
        with pytest.raises(Corrupt), local(folder, str(KEY), tmp_path):
            pass
    archive.write_bytes(whole)
    with local(folder, str(KEY), tmp_path) as (manifest, opened):
        assert manifest.id == folder.name
        assert opened.seekable
        assert opened.path.stat().st_size == (manifest.plain_size or manifest.size)


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_form_restores_all_at_once_and_in_parallel(
    kept: Path, dsn: str, pg: Postgres, tmp_path: Path, jobs: int
) -> None:
    target = pg.new()
    restore(at(kept), "main", "", Into(target, str(KEY), jobs=jobs), tmp_path)
    assert rows(target) == rows(dsn)
    assert not list(tmp_path.rglob("archive*"))


@pytest.fixture
def huge(kept: Path, tmp_path: Path) -> Path:
    """The same, said to be larger than any disk when opened."""
    copy = tmp_path / "huge" / "kept"
    shutil.copytree(kept, copy)
    _say_huge(next(copy.glob("main-*")))
    return copy


def _say_huge(folder: Path) -> None:
    made = Manifest.load((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(replace(made, plain_size=1 << 60).dump())


def test_what_the_disk_has_no_room_to_open_is_restored_on_the_way(
    huge: Path, dsn: str, pg16: Postgres, tmp_path: Path
) -> None:
    kept, tmp_path, seen = huge, tmp_path / "spool", list[str]()
    target = pg16.new()
    restore(
        at(kept),
        "main",
        "",
        Into(target, str(KEY), jobs=2),
        tmp_path,
        tell=lambda *_: seen.extend(path.name for path in tmp_path.rglob("archive*")),
    )
    assert rows(target) == rows(dsn)
    archive = next(kept.glob("main-*/archive*"))
    assert set(seen) <= {archive.name, archive.name + ".aion-part"}
    sealed = Encryption(str(KEY.to_public()), str(KEY)) if archive.suffix == ".age" else None
    outcome = drill(plan(dsn, tmp_path, encrypt=sealed), at(kept), clock=HandClock())
    assert outcome.ok, outcome.problems
    assert outcome.rows == 303


def test_a_wrong_key_is_said_also_where_an_archive_is_opened_on_the_way(
    huge: Path, pg16: Postgres, tmp_path: Path
) -> None:
    kept, wrong = huge, str(pyrage.x25519.Identity.generate())
    into = Into(pg16.new(), wrong)
    if next(kept.glob("main-*/archive*")).suffix != ".age":
        assert restore(at(kept), "main", "", into, tmp_path).encrypted is None
        return
    with pytest.raises(WrongKey, match="does not open"):
        restore(at(kept), "main", "", into, tmp_path)


@pytest.mark.parametrize("size", [4096, 40_000])
def test_a_disk_that_is_full_ends_a_restore_with_a_word_and_nothing_left(
    dsn: str, pg16: Postgres, tmp_path: Path, size: int
) -> None:
    made = dump.make(
        plan(dsn, tmp_path / "spool", level=0), first(HandClock()), None, clock=HandClock()
    )
    assert made.size > 4096
    target = pg16.new()
    with small_disk(tmp_path / "small", size):
        filler = tmp_path / "small" / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(size - 8192 if size > 8192 else 1))
        with pytest.raises(NoRoom):
            restore(at(tmp_path / "spool/dumps"), "main", "", Into(target), tmp_path / "small")
        filler.unlink(missing_ok=True)
        assert not list((tmp_path / "small").iterdir())
    assert (
        pg16.run("select 1 from pg_tables where tablename = 'a'", target.rpartition("/")[2]) == []
    )


def test_a_packed_archive_that_ends_too_early_is_not_restored(
    dsn: str, pg16: Postgres, tmp_path: Path
) -> None:
    """As if what was stored had been wrong from the beginning: its sums are right."""
    one = plan(dsn, tmp_path / "spool")
    made = dump.make(one, first(HandClock()), None, clock=HandClock())
    folder = tmp_path / "spool" / "dumps" / made.id
    data = (folder / made.archive).read_bytes()[:-40]
    (folder / made.archive).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).write_bytes(
        replace(made, size=len(data), sha256=sha256, plain_sha256=sha256).dump()
    )
    with pytest.raises(Corrupt, match="is not what was dumped"), local(folder, "", tmp_path):
        pass
    _say_huge(folder)
    target = pg16.new()
    with pytest.raises(BackupError):
        restore(at(folder.parent), "main", "", Into(target), tmp_path)
    with psycopg.connect(target) as connection:
        found = connection.execute("select count(*) from pg_tables where schemaname = 'public'")
        assert found.fetchone() == (0,)


def test_a_sealed_archive_that_is_opened_on_the_way_is_restored_though_its_list_is_read_first(
    pg16: Postgres, tmp_path: Path
) -> None:
    """Who reads only the list stops long before the end: that is nobody's failure."""
    many = "create table m as select g, md5(g::text) || md5((g + 1)::text) t from generate_series(1, 120000) g"
    sealed = Encryption(str(KEY.to_public()), str(KEY))
    one = plan(pg16.new(many), tmp_path / "spool", encrypt=sealed, level=1)
    made = dump.make(one, first(HandClock()), None, clock=HandClock())
    assert made.plain_size > 8_000_000  # more than all pipes hold
    _say_huge(tmp_path / "spool" / "dumps" / made.id)
    target = pg16.new()
    restore(at(tmp_path / "spool/dumps"), "main", "", Into(target, str(KEY)), tmp_path)
    assert pg16.run("select count(*) from m", target.rpartition("/")[2]) == [(120_000,)]
