"""Counting the rows of a dump, in the SQL that pg_restore makes of it."""

from __future__ import annotations

import codecs
import re
from typing import Final

from jobs.backup.form import Table

_QUOTED: Final = rb'"(?:[^"]|"")*"'
_NAME: Final = rb"(?:" + _QUOTED + rb'|[^\s".(]+)'
_COPY: Final = re.compile(
    rb"COPY (?:(" + _NAME + rb")\.)?(" + _NAME + rb")"
    rb" *(?:\((?:[^\")]|" + _QUOTED + rb")*\))? *FROM stdin;\n"
)
_BEGIN: Final = re.compile(rb"^COPY ", re.MULTILINE)
_END: Final = b"\\.\n"
ENCODING: Final = re.compile(rb"^SET client_encoding = '([A-Z0-9_]+)';", re.MULTILINE)
_CODECS: Final = {"KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_CN": "gb2312", "SQL_ASCII": "utf-8"}
_LONGEST: Final = 1 << 20
"""No COPY statement is longer: 1,600 columns of 63 characters."""


class RowCounter:
    r"""Counts the rows of each table in what `pg_restore --data-only` writes, piece by piece.

    Row data cannot be taken for SQL: inside a COPY block each line is a row (line breaks in values
    are escaped) until the line `\\.`. Memory: one statement, at most 1 MB.
    """

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], int] = {}
        self._kept, self._codec = b"", ""
        self._in: tuple[str, str] | None = None

    def feed(self, buffer: bytes | bytearray, size: int = -1) -> None:
        """Take the next piece of the SQL: the first `size` bytes of `buffer`, -1 for all."""
        size = len(buffer) if size < 0 else size
        if self._in and not self._kept.startswith(b"\\") and buffer.find(b"\\", 0, size) < 0:
            # No block ends in it, and most pieces of most data are like this.
            self.tables[self._in] += buffer.count(b"\n", 0, size)
            self._kept = b"" if buffer.endswith(b"\n", 0, size) else b"?"
            return
        data = self._kept + bytes(buffer[:size])
        while True:
            data, more = self._rows(data) if self._in else self._statements(data)
            if not more:
                break
        self._kept = data

    def result(self) -> tuple[Table, ...]:
        """Return the tables seen, by name."""
        return tuple(Table(*name, rows) for name, rows in sorted(self.tables.items()))

    def _rows(self, data: bytes) -> tuple[bytes, bool]:
        """Count lines up to the block's end; `data` begins at the beginning of a line."""
        assert self._in is not None
        if data.startswith(_END):
            self._in = None
            return data[len(_END) :], True
        at = data.find(b"\n" + _END)
        if at >= 0:
            self.tables[self._in] += data.count(b"\n", 0, at + 1)
            self._in = None
            return data[at + 1 + len(_END) :], True
        self.tables[self._in] += data.count(b"\n")
        line = data[data.rfind(b"\n") + 1 :]
        # Of a row that has begun only what may become the end is kept, else that it has begun.
        return line if _END.startswith(line) else b"?", False

    def _statements(self, data: bytes) -> tuple[bytes, bool]:
        if not self._codec and (said := ENCODING.search(data)):
            self._codec = codec(said[1].decode())
        found = _BEGIN.search(data)
        if found is None:
            return data[data.rfind(b"\n") + 1 :], False
        whole = _COPY.match(data, found.start())
        if whole is None:
            if len(data) - found.start() < _LONGEST:
                return data[found.start() :], False
            return data[found.end() :], True
        self._in = (self._plain(whole[1] or b""), self._plain(whole[2]))
        self.tables.setdefault(self._in, 0)
        return data[whole.end() :], True

    def _plain(self, name: bytes) -> str:
        # Where nothing is known of an encoding a name may be any bytes: none is lost.
        text = name.decode(self._codec or "utf-8", "surrogateescape")
        return text[1:-1].replace('""', '"') if text.startswith('"') else text


def codec(encoding: str) -> str:
    """Return Python's name of an encoding that PostgreSQL calls `encoding`."""
    name = _CODECS.get(encoding, re.sub(r"^WIN(?=\d)", "cp", encoding))
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "utf-8"
