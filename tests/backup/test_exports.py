"""Exports: every row once, whatever happens, as lossless JSON."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest

from jobs.backup import parts
from jobs.backup.errors import StoreUnreachable, WrongKey
from jobs.backup.form import Access, Encryption, Export, Plan, Selection, Timeouts
from jobs.backup.run import Ports, run
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom
from tests.backup.conftest import Postgres
from tests.backup.plans import HandClock, plan
from tests.backup.test_run import Crash, Faulty

CHAT = Export("chat", "select id, body from messages", "id")
TABLE = "create table messages(id bigint generated always as identity primary key, body text)"


def ports(clock: HandClock, fault=None, at: str = "") -> Ports:
    def take(target, access, private):
        store = open_store(target, access, private)
        return Faulty(store, fault) if fault and at in target.url else store

    return Ports(clock, SeededRandom(1), clock.pause, open_store=take)


@pytest.fixture
def dsn(pg16: Postgres) -> str:
    return pg16.new(f"{TABLE}; insert into messages(body) values ('one'), ('two')")


def add(dsn: str, *bodies: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for body in bodies:
            connection.execute("insert into messages(body) values (%s)", (body,))


def held(folder: Path, export: str = "chat", name: str = "main") -> dict[int, parts.Held]:
    store = open_store(Target.parse(f"file:{folder}"), Access(), folder)
    found, wrong = parts.read(store, name, export)
    assert not wrong
    return found


def rows(folder: Path, export: str = "chat", identity: str = "") -> list[dict]:
    """Return what all parts of a store hold, in their order, each part proved."""
    lines: list[dict] = []
    for _, one in sorted(held(folder, export).items()):
        assert not one.problem, one
        path = folder / "exports/main" / export / one.part.file
        if not identity:
            assert not parts.proved(path, one.part)
        with parts.opened(path, identity) as file:
            made = [json.loads(line) for line in file.read().splitlines()]
        assert len(made) == one.part.rows
        lines += made
    return lines


def only(dsn: str, tmp: Path, *stores: str, export: Export = CHAT, **more) -> Plan:
    made = plan(dsn, tmp / "spool", *(tmp / one for one in stores or ("s1",)), **more)
    return replace(made, exports=(export,))


def test_each_run_writes_what_is_new_since_the_last_and_nothing_twice(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = only(dsn, tmp_path, "s1", "s2")
    first = run(one, ports(clock))
    assert first.ok, first.to_json()
    assert [o.said for o in first.more] == ["2 rows in part 1"]
    add(dsn, "three", 'fo\nur \\ "x" é')
    assert run(one, ports(clock)).more[0].said == "2 rows in part 2"
    assert run(one, ports(clock)).more[0].said == "nothing new"
    for store in ("s1", "s2"):
        assert [r["body"] for r in rows(tmp_path / store)] == [
            "one",
            "two",
            "three",
            'fo\nur \\ "x" é',
        ]
    assert sorted(held(tmp_path / "s1")) == [1, 2]
    assert not list((tmp_path / "spool").rglob("*.zst"))


def test_a_crash_between_any_two_steps_leaves_no_gap_and_nothing_twice(
    dsn: str, tmp_path: Path
) -> None:
    """Kill at every operation of every store; each time more rows come before the next run."""
    total, step, steps = 2, 0, -1
    clock = HandClock()
    one = only(dsn, tmp_path, "s1", "s2")
    while steps < 0 or step < steps:
        seen = 0

        def fault(operation: str, name: str) -> None:
            nonlocal seen
            seen += "exports" in name
            if seen == step + 1:  # noqa: B023 - it is called in this turn only
                raise Crash

        crashed = True
        try:
            run(one, ports(clock, fault))
            crashed = False
        except Crash:
            pass
        steps = seen if not crashed else steps
        clock.at += 9 * 3600.0
        add(dsn, f"after {step}")
        total += 1
        step += 1
        if not crashed:
            break
    assert step > 8, "the crashes must reach every step"
    report = run(one, ports(clock))
    assert report.ok, report.to_json()
    for store in ("s1", "s2"):
        assert [r["id"] for r in rows(tmp_path / store)] == list(range(1, total + 1))


def test_a_crash_while_a_part_is_made_leaves_no_gap_and_nothing_twice(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = only(dsn, tmp_path)

    def crash(step: str, _done: int, _total: int) -> None:
        if step.startswith("export"):
            raise Crash

    with pytest.raises(Crash):
        run(one, replace(ports(clock), tell=crash))
    spool = tmp_path / "spool/exports/chat"
    assert not list(spool.glob("*.json"))
    # What a loss of power leaves: half a file, a whole one that nothing describes, half of that.
    (spool / "work").write_bytes(b"half")
    (spool / "000000001-0123456789ab.jsonl.zst").write_bytes(b"whole")
    (spool / "000000001.json.aion-part").write_bytes(b"{")
    (spool / "000000002.json").write_bytes(b"{")
    add(dsn, "three")
    assert run(one, ports(clock)).ok
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2, 3]
    assert not list(spool.glob("0*"))


def test_a_new_machine_goes_on_where_the_stores_say_it_ended(dsn: str, tmp_path: Path) -> None:
    clock = HandClock()
    one = only(dsn, tmp_path, "s1")
    assert run(one, ports(clock)).ok
    add(dsn, "three")
    (tmp_path / "b").mkdir()
    other = replace(one, spool=str(tmp_path / "b/spool"))
    assert run(other, ports(clock)).more[0].said == "1 rows in part 2"
    add(dsn, "four")
    assert run(one, ports(clock)).more[0].said == "1 rows in part 3"
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2, 3, 4]


def test_a_new_machine_that_cannot_read_every_store_exports_nothing_and_says_why(
    dsn: str, tmp_path: Path
) -> None:
    def down(operation: str, name: str) -> None:
        raise StoreUnreachable("no answer")

    clock = HandClock()
    one = only(dsn, tmp_path, "s1", "s2")
    report = run(one, ports(clock, down, "s2"))
    assert "where it ended is not known as long as file:" in report.more[0].detail
    assert not (tmp_path / "s1/exports").exists()
    assert run(one, ports(clock)).ok
    add(dsn, "three")
    # A machine that made the parts itself knows where it ended, and goes on.
    report = run(one, ports(clock, down, "s2"))
    assert report.more[0].said == "1 rows in part 2"
    assert not report.ok
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2, 3]
    assert run(one, ports(clock)).ok
    assert [r["id"] for r in rows(tmp_path / "s2")] == [1, 2, 3]


def test_a_store_that_may_know_better_and_is_down_does_not_bring_rows_back(
    dsn: str, tmp_path: Path
) -> None:
    def down(operation: str, name: str) -> None:
        raise StoreUnreachable("no answer")

    clock = HandClock()
    one = only(dsn, tmp_path, "s1", "s2")
    assert run(one, ports(clock)).ok
    add(dsn, "three")
    assert run(one, ports(clock)).ok
    for path in (tmp_path / "s1/exports/main/chat").glob("000000002*"):
        path.unlink()
    add(dsn, "four")
    assert run(one, ports(clock, down, "s2")).more[0].said == "1 rows in part 3"
    assert run(one, ports(clock)).ok
    for store in ("s1", "s2"):
        assert [r["id"] for r in rows(tmp_path / store)] == [1, 2, 3, 4]


def test_a_dump_that_fails_costs_no_export_and_an_export_that_fails_no_dump(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    bad = replace(CHAT, name="bad", query="select 1/0 as id")
    one = only(dsn, tmp_path, include=Selection(("no",)))
    one = replace(one, exports=(bad, CHAT))
    report = run(one, ports(clock))
    assert "no matching schemas" in report.failure
    assert "division by zero" in report.more[0].detail
    assert report.more[1].ok
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2]


def test_a_row_that_is_committed_late_with_a_smaller_key_is_waited_for(
    pg16: Postgres, dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    late = psycopg.connect(dsn)
    late.execute("insert into messages(body) values ('late')")  # takes 3 and is still open
    add(dsn, "early")  # 4 is committed before
    one = only(dsn, tmp_path, timeouts=Timeouts(lock_s=30))
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.at += seconds
        if len(pauses) == 3:
            late.commit()

    made = replace(ports(clock), pause=pause)
    report = run(one, made)
    late.close()
    assert report.ok, report.to_json()
    assert len(pauses) == 3
    assert [r["body"] for r in rows(tmp_path / "s1")] == ["one", "two", "late", "early"]


def test_a_transaction_that_does_not_end_puts_the_export_off_and_no_row_is_lost(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    with psycopg.connect(dsn) as late:
        late.execute("insert into messages(body) values ('late')")
        add(dsn, "early")
        report = run(only(dsn, tmp_path), ports(clock))
        assert "transactions were open all the while" in report.more[0].detail
        assert report.dump is not None
        assert held(tmp_path / "s1") == {}
        ignoring = only(dsn, tmp_path, "s2", export=replace(CHAT, name="hasty", late="ignore"))
        assert run(ignoring, ports(clock)).more[0].said == "3 rows in part 1"
    assert run(only(dsn, tmp_path), ports(clock)).ok
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2, 3, 4]


def test_a_key_that_went_backwards_is_told_of_for_nothing_new_would_ever_be_exported(
    dsn: str, tmp_path: Path
) -> None:
    clock, one = HandClock(), only(dsn, tmp_path)
    assert run(one, ports(clock)).more[0].said == "2 rows in part 1"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from messages where id = 2")
        told = run(one, ports(clock)).more[0]
        assert told.ok, "rows may be deleted"
        assert "its largest key is 1, and 2 was exported already" in told.said
        assert "a new name" in told.said
        connection.execute("truncate messages")
        assert run(one, ports(clock)).more[0].said == "nothing new"
    add(dsn, "three")
    assert run(one, ports(clock)).more[0].said == "1 rows in part 2"


def test_settle_leaves_rows_for_later_whose_time_is_young(pg16: Postgres, tmp_path: Path) -> None:
    dsn = pg16.new(
        "create table t(at timestamptz, n int); insert into t values (now() - interval '2 h', 1), (now(), 2)"
    )
    one = Export("t", "select * from t", "at", settle_s=3600.0)
    assert run(only(dsn, tmp_path, export=one), ports(HandClock())).more[0].count == 1


WRONG = {
    "select 1 as id; drop table messages": "multiple commands",
    "select 1) q; drop table messages; --": "syntax error",
    "delete from messages returning id": "neither select nor with",
    "with x as (delete from messages returning id) select id from x": "",
    "select id from messages for update": "",
    "select id from nowhere": "does not exist",
    "select id, id from messages": "two columns of the query are called id",
    "select body from messages": "its key, id, is no column of the query: body",
    "select true as id": "is of a type that does not grow",
    "select $1::int as id": "it has a parameter",
    "select 'NaN'::numeric as id": "which nothing can ever follow",
    "copy messages to '/tmp/x'": "neither select nor with",
    "select id from messages where pg_sleep(9) is null": "statement timeout",
}


@pytest.mark.parametrize(("query", "said"), WRONG.items())
def test_a_query_that_cannot_be_exported_is_refused_in_one_line_and_changes_nothing(
    dsn: str, tmp_path: Path, query: str, said: str
) -> None:
    one = only(dsn, tmp_path, export=replace(CHAT, query=query), timeouts=Timeouts(statement_s=1))
    report = run(replace(one, dsn=dsn), ports(HandClock()))
    detail = report.more[0].detail
    assert detail
    assert said in detail
    assert "\n" not in detail
    assert held(tmp_path / "s1") == {}
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from messages").fetchone() == (2,)


def test_names_of_columns_and_tables_may_be_anything(pg16: Postgres, tmp_path: Path) -> None:
    key, table = 'k"); drop table x; --%s{}', 'odd "; name'
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in (key, table)}
    dsn = pg16.new(
        f'create table {quoted[table]}({quoted[key]} int, c text, q text, "Row" int, "é\n" int);'
        f"insert into {quoted[table]} values (1, 'c', '100%', 7, 8)"
    )
    one = Export("odd", f"select * from {quoted[table]} -- %s {{}}", key)
    assert run(only(dsn, tmp_path, export=one), ports(HandClock())).ok
    assert rows(tmp_path / "s1", "odd") == [{key: 1, "c": "c", "q": "100%", "Row": 7, "é\n": 8}]


VALUES = {
    "9007199254740993::bigint": 9007199254740993,
    "'-1.10'::numeric": "-1.10",
    "'NaN'::numeric": "NaN",
    "array[1.10, null]::numeric[]": ["1.10", None],
    "0.1::float8": 0.1,
    "'NaN'::float8": "NaN",
    "'-Infinity'::float4": "-Infinity",
    r"'\x00ff10'::bytea": base64.b64encode(b"\x00\xff\x10").decode(),
    "decode(repeat('ab', 100), 'hex')": base64.b64encode(b"\xab" * 100).decode(),
    "'2026-01-02 03:04:05.678901+01'::timestamptz": "2026-01-02T02:04:05.678901+00:00",
    "'2026-01-02 03:04:05'::timestamp": "2026-01-02T03:04:05",
    "'infinity'::timestamptz": "infinity",
    "'2026-01-02'::date": "2026-01-02",
    "'1 year 2 hours'::interval": "P1YT2H",
    "true": True,
    "null::text": None,
    "E'a\\n\\t\\\\ \\u2028 \"x\"'": 'a\n\t\\ \u2028 "x"',
    'E\'{"a":\\n 1.00,\\t"b": [1e400]}\'::json': None,
    "'{\"a\": 12345678901234567890.5}'::jsonb": None,
    "array['a', null, 'c']": ["a", None, "c"],
    "array[[1,2],[3,4]]": [[1, 2], [3, 4]],
    "'12345678-1234-5678-1234-567812345678'::uuid": "12345678-1234-5678-1234-567812345678",
    "int4range(1, 5)": "[1,5)",
    "'1.2.3.4'::inet": "1.2.3.4",
}


def test_values_become_json_without_loss(pg: Postgres, tmp_path: Path) -> None:
    columns = ", ".join(f"{value} as v{n}" for n, value in enumerate(VALUES))
    one = Export("v", f"select 1 as id, {columns}", "id")
    report = run(only(pg.new(), tmp_path, export=one), ports(HandClock()))
    assert report.ok, report.to_json()
    (part,) = held(tmp_path / "s1", "v").values()
    with parts.opened(tmp_path / "s1/exports/main/v" / part.part.file) as file:
        text = file.read().decode()
    assert text.count("\n") == 1
    assert '{"a":  1.00,\t"b": [1e400]}' in text
    assert '{"a": 12345678901234567890.5}' in text
    made = json.loads(text)
    for n, (value, wanted) in enumerate(VALUES.items()):
        assert (wanted is None and "json" in value) or made[f"v{n}"] == wanted, value


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("uuid", ["00000000-0000-0000-0000-000000000001", "ffffffff-0000-0000-0000-000000000001"]),
        ("numeric", ["9", "10.5"]),
        ("text", ["Z", "a"]),
        ("varchar(9)", ["Z", "a"]),
        ("timestamptz", ["2026-01-01T00:00:00.000001+00:00", "2026-01-01T00:00:00.000002+00:00"]),
        ("date", ["0999-01-01", "2026-01-01"]),
    ],
)
def test_keys_of_every_kind_that_grows_go_on_where_they_were(
    pg16: Postgres, tmp_path: Path, kind: str, keys: list[str]
) -> None:
    dsn = pg16.new(f"create table t(k {kind}); insert into t values ('{keys[0]}')")
    one = only(dsn, tmp_path, export=Export("t", "select k from t", "k"))
    assert run(one, ports(HandClock())).ok
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"insert into t values ('{keys[1]}'), (null)")
    assert run(one, ports(HandClock())).more[0].count == 1
    assert [r["k"] for r in rows(tmp_path / "s1", "t")] == keys


def test_a_key_that_changes_its_type_or_its_name_asks_for_a_new_name(
    dsn: str, tmp_path: Path
) -> None:
    assert run(only(dsn, tmp_path), ports(HandClock())).ok
    for changed in (
        replace(CHAT, query="select id::text, body from messages"),
        replace(CHAT, key="body"),
    ):
        report = run(only(dsn, tmp_path, export=changed), ports(HandClock()))
        assert "new name, and it begins anew" in report.more[0].detail


def test_an_encrypted_part_is_read_with_its_identity_and_not_without(
    dsn: str, tmp_path: Path
) -> None:
    key = pyrage.x25519.Identity.generate()
    one = only(dsn, tmp_path, encrypt=Encryption(str(key.to_public())))
    assert run(one, ports(HandClock())).ok
    assert [r["id"] for r in rows(tmp_path / "s1", identity=str(key))] == [1, 2]
    (part,) = held(tmp_path / "s1").values()
    path = tmp_path / "s1/exports/main/chat" / part.part.file
    assert b"one" not in path.read_bytes()
    for wrong in ("", str(pyrage.x25519.Identity.generate())):
        with pytest.raises(WrongKey), parts.opened(path, wrong) as file:
            file.read()


def test_a_new_store_is_given_all_parts_and_damage_is_mended_from_the_other(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = only(dsn, tmp_path)
    for body in ("x", "y"):
        assert run(one, ports(clock)).ok
        add(dsn, body)
    two = only(dsn, tmp_path, "s1", "s2")
    assert run(two, ports(clock)).ok
    assert rows(tmp_path / "s2") == rows(tmp_path / "s1")
    part = held(tmp_path / "s1")[2].part
    (tmp_path / "s1/exports/main/chat" / part.file).write_bytes(b"short")
    assert run(two, ports(clock)).ok
    assert [r["id"] for r in rows(tmp_path / "s1")] == [1, 2, 3, 4]


def test_damage_that_nothing_mends_is_told_and_the_next_rows_are_exported_all_the_same(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = only(dsn, tmp_path)
    assert run(one, ports(clock)).ok
    part = held(tmp_path / "s1")[1].part
    (tmp_path / "s1/exports/main/chat" / part.file).unlink()
    add(dsn, "three")
    report = run(one, ports(clock))
    assert "part 1 to file:" in report.more[0].detail
    assert held(tmp_path / "s1")[2].part.first == "3"


def test_no_part_ever_goes_unless_that_is_said_and_the_newest_never(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    for night in range(5):
        clock.jump = (-1) ** night * 400 * 86400.0
        assert run(only(dsn, tmp_path), ports(clock)).ok
        add(dsn, f"night {night}")
    assert sorted(held(tmp_path / "s1")) == [1, 2, 3, 4, 5]
    assert run(only(dsn, tmp_path, export=replace(CHAT, keep=2)), ports(clock)).ok
    assert sorted(held(tmp_path / "s1")) == [5, 6]
    assert run(only(dsn, tmp_path, export=replace(CHAT, keep=1)), ports(clock)).ok
    assert (
        run(only(dsn, tmp_path, export=replace(CHAT, keep=1)), ports(clock)).more[0].said
        == "nothing new"
    )
    add(dsn, "last")
    assert run(only(dsn, tmp_path, "s1", "s2"), ports(clock)).ok
    assert sorted(held(tmp_path / "s2")) == [6, 7]
