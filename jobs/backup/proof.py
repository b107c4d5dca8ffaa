"""The proof that an archive is whole: a pg_restore that reads all of it while it is made."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from jobs.backup.errors import NotComplete
from jobs.backup.form import Table
from jobs.backup.programs import PIECE, Patience, Program
from jobs.backup.rows import RowCounter

UNREADABLE: Final = "what pg_dump wrote cannot be read"


class Proof:
    """Feeds a `pg_restore --data-only --file=-`, and counts the rows in the SQL that it makes.

    Both pipes are served by turns and never waited for while they can take or give something: a
    reader that is woken for each 4 KB costs more than pg_restore itself.
    """

    def __init__(self, reader: Program, patience: Patience) -> None:
        assert reader.process.stdin is not None
        assert reader.process.stdout is not None
        self._reader, self._patience = reader, patience
        self._to, self._from = reader.process.stdin.fileno(), reader.process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._counter, self._buffer = RowCounter(), bytearray(PIECE)
        self.size = self._unheard = 0

    def write(self, piece: bytes | memoryview) -> int:
        """Let it read a piece. Raises `NotComplete` if it reads no more, `SourceFailed`."""
        view = memoryview(piece)
        self.size += len(view)
        self._unheard += len(view)
        while view:
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                self._hear()
                self._patience.wait([self._from], [self._to], "pg_restore read nothing")
                self._patience.gather()
            except BrokenPipeError:
                wrong = self._reader.wait(self._patience.silence_s) or "stopped before its end"
                raise NotComplete(f"{UNREADABLE}: pg_restore {wrong}") from None
        if self._unheard >= PIECE:
            self._hear()
        return len(piece)

    def finish(self) -> tuple[Table, ...]:
        """Return the tables and their rows, when it has read all. Raises as `write` does."""
        assert self._reader.process.stdin is not None
        with contextlib.suppress(OSError):
            self._reader.process.stdin.close()
        while not self._hear():
            self._patience.wait([self._from], [], "pg_restore did nothing")
            self._patience.gather()
        if wrong := self._reader.wait(self._patience.silence_s):
            raise NotComplete(f"{UNREADABLE}: pg_restore {wrong}")
        return self._counter.result()

    def _hear(self) -> bool:
        """Take what it wrote so far; say whether that was its last."""
        self._unheard = 0
        while True:
            try:
                size = os.readv(self._from, [self._buffer])
            except BlockingIOError:
                return False
            if not size:
                return True
            self._counter.feed(self._buffer, size)
            if size < PIECE:
                return False
