"""A real database backed up by the running daemon, damaged, found, and brought back."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.backup.conftest import BINS, PASSWORD, pg16
from tests.e2e.kit import months_away, until

__all__ = ["pg16"]
ROWS = 4321


def nightly(world, dsn: str, *stores: Path, **more) -> None:
    world.credentials["pg_dsn"] = dsn
    world.tables["backups.main"] = {
        "schedule": months_away(),
        "dsn": {"credential": "pg_dsn"},
        "copies": [f"file:{store}" for store in stores],
        "pg_bin": str(BINS[16]),
        "itself": False,
        **more,
    }


def rows(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select count(*) from message").fetchone()[0]


@pytest.fixture
def dsn(pg16):
    return pg16.new(
        "create table message (id int primary key, text text);"
        f"insert into message select n, md5(n::text) from generate_series(1, {ROWS}) n"
    )


def test_what_the_nightly_job_made_is_in_both_stores_and_the_api_says_so(world, dsn, tmp_path):
    stores = [tmp_path / "a", tmp_path / "b"]
    hook = world.hook()
    world.credentials["hc"] = f"http://127.0.0.1:{hook.port}/canary-ping"
    nightly(world, dsn, *stores, ping_url={"credential": "hc"})
    world.serve_from("alpha")
    world.boot()
    done = world.aion("job", "run", "backup-main", "-y")
    assert done.returncode == 0, done.stderr
    (one,) = world.api("backups")
    assert one["name"] == "main"
    assert (one["problem"], one["running"], one["stale"]) == ("", False, False)
    assert [copy["ok"] for copy in one["copies"]] == [True, True]
    assert one["success_at"] is not None
    assert one["next_at"] is not None
    assert one["size"] > 0
    for store in stores:
        assert (store / one["dump"] / "manifest.json").exists()
    secret = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
    assert secret == PASSWORD
    for text in (world.log(), json.dumps(world.api("backups")), json.dumps(world.api("jobs"))):
        assert secret not in text
        assert "canary-ping" not in text
    until(lambda: hook.probed_at, "the outside watcher is told")
    maps = Path(f"/proc/{world.daemon.pid}/maps").read_text()
    assert [name for name in ("psycopg", "crc32c", "pyrage", "zstd") if name in maps] == []


def test_a_failure_opens_an_incident_that_the_next_success_closes(world, dsn, tmp_path):
    nightly(world, dsn, tmp_path / "file" / "a", tmp_path / "b")
    (tmp_path / "file").write_text("in the way of a folder")
    world.serve_from("alpha")
    world.boot()
    done = world.aion("job", "run", "backup-main", "-y")
    assert done.returncode == 1
    until(lambda: "backup_failed" in world.kinds(), "an incident")
    (one,) = world.api("backups")
    assert "file/a" in one["problem"]
    assert [copy["ok"] for copy in one["copies"]] == [False, True]
    (tmp_path / "file").unlink()
    assert world.aion("job", "run", "backup-main", "-y").returncode == 0
    until(lambda: "backup_failed" not in world.kinds(), "it is over")


def test_a_copy_that_rots_is_found_and_the_other_brings_every_row_back(world, dsn, pg16, tmp_path):
    stores = [tmp_path / "a", tmp_path / "b"]
    nightly(world, dsn, *stores)
    world.serve_from("alpha")
    world.boot()
    done = world.aion("backup", "run", "main", "-y")
    assert done.returncode == 0, done.stderr
    (one,) = world.api("backups")
    archive = stores[0] / one["dump"] / "archive.dump.zst"
    archive.chmod(0o600)
    data = bytearray(archive.read_bytes())
    data[len(data) // 3] ^= 1
    archive.write_bytes(data)
    assert world.aion("backup", "verify", "main").returncode == 1
    again = world.aion("backup", "run", "main", "-y")
    assert again.returncode == 1  # each run looks at what is there
    until(lambda: "backup_failed" in world.kinds(), "an incident names the copy")
    world.crash()
    world.credentials["empty"] = pg16.new()
    world.write()
    done = world.aion("backup", "restore", "main", one["dump"], "--to", "empty", "-y")
    assert done.returncode == 0, done.stderr
    assert str(stores[1]) in done.stdout
    assert rows(world.credentials["empty"]) == rows(dsn) == ROWS


def test_a_run_that_the_daemon_died_in_is_made_again_at_the_next_start(world, dsn, pg16, tmp_path):
    nightly(world, dsn, tmp_path / "a")
    world.serve_from("alpha")
    world.boot()
    with psycopg.connect(dsn) as holder:
        holder.execute("lock table message in access exclusive mode")
        assert world.post("backups/main/run").status_code == 202
        until(lambda: pg16.run("select 1 from pg_stat_activity where query like 'LOCK TABLE%' and wait_event_type = 'Lock'"), "the dump waits")  # fmt: skip
        assert world.post("backups/main/run").status_code == 409
        world.crash()
    world.boot()
    until(lambda: world.api("backups")[0]["success_at"], "it is made up for")


def test_what_had_no_success_for_too_long_is_an_incident_and_ends_with_its_table(
    world, dsn, tmp_path
):
    spool = world.state / "backups" / "main"
    spool.mkdir(parents=True, mode=0o700)
    (spool / "status.json").write_text(json.dumps({"first_at": 1_700_000_000.0}))
    nightly(world, dsn, tmp_path / "a")
    world.serve_from("alpha")
    world.boot()
    assert world.aion("job", "run", "backups", "-y").returncode == 0
    until(lambda: "backup_stale" in world.kinds(), "it is out of date")
    assert world.api("backups")[0]["stale"]
    del world.tables["backups.main"]
    world.write()
    assert "backup `main` is removed" in world.aion("reload", "-y").stdout
    until(lambda: "backup_stale" not in world.kinds(), "nothing is missed any more")
    assert world.api("backups") == []
