"""What the operator reads: few lines, each said once, none with a secret in it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .keys import Redactor


def to_stdout(line: str) -> None:
    """Print at once, also where the output is a pipe."""
    print(line, flush=True)


class Printer:
    """Says lines of the form `14:05:02 tunnel   https://…`."""

    def __init__(self, redactor: Redactor, out: Callable[[str], None] = to_stdout) -> None:
        self.redactor = redactor
        self._out = out
        self._last: dict[str, str] = {}

    def say(self, subject: str, text: str) -> None:
        """Say a line, unless it was the last one said of this subject."""
        text = self.redactor.clean(text)
        if self._last.get(subject) != text:
            self._last[subject] = text
            self._out(f"{time.strftime('%H:%M:%S')} {subject:<8} {text}")
