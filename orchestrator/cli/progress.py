"""How far a long computation is, on stderr, where somebody looks on and it takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from orchestrator.edge.clock import SystemClock

T = TypeVar("T")
PATIENCE_S = 1.0
EVERY_S = 0.2


class Progress:
    """A context manager around a computation of `total` steps, called `what`."""

    def __init__(self, total: int, what: str, *, quiet: bool = False) -> None:
        self._total, self._what = total, what
        self._silent = quiet or not sys.stderr.isatty()
        self._now = SystemClock().steady
        self._next = self._now() + PATIENCE_S
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def over(self, steps: Iterable[T]) -> Iterator[T]:
        """Hand the steps through, and count them."""
        for done, step in enumerate(steps, 1):
            if not self._silent and self._now() >= self._next:
                self._next = self._now() + EVERY_S
                self._shown = True
                sys.stderr.write(f"\r\x1b[K{done} of {self._total} {self._what}")
                sys.stderr.flush()
            yield step
