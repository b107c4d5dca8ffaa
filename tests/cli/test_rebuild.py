"""`aion rebuild` where something is in the way: refused in one line, nothing half written."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
from terminal import aion

from jobs.backup.catalogue import pick, read
from jobs.backup.form import STATE, Copy, Encryption, Itself, Limits, Plan
from jobs.backup.run import run
from jobs.backup.stores.file import FileStore
from jobs.backup.targets import Target
from jobs.backup.unpack import fetched
from orchestrator.cli.rebuilding import Place, staged
from orchestrator.edge import tables
from orchestrator.edge.store import Store, inline
from orchestrator.settings import load
from tests.backup.plans import HandClock, aion_database
from tests.backup.test_dump import small_disk
from tests.backup.test_run import ports

CANARY = "canary-4be1"
KEY = pyrage.x25519.Identity.generate()
CONFIG = """
[backends.lab]
kind = "static"
engine = "ollama"
url = "http://127.0.0.1:9"
[backups.main]
schedule = "0 3 * * *"
dsn = { credential = "pg" }
copies = ["file:/mnt/a"]
"""


@pytest.fixture
def plan(tmp_path) -> Plan:
    home = tmp_path / "home"
    aion_database(home / "aion.db")
    (home / "aion.toml").write_text(CONFIG)
    return Plan(
        name=STATE,
        dsn="",
        copies=(Copy(Target.parse(f"file:{tmp_path / 'store'}")),),
        spool=str(tmp_path / "spool"),
        limits=Limits(min_free_bytes=1 << 20),
        encrypt=Encryption(str(KEY.to_public())),
        itself=Itself(
            str(home / "aion.db"),
            str(home / "aion.toml"),
            credentials={"pg": f"postgresql://me:{CANARY}@h/d"},
        ),
    )


@pytest.fixture
def rebuild(plan, tmp_path):
    key = tmp_path / "age.txt"
    key.write_text(f"# created\n{KEY}\n")

    def call(*words: str, store: str = "store", sealed: bool = True):
        given = ("--identity", str(key)) if sealed else ()
        source = f"file:{tmp_path / store}"
        to = str(tmp_path / "new")
        return aion("rebuild", "--from", source, *given, "--to", to, *words, cwd=tmp_path)

    return call


def backed_up(plan: Plan, times: int = 1) -> list[Path]:
    for _ in range(times):
        assert run(plan, ports(HandClock())).ok
    store = Path("/" + plan.copies[0].target.path)
    return sorted(store.glob(f"{STATE}-*"))


def new(tmp_path) -> list[str]:
    """What a rebuild left, but for the empty folders it needed."""
    there = (path for path in (tmp_path / "new").rglob("*") if path.is_file())
    return sorted(str(path.relative_to(tmp_path / "new")) for path in there)


def test_everything_comes_back_with_its_modes_and_nothing_else_is_left(plan, rebuild, tmp_path):
    backed_up(plan)
    ran = rebuild("-y")
    assert ran.code == 0, ran.err
    assert new(tmp_path) == ["aion.toml", "credentials/pg", "var/aion.db", "var/aion.db.lock"]
    assert (tmp_path / "new" / "credentials" / "pg").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755  # the service has its own user
    assert (tmp_path / "new" / "aion.toml").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "new" / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "aion.toml").read_text() == CONFIG
    assert CANARY not in ran.out + ran.err
    assert f"start it: cd {tmp_path / 'new'} && aion serve" in ran.out


def test_a_dry_run_writes_nothing_and_says_what_it_found(plan, rebuild, tmp_path):
    backed_up(plan)
    ran = rebuild("--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["done"] is False
    assert not (tmp_path / "new").exists()


def test_nothing_is_done_unasked(plan, rebuild, tmp_path):
    backed_up(plan)
    ran = rebuild()
    assert ran.code == 2
    assert "takes over from the old machine" in ran.err
    assert new(tmp_path) == []


def test_what_is_there_is_not_overwritten_but_moved_aside_when_told(plan, rebuild, tmp_path):
    backed_up(plan)
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "aion.toml").write_text("mine")
    ran = rebuild("-y")
    assert (ran.code, new(tmp_path)) == (2, ["aion.toml"])
    assert "is there already; --force" in ran.err
    assert rebuild("-y", "--force").code == 0
    assert (folder / "aion.toml.before-rebuild").read_text() == "mine"
    assert (folder / "aion.toml").read_text() == CONFIG


def test_a_daemon_that_runs_there_is_not_pulled_from_under(plan, rebuild, tmp_path):
    backed_up(plan)
    path = tmp_path / "new" / "var" / "aion.db"

    async def held() -> None:
        store = Store(f"sqlite:///{path}", inline(), create=True)
        await store.load()
        try:
            ran = await asyncio.to_thread(rebuild, "-y", "--force")
            assert ran.code == 1
            assert "is in use by process" in ran.err
        finally:
            await store.close()

    asyncio.run(held())
    assert not (tmp_path / "new" / "aion.toml").exists()


def test_without_its_key_or_with_a_wrong_one_nothing_is_written(plan, rebuild, tmp_path):
    backed_up(plan)
    ran = rebuild("-y", sealed=False)
    assert "give its identity (AGE-SECRET-KEY-1…) with --identity FILE" in ran.err
    (tmp_path / "age.txt").write_text(str(pyrage.x25519.Identity.generate()))
    ran = rebuild("-y")
    assert "this identity does not open" in ran.err
    assert (ran.code, new(tmp_path)) == (1, [])


def test_credentials_that_were_not_in_it_are_named_with_the_line_that_sets_them(
    plan, rebuild, tmp_path
):
    backed_up(replace(plan, encrypt=None))
    ran = rebuild("-y", sealed=False)
    assert ran.code == 5
    config = tmp_path / "new" / "aion.toml"
    assert f"missing: the credential pg; set it: aion secret set pg --config {config}" in ran.out
    assert "then start it" in ran.out
    fix = ran.out.partition("set it: aion ")[2].splitlines()[0].split()
    assert aion(*fix, cwd=tmp_path, stdin="postgresql://h/d\n").code == 0
    assert aion("config", "check", "--config", str(config), cwd=tmp_path).code == 0


def test_the_services_own_user_can_read_the_configuration_whatever_our_umask(plan, tmp_path):
    backed_up(replace(plan, encrypt=None))
    store = FileStore(plan.copies[0].target)
    place = Place(tmp_path / "etc" / "aion" / "aion.toml", tmp_path / "lib")
    (tmp_path / "etc").mkdir()
    before = os.umask(0o077)
    try:
        with (
            fetched(store, pick(read(store, STATE)), "", tmp_path) as (manifest, archive),
            staged(archive, manifest, place.state, 1_800_000_000.0) as stage,
        ):
            stage.settle(place, force=False)
    finally:
        os.umask(before)
    assert place.config.parent.stat().st_mode & 0o777 == 0o755
    assert place.config.stat().st_mode & 0o777 == 0o644
    assert place.state.stat().st_mode & 0o777 == 0o700


def test_a_damaged_copy_is_told_of_and_the_one_before_is_taken(plan, rebuild, tmp_path):
    first, second = backed_up(plan, 2)
    (archive,) = second.glob("archive*")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    ran = rebuild("-y", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["dump"] == first.name
    assert f"{second.name}: " in ran.err


def test_when_every_copy_is_damaged_nothing_is_written(plan, rebuild, tmp_path):
    for folder in backed_up(plan, 2):
        (archive,) = folder.glob("archive*")
        archive.write_bytes(b"x" * archive.stat().st_size)
    ran = rebuild("-y")
    assert ran.code == 1
    assert ran.err.strip().splitlines()[-1].startswith("error: ")
    assert new(tmp_path) == []


def test_a_place_without_a_state_says_what_it_holds_instead(plan, rebuild, tmp_path):
    (tmp_path / "store" / "main-000001-20261121T030000Z").mkdir(parents=True)
    (tmp_path / "store" / "main-000001-20261121T030000Z" / "manifest.json").write_text("{}")
    assert "only dumps of main" in rebuild("-y").err
    assert "no dumps at all" in rebuild("-y", store="empty").err


def test_a_state_of_a_newer_aion_is_refused_in_one_line(plan, rebuild, tmp_path):
    with closing(sqlite3.connect(plan.itself.database)) as one, one:
        one.execute("update alembic_version set version_num = '9999'")
    backed_up(plan)
    ran = rebuild("-y")
    assert (ran.code, new(tmp_path)) == (5, [])
    assert "this state is of a newer aion" in ran.err
    assert tables.HEAD != "9999"


def test_a_backup_of_a_state_is_no_dump_to_restore(plan, rebuild, tmp_path):
    backed_up(plan)
    source = f"file:{tmp_path / 'store'}"
    ran = aion(
        "backup", "restore", STATE, "--from", source, "--to", "host=h dbname=d", cwd=tmp_path
    )
    assert ran.code == 2
    assert "aion rebuild --from" in ran.err
    ran = aion("backup", "restore", "--from", source, "--to", "host=h dbname=d", cwd=tmp_path)
    assert "there is no dump" in ran.err


def test_what_a_rebuild_that_was_killed_left_is_thrown_away_by_the_next(plan, rebuild, tmp_path):
    backed_up(plan)
    left = tmp_path / "new" / "var" / ".aion-rebuild-x"
    left.mkdir(parents=True)
    (left / "aion.toml").write_text(CANARY)
    assert rebuild("-y").code == 0
    assert not left.exists()


def test_a_full_disk_is_said_and_nothing_is_left_half_written(plan, rebuild, tmp_path):
    backed_up(plan)
    with small_disk(tmp_path / "new", 100_000):
        ran = rebuild("-y")
        assert ran.code == 1
        assert "MB are needed" in ran.err
        assert new(tmp_path) == []


def test_the_page_for_the_day_the_machine_is_gone_works_as_printed(plan, rebuild, tmp_path):
    backed_up(plan)
    page = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()
    part = page.partition("## The machine is gone")[2].partition("\n## ")[0]
    (line,) = re.findall(r"(?m)^aion (rebuild --from file:.*)$", part)
    words = line.replace("/mnt/backups", str(tmp_path / "store")).split()
    assert aion(*words, cwd=tmp_path).code == 0
    words = [*words[:-1], "--to", str(tmp_path / "new"), "-y"]
    assert (words[-4], aion(*words, cwd=tmp_path).code) == ("age.txt", 0)
    again = aion(*words, cwd=tmp_path)
    for said in re.findall(r"(?m)^\| `([^`]*)`", part)[:1]:
        assert said in again.err
    [own] = re.findall(r"```toml\n( +\[backups\.aion-state\].*?)```", page, re.DOTALL)
    text = textwrap.dedent(own).replace("age1…", str(KEY.to_public()))
    (tmp_path / "aion.toml").write_text(CONFIG.partition("[backups")[0] + text)
    environ = {"AION_CREDENTIAL_RCLONE_CONF": "[gdrive]\ntype = drive\n"}
    assert [one.name for one in load(tmp_path / "aion.toml", environ=environ).backups] == [STATE]
