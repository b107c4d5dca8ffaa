"""Children: the engine and the tunnel, as processes that outlive an agent that is killed.

Each is the head of a group of its own and writes to a file, not to a pipe: a new run of the agent
can then take over what the old one left, with the model still loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .clock import steady
from .errors import Refused

LOG_BYTES = 5_000_000
TAIL_BYTES = 64_000
GRACE_S = 10.0


def ticks(pid: int) -> int:
    """When a process began, in clock ticks since the boot; 0 if there is none, or a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


class Child:
    """One process: started here, or left by an earlier run."""

    def __init__(
        self, pid: int, began: int, log: Path, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.pid = pid
        self.began = began
        self.log = log
        self._process = process

    @classmethod
    def start(
        cls, argv: Sequence[str], log: Path, env: Mapping[str, str], folder: str = ""
    ) -> Child:
        """Start a program; what it says goes to `log`. Raises Refused if it cannot be started."""
        log.unlink(missing_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                env=dict(env),
                cwd=folder or None,
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(f"{argv[0]} cannot be started: {error.strerror}") from None
        finally:
            os.close(handle)
        return cls(process.pid, ticks(process.pid), log, process)

    @classmethod
    def left(cls, pid: int, began: int, log: Path) -> Child | None:
        """Take over a process of an earlier run; None if it is not there any more."""
        return cls(pid, began, log) if began and ticks(pid) == began else None

    def ended(self) -> str:
        """Say how it ended; empty while it runs."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return ""
            return f"ended with {code}" if code >= 0 else f"ended by signal {-code}"
        with contextlib.suppress(OSError):  # it may be our child after all: the same kernel
            os.waitpid(self.pid, os.WNOHANG)
        return "" if ticks(self.pid) == self.began else "ended"

    def said(self) -> str:
        """Give the end of what it wrote."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def last_words(self) -> str:
        """Give the last line that it wrote which says something."""
        lines = [line.strip() for line in self.said().splitlines()]
        return next((line for line in reversed(lines) if len(line) > 2), "")

    def trim(self) -> None:
        """Keep its log small; it appends, so what it writes next is at the start."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > LOG_BYTES:
                os.truncate(self.log, 0)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End it and all that it started: politely, then not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended():
                break
            self._signal(number)
            until = steady() + grace_s
            while not self.ended() and steady() < until:  # noqa: ASYNC110 - not always our child
                await asyncio.sleep(0.05)
        self._signal(signal.SIGKILL)  # those of its group that it left behind

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if not self.ended():
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)
