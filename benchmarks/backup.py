"""A dump against plain pg_dump, a restore against plain pg_restore, and the memory of all of it.

The database is pgbench's at scale 40, whose rows are blanks for the most part, and one of the same
with 400,000 messages besides: there is text in what people keep. Each figure is the least of some
rounds, ours and the plain program's by turns; CPU is of all programs but the server's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time  # noqa: TID251
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.world import PYTHON, ROOT, Row, limited, say, wait
from jobs.backup import source
from jobs.backup.clients import Clients, find
from jobs.backup.dump import kinds, publish, reread
from jobs.backup.form import Copy, Manifest, Plan, Timeouts
from jobs.backup.scratch import own_server
from jobs.backup.stores.base import hash_file
from jobs.backup.targets import Target

SCALE = 40
ROUNDS = 3
VERSION = "16"
MESSAGES = """
create table messages (id bigint primary key, session int not null, role text, said text);
with soup as materialized (
  select array_agg(substr(translate(md5(i::text), '0123456789', 'etaoinshrd'), 1, 2 + i % 7)
    order by i) w from generate_series(0, 2047) i)
insert into messages select id, id / 20, case id % 2 when 0 then 'user' else 'assistant' end,
  (select string_agg(w[1 + ((h & 2047) * ((h >> 11) & 2047) >> 11)], ' ')
   from (select hashint8extended(id * 64 + n, 7) & 4194303 h from generate_series(1, 60) n) x)
from soup, generate_series(1, 400000) id
"""
ZSTD = (
    "import sys, zstandard as z; z.ZstdCompressor(level=2, write_checksum=True)"
    ".copy_stream(sys.stdin.buffer, sys.stdout.buffer)"
)
CRYPT = """[disk]
type = alias
remote = {disk}

[sealed]
type = crypt
remote = disk:
password = {password}
"""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of CPU, ended children included, and on the clock."""

    cpu_s: float
    wall_s: float

    def least(self, other: Took | None) -> Took:
        if other is None:
            return self
        return Took(min(self.cpu_s, other.cpu_s), min(self.wall_s, other.wall_s))


@dataclass(frozen=True, slots=True)
class Held:
    """The most memory at one time, in MB: of all (shared pages shared out); of each, its RSS."""

    total: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Place:
    """A server, the programs for it, where files go, and how the programs find it."""

    dsn: str
    clients: Clients
    folder: Path
    env: dict[str, str]

    def at(self, database: str) -> str:
        return make_conninfo(self.dsn, dbname=database)

    def plan(self, database: str) -> dict[str, Any]:
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        copies = (Copy(Target.parse("rclone:gdrive:aion")),)
        return Plan("main", self.at(database), copies, str(spool)).to_json()


# ── programs, timed and weighed ─────────────────────────────────────────────────────────────────


def timed(argv: list[str], env: Mapping[str, str], said: bytes = b"") -> Took:
    """Run a program; raises RuntimeError if it fails."""
    began = time.perf_counter()
    process = _started(argv, env, said)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{argv[:4]} ended with {process.returncode}")
    return Took(used.ru_utime + used.ru_stime, time.perf_counter() - began)


def weighed(said: dict[str, Any]) -> Held:
    """Do something as the child does it, and look at the memory of all its programs meanwhile."""
    process = _started(_child(), dict(os.environ), json.dumps(said).encode())
    most, parts = 0.0, dict[str, float]()
    while process.poll() is None:
        total = 0.0
        for pid in _family(process.pid):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                total += _mb(pid, "smaps_rollup", "Pss:")
                # A helper is a Python too, but not the one that streams.
                name = name if pid == process.pid or name != "python" else "helper"
                parts[name] = max(parts.get(name, 0.0), _mb(pid, "status", "VmRSS:"))
            except (OSError, ValueError):
                continue  # it ended under us
        most = max(most, total)
        time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"{said['do']} ended with {process.returncode}")
    return Held(most, parts)


def _started(argv: list[str], env: Mapping[str, str], said: bytes) -> subprocess.Popen[bytes]:
    with tempfile.TemporaryFile() as file:
        file.write(said)
        file.seek(0)
        return subprocess.Popen(argv, env=env, cwd=ROOT, stdin=file, stdout=subprocess.DEVNULL)


def _child() -> list[str]:
    return [PYTHON, "-m", "benchmarks.dumping"]


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return  # it ended under us
    for thread in threads:
        try:
            found = thread.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from _family(int(child))


def _mb(pid: int, file: str, field: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


# ── what is measured ────────────────────────────────────────────────────────────────────────────


@contextmanager
def _place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="aion-bench-") as name:
        folder = Path(name)
        clients = find(int(VERSION) * 10_000, tls=False, also=("pgbench", "postgres"))
        with (
            own_server(VERSION, folder) as dsn,
            source.door(dsn, Timeouts(), folder) as env,
        ):
            place = Place(dsn, clients, folder, env)
            _fill(place)
            yield place


def _fill(place: Place) -> None:
    say("  pgbench -i and messages")
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute("create database blanks")
        argv = [place.clients.path("pgbench"), "-i", "-q", "-s", str(SCALE)]
        env = {**place.env, "PGDATABASE": "blanks", "PGSERVICE": "aion"}
        subprocess.run(argv, env=env, check=True, capture_output=True)
        connection.execute("create database texts template blanks")
    with psycopg.connect(place.at("texts"), autocommit=True) as connection:
        connection.execute(MESSAGES)


def _dumps(place: Place, database: str) -> tuple[Took, Took, Took, int, Manifest]:
    """Ours, pg_dump's, the bare pipe's; the size of pg_dump's archive, and what ours became."""
    env = {**place.env, "PATH": os.environ["PATH"]}
    plain = f'"{place.clients.path("pg_dump")}" -Fc -d "service=aion dbname={database}"'
    file = place.folder / f"{database}.dump"
    asked = json.dumps({"do": "dump", "plan": place.plan(database)}).encode()
    ours = dumped = bare = None
    for _ in range(ROUNDS):
        dumped = timed(["sh", "-c", f'{plain} > "{file}"'], env).least(dumped)
        shutil.rmtree(place.folder / "spool", ignore_errors=True)
        place.plan(database)
        ours = timed(_child(), dict(os.environ), asked).least(ours)
        pipe = f'{plain} -Z0 | "{PYTHON}" -c "{ZSTD}" > "{file}.zst"'
        bare = timed(["sh", "-c", pipe], env).least(bare)
    assert ours is not None
    assert dumped is not None
    assert bare is not None
    folder = next((place.folder / "spool/dumps").iterdir())
    made = Manifest.load((folder / "manifest.json").read_bytes())
    return ours, dumped, bare, file.stat().st_size, made


def _hashing_s(place: Place, made: Manifest) -> float:
    """CPU of what hashing, reading back and the manifest take, for the archive of `made`."""
    folder = place.folder / "spool/dumps" / made.id
    work = place.folder / "again"
    shutil.copytree(folder, work)
    wanted = kinds(Plan.from_json(place.plan("texts")))
    began = time.process_time()
    hash_file(work / made.archive, wanted)
    reread(work / made.archive, made, lambda *_: None)
    publish(work, place.folder / "there" / made.id, made)
    return time.process_time() - began


def _restores(place: Place) -> tuple[Took, Took, Took]:
    """Plain pg_restore of pg_dump's archive, ours of the same, ours of our own; two at a time."""
    seekable, own = place.folder / "seekable", place.folder / "spool/dumps"
    _as_our_own(place.folder / "texts.dump", next(own.iterdir()), seekable)
    argv = [place.clients.path("pg_restore"), "-j2", "--no-owner", "-d", "service=aion dbname=back"]
    plain = [*argv, str(place.folder / "texts.dump")]
    found: list[Took | None] = [None, None, None]
    for _ in range(ROUNDS - 1):
        for at, kept in enumerate((None, seekable, own)):
            with _empty(place) as dsn:
                asked = {"do": "restore", "target": f"file:{kept}", "dsn": dsn}
                said = json.dumps({**asked, "private": str(place.folder)}).encode()
                one = timed(_child(), dict(os.environ), said) if kept else timed(plain, place.env)
                found[at] = one.least(found[at])
    first, second, third = (one for one in found if one is not None)
    return first, second, third


def _as_our_own(archive: Path, like: Path, to: Path) -> None:
    """Put an archive of pg_dump's into a folder as if zstd had been inside."""
    made = Manifest.load((like / "manifest.json").read_bytes())
    size, sha256 = archive.stat().st_size, hash_file(archive, ("sha256",))["sha256"]
    plain = replace(made, packed="", plain_size=size, size=size, sha256=sha256, hashes={})
    plain = replace(plain, plain_sha256=sha256)
    work = to.with_name("work")
    work.mkdir()
    shutil.copy(archive, work / plain.archive)
    publish(work, to / made.id, plain)


@contextmanager
def _empty(place: Place) -> Iterator[str]:
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute("create database back")
        yield place.at("back")
        connection.execute("drop database back with (force)")


def _uploads(place: Place) -> list[Row]:
    """What an upload holds: through rclone with crypt, and to Google Cloud Storage."""
    file = str(next((place.folder / "spool/dumps").glob("*/archive*")))
    rclone, disk = str(Path(sys.executable).with_name("rclone")), place.folder / "disk"
    hidden = subprocess.run([rclone, "obscure", "a word"], capture_output=True, check=True).stdout
    text = CRYPT.format(disk=disk, password=hidden.decode().strip())
    asked = {"do": "put", "file": file, "private": str(place.folder / "private")}
    access = {"rclone_config": text, "rclone": rclone}
    through = weighed({**asked, "target": "rclone:sealed:x", "access": access})
    with _emulator() as endpoint:
        google = weighed({**asked, "target": "gs://bucket/x", "access": {"endpoint": endpoint}})
    return [
        limited("memory of an upload, rclone with crypt", through.parts["rclone"], 90, "MB"),
        limited("memory of an upload, rclone with crypt, all in", through.total, None, "MB"),
        limited("memory of an upload, Google Cloud Storage", google.parts["python"], 90, "MB"),
    ]


@contextmanager
def _emulator() -> Iterator[str]:
    program, port = str(Path(sys.executable).with_name("gcp-storage-emulator")), "9713"
    argv = [
        program,
        "start",
        "-H",
        "127.0.0.1",
        "--port",
        port,
        "-q",
        "-M",
        "--default-bucket",
        "bucket",
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: _answers(int(port)), 30)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with _place() as place:
        say("  dumps")
        rows = _compared(place, "blanks", "dump of blanks", (None, None))
        held = weighed({"do": "dump", "plan": place.plan("blanks")})
        rows += _compared(place, "texts", "dump", (0.6, 0.6))
        rows += [
            limited("memory of a dump, all programs", held.total, 75, "MB"),
            limited("memory of a dump, Python", held.parts["python"], 30, "MB"),
        ]
        say("  uploads and restores")
        rows += _uploads(place)
        plain, seekable, own = (took.wall_s for took in _restores(place))
        return [
            *rows,
            limited("restore of an archive that can be sought in", seekable / plain, 1.1, "times"),
            limited("restore of one that is unpacked first", own / plain, None, "times"),
        ]


def _compared(
    place: Place, database: str, name: str, most: tuple[float | None, float | None]
) -> list[Row]:
    ours, plain, bare, size, made = _dumps(place, database)
    rows = [
        limited(f"{name}: CPU against pg_dump -Fc", ours.cpu_s / plain.cpu_s, most[0], "times"),
        limited(f"{name}: time against pg_dump -Fc", ours.wall_s / plain.wall_s, most[1], "times"),
        limited(f"{name}: size against pg_dump -Fc", made.size / size, 0.95, "times"),
        limited(f"{name}: CPU, bare pipe", bare.cpu_s / plain.cpu_s, None, "times"),
    ]
    if any(most):
        part = 100 * _hashing_s(place, made) / bare.cpu_s
        rows.append(limited(f"{name}: hashing and manifest over the bare pipe", part, 10, "%"))
    return rows
