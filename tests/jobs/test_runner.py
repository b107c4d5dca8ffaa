import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from jobs.base import DeadmanSettings, Job, Tools
from jobs.deadman import ping
from jobs.runner import CRASHED, Runner
from jobs.schedule import SCHEDULE
from jobs.triggers import cron, every
from orchestrator.core.events import Flagged
from orchestrator.core.model import Now
from orchestrator.errors import BadReply, StoreFull, Unreachable

NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Row:
    id: int
    name: str
    started_wall: float
    finished_at: float | None = None
    problem: str = ""


@dataclass
class Table:
    """What ran, in memory."""

    rows: list[Row] = field(default_factory=list)
    full: bool = False
    pruned: int = 0

    def had(self, name: str, wall: float, problem: str | None = "") -> None:
        """Write down a run of the past; problem None: it never ended."""
        ended = None if problem is None else wall + 1
        self.rows.append(Row(len(self.rows), name, wall, ended, problem or ""))

    async def job_started(self, name: str, now: Now) -> int:
        if self.full:
            raise StoreFull("the disk is full")
        self.rows.append(Row(len(self.rows), name, now.wall))
        return len(self.rows) - 1

    async def job_finished(self, run: int, now: Now, problem: str) -> None:
        self.rows[run] = replace(self.rows[run], finished_at=now.at, problem=problem)

    async def job_runs(self, name: str | None = None, limit: int = 100) -> list[Row]:
        return [row for row in reversed(self.rows) if row.name == name][:limit]

    async def flush(self) -> None: ...

    async def prune(self, now: Now) -> None:
        self.pruned += 1


async def _yes() -> bool:
    return True


class World:
    def __init__(self, *jobs: Job, table: Table | None = None, **tools) -> None:
        self.table = table or Table()
        self.flags: list[Flagged] = []
        self.converged = asyncio.Event()
        self.tools = Tools(lambda: Now(NOON, NOON), "UTC", self.table, _yes, **tools)
        self.runner = Runner(jobs, self.tools, table=self.table, report=self.flags.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runner]:
        await self.runner.start(self.converged.wait())
        try:
            yield self.runner
        finally:
            await self.runner.stop()

    @property
    def quarantined(self) -> set[str]:
        last = {flag.subject: bool(flag.detail) for flag in self.flags}
        return {name for name, on in last.items() if on}


async def until(holds, what: str, limit_s: float = 25.0) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while not holds():  # noqa: ASYNC110 - it waits for the world, which sets no event
                await asyncio.sleep(0.01)
    assert holds(), what


def job(name: str, run, trigger=None, **how) -> Job:
    settings = {"heavy": False, "misfire_grace_s": 60, "catch_up": True} | how
    return Job(name, lambda _: trigger or every(DAY), run, **settings)


def counted(log: list[str], name: str, error: Exception | None = None):
    async def run(tools: Tools) -> str:
        log.append(name)
        if error:
            raise error
        return "done"

    return run


def test_a_job_is_written_down_before_it_starts():
    async def world():
        seen = []

        async def look(tools: Tools) -> str:
            seen.append(it.table.rows[-1].finished_at)
            return "looked"

        it = World(job("look", look, every(0.05)))
        async with it.running():
            await until(lambda: it.table.rows and it.table.rows[0].finished_at, "it never ran")
        assert seen[0] is None
        assert it.table.rows[0].problem == ""

    asyncio.run(world())


def test_a_job_that_failed_is_not_a_job_that_crashed():
    async def world():
        ran: list[str] = []
        it = World(job("ping", counted(ran, "ping", Unreachable("refused")), every(0.03)))
        async with it.running():
            await until(lambda: len(ran) >= 4, "it was not run again")
        assert it.table.rows[0].problem == "refused"
        assert not it.quarantined

    asyncio.run(world())


def test_two_crashes_in_a_row_quarantine_a_job_until_it_succeeds_by_hand():
    async def world():
        ran: list[str] = []
        broken: list[Exception] = [ValueError("secret")]

        async def run(tools: Tools) -> str:
            ran.append("x")
            if broken:
                raise broken[0]
            return "done"

        it = World(job("x", run, every(0.03)))
        async with it.running() as runner:
            await until(lambda: "x" in it.quarantined, "it was not quarantined")
            assert len(ran) == 2
            assert it.flags[-1].detail == f"{CRASHED}ValueError"
            assert runner.view()[0].quarantined
            broken.clear()
            answer = await runner.run_now("x")
            assert answer.problem is None
            assert not it.quarantined
            await until(lambda: len(ran) >= 4, "it is not scheduled again")

    asyncio.run(world())


def test_a_job_that_took_the_daemon_down_twice_is_quarantined_at_the_next_start():
    async def world():
        table, ran = Table(), []
        table.had("x", NOON - 3 * DAY, "")
        table.had("x", NOON - 2 * DAY, f"{CRASHED}the daemon died while it ran")
        table.had("x", NOON - DAY - HOUR, None)
        it = World(job("x", counted(ran, "x")), table=table)
        it.converged.set()
        async with it.running():
            assert it.quarantined == {"x"}
            assert table.rows[-1].problem.startswith(CRASHED)
        assert not ran

    asyncio.run(world())


def test_another_schedule_starts_a_job_once_and_waits_for_nothing():
    async def world():
        ends = asyncio.Event()

        async def long(tools: Tools) -> str:
            await ends.wait()
            return "done"

        it = World(job("long", long))
        async with it.running() as runner:
            first, second = runner.start_now("long"), runner.start_now("long")
            assert (first.problem, second.problem) == (None, "running")
            assert runner.start_now("lung").problem == "unknown"
            await until(lambda: it.table.rows, "it did not start")
            ends.set()
            await until(lambda: it.table.rows[0].finished_at, "it did not end")
            assert runner.start_now("long").problem is None
        assert len(it.table.rows) <= 2

    asyncio.run(world())


def test_another_schedule_does_not_end_a_quarantine():
    async def world():
        table, ran = Table(), []
        for back in (3, 2):
            table.had("x", NOON - back * DAY, f"{CRASHED}ValueError")
        it = World(job("x", counted(ran, "x")), table=table)
        async with it.running() as runner:
            answer = runner.start_now("x")
            assert answer.problem == "conflict"
            assert "ValueError" in answer.text
        assert not ran

    asyncio.run(world())


def test_a_graceful_stop_is_no_crash():
    async def world():
        async def long(tools: Tools) -> str:
            await asyncio.sleep(300)
            return ""

        table = Table()
        for _ in range(3):
            it = World(job("long", long, every(0.02)), table=table)
            async with it.running() as runner:
                await until(lambda r=runner: r.view()[0].running, "it did not start")
        assert [row.problem for row in table.rows] == ["stopped with the daemon"] * 3
        assert not it.quarantined

    asyncio.run(world())


def test_missed_jobs_wait_for_convergence_and_run_once_one_heavy_one_at_a_time():
    async def world():
        table, ran, at_once = Table(), [], []

        def heavy(name: str):
            async def run(tools: Tools) -> str:
                ran.append(name)
                at_once.append(sum(view.running for view in runner.view()))
                await asyncio.sleep(0.02)
                return "done"

            return run

        nightly = cron("0 3 * * *", "UTC")
        for name in ("a", "b"):
            table.had(name, NOON - 5 * DAY)
        it = World(
            *(job(name, heavy(name), nightly, heavy=True) for name in ("a", "b")), table=table
        )
        async with it.running() as runner:
            await asyncio.sleep(0.05)
            assert not ran
            it.converged.set()
            await until(lambda: len(table.rows) == 4 and table.rows[3].finished_at, "not made up")
        assert ran == ["a", "b"]
        assert at_once == [1, 1]

    asyncio.run(world())


@pytest.mark.parametrize(
    ("line", "last", "catch_up", "made_up"),
    [
        ("0 3 * * *", NOON - 2 * DAY, True, True),
        ("0 3 * * *", NOON - 8 * HOUR, True, False),  # it ran at 4:00, after 3:00: nothing missed
        ("0 3 * * *", NOON - 2 * DAY, False, False),
        ("30 13 * * *", NOON - 2 * DAY, True, False),  # runs anyway in an hour and a half
        ("0 14 * * *", NOON - 2 * DAY, True, True),  # two hours are not less than two hours
        ("0 3 * * *", None, True, False),  # never ran: this daemon is new
    ],
)
def test_a_missed_job_is_made_up_for_unless_its_next_run_is_near(line, last, catch_up, made_up):
    async def world():
        table = Table()
        if last is not None:
            table.had("x", last)
        it = World(job("x", counted([], "x"), cron(line, "UTC"), catch_up=catch_up), table=table)
        assert not it.flags
        for entry in it.runner._entries.values():
            await it.runner._recall(entry, it.tools.now())
        assert bool(it.runner._missed(NOON)) is made_up

    asyncio.run(world())


def test_heavy_jobs_never_run_together_even_by_hand():
    async def world():
        running, most = 0, 0

        async def run(tools: Tools) -> str:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)
            running -= 1
            return "done"

        it = World(*(job(name, run, heavy=True) for name in "abc"))
        async with it.running() as runner:
            await asyncio.gather(*(runner.run_now(name) for name in "abc"))
        assert most == 1

    asyncio.run(world())


def test_what_cannot_be_written_down_is_not_run():
    async def world():
        ran: list[str] = []
        it = World(job("x", counted(ran, "x")))
        async with it.running() as runner:
            it.table.full = True
            answer = await runner.run_now("x")
        assert not ran
        assert answer.problem == "conflict"
        assert "disk is full" in answer.text

    asyncio.run(world())


def test_an_unknown_job_is_refused_with_the_known_ones():
    async def world():
        it = World(job("x", counted([], "x")))
        async with it.running() as runner:
            answer = await runner.run_now("y")
        assert answer.problem == "unknown"
        assert "x" in answer.text

    asyncio.run(world())


# ── the jobs themselves ─────────────────────────────────────────────────────────────────────────

SECRET = "canary-4be1c7"


@asynccontextmanager
async def watcher(status: int = 200) -> AsyncIterator[tuple[str, list[str]]]:
    got: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/{SECRET}", got
    finally:
        server.close()


@pytest.mark.parametrize("answers", [True, False])
def test_the_dead_man_ping_goes_out_only_if_we_are_reached_from_outside(answers):
    async def name_ok() -> bool:
        return answers

    async def world():
        async with watcher() as (url, got):
            it = World(*SCHEDULE, deadman=DeadmanSettings(url, 300.0))
            it.tools = replace(it.tools, name_ok=name_ok)
            it.runner = Runner(SCHEDULE, it.tools, table=it.table, report=it.flags.append)
            async with it.running() as runner:
                answer = await runner.run_now("deadman")
        assert (answer.problem is None) is answers
        assert got == ([f"/{SECRET}"] if answers else [])

    asyncio.run(world())


def test_a_failed_ping_does_not_tell_its_address():
    async def world():
        async with watcher(500) as (url, _):
            with pytest.raises(BadReply, match="500") as bad:
                await ping(url)
        with pytest.raises(Unreachable) as gone:
            await ping(url)
        for raised in (bad, gone):
            assert SECRET not in str(raised.value)
            assert raised.value.__cause__ is None

    asyncio.run(world())


def test_without_a_ping_url_there_is_no_dead_man_and_housekeeping_prunes():
    async def world():
        it = World(*SCHEDULE)
        async with it.running() as runner:
            assert [view.name for view in runner.view()] == ["housekeeping"]
            assert (await runner.run_now("housekeeping")).problem is None
        assert it.table.pruned == 1

    asyncio.run(world())


def test_the_address_is_not_shown_with_the_settings():
    assert SECRET not in repr(DeadmanSettings(SECRET, 300.0))


@pytest.mark.parametrize("problem", [None, "stopped with the daemon"])
@pytest.mark.parametrize("resume", [True, False])
def test_what_the_daemon_ended_in_the_midst_of_is_begun_anew_where_that_is_asked_for(
    resume, problem
):
    async def world():
        table, ran = Table(), []
        table.had("x", NOON - HOUR, problem)
        nightly = cron("0 3 * * *", "UTC")
        it = World(job("x", counted(ran, "x"), nightly, resume=resume), table=table)
        it.converged.set()
        async with it.running():
            if resume:
                await until(lambda: ran, "it was not begun anew")
            else:
                await asyncio.sleep(0.05)
        assert bool(ran) is resume

    asyncio.run(world())


def test_jobs_that_the_configuration_makes_come_and_go_with_it():
    async def world():
        it = World()
        names = ["one"]
        runner = Runner(
            (),
            it.tools,
            table=it.table,
            report=it.flags.append,
            more=lambda _: [job(name, counted([], name)) for name in names],
        )
        await runner.start(it.converged.wait())
        assert [view.name for view in runner.view()] == ["one"]
        names[:] = ["two", "three"]
        await runner.configure(it.tools, it.converged.wait())
        assert [view.name for view in runner.view()] == ["two", "three"]
        await runner.stop()

    asyncio.run(world())
