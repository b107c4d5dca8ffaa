"""A drill proves a dump by restoring it, and what a dump holds can do nothing to anybody."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest

from jobs.backup import scratch
from jobs.backup.drill import Outcome, drill
from jobs.backup.errors import BackupError, ToolMissing, WrongKey
from jobs.backup.form import MANIFEST, Drill, Encryption, Manifest, Plan, Table, Timeouts
from jobs.backup.run import run
from tests.backup.conftest import Postgres
from tests.backup.plans import HandClock, clients, plan
from tests.backup.test_run import ports, store

WORLD = """
create schema app; create type app.mood as enum ('ok', 'sad');
create table app.person(id bigint generated always as identity primary key, name text not null unique, mood app.mood default 'ok');
create table app.note(id int primary key, person bigint references app.person on delete cascade, body text, tags text[], at timestamptz default now());
create index note_body on app.note using gin (to_tsvector('simple', body));
create view app.happy as select * from app.person where mood = 'ok';
create function app.twice(i int) returns int language sql immutable as 'select i * 2';
create table app.part(k int, v text) partition by range (k);
create table app.part1 partition of app.part for values from (0) to (100);
create materialized view app.counts as select count(*) from app.note;
alter table app.note enable row level security;
create policy mine on app.note using (person = 1);
insert into app.person(name) select 'p' || g from generate_series(1, 50) g;
insert into app.note select g, g % 50 + 1, 'n' || g, array['a', 'b'] from generate_series(1, 300) g;
insert into app.part select g, 'x' from generate_series(0, 99) g;
create table canary(word text); insert into canary values ('tweet');
select lo_from_bytea(0, 'large');
"""


def backed(dsn: str, tmp_path: Path, **more) -> Plan:
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", **more)
    report = run(one, ports(HandClock()))
    assert report.ok, report
    return one


def tried(one: Plan, tmp_path: Path) -> Outcome:
    return drill(one, store(tmp_path / "s1"), clock=HandClock())


def on(server: Postgres, **more) -> Drill:
    return Drill(dsn=server.dsn(), **more)


def nothing_left(server: Postgres) -> bool:
    left = server.run("select datname from pg_database where datname like 'aion_drill%'")
    return not left + server.run("select rolname from pg_roles where rolname like 'aion_drill%'")


def test_a_world_of_objects_restores_on_its_own_version_and_on_a_newer_one(
    pg16: Postgres, pg18: Postgres, tmp_path: Path
) -> None:
    one = backed(pg16.new(WORLD), tmp_path)
    canary = "select word from canary"
    for server in (pg16, pg18):
        outcome = tried(replace(one, drill=on(server, canary=canary)), tmp_path)
        assert outcome.problems == ()
        assert outcome.rows == 50 + 300 + 100 + 1
        assert nothing_left(server)
    assert not [p for p in (tmp_path / "spool").iterdir() if p.name.startswith(("restore", "pg-"))]


def test_without_a_server_given_one_of_our_own_is_started_and_gone_afterwards(
    pg16: Postgres, tmp_path: Path
) -> None:
    one = backed(pg16.new(WORLD), tmp_path)
    outcome = tried(one, tmp_path)
    assert outcome.problems == ()
    assert outcome.server.startswith("16")
    assert not servers(one)


def servers(plan: Plan) -> list[str]:
    """Give the servers of our own that run for this plan's drills; others have theirs."""
    found, name = [], f"aion-server-{hashlib.sha256(plan.spool.encode()).hexdigest()[:8]}-"
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if name in text:
            found.append(text)
    return found


def test_a_server_that_a_killed_drill_left_is_ended_by_the_next(
    pg16: Postgres, tmp_path: Path
) -> None:
    one = backed(pg16.new(WORLD), tmp_path)
    left = scratch.own_server("16", Path(one.spool))
    left.__enter__()  # and nobody ever leaves it
    assert servers(one)
    assert tried(one, tmp_path).ok
    assert not servers(one)


def test_a_database_that_a_killed_drill_left_is_dropped_and_one_in_use_is_not(
    pg16: Postgres, tmp_path: Path
) -> None:
    one = backed(pg16.new(WORLD), tmp_path, drill=on(pg16))
    pg16.new(name="aion_drill_aaaaaaaaaaaa")
    used = pg16.new(name="aion_drill_bbbbbbbbbbbb")
    with psycopg.connect(used):
        assert tried(one, tmp_path).ok
        names = pg16.run("select datname from pg_database where datname like 'aion_drill%'")
        assert names == [("aion_drill_bbbbbbbbbbbb",)]
    assert tried(one, tmp_path).ok
    assert nothing_left(pg16)


def test_missing_rows_are_found(pg16: Postgres, tmp_path: Path) -> None:
    one = backed(pg16.new(WORLD), tmp_path, drill=on(pg16))
    path = next((tmp_path / "s1").rglob(MANIFEST))
    manifest = Manifest.load(path.read_bytes())
    tables = tuple(replace(t, rows=t.rows + (t.name == "note")) for t in manifest.tables)
    path.write_bytes(replace(manifest, tables=(*tables, Table("app", "gone", 1))).dump())
    problems = tried(one, tmp_path).problems
    assert problems[0] == "app.note: 300 rows, not 301"
    assert "app.gone" in problems[1]
    assert nothing_left(pg16)


def test_a_canary_that_changed_or_is_gone_is_found(pg16: Postgres, tmp_path: Path) -> None:
    dsn = pg16.new(WORLD)
    one = backed(dsn, tmp_path, drill=on(pg16, canary="select word from canary"))
    for change, said in (
        ("update canary set word = 'x'", "not the one"),
        ("drop table canary", "query"),
    ):
        with psycopg.connect(dsn) as connection:
            connection.execute(change)
        assert said in tried(one, tmp_path).problems[0]
    none = replace(one, drill=on(pg16, canary="select 1 where false"))
    assert "no row" in tried(none, tmp_path).problems[0]


def test_what_is_in_a_dump_has_no_power_on_the_server_it_is_tried_on(
    pg16: Postgres, tmp_path: Path
) -> None:
    everybodys = Path(tempfile.mkdtemp(dir="/tmp"))
    everybodys.chmod(0o777)
    proof = everybodys / "pwned"
    # A check runs when the rows are restored, as whoever restores them.
    evil = f"""
    create function evil() returns int language plpgsql volatile as $$ begin
      begin execute 'copy (select 1) to program ''touch {proof}'''; exception when others then end;
      begin execute 'create role intruder superuser'; exception when others then end;
      return 1; end $$;
    create table t(i int, check (evil() = 1)); insert into t values (1);
    create table "x; \\! touch {proof}"(i int); comment on table t is E'\\n\\\\! touch {proof}\\n';
    """
    one = backed(pg16.new(evil), tmp_path, drill=on(pg16))
    proof.unlink()  # the superuser who made it was let to
    pg16.run("drop role intruder")
    assert tried(one, tmp_path).problems == ()
    assert not proof.exists()
    everybodys.rmdir()
    assert pg16.run("select 1 from pg_roles where rolname = 'intruder'") == []


def test_a_dump_that_does_not_restore_is_the_outcome_and_nothing_is_left(
    pg16: Postgres, tmp_path: Path
) -> None:
    sql = "create table t(i int); insert into t values (1); create function no() returns int language plpgsql immutable as $$ begin if current_setting('is_superuser') = 'off' then raise 'never as %', current_user; end if; return 1; end $$; create index on t((no()))"
    one = backed(pg16.new(sql), tmp_path, drill=on(pg16))
    problems = tried(one, tmp_path).problems
    assert "does not restore" in problems[0]
    assert nothing_left(pg16)


def test_a_plain_role_that_may_make_databases_will_do_and_a_dangerous_one_will_not(
    pg16: Postgres, tmp_path: Path
) -> None:
    one = backed(pg16.new(WORLD), tmp_path)
    pg16.run(
        "create role maker login createdb password 'x'; create role risky login createdb password 'x' in role pg_execute_server_program"
    )
    try:
        plain = replace(one, drill=Drill(dsn=pg16.dsn(user="maker", password="x")))
        assert tried(plain, tmp_path).problems == ()
        risky = replace(one, drill=Drill(dsn=pg16.dsn(user="risky", password="x")))
        with pytest.raises(BackupError, match="pg_execute_server_program"):
            tried(risky, tmp_path)
    finally:
        pg16.run("drop role maker; drop role risky")
    assert nothing_left(pg16)


def test_a_drill_of_an_encrypted_dump_needs_the_identity_and_says_so(
    pg16: Postgres, tmp_path: Path
) -> None:
    key = pyrage.x25519.Identity.generate()
    one = backed(
        pg16.new(WORLD), tmp_path, encrypt=Encryption(str(key.to_public())), drill=on(pg16)
    )
    with pytest.raises(WrongKey, match="identity"):
        tried(one, tmp_path)
    able = replace(one, encrypt=Encryption(str(key.to_public()), str(key)))
    assert tried(able, tmp_path).problems == ()


def test_a_machine_with_clients_only_says_what_a_drill_needs(tmp_path: Path) -> None:
    folder = Path(clients(tmp_path / "bin", 16))
    (folder / "initdb").unlink()
    with (
        pytest.raises(ToolMissing, match="drill_dsn"),
        scratch.own_server("16.1", tmp_path, pg_bin=str(folder)),
    ):
        pass


def test_a_newer_servers_dump_is_not_tried_on_an_older_one_in_silence(
    pg16: Postgres, pg18: Postgres, tmp_path: Path
) -> None:
    one = backed(
        pg18.new("create table t(i int, j int generated always as (i * 2) virtual)"), tmp_path
    )
    outcome = tried(replace(one, drill=on(pg16)), tmp_path)
    assert "does not restore" in outcome.problems[0]
    assert tried(replace(one, drill=on(pg18)), tmp_path).ok


def test_no_scratch_is_made_without_a_server(tmp_path: Path) -> None:
    dead = "postgresql://x:cnry-pass@127.0.0.1:1/x"
    with pytest.raises(BackupError) as told, scratch.scratch(dead, Timeouts(connect_s=2), []):
        pass
    assert "cnry" not in str(told.value)
    assert os.environ.get("PGPASSWORD") is None
