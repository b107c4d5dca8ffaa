"""From a registration to the backend that serves: the working parts, with real agents on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

from backends import identity
from backends.base import Children, Plan
from orchestrator.assembly import Assembly, Outside
from orchestrator.core.model import Health
from orchestrator.core.registry import Register, RevokeTokens
from orchestrator.core.specs import FleetConfig, HealthPolicy, Service
from orchestrator.edge.alerts import AlertSettings
from orchestrator.edge.clock import SystemClock, SystemRandom
from orchestrator.edge.http import AioHttp, public_only
from orchestrator.edge.store import Store, inline
from tests.backends.worlds import plan
from tests.loop.kit import until
from tests.standins.agent import Agent

TOKEN = "t" * 12  # the id of the backend's token
CHAT = "/v1/chat/completions"
POLICY = HealthPolicy(interval_s=0.1, fast_interval_s=0.1, down_interval_s=0.1)


@dataclass(frozen=True)
class Wanted:
    fleet: FleetConfig
    plans: dict[str, Plan]
    dns: tuple = ()
    alerts: AlertSettings = field(default_factory=AlertSettings)
    controls: tuple = ()


def wanted(**keys):
    made = plan("notebook", models={"ours": "theirs"}, policy=POLICY, **keys)
    spec = replace(made.backend, registers=True)
    fleet = FleetConfig(
        backends={"lab": spec},
        services={"chat": Service("chat", ("lab",))},
        seeds={"lab": TOKEN + "0" * 52},
    )
    return Wanted(fleet, {"lab": replace(made, backend=spec)})


@contextlib.asynccontextmanager
async def running(path, **keys):
    """The working parts, with nothing of the outside but agents on this machine."""

    async def no_children(*_: object, **__: object):
        raise AssertionError("nothing here needs a child")

    children: Children = no_children
    clock = SystemClock("")
    async with contextlib.AsyncExitStack() as stack:
        store = Store(f"sqlite:///{path}/aion.db", inline(), create=True)
        stack.push_async_callback(store.close)
        saved = await store.load()
        store.anchor = clock.resume(saved.written_at, saved.anchor)
        http = await stack.enter_async_context(AioHttp())
        guarded = await stack.enter_async_context(AioHttp(allow=public_only))
        outside = Outside(http, guarded, clock, SystemRandom(), children)
        assembly = Assembly(wanted(**keys), saved, store, outside)
        tasks = [asyncio.create_task(work, name=name) for name, work in assembly.works()]
        assembly.begin()
        try:
            yield assembly
            assert not any(task.done() for task in tasks)
        finally:
            await assembly.close()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def registering(agent):
    return Register("lab", agent.ident, agent.session.secret, TOKEN, agent.url)


def lab(assembly):
    return assembly.loop.fleet.backends["lab"]


def test_what_proved_itself_serves_where_it_registered_until_a_newer_one_takes_over(tmp_path):
    async def main():
        async with (
            Agent("s-1") as first,
            Agent("s-2", "other") as second,
            running(tmp_path, allow_private=True) as assembly,
        ):
            assert lab(assembly).health is Health.DOWN
            await assembly.loop.command(registering(first), None)
            await until(lambda: lab(assembly).session and lab(assembly).session.id == "s-1", 20)
            assert lab(assembly).health is Health.UP
            await until(lambda: first.asked[-1:] == ["/v1/models"], 20)  # the pacer looks there now
            assert first.asked[:3] == [identity.PATH, "/v1/models", CHAT]
            assert first.asked.count(CHAT) == 1  # the proof's completion is the first canary too
            await assembly.loop.command(registering(second), None)
            await until(lambda: lab(assembly).session and lab(assembly).session.id == "s-2", 20)
            await until(lambda: second.asked[-1:] == ["/v1/models"], 20)
            before = len(first.asked)
            await until(lambda: second.asked.count("/v1/models") > 4, 20)
            assert len(first.asked) == before
            assert second.asked.count(CHAT) == 1
            await assembly.loop.command(RevokeTokens(backend="lab"), None)
            assert (lab(assembly).session, lab(assembly).health) == (None, Health.DOWN)

    asyncio.run(main())


def test_what_lives_where_nobody_may_register_any_more_ends_with_a_reload_and_with_a_restart(
    tmp_path,
):
    async def main():
        near = {"allow_private": True, "allow_hosts": ("127.0.0.1",)}
        async with Agent("s-1") as first, Agent("s-2") as second:
            async with running(tmp_path, **near) as assembly:
                await assembly.loop.command(registering(first), None)
                await until(lambda: lab(assembly).session, 20)
                await assembly.adopt(wanted(allow_private=True, allow_hosts=("127.0.0.2",)))
                await until(lambda: lab(assembly).session is None, 20)
                assert lab(assembly).health is Health.DOWN
                assert "`127.0.0.1` is not in allow_hosts" in lab(assembly).reason
                await assembly.adopt(wanted(**near))
                await assembly.loop.command(registering(second), None)
                await until(lambda: lab(assembly).session, 20)
            async with running(tmp_path, allow_hosts=("*.example.org",)) as assembly:
                await until(lambda: lab(assembly).session is None, 20)
                assert lab(assembly).health is Health.DOWN

    asyncio.run(main())


def test_an_address_out_of_bounds_is_not_connected_to_and_never_serves(tmp_path):
    async def main():
        async with Agent() as agent, running(tmp_path) as assembly:
            await assembly.loop.command(registering(agent), None)
            await until(lambda: lab(assembly).pending and lab(assembly).pending.problem, 20)
            assert lab(assembly).pending.problem == "address 127.0.0.1 is not allowed"
            assert (lab(assembly).session, lab(assembly).health) == (None, Health.STARTING)
            assert agent.asked == []

    asyncio.run(main())
