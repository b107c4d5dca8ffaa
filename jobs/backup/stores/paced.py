"""A store that takes and gives so many bytes a second at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.backup.ports import Pause
from jobs.backup.stores.base import Entry, Progress, Room, Store, silent


class Paced:
    """Another store, slowed down: whoever is told of progress waits until it is not too soon.

    Every store tells after each piece of at most 1 MB. rclone has a limit of its own instead.
    """

    def __init__(
        self, inner: Store, bandwidth_bps: int, steady: Callable[[], float], pause: Pause
    ) -> None:
        self.url = inner.url
        self._inner, self._bps = inner, bandwidth_bps
        self._steady, self._pause = steady, pause

    @property
    def left_out(self) -> int:
        """Objects of the last listing whose names are outside the grammar."""
        return int(getattr(self._inner, "left_out", 0))

    def list(self, prefix: str = "") -> list[Entry]:
        return self._inner.list(prefix)

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        return self._inner.put(local, name, progress=self._slowly(progress), replace=replace)

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        self._inner.get(name, local, progress=self._slowly(progress))

    def read(self, name: str, most: int) -> bytes:
        return self._inner.read(name, most)

    def delete(self, name: str) -> None:
        self._inner.delete(name)

    def room(self) -> Room | None:
        return self._inner.room()

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        return self._inner.check(name, hashes)

    def close(self) -> None:
        self._inner.close()

    def _slowly(self, progress: Progress) -> Progress:
        began, first = self._steady(), -1

        def paced(done: int, total: int) -> None:
            nonlocal first
            progress(done, total)
            if first < 0:  # an upload may go on where an earlier one was cut
                first = max(0, done - _PIECE)
            ahead_s = (done - first) / self._bps - (self._steady() - began)
            if ahead_s > 0:
                self._pause(ahead_s)

        return paced


_PIECE = 1024 * 1024
