"""The world as it truly is: backends, networks, and what of them can be seen from our machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from backends import identity, tunnels
from backends.base import Random, Reply
from backends.engines.asking import LIST_EVERY_S
from orchestrator.errors import Unreachable
from tests.simulation import plans
from tests.simulation.trace import Trace
from tests.simulation.virtual import Time


class Mode(StrEnum):
    """How a backend is. DEAD ones cannot serve us; GRAY, DENIED and BUSY ones are neither."""

    OK = "ok"
    SLOW = "slow"  # answers, within the time-out
    REFUSE = "refuse"
    HANG = "hang"
    RESET = "reset"
    ERROR = "error"
    WRONG = "wrong"  # 200, with somebody else's model
    LOADING = "loading"
    ONE_WAY = "one-way"  # it hears us, we do not hear it
    GRAY = "gray"  # ready, but completions fail
    DENIED = "denied"
    BUSY = "busy"


GOOD = (Mode.OK, Mode.SLOW)
DEAD = (Mode.REFUSE, Mode.HANG, Mode.RESET, Mode.ERROR, Mode.WRONG, Mode.LOADING, Mode.ONE_WAY)
BUSY_S = 90
LEASE_S = 60.0
LISTS = ("/v1/models",)
SILENT = (Mode.HANG, Mode.ONE_WAY)


@dataclass
class Place:
    """One backend. `good_since`, `dead_since`: unbroken, as reachable from our machine.

    `fit`: it is well itself, and so is every network but ours, since `fit_since`. `bad_seen`: when
    a probe of it last got no good answer; `busy_seen`: when one was told to come back later.
    `gone`: nobody is there.
    """

    name: str
    mode: Mode = Mode.OK
    good_since: float | None = 0.0
    dead_since: float | None = None
    fit: bool = True
    fit_since: float = 0.0
    bad_seen: float = float("-inf")
    busy_seen: float = float("-inf")
    gone: bool = False

    @property
    def operator(self) -> str:
        """The company whose network it is reached through."""
        return plans.operator_of(self.name)

    @property
    def well(self) -> bool:
        """Whether it can serve whoever reaches it."""
        return not self.gone and self.mode in GOOD

    @property
    def dead(self) -> bool:
        """Whether it can serve nobody."""
        return self.gone or self.mode in DEAD

    @property
    def hidden_s(self) -> float:
        """For how long its death can't be seen: the engine's list is asked for so seldom."""
        unlisted = plans.engine_of(self.name) == "llamacpp"
        return LIST_EVERY_S if self.mode is Mode.WRONG and unlisted else 0.0


class Agent(Protocol):
    """What stands before the engine of a notebook, as whoever comes by its tunnel meets it."""

    def identify(self, nonce: str) -> Reply: ...

    def admits(self, authorization: str) -> bool: ...

    @property
    def session(self) -> str | None:
        """The session that it speaks for, if it speaks for any."""
        ...


@dataclass
class Tunnel(Place):
    """One public address of one notebook; `gone`: it never comes back.

    `agent`: what stands before the engine; None: its agent is dead, and whoever comes meets the
    engine itself. `tells`: its agent notices what is wrong, and says so.
    """

    host: str = ""
    agent: Agent | None = None
    tells: bool = True

    @property
    def operator(self) -> str:
        return "third" if tunnels.metered(f"https://{self.host}") else "cloud"

    @property
    def well(self) -> bool:
        return super().well and self.agent is not None

    @property
    def dead(self) -> bool:
        return super().dead or self.agent is None

    @property
    def hidden_s(self) -> float:
        """Nothing is amiss with an engine whose agent is dead, until its lease lapses."""
        unproven = self.agent is None and self.mode not in DEAD and not self.gone
        return LEASE_S if unproven else super().hidden_s


class World:
    """Backends, controls and the networks between them and us.

    `places`: those whose address never changes; `tunnels` by host: all that ever were; `latest` by
    backend: the one that its notebook was last reached by. `deaf`: nobody reaches us from outside.
    `sent` is called with every request we make, `changed` where an agent may notice something.
    """

    def __init__(self, names: tuple[str, ...], time: Time, random: Random, trace: Trace) -> None:
        self.time, self.random, self.trace = time, random, trace
        self.names = names
        self.places = {name: Place(name) for name in names if name not in plans.NOTEBOOKS}
        if plans.RENTED in names:
            off = Place(plans.RENTED, good_since=None, dead_since=0.0, fit=False, gone=True)
            self.places[plans.RENTED] = off
        self.tunnels: dict[str, Tunnel] = {}
        self.latest: dict[str, Tunnel] = {}
        self.network_lost = False
        self.deaf = False
        self.lost_operators: set[str] = set()
        self.asked = 0  # requests ever made
        self.proofs: set[tuple[str, str]] = set()  # session and host: the challenge was met there
        self.sent: Callable[[Sent], None] = lambda _: None
        self.changed: Callable[[Tunnel], None] = lambda _: None

    # ── what the onlooker does to it ────────────────────────────────────────────────────────────

    def become(self, name: str, mode: Mode) -> None:
        """Change how a backend is: of a notebook the one that was started last."""
        place = self.places.get(name) or self.latest.get(name)
        if place is not None and place.mode is not mode:
            self.trace.tell("world", f"{name} is {mode}")
            place.mode = mode
            self.judge()

    def open(self, tunnel: Tunnel) -> None:
        """Have a notebook be reached at a new address."""
        tunnel.good_since, tunnel.fit_since = None, self.time.true
        self.tunnels[tunnel.host] = self.latest[tunnel.name] = tunnel
        self.judge()

    def close(self, tunnel: Tunnel) -> None:
        """Have an address be nobody's any more."""
        tunnel.gone = True
        self.judge()

    def lose_network(self, lost: bool) -> None:
        """Take our own network away, or give it back."""
        self.trace.tell("world", f"our network is {'lost' if lost else 'back'}")
        self.network_lost = lost
        self.judge()

    def lose_operator(self, operator: str, lost: bool) -> None:
        """Take a company's network away: its controls, and the tunnels through it."""
        self.trace.tell("world", f"{operator} is {'lost' if lost else 'back'}")
        (self.lost_operators.add if lost else self.lost_operators.discard)(operator)
        self.judge()

    def proven(self, session: str, host: str) -> None:
        """Note that whoever is at this host could prove to be this session."""
        self.proofs.add((session, host))

    def judge(self) -> None:
        """Say of every backend anew since when it is well or dead."""
        now = self.time.true
        for place in (*self.places.values(), *self.tunnels.values()):
            cut = self.cut_off(place.operator)
            fit = place.well and place.operator not in self.lost_operators
            if fit is not place.fit:
                place.fit, place.fit_since = fit, now
            before = place.good_since is None, place.dead_since is None
            place.good_since = _since(place.good_since, place.well and not cut, now)
            place.dead_since = _since(place.dead_since, place.dead or cut, now + place.hidden_s)
            after = place.good_since is None, place.dead_since is None
            if before != after and isinstance(place, Tunnel):
                self.changed(place)

    def cut_off(self, operator: str) -> bool:
        """Say whether nothing of that company can be reached from here."""
        return self.network_lost or operator in self.lost_operators

    def controls_lost(self) -> int:
        """Count the controls that cannot be reached."""
        return sum(self.cut_off(operator) for operator in plans.CONTROLS.values())


def _since(before: float | None, true: bool, now: float) -> float | None:
    if not true:
        return None
    return now if before is None else before


@dataclass(frozen=True)
class Sent:
    """One request that we made. `guarded`: by the client that reaches public addresses only."""

    url: str
    path: str
    host: str
    headers: Mapping[str, str]
    body: bytes | None
    guarded: bool


@dataclass
class Http:
    """An HTTP port of one life of the daemon. `boundary` is called where it may be killed."""

    world: World
    boundary: Callable[[str], None]
    guarded: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {plans.host_of(name): name for name in self.world.places}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int = 65536,
        once: bool = False,
    ) -> Reply:
        """Ask a server of the simulated world; see `backends.base.Http`."""
        parts = urlsplit(url)
        host = parts.netloc
        self.boundary("http")
        world = self.world
        world.asked += 1
        world.trace.mark(f"{method} {url}")
        world.sent(Sent(url, parts.path, host, headers or {}, body, self.guarded))
        if host in plans.CONTROLS:
            await self._cross(plans.CONTROLS[host], timeout_s)
            return Reply(204, {}, b"", 0.02)
        if host == plans.NAME:
            await self._cross("own", timeout_s)
            return Reply(200, {}, b"{}", 0.02)
        place = world.tunnels.get(host) or world.places[self.names[host]]
        slept = world.time.suspended
        try:
            reply = await self._ask(place, parts, (headers or {}), timeout_s)
        except Unreachable:
            if world.time.suspended == slept:  # what timed out while we slept says nothing
                place.bad_seen = world.time.true
            raise
        refused = reply.status >= 400 and parts.path != identity.PATH  # who it is, not how it is
        if refused or (place.mode is Mode.WRONG and parts.path in LISTS):
            place.bad_seen = world.time.true
        if reply.status == 429:
            place.busy_seen = world.time.true
        return reply

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        raise NotImplementedError("no simulated backend is asked by TCP alone")

    async def _cross(self, operator: str, timeout_s: float) -> None:
        """Cross the network to a company and back; raises `Unreachable` as the world has it."""
        await asyncio.sleep(0.005 + 0.03 * self.world.random.random())
        if self.world.cut_off(operator):
            await self._hang(timeout_s)

    async def _hang(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s - 0.04)
        raise Unreachable(f"timed out after {timeout_s:g} s")

    async def _ask(
        self, place: Place, parts: SplitResult, headers: Mapping[str, str], timeout_s: float
    ) -> Reply:
        began = self.world.time.true
        await self._cross(place.operator, timeout_s)
        mode = place.mode
        if mode in SILENT:
            await self._hang(timeout_s)
        if mode is Mode.REFUSE or place.gone:
            raise Unreachable("connection refused")
        if mode is Mode.RESET:
            raise Unreachable("connection reset")
        if mode is Mode.SLOW:
            await asyncio.sleep(timeout_s * (0.3 + 0.5 * self.world.random.random()))
            mode = place.mode
            if place.gone or mode not in GOOD or self.world.cut_off(place.operator):
                raise Unreachable("connection reset")
        if isinstance(place, Tunnel) and place.agent is not None:
            if parts.path == identity.PATH:
                return place.agent.identify(parts.query.removeprefix("nonce="))
            if not place.agent.admits(headers.get("Authorization", "")):
                return Reply(401, JSON, b'{"error": {"message": "only the orchestrator"}}', 0.02)
        elif parts.path == identity.PATH:
            return Reply(404, JSON, b'{"error": {"message": "not found"}}', 0.02)
        return answer(mode, parts.path, self.world.time.true - began)


def answer(mode: Mode, path: str, latency_s: float) -> Reply:
    """Say what an engine in this mode says: llama.cpp at `/health`, else OpenAI's interface."""
    completion = path.endswith("/completions")
    if mode is Mode.ERROR or (mode is Mode.GRAY and completion):
        return Reply(500, JSON, b'{"error": {"message": "CUDA error"}}', latency_s)
    if mode is Mode.DENIED:
        return Reply(401, JSON, b'{"error": {"message": "bad key"}}', latency_s)
    if mode is Mode.BUSY:
        headers = {**JSON, "retry-after": str(BUSY_S)}
        return Reply(429, headers, b'{"error": {"message": "slow down"}}', latency_s)
    if mode is Mode.LOADING:
        return Reply(503, JSON, b'{"error": {"code": 503, "message": "Loading model"}}', latency_s)
    if completion:
        return Reply(200, JSON, COMPLETION, latency_s)
    if path == "/health":
        return Reply(200, JSON, b'{"status": "ok"}', latency_s)
    return Reply(200, JSON, OTHERS if mode is Mode.WRONG else OURS, latency_s)


def _listing(name: str) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model"}]}).encode()


JSON = {"content-type": "application/json"}
OURS, OTHERS = _listing("m"), _listing("somebody-elses")
COMPLETION = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "p"}}],
    }
).encode()
