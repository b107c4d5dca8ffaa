"""What a figure is held against: plain work of the same nature, measured around it in the same run.

A machine that is slower today, or another machine, is slower at both; the ratio stays. What the
work is stands in `yardstick.py`: it runs in a child of its own, on the daemon's core.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.world import PYTHON, ROOT, Base, pin, quantile

TIMES = {"python": 5, "echo": 10, "rows": 10, "sync": 100, "start": 3}  # a sample


class Beside:
    """Samples of some kinds of work, taken around and between what they are compared with."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [PYTHON, "-m", "benchmarks.yardstick"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        pin(self._process.pid, 0)
        self._found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}

    def more(self) -> None:
        """Take another sample of each kind: call it between rounds of what is measured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for kind, found in self._found.items():
            self._process.stdin.write(f"{kind} {TIMES[kind]}\n")
            self._process.stdin.flush()
            found.extend(json.loads(self._process.stdout.readline()))

    def cpu(self, kind: str) -> Base:
        """Give the median of this work's CPU."""
        return Base(f"{kind}, CPU", quantile([cpu for cpu, _ in self._found[kind]], 0.5))

    def wall(self, kind: str, share: float = 0.5) -> Base:
        """Give this work's time on the clock: the median, or another quantile."""
        name = kind if share == 0.5 else f"{kind}, p{share * 100:g}"
        return Base(name, quantile([wall for _, wall in self._found[kind]], share))

    def end(self) -> None:
        """End the child, which then removes its folder; needed once."""
        self._process.communicate()


@contextmanager
def beside(*kinds: str) -> Iterator[Beside]:
    """Measure these kinds of work before and after what stands in the block.

    The baselines may be asked for after it; `more` takes samples in between.
    """
    one = Beside(kinds)
    try:
        one.more()
        yield one
        one.more()
    finally:
        one.end()
