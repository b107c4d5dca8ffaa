"""The whole run, and everything that may go wrong in it; then the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pyrage
import pytest

from jobs.backup.catalogue import pick, read
from jobs.backup.errors import (
    Busy,
    Corrupt,
    CredentialExpired,
    NotEmpty,
    StoreFullError,
    StoreUnreachable,
    WrongKey,
)
from jobs.backup.form import MANIFEST, Access, Copy, Encryption, Keep
from jobs.backup.locks import alone
from jobs.backup.restore import Into, local, restore
from jobs.backup.run import Ports, run
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
from jobs.backup.verify import accept, rehash, survey
from orchestrator.edge.clock import SeededRandom
from tests.backup.conftest import Postgres
from tests.backup.plans import DAY_S, HandClock, clients, plan

ROWS = "create table a(i int primary key, t text); insert into a select g, md5(g::text) from generate_series(1, 500) g"


class Crash(BaseException):
    """As if the machine had lost its power just here."""


class Faulty:
    """A real store with faults: `fault(operation, name)` may raise before each operation."""

    def __init__(self, inner, fault) -> None:
        self._inner, self._fault, self.url = inner, fault, inner.url

    def __getattr__(self, name):
        real = getattr(self._inner, name)

        def call(*args, **more):
            words = [str(arg) for arg in args]
            if name == "close":
                return real()
            self._fault(name, " ".join(words))
            result = real(*args, **more)
            self._fault(f"{name} done", " ".join(words))
            return result

        return call


@pytest.fixture
def dsn(pg16: Postgres) -> str:
    return pg16.new(ROWS)


def ports(clock: HandClock, fault=None, at: str = "", tell=None) -> Ports:
    def take(target, access, private):
        store = open_store(target, access, private)
        return Faulty(store, fault) if fault and at in target.url else store

    given = {"tell": tell} if tell else {}
    return Ports(clock, SeededRandom(1), clock.pause, open_store=take, **given)


def store(folder: Path):
    return open_store(Target.parse(f"file:{folder}"), Access(), folder)


def dumps(folder: Path) -> list[str]:
    """Return what is visible in a store, having checked that all of it is whole."""
    found = []
    for one, finding in survey(store(folder), "main"):
        if finding.finished:
            assert finding.ok, finding
            found.append(str(one.id))
    return sorted(found)


def test_a_run_dumps_copies_checks_and_leaves_nothing_behind(dsn: str, tmp_path: Path) -> None:
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", tmp_path / "s2")
    report = run(one, ports(clock))
    assert report.ok, report
    assert report.dump is not None
    assert dumps(tmp_path / "s1") == dumps(tmp_path / "s2") == [report.dump.id]
    assert json.loads(json.dumps(report.to_json()))["dump"]["archive"] == "archive.dump.zst"
    assert [r.ok for r in report.copies] == [True, True]
    assert not list((tmp_path / "spool").rglob("archive*"))
    assert not list((tmp_path / "s1" / "locks").rglob("*.json"))


def test_nights_are_numbered_and_expire_by_their_rules_whatever_the_clock_says(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", keep=Keep(daily=4, weekly=0, monthly=0))
    for night in range(8):
        clock.jump = {3: 400 * DAY_S, 5: -400 * DAY_S}.get(night, 0.0)
        report = run(one, ports(clock))
        assert report.ok
        clock.at += DAY_S
    assert [int(d.split("-")[1]) for d in dumps(tmp_path / "s1")] == [5, 6, 7, 8]


def test_numbers_go_on_from_the_stores_when_the_spool_is_lost(dsn: str, tmp_path: Path) -> None:
    clock = HandClock()
    for spool in ("a", "b"):
        clock.at -= 30 * DAY_S  # and the new machine's clock is slow
        report = run(plan(dsn, tmp_path / spool, tmp_path / "s1"), ports(clock))
    assert report.dump is not None
    assert report.dump.sequence == 2


def test_without_any_store_to_read_a_new_machine_makes_no_number_up(
    dsn: str, tmp_path: Path
) -> None:
    def down(operation: str, name: str) -> None:
        raise StoreUnreachable("no answer")

    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    assert "number is not known" in run(one, ports(clock, down)).failure
    assert run(one, ports(clock)).ok
    later = run(one, ports(clock, down))  # it knows its own
    assert later.dump is not None
    assert later.dump.sequence == 2


def test_a_crash_between_any_two_steps_leaves_only_whole_dumps_and_the_next_run_heals(
    dsn: str, tmp_path: Path
) -> None:
    clock, steps, crashes = HandClock(), 0, 0
    while True:
        left = steps

        def fault(operation: str, name: str) -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1

        stores = tmp_path / f"{steps}-s1", tmp_path / f"{steps}-s2"
        one = plan(dsn, tmp_path / f"{steps}-spool", *stores)
        try:
            run(one, ports(clock, fault, tell=lambda step, done, total: fault(step, "")))
        except Crash:
            crashes += 1
        else:
            break
        for folder in stores:
            assert len(dumps(folder)) <= 1
        finished = len(dumps(stores[0])) == 1 and not (Path(one.spool) / "journal.json").exists()
        report = run(one, ports(clock))
        assert report.ok, (steps, report)
        # The begun one is finished, and no other is made.
        assert len(dumps(stores[0])) == 1 + finished, steps
        assert dumps(stores[0]) == dumps(stores[1])
        assert not list((tmp_path / f"{steps}-spool").rglob("archive*"))
        steps += 1
    assert crashes > 40


def test_one_store_down_for_days_costs_the_other_nothing_and_catches_up(
    dsn: str, tmp_path: Path
) -> None:
    def down(operation: str, name: str) -> None:
        raise StoreUnreachable("no answer")

    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", tmp_path / "s2")
    for _ in range(5):
        report = run(one, ports(clock, down, at="s2"))
        assert not report.ok
        assert next((r.ok, r.attempts) for r in report.copies if "s1" in r.store) == (True, 1)
        assert {r.attempts for r in report.copies if "s2" in r.store} == {3}
        clock.at += DAY_S
    assert len(dumps(tmp_path / "s1")) == 5
    assert len(report.pending) == 3  # the rest would fill the disk, and is safe in the other
    report = run(one, ports(clock))
    assert report.ok, report
    assert len(dumps(tmp_path / "s2")) == 4
    assert not report.pending


def test_a_passing_failure_is_retried_with_growing_waits(dsn: str, tmp_path: Path) -> None:
    left = 2

    def fault(operation: str, name: str) -> None:
        nonlocal left
        if operation == "put" and "archive" in name and left:
            left -= 1
            raise StoreUnreachable("cut", retry_after_s=40.0 * left)

    clock = HandClock()
    report = run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(clock, fault))
    assert report.ok
    assert report.copies[0].attempts == 3
    assert clock.paused[0] == 40.0  # what the store asked for
    assert 5.0 <= clock.paused[1] <= 10.0


@pytest.mark.parametrize("error", [CredentialExpired("invalid_grant"), StoreFullError("full")])
def test_what_a_wait_cannot_help_is_said_at_once(dsn: str, tmp_path: Path, error) -> None:
    def fault(operation: str, name: str) -> None:
        if operation == "put" and "main-" in name:
            raise error

    clock = HandClock()
    report = run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(clock, fault))
    assert not report.ok
    assert (report.copies[0].attempts, report.copies[0].detail) == (1, str(error))
    assert not clock.paused
    assert report.pending == [report.dump.id]


def test_a_surprise_in_one_stores_library_does_not_cost_the_other(dsn: str, tmp_path: Path) -> None:
    def fault(operation: str, name: str) -> None:
        if operation == "put" and "archive" in name:
            raise ZeroDivisionError("cnry secret")

    report = run(plan(dsn, tmp_path / "spool", tmp_path / "s1", tmp_path / "s2"), ports(HandClock(), fault, at="s1"))  # fmt: skip
    assert sorted((r.ok, r.detail) for r in report.copies) == [
        (False, "ZeroDivisionError (not foreseen)"),
        (True, ""),
    ]


@pytest.mark.parametrize("operation", ["list", "read", "check", "room"])
def test_a_surprise_while_a_store_is_looked_at_costs_no_dump_and_no_other_store(
    pg16: Postgres, tmp_path: Path, operation: str
) -> None:
    def fault(op: str, _: str) -> None:
        if op == operation:
            raise TypeError("canary of a library")

    clock = HandClock()
    one = plan(pg16.new(ROWS), tmp_path / "spool", tmp_path / "s1", tmp_path / "s2")
    report = run(one, ports(clock, fault, "s2"))
    assert report.dump
    assert dumps(tmp_path / "s1")
    assert "canary" not in json.dumps(report.to_json())


def test_a_store_that_answers_well_with_the_wrong_bytes_gets_no_manifest(
    dsn: str, tmp_path: Path
) -> None:
    def fault(operation: str, name: str) -> None:
        if operation == "put done" and "archive" in name:
            path = next((tmp_path / "s1").rglob("archive.dump.zst"))
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    report = run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(HandClock(), fault))
    assert not report.ok
    assert "sha256" in report.copies[0].detail
    assert report.copies[0].attempts == 3
    assert dumps(tmp_path / "s1") == []
    assert run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(HandClock())).ok


def test_a_full_store_gives_up_old_dumps_for_a_new_one_and_keeps_three(
    dsn: str, tmp_path: Path
) -> None:
    clock, full = HandClock(), False
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", keep=Keep(daily=30))

    def fault(operation: str, name: str) -> None:
        if full and operation == "put" and "archive" in name and len(dumps(tmp_path / "s1")) > 3:
            raise StoreFullError("full")

    for night in range(6):
        full = night == 5
        report = run(one, ports(clock, fault))
        clock.at += DAY_S
        if not full:
            assert report.ok
    # One dump's room was made and it was still full: said aloud, and nothing more is taken.
    assert not report.copies[0].ok
    assert len(dumps(tmp_path / "s1")) == 4
    report = run(one, ports(clock, fault))
    assert report.ok, report
    assert (
        len(dumps(tmp_path / "s1")) == 4
    )  # the last before, the one that waited, tonight's, and one more


def test_two_at_once_on_one_machine_are_one(dsn: str, tmp_path: Path) -> None:
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    with alone(tmp_path / "spool"), pytest.raises(Busy):
        run(one, ports(HandClock()))


def test_two_machines_at_once_never_both_write(dsn: str, tmp_path: Path) -> None:
    clock = HandClock()
    other = plan(dsn, tmp_path / "other", tmp_path / "s1")
    met: list[str] = []

    def tell(step: str, done: int, total: int) -> None:
        if step == "reread" and not met:
            met.append("")
            with pytest.raises(Busy, match="another machine is writing"):
                run(other, ports(clock))

    report = run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(clock, tell=tell))
    assert met
    assert report.ok
    assert run(other, ports(clock)).ok
    assert len(dumps(tmp_path / "s1")) == 2


def test_a_ticket_that_a_crash_left_on_another_machine_does_not_block_for_ever(
    dsn: str, tmp_path: Path
) -> None:
    import os

    left = tmp_path / "s1" / "locks" / "main" / ("ab" * 8 + ".json")
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    with pytest.raises(Busy):
        run(one, ports(HandClock()))
    past = left.stat().st_mtime - 9 * 3600
    os.utime(left, (past, past))
    assert run(one, ports(HandClock())).ok
    assert not left.exists()


def test_damage_in_a_store_is_found_said_and_never_counted(dsn: str, tmp_path: Path) -> None:
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", keep=Keep(daily=1, weekly=0, monthly=0))
    for _ in range(3):
        assert run(one, ports(clock)).ok
        clock.at += DAY_S
    first, second, third = sorted((tmp_path / "s1").glob("main-*"))
    data = bytearray((second / "archive.dump.zst").read_bytes())
    data[7] ^= 1
    (second / "archive.dump.zst").write_bytes(data)
    (third / "archive.dump.zst").unlink()
    (first / "stranger").write_text("x")
    report = run(one, ports(clock))
    assert not report.ok
    said = {f.dump: f.detail for f in report.checks}
    assert "sha256" in said[second.name]
    assert "missing" in said[third.name]
    assert "none of ours" in said[first.name]
    assert first.exists()  # only two good ones: nothing goes
    found = read(store(tmp_path / "s1"), "main")
    assert rehash(store(tmp_path / "s1"), pick(found, second.name), tmp_path).ok is False
    assert rehash(store(tmp_path / "s1"), pick(found), tmp_path).ok


def test_an_upload_that_nobody_finished_is_cleared_when_it_is_old_and_never_restored(
    dsn: str, tmp_path: Path
) -> None:
    import os

    half = tmp_path / "s1" / "main-000001-20270101T000000Z" / "archive.dump.zst"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    report = run(one, ports(clock))
    assert report.ok
    assert report.dump.sequence == 2
    assert half.exists()
    past = half.stat().st_mtime - 4 * DAY_S
    os.utime(half, (past, past))
    assert run(one, ports(clock)).expired[0]["why"] == "its upload was never finished"
    assert not half.exists()


def test_a_suspicious_dump_is_copied_but_not_counted_until_it_is_accepted(
    pg16: Postgres, dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    good = run(one, ports(clock)).dump
    report = run(replace(one, dsn=pg16.new()), ports(clock))
    assert report.dump.suspicious
    here = store(tmp_path / "s1")
    found = read(here, "main")
    assert pick(found).manifest == good
    accept(here, pick(found, report.dump.id), tmp_path, clock.wall())
    assert pick(read(here, "main")).manifest == report.dump
    assert not [f for _, f in survey(here, "main") if not f.ok or f.detail]


def test_a_store_whose_writer_may_not_delete_is_left_to_expire_by_another_credential(
    dsn: str, tmp_path: Path
) -> None:
    def fault(operation: str, name: str) -> None:
        assert operation != "delete"

    target = Target.parse(f"file:{tmp_path / 's1'}")
    writer = Copy(target, Access(can_delete=False))
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", keep=Keep(daily=1, weekly=0, monthly=0), copies=(writer,))
    for _ in range(5):
        assert run(one, ports(clock, fault)).ok
        clock.at += DAY_S
    assert len(dumps(tmp_path / "s1")) == 5
    assert not (tmp_path / "s1" / "locks").exists()
    both = replace(one, copies=(replace(writer, expire=Access()),))
    assert run(both, ports(clock)).ok
    assert len(dumps(tmp_path / "s1")) == 3


def test_a_database_that_cannot_be_dumped_is_said_and_what_waits_is_still_copied(
    pg16: Postgres, dsn: str, tmp_path: Path
) -> None:
    def down(operation: str, name: str) -> None:
        raise StoreUnreachable("no answer")

    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1")
    assert run(one, ports(clock)).ok
    assert not run(one, ports(clock, down)).ok
    broken = clients(tmp_path / "bin", 16, pg_dump="exit 3")
    report = run(replace(one, pg_bin=broken), ports(clock))
    assert "status 3" in report.failure
    assert report.dump is None
    assert clock.paused[-1] == 5.0  # it was tried twice
    assert len(dumps(tmp_path / "s1")) == 2


# ── back ────────────────────────────────────────────────────────────────────────────────────────


def rows(dsn: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select * from a order by i").fetchall()


@pytest.fixture
def kept(dsn: str, tmp_path: Path) -> Iterator[Path]:
    assert run(plan(dsn, tmp_path / "spool", tmp_path / "s1"), ports(HandClock())).ok
    yield tmp_path / "s1"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_dump_is_restored_from_a_store_alone(
    pg16: Postgres, dsn: str, kept: Path, tmp_path: Path, jobs: int
) -> None:
    target = pg16.new()
    made = restore(store(kept), "main", "", Into(target, jobs=jobs), tmp_path / "elsewhere")
    assert made.sequence == 1
    assert rows(target) == rows(dsn)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_dump_of_an_older_server_is_restored_into_a_newer_one(
    pg18: Postgres, dsn: str, kept: Path, tmp_path: Path
) -> None:
    target = pg18.new()
    restore(store(kept), "main", "1", Into(target), tmp_path)
    assert rows(target) == rows(dsn)


def test_a_database_that_holds_something_is_refused_unless_its_name_is_said(
    pg16: Postgres, kept: Path, tmp_path: Path
) -> None:
    target = pg16.new("create table precious(i int)")
    name = target.rpartition("/")[2]
    for force in ("", "yes"):
        with pytest.raises(NotEmpty, match=f"--force {name}"):
            restore(store(kept), "main", "", Into(target, force=force), tmp_path)
    restore(store(kept), "main", "", Into(target, force=name), tmp_path)
    assert len(rows(target)) == 500


def test_a_restore_that_fails_changes_nothing(pg16: Postgres, kept: Path, tmp_path: Path) -> None:
    from jobs.backup.errors import SourceFailed

    target = pg16.new("create table a(other text)")
    name = target.rpartition("/")[2]
    with pytest.raises(SourceFailed, match="already exists") as told:
        restore(store(kept), "main", "", Into(target, force=name), tmp_path)
    assert "cnry" not in str(told.value)
    with psycopg.connect(target) as connection:
        assert connection.execute("select count(*) from a").fetchone() == (0,)


def test_a_damaged_copy_is_refused_before_the_database_is_touched_and_the_other_serves(
    pg16: Postgres, dsn: str, tmp_path: Path
) -> None:
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", tmp_path / "s2")
    assert run(one, ports(HandClock())).ok
    path = next((tmp_path / "s1").rglob("archive.dump.zst"))
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    target = pg16.new()
    with pytest.raises(Corrupt):
        restore(store(tmp_path / "s1"), "main", "", Into(target), tmp_path)
    restore(store(tmp_path / "s2"), "main", "", Into(target), tmp_path)
    assert rows(target) == rows(dsn)


def test_an_encrypted_dump_needs_its_key_and_says_which(
    pg16: Postgres, dsn: str, tmp_path: Path
) -> None:
    key, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    sealed = Encryption(str(key.to_public()))
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", encrypt=sealed)
    made = run(one, ports(HandClock())).dump
    here, target = store(tmp_path / "s1"), pg16.new()
    for identity in ("", "nonsense", str(other)):
        with pytest.raises(WrongKey, match=made.encrypted.fingerprint) as told:
            restore(here, "main", "", Into(target, identity), tmp_path)
        assert not identity or identity not in str(told.value)
    restore(here, "main", "", Into(target, str(key)), tmp_path)
    assert rows(target) == rows(dsn)


def test_without_a_manifest_there_is_no_dump(kept: Path, tmp_path: Path) -> None:
    from jobs.backup.errors import BackupError, NotComplete

    folder = next(kept.glob("main-*"))
    (folder / MANIFEST).unlink()
    with pytest.raises(NotComplete), local(folder, "", tmp_path):
        pass
    with pytest.raises(BackupError, match="no good dump"):
        pick(read(store(kept), "main"))


def test_what_cannot_be_checked_tonight_neither_counts_nor_expires(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    one = plan(dsn, tmp_path / "spool", tmp_path / "s1", keep=Keep(daily=1, weekly=0, monthly=0))

    def mute(operation: str, name: str) -> None:
        if operation == "check" and "main-000001" in name:
            raise StoreUnreachable("no answer")

    for night in range(5):
        report = run(one, ports(clock, mute if night else None))
        clock.at += DAY_S
    said = {f.dump.split("-")[1]: (f.ok, f.checked) for f in report.checks}
    assert said["000001"] == (False, False)
    assert [d.split("-")[1] for d in dumps(tmp_path / "s1")] == [
        "000001",
        "000003",
        "000004",
        "000005",
    ]
    run(one, ports(clock))
    assert len(dumps(tmp_path / "s1")) == 3


def test_a_crash_while_dumps_expire_leaves_none_that_is_half_there(
    dsn: str, tmp_path: Path
) -> None:
    clock = HandClock()
    daily = plan(dsn, tmp_path / "spool", tmp_path / "s1", keep=Keep(daily=9))
    for _ in range(6):
        assert run(daily, ports(clock)).ok
        clock.at += DAY_S
    one, crashes = replace(daily, keep=Keep(daily=1, weekly=0, monthly=0)), 0

    def fault(operation: str, name: str) -> None:
        nonlocal crashes
        if operation == "delete done" and "main-" in name:
            crashes += 1
            raise Crash

    for _ in range(3):
        with pytest.raises(Crash):
            run(one, ports(clock, fault))
        assert len(dumps(tmp_path / "s1")) >= 3
        clock.at += DAY_S
    assert crashes == 3
    assert run(one, ports(clock)).ok
    assert len(dumps(tmp_path / "s1")) == 3
