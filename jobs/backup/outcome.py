"""What a run came to for an export or a sync: told, kept, shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jobs.backup.errors import StoreBroken
from jobs.backup.form import Limits
from jobs.backup.ports import Pause, Random

Kind = Literal["export", "sync"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`detail`: what is wrong, in one line, "" if nothing. `said`: what was done.

    `count`: rows of the new part, or files copied; `size`: bytes of them, as stored.
    """

    kind: Kind
    name: str
    detail: str = ""
    said: str = ""
    count: int = 0
    size: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.detail

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__slots__}}


def patiently(do: Callable[[], None], limits: Limits, random: Random, pause: Pause) -> str:
    """Do something with a store, again where that may help; "" or why it was given up."""
    for attempt in range(limits.attempts):
        try:
            do()
        except StoreBroken as error:
            if not error.retry or attempt == limits.attempts - 1:
                return str(error)
            backoff = min(limits.backoff_s * 2**attempt, limits.backoff_most_s)
            asked = min(error.retry_after_s, limits.backoff_most_s)
            pause(max(backoff * (0.5 + random.random() / 2), asked))
        else:
            return ""
    return "it was never tried"
