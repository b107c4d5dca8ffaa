"""Copies on the Hugging Face Hub when something goes wrong, against a strict stand-in."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import get_session, set_client_factory

from jobs.backup.errors import (
    Conflict,
    Corrupt,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.stores import hub
from tests.backup import hub_standin, worlds
from tests.backup.worlds import World

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "main-000001-20261121T030005Z/archive.dump"
MB = 1024 * 1024


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    made = worlds.hub_world(tmp_path)
    yield next(made)
    next(made, None)


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "archive.dump"
    path.write_bytes(os.urandom(2_500_000))
    return path


def test_a_part_that_is_cut_is_sent_again(world, archive):
    world.server.cut = 1
    world.open().put(archive, NAME)
    assert world.bytes_of(NAME) == archive.read_bytes()


def test_a_public_dataset_gets_nothing(world, archive):
    world.server.private = False
    with pytest.raises(CredentialRefused, match="public"):
        world.open().put(archive, NAME)
    assert world.server.objects == {}


def test_a_commit_with_the_wrong_hash_is_no_success(world, archive):
    world.server.lie = True
    with pytest.raises(Corrupt):
        world.open().put(archive, NAME)


def test_what_another_writer_committed_meanwhile_stays(world, archive):
    def meanwhile(sent: int, total: int) -> None:
        if sent == total and "theirs" not in world.server.commits[world.server.head]:
            world.stray("theirs", b"theirs")

    with pytest.raises(StoreUnreachable, match="somebody else") as caught:
        world.open().put(archive, NAME, progress=meanwhile)
    assert caught.value.retry
    world.open().put(archive, NAME)
    assert set(world.server.commits[world.server.head]) == {"theirs", f"aion/{NAME}"}
    with pytest.raises(Conflict):
        archive.write_bytes(b"x")
        world.open().put(archive, NAME)


def test_a_deleted_dump_takes_no_room_any_more_unless_another_file_is_the_same(world, archive):
    store, other = world.open(), NAME.replace("1", "2", 1)
    store.put(archive, NAME)
    store.put(archive, other)
    store.delete(NAME)
    assert store.read(other, 9_000_000) == archive.read_bytes()
    store.delete(other)
    assert world.server.objects == {}


def test_the_token_goes_to_the_hub_only(world, archive, tmp_path):
    store = world.open()
    store.put(archive, NAME)
    store.get(NAME, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == archive.read_bytes()
    assert world.server.leaked == []


REFUSALS = (
    (401, "Invalid credentials", CredentialExpired),
    (403, "You don't have the rights", CredentialRefused),
    (403, "Private repository storage limit reached", StoreFullError),
    (402, "Payment required", StoreFullError),
    (400, "see https://x/?signature=canary-signature", StoreBroken),
)


@pytest.mark.parametrize(("status", "said", "kind"), REFUSALS)
def test_what_is_refused_is_told_in_one_line(world, archive, status, said, kind):
    world.server.refuse = (status, said)
    store = world.open()
    for ask in (
        store.list,
        lambda: store.put(archive, NAME),
        lambda: store.read(NAME, 9),
        lambda: store.delete(NAME),
    ):
        with pytest.raises(StoreBroken) as caught:
            ask()
        assert type(caught.value) is kind, caught.value
        assert "\n" not in str(caught.value)
        assert "canary" not in str(caught.value)


def test_a_quota_that_is_used_up_is_told_as_such(world, archive):
    world.server.refuse_object = "Your storage quota is used up"
    with pytest.raises(StoreFullError, match="quota"):
        world.open().put(archive, NAME)


def test_a_dataset_that_is_not_there_is_told_as_such(world):
    world.server.repo = "user/other"
    with pytest.raises(NotFound, match="no such dataset"):
        world.open().list()


def test_no_secret_is_in_a_log_or_an_exception(world, archive, caplog):
    caplog.set_level(logging.DEBUG)
    shown = []
    world.open().put(archive, NAME)
    for held in (
        {"token": "another"},
        {"refuse_object": "see https://x/?signature=canary-signature"},
    ):
        for key, value in held.items():
            setattr(world.server, key, value)
        archive.write_bytes(os.urandom(500_000))
        with pytest.raises(StoreBroken) as caught:
            world.open(
                hub_token=world.server.token if key != "token" else world.access.hub_token
            ).put(archive, f"{NAME}2")
        shown += [str(caught.value), repr(caught.value)]
        assert caught.value.__suppress_context__
    text = "\n".join([*shown, caplog.text, repr(world.access)])
    assert "canary" not in text


PUT = """
import json, sys
from pathlib import Path
from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
asked = json.loads(sys.stdin.readline())
store = open_store(Target.parse(asked["url"]), Access.from_json(asked["access"]), Path(asked["private"]))
store.put(Path(asked["local"]), asked["name"])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
"""
SERVE = """
import sys
from jobs.backup.stores import hub
from tests.backup import hub_standin
hub_standin.PART = 30_000_000
with hub_standin.standing_in(hub_standin.Dataset()) as at:
    print(at, flush=True)
    sys.stdin.read()
"""


def test_an_upload_takes_little_memory_whatever_the_size(world, tmp_path):
    archive, root = tmp_path / "large", Path(__file__).parents[2]
    with archive.open("wb") as file:
        file.truncate(300 * MB)
    # The stand-in keeps it all in memory: in a process of its own, not in that of the tests.
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as server:
        assert server.stdout
        access = {**world.access.to_json(), "endpoint": server.stdout.readline().strip()}
        asked = {
            "url": world.target.url,
            "access": access,
            "private": str(world.private),
            "local": str(archive),
            "name": NAME,
        }
        child = subprocess.run(
            [sys.executable, "-c", PUT],
            input=json.dumps(asked) + "\n",
            capture_output=True,
            text=True,
            cwd=root,
            check=True,
        )
    peak_mb = int(child.stdout.split()[-1]) / 1024
    print(f"peak of an upload of 300 MB: {peak_mb:.0f} MB")
    assert peak_mb <= 90


def test_the_stand_in_is_strict():
    assert hub_standin.LARGE < 2_500_000 > hub_standin.PART


def test_a_hub_that_never_answers_is_given_up(world, archive):
    """The library by itself would wait for ever."""
    store = world.open()
    assert get_session().timeout.read == 90
    set_client_factory(lambda: hub.client(0.5))
    world.server.mute = threading.Event()
    try:
        with pytest.raises(StoreUnreachable, match="no answer"):
            store.put(archive, NAME)
    finally:
        world.server.mute.set()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry_After": "3600"}, 3600),
        ({"ratelimit": '"api";r=0;t=299'}, 299),
        ({"Retry_After": "Sat, 21 Nov 2099 03:00:00 GMT"}, 2e9),
    ],
)
def test_a_long_wait_is_told_and_not_slept_through_here(world, archive, headers, wait_s):
    """Meanwhile the other places have their turn."""
    store = world.open()
    store.put(archive, NAME)
    world.server.refuse, world.server.headers = (429, "Too many requests"), headers
    for ask in (store.list, lambda: store.put(archive, f"{NAME}2"), lambda: store.read(NAME, 9)):
        with pytest.raises(StoreUnreachable, match="slow down") as caught:
            ask()
        assert caught.value.retry_after_s == pytest.approx(wait_s, rel=0.3)


def test_an_upload_that_outlives_its_signature_is_no_refused_login(world, archive):
    world.server.expired = 1
    with pytest.raises(StoreUnreachable, match="upload address is no longer good"):
        world.open().put(archive, NAME)
    world.open().put(archive, NAME)
    assert world.bytes_of(NAME) == archive.read_bytes()


@pytest.mark.parametrize("portal", [b"<html>Log in to our Wi-Fi</html>", b"[]", b"{}", b'"yes"'])
def test_what_something_in_between_answers_is_no_crash_and_worth_another_attempt(
    world, archive, portal
):
    store = world.open()
    world.server.portal = portal
    with pytest.raises(StoreUnreachable, match="something in between"):
        store.put(archive, NAME)
    world.server.portal = b""
    store.put(archive, NAME)
