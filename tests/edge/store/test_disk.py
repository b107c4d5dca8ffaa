import asyncio
import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import BackendState, Now, Observation, Source, Verdict
from orchestrator.edge import tables
from orchestrator.edge.sqlite import BALLAST_BYTES
from orchestrator.edge.store import Store, inline
from orchestrator.errors import StoreError, StoreFull, StoreTooNew

NOW = Now(1.8e9, 1.8e9)


@contextlib.contextmanager
def file_system(path: Path, options: str):
    """A real file system of its own at `path`; only root may mount one."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = ["mount", "-t", "tmpfs", "-o", options, "aion-test", path]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def opened(path: Path, **options) -> Store:
    return Store(f"sqlite:///{path}", inline(), **{"create": True} | options)


def trouble(path: Path, kind=StoreError, **options) -> str:
    """What opening the database says, which is one line; nobody holds the lock afterwards."""
    store = opened(path, **options)
    with pytest.raises(kind) as caught:
        asyncio.run(store.load())
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text or f"folder {path.parent} " in text
    return text


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 512):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler


def test_transitions_go_on_when_the_disk_is_full_and_observations_wait(tmp_path):
    async def go(folder: Path) -> None:
        store = opened(folder / "aion.db")
        await store.load()
        ballast = folder / "aion.db.ballast"
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        filler = fill(folder)
        committed = 0
        while not store.full:
            await store.commit(Turn(entries=(Entry("a", "s", "x" * 900),)), NOW)
            committed += 1
            assert committed < 5000
        assert not ballast.exists()
        for number in range(100):  # life goes on, on the ballast's room
            turn = Turn(backends={"lab": BackendState("lab", flap_level=number)})
            await store.commit(turn, NOW)
        fill(folder)
        store.observe(Observation("lab", Source.PROBE, Verdict.OK), 1.8e9)
        await store.flush(everything=True)
        assert store.full
        with pytest.raises(StoreFull) as caught:
            for _ in range(5000):
                await store.commit(Turn(entries=(Entry("a", "s", "x" * 900),)), NOW)
                committed += 1
        assert "\n" not in str(caught.value)
        assert "free some space" in str(caught.value)
        filler.unlink()
        await store.flush(everything=True)
        assert not store.full
        assert ballast.exists()
        (hour,) = (await store.history("lab")).hours
        assert hour.ok == 1
        await store.commit(Turn(entries=(Entry("last", "s", "t"),)), NOW)
        await store.close()
        db = sqlite3.connect(folder / "aion.db")
        assert db.execute("select count(*) from event").fetchone() == (committed + 1,)
        assert db.execute("select ok from tally").fetchone() == (1,)
        assert db.execute("select flap_level from backend").fetchone() == (99,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.close()

    with file_system(tmp_path / "small", "size=4m"):
        asyncio.run(go(tmp_path / "small"))


def test_a_daemon_starts_on_a_full_disk_if_it_left_its_ballast_there(tmp_path):
    async def go(folder: Path) -> None:
        store = opened(folder / "aion.db")
        await store.load()
        await store.commit(Turn(backends={"lab": BackendState("lab")}), NOW)
        await store.close()
        fill(folder)
        again = opened(folder / "aion.db")
        saved = await again.load()
        assert set(saved.backends) == {"lab"}
        await again.commit(Turn(backends={"lab": None}), NOW)
        assert again.full
        await again.close()

    with file_system(tmp_path / "small", "size=3m"):
        asyncio.run(go(tmp_path / "small"))


def test_to_open_a_database_nothing_is_written_for_there_may_be_no_room(database, using):
    async def nothing(_store, _saved):
        pass

    using(database, nothing)
    before = database.read_bytes()

    async def go() -> None:
        store = opened(database, create=False)
        await store.load()
        assert database.with_name("aion.db-wal").stat().st_size == 0
        await store.close()

    asyncio.run(go())
    assert database.read_bytes() == before


def test_a_new_database_on_a_full_disk_is_refused_in_one_line(tmp_path):
    with file_system(tmp_path / "small", "size=64k"):
        fill(tmp_path / "small")
        assert "free some space" in trouble(tmp_path / "small" / "aion.db", StoreFull)


QUOTA = """
import asyncio, resource, sys
from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import Now
from orchestrator.edge.store import Store, inline
from orchestrator.errors import StoreFull

async def go():
    store = Store("sqlite:///" + sys.argv[1], inline(), create=True)
    await store.load()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    done = 0
    try:
        while done < 5000:
            await store.commit(Turn(entries=(Entry("a", "s", "x" * 900),)), Now(1.8e9, 1.8e9))
            done += 1
    except StoreFull as error:
        assert store.full
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(done, (await store.events(limit=1))[0].seq, str(error))
        await store.commit(Turn(entries=(Entry("a", "s", "t"),)), Now(1.8e9, 1.8e9))
        await store.flush()
        assert not store.full
    await store.close()

asyncio.run(go())
"""


def test_a_quota_counts_as_a_full_disk(database):
    """Needs no root: the kernel refuses to let any file grow beyond 1 MB."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", QUOTA, database],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    committed, last, text = done.stdout.strip().split(" ", 2)
    assert int(committed) == int(last) > 50
    assert text.startswith(f"no room to write {database}")


def test_a_read_only_disk_is_said_in_one_line(tmp_path, using):
    async def nothing(_store, _saved):
        pass

    with file_system(tmp_path / "ro", "size=4m"):
        path = tmp_path / "ro" / "aion.db"
        using(path, nothing)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "ro"], check=True)
        assert "Read-only file system; set server.database" in trouble(path)
        assert "Read-only file system; set server.database" in trouble(path.parent / "n" / "a.db")


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be made" in trouble(tmp_path / "file" / "aion.db")


def test_what_is_no_database_is_left_alone(database):
    database.parent.mkdir()
    database.write_bytes(b"dear diary, " * 500)
    assert "is not a SQLite database" in trouble(database)
    assert database.read_bytes() == b"dear diary, " * 500


def test_a_damaged_database_is_said_in_one_line(database, using):
    async def write(store, _saved):
        for number in range(50):
            state = BackendState(f"b{number}", reason="x" * 500)
            await store.commit(Turn(backends={f"b{number}": state}), NOW)

    using(database, write)
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x5a" * (size - 4096))
    assert "is damaged" in trouble(database)


def test_a_row_that_makes_no_sense_is_said_in_one_line(database, using):
    async def write(store, _saved):
        await store.commit(Turn(backends={"lab": BackendState("lab")}), NOW)

    using(database, write)
    db = sqlite3.connect(database)
    db.execute("update backend set health='purple'")
    db.commit()
    db.close()
    assert "purple" in trouble(database)


def test_another_programs_database_is_left_alone(database):
    database.parent.mkdir()
    db = sqlite3.connect(database)
    db.execute("create table users (name text)")
    db.commit()
    db.close()
    assert "belongs to another program" in trouble(database)


def test_a_database_of_a_newer_aion_is_refused_and_left_as_it_was(database, using):
    async def nothing(_store, _saved):
        pass

    using(database, nothing)
    db = sqlite3.connect(database)
    db.execute("update alembic_version set version_num='0999'")
    db.commit()
    db.close()
    text = trouble(database, StoreTooNew)
    assert "0999" in text
    assert tables.HEAD in text
    assert StoreTooNew("").exit_code == 5
    db = sqlite3.connect(database)
    assert db.execute("select version_num from alembic_version").fetchone() == ("0999",)
    db.close()


def test_a_second_daemon_is_refused_by_the_first_ones_process_id(database):
    async def go() -> None:
        first = opened(database)
        await first.load()
        second = opened(database)
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}; stop"):
            await second.load()
        await second.close()
        await first.commit(Turn(), NOW)
        await first.close()
        third = opened(database)
        await third.load()
        await third.close()

    asyncio.run(go())


def test_a_database_that_another_program_writes_is_locked_in_one_line(database):
    async def go():
        store = Store(f"sqlite:///{database}?timeout=0.05", inline(), create=True)
        await store.load()
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(StoreError, match="is locked by another program"):
            await store.commit(Turn(), NOW)
        other.execute("rollback")
        other.close()
        await store.commit(Turn(), NOW)
        await store.close()

    asyncio.run(go())
