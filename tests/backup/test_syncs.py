"""Syncs: what is in a folder or remote is in the other places, verified, and stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest

from jobs.backup import snapshots
from jobs.backup.errors import BackupError, NotEmpty, NotFound, WrongKey
from jobs.backup.fetching import fetch
from jobs.backup.form import Access, Copy, Encryption, Limits, Plan, Sync
from jobs.backup.readback import reread
from jobs.backup.run import Ports, run
from jobs.backup.snapshots import FOLDER, Snapshot, within
from jobs.backup.stores import open_store
from jobs.backup.syncs import accept
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom, SystemClock
from tests.backup import worlds
from tests.backup.plans import DAY_S, HandClock
from tests.backup.test_run import Crash, Faulty
from tests.backup.worlds import rclone

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

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
        for change in ({"d": b"FOUR", "new": b"n"}, {"d": b"four again", "a.txt": b""}):
            clock.at += DAY_S
            fill(src, change)
            (src / "e").unlink(missing_ok=True)
            assert done(plan, clock).detail == ""
            days.append(datetime.fromtimestamp(clock.wall(), UTC))
            states.append(files(src))
        assert done(plan, clock).said == "nothing new"
        for number, (day, state) in enumerate(zip(days[:2], states[:2], strict=True)):
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


# ── sources that lose their files, change, or are strange ───────────────────────────────────────


def test_a_source_that_lost_most_of_its_files_changes_nothing_until_that_is_accepted(
    tmp_path: Path,
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    for name in ("a.txt", "d", "e"):
        (src / name).rename(src / f"{name}.locked")
    outcome = done(plan)
    assert "3 of 5 files are gone" in outcome.detail
    assert files(dst / "current") == TREE
    accept(plan, plan.syncs[0])
    assert done(plan).ok
    assert files(dst / "current") == files(src)
    assert sorted(files(next((dst / "versions").iterdir()))) == ["a.txt", "d", "e"]
    for path in src.rglob("*.locked"):
        path.unlink()
    assert "are gone" in done(plan).detail, "it is accepted once, not for ever"


@pytest.mark.parametrize("kind", ["file", "bucket"])
def test_a_source_that_is_empty_or_not_there_never_empties_the_place(
    tmp_path: Path, kind: str
) -> None:
    src = tmp_path / "src"
    fill(src, TREE)
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        assert done(plan).ok
        src.rename(tmp_path / "elsewhere")
        assert not done(plan).ok
        src.mkdir()
        assert "holds no file at all, so nothing was changed" in done(plan).detail
        assert not fetched(plan, tmp_path / "back").bad
        assert files(tmp_path / "back") == TREE
        assert done(sync_plan(tmp_path, src, copy, allow_empty=True)).ok
        assert fetched(plan, tmp_path / "empty").files == 0
        clock = HandClock()
        day = datetime.fromtimestamp(clock.wall(), UTC)
        assert fetched(plan, tmp_path / "then", when=day).snapshot


def test_a_first_run_of_an_empty_source_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert (
        "holds no file at all"
        in done(sync_plan(tmp_path, tmp_path / "src", tmp_path / "dst")).detail
    )


NAMES = (
    b"-rf", b"--delete", b"new\nline", b"cr\rlf\n", b"tab\t", b"q\"'`$(touch x)", b"; touch x", b" lead",
    b"trail ", b"#hash", b"*[x]{a}?", b"uni\xc3\xa9", b"back\\slash", b"a" * 200, b"%s%n", b".hidden",
    b"sub/..name", b"sub/\xe2\x90\x8a",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "drive", "bucket"])
def test_names_may_be_anything_that_a_folder_can_hold(tmp_path: Path, kind: str) -> None:
    src = tmp_path / "src"
    (src / "sub").mkdir(parents=True)
    for name in NAMES:
        (src / os.fsdecode(name)).write_bytes(name)
    (src / "link").symlink_to("-rf")
    (src / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(src / "fifo")
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        outcome = done(plan)
        assert outcome.detail == ""
        assert not fetched(plan, tmp_path / "back").bad
        back = files(tmp_path / "back")
        assert files(src) == back
        assert (tmp_path / "back/link").readlink() == Path("-rf")
        assert (tmp_path / "back/dangling").readlink() == Path("/nowhere/at all")
    assert not Path("x").exists()


@pytest.mark.parametrize("kind", ["file", "drive", "gcs"])
def test_what_becomes_a_folder_a_file_or_a_link_is_followed_and_its_old_self_kept(
    tmp_path: Path, kind: str
) -> None:
    """To rclone a link and a file are two names; in a folder they are one, and one is lost."""
    src, clock = tmp_path / "src", HandClock()
    fill(src, {**TREE, "was-file": b"1", "was-folder/in/it": b"2", "to-link": b"3", "x": b"x"})
    (src / "was-link").symlink_to("x")
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        assert done(plan, clock).detail == ""
        day = datetime.fromtimestamp(clock.wall(), UTC)
        clock.at += DAY_S
        for name in ("was-file", "to-link", "was-link", "was-folder/in/it"):
            (src / name).unlink()
        (src / "was-folder/in").rmdir()
        (src / "was-folder").rmdir()
        fill(src, {"was-file/now": b"4", "was-folder": b"5", "was-link": b"6"})
        (src / "to-link").symlink_to("x")
        assert done(plan, clock).detail == ""
        now = fetched(plan, tmp_path / "now", clock)
        assert not now.bad
        assert files(tmp_path / "now") == files(src)
        assert (tmp_path / "now/to-link").readlink() == Path("x")
        then = fetched(plan, tmp_path / "then", clock, when=day)
        assert not then.bad
        old = files(tmp_path / "then")
        assert (old["was-file"], old["was-folder/in/it"], old["to-link"]) == (b"1", b"2", b"3")
        assert (tmp_path / "then/was-link").readlink() == Path("x")


def test_a_name_that_is_not_utf8_travels_in_packs_and_is_told_of_in_mirrors(tmp_path: Path) -> None:
    src, name = tmp_path / "src", os.fsdecode(b"bad\xff\xfe")
    fill(src, {**TREE, name: b"odd"})
    mirror = sync_plan(tmp_path, src, tmp_path / "dst")
    outcome = done(mirror)
    assert "1 files have names that are not UTF-8" in outcome.detail
    assert files(tmp_path / "dst/current") == TREE
    with place("bucket", tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        assert done(plan).ok
        assert not fetched(plan, tmp_path / "back").bad
        assert files(tmp_path / "back")[name] == b"odd"


class Meddling(HandClock):
    """A clock that does something when it is asked for the time: between listing and copying."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do: Callable[[], object] | None = do

    def wall(self) -> float:
        if self.do is not None:
            do, self.do = self.do, None
            do()
        return super().wall()


@pytest.mark.parametrize("kind", ["file", "bucket"])
def test_a_file_that_changes_while_it_is_copied_is_noticed_and_copied_the_next_time(
    tmp_path: Path, kind: str
) -> None:
    src = tmp_path / "src"
    fill(src, TREE)
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        outcome = done(plan, Meddling(lambda: (src / "d").write_bytes(b"changed by others")))
        assert outcome.detail == ""
        assert "1 files changed while they were copied" in outcome.said
        assert "d" not in last(copy, tmp_path).items
        outcome = done(plan, Meddling((src / "e").unlink))
        assert outcome.detail == ""
        assert "d" in last(copy, tmp_path).items
        assert not fetched(plan, tmp_path / "back").bad
        assert files(tmp_path / "back") == {**files(src), "e": b"five"}


def test_a_file_that_cannot_be_read_is_told_of_and_what_is_kept_of_it_stays(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    (src / "d").write_bytes(b"new")
    (src / "d").chmod(0)
    assert "1 files cannot be read" in done(plan).detail
    assert files(dst / "current")["d"] == b"four"


def test_what_is_excluded_is_not_copied(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, {**TREE, "x.tmp": b"1", "sub/y.tmp": b"2", "cache/a/b": b"3"})
    assert done(sync_plan(tmp_path, src, dst, exclude=("*.tmp", "cache/**"))).ok
    assert files(dst / "current") == TREE


# ── places that are damaged, cut, or not there ──────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["file", "drive", "crypt", "bucket", "hub"])
def test_damage_behind_our_back_is_found_in_the_weekly_look_and_mended(
    tmp_path: Path, kind: str
) -> None:
    src = tmp_path / "src"
    fill(src, TREE)
    with place(kind, tmp_path / "world") as (copy, flip):
        plan = sync_plan(tmp_path, src, copy)
        assert done(plan).ok
        assert not [f for f in reread(plan, ports(HandClock()), [], "")[0] if not f["ok"]]
        name = "current/sub/b.bin"
        if kind in {"bucket", "hub"}:
            (pack,) = last(copy, tmp_path).packs
            name = f"packs/{pack}"
        flip(name)
        found, _ = reread(plan, ports(HandClock()), [], "")
        assert [f["ok"] for f in found] == [False]
        assert "not as" in done(plan).detail
        assert done(plan).ok
        assert all(f["ok"] for f in reread(plan, ports(HandClock()), [], "")[0])
        assert not fetched(plan, tmp_path / "back").bad


def test_a_file_that_is_lost_in_the_place_is_told_of_and_copied_anew(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    (dst / "current/a.txt").unlink()
    (dst / "current/d").write_bytes(b"short")
    assert (
        "2 files there were not as they were left, and are copied anew: a.txt, d"
        in done(plan).detail
    )
    assert files(dst / "current") == TREE
    assert done(plan).ok


def breaking(tmp: Path, words: str) -> str:
    """Return a program that is rclone, but fails once, before or after the first run of a verb.

    `words`: "before copy", "after move" …
    """
    when, verb = words.split()
    program, mark = tmp / f"rclone-{when}-{verb}", tmp / f"mark-{when}-{verb}"
    first = 'echo "killed" >&2; exit 1' if when == "before" else '"$REAL" "$@"; exit 1'
    text = f'if [ "$1" = {verb} ] && [ ! -e "{mark}" ]; then touch "{mark}"; {first}; fi'
    program.write_text(f'#!/bin/sh\nREAL={rclone()}\n{text}\nexec "$REAL" "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_a_mirror_that_was_cut_anywhere_goes_on_and_no_version_is_lost(tmp_path: Path) -> None:
    src, dst, clock = tmp_path / "src", tmp_path / "dst", HandClock()
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan, clock).ok
    days = [(datetime.fromtimestamp(clock.wall(), UTC), files(src))]
    for number, words in enumerate(("before copy", "after copy", "before move", "after move")):
        clock.at += DAY_S
        fill(src, {"d": f"day {number}".encode(), f"new{number}": b"n"})
        (src / f"new{number - 1}").unlink(missing_ok=True)
        (src / "e").unlink(missing_ok=True)
        access = Access(rclone=breaking(tmp_path, words))
        (one,) = plan.syncs
        copies = tuple(replace(copy, access=access) for copy in one.to)
        source = replace(one.source, access=access)
        cut = replace(plan, syncs=(replace(one, source=source, to=copies),))
        done(cut, clock)
        clock.at += 1.0
        assert done(plan, clock).detail == ""
        days.append((datetime.fromtimestamp(clock.wall(), UTC), files(src)))
    for number, (day, state) in enumerate(days):
        assert not fetched(plan, tmp_path / f"b{number}", clock, when=day).bad
        assert files(tmp_path / f"b{number}") == state


def test_packs_that_were_cut_anywhere_go_on_and_no_version_is_lost(tmp_path: Path) -> None:
    """Kill before and after each operation of the store, once each."""
    src, clock = tmp_path / "src", HandClock()
    fill(src, TREE)
    with place("bucket", tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy)
        assert done(plan, clock).ok
        days = [(datetime.fromtimestamp(clock.wall(), UTC), files(src))]
        step, crashed = 0, True
        while crashed:
            clock.at += DAY_S
            fill(src, {"d": f"day {step}".encode()})
            seen = 0

            def fault(_operation: str, _name: str) -> None:
                nonlocal seen
                seen += 1
                if seen == step + 1:  # noqa: B023 - it is called in this turn only
                    raise Crash

            def take(target, access, private):
                return Faulty(open_store(target, access, private), fault)

            try:
                run(plan, replace(ports(clock), open_store=take))
                crashed = False
            except Crash:
                clock.at += 9 * 3600.0
                assert done(plan, clock).detail == ""
            days.append((datetime.fromtimestamp(clock.wall(), UTC), files(src)))
            step += 3
        assert step > 12
        for number in (0, len(days) // 2, -2, -1):
            day, state = days[number]
            assert not fetched(plan, tmp_path / f"b{number}", clock, when=day).bad
            assert files(tmp_path / f"b{number}") == state


def test_a_place_that_lost_everything_is_not_filled_anew_until_that_is_accepted(
    tmp_path: Path,
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    dst.rename(tmp_path / "unmounted")
    assert "is it mounted?" in done(plan).detail
    assert not (dst / "current").exists()
    accept(plan, plan.syncs[0])
    assert done(plan).ok
    assert files(dst / "current") == TREE


def test_one_place_that_is_down_costs_the_other_nothing(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    (tmp_path / "file").write_text("no folder")
    outcome = done(sync_plan(tmp_path, src, tmp_path / "file/x", dst))
    assert not outcome.ok
    assert files(dst / "current") == TREE


@pytest.mark.parametrize("kind", ["file", "bucket"])
def test_versions_go_only_beyond_keep_and_the_newest_stay_whole(tmp_path: Path, kind: str) -> None:
    src, clock = tmp_path / "src", HandClock()
    fill(src, TREE)
    with place(kind, tmp_path / "world") as (copy, _):
        plan = sync_plan(tmp_path, src, copy, keep=2)
        days = []
        for number in range(4):
            fill(src, {"d": b"%d" % number})
            assert done(plan, clock).ok
            days.append((datetime.fromtimestamp(clock.wall(), UTC), files(src)))
            clock.at += DAY_S
        for number, (day, state) in enumerate(days[2:]):
            assert not fetched(plan, tmp_path / f"b{number}", clock, when=day).bad
            assert files(tmp_path / f"b{number}") == state
        with pytest.raises(NotFound, match="nothing so old"):
            fetched(plan, tmp_path / "old", clock, when=days[1][0])


def test_without_versions_what_is_replaced_is_gone_and_the_rest_is_right(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst, versions=False)
    assert done(plan).ok
    fill(src, {"d": b"FOUR"})
    (src / "e").unlink()
    assert done(plan).ok
    assert files(dst / "current") == files(src)
    assert not (dst / "versions").exists()


# ── other ways ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("source", "to"), [("drive", "crypt"), ("s3", "drive"), ("drive", "bucket"), ("bucket", "file"), ("hub", "bucket")])  # fmt: skip
def test_remotes_and_stores_are_sources_too(tmp_path: Path, source: str, to: str) -> None:
    with place(source, tmp_path / "one") as (first, _), place(to, tmp_path / "two") as (second, _):
        if source in {"bucket", "hub"}:
            store = open_store(first.target, first.access, tmp_path / "one/private")
            fill(tmp_path / "lay", TREE)
            for name in TREE:
                store.put(tmp_path / "lay" / name, name)
        else:
            base = next(p for p in (tmp_path / "one").rglob("*") if p.name == "disk")
            fill(base / ("bucket/aion" if source == "s3" else "aion/backups"), TREE)
        ends = [first, second]
        if first.target.scheme == second.target.scheme == "rclone":
            text = second.access.rclone_config.replace("[disk]", "[disk2]")
            text = first.access.rclone_config + text.replace("disk:", "disk2:")
            ends = [replace(c, access=replace(c.access, rclone_config=text)) for c in ends]
        plan = sync_plan(tmp_path, *ends)
        outcome = done(plan)
        assert (outcome.detail, outcome.count) == ("", 5)
        assert done(plan).said == "nothing new"
        assert not fetched(plan, tmp_path / "back").bad
        assert files(tmp_path / "back") == TREE


def test_packs_are_encrypted_where_dumps_are(tmp_path: Path) -> None:
    src, key = tmp_path / "src", pyrage.x25519.Identity.generate()
    fill(src, TREE)
    with place("bucket", tmp_path / "world") as (copy, _):
        plan = replace(sync_plan(tmp_path, src, copy), encrypt=Encryption(str(key.to_public())))
        assert done(plan).ok
        (pack,) = last(copy, tmp_path).packs
        assert pack.endswith(".age")
        with pytest.raises(WrongKey):
            fetched(plan, tmp_path / "no")
        assert not fetched(plan, tmp_path / "back", identity=str(key)).bad
        assert files(tmp_path / "back") == TREE


def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, TREE)
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    (copy,) = plan.syncs[0].to
    made = last(copy, tmp_path)
    item = next(iter(made.items.values()))
    for name in ("../x", "/etc/x", "a//b", "l.rclonelink", "."):
        items = {name: item, **({"l/x": item} if name.startswith("l.") else {})}
        path = next((dst / "manifests").glob("*.zst"))
        path.write_bytes(replace(made, items=items).dump())
        with pytest.raises(BackupError, match="names a file that no folder has"):
            fetched(plan, tmp_path / "back")


@pytest.mark.parametrize("kind", ["file", "bucket", "hub", "drive"])
def test_bandwidth_is_a_limit_in_every_store(tmp_path: Path, kind: str) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(900_000))
    clock = SystemClock()
    with place(kind, tmp_path / "world") as (copy, _):
        (tmp_path / "p").mkdir()
        store = open_store(
            copy.target, replace(copy.access, bandwidth_bps=1_000_000), tmp_path / "p"
        )
        began = clock.steady()
        store.put(big, "big")
        assert clock.steady() - began > 0.7
        store.close()
