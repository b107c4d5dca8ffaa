"""Runs `aion` as a child: piped, or on a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time  # noqa: TID251 - deadlines for real processes
from dataclasses import dataclass

COMMAND = [sys.executable, "-m", "orchestrator.cli"]
LONGEST_S = 90.0


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str = ""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AION_")}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "STATE_DIRECTORY"):
        kept.pop(name, None)
    return {**kept, "TERM": "xterm-256color", **more}


def aion(*words: str, cwd=None, stdin: str = "", **env: str) -> Ran:
    """Run it with everything piped."""
    done = subprocess.run(
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
        cwd=cwd,
        env=environment(**env),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class OnTerminal:
    """`aion` on a pseudo-terminal: `until` reads what it shows, `type` types."""

    def __init__(self, *words: str, columns: int = 80, lines: int = 24, **env: str) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.child = subprocess.Popen(
            [*COMMAND, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one thread
        )
        os.close(theirs)
        self._ours = ours
        self.shown = ""

    def until(self, text: str) -> str:
        """Read until `text` was shown."""
        self._read(lambda: text in self.shown)
        self._hold(text in self.shown)
        return self.shown

    def until_lines(self, count: int, start: str) -> None:
        """Read until `count` whole lines that begin with `start` were shown."""

        def whole() -> list[str]:
            *lines, _ = self.shown.split("\n")
            return [line for line in lines if line.startswith(start)]

        self._read(lambda: len(whole()) >= count)
        self._hold(len(whole()) >= count)

    def _hold(self, true: bool) -> None:
        """Fail where what was waited for did not come, and leave nothing running then."""
        if not true:
            os.killpg(self.child.pid, signal.SIGKILL)
        assert true, self.shown

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def signal(self, number: int = signal.SIGINT) -> None:
        self.child.send_signal(number)

    def end(self) -> Ran:
        """Read to the end; returns exit status and everything shown."""
        self._read(lambda: False)
        self._hold(self._ended())
        code = self.child.wait()
        os.close(self._ours)
        return Ran(code, self.shown.replace("\r\n", "\n"))

    def _ended(self) -> bool:
        try:
            self.child.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read(self, enough) -> None:
        deadline = time.monotonic() + LONGEST_S
        while not enough() and time.monotonic() < deadline:
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            if not ready:
                continue
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                return
            if not data:
                return
            self.shown += data.decode(errors="replace")
