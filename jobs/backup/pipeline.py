"""One pass from pg_dump to a file: compressed, proved, encrypted, hashed, written.

The archive goes to a pg_restore at the same time, which reads all of it before encryption and shows
the rows in it; an archive that it cannot read to the end is not complete. Memory is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from jobs.backup.errors import NotComplete, SourceFailed
from jobs.backup.form import Table
from jobs.backup.packing import Packer
from jobs.backup.ports import Clock
from jobs.backup.programs import PIECE, Bounds, Patience, Program, check_room
from jobs.backup.proof import Proof
from jobs.backup.sealing import seal
from jobs.backup.stores.base import Progress, digests

__all__ = ["Streamed", "check_room", "stream"]

_ROOM_EVERY: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Streamed:
    """What went through. `size` and `hashes`: as stored; `plain_sha256`: before encryption.

    `plain_size`: of the archive as pg_restore reads it, neither encrypted nor compressed around.
    """

    size: int
    hashes: Mapping[str, str]
    plain_size: int
    plain_sha256: str
    tables: tuple[Table, ...]


def stream(
    source: Program,
    reader: Program,
    out: BinaryIO,
    *,
    level: int,
    recipient: str,
    kinds: Sequence[str],
    bounds: Bounds,
    clock: Clock,
    progress: Progress,
    redacted: Callable[[str], str],
) -> Streamed:
    """Take `source`'s stdout to `out`, and let `reader`, a pg_restore, prove it.

    `level`: of zstd around the whole archive, 0 for none; `recipient`: of age, "" for none. Raises
    `SourceFailed` (pg_dump), `NotComplete` (what it wrote is no whole archive), `NoRoom`.
    """
    patience = Patience(bounds, clock)
    proof = Proof(reader, patience)
    flow = _Flow(source, proof, level, patience, progress, hashed=bool(recipient))
    writer = _Writer(out, kinds, bounds.min_free)
    try:
        _through(flow, writer, recipient)
        _ended(source, bounds)
        tables = proof.finish()
    except (SourceFailed, NotComplete) as error:
        raise type(error)(redacted(str(error))) from None
    if proof.size != flow.size:
        raise NotComplete("what was compressed is not what pg_dump wrote")
    hashes = writer.results()
    return Streamed(writer.size, hashes, flow.size, flow.sha256 or hashes["sha256"], tables)


def _through(flow: _Flow, writer: _Writer, recipient: str) -> None:
    if recipient:
        seal(flow, writer, recipient)
        return
    while piece := flow.read():
        writer.write(piece)


def _ended(source: Program, bounds: Bounds) -> None:
    if wrong := source.wait(bounds.silence_s):
        raise SourceFailed(f"{source.name} {wrong}")


class _Flow:
    """pg_dump's output, compressed around if there is a `level`, and proved, as it is read."""

    def __init__(
        self,
        source: Program,
        proof: Proof,
        level: int,
        patience: Patience,
        progress: Progress,
        *,
        hashed: bool,
    ) -> None:
        assert source.process.stdout is not None
        self.size = 0
        self.error: Exception | None = None
        self._from, self._name = source.process.stdout.fileno(), source.name
        self._proof, self._patience, self._progress = proof, patience, progress
        self._packer = Packer(level, proof) if level else None
        self._digest = digests(("sha256",))["sha256"] if hashed else None
        # One buffer for all: fresh memory for each piece takes longer than hashing it.
        self._buffer = bytearray(PIECE)
        self._left, self._ended, self._full = memoryview(b""), False, False

    @property
    def sha256(self) -> str:
        """Of what was read from here; "" if nobody asked for it."""
        return self._digest.hexdigest() if self._digest else ""

    def read(self, most: int = PIECE) -> bytes:
        """Return up to `most` bytes of what is stored, before encryption; b"" at the end."""
        if not self._left:
            piece = b""
            try:
                while not piece and not self._ended:
                    piece = self._next()
            except Exception as error:  # age wraps what its reader raises, so it is kept here
                self.error = error
                raise
            if len(piece) <= most:
                return piece
            self._left = memoryview(piece)
        some, self._left = self._left[:most], self._left[most:]
        return bytes(some)

    def _next(self) -> bytes:
        self._patience.wait([self._from], [], f"{self._name} said nothing")
        if not self._full:
            self._patience.gather()
        size = os.readv(self._from, [self._buffer])
        self._full, self._ended = size == PIECE, not size
        self.size += size
        taken = memoryview(self._buffer)[:size]
        if self._packer:
            piece = self._packer.pack(taken)
        else:
            self._proof.write(taken)
            piece = bytes(taken)
        if self._digest:
            self._digest.update(piece)
        self._progress(self.size, 0)
        return piece


class _Writer:
    """The file, hashed as it is written; it stops before the disk is full."""

    def __init__(self, out: BinaryIO, kinds: Sequence[str], min_free: int) -> None:
        self.size = 0
        self.error: Exception | None = None
        self._out, self._min_free = out, min_free
        self._digests = digests(kinds)
        self._checked = 0

    def write(self, piece: bytes) -> int:
        try:
            for digest in self._digests.values():
                digest.update(piece)
            self._out.write(piece)
            self.size += len(piece)
            if self.size - self._checked >= _ROOM_EVERY:
                self._checked = self.size
                check_room(self._out.fileno(), self._min_free)
        except Exception as error:  # as in `read`: age would wrap it
            self.error = error
            raise
        return len(piece)

    def flush(self) -> None:
        self._out.flush()

    def results(self) -> dict[str, str]:
        return {kind: digest.hexdigest() for kind, digest in self._digests.items()}
