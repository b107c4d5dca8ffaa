"""The whole agent: its parts put together, and how a run begins and ends.

    engine ─── proxy ─── tunnel ─── the world
                 └── membership: registered, heartbeats, orders

Each part is a task that goes on by itself; nothing of what serves waits for the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from . import VERSION, place, takeover
from .clock import Backoff
from .errors import Gone, Refused
from .installing import Installer
from .keys import Keys
from .link import Link
from .membership import Condition, Membership
from .orders import Orders
from .printing import Printer
from .proxy import Identity, Proxy
from .running import Running
from .saving import Saver
from .settings import Settings
from .state import State
from .tunnels import Tunnel

HURRIED_S = 10.0  # for open answers, when whoever runs us wants to end
STOP, GONE, REFUSED, TAKEN = "stop", "gone", "refused", "taken"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run ends: one of the four, and the line to say."""

    kind: str
    text: str
    hurried: bool = False


class Whole:
    """One run of the agent; `run` ends with the exit code. `stop` may be called from any thread."""

    def __init__(self, settings: Settings, keys: Keys, printer: Printer) -> None:
        self._settings = settings
        self._keys = keys
        self._printer = printer
        for secret in (keys.token, keys.engine, keys.ngrok, keys.cloudflared, keys.hugging_face):
            printer.redactor.add(secret)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Future[Ending] | None = None
        self._drained = False
        self._phase = ""

    def stop(self, why: str) -> None:
        """End in good order, soon."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it ended meanwhile
                self._loop.call_soon_threadsafe(self._end, Ending(STOP, why, hurried=True))

    def _end(self, ending: Ending) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(ending)

    async def run(self) -> int:
        """Run until something ends it; returns the exit code: 0 in good order, 1 refused."""
        self._loop = asyncio.get_running_loop()
        self._ending = self._loop.create_future()
        # What calls itself Python is turned away in many places.
        name = {"User-Agent": f"aion-agent/{VERSION}"}
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(headers=name, cookie_jar=jar) as http:
            try:
                await self._prepare(http)
            except Refused as error:
                self._printer.say("error", str(error))
                return 1
            tasks = self._start()
            try:
                ending = await self._ending
                return await self._finish(ending, tasks)
            except asyncio.CancelledError:
                self.engine.kill()
                self.tunnel.kill()
                raise
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
                await self.proxy.close()

    async def _prepare(self, http: aiohttp.ClientSession) -> None:
        """Put the parts together and listen. Raises Refused."""
        settings, keys, printer = self._settings, self._keys, self._printer
        gpu = await asyncio.to_thread(place.gpu)
        where = {"colab": "Colab, ", "kaggle": "Kaggle, "}.get(place.where(), "")
        said = f"aion agent {VERSION} for {settings.backend} · {where}{place.described(gpu)}"
        printer.say("agent", said)
        self.state = state = State(settings)
        port = await takeover.take(state, http, printer)
        identity = Identity(secrets.token_hex(8), secrets.token_urlsafe(32))
        printer.redactor.add(identity.takeover)
        began_at = place.began_at(state.get("agent").get("began_at"))
        self.proxy = Proxy(settings, keys.engine, identity)
        await self._listen(port)
        state.begin(
            host=settings.local,
            port=self.proxy.port,
            takeover=identity.takeover,
            began_at=began_at,
            aion=settings.aion,
        )
        installer = Installer(settings, state.folder, http, printer)
        self.orders = Orders(printer)
        self.engine = Running(settings, keys, state, installer, http, printer)
        self.tunnel = Tunnel(settings, keys, state, installer, http, printer, self.proxy)
        link = Link(http, settings.aion)
        self.membership = Membership(settings, keys, state, link, printer, self.proxy, self.orders)
        self.saver = Saver(settings, state.folder, printer)
        self._wire(gpu, began_at)

    async def _listen(self, before: int) -> None:
        """Listen where the earlier run did, if that is a port that may be chosen."""
        settings = self._settings
        choices = [before] if before and settings.port in (0, 8766) else []
        choices += [settings.port]
        if settings.tunnel != "none" and not settings.url:
            choices += [0]  # a quick tunnel goes wherever it is told
        for at, port in enumerate(choices):
            try:
                await self.proxy.start(port)
            except Refused:
                await self.proxy.close()
                if at == len(choices) - 1:
                    raise
            else:
                return

    def _wire(self, gpu: dict[str, Any] | None, began_at: float) -> None:
        changed = self._changed
        self.proxy.engine = self.engine.root
        self.proxy.health = self._health
        self.proxy.on_takeover = lambda: self._end(
            Ending(TAKEN, "handed over to a newer run; engine and tunnel go on")
        )
        self.engine.on_change = changed
        self.tunnel.on_change = changed
        self.orders.on_change = changed
        self.orders.carry_out = self._carry_out
        self.membership.url = lambda: self.tunnel.url
        self.membership.on_heard = self._say_serving
        self.membership.condition = self._condition
        self.membership.gpu = gpu
        self.membership.began_at = began_at
        self.saver.ends = lambda: self.membership.ends
        self._serving = False

    def _start(self) -> dict[str, asyncio.Task[None]]:
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "engine": self.engine.run,
            "tunnel": self.tunnel.run,
            "aion": self.membership.run,
            "order": self.orders.run,
            "save": self.saver.run,
        }
        if self._settings.watch:
            folder = Path(self._settings.watch).expanduser()
            parts["watch"] = lambda: self.orders.watch(folder)
        return {
            name: asyncio.create_task(self._keep(name, part), name=name)
            for name, part in parts.items()
        }

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Keep a part going: what it cannot go on from ends the run, a mistake of ours does not."""
        wait = Backoff(1.0, self._settings.retry_most_s)
        while True:
            try:
                await part()
            except Refused as error:
                self._end(Ending(REFUSED, str(error)))
                return
            except Gone as error:
                self._end(Ending(GONE, str(error)))
                return
            except Exception as error:  # noqa: BLE001 - the others go on, and so does this one
                self._printer.say(name, f"unexpected: {type(error).__name__}: {error}")
                await asyncio.sleep(wait.next())
            else:
                return

    # ── how it is ───────────────────────────────────────────────────────────────────────────────

    def _condition(self) -> Condition:
        engine, tunnel = self.engine, self.tunnel
        ready = engine.ready and tunnel.ready
        state = self._phase or ("draining" if self.proxy.draining else "")
        if not state:
            state = "ready" if ready else engine.state
        if state == "ready" and not ready:
            state = "starting"  # the engine can serve, nobody can reach it
        return Condition(state, engine.ready, tunnel.ready, engine.detail or tunnel.detail)

    def _health(self) -> dict[str, Any]:
        now = self._condition()
        return {
            "state": now.state,
            "engine_ready": now.engine_ready,
            "tunnel_ready": now.tunnel_ready,
            "busy": self.proxy.busy,
            "version": VERSION,
        }

    def _changed(self) -> None:
        self.membership.changed()
        self._say_serving()

    def _say_serving(self) -> None:
        session = self.membership.session
        if not self._serving and session is not None and self._condition().state == "ready":
            self._serving = True
            whom = {"open": "anybody", "clients": "clients with a key"}
            who = whom.get(session.access, "the orchestrator's gateway")
            self._printer.say("serving", f"{who} at {self.tunnel.url}")

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    async def _carry_out(self, kind: str) -> bool:
        if kind == "save":
            return await self.saver.save("on order")
        if kind == "restart":
            self.proxy.draining = False
            if not self.engine.restart():
                self._printer.say("order", "this engine was not started here; it goes on")
                return False
            return True
        if kind == "drain":
            self.proxy.draining = True
            return True
        asyncio.get_running_loop().call_soon(self._end, Ending(STOP, "told to stop"))
        return True

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    async def _finish(self, ending: Ending, tasks: dict[str, asyncio.Task[None]]) -> int:
        """End as the reason asks; returns the exit code."""
        refused = ending.kind == REFUSED
        self._printer.say("error" if refused else "agent", ending.text)
        if ending.kind == TAKEN:
            return 0
        for name in ("aion", "order", "save", "watch"):
            if task := tasks.get(name):
                task.cancel()
        self._phase = "stopping"
        gone = ending.kind == GONE
        if gone and self.membership.session is not None:
            await asyncio.sleep(self._settings.linger_s)  # clients still have the old address
        self.proxy.draining = True
        if ending.kind == STOP:
            await self.membership.tell()
        await self.proxy.drained(HURRIED_S if ending.hurried else self._settings.drain_s)
        if self.saver.wanted and self.membership.session is not None:
            self._phase = "saving"
            if ending.kind == STOP:
                await self.membership.tell()
            await self.saver.save("at the end")
            self._phase = "stopping"
        await self.membership.farewell(gone=ending.kind != STOP)
        for name in ("tunnel", "engine"):
            tasks[name].cancel()
            await asyncio.gather(tasks[name], return_exceptions=True)
        await asyncio.gather(self.tunnel.stop(), self.engine.stop())
        self.state.put("agent")
        if not refused:
            self._printer.say("agent", "ended in good order")
        return int(refused)
