import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from orchestrator.core.events import Turn
from orchestrator.core.model import BackendState, Now, Pin, World
from orchestrator.edge import migrate as module
from orchestrator.edge import tables
from orchestrator.edge.clock import Anchor
from orchestrator.edge.migrate import migrate, upgrade
from orchestrator.edge.rebirth import revive
from orchestrator.edge.sqlite import Lock, engine_for
from orchestrator.edge.store import Store, inline
from orchestrator.errors import StoreError, StoreTooNew

NOW = Now(1.8e9, 1.8e9)
SCHEMA = "select type, name, tbl_name from sqlite_master order by 1, 2"


def ready(path: Path) -> str | None:
    return asyncio.run(migrate(f"sqlite:///{path}", timeout_s=60))


def columns(path: Path) -> dict:
    """Everything SQLite knows of the tables: columns, types, keys, indexes, foreign keys."""
    db = sqlite3.connect(path)
    names = [row[0] for row in db.execute("select name from sqlite_master where type='table'")]
    found = {"objects": db.execute(SCHEMA).fetchall()}
    for name in names:
        for pragma in ("table_xinfo", "index_list", "foreign_key_list"):
            rows = db.execute(f"pragma {pragma}({name})").fetchall()
            if pragma == "index_list":  # in no particular order: a table's indexes are a set
                rows = sorted(row[1:] for row in rows)
            found[name, pragma] = rows
        for index in db.execute(f"pragma index_list({name})").fetchall():
            found[name, index[1]] = db.execute(f"pragma index_xinfo({index[1]})").fetchall()
    found["autoincrement"] = sorted(
        row[0]
        for row in db.execute("select name from sqlite_master where sql like '%AUTOINCREMENT%'")
    )
    db.close()
    return found


def test_a_new_database_is_made_by_a_child_and_needs_none_the_next_time(database):
    assert ready(database) is None
    assert database.stat().st_mode & 0o077 == 0

    async def go():
        store = Store(f"sqlite:///{database}", inline())
        await store.load()
        await store.commit(Turn(), NOW)
        assert await migrate(f"sqlite:///{database}", timeout_s=0.0) is None  # no child: no time
        await store.close()

    asyncio.run(go())
    assert list(database.parent.glob("*.before-*")) == []


def test_the_revisions_make_the_same_schema_as_the_tables(database, using, tmp_path):
    async def nothing(_store, _saved):
        pass

    upgrade(f"sqlite:///{database}")
    using(tmp_path / "created.db", nothing)
    assert columns(database) == columns(tmp_path / "created.db")


def test_the_revisions_known_are_those_there_are():
    config = Config()
    config.set_main_option("script_location", str(module.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(s.revision for s in scripts.walk_revisions())[::-1] == tables.REVISIONS
    assert scripts.get_heads() == [tables.HEAD]


def test_the_daemon_never_imports_alembic():
    code = (
        "import sys, orchestrator.edge.store, orchestrator.edge.migrate;"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def stamp(path: Path, revision: str) -> None:
    """Say that the database is at this revision."""
    db = sqlite3.connect(path)
    db.execute("update alembic_version set version_num=?", (revision,))
    db.commit()
    db.close()


@pytest.fixture
def current(database):
    """A database of this aion, with one backend in it."""
    upgrade(f"sqlite:///{database}")

    async def write():
        store = Store(f"sqlite:///{database}", inline())
        await store.load()
        await store.commit(Turn(backends={"lab": BackendState("lab")}), NOW)
        await store.close()

    asyncio.run(write())
    return database


def test_a_newer_database_is_refused_without_a_child(current):
    stamp(current, "0999")
    with pytest.raises(StoreTooNew, match=f"0999.*{tables.HEAD}"):
        asyncio.run(migrate(f"sqlite:///{current}", timeout_s=0.0))
    with pytest.raises(StoreTooNew):
        upgrade(f"sqlite:///{current}")


def test_a_child_that_finds_the_database_in_use_says_by_whom(database):
    database.parent.mkdir()
    lock = Lock(database)
    lock.take()
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        ready(database)
    lock.drop()


def test_what_the_child_cannot_use_comes_back_as_the_same_line(database):
    database.parent.mkdir()
    database.write_bytes(b"dear diary, " * 500)
    with pytest.raises(StoreError, match="is not a SQLite database"):
        ready(database)
    assert database.read_bytes() == b"dear diary, " * 500


def test_a_store_does_not_open_what_was_not_migrated(database):
    store = Store(f"sqlite:///{database}", inline())
    with pytest.raises(StoreError, match=f"is at revision none, not {tables.HEAD}"):
        asyncio.run(store.load())


# ── from every revision there was ───────────────────────────────────────────────────────────────

FIRST = {
    "world": {
        "id": 1, "instance": "home", "written_at": 1.8e9, "paused_since": 1.7e9,
        "paused_until": None, "paused_by": "ann", "incident_seq": 7, "epoch_floor": 3,
    },
    "service": {
        "name": "chat", "active": "lab", "since": 1.75e9, "epoch": 4, "reason": "lab is first",
        "hold_until": None, "pin": '{"backend":"lab","until":1800003600.0,"hard":false}',
        "moves": "[1799999000.0]", "planned": None, "rotation": None,
        "rotation_failed_at": None, "retry_at": None,
    },
    "publication": {
        "service": "chat", "wanted": "[]", "wanted_epoch": 4, "attempted": "[]",
        "attempted_epoch": 0, "confirmed": "[]", "confirmed_epoch": 0, "confirmed_at": None,
        "record_ids": "[]", "trouble": None, "trouble_since": None, "detail": "",
        "retry_at": None, "adopt": False, "corrections": "[]",
    },
}  # fmt: skip


@pytest.fixture
def first(database):
    """A database as the first revision left it, with rows as its aion wrote them."""
    database.parent.mkdir()
    engine = engine_for(f"sqlite:///{database}")
    config = Config()
    config.set_main_option("script_location", str(module.SCRIPTS))
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for name, row in FIRST.items():
            holders = ", ".join(f":{column}" for column in row)
            connection.execute(
                text(f"insert into {name} ({', '.join(row)}) values ({holders})"), row
            )
    engine.dispose()
    return database


def test_a_rebuilt_database_of_the_first_revision_is_upgraded_and_begins_an_era(first):
    epoch = revive(first, "rebuilt from a copy", 1_800_000_000.0)
    assert ready(first) is None  # it is ready
    with closing(sqlite3.connect(first)) as database:
        assert database.execute("select epoch from service").fetchall() == [(epoch,)]
        assert database.execute("select wanted_epoch from publication").fetchall() == [(epoch,)]
        assert database.execute("select epoch_floor from world").fetchone() == (epoch,)
        last = "select action, text from event order by seq desc limit 1"
        assert database.execute(last).fetchone() == ("rebuilt", "rebuilt from a copy")


def test_a_database_of_the_first_revision_goes_on_with_all_it_held(first, using, tmp_path):
    assert ready(first) == "0001"
    assert (first.parent / f"aion.db.before-{tables.HEAD}").exists()

    async def look(store, saved):
        assert saved.world == World(
            paused_since=1.7e9, paused_by="ann", incident_seq=7, epoch_floor=3
        )
        service = saved.services["chat"]
        assert (service.active, service.epoch, service.moves) == ("lab", 4, (1799999000.0,))
        assert service.pin == Pin("lab", 1800003600.0)
        assert (saved.written_at, saved.anchor, saved.instance) == (1.8e9, None, "home")
        store.anchor = Anchor("monday", 1.7e9)
        await store.commit(Turn(), NOW)

    async def again(_store, saved):
        assert saved.anchor == Anchor("monday", 1.7e9)

    async def nothing(_store, _saved):
        pass

    using(first, look, create=False)
    using(first, again, create=False)
    using(tmp_path / "created.db", nothing)
    assert columns(first) == columns(tmp_path / "created.db")


# ── to the aion to come ─────────────────────────────────────────────────────────────────────────

NEXT = f"""
import os, signal
import sqlalchemy as sa
from alembic import op
revision = "0900"
down_revision = "{tables.HEAD}"
def upgrade():
    op.add_column("world", sa.Column("extra", sa.String(), nullable=True))
    op.execute("update backend set reason = 'moved'")
    if os.environ.get("AION_TEST_DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
"""
DRIVER = """
import json, shutil, sys
from contextlib import closing
from pathlib import Path
from orchestrator.edge import migrate, tables
tables.REVISIONS = (*tables.REVISIONS, "0900"); tables.HEAD = "0900"
migrate.SCRIPTS = Path(sys.argv[2])
print(json.dumps(migrate.upgrade("sqlite:///" + sys.argv[1])))
"""


@pytest.fixture
def next_version(tmp_path):
    """next_version(path, die) upgrades with the aion to come, which has one revision more."""
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    ours = module.SCRIPTS
    for file in (*ours.glob("*.py"), *ours.glob("versions/*.py")):
        (scripts / file.relative_to(ours)).write_text(file.read_text())
    (scripts / "versions" / "v0900_next.py").write_text(NEXT)

    def run(path: Path, **env: str):
        return subprocess.run(
            [sys.executable, "-c", DRIVER, path, scripts],
            env=os.environ | env, check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def test_an_upgrade_keeps_a_copy_of_what_was(current, next_version):
    for number in range(4):
        (current.parent / f"aion.db.before-000{number}").write_text("old")
        os.utime(current.parent / f"aion.db.before-000{number}", (number, number))
    done = next_version(current)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    kept = Path(answer["copy"])
    assert (answer["from"], answer["to"]) == (tables.HEAD, "0900")
    copies = sorted(path.name for path in current.parent.glob("*.before-*"))
    assert copies == ["aion.db.before-0002", "aion.db.before-0003", "aion.db.before-0900"]
    query = "select version_num, reason from alembic_version, backend"
    was, now = (sqlite3.connect(path).execute(query).fetchone() for path in (kept, current))
    assert was == (tables.HEAD, "not looked at yet")
    assert now == ("0900", "moved")


def test_an_upgrade_killed_halfway_leaves_the_database_as_it_was(current, next_version):
    schema = columns(current)
    done = next_version(current, AION_TEST_DIE="1")
    assert done.returncode == -9
    assert columns(current) == schema

    async def go():
        store = Store(f"sqlite:///{current}", inline())
        saved = await store.load()
        assert saved.backends["lab"].reason == "not looked at yet"
        await store.close()

    asyncio.run(go())
    assert next_version(current).returncode == 0
