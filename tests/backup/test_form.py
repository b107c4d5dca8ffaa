"""The values of backups: addresses, names of dumps, manifests, and how they travel."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.backup.errors import BadManifest, BadTarget
from jobs.backup.form import (
    Access,
    Copy,
    Drill,
    DumpId,
    Encryption,
    Export,
    Manifest,
    Plan,
    Sealed,
    Selection,
    Sync,
    Table,
)
from jobs.backup.targets import Target, safe

AT = datetime(2026, 11, 21, 3, 0, 5, tzinfo=UTC)
CANARY = "canary-4f1d9c0e"


def manifest(**changes) -> Manifest:
    made = Manifest(
        name="main",
        id="main-000007-20261121T030005Z",
        sequence=7,
        created_at=AT,
        server_version="17.2",
        client_version="18.4",
        database="app",
        size=1234,
        sha256="a" * 64,
        plain_sha256="b" * 64,
        compressed="zstd:1",
        hashes={"md5": "c" * 32, "crc32c": "d" * 8},
        encrypted=Sealed("e" * 16),
        tables=(Table("public", 'odd "; name', 12),),
        timings={"dump_s": 1.5},
    )
    return dataclasses.replace(made, **changes)


def plan() -> Plan:
    access = Access(rclone_config=CANARY, google=CANARY, hub_token=CANARY, bandwidth_bps=5)
    copy = Copy(Target.parse("rclone:gdrive:aion/backups"), access, Access(endpoint="http://x"))
    return Plan(
        name="main",
        dsn=f"postgresql://u:{CANARY}@h/d",
        copies=(copy, Copy(Target.parse("file:/srv/backups"))),
        spool="/var/lib/aion/spool",
        encrypt=Encryption("age1xyz", CANARY),
        include=Selection(("public",), ("public.t",)),
        exports=(Export("chat", "select 1 as id", "id"),),
        syncs=(Sync("points", copy, (copy,)),),
        drill=Drill(dsn=CANARY),
    )


# ── addresses ───────────────────────────────────────────────────────────────────────────────────

GOOD = (
    "file:/srv/backups",
    "file:/mnt/nas/a.b_c-d",
    "rclone:gdrive:aion/backups",
    "rclone:gdrive:",
    "rclone:my-remote.2:x",
    "gs://my-bucket",
    "gs://my-bucket/a/b",
    "hf://datasets/user/name",
    "hf://datasets/user/name/deep/prefix",
)


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_read_and_written_the_same(text):
    assert Target.parse(text).url == text
    assert Target.from_json(Target.parse(text).to_json()) == Target.parse(text)
    assert Target.parse(text + ("" if text.endswith(":") else "/")).url == text


BAD = (
    ("", "is no place for a copy; it is file:/abs/path, rclone:"),
    ("/srv/backups", "is no place for a copy"),
    ("s3://bucket/x", "is no place for a copy"),
    ("FILE:/srv", "is no place for a copy"),
    ("file:srv", "written from the root"),
    ("file://host/srv", "written from the root"),
    ("file:/", "the root folder cannot hold backups"),
    ("file:/srv/../etc", "no part of a path"),
    ("file:/srv/.hidden", "no part of a path"),
    ("file:/srv//x", "no part of a path"),
    ("file:/My Drive", "` ` cannot stand in a path"),
    ("rclone:gdrive", "followed by a colon"),
    ("rclone::local:/etc", "a remote is named by"),
    ("rclone:-v:x", "a remote is named by"),
    ("rclone:sftp,host=evil:x", "a remote is named by"),
    ("rclone:gdrive:/abs", "no part of a path"),
    ("rclone:gdrive:--config", "no part of a path"),
    ('rclone:gdrive:x"; touch y', "cannot stand in a path"),
    ("rclone:gdrive:$(id)", "cannot stand in a path"),
    ("rclone:gdrive:a\nb", "cannot stand in a path"),
    ("rclone:gdrive:é", "cannot stand in a path"),
    ("rclone:gdrive:" + "x/" * 300, "letters at most"),
    ("gs:bucket", "written gs://bucket/prefix"),
    ("gs://Bucket/x", "a bucket's name"),
    ("gs://b", "a bucket's name"),
    ("hf://user/name", "written hf://datasets/user/name/prefix"),
    ("hf://models/user/name", "written hf://datasets/user/name/prefix"),
    ("hf://datasets/user", "written hf://datasets/user/name/prefix"),
    ("hf://datasets/us er/name", "is no name on the Hub"),
    ("hf://datasets/user/na..me", "is no name on the Hub"),
)


@pytest.mark.parametrize(("text", "why"), BAD)
def test_a_wrong_address_is_refused_in_one_line_that_says_what_is_wrong(text, why):
    with pytest.raises(BadTarget) as caught:
        Target.parse(text)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 260


@given(st.text())
def test_what_is_safe_is_one_word_to_any_program(path):
    if safe(path):
        assert path.isascii()
        assert not set(path) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-"
        )
        assert not any(part in {"", ".", ".."} or part[0] in "-." for part in path.split("/"))


# ── names of dumps ──────────────────────────────────────────────────────────────────────────────


def test_a_dump_is_named_by_its_sequence_and_utc():
    lisbon = AT.astimezone(timezone(timedelta(hours=9)))
    assert str(DumpId.new("main", 7, lisbon)) == "main-000007-20261121T030005Z"
    assert DumpId.parse("my-db-000007-20261121T030005Z") == DumpId("my-db", 7, "20261121T030005Z")


@pytest.mark.parametrize(
    "text",
    ["", "main", "main-7-20261121T030005Z", "main-000007-20261121T030005Z/x", "Main-000007-x"],
)
def test_what_is_no_dump_is_passed_over(text):
    assert DumpId.parse(text) is None


def test_a_name_that_could_not_be_read_back_is_never_given():
    for name in ("", "a b", "../x", "x" * 99, "a-"):
        with pytest.raises(ValueError):
            DumpId.new(name, 1, AT)


def test_a_later_sequence_is_a_later_dump_whatever_the_clock_said():
    assert DumpId("main", 8, "20200101T000000Z") > DumpId("main", 7, "20261121T030005Z")


# ── how they travel ─────────────────────────────────────────────────────────────────────────────


def test_a_plan_arrives_as_it_left():
    sent = json.loads(json.dumps(plan().to_json()))
    assert Plan.from_json(sent) == plan()


def test_a_plan_with_a_key_nobody_knows_or_a_wrong_kind_is_refused_without_showing_the_value():
    sent = plan().to_json()
    with pytest.raises(ValueError, match=r"Plan.drill: unknown key 'colour'"):
        Plan.from_json({**sent, "drill": {"colour": CANARY}})
    for key, place in (("level", "Plan.level"), ("copies", "Plan.copies"), ("keep", "Plan.keep")):
        with pytest.raises(ValueError, match=place) as caught:
            Plan.from_json({**sent, key: CANARY})
        assert CANARY not in str(caught.value)
    del sent["dsn"]
    with pytest.raises(ValueError, match=r"Plan.dsn is missing"):
        Plan.from_json(sent)


def test_a_plan_shown_shows_no_secret():
    assert CANARY not in repr(plan())


# ── manifests ───────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_is_read_as_it_was_written():
    assert Manifest.load(manifest().dump(), manifest().id) == manifest()
    assert manifest().files == ("archive.dump.age", "SHA256SUMS", "manifest.json")
    assert manifest(encrypted=None).archive == "archive.dump"
    assert json.loads(manifest().dump())["created_at"] == "2026-11-21T03:00:05Z"


def test_a_manifest_of_a_newer_aion_is_read_if_its_format_is_the_same_and_refused_if_not():
    value = manifest().to_json()
    assert Manifest.load(json.dumps({**value, "mood": "good"}).encode()) == manifest()
    with pytest.raises(BadManifest, match="newer aion"):
        Manifest.load(json.dumps({**value, "format": 2}).encode())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": "main-000008-20261121T030005Z"}, "not of its name and sequence"),
        ({"name": "other"}, "not of its name and sequence"),
        ({"sha256": "A" * 64}, "sha256 is no hash"),
        ({"plain_sha256": ""}, "plain_sha256 is no hash"),
        ({"hashes": {"md5": "x"}}, "md5 is no hash"),
        ({"size": -1}, "size is negative"),
        ({"format": 0}, "format is not 1"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes, why):
    with pytest.raises(BadManifest, match=why):
        Manifest.load(manifest(**changes).dump())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b"{}"]
)
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(BadManifest):
        Manifest.load(data)


def test_a_manifest_in_the_wrong_folder_is_refused():
    with pytest.raises(BadManifest, match="belongs to another dump"):
        Manifest.load(manifest().dump(), "main-000006-20261120T030005Z")
