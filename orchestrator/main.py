"""The composition root: the only place that wires things together.

`serve` is the daemon from its start to its end. The order of the start is chosen so that discovery
answers from the store before anything is probed, and that a mistake costs one clear line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvloop

from jobs import backing
from jobs.base import BackupTools, KeepaliveTools, Tools
from jobs.runner import Runner
from jobs.schedule import SCHEDULE
from orchestrator import __version__
from orchestrator.assembly import Assembly, Outside
from orchestrator.core.events import Flagged
from orchestrator.core.model import Incident
from orchestrator.edge import systemd
from orchestrator.edge.alerts import zone_of
from orchestrator.edge.child import run_child
from orchestrator.edge.clock import SystemClock, SystemRandom
from orchestrator.edge.http import AioHttp, no_metadata, public_only, raise_file_limit
from orchestrator.edge.log import Log
from orchestrator.edge.migrate import migrate
from orchestrator.edge.programs import run_program
from orchestrator.edge.store import Saved, Store, in_thread
from orchestrator.edge.texts import Style, incident_title
from orchestrator.errors import AionError, ConfigError
from orchestrator.settings import Config, diff, find_path, load, signed, with_admin_token
from orchestrator.web.app import Web, build, servers
from orchestrator.web.parts import Parts

STOP_S = 4.0

log = structlog.get_logger()


def serve(path: Path | None, *, shadow: bool = False) -> int:
    """Run the daemon until SIGTERM or SIGINT; returns the exit status.

    Raises `ConfigError` where there is no usable configuration, and other `AionError`s for what
    prevents a start: a database that cannot be used, an address in use.
    """
    found = find_path(path, environ=os.environ)
    if found is None:
        raise ConfigError("no configuration; `aion init` writes one, `aion demo` needs none")
    config = _read(found, shadow=shadow)
    config, token_path, made = with_admin_token(config)
    if made:
        sys.stderr.write(f"the admin token is in {token_path}\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Daemon(config, shadow=shadow).run())
    return 0


def _read(path: Path, *, shadow: bool) -> Config:
    config = load(path, environ=os.environ)
    return replace(config, fleet=replace(config.fleet, shadow=shadow))


class Daemon:
    """One run of the orchestrator."""

    def __init__(self, config: Config, *, shadow: bool) -> None:
        self._config = config
        self._shadow = shadow
        self._clock = SystemClock(os.environ.get("AION_BOOT_ID", ""))
        self._random = SystemRandom()
        self._ends = asyncio.Event()
        self._started = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._failed = ""
        self._asked: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._notifier = systemd.Notifier(os.environ.get("NOTIFY_SOCKET"))
        self._log = Log(
            sys.stderr,
            self._clock.wall,
            terminal=sys.stderr.isatty(),
            journal="JOURNAL_STREAM" in os.environ,
        )

    async def run(self) -> None:
        """Start, serve until told to end, and stop within five seconds."""
        self._log.hide(self._config.secrets())
        self._log.install()
        for warning in self._config.warnings:
            log.warning("configuration", text=warning)
        raise_file_limit()
        async with AsyncExitStack() as stack:
            self._listen_to_signals()
            await self._open(stack)
            await self._start()
            self._started.set()
            await self._ends.wait()
            self._notifier.stopping()
            log.info("stopping", text=self._failed or "told to end")
        if self._failed:
            raise AionError(f"the daemon cannot go on: {self._failed}")

    # ── start ───────────────────────────────────────────────────────────────────────────────────

    async def _open(self, stack: AsyncExitStack) -> None:
        """Open the store and serve from it what it holds; everything else follows."""
        config = self._config
        config.state_dir.mkdir(parents=True, exist_ok=True)
        await migrate(config.database)
        instance = config.fleet.instance or None
        self._store = Store(config.database, in_thread(), instance=instance)
        saved = await self._store.load()
        self._instance = instance or saved.instance
        self._config = signed(config, self._instance)
        stack.push_async_callback(self._store.close)
        self._store.anchor = self._clock.resume(saved.written_at, saved.anchor)
        tls = ssl.create_default_context()  # half a megabyte of authorities, so both share it
        http = await stack.enter_async_context(AioHttp(tls=tls, allow=no_metadata))
        guarded = await stack.enter_async_context(AioHttp(tls=tls, allow=public_only))
        self._assemble(saved, http, guarded)
        stack.push_async_callback(self._end_tasks)
        self._servers = servers(self._web)
        for server in self._servers:
            server.bind()
        for server in self._servers:
            await server.start()
            stack.push_async_callback(server.stop)
        port = self._servers[0].port
        log.info("listening", address=f"http://{config.web.host}:{port}", version=__version__)
        self._notifier.ready("serving the stored answer; looking at the backends")

    def _assemble(self, saved: Saved, http: AioHttp, guarded: AioHttp) -> None:
        now = self._clock.steady()
        self._outside = Outside(
            http, guarded, self._clock, self._random, run_child, programs=run_program
        )
        self._assembly = Assembly(self._config, saved, self._store, self._outside)
        self._loop = loop = self._assembly.loop
        self._board: dict[str, Mapping[str, Any]] = {}
        self._jobs = Runner(
            SCHEDULE,
            self._tools(),
            table=self._store,
            report=loop.report,
            more=backing.jobs,
        )
        self._web = self._build_web()
        loop.watch(self._web.metrics.observe_probe)
        loop.time(self._web.metrics.turn, self._web.metrics.committed)
        took_s = round(self._clock.steady() - now, 3)
        log.info("assembled", backends=len(self._config.plans), took_s=took_s)

    def _build_web(self) -> Web:
        zone = zone_of(self._config.timezone)

        def tell(incident: Incident) -> str:
            now = self._loop.now()
            style = Style(self._config.alerts.language, zone, now.wall - now.at)
            return incident_title(incident, style)

        return build(
            Parts(
                settings=self._config.web,
                loop=self._loop,
                store=self._store,
                jobs=self._jobs,
                backups=lambda: backing.view(self._config.backups, self._jobs.view(), self._board),
                reload=self.reload,
                tell=tell,
                version=__version__,
                sent=self._assembly.counts.sent,
            )
        )

    def _tools(self) -> Tools:
        counts = self._assembly.counts
        return Tools(
            now=self._loop.now,
            timezone=self._config.timezone,
            store=self._store,
            name_ok=self._name_ok,
            deadman=self._config.deadman,
            keepalive=KeepaliveTools(
                backends=self._config.keepalive,
                fleet=lambda: self._loop.fleet,
                http=counts.over(self._outside.http),
                guarded=counts.over(self._outside.guarded),
                random=self._random,
                spent=counts.add,
                asked=self._asked,
            ),
            backups=BackupTools(
                () if self._shadow else self._config.backups,  # two would write to the same places
                self._outside.children,
                self._loop.report,
                self._board,
            ),
        )

    async def _start(self) -> None:
        for name, work in self._assembly.works():
            self._run(name, work)
        patience = systemd.watchdog_interval_s(
            os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID"), os.getpid()
        )
        if patience is not None:
            self._run(
                "watchdog", systemd.pet(self._notifier, lambda: self._loop.turned_at, patience)
            )
        self._assembly.begin()
        await self._jobs.start(self._assembly.settled.wait())

    def _run(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Run a task that must not end; if it does, the daemon does, and systemd starts it anew."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self._ends.is_set():
            return
        self._failed = f"its part `{task.get_name()}` ended; the log says why"
        log.error("task_ended", task=task.get_name(), exc_info=task.exception())
        self._ends.set()

    # ── while it runs ───────────────────────────────────────────────────────────────────────────

    async def _name_ok(self) -> bool:
        """Ask for ourselves as others would; by our own address where there is no public one."""
        web = self._config.web
        base = web.public_url or web.local_url(self._servers[0].port)
        return await self._assembly.names.reached(f"{base.rstrip('/')}/healthz")

    # ── reload and stop ─────────────────────────────────────────────────────────────────────────

    def _listen_to_signals(self) -> None:
        here = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            here.add_signal_handler(number, self._ends.set)
        here.add_signal_handler(signal.SIGHUP, lambda: here.create_task(self._hung_up()))

    async def _hung_up(self) -> None:
        try:
            for line in await self.reload():
                log.info("reloaded", text=line)
        except AionError as error:
            log.error("reload_refused", problem=str(error))  # noqa: TRY400 - one line, no trace

    async def reload(self) -> list[str]:
        """Read the configuration again; returns what changed, one sentence each.

        Raises `ConfigError` for a file with problems; then the last good one stays in force.
        """
        await self._started.wait()
        async with self._reloading:
            try:
                assert self._config.path is not None
                new = _read(self._config.path, shadow=self._shadow)
            except ConfigError as error:
                first = str(error).partition("\n")[0]
                self._loop.report(Flagged("config_refused", str(self._config.path), first))
                raise
            web = new.web
            if not web.admin_token_sha256:
                web = replace(web, admin_token_sha256=self._config.web.admin_token_sha256)
            new = signed(replace(new, web=web), self._instance)
            self._loop.report(Flagged("config_refused", str(self._config.path), ""))
            changes = diff(self._config, new)
            await self._adopt(new)
            return changes

    async def _adopt(self, new: Config) -> None:
        """Put a new configuration in force; what did not change goes on undisturbed."""
        old = self._config
        self._log.hide([*old.secrets(), *new.secrets()])
        await self._assembly.adopt(new)
        self._config = new
        self._web.change_token(new.web.admin_token_sha256)
        self._web.change_hooks(new.web.hooks)
        self._web.change_registering(new.web)
        backing.forget(old.backups, new.backups, self._loop.report)
        scheduled = [(one.deadman, one.keepalive, one.backups, one.timezone) for one in (old, new)]
        if scheduled[0] != scheduled[1]:
            await self._jobs.configure(self._tools(), self._assembly.settled.wait())

    async def _end_tasks(self) -> None:
        self._ends.set()
        await self._jobs.stop()
        await self._assembly.close()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.wait(self._tasks.values(), timeout=STOP_S) if self._tasks else None
