"""What a dump is, and that nothing less than a whole one ever appears."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest
import zstandard

from jobs.backup import dump, source
from jobs.backup.clients import find
from jobs.backup.errors import NoRoom, NotComplete, SourceFailed, ToolMissing, WrongKey
from jobs.backup.form import Encryption, Limits, Manifest, Selection, Timeouts
from jobs.backup.rows import RowCounter
from orchestrator.edge.clock import SystemClock
from tests.backup.conftest import BINS, Postgres
from tests.backup.plans import HandClock, clients, first, plan
from tests.backup.worlds import wait_for

ROWS = "create table a(i int primary key, t text); insert into a select g, md5(g::text) from generate_series(1, 20000) g"
HOSTILE = 'we"ird; touch x\n\\! id $(id) `id`'


def make(one, previous=None, clock=None) -> tuple[Manifest, Path]:
    clock = clock or HandClock()
    made = dump.make(one, first(clock), previous, clock=clock)
    return made, Path(one.spool) / "dumps" / made.id


def nothing_left(spool: Path) -> bool:
    return not list(spool.rglob("*.dump*")) and not list(spool.rglob("manifest*"))


def test_a_dump_is_an_archive_that_restores_sums_that_sha256sum_accepts_and_a_manifest(
    pg: Postgres, tmp_path: Path
) -> None:
    made, folder = make(plan(pg.new(ROWS), tmp_path / "spool"))
    subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True
    )
    stored = folder / "archive.dump.zst"
    assert made.size == stored.stat().st_size
    assert made.plain_sha256 == made.sha256 == hashlib.sha256(stored.read_bytes()).hexdigest()
    assert (made.packed, made.compressed) == ("zstd", "zstd:2")
    archive = tmp_path / "archive.dump"
    with stored.open("rb") as packed, archive.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    assert made.plain_size == archive.stat().st_size
    assert Manifest.load((folder / "manifest.json").read_bytes(), made.id) == made
    assert [(t.schema, t.name, t.rows) for t in made.tables] == [("public", "a", 20_000)]
    assert made.server_version.startswith(str(pg.major))
    assert {p.stat().st_mode & 0o077 for p in folder.iterdir()} == {0}
    done = subprocess.run(
        [BINS[pg.major] / "pg_restore", "-f", "/dev/null", archive],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_encrypted_dump_is_never_on_the_disk_in_the_clear_and_opens_with_its_key(
    pg16: Postgres, tmp_path: Path
) -> None:
    key = pyrage.x25519.Identity.generate()
    sealed = Encryption(str(key.to_public()))
    dsn = pg16.new("create table a(t text); insert into a values ('cnry-row-in-the-clear')")
    one = plan(dsn, tmp_path / "spool", encrypt=sealed, level=0)
    made, folder = make(one)
    stored = (folder / "archive.dump.age").read_bytes()
    assert made.encrypted is not None
    assert made.encrypted.fingerprint == dump.fingerprint(sealed.recipient)
    assert made.sha256 == hashlib.sha256(stored).hexdigest()
    assert b"cnry-row" not in stored
    plain = io.BytesIO()
    pyrage.decrypt_io(io.BytesIO(stored), plain, [key])
    assert made.plain_sha256 == hashlib.sha256(plain.getvalue()).hexdigest()
    assert b"cnry-row" in plain.getvalue()


def test_a_wrong_recipient_is_said_and_leaves_nothing(pg16: Postgres, tmp_path: Path) -> None:
    with pytest.raises(WrongKey, match="no age public key"):
        make(plan(pg16.new(), tmp_path / "spool", encrypt=Encryption("age1nonsense")))
    assert nothing_left(tmp_path)


def test_a_database_of_zero_tables_is_a_dump_too(pg: Postgres, tmp_path: Path) -> None:
    made, _ = make(plan(pg.new(), tmp_path / "spool"))
    assert made.tables == ()
    assert made.size > 0


def test_names_of_databases_and_tables_are_names_whatever_stands_in_them(
    pg: Postgres, tmp_path: Path
) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    sql = f"create schema {quoted}; create table {quoted}.{quoted}(i int); insert into {quoted}.{quoted} values (1), (2); create table plain()"
    dsn = pg.new(sql, name="d" + HOSTILE.replace("\n", " "))
    made, _ = make(plan(dsn, tmp_path / "spool"))
    assert {(t.schema, t.name, t.rows) for t in made.tables} == {
        (HOSTILE, HOSTILE, 2),
        ("public", "plain", 0),
    }
    left = plan(dsn, tmp_path / "spool2", exclude=Selection((HOSTILE,)))
    assert [t.name for t in make(left)[0].tables] == ["plain"]
    only = plan(dsn, tmp_path / "spool3", include=Selection((), (f"{HOSTILE}.{HOSTILE}",)))
    assert [t.name for t in make(only)[0].tables] == [HOSTILE]


def test_an_included_table_that_is_not_there_fails_the_dump(pg16: Postgres, tmp_path: Path) -> None:
    one = plan(pg16.new(ROWS), tmp_path / "spool", include=Selection((), ("public.gone",)))
    with pytest.raises(SourceFailed, match="no matching tables"):
        make(one)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("at", ["0", "1", "$((all / 2))", "$((all - 1))", "$all"])
def test_a_pg_dump_killed_at_any_byte_leaves_no_dump(
    pg16: Postgres, tmp_path: Path, at: str
) -> None:
    script = f'"$REAL" "$@" | cat > "$0.whole"; all=$(stat -c %s "$0.whole"); head -c {at} "$0.whole"; kill -9 $$'
    folder = clients(tmp_path / "bin", 16, pg_dump=script)
    with pytest.raises(SourceFailed, match="pg_dump was killed by signal 9"):
        make(plan(pg16.new(ROWS), tmp_path / "spool", pg_bin=folder))
    assert nothing_left(tmp_path / "spool")


@pytest.mark.parametrize("change", [
    "head -c 0", "head -c 1", "head -c 3000", "head -c $((all - 1))",
    "sed 's/PGDMP/PGDMQ/'", 'python3 -c "import sys; d = bytearray(sys.stdin.buffer.read()); d[d.index(bytes((10, 0)), len(d) // 2) + 2] ^= 8; sys.stdout.buffer.write(d)"',
])  # fmt: skip
def test_an_archive_that_cannot_be_read_to_its_end_is_no_dump_though_pg_dump_was_content(
    pg16: Postgres, tmp_path: Path, change: str
) -> None:
    script = f'"$REAL" "$@" | cat > "$0.whole"; all=$(stat -c %s "$0.whole"); {change} < "$0.whole"'
    folder = clients(tmp_path / "bin", 16, pg_dump=script)
    with pytest.raises(NotComplete, match="pg_restore"):
        make(plan(pg16.new(ROWS), tmp_path / "spool", pg_bin=folder))
    assert nothing_left(tmp_path / "spool")


def test_a_pg_dump_that_says_nothing_is_ended(pg16: Postgres, tmp_path: Path) -> None:
    folder = clients(tmp_path / "bin", 16, pg_dump='echo $$ > "$0.pid"; exec sleep 600')
    one = plan(pg16.new(), tmp_path / "spool", pg_bin=folder, timeouts=Timeouts(silence_s=0.3))
    with pytest.raises(SourceFailed, match="said nothing"):
        make(one, clock=SystemClock())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "bin" / "pg_dump.pid").read_text()), 0)


def test_a_dump_takes_no_longer_than_it_may(pg16: Postgres, tmp_path: Path) -> None:
    folder = clients(tmp_path / "bin", 16, pg_dump="while :; do echo x; done")
    keep = clients(
        tmp_path / "bin", 16, pg_dump="while :; do echo x; done", pg_restore="exec cat > /dev/null"
    )
    assert keep == folder
    one = plan(pg16.new(), tmp_path / "spool", pg_bin=folder, timeouts=Timeouts(dump_s=0.5))
    with pytest.raises(SourceFailed, match="longer than"):
        make(one, clock=SystemClock())
    assert nothing_left(tmp_path / "spool")


def test_a_server_newer_than_every_client_is_said_in_one_line(
    pg18: Postgres, tmp_path: Path
) -> None:
    folder = clients(tmp_path / "bin", 16)
    with pytest.raises(
        ToolMissing, match=r"PostgreSQL 18, .* pg_dump here is 16.*client-18"
    ) as told:
        make(plan(pg18.new(), tmp_path / "spool", pg_bin=folder))
    assert "\n" not in str(told.value)
    assert nothing_left(tmp_path)


def test_a_client_without_tls_does_not_fit_a_server_reached_by_tls() -> None:
    with pytest.raises(ToolMissing, match="without TLS"):
        find(160_000, tls=True, pg_bin=str(BINS[16]))
    assert find(160_000, tls=False, pg_bin=str(BINS[16])).major == 16


def test_a_client_of_the_servers_own_version_is_preferred_and_a_newer_one_will_do() -> None:
    assert find(160_000, tls=False).major == 16
    assert find(170_000, tls=False).major == 18


def test_a_dump_that_shrank_by_half_is_suspicious(pg16: Postgres, tmp_path: Path) -> None:
    made, _ = make(plan(pg16.new(ROWS), tmp_path / "spool"))
    assert not made.suspicious
    again, _ = make(plan(pg16.new(), tmp_path / "spool2"), previous=made)
    assert made.id in again.suspicious
    same, _ = make(plan(pg16.new(ROWS), tmp_path / "spool3"), previous=made)
    assert not same.suspicious


def test_there_must_be_room_before_anything_is_asked_of_the_server(
    pg16: Postgres, tmp_path: Path
) -> None:
    folder = clients(tmp_path / "bin", 16, pg_dump='touch "$0.ran"')
    one = plan(pg16.new(), tmp_path / "spool", pg_bin=folder, limits=Limits(min_free_bytes=1 << 60))
    with pytest.raises(NoRoom, match="MB are needed"):
        make(one)
    assert not (tmp_path / "bin" / "pg_dump.ran").exists()


@contextmanager
def small_disk(folder: Path, size: int):
    """A full disk: a tmpfs where we may mount one, else a limit of our own on files."""
    folder.mkdir()
    if (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
            check=False,
            capture_output=True,
        ).returncode
    ):
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [16_384, 200_000, 900_000])
def test_a_disk_that_fills_while_dumping_leaves_no_dump(
    pg16: Postgres, tmp_path: Path, size: int
) -> None:
    dsn = pg16.new(
        "create table a(t text); insert into a select string_agg(md5((g * 1000 + h)::text), '') from generate_series(1, 2000) g, generate_series(1, 32) h group by g"
    )
    with small_disk(tmp_path / "spool", size):
        one = plan(dsn, tmp_path / "spool", limits=Limits(min_free_bytes=0), level=1)
        previous = replace(make(plan(pg16.new(), tmp_path / "other"))[0], size=1)
        with pytest.raises(NoRoom):
            make(one, previous)
        assert nothing_left(tmp_path / "spool")


def test_no_secret_is_in_an_argument_an_environment_a_message_or_a_file_left_behind(
    pg16: Postgres, tmp_path: Path
) -> None:
    look = 'tr "\\0" "\\n" < /proc/$$/environ >> "$0.seen"; echo "$@" >> "$0.seen"; ls -l $(dirname "$PGPASSFILE") >> "$0.seen"; cp "$PGPASSFILE" "$0.pass"; '
    folder = clients(tmp_path / "bin", 16, pg_dump=look + 'exec "$REAL" "$@"')
    made, _ = make(plan(pg16.new(ROWS), tmp_path / "spool", pg_bin=folder))
    seen = (tmp_path / "bin" / "pg_dump.seen").read_text()
    assert "PGSERVICEFILE=" in seen
    assert "cnry" not in seen + made.dump().decode()
    assert "-rw------- 1" in seen
    assert "-rw-r" not in seen
    assert "cnry" in (tmp_path / "bin" / "pg_dump.pass").read_text()  # it was there to be found
    for path in (tmp_path / "spool").rglob("*"):
        assert path.is_dir() or b"cnry" not in path.read_bytes()


@pytest.mark.parametrize("dsn", [
    "postgresql://boss:cnry-p@ss:w/o@127.0.0.1:1/x", "postgresql://boss:cnry@secret:pw@nohost.invalid/x",
    "postgresql://boss:cnry-word@127.0.0.1:1/x", "host=127.0.0.1 port=1 password='cnry w\\'ord' user=x",
    "postgresql://boss:cnry%2@127.0.0.1:1/x", "password=cnry-x nonsense", "postgresql://x:cnry\nx@127.0.0.1/x",
])  # fmt: skip
def test_what_is_wrong_with_a_dsn_is_said_without_its_password(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as told:
        make(plan(dsn, tmp_path / "spool", timeouts=Timeouts(connect_s=2)))
    chain = f"{told.value!r} {told.value.__cause__!r}"
    assert "cnry" not in chain
    assert "secret" not in chain
    assert "\n" not in str(told.value)


def test_a_wrong_password_is_said_without_it(pg16: Postgres, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="password authentication failed") as told:
        make(plan(pg16.dsn(password="cnry-wrong"), tmp_path / "spool"))
    assert "cnry" not in str(told.value)


def test_a_lock_that_somebody_holds_ends_the_dump_in_time(pg16: Postgres, tmp_path: Path) -> None:
    dsn = pg16.new(ROWS)
    one = plan(dsn, tmp_path / "spool", timeouts=Timeouts(lock_s=0.1))
    with psycopg.connect(dsn) as holder:
        holder.execute("lock table a in access exclusive mode")
        with pytest.raises(SourceFailed, match="timeout"):
            make(one)
    assert nothing_left(tmp_path / "spool")


def test_a_server_that_ends_the_connection_while_it_is_dumped_leaves_no_dump(
    pg16: Postgres, tmp_path: Path
) -> None:
    dsn = pg16.new(ROWS)
    end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    script = f'"$REAL" "$@" & pid=$!; until "${{0%/*}}/psql" -Atc "{end}" service=aion | grep -q t; do :; done; wait $pid'
    folder = clients(tmp_path / "bin", 16, pg_dump=script)
    with psycopg.connect(dsn) as holder:
        holder.execute("lock table a in access exclusive mode")
        with pytest.raises(SourceFailed, match="terminating connection"):
            make(plan(dsn, tmp_path / "spool", pg_bin=folder))
    assert nothing_left(tmp_path / "spool")


def test_a_server_that_is_restarted_while_it_is_dumped_leaves_no_dump_and_the_next_one_is_whole(
    pg16: Postgres, tmp_path: Path
) -> None:
    dsn = pg16.new(ROWS)
    waits = "select true from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    script = f'"$REAL" "$@" & pid=$!; until "${{0%/*}}/psql" -Atc "{waits}" service=aion | grep -q t; do :; done; echo > "$0.waits"; wait $pid'
    folder = clients(tmp_path / "bin", 16, pg_dump=script)
    mark = tmp_path / "bin" / "pg_dump.waits"

    def restart() -> None:
        wait_for(mark.exists, "pg_dump waits for a lock")
        pg16.control("-m", "immediate", "stop")
        pg16.start()

    restarter = threading.Thread(target=restart)
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn) as holder:
        holder.execute("lock table a in access exclusive mode")
        restarter.start()
        with pytest.raises(SourceFailed, match="pg_dump"):
            make(plan(dsn, tmp_path / "spool", pg_bin=folder))
    restarter.join()
    assert nothing_left(tmp_path / "spool")
    assert make(plan(dsn, tmp_path / "spool"))[0].tables[0].rows == 20_000


@pytest.mark.parametrize("word", [
    "'; drop table a; --", "a b\tc", "\\", "\\\\:", ":", "%", "%41", "#?&=/@", '"', "$(id)`id`", "é→🙂", "=", "password=x host=y",
])  # fmt: skip
def test_a_password_is_a_password_whatever_stands_in_it(
    pg16: Postgres, tmp_path: Path, word: str
) -> None:
    name = f"r{hashlib.sha256(word.encode()).hexdigest()[:12]}"
    dsn = pg16.new("create table a(i int); insert into a values (1)")
    database = dsn.rpartition("/")[2]
    secret = word.replace("'", "''")
    pg16.run(
        f"set standard_conforming_strings = on; create role {name} superuser login password '{secret}'"
    )
    made, _ = make(plan(pg16.dsn(database, name, word), tmp_path / "spool"))
    assert made.tables[0].rows == 1
    conninfo = psycopg.conninfo.make_conninfo(pg16.dsn(database, name), password=word)
    assert make(plan(conninfo, tmp_path / "spool2"))[0].tables == made.tables
    with pytest.raises(SourceFailed, match="authentication failed"):
        make(plan(pg16.dsn(database, name, word + "x"), tmp_path / "spool3"))


@pytest.mark.parametrize(("dsn", "hint"), [
    ("postgresql://postgres.x:y@aws-0-eu.pooler.supabase.com:6543/postgres", "session pooler"),
    ("postgresql://postgres:y@db.abcdef.supabase.co:6543/postgres", "session pooler"),
    ("service=mine", "names a service"),
])  # fmt: skip
def test_addresses_that_cannot_work_are_refused_before_anything_is_asked(
    dsn: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceFailed, match=hint):
        make(plan(dsn, tmp_path / "spool"))


def test_supabases_direct_host_fails_with_a_hint() -> None:
    with (
        pytest.raises(SourceFailed, match="IPv6 only"),
        source.connect(
            "postgresql://p:y@db.abcdef.supabase.co/x", Timeouts(), hostaddr="127.0.0.1", port="1"
        ),
    ):
        pass


def test_tls_that_we_reached_the_server_by_is_asked_of_the_programs_too(tmp_path: Path) -> None:
    for mode, wanted in (("prefer", "require"), ("verify-full", "verify-full"), ("", "require")):
        dsn = "host=h user=u password=p" + (f" sslmode={mode}" if mode else "")
        with source.door(dsn, Timeouts(), tmp_path, tls=True) as env:
            assert f"sslmode={wanted}\n" in Path(env["PGSERVICEFILE"]).read_text()
        assert not Path(env["PGSERVICEFILE"]).exists()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_rows_are_counted_however_the_text_is_cut(size: int) -> None:
    text = (
        b"-- COPY x\nSET a;\nCOPY public.a (i, t) FROM stdin;\n1\tx\n2\tCOPY b FROM stdin;\n\\\\.\tx\n\\.\n\n"
        b'COPY "s""; \nCOPY ".b  FROM stdin;\n\n\n\\.\nCOPY c ("x)(", "y""") FROM stdin;\n\\.\n'
        b"SELECT 1;\n"
    )
    counter = RowCounter()
    for at in range(0, len(text), size):
        counter.feed(text[at : at + size])
    assert {(t.schema, t.name): t.rows for t in counter.result()} == {
        ("public", "a"): 3,
        ('s"; \nCOPY ', "b"): 2,
        ("", "c"): 0,
    }
