"""Child programs with a bound on each wait: started, fed, heard to their end, gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from jobs.backup.errors import NoRoom, SourceFailed
from jobs.backup.ports import Clock
from jobs.backup.words import gist

PIECE: Final = 256 * 1024
_PIPE: Final = 1024 * 1024  # the most that anybody may ask for
_SAID: Final = 16_384
_GATHER_S: Final = 0.001


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
                widen(pipe.fileno())

    def said(self) -> str:
        """Return the line of what it said on stderr that tells what is wrong."""
        self._stderr.seek(0)
        return gist(self._stderr.read(_SAID).decode(errors="replace"))

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


def widen(pipe: int) -> None:
    """Let a pipe hold more: fewer turns between programs. Linux only, within limits."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


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


class Patience:
    """Waits for pipes, within the bounds that all of them share."""

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self.silence_s = bounds.silence_s
        self._total_s, self._clock = bounds.total_s, clock
        self._until = clock.steady() + bounds.total_s

    def wait(self, readable: list[int], writable: list[int], what: str) -> None:
        """Return when one of the pipes is ready. Raises `SourceFailed`: `what` for too long."""
        left = self._until - self._clock.steady()
        if left > 0:
            got = select.select(readable, writable, [], min(left, self.silence_s))
            if got[0] or got[1]:
                return
            if left > self.silence_s:
                raise SourceFailed(f"{what} for {self.silence_s:g} s")
        raise SourceFailed(f"the dump took longer than {self._total_s:g} s")

    @staticmethod
    def gather() -> None:
        """Let a pipe fill, or empty: to be woken for each 4 KB costs more than what it is for."""
        select.select([], [], [], _GATHER_S)


def room(place: int | Path) -> int:
    """Return how many bytes the filesystem of `place` has for us."""
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def check_room(place: int | Path, wanted: int) -> None:
    """Raise `NoRoom` if the filesystem of `place` has less than `wanted` bytes for us."""
    free = room(place)
    if free < wanted:
        raise NoRoom(f"{free >> 20} MB of disk are free, and {wanted >> 20} MB are needed")
