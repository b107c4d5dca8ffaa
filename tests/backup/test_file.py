"""Copies in a folder, cut and resumed; and that none of the libraries of backups is in the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.backup.errors import Conflict, Corrupt, NotFound, StoreBroken
from jobs.backup.stores.base import CHUNK, PART, hash_file
from jobs.backup.stores.file import FileStore
from jobs.backup.targets import Target

NAME = "main-000001-20261121T030005Z/archive.dump"
CHUNKS = 4
SIZE = (CHUNKS - 1) * CHUNK + 777


class Cut(Exception):
    pass


@pytest.fixture
def base(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(base) -> FileStore:
    return FileStore(Target.parse(f"file:{base}"))


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "archive.dump"
    path.write_bytes(os.urandom(SIZE))
    return path


def cut_at(chunk: int):
    def progress(done: int, total: int) -> None:
        if done >= min(chunk * CHUNK, SIZE):
            raise Cut

    return progress


@pytest.mark.parametrize("chunk", range(1, CHUNKS + 1))
@pytest.mark.parametrize("damage", [False, True])
def test_an_upload_cut_at_any_chunk_shows_nothing_and_goes_on(store, base, archive, chunk, damage):
    with pytest.raises(Cut):
        store.put(archive, NAME, progress=cut_at(chunk))
    assert store.list() == []
    part = base / (NAME + PART)
    assert part.stat().st_size >= min(chunk * CHUNK, SIZE)
    if damage:  # what is there from before is compared, not believed
        part.write_bytes(b"?" + part.read_bytes()[1:] + b"and more than there should be" * 99)
    store.put(archive, NAME)
    assert (base / NAME).read_bytes() == archive.read_bytes()
    assert not part.exists()


def test_what_is_there_already_is_not_written_again(store, base, archive):
    with pytest.raises(Cut):
        store.put(archive, NAME, progress=cut_at(2))
    part = base / (NAME + PART)
    with part.open("r+b") as file:
        before = os.pread(file.fileno(), 10, 0)
        inode = part.stat().st_ino
    store.put(archive, NAME)
    assert (base / NAME).stat().st_ino == inode
    assert (base / NAME).read_bytes()[:10] == before


def test_two_writers_of_one_name_do_not_write_over_each_other(store, base, archive):
    def meanwhile(done: int, total: int) -> None:
        (base / NAME).write_bytes(b"theirs")

    with pytest.raises(Conflict):
        store.put(archive, NAME, progress=meanwhile)
    assert (base / NAME).read_bytes() == b"theirs"


def test_a_link_in_the_folder_leads_nowhere(store, base, archive, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    (base / NAME).parent.mkdir(parents=True)
    (base / NAME).symlink_to(outside)
    (base / (NAME + PART)).symlink_to(outside)
    assert store.list() == []
    with pytest.raises(StoreBroken):
        store.put(archive, NAME)
    assert outside.read_bytes() == b"outside"


def test_bytes_that_the_disk_changed_are_found(store, base, archive):
    part = base / (NAME + PART)

    def rot(done: int, total: int) -> None:
        if done > CHUNK:
            with part.open("r+b") as file:
                file.write(b"rotten")

    with pytest.raises(Corrupt):
        store.put(archive, NAME, progress=rot)
    assert store.list() == []
    store.put(archive, NAME)
    assert store.check(NAME, hash_file(archive, ("sha256",))) == ""


def test_a_folder_that_cannot_be_is_told(base, archive, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    store = FileStore(Target.parse(f"file:{file}/backups"))
    with pytest.raises(NotFound):
        store.put(archive, NAME)


def test_deleting_the_last_file_of_a_dump_removes_its_folder_and_no_other(store, base, archive):
    store.put(archive, NAME)
    store.put(archive, "main-000002-20261121T030005Z/archive.dump")
    store.delete(NAME)
    assert sorted(p.name for p in base.iterdir()) == ["main-000002-20261121T030005Z"]


HEAVY = (
    "pyrage",
    "psycopg",
    "huggingface_hub",
    "google.cloud",
    "google.auth",
    "requests",
    "httpx2",
    "hf_xet",
)
LIGHT = (
    "orchestrator.main",
    "orchestrator.cli",
    "jobs",
    "jobs.backup.form",
    "jobs.backup.errors",
    "jobs.backup.stores",
    "jobs.backup.stores.base",
)


@pytest.mark.parametrize("module", LIGHT)
def test_the_daemon_holds_none_of_the_libraries_of_backups(module):
    code = f"import sys, {module}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == []
