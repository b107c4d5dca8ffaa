"""What backups need of the machine besides files and programs: time, chance, somebody to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Seconds: `steady` for waits and deadlines, `wall` (Unix time) for what people read."""

    def steady(self) -> float: ...

    def wall(self) -> float: ...


class Random(Protocol):
    """Uniform numbers in [0, 1)."""

    def random(self) -> float: ...


Pause = Callable[[float], None]
"""Waits so many seconds."""

Tell = Callable[[str, int, int], None]
"""Called with a step's name, bytes done, and bytes in all (0: unknown)."""


def nobody(step: str, done: int, total: int) -> None:
    """Tell nobody: a `Tell`."""
