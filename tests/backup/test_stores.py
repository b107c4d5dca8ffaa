"""What holds of every store of copies, shown with real ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.backup.errors import Conflict, NotFound, StoreBroken
from tests.backup import worlds
from tests.backup.worlds import SECRET, World

# huggingface_hub sends files in a way that its own HTTP library would rather not see any more.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

WORLDS = {
    "file": worlds.file_world,
    "drive": worlds.drive_world,
    "sftp": worlds.sftp_world,
    "s3": worlds.s3_world,
    "crypt": worlds.crypt_world,
    "gcs": worlds.gcs_world,
    "bucket": worlds.bucket_world,
    "hub": worlds.hub_world,
}
DUMP = "main-000001-20261121T030005Z"
ARCHIVE = f"{DUMP}/archive.dump"


@pytest.fixture(params=WORLDS)
def world(request, tmp_path) -> Iterator[World]:
    made = WORLDS[request.param](tmp_path)
    found = next(made)
    yield found
    for store in found.opened:
        store.close()
    left = [
        p
        for p in found.private.rglob("*")
        if p.is_file() and SECRET in p.read_text(errors="replace")
    ]
    assert left == [], "a secret stayed on the disk"
    with pytest.raises(StopIteration):
        next(made)


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "archive.dump"
    path.write_bytes(os.urandom(3_000_000))
    return path


def sha256(path: Path) -> dict[str, str]:
    return {
        kind: hashlib.new(kind, path.read_bytes()).hexdigest() for kind in ("sha256", "sha1", "md5")
    }


def test_what_is_put_is_listed_read_checked_fetched_and_deleted(world, archive, tmp_path):
    store, seen = world.open(), []
    assert store.list() == []
    entry = store.put(archive, ARCHIVE, progress=lambda done, total: seen.append((done, total)))
    assert (entry.name, entry.size) == (ARCHIVE, 3_000_000)
    assert seen[-1] == (3_000_000, 3_000_000)
    assert seen == sorted(seen)
    assert [(e.name, e.size) for e in store.list()] == [(ARCHIVE, 3_000_000)]
    assert [e.name for e in store.list("main-000001")] == [ARCHIVE]
    assert [e.name for e in store.list(f"{DUMP}/arch")] == [ARCHIVE]
    assert store.list("main-000002") == []
    assert store.check(ARCHIVE, sha256(archive)) == ""
    back = tmp_path / "back"
    store.get(ARCHIVE, back)
    assert back.read_bytes() == archive.read_bytes()
    assert back.stat().st_mode & 0o077 == 0
    assert store.read(ARCHIVE, 3_000_000) == archive.read_bytes()
    with pytest.raises(StoreBroken):
        store.read(ARCHIVE, 2_999_999)
    store.delete(ARCHIVE)
    store.delete(ARCHIVE)
    assert store.list() == []
    for ask in (
        lambda: store.read(ARCHIVE, 9),
        lambda: store.get(ARCHIVE, back),
        lambda: store.check(ARCHIVE, sha256(archive)),
    ):
        with pytest.raises(NotFound):
            ask()


def test_an_empty_file_and_one_byte_are_files_too(world, tmp_path):
    store, local = world.open(), tmp_path / "small"
    for data in (b"", b"x"):
        local.write_bytes(data)
        name = f"{DUMP}/part{len(data)}"
        assert store.put(local, name).size == len(data)
        assert store.read(name, 10) == data
        assert store.check(name, sha256(local)) == ""
    assert [e.size for e in store.list()] == [0, 1]


def test_the_same_again_is_success_and_something_else_is_not_written_over(world, archive):
    store = world.open()
    store.put(archive, ARCHIVE)
    assert store.put(archive, ARCHIVE).size == 3_000_000
    before = world.bytes_of(ARCHIVE)
    data = bytearray(archive.read_bytes())
    data[7] ^= 1
    times = archive.stat()
    archive.write_bytes(data)
    os.utime(archive, ns=(times.st_atime_ns, times.st_mtime_ns))  # the same size and time
    with pytest.raises(Conflict):
        store.put(archive, ARCHIVE)
    assert world.bytes_of(ARCHIVE) == before
    store.put(archive, ARCHIVE, replace=True)
    assert store.check(ARCHIVE, sha256(archive)) == ""
    assert [e.name for e in store.list()] == [ARCHIVE]


def test_one_flipped_bit_is_found(world, archive):
    store = world.open()
    store.put(archive, ARCHIVE)
    world.flip(ARCHIVE)
    try:
        wrong = world.open().check(ARCHIVE, sha256(archive))
    except StoreBroken as error:  # what is encrypted cannot be read any more
        wrong = str(error)
    assert wrong
    assert "\n" not in wrong


def test_only_what_is_ours_is_listed(world, archive):
    store = world.open()
    store.put(archive, ARCHIVE)
    world.stray("theirs.txt", b"not under the address")
    world.stray("backups2/archive.dump", b"an address of which ours is a prefix")
    world.stray("aion2/archive.dump", b"the same for a bucket")
    assert [e.name for e in store.list()] == [ARCHIVE]


@pytest.mark.parametrize(
    "name",
    [
        'x"; touch y',
        "../up",
        "/etc/passwd",
        "a//b",
        "-rf",
        "a/../b",
        "",
        "a b",
        "é",
        ".hidden",
        "x.aion-part",
        "a\nb",
        "$(id)",
    ],
)
def test_a_hostile_name_is_refused_before_anything_is_asked(tmp_path, archive, name):
    store = next(worlds.file_world(tmp_path)).open()
    for ask in (
        lambda: store.put(archive, name),
        lambda: store.get(name, tmp_path / "x"),
        lambda: store.read(name, 1),
        lambda: store.delete(name),
        lambda: store.check(name, {}),
    ):
        with pytest.raises(ValueError, match="no name for an object"):
            ask()
    assert not (tmp_path / "store").exists()


def test_a_progress_that_raises_ends_the_upload_and_nothing_shows(world, archive):
    class GivenUp(Exception):
        pass

    def give_up(done: int, total: int) -> None:
        raise GivenUp

    store = world.open()
    with pytest.raises(GivenUp):
        store.put(archive, ARCHIVE, progress=give_up)
    # A remote that was quicker than its first report has it whole: that is no half either.
    assert [e.size for e in store.list()] in ([], [3_000_000])
    store.put(archive, ARCHIVE)
    assert store.check(ARCHIVE, sha256(archive)) == ""


def test_how_much_fits_is_told_or_unknown(world):
    room = world.open().room()
    assert room is None or room.free is None or room.free > 0
