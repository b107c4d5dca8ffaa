"""Listings of any length are read as they come, and held small; what is cut is never a short one."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.backup.errors import BadManifest, StoreUnreachable
from jobs.backup.flowing import LONGEST, Flow
from jobs.backup.form import Access, Copy
from jobs.backup.items import Item, pack, unpack
from jobs.backup.mirror import Tree
from jobs.backup.snapshots import Snapshot
from jobs.backup.stores import open_store, rcloning
from jobs.backup.stores.base import silent
from jobs.backup.stores.rcloning import MAX_OUTPUT, Rclone
from jobs.backup.targets import Target
from tests.backends.peak import taken
from tests.backup.plans import HandClock
from tests.backup.test_syncs import done, files, fill, last, place, sync_plan
from tests.backup.worlds import rclone

MANY = 300_000
ENTRY = {
    "Path": "folder/ü\u2028{[]},\\\"'.bin",
    "Name": "",
    "Size": 12,
    "ModTime": "2026-11-21T03:00:00.123456789Z",
    "IsDir": False,
    "Hashes": {"md5": "0" * 32},
}


def elements(data: bytes, step: int, most: int = 1 << 40) -> list:
    source = io.BytesIO(data)
    flow = Flow(lambda size: source.read(min(size, step)), most)
    found = list(flow.elements())
    flow.end()
    return found


# ── the text ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100, 1 << 16])
@pytest.mark.parametrize("ascii_", [True, False])
@pytest.mark.parametrize("indent", [None, 0, 4])
def test_a_list_is_read_whole_wherever_its_bytes_are_parted_and_however_it_is_laid_out(
    step: int, ascii_: bool, indent: int | None
) -> None:
    wanted = [ENTRY, 0, 123456, -1.5, "x", [], {}, [ENTRY, [1]], None, True, {**ENTRY, "Path": "b"}]
    text = json.dumps(wanted, ensure_ascii=ascii_, indent=indent)
    assert elements(f" {text}\n\n".encode(), step) == wanted
    assert elements(b"[\n]\n", step) == []


def test_a_list_that_is_cut_anywhere_is_never_taken_for_a_shorter_one() -> None:
    data = json.dumps([ENTRY, {"Path": "b", "Size": 123}, 456], ensure_ascii=False).encode()
    for at in range(len(data)):
        for step in (5, 1 << 16):
            with pytest.raises(ValueError, match=r"cut|decode"):
                elements(data[:at], step)


NONSENSE = (b"hello", b"{}", b"[1 2]", b"[1,]", b"[,1]", b"[}", b'[{"a":]', b"[1]x", b"[NaN]")


@pytest.mark.parametrize("data", [*NONSENSE, b"[\xff]", b'["\xc3"]', b"[" * 100_000])
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        elements(data, 1 << 16)


def test_names_may_be_huge_but_nothing_without_an_end_is_read_on_and_on() -> None:
    huge = {**ENTRY, "Path": "ü/" * 100_000}
    data = json.dumps([ENTRY, huge, ENTRY], ensure_ascii=False).encode()
    assert elements(data, 1 << 16) == [ENTRY, huge, ENTRY]
    asked = []

    def endless(size: int) -> bytes:
        asked.append(size)
        return b'["' + b"x" * (size - 2) if len(asked) == 1 else b"x" * size

    with pytest.raises(ValueError, match="none of its values ends"):
        list(Flow(endless, 1 << 40).elements())
    assert sum(asked) < 2 * LONGEST
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        elements(data, 100, most=1000)


# ── rclone's listings ───────────────────────────────────────────────────────────────────────────


def lister(tmp: Path, code: str, status: int = 0) -> str:
    """Return a program that is rclone, but lists what that code prints, and ends so."""
    tmp.mkdir(exist_ok=True)
    (tmp / "list.py").write_text(f"import json, sys\n{code}\nsys.stdout.flush()\n")
    program = tmp / "lister"
    listing = f'if [ "$1" = lsjson ]; then {sys.executable} "{tmp}/list.py"; exit {status}; fi'
    program.write_text(f'#!/bin/sh\n{listing}\nexec {rclone()} "$@"\n')
    program.chmod(0o755)
    return str(program)


def listed(tmp: Path, program: str) -> dict[str, Item]:
    opened = Rclone("file:/x", Access(rclone=program), tmp)
    try:
        return Tree("file:/x", "/x", opened, tmp).files(times=True)
    finally:
        opened.close()


CUT = (
    "print('[')",
    "print('[\\n' + json.dumps({'Path': 'a', 'Size': 1}) + ',')",
    "print('[\\n' + json.dumps({'Path': 'a', 'Size': 1}))",
    "print('[\\n' + json.dumps({'Path': 'a', 'Size': 1})[:-5])",
    "pass",
    "print('hello')",
    "print('[1]')",
    "print(json.dumps([{'Size': 1}]))",
    "print(json.dumps([{'Path': 'a', 'Size': 'x'}]))",
    'print(\'[{"Path": "a", "Size": 1e999}]\')',
    "print('[]\\n[]')",
)


@pytest.mark.parametrize("code", CUT)
def test_a_listing_that_is_cut_or_nonsense_is_told_and_never_taken_for_a_place_that_lost_files(
    tmp_path: Path, code: str
) -> None:
    program = lister(tmp_path / "program", code)
    with pytest.raises(StoreUnreachable, match="no form that we know"):
        listed(tmp_path, program)
    store = open_store(Target.parse("rclone:x:y"), Access(rclone=program), tmp_path)
    with suppress(AttributeError):
        store.__dict__["_features"] = {"Features": {}}
    with pytest.raises(StoreUnreachable, match="no form that we know"):
        store.list()


def test_a_mirror_changes_nothing_when_a_listing_is_cut(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, {"a": b"1", "b": b"2"})
    assert done(sync_plan(tmp_path, src, dst)).ok
    fill(src, {"c": b"3"})
    program = lister(tmp_path / "program", CUT[1])
    source = Copy(Target.parse(f"file:{src}"), Access(rclone=program))
    place = Copy(Target.parse(f"file:{dst}"), Access(rclone=program))
    outcome = done(sync_plan(tmp_path, source, place))
    assert "no form that we know" in outcome.detail
    assert files(dst / "current") == {"a": b"1", "b": b"2"}


def test_why_rclone_failed_comes_before_that_its_listing_is_cut(tmp_path: Path) -> None:
    program = lister(tmp_path / "program", "print('[')\nprint('AccessDenied', file=sys.stderr)", 1)
    with pytest.raises(StoreUnreachable.__mro__[1], match="refuses this login"):
        listed(tmp_path, program)


def test_a_listing_that_goes_on_for_hours_is_not_taken_for_silence() -> None:
    log = rcloning._Log(silent, 0)
    for hour in range(1, 4):
        log.take(json.dumps({"stats": {"bytes": 0, "elapsedTime": 3600 * hour}}).encode())
        assert log.silent_s == 3600
        log.hear()
        assert log.silent_s == 0


LONG = f"""
print('[')
for n in range({MANY}):
    print(('' if n == 0 else ',') + json.dumps({{
        'Path': f'camera-{{n // 1000:04d}}/pictures of a long day/picture-{{n:07d}}-{"x" * 60}.json',
        'Name': f'picture-{{n:07d}}-{"x" * 60}.json', 'Size': 1000 + n,
        'ModTime': f'2026-11-21T03:00:00.{{n:09d}}Z', 'IsDir': False,
        'Hashes': {{'md5': f'{{n:032x}}'}}}}))
print(']')
"""


def main(payload: dict) -> dict:
    """List in a process of its own, whose memory is measured."""
    tmp = Path(payload["tmp"])
    found = listed(tmp, payload["program"])
    name = max(found)
    return {"count": len(found), "last": [name, found[name].size, found[name].hashes]}


def test_a_listing_of_three_hundred_thousand_files_is_read_in_little_memory(
    tmp_path: Path,
) -> None:
    program = lister(tmp_path / "program", LONG)
    with os.popen(f"{program} lsjson | wc -c") as said:
        assert int(said.read()) > MAX_OUTPUT
    asked = {"tmp": str(tmp_path), "program": program}
    answer, peak_kb, cpu_s = taken("tests.backup.test_listings", asked)
    print(f"listing {MANY} files: {peak_kb / 1024:.0f} MB, {cpu_s:.1f} s of CPU")
    assert answer["count"] == MANY
    name, size, hashes = answer["last"]
    assert name.startswith("camera-0299/")
    assert (size, hashes) == (1000 + MANY - 1, {"md5": f"{MANY - 1:032x}"})
    assert peak_kb < 300 * 1024


# ── what is held ────────────────────────────────────────────────────────────────────────────────

HASHES = (
    {},
    {"md5": "0" * 32},
    {"sha256": "ab" * 32, "md5": "01" * 16, "sha1": "ff" * 20, "crc32c": "12345678"},
    {"sha256": "AB" * 32},
    {"md5": "no hex"},
    {"md5": "00"},
    {"sha256": "ab " * 32},
    {"quickxor": "c29tZXRoaW5n"},
)


@pytest.mark.parametrize("hashes", HASHES)
def test_hashes_come_out_as_they_went_in(hashes: dict[str, str]) -> None:
    assert unpack(pack(hashes)) == hashes
    assert pack(dict(reversed(hashes.items()))) == pack(hashes)


def test_two_files_are_the_same_by_the_hashes_that_both_have() -> None:
    both = Item(1, "", pack({"md5": "0" * 32, "sha256": "a" * 64}))
    assert both.same(Item(1, "x", pack({"md5": "0" * 32})))
    assert not both.same(Item(2, "", both.digests))
    assert not both.same(Item(1, "", pack({"md5": "1" * 32, "sha256": "a" * 64})))
    assert not both.same(Item(1, ""))
    assert not Item(1, "").same(Item(1, "")), "nobody vouches for either"
    assert Item(1, "").also(both.digests) == both
    assert both.also(pack({"md5": "1" * 32})).hashes == {"md5": "1" * 32, "sha256": "a" * 64}


def test_a_manifest_is_read_as_it_was_written_and_as_versions_before_wrote_it() -> None:
    at = datetime.fromtimestamp(HandClock().wall(), UTC)
    names = ["a", 'q"\\', "ü/\u2028", "\udcff", "z" * 30_000, *(f"n{n}" for n in range(5000))]
    items = {
        name: Item(n, str(n), pack({"sha256": f"{n:064x}"}), "p.tar.zst")
        for n, name in enumerate(names)
    }
    packs = {"p.tar.zst": Item(5, "", pack({"sha256": "0" * 64, "md5": "1" * 32}))}
    made = Snapshot("000000007-20261121T030000Z", at, "file:/src", "packs", items, packs)
    assert Snapshot.load(made.dump(), made.id) == made
    assert Snapshot.load(made.dump(), made.id, items=False) == replace(made, items={})
    import zstandard

    def plain(held: dict[str, Item]) -> dict:
        return {p: [i.size, i.modified, i.hashes, i.at] for p, i in sorted(held.items())}

    value = {"packs": plain(packs), "items": plain(items), "form": "packs", "source": "file:/src"}
    value |= {"created_at": at.isoformat(), "id": made.id, "format": 1, "more": {"x": [1]}}
    squeezed: Callable[[object], bytes] = lambda what: zstandard.ZstdCompressor().compress(  # noqa: E731
        json.dumps(what).encode()
    )
    assert Snapshot.load(squeezed(value), made.id) == made
    for bad in (*({**value, "items": x} for x in (None, [], {"a": 1}, {"a": [1]})), [], {}, 1):
        with pytest.raises(BadManifest):
            Snapshot.load(squeezed(bad), made.id)
    with pytest.raises(BadManifest, match="newer"):
        Snapshot.load(squeezed({"format": 2, "items": 7}), made.id)
    for cut in range(5, 400, 7):  # without its last four bytes, a checksum, it is whole
        with pytest.raises(BadManifest):
            Snapshot.load(made.dump()[:-cut], made.id)


def test_a_run_that_finds_nothing_new_leaves_the_last_state_as_it_is(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    fill(src, {"a": b"1", "sub/b": b"2"})
    plan = sync_plan(tmp_path, src, dst)
    assert done(plan).ok
    before = last(plan.syncs[0].to[0], tmp_path)
    assert done(plan).said == "nothing new"
    assert last(plan.syncs[0].to[0], tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "gcs"])
def test_a_file_of_a_sync_costs_little_memory(tmp_path: Path, kind: str) -> None:
    count, peaks = 12_000, []
    for many in (10, count):
        tmp = tmp_path / str(many)
        for n in range(many):
            for base in ("src", "dst/current") if kind == "file" else ("src",):
                folder = tmp / base / f"camera-{n // 1000:04d}/2026-11"
                if n % 1000 == 0:
                    folder.mkdir(parents=True)
                (folder / f"picture-{n:07d}.json").write_text(f"{n}\n")
        made = place(kind, tmp / "world") if kind == "gcs" else nullcontext((tmp / "dst", None))
        with made as (to, _):
            plan = sync_plan(tmp, tmp / "src", to)
            payload = {"do": "run", "plan": plan.to_json()}
            runs = [taken("jobs.backup.child", payload) for _ in range(2)]
        assert [answer["more"][0]["detail"] for answer, _, _ in runs] == ["", ""]
        peaks.append([peak_kb for _, peak_kb, _ in runs])
    each_b = [(many - few) * 1024 / count for few, many in zip(*peaks, strict=True)]
    print(f"a file costs, {kind}: {each_b[0]:.0f} bytes in the first run, then {each_b[1]:.0f}")
    assert max(each_b) < 1400
