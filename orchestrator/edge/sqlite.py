"""Everything that is particular to SQLite: pragmas, the lock, the ballast, copies, error texts.

The file is `aion.db`; beside it lie `aion.db.lock` (one daemon at a time), `aion.db.ballast`
(room kept for the day the disk is full), SQLite's own `-wal` and `-shm`, and the copies made
before migrations.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from orchestrator.errors import StoreError, StoreFull

BALLAST_BYTES = 1 << 20
BUSY_S = 5.0
_INCREMENTAL = 2  # https://www.sqlite.org/pragma.html#pragma_auto_vacuum
WAL_PAGES = 256  # checkpoint after 1 MB, so that a full disk finds a small log

# https://www.sqlite.org/rescode.html
_FULL, _NOT_A_DATABASE, _CORRUPT, _READONLY, _CANNOT_OPEN, _BUSY, _LOCKED, _IO = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
)
_NO_ROOM = {
    _FULL,
    sqlite3.SQLITE_IOERR_WRITE,  # what SQLite says of EDQUOT and EFBIG
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
}
_REMEDIES = {
    _NOT_A_DATABASE: "is not a SQLite database; move it away or put a copy of the real one there",
    _CORRUPT: "is damaged; stop aion, move it away and put a copy of it there",
    _READONLY: "cannot be written: file or disk is read-only, or belongs to another user",
    _CANNOT_OPEN: "cannot be opened; check that its folder exists and is ours to write in",
    _BUSY: "is locked by another program; close that program",
    _LOCKED: "is locked by another program; close that program",
    _IO: "cannot be read or written: the disk reports an error; check the disk",
}


def path_of(url: str) -> Path | None:
    """Say which file a `sqlite:///` URL names; None for one in memory or another database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        return None
    return Path(str(parsed.database))


def shown(url: str) -> str:
    """Name a database in messages: its path, or its URL without the password."""
    path = path_of(url)
    return str(path) if path else make_url(url).render_as_string(hide_password=True)


def engine_for(url: str) -> Engine:
    """Make an engine whose every transaction is one that we began, and every connection is set up.

    Python's own sqlite3 begins transactions late and leaves DDL out of them; here `BEGIN
    IMMEDIATE` is sent when SQLAlchemy begins one, so a writer in the way is met at once. It is
    waited for `timeout` seconds (`sqlite:///aion.db?timeout=5`).
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url)
    patience_s = float(str(parsed.query.get("timeout", BUSY_S)))
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"isolation_level": None, "timeout": patience_s, "check_same_thread": True},
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_up(connection: Any, _record: Any) -> None:
    with closing(connection.cursor()) as cursor:
        # Heeded only while there is no table yet. Said again it would write, for which a full disk
        # may have no room, and reading is all that a start needs.
        if cursor.execute("PRAGMA auto_vacuum").fetchone() != (_INCREMENTAL,):
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        cursor.execute("PRAGMA cache_size=-2000")


def code_of(error: BaseException) -> int | None:
    """Find SQLite's extended result code in a library's error."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    return code if isinstance(code, int) else None


def is_full(error: BaseException) -> bool:
    """Say whether this error is for want of room."""
    return code_of(error) in _NO_ROOM or isinstance(error, StoreFull)


def explain(error: BaseException, url: str) -> StoreError:
    """Turn a library's error into one line saying what is wrong and what to do."""
    name, code = shown(url), code_of(error)
    if is_full(error):
        return StoreFull(f"no room to write {name}: disk full or quota reached; free some space")
    if code is not None and (code & 0xFF) in _REMEDIES:
        return StoreError(f"database {name} {_REMEDIES[code & 0xFF]}")
    cause = getattr(error, "orig", None) or error
    first = " ".join(str(cause).split())[:200]
    return StoreError(f"database {name} refused: {first or type(cause).__name__}")


def _refused(what: str, error: OSError) -> StoreError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(f"{what}: disk full or quota reached; free some space")
    remedy = "set server.database to a place we can write to"
    return StoreError(f"{what}: {error.strerror or type(error).__name__}; {remedy}")


class Lock:
    """Keeps a second daemon, or a migration, off a database file; the kernel drops it if we die."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._fd: int | None = None

    def take(self) -> None:
        """Take it, or raise StoreError naming the process that has it."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            database = self._path.with_suffix("")
            raise _refused(f"database {database} cannot be opened", error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            database = self._path.with_suffix("")
            raise StoreError(
                f"database {database} is in use by process {holder}; stop that aion first"
            ) from error
        with suppress(OSError):  # a full disk: the lock holds, only the name of its holder is lost
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def drop(self) -> None:
        """Let go; harmless twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Ballast:
    """Room beside the database, given up when the disk is full so that transitions go on."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".ballast")
        self._next = path.with_name(path.name + ".ballast.new")

    @property
    def laid(self) -> bool:
        """Whether there is something to give up."""
        try:
            return self._path.stat().st_size >= BALLAST_BYTES
        except OSError:
            return False

    def lay(self, spare: int = 0) -> bool:
        """Reserve the room if it and `spare` bytes more are there; says whether it is reserved.

        Room is claimed rather than asked for: what the file system reports free knows no quotas.
        """
        if self.laid and not spare:
            return True
        try:
            fd = os.open(self._next, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(fd, 0, BALLAST_BYTES + spare)
            os.ftruncate(fd, BALLAST_BYTES)
            os.replace(self._next, self._path)  # noqa: PTH105 a rename is what is meant
        except OSError:
            with suppress(OSError):
                self._next.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def release(self) -> bool:
        """Give the room up; says whether there was any."""
        if not self.laid:
            return False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def make_folder(path: Path) -> None:
    """Make the folder of a database file, ours alone, where there is none yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _refused(f"folder {path.parent} cannot be made", error) from error


def make_private(path: Path) -> None:
    """Make an empty file that only we can read, where there is none yet; SQLite fills it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _refused(f"database {path} cannot be opened", error) from error


@contextmanager
def relaxed(connection: Connection) -> Iterator[None]:
    """Do without waiting for the disk at the end of the transaction inside: for statistics.

    In WAL mode a power cut then loses that transaction, and never harms the database.
    """
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        yield
        return
    raw.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        raw.execute("PRAGMA synchronous=FULL")


def shrink_log(connection: Connection) -> None:
    """Move the log into the database and give its room back, as far as that can be done now."""
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        with suppress(sqlite3.Error):
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def vacuum(connection: Connection, pages: int) -> None:
    """Give at most so many free pages back to the disk; outside any transaction."""
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection):
        # Not `execute`: each step frees one page, and that stops after the first.
        raw.executescript(f"PRAGMA incremental_vacuum({pages:d})")
        shrink_log(connection)


def copy(source: sqlite3.Connection, path: Path) -> None:
    """Copy a live database to `path`, which appears only once the copy is whole and on disk."""
    part = path.with_name(path.name + ".part")
    with suppress(FileNotFoundError):
        part.unlink()
    os.close(os.open(part, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        with closing(sqlite3.connect(part)) as target:
            source.backup(target)
        fd = os.open(part, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


LIBRARY_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)
