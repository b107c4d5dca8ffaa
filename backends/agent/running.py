"""Keeps the engine running: starts it, waits until it can serve, starts it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from . import ollama
from .children import Child
from .clock import Backoff, spoken, steady
from .engines import ENGINES, FAILED, LOADING, LOCAL, READY, Said, launch, read
from .errors import Refused
from .installing import Installer
from .keys import Keys
from .printing import Printer
from .settings import Settings
from .state import State

LOOK_S = 1.0  # how often a child is looked at, and an engine that is not ready is asked
ANSWER_S = 10.0
BODY = 65536
CALM_S = 300.0  # having lived this long, a dead engine is started again at once
AGAIN_S = 10.0  # before a model that could not be had is tried again


class Running:
    """One engine, ours or somebody else's. `on_change` is called whenever `ready` or `state` is."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        state: State,
        installer: Installer,
        http: aiohttp.ClientSession,
        printer: Printer,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._kept = state
        self._installer = installer
        self._http = http
        self._printer = printer
        self._engine = ENGINES[settings.engine]
        port = settings.engine_port or self._engine.port
        self.root = settings.engine_url or f"http://{LOCAL}:{port}"
        self._port = urlsplit(self.root).port or port
        self._asked_again = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None
        self._progress = ""
        self._backoff = Backoff(1.0, max(1.0, settings.retry_most_s))
        self._child: Child | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.state = "starting"
        self.detail = ""
        self.began = steady()

    @property
    def ready(self) -> bool:
        """Say whether it can serve."""
        return self.state == READY

    @property
    def ours(self) -> bool:
        """Say whether it was started here, and so can be started again."""
        return not self._settings.engine_url

    def restart(self) -> bool:
        """Start it again soon; False if it is not ours."""
        if self.ours:
            self._asked_again.set()
        return self.ours

    async def run(self) -> None:
        """Keep it running until cancelled. Raises Refused if it cannot be started at all."""
        if not self.ours:
            await self._watch(None)
        child = self._left()
        while True:
            self.began = steady()
            try:
                self._child = child = child or await self._start()
                why = await self._watch(child)
            except Refused as error:
                if self._child is None:
                    raise
                why = str(error)  # it could be started before, so this may pass
            finally:
                await self._unprepare()
            if steady() - self.began > CALM_S:
                self._backoff.reset()
            if child is not None:
                await child.stop()
            child = None
            wait_s = self._backoff.next()
            self._set("failed", why)
            self._printer.say("engine", f"{why}; starting it again in {spoken(wait_s)}")
            await asyncio.sleep(wait_s)

    def kill(self) -> None:
        """End it at once, if it is ours."""
        if self._child is not None:
            self._child.kill()

    async def stop(self) -> None:
        """End it, if it is ours."""
        if self._child is not None:
            await self._child.stop()
            self._kept.put("engine")

    # ── starting ────────────────────────────────────────────────────────────────────────────────

    def _mark(self) -> str:
        """Tell this way of starting it from others: what runs by another is not taken over."""
        one = self._settings
        told = (one.engine, one.models, one.engine_command, one.engine_args, self._port)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def _left(self) -> Child | None:
        kept = self._kept.get("engine")
        if kept.get("mark") != self._mark():
            return None
        child = Child.left(int(kept["pid"]), int(kept["began"]), self._log())
        if child is not None:
            self._printer.say("engine", f"{self._settings.engine} still runs; taken over")
        return child

    def _log(self) -> Path:
        return self._kept.folder / f"{self._settings.backend}-engine.log"

    async def _start(self) -> Child:
        self._set("starting", "")
        how = launch(self._settings, self._port, self._keys)
        program = await self._installer.get(how.argv[0], self._engine.hint)
        if self._taken():
            raise Refused(
                f"port {self._port} is in use: by an engine? then say engine_url={self.root}; "
                "else engine_port=…"
            )
        models = ", ".join(self._settings.models)
        self._printer.say(
            "engine", f"{self._settings.engine} starts" + (f": {models}" * bool(models))
        )
        argv = (program, *how.argv[1:])
        child = Child.start(argv, self._log(), how.env, self._settings.engine_dir)
        self._kept.put("engine", pid=child.pid, began=child.began, mark=self._mark())
        return child

    def _taken(self) -> bool:
        with socket.socket() as one, contextlib.suppress(OSError):
            one.settimeout(0.5)
            return one.connect_ex((LOCAL, self._port)) == 0
        return False

    # ── watching ────────────────────────────────────────────────────────────────────────────────

    async def _watch(self, child: Child | None) -> str:
        """Look at it until it has to be started again; returns why. For ever if it is not ours."""
        asked = served = False
        looked = failing = 0.0
        self._asked_again.clear()
        while True:
            if child is not None and (ended := child.ended()):
                words = child.last_words()
                return f"{self._settings.engine} {ended}" + (f" ({words})" if words else "")
            if self._asked_again.is_set():
                return "a restart was asked for"
            now = steady()
            if not asked or now - looked >= (
                self._settings.engine_check_s if self.ready else LOOK_S
            ):
                said = self._prepared(await self._ask())
                looked, asked = steady(), True
                served = served or said[0] == READY
                failing = 0.0 if said[0] == READY else failing or looked
                self._tell(*said)
                if child is not None:
                    child.trim()
            patience_s = self._settings.hang_s if served else self._settings.load_timeout_s
            if child is not None and failing and steady() - failing > patience_s:
                return f"not ready for {spoken(patience_s)} ({self.detail})"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, self._settings.engine_check_s)):
                    await self._asked_again.wait()

    async def _ask(self) -> Said:
        """Ask its health path once."""
        if not self._engine.health:
            return await self._knock()
        headers = {"Authorization": f"Bearer {self._keys.engine}"} if self._keys.engine else {}
        limits = aiohttp.ClientTimeout(total=ANSWER_S)
        try:
            address = self.root + self._engine.health
            asked = self._http.get(address, headers=headers, timeout=limits, allow_redirects=False)
            async with asked as reply:
                return read(self._engine, reply.status, await reply.content.read(BODY))
        except (aiohttp.ClientConnectorError, ConnectionError):
            return (LOADING if self.ours else FAILED), "it does not listen yet"
        except TimeoutError:
            return FAILED, "it does not answer"
        except aiohttp.ClientError as error:
            return FAILED, f"it answers no HTTP ({type(error).__name__})"

    async def _knock(self) -> Said:
        try:
            async with asyncio.timeout(ANSWER_S):
                _, writer = await asyncio.open_connection(LOCAL, self._port)
        except (OSError, TimeoutError):
            return LOADING, "it does not listen yet"
        writer.close()
        return READY, ""

    def _tell(self, state: str, detail: str) -> None:
        was = self.state
        if state == READY and was != READY:
            models = ", ".join(self._settings.models) or self._settings.engine
            after = f" after {spoken(steady() - self.began)}" if self.ours else ""
            self._printer.say("engine", f"ready{after}: {models}")
        elif state != READY and (was == READY or (state == FAILED and was != FAILED)):
            self._printer.say("engine", f"not ready: {detail}")
        self._set(state, detail)

    def _set(self, state: str, detail: str) -> None:
        changed = (state, detail) != (self.state, self.detail)
        self.state, self.detail = state, detail
        if changed:
            self.on_change()

    # ── Ollama: it listens long before it has the model ─────────────────────────────────────────

    def _prepared(self, said: Said) -> Said:
        """Have Ollama's models pulled and loaded; it is ready once they are."""
        if said[0] != READY or self._settings.engine != "ollama" or not self.ours:
            return said
        if self._preparing is None:
            self._progress = "looking for the models"
            self._preparing = asyncio.create_task(self._prepare())
        return (READY, "") if self._preparing.done() else (LOADING, self._progress)

    async def _prepare(self) -> None:
        models = self._settings.models
        wait = Backoff(1.0, AGAIN_S)
        while True:
            try:
                for model in await ollama.missing(self._http, self.root, models):
                    await ollama.pull(self._http, self.root, model, self._hear)
                if models:
                    self._hear(f"loading {models[0]}")
                    await ollama.load(self._http, self.root, models[0], self._settings.keep_alive)
            except (ollama.NotPrepared, aiohttp.ClientError, TimeoutError, ValueError) as error:
                said = str(error) or type(error).__name__
                self._printer.say("engine", said)
                self._hear(said)
                await asyncio.sleep(wait.next())
            else:
                return

    def _hear(self, said: str) -> None:
        self._progress = said

    async def _unprepare(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._preparing
            self._preparing = None
