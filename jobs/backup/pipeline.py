"""One pass from pg_dump to a file: read, proved, encrypted, hashed, written. Memory is bounded.

Every byte goes to a pg_restore at the same time, which reads the whole archive before encryption
and shows the rows in it; an archive that it cannot read to the end is not complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from jobs.backup.errors import NoRoom, NotComplete, SourceFailed, WrongKey
from jobs.backup.form import Table
from jobs.backup.ports import Clock
from jobs.backup.rows import RowCounter
from jobs.backup.stores.base import Progress, digests, first_line

PIECE: Final = 256 * 1024
_ROOM_EVERY: Final = 16 * 1024 * 1024
_SAID: Final = 4096
_UNREADABLE: Final = "what pg_dump wrote cannot be read"


@dataclass(frozen=True, slots=True)
class Streamed:
    """What went through: of the archive as stored, and before encryption."""

    size: int
    hashes: Mapping[str, str]
    plain_size: int
    plain_sha256: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """When to give up: in all, without a byte, and with less than `min_free` bytes of disk."""

    total_s: float
    silence_s: float
    min_free: int = 0


class Program:
    """A child with a bound on each wait, and its last words kept for the error."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], private: Path, **pipes: Any
    ) -> None:
        names = [Path(word).name for word in argv]
        self.name = next((name for name in names if name.startswith("pg_")), names[0])
        self._stderr: IO[bytes] = tempfile.TemporaryFile(dir=private)  # noqa: SIM115 - closed in `end`
        self.process = subprocess.Popen(argv, env=dict(env), stderr=self._stderr, **pipes)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                _widen(pipe.fileno())

    def said(self) -> str:
        """Return the first line of what it said on stderr."""
        self._stderr.seek(0)
        return first_line(self._stderr.read(_SAID).decode(errors="replace"), 300)

    def wait(self, timeout_s: float) -> str:
        """Wait for its end; "" if it ended well, else how it ended and what it said."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return "did not end"
        if status == 0:
            return ""
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = self.said()
        return f"{how}: {said}" if said else how

    def end(self) -> None:
        """Kill it if it still runs, reap it, close what it left open."""
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.process.wait()
        self._stderr.close()


def _widen(pipe: int) -> None:
    """Let a pipe hold a whole piece: fewer turns between programs. Linux only, within limits."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIECE)


@contextmanager
def program(
    argv: Sequence[str], env: Mapping[str, str], private: Path, **pipes: Any
) -> Iterator[Program]:
    """Start a child; it is gone and reaped when the block ends."""
    one = Program(argv, env, private, **pipes)
    try:
        yield one
    finally:
        one.end()


def stream(
    source: Program,
    proof: Program,
    out: BinaryIO,
    *,
    recipient: str,
    kinds: Sequence[str],
    bounds: Bounds,
    clock: Clock,
    progress: Progress,
    redacted: Callable[[str], str],
) -> Streamed:
    """Take `source`'s stdout to `out`, through age if there is a `recipient`, and prove it.

    Raises `SourceFailed` (pg_dump), `NotComplete` (what it wrote is no whole archive), `NoRoom`.
    """
    counter, reader = RowCounter(), _Reader(source, proof, bounds, clock, progress)
    writer = _Writer(out, kinds, bounds.min_free)
    drain = threading.Thread(target=_drain, args=(proof, counter), daemon=True)
    drain.start()
    try:
        if recipient:
            _sealed(reader, writer, recipient)
        else:
            while piece := reader.read(PIECE):
                writer.write(piece)
    except BrokenPipeError:
        wrong = proof.wait(bounds.silence_s) or "stopped reading before its end"
        raise NotComplete(redacted(f"{_UNREADABLE}: pg_restore {wrong}")) from None
    if wrong := source.wait(bounds.silence_s):
        raise SourceFailed(redacted(f"{source.name} {wrong}"))
    with contextlib.suppress(OSError):
        assert proof.process.stdin is not None
        proof.process.stdin.close()
    drain.join(bounds.silence_s)
    if wrong := proof.wait(bounds.silence_s):
        raise NotComplete(redacted(f"{_UNREADABLE}: pg_restore {wrong}"))
    return Streamed(
        writer.size, writer.results(), reader.size, reader.sha256.hexdigest(), counter.result()
    )


def _sealed(reader: _Reader, writer: _Writer, recipient: str) -> None:
    import pyrage  # noqa: PLC0415 - only where something is encrypted

    try:
        key = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise WrongKey("the recipient is no age public key (age1…)") from None
    try:
        pyrage.encrypt_io(reader, writer, [key])
    except pyrage.EncryptError:
        # It swallows what our own ends raise.
        for own in (reader.error, writer.error):
            if own is not None:
                raise own from None
        raise


def _drain(proof: Program, counter: RowCounter) -> None:
    pipe = proof.process.stdout
    assert pipe is not None
    with contextlib.suppress(OSError, ValueError):  # closed under us when the block was left
        while piece := os.read(pipe.fileno(), PIECE):
            counter.feed(piece)


class _Reader:
    """pg_dump's output, hashed and shown to the proof as it is read."""

    def __init__(
        self, source: Program, proof: Program, bounds: Bounds, clock: Clock, progress: Progress
    ) -> None:
        assert source.process.stdout is not None
        assert proof.process.stdin is not None
        self.sha256 = digests(("sha256",))["sha256"]
        self.size, self.ended = 0, False
        self.error: Exception | None = None
        self._name = source.name
        self._from, self._to = source.process.stdout.fileno(), proof.process.stdin.fileno()
        os.set_blocking(self._to, False)
        self._bounds, self._clock, self._progress = bounds, clock, progress
        self._until = clock.steady() + bounds.total_s
        self._left = memoryview(b"")

    def read(self, most: int = PIECE) -> bytes:
        """Return up to `most` bytes; b"" at the end."""
        if not self._left and not self.ended:
            try:
                self._left = memoryview(self._next())
            except Exception as error:  # age wraps what its reader raises, so it is kept here
                self.error = error
                raise
        piece, self._left = self._left[:most], self._left[most:]
        return bytes(piece)

    def _next(self) -> bytes:
        self._ready([self._from], [], f"{self._name} said nothing")
        piece = os.read(self._from, PIECE)
        self.ended = not piece
        self.size += len(piece)
        self.sha256.update(piece)
        view = memoryview(piece)
        while view:
            self._ready([], [self._to], "pg_restore read nothing")
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self._to, view) :]
        self._progress(self.size, 0)
        return piece

    def _ready(self, readable: list[int], writable: list[int], what: str) -> None:
        silence_s = self._bounds.silence_s
        left = self._until - self._clock.steady()
        if left > 0:
            got = select.select(readable, writable, [], min(left, silence_s))
            if got[0] or got[1]:
                return
            if left > silence_s:
                raise SourceFailed(f"{what} for {silence_s:g} s")
        raise SourceFailed(f"the dump took longer than {self._bounds.total_s:g} s")


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


def check_room(place: int | Path, wanted: int) -> None:
    """Raise `NoRoom` if the filesystem of `place` has less than `wanted` bytes for us."""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free < wanted:
        raise NoRoom(f"{free >> 20} MB of disk are free, and {wanted >> 20} MB are needed")
