"""Hosts that sleep are asked in time, within their hours and budget, and never for show."""

import asyncio
import datetime as dt
import itertools
from dataclasses import replace

import pytest

from jobs import keepalive
from jobs.base import KeepaliveSettings, KeepaliveTools, Tools
from jobs.runner import Runner
from jobs.schedule import SCHEDULE
from orchestrator.core.events import Spent
from orchestrator.core.fleet import apply, resumed, step
from orchestrator.core.lives import Session
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import Health, Now
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy, Service
from orchestrator.core.windows import Per, Window
from orchestrator.edge.http import AioHttp, public_only
from orchestrator.errors import BadReply, Unreachable
from tests.edge.test_http import Origin, answering
from tests.jobs.test_runner import NOON, Table, _yes, until

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SLOW = HealthPolicy(interval_s=HOUR)
ASLEEP = b"HTTP/1.1 503 Sleeping\r\nContent-Length: 0\r\n\r\n"
AWAKE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nawake"


class Still:
    """Randomness that never makes anybody wait."""

    def random(self) -> float:
        return 0.0

    def uniform(self, a: float, b: float) -> float:
        assert 0.0 <= a <= b <= 15.0
        return a

    def getrandbits(self, k: int) -> int:
        return 0


class World:
    def __init__(
        self, http, *wanted: KeepaliveSettings, url: str, timezone: str = "UTC", meters=()
    ) -> None:
        specs = {
            one.backend: Backend(one.backend, "static", "http", url=url, health=SLOW)
            for one in wanted
        }
        services = {"s": Service("s", tuple(specs))}
        config = FleetConfig(specs, services, meters={one.key: one for one in meters})
        self.at = NOON
        self.fleet = resumed(config, self.now())
        self.tools = Tools(self.now, timezone, Table(), _yes)
        self.ask(http, *wanted)

    def ask(self, http, *wanted: KeepaliveSettings, guarded=None) -> None:
        mine = KeepaliveTools(
            wanted, lambda: self.fleet, http, guarded or http, Still(), self.spent, {}
        )
        self.tools = replace(self.tools, keepalive=mine)

    def now(self) -> Now:
        return Now(self.at, self.at)

    def spent(self, key: str, amount: float) -> None:
        apply(self.fleet, step(self.fleet, Spent(((key, amount),)), self.now()))

    def becomes(self, name: str, **what) -> None:
        self.fleet.backends[name] = replace(self.fleet.backends[name], **what)

    async def run(self) -> str:
        return await keepalive.run(self.tools)


def playing(test, reply=AWAKE, **how):
    """Run `test(world, origin)` with one backend `nap`, asked every 4 minutes."""

    async def whole() -> None:
        async with Origin(answering(reply)) as origin, AioHttp() as http:
            wanted = KeepaliveSettings("nap", 4 * MINUTE, **how.pop("wanted", {}))
            world = World(http, wanted, url=origin.url, **how)
            world.http = http
            await test(world, origin)

    asyncio.run(whole())


def meter(key: str, limit: float) -> MeterSpec:
    return MeterSpec(key, Unit.REQUESTS, limit, Window(Per.MONTH), "nap", advisory=True)


def asked(origin) -> int:
    return len(origin.requests)


def test_a_host_is_asked_each_time_it_is_due_and_the_answer_is_told():
    async def test(world, origin):
        for number in range(1, 4):
            assert await world.run() == "nap answered 200"
            assert asked(origin) == number
            world.at += 4 * MINUTE

    playing(test)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"drained": True}, "nap skipped: drained"),
        (
            {"session": Session("x", NOON, NOON), "health": Health.UP},
            "nap skipped: its session runs well, and probes reach it as often",
        ),
    ],
)
def test_a_host_that_needs_none_is_left_alone(state, said):
    async def test(world, origin):
        spec = replace(world.fleet.config.backends["nap"], health=HealthPolicy())
        world.fleet.config.backends["nap"] = spec
        world.becomes("nap", **state)
        assert await world.run() == said
        assert asked(origin) == 0

    playing(test)


def test_a_session_that_does_not_run_well_or_is_seldom_probed_is_asked():
    async def test(world, origin):
        session = Session("x", NOON, NOON, url=origin.url)
        world.becomes("nap", session=session, health=Health.UP)
        await world.run()
        spec = replace(world.fleet.config.backends["nap"], url=None, health=HealthPolicy())
        world.fleet.config.backends["nap"] = spec
        world.becomes("nap", session=session, health=Health.DOWN)
        world.at += 4 * MINUTE
        await world.run()
        assert asked(origin) == 2
        world.becomes("nap", session=None)
        world.at += 4 * MINUTE
        assert "no session" in await world.run()

    playing(test)


def test_nothing_is_asked_while_our_own_network_is_lost():
    async def test(world, origin):
        world.fleet.world = replace(world.fleet.world, isolated_since=NOON)
        assert "network" in await world.run()
        assert asked(origin) == 0

    playing(test)


@pytest.mark.parametrize(
    ("begin", "end", "zone", "sent"),
    [
        (8, 23, "UTC", 1),
        (13, 23, "UTC", 0),
        (22, 13, "UTC", 1),
        (20, 22, "Asia/Tokyo", 1),
        (8, 20, "Asia/Tokyo", 0),
    ],
)
def test_hours_are_those_of_the_operators_clock(begin, end, zone, sent):
    async def test(world, origin):
        await world.run()
        assert asked(origin) == sent

    hours = (dt.time(begin), dt.time(end))
    playing(test, wanted={"between": hours}, timezone=zone)


def test_a_months_budget_is_kept_and_the_next_month_has_its_own():
    async def test(world, origin):
        for _ in range(5):
            said = await world.run()
            world.at += 4 * MINUTE
        assert asked(origin) == 3
        assert said == "nap skipped: this month's 3 requests are used up"
        world.at += 17 * DAY
        assert await world.run() == "nap answered 200"

    playing(test, meters=[meter("nap:keepalive", 3.0)])


def test_a_metered_tunnel_is_asked_no_more_than_its_host_allows():
    async def test(world, origin):
        world.ask(world.http, KeepaliveSettings("nap", 4 * MINUTE, url="https://x.ngrok.io/"))
        world.spent("nap:tunnel", 2.0)
        assert await world.run() == "nap skipped: this month's 2 requests are used up"
        world.ask(world.http, KeepaliveSettings("nap", 4 * MINUTE))
        assert await world.run() == "nap answered 200", "its own address is behind no such tunnel"

    playing(test, meters=[meter("nap:tunnel", 2.0)])


def test_what_does_not_answer_is_told_and_hinders_nobody():
    async def test(world, origin):
        gone = KeepaliveSettings("gone", 4 * MINUTE, url="http://127.0.0.1:9/")
        world.fleet.config.backends["gone"] = Backend("gone", "static", "http", health=SLOW)
        world.fleet.backends["gone"] = replace(world.fleet.backends["nap"], name="gone")
        world.ask(world.http, gone, KeepaliveSettings("nap", 4 * MINUTE))
        with pytest.raises(Unreachable, match="gone: connection refused"):
            await world.run()
        assert asked(origin) == 1

    playing(test)


def test_a_host_whose_front_answers_for_it_is_not_awake():
    async def test(world, origin):
        with pytest.raises(BadReply, match="nap answered 503"):
            await world.run()

    playing(test, reply=ASLEEP)


def test_with_several_intervals_nobody_waits_longer_than_its_own():
    async def test(world, origin):
        world.fleet.config.backends["doze"] = Backend("doze", "static", "http", health=SLOW)
        world.fleet.backends["doze"] = replace(world.fleet.backends["nap"], name="doze")
        page = origin.url + "/doze"
        doze = KeepaliveSettings("doze", 10 * MINUTE, url=page)
        world.ask(world.http, KeepaliveSettings("nap", 4 * MINUTE), doze)
        assert keepalive.tick_s(world.tools.keepalive) == 4 * MINUTE
        times = {"nap": [], "doze": []}
        for _ in range(16):
            said = await world.run()
            for name, seen in times.items():
                if f"{name} answered" in said:
                    seen.append(world.at)
            world.at += 4 * MINUTE
        gaps = {name: {b - a for a, b in itertools.pairwise(seen)} for name, seen in times.items()}
        assert gaps == {"nap": {4 * MINUTE}, "doze": {8 * MINUTE}}

    playing(test)


def test_an_address_that_a_session_said_is_asked_only_if_it_is_public():
    async def test(world, origin):
        wanted = KeepaliveSettings("nap", 4 * MINUTE, public_only=True)
        async with AioHttp(allow=public_only) as guarded:
            world.ask(world.http, wanted, guarded=guarded)
            with pytest.raises(Unreachable):
                await world.run()
            assert asked(origin) == 0
            world.ask(world.http, replace(wanted, url=origin.url), guarded=guarded)
            assert await world.run() == "nap answered 200"

    playing(test)


def test_the_job_is_there_only_where_it_is_asked_for_and_shows_what_came_of_it():
    async def test(world, origin):
        job = next(one for one in SCHEDULE if one.name == "keepalive")
        tools = world.tools
        assert job.trigger(replace(tools, keepalive=None)) is None
        assert job.trigger(replace(tools, keepalive=replace(tools.keepalive, backends=()))) is None
        runner = Runner(SCHEDULE, tools, table=tools.store, report=lambda _: None)
        await runner.start(asyncio.Event().wait())
        try:
            runner.start_now("keepalive")
            shown = {view.name: view for view in runner.view()}
            assert "keepalive" in shown
            await until(lambda: tools.store.rows and tools.store.rows[-1].finished_at, "no run")
            shown = {view.name: view for view in runner.view()}
            assert shown["keepalive"].said == "nap answered 200"
        finally:
            await runner.stop()

    playing(test)
