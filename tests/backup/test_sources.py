"""Databases as they are found: old encodings, sparse rights, thousands of tables, odd DSNs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from jobs.backup import dump, source
from jobs.backup.drill import drill
from jobs.backup.errors import SourceFailed
from jobs.backup.form import MAX_MANIFEST, Manifest, Selection, Table
from jobs.backup.restore import Into, restore
from jobs.backup.run import Report
from jobs.backup.words import gist
from orchestrator.edge.child import MAX_ANSWER
from tests.backup.conftest import Postgres
from tests.backup.plans import HandClock, first, plan
from tests.backup.test_archives import at


def make(one) -> Manifest:
    return dump.make(one, first(HandClock()), None, clock=HandClock())


def encoded(pg: Postgres, name: str, encoding: str) -> str:
    pg.run(f"create database {name} encoding '{encoding}' locale 'C' template template0")
    return pg.dsn(name)


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP", "SQL_ASCII"])
def test_a_database_of_an_older_encoding_is_dumped_and_its_drill_goes_well(
    pg16: Postgres, tmp_path: Path, encoding: str
) -> None:
    word = "日本" if encoding == "EUC_JP" else "täble é"
    dsn = encoded(pg16, f"old_{encoding.lower()}", encoding)
    with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as connection:
        connection.execute(f'create table "{word}" (t text)')
        connection.execute(f'insert into "{word}" values (%s), (%s)', (word, "x"))
    one = plan(dsn, tmp_path / "spool")
    made = make(one)
    assert made.tables == (Table("public", word, 2),)
    assert Manifest.load(made.dump()) == made
    outcome = drill(one, at(tmp_path / "spool/dumps"), clock=HandClock())
    assert outcome.problems == ()


def test_bytes_that_are_no_text_in_a_database_without_an_encoding_come_back(
    pg16: Postgres, tmp_path: Path
) -> None:
    dsn = encoded(pg16, "raw_bytes", "SQL_ASCII")
    with psycopg.connect(dsn, autocommit=True, client_encoding="SQL_ASCII") as connection:
        connection.execute(b'create table "t\xe9" (t text); insert into "t\xe9" values (\'\xff\')')
    one = plan(dsn, tmp_path / "spool")
    assert make(one).tables[0].rows == 1
    assert drill(one, at(tmp_path / "spool/dumps"), clock=HandClock()).problems == ()


@pytest.mark.parametrize(
    ("rights", "said"),
    [("", "grant pg_read_all_data"), ("grant select on a to {}", "bypassrls")],
    ids=["may not read", "does not see every row"],
)
def test_a_role_that_may_too_little_is_told_what_it_lacks(
    pg16: Postgres, tmp_path: Path, rights: str, said: str
) -> None:
    role = f"weak{len(rights)}"
    pg16.run(f"create role {role} login password 'weak-canary-password'")
    sql = "create table a(i int); alter table a enable row level security;" + rights.format(role)
    name = pg16.new(sql).rpartition("/")[2]
    with pytest.raises(SourceFailed, match=said) as caught:
        make(plan(pg16.dsn(name, role, "weak-canary-password"), tmp_path / "spool"))
    assert "canary" not in str(caught.value)


def test_what_is_told_of_a_program_is_its_error_and_not_a_warning_before_it() -> None:
    said = "WARNING: password file\npg_dump: warning: circular\npg_dump: error: no such thing\nHINT"
    assert gist(said) == "pg_dump: error: no such thing"
    assert gist("WARNING: only that\n") == "WARNING: only that"
    assert gist("\n") == ""


def test_a_password_in_the_dsn_counts_and_no_file_of_passwords_beside_it(
    pg16: Postgres, tmp_path: Path
) -> None:
    other = tmp_path / "passfile"
    other.touch(mode=0o600)
    other.write_text("*:*:*:*:another\n")
    assert make(plan(f"{pg16.new()}?passfile={other}", tmp_path / "spool")).tables == ()


def test_a_parameter_that_only_some_libraries_know_is_said_to_be_that(pg16: Postgres) -> None:
    with pytest.raises(SourceFailed, match="pgbouncer") as caught:
        source.parameters(pg16.dsn() + "?pgbouncer=true")
    assert "cnry" not in str(caught.value)


def test_a_table_of_another_schema_that_is_dumped_alone_is_restored_into_an_empty_database(
    pg16: Postgres, tmp_path: Path
) -> None:
    """pg_dump leaves out the schema of tables that are asked for by name."""
    sql = (
        'create schema "My App"; create table "My App".t(i int); insert into "My App".t values (1)'
    )
    one = replace(plan(pg16.new(sql), tmp_path / "spool"), include=Selection(tables=("My App.t",)))
    make(one)
    target = pg16.new()
    store = at(tmp_path / "spool/dumps")
    restore(store, "main", "", Into(target), tmp_path)
    assert pg16.run('select * from "My App".t', target.rpartition("/")[2]) == [(1,)]
    assert drill(one, store, clock=HandClock()).problems == ()


def test_a_partitioned_table_that_is_included_brings_its_rows(
    pg16: Postgres, pg18: Postgres, tmp_path: Path
) -> None:
    sql = (
        "create table p(i int) partition by range (i);"
        "create table p1 partition of p for values from (0) to (9); insert into p values (1), (2)"
    )
    for way, rows in (("include", 2), ("exclude", 0)):
        chosen = {way: Selection(tables=("public.p",))}
        one = replace(plan(pg16.new(sql), tmp_path / way), **chosen)
        assert sum(table.rows for table in make(one).tables) == rows


def test_tens_of_thousands_of_tables_are_told_of_in_few_words_and_can_be_read_back(
    pg16: Postgres, tmp_path: Path
) -> None:
    made = make(plan(pg16.new("create table a(i int)"), tmp_path / "spool"))
    many = tuple(Table(f"tenant_{n:06d}", "a_table_with_quite_a_name", n) for n in range(80_000))
    made = replace(made, tables=many)
    data = made.dump()
    assert len(data) < MAX_MANIFEST
    assert Manifest.load(data).tables == many
    answer = json.dumps(Report(dump=made).to_json())
    assert len(answer) < MAX_ANSWER // 100
