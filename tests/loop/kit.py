"""A loop on a real store, with clocks of its own and drivers that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from backends.base import Reply
from orchestrator.core.fleet import resumed
from orchestrator.core.model import Now, Observation, Source, Verdict
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy, Service
from orchestrator.edge.store import Store, inline
from orchestrator.errors import StoreError, Unreachable
from orchestrator.loop import Loop

POLICY = HealthPolicy(fall=1, rise=1, canary_s=None)


class Clock:
    """Steady seconds that follow the event loop's own clock."""

    ahead_s = 0.0

    def steady(self) -> float:
        return 1_000_000.0 + self.ahead_s + asyncio.get_running_loop().time()

    wall = steady
    boot = steady


class FailingStore(Store):
    """A real store whose commits fail while `broken`, as on a disk that went away."""

    broken = False
    slow: asyncio.Event | None = None
    commits = 0

    async def commit(self, turn, now, audit=None) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.broken:
            raise StoreError("the disk went away")
        await super().commit(turn, now, audit)
        self.commits += 1


def config(*names: str, shadow: bool = False) -> FleetConfig:
    names = names or ("a", "b")
    return FleetConfig(
        backends={
            name: Backend(
                name, "static", "openai", url=f"http://{name}", remote=False, health=POLICY
            )
            for name in names
        },
        services={"chat": Service("chat", tuple(names), failback_after_s=3600.0)},
        shadow=shadow,
    )


def seen(name: str, verdict: Verdict = Verdict.OK) -> Observation:
    return Observation(name, Source.PROBE, verdict, verdict.value)


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[FailingStore]:
    store = FailingStore(f"sqlite:///{path}", inline(), create=True)
    await store.load()
    try:
        yield store
    finally:
        store.broken, store.slow = False, None
        await store.close()


@contextlib.asynccontextmanager
async def turning(path: Path, *names: str) -> AsyncIterator[tuple[Loop, FailingStore]]:
    """A loop that runs, without ticks of its own, on a store at `path`."""
    clock = Clock()
    async with opened(path / "aion.db") as store:
        fleet = resumed(config(*names), Now(clock.steady(), clock.wall()))
        loop = Loop(fleet, clock=clock, store=store)
        task = asyncio.create_task(loop.run())
        try:
            yield loop, store
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait([task])


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select

        def jump(timeout):
            ready = select(0)
            if not ready:
                assert timeout is not None, "everybody waits for something that never comes"
                self._now += timeout
            return ready

        self._selector.select = jump

    def time(self) -> float:
        return self._now


def in_virtual_time(work) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)


async def until(true, within_s: float = 25.0):
    async with asyncio.timeout(within_s):
        while not (found := true()):  # noqa: ASYNC110 - whatever the condition is
            await asyncio.sleep(0.002)
    return found


class Http:
    """Answers by URL: a status, an error text, or "hang"."""

    def __init__(self, **answers: int | str) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    async def request(self, method, url, **_) -> Reply:
        self.asked.append((method, url))
        answer = self.answers[url.partition("://")[2].partition("/")[0]]
        if answer == "hang":
            await asyncio.sleep(3600)
        await asyncio.sleep(0)
        if isinstance(answer, str):
            raise Unreachable(answer)
        return Reply(answer, {}, b"", 0.0)
