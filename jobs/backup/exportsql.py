"""The rows of a query beyond a key, as lines of JSON, from one snapshot of the database.

The server makes the JSON and sends it row by row (COPY): one row of memory, whatever the result.

What may be lost is a row that gets its key before others and is committed after them: it was not
there when they were exported, and afterwards its key lies below what is asked for. So a run looks
up the largest key, waits until every transaction has ended that was open then, and only then reads,
up to that key: whoever had a smaller key by then is there, or will never be.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jobs.backup.errors import SourceFailed
from jobs.backup.ports import Clock, Pause
from jobs.backup.source import connect

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composable, Composed

    from jobs.backup.form import Export, Timeouts

PIECE: Final = 256 * 1024
_LOOK_S: Final = 0.25
_BEGINNING: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(select|with)\b", re.IGNORECASE | re.DOTALL
)
# By OID, as in pg_type.dat: these never change.
_KEYS: Final = {
    20: "bigint", 21: "smallint", 23: "integer", 1700: "numeric", 2950: "uuid", 25: "text",
    1043: "text", 1082: "date", 1114: "timestamp", 1184: "timestamptz",
}  # fmt: skip
_TIMES: Final = frozenset({"date", "timestamp", "timestamptz"})
_ENDLESS: Final = frozenset({"infinity", "Infinity", "NaN"})
_NUMERIC, _NUMERICS, _BYTEA = 1700, 1231, 17
# bool, "char", ints, text, floats, char, varchar, date, times, uuid, jsonb: one line as they are.
_PLAIN: Final = frozenset(
    {16, 18, 19, 20, 21, 23, 25, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1266, 2950, 3802}
    | {_NUMERIC, _NUMERICS, _BYTEA, 1005, 1007, 1009, 1015, 1016}
)
_OPEN: Final = """
select l.virtualtransaction, coalesce(a.pid, 0), coalesce(a.state, '')
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.granted
  and a.datname = current_database() and a.usesysid is not null and a.pid <> pg_backend_pid()
  and a.application_name not in ('pg_dump', 'aion-backup')
union all
select 'prepared ' || p.transaction, 0, 'prepared' from pg_prepared_xacts p
where p.database = current_database()
"""
_HEADER: Final = struct.Struct("!11sii")
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"


@dataclass(frozen=True, slots=True)
class Position:
    """Where an export ended: the text of the last key, of type `kind`; None before the first."""

    last: str | None = None
    kind: str = ""


class Rows:
    """Rows on their way. When `pieces` is through, `count`, `first` and `last` (keys) are known."""

    def __init__(self, connection: Connection[Any], query: Composed, shape: Shape) -> None:
        self.columns, self.kind = shape.columns, shape.kind
        self.count, self.first, self.last = 0, "", ""
        self.behind = ""
        """The largest key there is, where that lies below the last exported; else ""."""
        self._connection, self._query, self._doubtful = connection, query, shape.doubtful

    def pieces(self) -> Iterator[bytes]:
        """Yield lines of JSON, many at a time. Raises `SourceFailed`."""
        held: list[bytes] = []
        size = 0
        key = b""
        with self._connection.cursor() as cursor, cursor.copy(self._query) as copy:
            for data in copy:
                found = _tuple(bytes(data))
                if found is None:
                    continue
                key, line = found
                if self._doubtful:
                    _whole(line, key)
                if not self.count:
                    self.first = key.decode()
                self.count += 1
                held.append(line)
                size += len(line)
                if size >= PIECE:
                    yield b"\n".join([*held, b""])
                    held, size = [], 0
        self.last = key.decode()
        if self.last in _ENDLESS:
            raise SourceFailed(f"a row has the key {self.last}, which nothing can ever follow")
        if held:
            yield b"\n".join([*held, b""])


@dataclass(frozen=True, slots=True)
class Shape:
    """What a query gives. `kind`: of its key. `doubtful`: its text may be no UTF-8."""

    columns: tuple[str, ...]
    types: tuple[int, ...]
    kind: str
    doubtful: bool


@contextmanager
def reading(
    dsn: str,
    export: Export,
    since: Position,
    timeouts: Timeouts,
    *,
    clock: Clock,
    pause: Pause,
) -> Iterator[Rows]:
    """Open a read-only transaction on the rows beyond `since`.

    Raises `SourceFailed`: the database fails, the query cannot be exported, or others do not end.
    """
    alive = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
    with connect(dsn, timeouts, **alive) as connection:
        for setting, value in (
            ("client_encoding", "UTF8"),
            ("default_transaction_read_only", "on"),
            ("timezone", "UTC"),
            ("datestyle", "ISO"),
            ("intervalstyle", "iso_8601"),
            ("extra_float_digits", "3"),
        ):
            connection.execute("select set_config(%s, %s, false)", (setting, value))
        shape = _shape(connection, export)
        if since.last is not None and since.kind != shape.kind:
            raise SourceFailed(
                f"its key is {shape.kind} now and was {since.kind}: give it a new name, and it "
                "begins anew"
            )
        behind = _behind(connection, export, shape, since)
        bounds = _bounds(connection, export, shape, since, timeouts, clock, pause)
        connection.execute("begin transaction isolation level repeatable read, read only")
        rows = Rows(connection, _copy(export, shape, bounds), shape)
        rows.behind = behind
        yield rows


def statement_problem(query: str) -> str:
    """Say why a query cannot be exported, as far as its text shows; "" if nothing is wrong."""
    if _BEGINNING.match(query) is None:
        return "it begins with neither select nor with"
    return "it holds a NUL" if "\0" in query else ""


def _shape(connection: Connection[Any], export: Export) -> Shape:
    """Have the server read the query by itself: two statements, or half of one, are refused."""
    from psycopg.pq import ExecStatus  # noqa: PLC0415 - heavy, and only where it is used

    if problem := statement_problem(export.query):
        raise SourceFailed(f"the query cannot be used: {problem}")
    server = connection.pgconn
    made = server.prepare(b"", export.query.encode())
    if made.status == ExecStatus.COMMAND_OK:
        made = server.describe_prepared(b"")
    if made.status != ExecStatus.COMMAND_OK:
        said = made.error_message.decode(errors="replace").strip().splitlines() or [""]
        raise SourceFailed(f"the query cannot be used: {said[0]}")
    if made.nparams:
        raise SourceFailed("the query cannot be used: it has a parameter, $1")
    names = [(made.fname(i) or b"").decode(errors="replace") for i in range(made.nfields)]
    types = [made.ftype(i) for i in range(made.nfields)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise SourceFailed(f"two columns of the query are called {twice[0]}: give one another name")
    if export.key not in names:
        raise SourceFailed(f"its key, {export.key}, is no column of the query: {', '.join(names)}")
    kind = _KEYS.get(types[names.index(export.key)], "")
    if not kind:
        known = ", ".join(sorted(set(_KEYS.values())))
        raise SourceFailed(f"its key, {export.key}, is of a type that does not grow; {known} do")
    if export.settle_s and kind not in _TIMES:
        raise SourceFailed(f"`settle` is for keys that are times, and {export.key} is {kind}")
    doubtful = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    return Shape(tuple(names), tuple(types), kind, doubtful)


def _bounds(
    connection: Connection[Any],
    export: Export,
    shape: Shape,
    since: Position,
    timeouts: Timeouts,
    clock: Clock,
    pause: Pause,
) -> list[Composable]:
    """Return the conditions on the key, having waited where that is asked for."""
    from psycopg import sql  # noqa: PLC0415 - as above

    key = _key(export, shape)
    kind = sql.SQL(shape.kind)
    bounds: list[Composable] = [sql.SQL("{} is not null").format(key)]
    if since.last is not None:
        bounds.append(sql.SQL("{} > {}::{}").format(key, sql.Literal(since.last), kind))
    if export.settle_s:
        ago = sql.Literal(f"{export.settle_s} seconds")
        bounds.append(sql.SQL("{} < (now() - {}::interval)::{}").format(key, ago, kind))
    if export.late == "ignore":
        return bounds
    largest = sql.SQL(
        "select ({key})::text from ({query}\n) as q where {bounds} order by {key} desc limit 1"
    )
    row = connection.execute(
        largest.format(key=key, query=_query(export), bounds=sql.SQL(" and ").join(bounds))
    ).fetchone()
    if row is None:
        return [sql.SQL("false")]
    _settle(connection, timeouts.lock_s, clock, pause)
    return [*bounds, sql.SQL("{} <= {}::{}").format(key, sql.Literal(row[0]), kind)]


def _behind(connection: Connection[Any], export: Export, shape: Shape, since: Position) -> str:
    """Return the largest key if it lies below `since`: rows that come now are not exported."""
    from psycopg import sql  # noqa: PLC0415 - as above

    if since.last is None:
        return ""
    key = _key(export, shape)
    largest = sql.SQL(
        "select ({key})::text, {key} < {last}::{kind} from ({query}\n) as q"
        " where {key} is not null order by {key} desc limit 1"
    )
    row = connection.execute(
        largest.format(
            key=key,
            last=sql.Literal(since.last),
            kind=sql.SQL(shape.kind),
            query=_query(export),
        )
    ).fetchone()
    return str(row[0]) if row is not None and row[1] else ""


def _settle(connection: Connection[Any], most_s: float, clock: Clock, pause: Pause) -> None:
    """Wait until the transactions end that are open now. Raises `SourceFailed`."""
    began = clock.steady()
    waiting = {row[0] for row in connection.execute(_OPEN).fetchall()}
    while waiting:
        still = [row for row in connection.execute(_OPEN).fetchall() if row[0] in waiting]
        if not still:
            return
        if clock.steady() - began >= most_s:
            who = f"process {still[0][1]}, {still[0][2]}" if still[0][1] else still[0][0]
            raise SourceFailed(
                f"{len(still)} transactions were open all the while ({who}), and may still add "
                f"rows with smaller keys, which no later run would export; they had {most_s:g} s"
            )
        pause(_LOOK_S)


def _key(export: Export, shape: Shape) -> Composed:
    from psycopg import sql  # noqa: PLC0415 - as above

    # Text by its bytes: a server's own order of text changes with its libraries.
    how = 'q.{}::text collate "C"' if shape.kind == "text" else "q.{}"
    return sql.SQL(how).format(sql.Identifier(export.key))


def _query(export: Export) -> Composable:
    from psycopg import sql  # noqa: PLC0415 - as above

    # The operator's own words, read by the server alone before; `_shape` ran.
    return sql.SQL(export.query.strip().removesuffix(";"))


def _copy(export: Export, shape: Shape, bounds: Sequence[Composable]) -> Composed:
    """Return the COPY: the key's text, and the row as one line of JSON."""
    from psycopg import sql  # noqa: PLC0415 - as above

    line = sql.SQL("row_to_json(c.*)::text")
    if not set(shape.types) <= _PLAIN:  # json is kept as it came, line breaks too
        line = sql.SQL(r"translate(row_to_json(c.*)::text, E'\n\r', '  ')")
    columns = [
        sql.SQL(_converted(kind) + " as {}").format(sql.Identifier("q", name), sql.Identifier(name))
        for name, kind in zip(shape.columns, shape.types, strict=True)
    ]
    return sql.SQL(
        "copy (select (c.{name})::text, {line} from (select {columns} from ({query}\n) as q"
        " where {bounds} order by {key}) as c) to stdout (format binary)"
    ).format(
        name=sql.Identifier(export.key),
        line=line,
        columns=sql.SQL(", ").join(columns),
        query=_query(export),
        bounds=sql.SQL(" and ").join(bounds),
        key=_key(export, shape),
    )


def _converted(kind: int) -> str:
    """Return how a column is written, where JSON's own way would lose something."""
    if kind == _NUMERIC:
        return "{}::text"
    if kind == _NUMERICS:
        return "{}::text[]"
    return r"translate(encode({}, 'base64'), E'\n', '')" if kind == _BYTEA else "{}"


def _tuple(data: bytes) -> tuple[bytes, bytes] | None:
    """Read one row of a binary COPY: two values; None at its end. Raises `SourceFailed`."""
    at = 0
    if data.startswith(_SIGNATURE):
        at = _HEADER.size + _HEADER.unpack_from(data)[2]
    if at >= len(data) or data[at : at + 2] == b"\xff\xff":
        return None
    (count,) = struct.unpack_from("!h", data, at)
    (size,) = struct.unpack_from("!i", data, at + 2)
    if count != 2 or size < 0:  # noqa: PLR2004 - the key and the line
        raise SourceFailed("the server sent a row of another shape than was asked for")
    end = at + 6 + size
    return data[at + 6 : end], data[end + 4 :]


def _whole(line: bytes, key: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError:
        shown = key.decode(errors="replace")[:60]
        raise SourceFailed(f"the row {shown} holds text that is not UTF-8") from None
