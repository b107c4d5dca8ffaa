"""A real database backed up by the running daemon, damaged, found, and brought back."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.backup.conftest import BINS, PASSWORD, pg16
from tests.e2e.kit import until

__all__ = ["pg16"]
ROWS = 4321


def nightly(world, dsn: str, *stores: Path, **more) -> None:
    world.credentials["pg_dsn"] = dsn
    world.tables["backups.main"] = {
        "schedule": "0 3 * * *",
        "dsn": {"credential": "pg_dsn"},
        "copies": [f"file:{store}" for store in stores],
        "pg_bin": str(BINS[16]),
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
