"""The machine that the daemon runs on: it can be killed, suspended, filled up, and started again.

What runs is the real thing: `Assembly` with its loop, core, pacer, reconciler, courier and drivers,
a real SQLite file, and the discovery endpoint. Only the ports are the simulator's. A kill drops the
process where it stands: the database files are taken as they are at that moment, log included, and
the next life opens the copy.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import structlog

from backends.base import Random
from orchestrator.assembly import Assembly, Outside
from orchestrator.core.events import Answer, Command, Event, Turn
from orchestrator.core.model import Now
from orchestrator.edge import sqlite
from orchestrator.edge.sqlite import BALLAST_BYTES, Ballast
from orchestrator.edge.store import Audit, Saved, Store, inline
from orchestrator.settings import Config
from orchestrator.web import register
from orchestrator.web.discovery import Discovery
from orchestrator.web.gate import Gate
from orchestrator.web.live import Live
from orchestrator.web.ports import App, Message
from orchestrator.web.register import RegisterLock, Registrar
from orchestrator.web.sessions import SessionLock, Sessions
from orchestrator.web.streams import Streams
from tests.simulation import phone, plans, provider, world, zone
from tests.simulation.notebooks import Call, Heard
from tests.simulation.trace import Trace
from tests.simulation.virtual import Time, VirtualLoop

PAGE = 4096
DATABASE = "aion.db"
DIALECT: dict[str, Any] = {}
COMPILED: dict[Any, Any] = {}
KEPT = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}.ballast")


class Killed(KeyboardInterrupt):
    """SIGKILL. A KeyboardInterrupt, for those alone stop asyncio's loop from inside a task."""


class Onlooker(Protocol):
    """Sees what happens and judges it."""

    def started(self, saved: Saved) -> None: ...

    def turned(self, turn: Turn) -> None: ...

    def asking(self, plan: Any) -> None: ...

    def answered(self, command: Command, answer: Answer | None) -> None: ...

    def failed(self, what: str) -> None: ...

    def replied(self, call: Call, sent_at: float, status: int, said: Mapping[str, Any]) -> None: ...


class Disk:
    """How much room the database has, as the machine's disk would say."""

    def __init__(self) -> None:
        self.full = False
        self.pages = 1 << 30

    def limit(self, store: SimulatedStore) -> None:
        """Hold the open database to it, by SQLite's own means."""
        raw = store.raw
        raw.execute(f"PRAGMA max_page_count={self.pages if self.full else 1 << 30}")

    def fill(self, store: SimulatedStore | None) -> None:
        self.full = True
        if store is not None:
            self.pages = store.raw.execute("PRAGMA page_count").fetchone()[0]
            self.limit(store)

    def clear(self, store: SimulatedStore | None) -> None:
        self.full = False
        if store is not None:
            self.limit(store)


class _Ballast(Ballast):
    """The ballast on that disk: to give it up makes room, and there is none to lay it anew."""

    def __init__(self, path: Path, disk: Disk, store: SimulatedStore) -> None:
        super().__init__(path)
        self._disk, self._store = disk, store

    def lay(self, spare: int = 0) -> bool:
        if self._disk.full:
            return self.laid and not spare
        return super().lay(spare)

    def release(self) -> bool:
        released = super().release()
        if released and self._disk.full:
            self._disk.pages += BALLAST_BYTES // PAGE
            self._disk.limit(self._store)
        return released


class SimulatedStore(Store):
    """The real store, on the simulated disk; it can be killed before and after a commit.

    Statistics decide nothing, so they are written seldom, for they cost a fifth of the time.
    """

    tally_every_s = 120.0

    def __init__(self, path: Path, disk: Disk, boundary: Callable[[str], None]) -> None:
        super().__init__(f"sqlite:///{path}", inline(), instance="sim", create=True)
        self._ballast = _Ballast(path, disk, self)
        self._boundary = boundary
        self.under_way: Turn | None = None

    def _connect_and_read(self) -> Any:
        """Open as ever, with what earlier lives compiled: that took longer than all they wrote."""
        if self._connection is None:
            self._engine = sqlite.engine_for(self._url)
            self._engine.dialect = DIALECT.setdefault("sqlite", self._engine.dialect)
            compiled = self._engine.connect().execution_options(compiled_cache=COMPILED)
            self._connection = compiled
        return super()._connect_and_read()

    @property
    def raw(self) -> Any:
        assert self._connection is not None
        return self._connection.connection.driver_connection

    async def commit(self, turn: Turn, now: Now, audit: Audit | None = None) -> None:
        self.under_way = turn
        self._boundary("commit")
        try:
            await super().commit(turn, now, audit)
        except Exception:
            self.under_way = None
            raise
        self._boundary("committed")

    def drop(self) -> None:
        """Close the file without writing anything."""
        self._shut()


class Machine:
    """Where the daemon lives. `onlooker` is set before `run`.

    `number` counts the places passed at which the process can be killed; `kill_at` is the number
    of the one where it will be, `kill_in` one of that kind, whichever comes next.
    """

    onlooker: Onlooker

    def __init__(self, folder: Path, config: Config, time: Time, random: Random) -> None:
        self.time, self.random, self.config = time, random, config
        self.trace = Trace(time)
        self.world = world.World(tuple(config.plans), time, random, self.trace)
        self.zone = zone.Zone(time, random, self.trace)
        self.phone = phone.Phone(time, self.trace)
        self.cloud = provider.Cloud(self.world)
        self.disk = Disk()
        self.lives = 0
        self.up_since: float | None = None
        self.kill_at: int | None = None
        self.kill_in: str | None = None
        self.number = 0
        self.outage_s: Callable[[], float] = lambda: 1.0 + 20.0 * random.random()
        self.assembly: Assembly | None = None
        self.store: SimulatedStore | None = None
        self.discovery: Discovery | None = None
        self.web: Mapping[str, App] = {}
        self.asleep_until = 0.0
        self.away_until = 0.0  # the next life does not begin before
        self.in_doubt = False  # the last life was killed while it committed something
        self._folder = folder
        self._home = folder / "life1"
        self._copy, self._restores = folder / "copy", False
        self._home.mkdir(parents=True)
        self._dead = False
        self._loop: VirtualLoop | None = None
        self._ends: asyncio.Future[None] | None = None
        self._orders: list[Command] = []

    # ── from start to end ───────────────────────────────────────────────────────────────────────

    def run(self, until: float) -> None:
        """Live until that true time, dying and coming back as the world has it."""
        ends = False

        def end() -> None:
            nonlocal ends
            ends = True
            self.stop()

        self.time.at(until, end)
        with seeded_secrets(self.random):
            while not ends:
                self._live()
                if not ends:
                    begins_at = max(self.time.true + self.outage_s(), self.away_until)
                    self.time.pass_until(min(until, begins_at))

    def _live(self) -> None:
        loop = VirtualLoop(self.time)
        loop.set_exception_handler(lambda _, about: self.onlooker.failed(_said(about)))
        self._loop, self._dead = loop, False
        self.lives += 1
        self.phone.lives = self.lives
        self.trace.tell("machine", f"the daemon starts, life {self.lives}")
        try:
            loop.run_until_complete(self._main())
        except Killed as why:
            self.trace.tell("machine", f"killed: {why}")
        finally:
            self._bury(loop)

    async def _main(self) -> None:
        store = SimulatedStore(self._home / DATABASE, self.disk, self.boundary)
        self.store = store
        saved = await store.load()
        if self.disk.full:
            self.disk.limit(store)
        clock = self.time.clock()
        store.anchor = clock.resume(saved.written_at, saved.anchor)
        outside = Outside(
            http=world.Http(self.world, self.boundary),
            guarded=world.Http(self.world, self.boundary, guarded=True),
            clock=clock,
            random=self.random,
            children=phone.Children(self.phone, self._cut_off, self.boundary),
            provider=zone.opener(self.zone, self._cut_off, self.boundary, self._asking),
            programs=provider.Programs(self.cloud, self._provider_cut_off, self.boundary),
        )
        self.assembly = assembly = Assembly(self.config, saved, store, outside)
        self.discovery = Discovery(assembly.loop, 2.0, Streams())
        self.web = self._doors(assembly, store)
        self.up_since = self.time.true
        self.onlooker.started(saved)
        assembly.loop.subscribe(self._turned)
        tasks = [asyncio.create_task(work, name=name) for name, work in assembly.works()]
        for task in tasks:
            task.add_done_callback(self._part_ended)
        assembly.begin()
        orders, self._orders = self._orders, []
        for order in orders:
            self.order(order)
        self._ends = asyncio.get_running_loop().create_future()
        await self._ends
        self.trace.tell("machine", "the daemon is stopped")
        self._dead = True  # its ports answer no more; what is in memory may still be written
        await assembly.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()

    def _doors(self, assembly: Assembly, store: Store) -> Mapping[str, App]:
        """Put the addresses together that agents speak to, as the web does."""
        live = Live(assembly.loop)
        registrar = Registrar(assembly.loop, live, self.config.web)
        sessions = Sessions(assembly.loop, live, store, registrar)
        return {
            "register": Gate(registrar, RegisterLock(live)),
            "sessions": Gate(sessions, SessionLock(live)),
        }

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        if not self._dead and not task.cancelled() and task.exception() is not None:
            self.onlooker.failed(f"the part `{task.get_name()}` ended: {task.exception()!r}")

    def _bury(self, loop: VirtualLoop) -> None:
        """Take the files as they are, and let go of what the dead process held."""
        self._dead = True
        self.up_since = self.assembly = self.discovery = self._ends = None
        self.web = {}
        store, self.store = self.store, None
        self.in_doubt = store is not None and store.under_way is not None
        before, self._home = self._home, self._folder / f"life{self.lives + 1}"
        self._home.mkdir()
        self._take(self._copy if self._restores else before, self._home)
        self._restores = False
        loop.freeze()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.set_exception_handler(lambda _loop, _about: None)
            with suppress(Killed):
                loop.run_until_complete(asyncio.wait(tasks))
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen, or asyncio complains
        if store is not None:
            store.drop()
        loop.close()
        shutil.rmtree(before)

    @staticmethod
    def _take(of: Path, to: Path) -> None:
        for file in of.iterdir():
            if file.name in KEPT:
                shutil.copyfile(file, to / file.name)

    # ── what can happen to it ───────────────────────────────────────────────────────────────────

    def boundary(self, kind: str) -> None:
        """Pass a place at which the process can be killed, or be killed there."""
        if self._dead:
            raise asyncio.CancelledError
        self.number += 1
        if self.number == self.kill_at or kind == self.kill_in:
            self.kill_in = None
            raise Killed(f"at {kind} ({self.number})")

    def kill(self) -> None:
        """Kill the process where it stands."""
        if self._loop is not None and not self._dead:
            raise Killed("between two steps")

    def back_up(self) -> None:
        """Keep a copy of the database as it is now."""
        self._copy.mkdir()
        self._take(self._home, self._copy)

    def restore(self) -> None:
        """Kill the process; the next life begins with that copy."""
        self.trace.tell("machine", "an older copy of the database is restored")
        self._restores = True
        self.kill()

    def stop(self) -> None:
        """Stop the process in good order."""
        if self._ends is not None and not self._ends.done():
            self._ends.set_result(None)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep, unless it sleeps already."""
        if self.time.true < self.asleep_until:
            return
        self.trace.tell("machine", f"sleeps for {seconds:.0f} s")
        self.asleep_until = self.time.true + seconds
        self.time.suspend(seconds)

    def step_wall_clock(self, error_s: float) -> None:
        """Set the wall clock wrong by so much."""
        self.trace.tell("machine", f"the wall clock is off by {error_s:+.0f} s")
        self.time.wall_error = error_s

    def fill_disk(self, full: bool) -> None:
        """Take all room from the disk, or give it back."""
        self.trace.tell("machine", f"the disk is {'full' if full else 'roomy'}")
        (self.disk.fill if full else self.disk.clear)(self.store)

    def order(self, command: Command) -> None:
        """Give the daemon an operator's command, now or at its next start."""
        if self.assembly is None:
            self._orders.append(command)
            return
        assert self._loop is not None
        self.trace.tell("operator", f"{command}")
        self._loop.create_task(self._ordered(self.assembly, command))

    async def _ordered(self, assembly: Assembly, command: Command) -> None:
        try:
            answer = await assembly.loop.command(command, None)
        except asyncio.CancelledError:
            self.onlooker.answered(command, None)
            return
        except Exception as error:  # noqa: BLE001 - the operator is told, and so are we
            self.trace.tell("operator", f"was told: {error}")
        else:
            self.trace.tell("operator", f"was told: {answer.text}")
            self.onlooker.answered(command, answer)

    def report(self, event: Event) -> None:
        """Hand the daemon an event from parts that are not simulated, if it lives."""
        if self.assembly is not None:
            self.assembly.loop.report(event)

    def call(self, call: Call, heard: Heard) -> None:
        """Bring an agent's request to the daemon, and its answer back; 0 if nobody answers."""
        if self._dead or not self.web or self.time.true < self.asleep_until:
            self.time.after(1.0, lambda: heard(0, {}))
            return
        assert self._loop is not None
        self.trace.mark(f"{call.method} from {call.notebook}")
        self._loop.create_task(self._called(self.web[call.path.split("/")[1]], call, heard))

    async def _called(self, door: App, call: Call, heard: Heard) -> None:
        parts: list[Message] = []
        body = json.dumps(call.body).encode()

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(part: Message) -> None:
            parts.append(part)

        scope = {
            "type": "http",
            "method": call.method,
            "path": call.path,
            "headers": [(b"authorization", f"Bearer {call.token}".encode())],
            "query_string": b"",
            "client": (call.notebook.address, 1),
        }
        sent_at = self.time.true
        try:
            await door(scope, receive, send)
        except asyncio.CancelledError:
            heard(0, {})
            raise
        status = parts[0]["status"]
        document = json.loads(b"".join(part["body"] for part in parts[1:]) or b"{}")
        waits = {name: value for name, value in parts[0]["headers"] if name == b"retry-after"}
        self.onlooker.replied(call, sent_at, status, document)
        heard(status, {**document, "wait_s": float(waits.get(b"retry-after", 0))})

    # ── what can be seen of it ──────────────────────────────────────────────────────────────────

    def ask(self, path: str) -> bytes | None:
        """Ask the discovery endpoint as a front end does; None: nobody answers."""
        if self.discovery is None:
            return None
        parts: list[dict[str, Any]] = []

        async def send(part: dict[str, Any]) -> None:
            parts.append(part)

        async def receive() -> dict[str, Any]:
            raise AssertionError("a GET has no body")

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
        coroutine = self.discovery(scope, receive, send)
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("discovery waited for something")
        assert parts[0]["status"] == 200, parts
        return b"".join(part["body"] for part in parts[1:])

    def serving(self, service: str) -> str | None:
        """Name the backend that serves, if the daemon lives and there is one."""
        if self.assembly is None:
            return None
        return self.assembly.loop.fleet.services[service].active

    def steady(self) -> float:
        """Give the daemon's steady time, or the wall clock's if it is down."""
        return self.time.wall() if self.assembly is None else self.assembly.loop.now().at

    def _cut_off(self) -> bool:
        return self.world.network_lost

    def _provider_cut_off(self) -> bool:
        return self.world.cut_off(plans.RENTED_FROM)

    def _asking(self, plan: Any) -> None:
        if not self._dead:
            self.onlooker.asking(plan)

    def _turned(self, turn: Turn) -> None:
        if self._dead:
            return
        assert self.store is not None
        self.store.under_way = None
        for entry in turn.entries:
            self.trace.tell("aion", f"{entry.action}: {entry.text}")
        self.onlooker.turned(turn)


@contextmanager
def seeded_secrets(random: Random) -> Iterator[None]:
    """Have sessions and their tokens be drawn from the seed: the same run gives the same ones."""

    def drawn(count: int) -> str:
        return f"{random.getrandbits(8 * count):0{2 * count}x}"

    real = register.secrets
    register.secrets = SimpleNamespace(token_hex=drawn, token_urlsafe=drawn)  # type: ignore[assignment]
    try:
        yield
    finally:
        register.secrets = real


def _said(about: dict[str, Any]) -> str:
    return f"{about.get('message')}: {about.get('exception')!r}"


def watch_the_log(failed: Callable[[str], None]) -> None:
    """Have defects that the daemon only logs, which goes on after them, told as failures."""

    def judge(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        if event.get("exc_info"):
            import sys
            import traceback

            lines = traceback.format_exc().splitlines()
            failed(f"{event.get('event')}: {sys.exc_info()[1]!r} {' | '.join(lines[-8:])}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[judge],
        wrapper_class=structlog.make_filtering_bound_logger(40),
        cache_logger_on_first_use=False,
    )
