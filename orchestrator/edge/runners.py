"""Where blocking work runs: on one thread of its own, or right here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Runs one piece of blocking work after the other, always on the same thread."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Run `work`, wait for its end, and return or raise what it does.

        When the caller is cancelled the work is still waited for, so that whoever comes next
        knows that it is over.
        """
        ...

    def close(self) -> None:
        """Give up the thread, if there is one."""
        ...


class _Inline:
    async def __call__(self, work: Callable[[], T]) -> T:
        return work()

    def close(self) -> None:
        pass


class _InThread:
    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None

    async def __call__(self, work: Callable[[], T]) -> T:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen, or asyncio complains of one never retrieved
            raise

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def inline() -> Runner:
    """Make a runner that blocks its caller and never makes a thread: for tests and simulation."""
    return _Inline()


def in_thread(name: str = "store") -> Runner:
    """Make a runner with one worker thread, made at the first work and kept until closed."""
    return _InThread(name)
