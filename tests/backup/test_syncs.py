"""Syncs: what is in a folder or remote is in the other places, verified, and stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.backup import snapshots
from jobs.backup.errors import NotEmpty, NotFound
from jobs.backup.fetching import fetch
from jobs.backup.form import Access, Copy, Limits, Plan, Sync
from jobs.backup.run import Ports, run
from jobs.backup.snapshots import FOLDER, Snapshot, within
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom
from tests.backup import worlds
from tests.backup.plans import DAY_S, HandClock
from tests.backup.worlds import rclone

TREE = {
    "a.txt": b"one",
    "sub/b.bin": os.urandom(70_000),
    "sub/deep/c": b"",
    "d": b"four",
    "e": b"five",
}


def ports(clock: HandClock) -> Ports:
    return Ports(clock, SeededRandom(1), clock.pause)


def fill(base: Path, tree: dict[str, bytes]) -> None:
    for name, data in tree.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files(base: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(base)): path.read_bytes()
        for path in sorted(base.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def sync_plan(tmp: Path, source: Copy | Path, *to: Copy | Path, **more) -> Plan:
    def copy(one: Copy | Path) -> Copy:
        return (
            Copy(Target.parse(f"file:{one}"), Access(rclone=rclone()))
            if isinstance(one, Path)
            else one
        )

    one = Sync("logs", copy(source), tuple(copy(each) for each in to), **more)
    (tmp / "spool").mkdir(exist_ok=True)
    return Plan("files", "", (), str(tmp / "spool"), syncs=(one,), limits=Limits(min_free_bytes=1))


def last(copy: Copy, tmp: Path) -> Snapshot:
    inner = within(copy, FOLDER)
    (tmp / "look").mkdir(exist_ok=True)
    store = open_store(inner.target, inner.access, tmp / "look")
    try:
        return snapshots.read(store, snapshots.listed(store)[0])
    finally:
        store.close()


def done(plan: Plan, clock: HandClock | None = None):
    report = run(plan, ports(clock or HandClock()))
    return report.more[0]


def test_a_folder_is_copied_and_only_what_changes_is_copied_again(tmp_path: Path) -> None:
    clock = HandClock()
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    first = done(plan, clock)
    assert (first.detail, first.count) == ("", 5)
    assert files(dst / "current") == TREE
    clock.at += DAY_S
    assert done(plan, clock).said == "nothing new"
    (src / "d").write_bytes(b"FOUR")
    (src / "e").unlink()
    second = done(plan, clock)
    assert (second.detail, second.said) == ("", "1 files copied, 1 gone")
    assert files(dst / "current") == {**{k: v for k, v in TREE.items() if k != "e"}, "d": b"FOUR"}
    (version,) = (dst / "versions").iterdir()
    assert files(version) == {"d": b"four", "e": b"five"}


# ── every kind of place, there and back ─────────────────────────────────────────────────────────


@contextmanager
def place(kind: str, tmp: Path) -> Iterator[tuple[Copy, Callable[..., None]]]:
    """A real place of that kind, and how to lay files into it behind everybody's back."""
    tmp.mkdir(exist_ok=True)
    maker = {
        "file": worlds.file_world,
        "drive": worlds.drive_world,
        "sftp": worlds.sftp_world,
        "s3": worlds.s3_world,
        "crypt": worlds.crypt_world,
        "gcs": worlds.gcs_world,
        "bucket": worlds.bucket_world,
        "hub": worlds.hub_world,
    }[kind]
    for world in maker(tmp):
        world.private.mkdir(exist_ok=True)
        access = replace(world.access, rclone=rclone())
        yield Copy(world.target, access), world.flip


def fetched(plan: Plan, to: Path, clock: HandClock | None = None, when=None, **more):
    (one,) = plan.syncs
    return fetch(plan, one, one.to[0], to, ports(clock or HandClock()), when=when, **more)


@pytest.mark.parametrize("kind", ["file", "drive", "sftp", "s3", "crypt", "gcs", "bucket", "hub"])
def test_a_folder_goes_to_every_kind_of_place_and_comes_back_as_it_was_on_any_day(
    tmp_path: Path, kind: str
) -> None:
    src, clock = tmp_path / "src", HandClock()
    fill(src, TREE)
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        first = done(plan, clock)
        assert (first.detail, first.count) == ("", 5)
        days = [datetime.fromtimestamp(clock.wall(), UTC)]
        states = [dict(TREE)]
        for change in ({"d": b"FOUR"}, {"d": b"four again", "new": b"n"}, {"a.txt": b""}):
            clock.at += DAY_S
            fill(src, change)
            (src / "e").unlink(missing_ok=True)
            assert done(plan, clock).detail == ""
            days.append(datetime.fromtimestamp(clock.wall(), UTC))
            states.append(files(src))
        assert done(plan, clock).said == "nothing new"
        for number, (day, state) in enumerate(zip(days, states, strict=True)):
            to = tmp_path / f"back{number}"
            back = fetched(plan, to, clock, when=day)
            assert not back.bad
            assert files(to) == state
        with pytest.raises(NotFound, match="nothing so old"):
            fetched(plan, tmp_path / "old", clock, when=days[0] - timedelta(days=1))
        with pytest.raises(NotEmpty):
            fetched(plan, tmp_path / "back0", clock)
        elsewhere = replace(plan, spool=str(tmp_path / "elsewhere"))
        Path(elsewhere.spool).mkdir()
        assert not fetched(elsewhere, tmp_path / "back", clock).bad
        assert files(tmp_path / "back") == states[-1]
