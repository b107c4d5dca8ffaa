"""Belonging to the daemon's fleet: registered, kept by heartbeats, registered anew when need be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from . import VERSION
from .access import Door, digest, gateway_key
from .clock import Backoff, clock_face, rfc3339, steady, wall
from .errors import Away, Gone, Refused, Unknown
from .keys import Keys
from .link import Beaten, Link, Registered
from .orders import Orders
from .printing import Printer
from .proxy import Proxy
from .settings import Settings
from .state import State

DOUBT_S = 5.0  # between heartbeats while something does not work
SHORTEST_S = 0.2  # between heartbeats, however much changes
DETAIL = 200


@dataclass(slots=True)
class Session:
    """One registration, as the daemon answered it; `seq` counts the heartbeats."""

    id: str
    token: str = field(repr=False)
    url: str
    heartbeat_s: float
    access: str
    client_keys: list[str]
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """How the agent is, as a heartbeat says it."""

    state: str
    engine_ready: bool
    tunnel_ready: bool
    detail: str

    @property
    def well(self) -> bool:
        """Say whether all works."""
        return self.engine_ready and self.tunnel_ready


class Membership:
    """Registers and sends heartbeats. `condition` says how the agent is; `url` where it is.

    `on_heard` is called when the daemon has heard a heartbeat.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        state: State,
        link: Link,
        printer: Printer,
        proxy: Proxy,
        orders: Orders,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._kept = state
        self._link = link
        self._printer = printer
        self._proxy = proxy
        self._orders = orders
        self._news = asyncio.Event()
        self._said: Condition | None = None
        self._backoff = Backoff(min(1.0, settings.retry_most_s), settings.retry_most_s)
        self._away = False
        self.on_heard: Callable[[], None] = lambda: None
        self.url: Callable[[], str] = str
        self.condition: Callable[[], Condition]
        self.gpu: dict[str, Any] | None = None
        self.began_at = wall()
        self.session: Session | None = None
        self.ends: float | None = None
        """When the session ends, on the steady clock; None: it does not, or nobody knows."""

    def changed(self) -> None:
        """Something may have changed: say so at once if the daemon has not heard it."""
        self._news.set()

    async def run(self) -> None:
        """Belong until cancelled. Raises Gone when the session is over, Refused if not wanted."""
        resumed = self._resume()
        while True:
            await self._addressed()
            try:
                if self.session is None or self.session.url != self.url():
                    await self._register()
                wait_s = await self._beat()
            except Unknown:
                self.session, resumed = None, False
                continue
            except Gone:
                if not resumed:
                    raise
                self.session, resumed = None, False  # it ended while nobody was here
                continue
            except Away as error:
                wait_s = self._missed(error)
            else:
                if resumed:
                    self._printer.say("aion", "the session of the run before goes on")
                resumed = False
                self._reached()
            await self._rest(wait_s)

    async def farewell(self, *, gone: bool) -> None:
        """Say the last word: that it stops, what was done, and goodbye. Once, and only if heard."""
        session = self.session
        if session is not None and not gone:
            with contextlib.suppress(Away, Gone, Unknown):
                await self._beat()
                await self._link.leave(session.id, session.token)
        self._kept.put("session")

    async def tell(self) -> None:
        """Send a heartbeat now, outside the rhythm; whether it is heard does not matter."""
        with contextlib.suppress(Away, Gone, Unknown):
            if self.session is not None:
                await self._beat()

    # ── the session ─────────────────────────────────────────────────────────────────────────────

    def _resume(self) -> bool:
        """Take up the session of an earlier run; the first heartbeat shows whether it is good."""
        kept = self._kept.get("session")
        try:
            session = Session(**kept)
        except TypeError:
            return False
        self._take(session)
        return True

    async def _addressed(self) -> None:
        """Wait for an address."""
        while not self.url():
            self._news.clear()
            if not self.url():
                await self._news.wait()

    async def _register(self) -> None:
        url = self.url()
        answer = await self._admitted(
            {
                "backend": self._settings.backend,
                "url": url,
                "engine": self._settings.engine,
                "models": list(self._settings.models),
                "started_at": rfc3339(self.began_at),
                "now": rfc3339(wall()),
                "gpu": self.gpu,
                "agent": VERSION,
            },
        )
        keys = list(answer.client_keys)
        self._take(
            Session(answer.session, answer.token, url, answer.heartbeat_s, answer.access, keys)
        )
        self._ends_in(answer.ends_in_s)
        self._orders.forget()
        self._said = None
        until = "" if self.ends is None else f", until {self._end_face()}"
        self._printer.say("aion", f"registered with {self._settings.aion}{until}")

    async def _admitted(self, body: dict[str, Any]) -> Registered:
        """Register with the session's own token while there is one: a launch's is good but once."""
        if self.session is not None:
            with contextlib.suppress(Refused):
                return await self._link.register(self.session.token, body)
        return await self._link.register(self._keys.token, body)

    def _take(self, session: Session) -> None:
        """Be known as this session from now on."""
        self._printer.redactor.add(session.token)
        key = gateway_key(session.token, session.id)
        self._printer.redactor.add(key)
        before = self._proxy.door.gateway if self._proxy.door is not None else ()
        gateway = (digest(key), *before[:1])  # the one before serves until this one is proven
        self._proxy.door = Door(session.access, tuple(session.client_keys), gateway)
        identity = self._proxy.identity
        identity.session, identity.token, identity.url = session.id, session.token, session.url
        self.session = session
        self._keep()

    def _keep(self) -> None:
        if self.session is not None:
            self._kept.put("session", **asdict(self.session))

    def _ends_in(self, left_s: float | None) -> None:
        self.ends = None if left_s is None else steady() + left_s

    def _end_face(self) -> str:
        assert self.ends is not None
        return clock_face(wall() + self.ends - steady())

    # ── heartbeats ──────────────────────────────────────────────────────────────────────────────

    async def _beat(self) -> float:
        """Send a heartbeat; returns how long to wait before the next."""
        session = self.session
        if session is None:
            return 0.0
        self._news.clear()
        condition = self.condition()
        done = self._orders.done()
        session.seq += 1
        self._keep()
        answer = await self._link.beat(
            session.id,
            session.token,
            {
                "seq": session.seq,
                "state": condition.state,
                "engine_ready": condition.engine_ready,
                "tunnel_ready": condition.tunnel_ready,
                "busy": self._proxy.busy,
                "gpu": self.gpu,
                "done": [{"id": ident, "ok": ok} for ident, ok in done.items()],
                "detail": self._printer.redactor.clean(condition.detail, DETAIL),
            },
        )
        self._heard(session, condition, done, answer)
        return session.heartbeat_s if condition.well else min(DOUBT_S, session.heartbeat_s)

    def _heard(
        self, session: Session, said: Condition, done: dict[str, bool], answer: Beaten
    ) -> None:
        self._said = said
        self._orders.acknowledged(done)
        self._ends_in(answer.ends_in_s)
        before = session.access, session.client_keys
        session.access = answer.access or session.access
        if answer.client_keys is not None:
            session.client_keys = list(answer.client_keys)
        if (session.access, session.client_keys) != before:
            gateway = self._proxy.door.gateway if self._proxy.door is not None else ()
            self._proxy.door = Door(session.access, tuple(session.client_keys), gateway)
            self._keep()
        self._orders.take(answer.orders)

    def _missed(self, error: Away) -> float:
        if not self._away:
            self._away = True
            self._printer.say("aion", f"{error}; asking again until it does, serving meanwhile")
        return max(self._backoff.next(), error.retry_after_s)

    def _reached(self) -> None:
        self._backoff.reset()
        if self._away:
            self._away = False
            self._printer.say("aion", "the daemon is there again")
        self.on_heard()

    async def _rest(self, wait_s: float) -> None:
        """Wait for the next heartbeat, or for news that cannot wait."""
        began = steady()
        while (left_s := began + wait_s - steady()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            if not self._news.is_set():
                return
            self._news.clear()
            if self._away or not self._new():
                continue
            spent_s = steady() - began
            await asyncio.sleep(max(0.0, SHORTEST_S - spent_s))
            return

    def _new(self) -> bool:
        """Say whether there is something that the daemon should hear at once."""
        said, now = self._said, self.condition()
        moved = self.session is not None and self.session.url != self.url()
        if said is None or moved or self._orders.done():
            return True
        return (said.state, said.engine_ready, said.tunnel_ready) != (
            now.state,
            now.engine_ready,
            now.tunnel_ready,
        )
