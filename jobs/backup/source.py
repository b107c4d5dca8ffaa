"""The database that is dumped or restored into: asked by psycopg, named to programs by files.

psycopg takes more memory than all the rest of a dump: `jobs.backup.asking` has it in a process of
its own, and a dump is made with what that one found out.

A password is never in an argument list or an environment: programs find the whole connection in a
service file and the password in a PGPASSFILE, both 0600 in a private folder that is thrown away.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from jobs.backup.clients import environment
from jobs.backup.errors import SourceFailed
from jobs.backup.form import Timeouts
from jobs.backup.stores.base import first_line
from jobs.backup.stores.landing import landing
from orchestrator.childside import redact

if TYPE_CHECKING:
    from psycopg import Connection

SERVICE: Final = "aion"
TRANSACTION_POOLER: Final = "6543"
_SUPABASE_POOLER: Final = re.compile(r".+\.pooler\.supabase\.(com|co)")
_SUPABASE_DIRECT: Final = re.compile(r"db\.[a-z0-9]+\.supabase\.(co|com)")
_SECRET: Final = ("password", "sslpassword", "oauth_client_secret")
_PASSWORDS: Final = re.compile(r"password\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))")
_FOREIGN: Final = frozenset((
    "charset", "connection_limit", "max_overflow", "pgbouncer", "pool_size", "pool_timeout",
    "prepared_statement_cache_size", "schema", "socket_timeout", "ssl", "sslaccept",
    "statement_cache_size", "supa",
))  # fmt: skip
_SHORT: Final = 4
"""Pieces of a password shorter than this are not blotted out: they stand in any text."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. `size`: of the database, in bytes; `tls`: how we reached it."""

    num: int
    version: str
    database: str
    size: int
    tls: bool
    superuser: bool


def parameters(dsn: str) -> dict[str, str]:
    """Return a DSN's parts. Raises `SourceFailed` saying what is wrong, never the DSN."""
    from psycopg import ProgrammingError  # noqa: PLC0415 - heavy, and only where it is used
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - as above

    plain = re.sub(r"^postgres(ql)?\+[a-z0-9]+://", "postgresql://", dsn.strip())
    try:
        found = {key: str(value) for key, value in conninfo_to_dict(plain).items()}
    except (ProgrammingError, UnicodeError) as error:
        if (odd := re.search(r'"(\w+)"$', str(error).strip())) and odd[1] in _FOREIGN:
            raise SourceFailed(
                f"the DSN's parameter `{odd[1]}` is of another library and unknown to PostgreSQL: "
                "leave it out"
            ) from None
        # libpq quotes the part it cannot read, which may be of a password with an `@` or `/` in it.
        raise SourceFailed(
            "the DSN cannot be read; characters of a password such as @ : / ? # % are written as "
            "%40 %3A %2F %3F %23 %25"
        ) from None
    if any(c in value for value in found.values() for c in "\n\r\0"):
        raise SourceFailed("the DSN holds a line break")
    if "service" in found:
        raise SourceFailed("the DSN names a service; write out host, database and user instead")
    if _is_transaction_pooler(found):
        raise SourceFailed(
            "port 6543 is Supabase's transaction pooler, which breaks pg_dump; "
            "use the session pooler: the same host with port 5432"
        )
    return found


def _is_transaction_pooler(found: Mapping[str, str]) -> bool:
    host = found.get("host", "").lower()
    supabase = _SUPABASE_POOLER.fullmatch(host) or _SUPABASE_DIRECT.fullmatch(host)
    return bool(supabase) and found.get("port") == TRANSACTION_POOLER


def is_supabase(dsn: str) -> bool:
    """Say whether a DSN leads to Supabase."""
    return parameters(dsn).get("host", "").lower().endswith((".supabase.co", ".supabase.com"))


def secrets(dsn: str, known: Mapping[str, str] | None = None) -> frozenset[str]:
    """Return the pieces of a DSN that must not be shown, of one that is not well formed too.

    `known`: its parts, where they were read already.
    """
    userinfo = dsn.partition("://")[2].rpartition("@")[0]
    found = {userinfo.partition(":")[2]}
    found.update(a or b for a, b in _PASSWORDS.findall(dsn))
    with contextlib.suppress(SourceFailed):
        known = parameters(dsn) if known is None else known
        found.update(known[key] for key in _SECRET if key in known)
    pieces: set[str] = set()
    for text in found:
        for form in (text, unquote(text), re.sub(r"\\(.)", r"\1", text)):
            pieces.add(form)
            pieces.update(re.split(r"[/@?&=#:]", form))
    return frozenset(piece for piece in pieces if len(piece) >= _SHORT)


def told(error: BaseException | str, dsn: str) -> str:
    """Return the first line of an error, without anything secret of the DSN."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return first_line(redact(text, secrets(dsn)), 300)


@contextmanager
def connect(dsn: str, timeouts: Timeouts, **more: Any) -> Iterator[Connection[Any]]:
    """Open a connection with bounded waits; it is autocommitting. Raises `SourceFailed`."""
    import psycopg  # noqa: PLC0415 - heavy, and only where it is used

    given = parameters(dsn)
    options = (
        f"-c statement_timeout={int(timeouts.statement_s * 1000)} "
        f"-c lock_timeout={int(timeouts.lock_s * 1000)}"
    )
    given["options"] = f"{given.get('options', '')} {options}".strip()
    given.setdefault("connect_timeout", str(max(2, int(timeouts.connect_s))))
    given.setdefault("client_encoding", "UTF8")
    given["application_name"] = "aion-backup"
    try:
        with psycopg.connect(**{**given, **more}, autocommit=True) as connection:
            yield connection
    except psycopg.Error as error:
        raise SourceFailed(f"the database: {told(error, dsn)}{_hint(given)}") from None


def _hint(given: Mapping[str, str]) -> str:
    if _SUPABASE_DIRECT.fullmatch(given.get("host", "").lower()):
        return (
            " (Supabase's direct host has IPv6 only; where there is none, use the session pooler: "
            "aws-…pooler.supabase.com, port 5432)"
        )
    return ""


def look(dsn: str, timeouts: Timeouts) -> Server:
    """Ask a server what it is. Raises `SourceFailed`."""
    with connect(dsn, timeouts) as connection:
        row = connection.execute(
            "select current_setting('server_version_num')::int, current_setting('server_version'),"
            " current_database(), pg_database_size(current_database()),"
            " coalesce((select rolsuper from pg_roles where rolname = current_user), false)"
        ).fetchone()
        assert row is not None
        num, version, database, size, superuser = row
        return Server(num, version, database, size, connection.pgconn.ssl_in_use, superuser)


@contextmanager
def door(
    dsn: str, timeouts: Timeouts, private: Path, *, tls: bool = False, **more: str
) -> Iterator[dict[str, str]]:
    """Write the connection into private files; yields the environment that leads to them.

    Programs are given `--dbname=service=aion`. `tls`: we reached the server by TLS, so they must
    too, whatever the DSN would let them fall back to. `more` replaces parts of the DSN.
    """
    with doorway({**parameters(dsn), **more}, timeouts, private, tls=tls) as env:
        yield env


@contextmanager
def doorway(
    parts: Mapping[str, str], timeouts: Timeouts, private: Path, *, tls: bool = False
) -> Iterator[dict[str, str]]:
    """Do as `door` does, for the parts of a DSN."""
    given = dict(parts)
    if tls and given.get("sslmode", "prefer") in {"disable", "allow", "prefer"}:
        given["sslmode"] = "require"
    given.setdefault("connect_timeout", str(max(2, int(timeouts.connect_s))))
    given["application_name"] = "aion-backup"
    password = given.pop("password", None)
    if password is not None:
        given.pop("passfile", None)  # it would count more than the file that we name
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=private))
    try:
        env = environment()
        service = "".join(f"{key}={value}\n" for key, value in given.items())
        _write(folder / "service", f"[{SERVICE}]\n{service}".encode())
        env["PGSERVICEFILE"] = str(folder / "service")
        if password is not None:
            escaped = re.sub(r"([\\:])", r"\\\1", password)
            _write(folder / "pass", f"*:*:*:*:{escaped}\n".encode())
            env["PGPASSFILE"] = str(folder / "pass")
        yield env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with landing(path) as file:
        file.write(data)
