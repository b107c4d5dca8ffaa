"""Copies in Google Cloud Storage when something goes wrong, against a stand-in as strict as Google."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.backup.errors import (
    BadTarget,
    Conflict,
    Corrupt,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.stores.base import Store
from tests.backup import worlds
from tests.backup.worlds import World, wait_for

NAME = "main-000001-20261121T030005Z/archive.dump"
MB = 1024 * 1024
CHUNKS = 5
SIZE = (CHUNKS - 1) * MB + 12345


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    made = worlds.bucket_world(tmp_path)
    yield next(made)
    next(made, None)


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "archive.dump"
    path.write_bytes(os.urandom(SIZE))
    return path


def put_until_done(world: World, archive: Path, attempts: int = 8) -> int:
    """As the caller does: again with a new store, as after a crash, until it works."""
    for attempt in range(1, attempts + 1):
        try:
            world.open().put(archive, NAME)
        except StoreBroken as error:
            assert error.retry, error
        else:
            return attempt
    raise AssertionError(f"not in {attempts} attempts")


@pytest.mark.parametrize("fault", ["cut", "lost", "half", "503", "gone"])
@pytest.mark.parametrize("at", range(CHUNKS))
def test_an_upload_cut_at_any_chunk_goes_on(world, archive, fault, at):
    world.server.faults = [""] * at + [fault]
    put_until_done(world, archive)
    assert world.bytes_of(NAME) == archive.read_bytes()
    assert len(world.server.objects) == 1
    if fault != "gone":
        assert world.server.started == 1, "it began anew"
        assert len(world.server.chunks) <= CHUNKS + 2
    assert not list(world.private.rglob("*.json")), "a session of a finished upload is remembered"


def test_an_upload_cut_at_every_chunk_goes_on(world, archive):
    world.server.faults = list(itertools.chain.from_iterable(("cut", "") for _ in range(CHUNKS)))
    put_until_done(world, archive)
    assert world.bytes_of(NAME) == archive.read_bytes()
    assert world.server.started == 1


def test_an_upload_that_never_gets_anywhere_is_given_up_and_goes_on_later(world, archive):
    world.server.faults = ["", ""] + ["cut"] * 20
    with pytest.raises(StoreUnreachable) as caught:
        world.open().put(archive, NAME)
    assert caught.value.retry
    assert len(world.server.chunks) < 10, "it hammers"
    world.server.faults = []
    world.server.chunks.clear()
    put_until_done(world, archive)
    assert world.server.chunks[0] == 2 * MB, "what was there already was sent again"


PUT = """
import json, os, sys
from pathlib import Path
from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
asked = json.loads(sys.stdin.readline())
store = open_store(Target.parse(asked["url"]), Access.from_json(asked["access"]), Path(asked["private"]))
store.put(Path(asked["local"]), asked["name"], progress=lambda done, total: print(done, flush=True))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak_kb", peak.split()[1], flush=True)
"""


def uploading(world: World, archive: Path) -> subprocess.Popen[str]:
    import json

    child = subprocess.Popen(
        [sys.executable, "-c", PUT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    asked = {
        "url": world.target.url,
        "access": world.access.to_json(),
        "private": str(world.private),
        "local": str(archive),
        "name": NAME,
    }
    assert child.stdin
    child.stdin.write(json.dumps(asked) + "\n")
    child.stdin.flush()
    return child


def test_another_process_goes_on_where_a_killed_one_was(world, archive):
    with uploading(world, archive) as child:
        assert child.stdout
        wait_for(lambda: int(child.stdout.readline()) >= 2 * MB, "two chunks")
        child.send_signal(signal.SIGKILL)
    world.server.chunks.clear()
    (remembered,) = world.private.rglob("*.json")
    assert remembered.stat().st_mode & 0o077 == 0
    with uploading(world, archive) as child:
        said = child.communicate()[0]
        assert child.returncode == 0, said
    assert world.bytes_of(NAME) == archive.read_bytes()
    assert world.server.started == 1
    assert not world.server.chunks or world.server.chunks[0] >= 2 * MB


def test_a_session_of_another_file_is_not_continued(world, archive):
    world.server.faults = [""] + ["cut"] * 20
    with pytest.raises(StoreUnreachable):
        world.open().put(archive, NAME)
    world.server.faults = []
    archive.write_bytes(os.urandom(SIZE))
    put_until_done(world, archive)
    assert world.bytes_of(NAME) == archive.read_bytes()


def test_what_another_writer_put_there_meanwhile_stays(world, archive):
    done: list[int] = []

    def meanwhile(sent: int, total: int) -> None:
        if sent >= 2 * MB and not done:
            done.append(sent)
            world.stray(f"aion/{NAME}", b"theirs")

    with pytest.raises(Conflict):
        world.open().put(archive, NAME, progress=meanwhile)
    assert world.bytes_of(NAME) == b"theirs"


def test_a_lost_answer_to_the_last_chunk_is_success(world, archive):
    world.server.faults = [""] * (CHUNKS - 1) + ["lost"]
    put_until_done(world, archive)
    assert world.bytes_of(NAME) == archive.read_bytes()


def test_an_answer_of_200_with_the_wrong_hash_is_no_success(world, archive):
    world.server.lie = True
    with pytest.raises(Corrupt) as caught:
        world.open().put(archive, NAME)
    assert caught.value.retry
    assert world.bytes_of(NAME) is None, "what is wrong stays under that name"
    world.server.lie = False
    put_until_done(world, archive)


def test_an_object_with_the_wrong_hash_that_may_not_be_deleted_is_never_taken_for_ours(
    world, archive
):
    world.server.lie, world.server.no_delete = True, True
    for kind in (Corrupt, Conflict):
        with pytest.raises(kind):
            world.open().put(archive, NAME)


def test_a_file_that_changes_while_it_is_sent_is_refused_by_the_server(world, archive):
    world.server.no_delete = True  # so it must not even be made
    archive.write_bytes(archive.read_bytes()[:-1] + b".")

    def change(sent: int, total: int) -> None:
        with archive.open("r+b") as file:
            file.seek(SIZE - 1)
            file.write(b"?" if archive.read_bytes()[-1:] != b"?" else b"!")

    with pytest.raises(StoreBroken):
        world.open().put(archive, NAME, progress=change)
    assert world.bytes_of(NAME) is None


REFUSALS = (
    (401, "Invalid Credentials", CredentialExpired),
    (403, "aion@x does not have storage.objects.create access", CredentialRefused),
    (403, "The project exceeded the rate limit for creating buckets", StoreUnreachable),
    (403, "The user's storage quota has been exceeded", StoreFullError),
    (404, "The specified bucket does not exist.", NotFound),
    (429, "slow down", StoreUnreachable),
    (400, "see https://storage.googleapis.com/x?upload_id=canary-upload-id", StoreBroken),
)


@pytest.mark.parametrize(("status", "said", "kind"), REFUSALS)
def test_what_is_refused_is_told_in_one_line(world, archive, status, said, kind):
    store = world.open()
    world.server.refuse = (status, said)
    asks = [store.list]
    if status not in {
        404,
        429,
    }:  # nothing there is no error to these; the library waits a while for 429
        asks += [lambda: store.put(archive, NAME), lambda: store.read(NAME, 9)]
    for ask in asks:
        with pytest.raises(StoreBroken) as caught:
            ask()
        assert type(caught.value) is kind
        assert "\n" not in str(caught.value)
        assert "canary" not in str(caught.value)


def test_a_login_that_expired_is_told_as_such_everywhere(world, archive):
    world.server.grant = "invalid_grant"
    store = world.open()
    for ask in (
        store.list,
        lambda: store.put(archive, NAME),
        lambda: store.read(NAME, 9),
        lambda: store.delete(NAME),
        lambda: store.check(NAME, {}),
    ):
        with pytest.raises(CredentialExpired, match="invalid_grant"):
            ask()


def test_no_answer_at_all_is_worth_another_attempt(world, archive):
    at = f"http://127.0.0.1:{worlds.free_port()}"
    store = open_store(world.target, Access(endpoint=at), world.private)
    with pytest.raises(StoreUnreachable):
        store.put(archive, NAME)


@pytest.mark.parametrize(
    "google",
    [
        "{",
        "[]",
        '"x"',
        '{"type": "external_account"}',
        '{"type": "service_account"}',
        "canary-not-json",
    ],
)
def test_a_credential_that_cannot_be_used_is_told_without_showing_it(world, google):
    with pytest.raises(BadTarget) as caught:
        world.open(google=google)
    assert "canary" not in str(caught.value)


def secrets(world: World) -> list[str]:
    pem = worlds.private_key().splitlines()[1:-1]
    return [*pem, world.server.token, "canary-session", worlds.SECRET]


def test_no_secret_is_in_a_log_or_an_exception(world, archive, caplog):
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    for fault, refuse in (("cut", None), ("gone", None), ("", (400, "x")), ("", (403, "y"))):
        world.server.faults, world.server.refuse = ["", *[fault] * 9], refuse
        try:
            world.open().put(archive, NAME)
        except StoreBroken as error:
            chain: BaseException | None = error
            while chain is not None and not (chain is not error and error.__suppress_context__):
                shown += [str(chain), repr(chain)]
                chain = chain.__cause__ or chain.__context__
    assert shown
    store: Store = world.open()
    shown += [repr(store), repr(world.access), store.url]
    for secret in secrets(world):
        assert secret not in "\n".join(shown)


def test_an_access_shown_shows_no_secret(world):
    assert not [
        secret for secret in secrets(world) if secret in repr(dataclasses.replace(world.access))
    ]


def test_an_upload_takes_little_memory_whatever_the_size(world, tmp_path):
    archive = tmp_path / "large"
    with archive.open("wb") as file:
        file.truncate(300 * MB)
    with uploading(world, archive) as child:
        said = child.communicate()[0].split()
    assert child.returncode == 0
    peak_mb = int(said[said.index("peak_kb") + 1]) / 1024
    print(f"peak of an upload of 300 MB: {peak_mb:.0f} MB")
    assert peak_mb <= 90


# ── what is seen on the wire, and what is said of it ────────────────────────────────────────────


def test_nothing_is_asked_for_but_objects(world, archive):
    """The library would look up the bucket itself, which whoever only writes objects may not."""
    store = world.open()
    store.put(archive, NAME)
    store.list()
    store.get(NAME, archive.with_name("back"))
    store.check(NAME, {"md5": "0" * 32})
    store.delete(NAME)
    strange = [one for one in world.server.asked if not re.search(r"/o\b|/session/|/token", one)]
    assert strange == []


@pytest.mark.parametrize(
    ("after", "wait_s"),
    [("77", 77.0), ("Sat, 21 Nov 2099 03:00:00 GMT", 2e9), ("soon", 0.0), ("", 0.0)],
)
def test_a_server_that_keeps_failing_is_told_with_the_wait_it_asked_for(world, after, wait_s):
    store = world.open()
    world.server.refuse = (503, "Backend Error")
    world.server.headers = {"Retry_After": after}
    with pytest.raises(StoreUnreachable, match="HTTP 503: Backend Error") as caught:
        store.list()
    assert caught.value.retry_after_s == pytest.approx(wait_s, rel=0.3)


def test_a_server_that_asks_for_a_long_wait_gets_it_and_the_upload_goes_on(world, archive):
    world.server.faults = ["", "later"]
    with pytest.raises(StoreUnreachable, match="slow down") as caught:
        world.open().put(archive, NAME)
    assert caught.value.retry_after_s == 77
    assert len(world.server.chunks) == 2, "it was asked again at once"
    world.open().put(archive, NAME)
    assert world.server.started == 1
    assert world.bytes_of(NAME) == archive.read_bytes()


def test_a_server_that_forgets_what_it_had_is_sent_all_of_it_again(world, archive):
    world.server.faults = [""] * (CHUNKS - 1) + ["forgot"]
    world.open().put(archive, NAME)
    assert world.bytes_of(NAME) == archive.read_bytes()


REASONS = (
    ("Quota exceeded for quota metric 'Writes'", "rateLimitExceeded", StoreUnreachable, "slow"),
    ("Daily Limit Exceeded", "dailyLimitExceeded", StoreUnreachable, "slow"),
    ("The project's quota is used up", "quotaExceeded", StoreUnreachable, "slow"),
    ("The billing account is disabled in state absent", "accountDisabled", CredentialRefused, "bill"),
    ("Forbidden", "forbidden", CredentialRefused, "refuses this login"),
)  # fmt: skip


@pytest.mark.parametrize(("said", "reason", "kind", "word"), REASONS)
def test_the_many_meanings_of_403_are_told_apart(world, said, reason, kind, word):
    """A limit of requests taken for a full store would have old dumps deleted."""
    store = world.open()
    world.server.refuse, world.server.reason = (403, said), reason
    with pytest.raises(StoreBroken, match=word) as caught:
        store.list()
    assert type(caught.value) is kind


def test_a_file_that_is_too_large_makes_nobody_delete_another(world):
    store = world.open()
    world.server.refuse = (413, "too large")
    with pytest.raises(StoreBroken, match="no file of this size") as caught:
        store.list()
    assert not isinstance(caught.value, StoreFullError)


@pytest.mark.parametrize("portal", [b"<html>Log in to our Wi-Fi</html>", b"[]", b'"yes"', b"{}"])
def test_what_something_in_between_answers_is_no_crash_and_worth_another_attempt(
    world, archive, portal
):
    store = world.open()
    store.list()
    world.server.portal = portal
    for ask in (lambda: store.put(archive, NAME), lambda: store.get(NAME, archive.with_name("b"))):
        with pytest.raises(StoreBroken) as caught:
            ask()
        assert caught.value.retry, caught.value
    world.server.portal = b""
    store.put(archive, NAME)


@pytest.mark.parametrize("word", ["<html>Bad Gateway</html>", "server_error"])
def test_a_login_that_is_not_given_just_now_is_not_over(world, word):
    world.server.grant = word
    with pytest.raises(StoreUnreachable, match="no login from Google just now"):
        world.open().list()
