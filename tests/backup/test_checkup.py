"""What `aion doctor` learns by trying the places of a backup, each a real store or a strict one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.backup.checkup import TRIAL, login_at, look
from jobs.backup.form import Access, Copy
from jobs.backup.run import Ports, run
from jobs.backup.status import Sample, Status
from jobs.backup.stores import open_store
from jobs.backup.stores.base import Room
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom
from tests.backup import worlds
from tests.backup.conftest import Postgres
from tests.backup.plans import DAY_S, HandClock, plan

NOW = 1_800_000_000.0


@pytest.fixture(params=["file", "drive", "s3", "bucket", "hub"])
def world(request, tmp_path):
    made = getattr(worlds, f"{request.param}_world")(tmp_path)
    yield next(made)
    next(made, None)


@pytest.fixture
def bucket(tmp_path):
    made = worlds.bucket_world(tmp_path)
    yield next(made)
    next(made, None)


def ports(**given) -> Ports:
    clock = HandClock(NOW)
    return Ports(clock, SeededRandom(1), clock.pause, **given)


def tried(world: worlds.World, tmp_path: Path, **more) -> list[dict]:
    copy = Copy(world.target, world.access, **more)
    return look(plan("", tmp_path / "spool", copies=(copy,)), ports())


def outcomes(found: list[dict]) -> list[str]:
    return [one["outcome"] for one in found]


def test_each_kind_of_store_is_written_to_read_compared_and_left_as_it_was(world, tmp_path) -> None:
    found = tried(world, tmp_path)
    assert set(outcomes(found)) == {"passed"}, found
    assert "written, read and compared, deleted" in found[0]["text"]
    assert found[0]["subject"] == world.target.url
    assert [one.name for one in world.open().list() if one.name.startswith(TRIAL)] == []
    assert worlds.SECRET not in json.dumps(found)


def test_the_database_and_the_programs_for_it_are_looked_at(pg16: Postgres, tmp_path: Path) -> None:
    one = plan(pg16.new("create table a(i int)"), tmp_path / "spool", tmp_path / "s1")
    found = look(one, ports())
    assert outcomes(found)[0] == "passed"
    assert "PostgreSQL 16" in found[0]["text"]
    wrong = look(replace(one, dsn=pg16.dsn(password="cnry-nope")), ports())[0]
    assert (wrong["outcome"], wrong["subject"]) == ("failed", "database")
    assert "password authentication failed" in wrong["text"]
    assert "cnry-nope" not in json.dumps(wrong)
    (tmp_path / "empty").mkdir()
    missing = look(replace(one, pg_bin=str(tmp_path / "empty")), ports())[0]
    assert (missing["outcome"], "no pg_dump" in missing["text"]) == ("failed", True)


def test_a_credential_that_may_not_write_fails_and_the_other_places_are_looked_at(
    bucket, tmp_path
) -> None:
    bucket.server.refuse = (403, "does not have storage.objects.create access")
    copies = (Copy(bucket.target, bucket.access), Copy(Target.parse(f"file:{tmp_path}/s1")))
    found = look(plan("", tmp_path / "spool", copies=copies), ports())
    assert (found[0]["outcome"], found[1]["outcome"]) == ("failed", "passed")
    assert "right to write" in found[0]["remedy"]


def test_a_login_that_expired_says_to_log_in_again(bucket, tmp_path) -> None:
    bucket.server.grant = json.dumps({"error": "invalid_grant", "error_description": "expired"})
    (found,) = tried(bucket, tmp_path)
    assert (found["outcome"], "log in again" in found["remedy"]) == ("failed", True)


def test_a_credential_not_meant_to_delete_is_held_to_it(bucket, tmp_path) -> None:
    bucket.access = replace(bucket.access, can_delete=False)
    found = tried(bucket, tmp_path)[0]
    assert (found["outcome"], "not meant to delete, and can" in found["text"]) == ("advice", True)
    bucket.server.no_delete = True
    for _ in range(3):
        found = tried(bucket, tmp_path)[0]
        assert (found["outcome"], "may not delete, as it is meant" in found["text"]) == ("passed", True)  # fmt: skip
    left = [one for one in bucket.server.objects if TRIAL in one]
    assert len(left) == 1, "one of a day stays, and not one of each look"


def test_what_cannot_be_deleted_by_the_writer_is_by_the_credential_that_expires(
    bucket, tmp_path
) -> None:
    bucket.server.no_delete = True
    deleter = Copy(bucket.target, replace(bucket.access, can_delete=False), bucket.access)
    calls: list[str] = []

    def take(target, access, private):
        bucket.server.no_delete = access != bucket.access
        calls.append("deleter" if access == bucket.access else "writer")
        return open_store(target, access, private)

    found = look(plan("", tmp_path / "spool", copies=(deleter,)), ports(open_store=take))
    # The writer's own attempt comes while it may not.
    assert calls == ["writer", "deleter"]
    assert (found[0]["outcome"], "by the credential that expires" in found[0]["text"]) == ("passed", True)  # fmt: skip
    assert [one for one in bucket.server.objects if TRIAL in one] == []


def test_a_store_that_gives_back_other_bytes_is_told_of(tmp_path) -> None:
    class Rotten:
        def __init__(self, inner) -> None:
            self._inner, self.url = inner, inner.url

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def read(self, name, most):
            return b"?" + self._inner.read(name, most)[1:]

    found = look(
        plan("", tmp_path / "spool", tmp_path / "s1"),
        ports(open_store=lambda *given: Rotten(open_store(*given))),
    )
    assert (found[0]["outcome"], "reads otherwise" in found[0]["text"]) == ("failed", True)


@pytest.mark.parametrize(
    ("free", "outcome", "said"),
    [(150, "failed", "a dump takes 100 B"), (90_000, "passed", "90 kB free; at the rate of late")],
)
def test_room_is_weighed_against_a_dump_and_the_rate_of_late(tmp_path, free, outcome, said) -> None:
    class Full:
        def __init__(self, inner) -> None:
            self._inner, self.url = inner, inner.url

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def room(self):
            return Room(None, None, free)

    one = plan("", tmp_path / "spool", tmp_path / "s1")
    url = one.copies[0].target.url
    samples = (Sample(url, NOW - 5 * DAY_S, 100_000), Sample(url, NOW, 90_000))
    Status(size=100, samples=samples).save(Path(one.spool))
    found = look(one, ports(open_store=lambda *given: Full(open_store(*given))))
    assert (found[1]["outcome"], said in found[1]["text"]) == (outcome, True), found
    assert free < 1000 or "full in 45 days" in found[1]["text"]


def drive(token: object, **more: str) -> Copy:
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    text = f"[gdrive]\ntype = drive\ntoken = {json.dumps(token)}\n{lines}\n[safe]\ntype = crypt\nremote = gdrive:aion\n"
    return Copy(Target.parse("rclone:safe:x"), Access(rclone_config=text))


def test_the_age_of_a_login_to_drive_is_read_through_what_wraps_it() -> None:
    # As rclone writes it: with nanoseconds, of the hour in which an access token ends.
    assert login_at(drive({"expiry": "2027-01-15T09:00:00.123456789+01:00"})) == pytest.approx(
        1_800_000_000.0 - 3600 + 0.123456, abs=1e-3
    )
    assert login_at(drive({"expiry": "never"})) is None
    assert login_at(drive("not an object")) is None
    assert login_at(Copy(Target.parse("rclone:nobody:x"), Access(rclone_config="[a]\n"))) is None
    assert (
        login_at(Copy(Target.parse("rclone:a:x"), Access(rclone_config="no ini at all ["))) is None
    )
    loop = Access(rclone_config="[a]\ntype = alias\nremote = b:\n[b]\ntype = alias\nremote = a:\n")
    assert login_at(Copy(Target.parse("rclone:a:x"), loop)) is None


def test_a_fresh_login_to_drive_is_advised_of_and_an_old_one_is_not(tmp_path) -> None:
    world = next(worlds.drive_world(tmp_path))
    text = world.access.rclone_config.replace(
        "[gdrive]\ntype = hasher",
        '[x]\ntype = drive\ntoken = {"expiry":"2027-01-13T09:00:00Z"}\n\n[gdrive]\ntype = hasher',
    )
    world.access = replace(world.access, rclone_config=text)
    # A hasher over a folder, said to wrap a login: what is asked of the store is real.
    found = tried(world, tmp_path)
    assert "advice" not in outcomes(found)
    fresh = replace(world.access, rclone_config=text.replace("remote = disk:", "remote = x:"))
    copy = Copy(world.target, fresh)
    found = look(plan("", tmp_path / "s", copies=(copy,)), ports(open_store=lambda t, a, p: open_store(t, world.access, p)))  # fmt: skip
    assert outcomes(found)[-1] == "advice"
    assert "2.0 days old" in found[-1]["text"]
    assert "it ends on 2027-01-20" in found[-1]["remedy"]


def test_what_cannot_fit_is_not_sent_at_all(pg16: Postgres, tmp_path: Path) -> None:
    sent: list[str] = []

    class Small:
        def __init__(self, inner) -> None:
            self._inner, self.url = inner, inner.url

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def put(self, local, name, **more):
            sent.append(name)
            return self._inner.put(local, name, **more)

        def room(self):
            return Room(None, None, 10)

    one = plan(pg16.new("create table a(i int)"), tmp_path / "spool", tmp_path / "s1")
    report = run(one, ports(open_store=lambda *given: Small(open_store(*given))))
    assert "has 10 B free" in report.copies[0].detail
    assert not [name for name in sent if "archive" in name]
    assert report.pending == [report.dump.id]
