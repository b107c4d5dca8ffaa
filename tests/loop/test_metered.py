"""What looking at a backend costs, through the working parts: counted, and not spent twice."""

from __future__ import annotations

import asyncio
import contextlib

from backends.base import Children
from orchestrator.assembly import Assembly, Outside
from orchestrator.core.meters import MeterSpec, Unit, used
from orchestrator.core.model import Health, Source
from orchestrator.core.specs import FleetConfig, HealthPolicy, Service
from orchestrator.core.windows import Window
from orchestrator.edge.clock import SystemClock, SystemRandom
from orchestrator.edge.http import AioHttp
from orchestrator.edge.store import Store, inline
from tests.backends.worlds import plan
from tests.loop.kit import until
from tests.loop.test_registering import Wanted

POLICY = HealthPolicy(interval_s=0.05, fast_interval_s=0.05, down_interval_s=0.05, canary_s=0.1)
ONCE = MeterSpec("lab:requests", Unit.REQUESTS, 1.0, Window(), "lab")


async def no_children(*_: object, **__: object):
    raise AssertionError("nothing here needs a child")


@contextlib.asynccontextmanager
async def running(path):
    """A backend that may be asked for one completion ever; what was seen of it."""
    made = plan("fake", policy=POLICY, script="up")
    fleet = FleetConfig(
        backends={"lab": made.backend},
        services={"chat": Service("chat", ("lab",))},
        meters={ONCE.key: ONCE},
    )
    children: Children = no_children
    clock = SystemClock("")
    async with contextlib.AsyncExitStack() as stack:
        store = Store(f"sqlite:///{path}/aion.db", inline(), create=True)
        stack.push_async_callback(store.close)
        saved = await store.load()
        store.anchor = clock.resume(saved.written_at, saved.anchor)
        http = await stack.enter_async_context(AioHttp())
        outside = Outside(http, http, clock, SystemRandom(), children)
        assembly = Assembly(Wanted(fleet, {"lab": made}), saved, store, outside)
        seen: list[Source] = []
        assembly.loop.watch(lambda one: seen.append(one.source))
        tasks = [asyncio.create_task(work, name=name) for name, work in assembly.works()]
        assembly.begin()
        try:
            yield assembly, seen
        finally:
            await assembly.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def test_a_canary_is_counted_and_none_is_sent_on_a_spent_quota_not_even_after_a_restart(tmp_path):
    def lab(assembly):
        return assembly.loop.fleet.backends["lab"]

    async def main():
        async with running(tmp_path) as (assembly, seen):
            await until(lambda: lab(assembly).exhausted_until is not None, 30)
            assert seen.count(Source.CANARY) == 1
            assert used(assembly.loop.fleet.meters[ONCE.key], 0.0) == 1
        async with running(tmp_path) as (assembly, seen):
            await until(lambda: lab(assembly).health is Health.UP and len(seen) > 20, 30)
            assert seen.count(Source.CANARY) == 0
            assert lab(assembly).exhausted_until is not None

    asyncio.run(main())
