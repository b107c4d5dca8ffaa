"""Real stores for the tests of backups: folders, rclone's remotes and servers, stand-ins."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time  # noqa: TID251 - these are deadlines of tests
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from jobs.backup.form import Access
from jobs.backup.stores import open_store
from jobs.backup.stores.base import Store
from jobs.backup.targets import Target
from tests.backup import gcs_standin, hub_standin
from tests.ports import free_port

DEADLINE_S = 60.0
SECRET = "canary-secret-7c1e55ab"
"""In every credential of every store; found nowhere else."""


def rclone() -> str:
    """The rclone that the development lock installs. Missing, the test fails: it is never skipped."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "rclone is not there: make setup"
    return found


def wait_for(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < until, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.02)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def serving(argv: list[str], port: int, folder: Path, **env: str) -> Iterator[None]:
    """A real server as a child process, for as long as the block."""
    log = (folder / f"server-{port}.log").open("wb")
    process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **env})
    try:
        wait_for(lambda: answers(port) or process.poll() is not None, argv[0])
        assert process.poll() is None, Path(log.name).read_text()[-2000:]
        yield
    finally:
        process.kill()
        process.wait()
        log.close()


def obscured(password: str) -> str:
    done = subprocess.run(
        [rclone(), "obscure", "-"], input=password, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@dataclass
class World:
    """One kind of store, real: how to open it, and how to lay hands on what it holds."""

    target: Target
    access: Access
    private: Path
    bytes_of: Callable[[str], bytes | None]
    """What the store holds under a name, behind its back; None if nothing."""
    flip: Callable[[str], None]
    """Damages an object behind the store's back."""
    stray: Callable[[str, bytes], None]
    """Puts something beside the address that is none of ours."""
    opened: list[Store] = field(default_factory=list)
    server: Any = None
    """Our own stand-in, to make it misbehave."""

    def open(self, **changes) -> Store:
        made = open_store(
            self.target,
            dataclasses.replace(self.access, **changes),
            self.private,
        )
        self.opened.append(made)
        return made


def folder_world(
    tmp: Path, target: str, access: Access, base: Path, beside: Path, suffix: str = ""
) -> World:
    """A store whose bytes lie in a folder of this machine, be it behind a server."""

    def bytes_of(name: str) -> bytes | None:
        path = base / (name + suffix)
        return path.read_bytes() if path.exists() else None

    def flip(name: str) -> None:
        path = base / (name + suffix)
        stat = path.stat()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))

    def stray(name: str, data: bytes) -> None:
        path = beside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return World(Target.parse(target), access, tmp / "private", bytes_of, flip, stray)


def file_world(tmp: Path) -> Iterator[World]:
    base = tmp / "store" / "backups"
    # /tmp of a test has names that the grammar may not have
    assert re.fullmatch(r"[A-Za-z0-9._/-]+", str(base))
    yield folder_world(tmp, f"file:{base}", Access(), base, base.parent)


def drive_world(tmp: Path) -> Iterator[World]:
    """As Drive through rclone 1.75: md5, sha1 and sha256, and it can rename."""
    disk = tmp / "disk"
    disk.mkdir()
    text = (
        f"[disk]\ntype = alias\nremote = {disk}\n\n"
        f"[gdrive]\ntype = hasher\nremote = disk:\nhashes = md5,sha1,sha256\nmax_age = off\ntoken = {SECRET}\n"
    )
    yield folder_world(
        tmp,
        "rclone:gdrive:aion/backups",
        Access(rclone_config=text, rclone=rclone()),
        disk / "aion/backups",
        disk / "aion",
    )


def sftp_world(tmp: Path) -> Iterator[World]:
    disk, port = tmp / "disk", free_port()
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
    text = f"[nas]\ntype = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\npass = {obscured(SECRET)}\nshell_type = unix\n"
    with serving(argv, port, tmp, RCLONE_CACHE_DIR=str(tmp / "cache")):
        yield folder_world(
            tmp,
            "rclone:nas:aion/backups",
            Access(rclone_config=text, rclone=rclone()),
            disk / "aion/backups",
            disk / "aion",
        )


def s3_world(tmp: Path) -> Iterator[World]:
    disk, port = tmp / "disk", free_port()
    (disk / "bucket").mkdir(parents=True)
    key = "AKIAIOSFODNN7EXAMPLE"
    argv = [
        rclone(),
        "serve",
        "s3",
        str(disk),
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{key},{SECRET}{SECRET}",
        "--config",
        os.devnull,
    ]
    text = (
        f"[s3]\ntype = s3\nprovider = Rclone\nendpoint = http://127.0.0.1:{port}\naccess_key_id = {key}\n"
        f"secret_access_key = {SECRET}{SECRET}\nforce_path_style = true\n"
    )
    with serving(argv, port, tmp, RCLONE_CACHE_DIR=str(tmp / "cache")):
        base = disk / "bucket/aion"
        yield folder_world(
            tmp,
            "rclone:s3:bucket/aion",
            Access(rclone_config=text, rclone=rclone()),
            base,
            disk / "bucket",
        )


def crypt_world(tmp: Path) -> Iterator[World]:
    disk = tmp / "disk"
    disk.mkdir()
    text = (
        f"[disk]\ntype = alias\nremote = {disk}\n\n"
        f"[sealed]\ntype = crypt\nremote = disk:\nfilename_encryption = off\ndirectory_name_encryption = false\npassword = {obscured(SECRET)}\n"
    )
    yield folder_world(
        tmp,
        "rclone:sealed:aion/backups",
        Access(rclone_config=text, rclone=rclone()),
        disk / "aion/backups",
        disk / "aion",
        ".bin",
    )


def gcs_world(tmp: Path) -> Iterator[World]:
    """The emulator that others wrote: lenient, but not ours."""
    port = free_port()
    program = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    argv = [
        program,
        "start",
        "-H",
        "127.0.0.1",
        "--port",
        str(port),
        "-q",
        "-M",
        "--default-bucket",
        "my-bucket",
    ]
    at = f"http://127.0.0.1:{port}"

    def bytes_of(name: str) -> bytes | None:
        answer = httpx.get(
            f"{at}/download/storage/v1/b/my-bucket/o/{quote('aion/' + name, safe='')}",
            params={"alt": "media"},
        )
        return answer.content if answer.status_code == 200 else None

    def stray(name: str, data: bytes) -> None:
        answer = httpx.post(
            f"{at}/upload/storage/v1/b/my-bucket/o",
            params={"uploadType": "media", "name": name},
            content=data,
        )
        assert answer.status_code == 200

    def flip(name: str) -> None:
        data = bytearray(bytes_of(name) or b"")
        data[len(data) // 2] ^= 1
        stray(f"aion/{name}", bytes(data))

    with serving(argv, port, tmp):
        yield World(
            Target.parse("gs://my-bucket/aion"),
            Access(endpoint=at),
            tmp / "private",
            bytes_of,
            flip,
            stray,
        )


@functools.cache
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.private_bytes(*pem).decode()


def bucket_world(tmp: Path) -> Iterator[World]:
    """Our own stand-in: as strict as Google."""
    bucket = gcs_standin.Bucket()

    def bytes_of(name: str) -> bytes | None:
        found = bucket.objects.get(f"aion/{name}")
        return found.data if found else None

    def stray(name: str, data: bytes) -> None:
        bucket.objects[name] = gcs_standin.Object(data, 1)

    def flip(name: str) -> None:
        data = bytearray(bytes_of(name) or b"")
        data[len(data) // 2] ^= 1
        stray(f"aion/{name}", bytes(data))

    with gcs_standin.standing_in(bucket) as at:
        login = {
            "type": "service_account",
            "client_email": "aion@example.org",
            "private_key_id": SECRET,
            "private_key": private_key(),
            "token_uri": f"{at}/token",
        }
        access = Access(endpoint=at, google=json.dumps(login))
        made = World(
            Target.parse("gs://my-bucket/aion"), access, tmp / "private", bytes_of, flip, stray
        )
        made.server = bucket
        yield made


def hub_world(tmp: Path) -> Iterator[World]:
    held = hub_standin.Dataset()

    def flip(name: str) -> None:
        data = bytearray(held.bytes_of(f"aion/{name}") or b"")
        data[len(data) // 2] ^= 1
        held.place(f"aion/{name}", bytes(data))

    with hub_standin.standing_in(held) as at:
        access = Access(endpoint=at, hub_token=held.token)
        target = Target.parse("hf://datasets/user/name/aion")
        yield World(
            target,
            access,
            tmp / "private",
            lambda name: held.bytes_of(f"aion/{name}"),
            flip,
            held.place,
            server=held,
        )
