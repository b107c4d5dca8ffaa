"""Notebooks as they truly run: an engine, the agent before it, a tunnel, and a clock of their own.

The agent speaks to the daemon's real endpoints as `backends/agent` does: it registers, beats every
15 s and at once when something changes, registers anew when it is not known, exits when it is told
that it is over. The network between them loses, repeats and reorders what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from backends import identity
from backends.base import Random, Reply
from tests.simulation import plans
from tests.simulation.trace import Trace
from tests.simulation.virtual import EPOCH, Time
from tests.simulation.world import JSON, Mode, Tunnel, World

HEARTBEAT_S = 15.0
DOUBT_S = 5.0  # between heartbeats while something does not work
LONGEST_WAIT_S = 30.0  # between tries while the daemon is away
GRACE_S = 30.0  # for which one that is over still answers
LOADS_S = 150.0  # the longest that a restarted engine takes
ENGINE_TROUBLE = (Mode.ERROR, Mode.LOADING)
REFUSED = (401, 403, 409, 422)


@dataclass(frozen=True)
class Call:
    """One request of an agent, and the notebook that it comes from."""

    notebook: Notebook
    method: str
    path: str
    token: str
    body: dict[str, Any] = field(default_factory=dict)


Heard = Callable[[int, dict[str, Any]], None]


class Door(Protocol):
    """The way to the daemon. `heard` is called with status and document; status 0: nobody heard."""

    def __call__(self, call: Call, heard: Heard) -> None: ...


@dataclass
class Membership:
    """One registration, as its agent knows it; `seq` counts its heartbeats."""

    id: str
    token: str = field(repr=False)
    host: str
    seq: int = 0

    @property
    def key(self) -> str:
        """What the daemon comes with."""
        return identity.gateway_key(identity.secret_of(self.token), self.id)


class Notebook:
    """One run of one notebook, from its start to its end.

    `rightful`: whoever started it may. `honest`: its agent says what does not work. `unsteady`: how
    often one of its heartbeats is late, early, repeated or overtaken, or its answer lost. `lost`:
    nothing that it says arrives. Its clock is off by `clock_error_s`.
    """

    def __init__(
        self,
        number: int,
        plan: plans.Notebook,
        token: str,
        world: World,
        door: Door,
        *,
        clock_error_s: float = 0.0,
        honest: bool = True,
        unsteady: float = 0.0,
        rightful: bool = True,
    ) -> None:
        self.number, self.plan, self.token = number, plan, token
        self.honest, self.unsteady, self.rightful = honest, unsteady, rightful
        self.clock_error_s = clock_error_s
        self.began = world.time.true
        self.ended: float | None = None
        self.leaving = False  # told that it is over, or that nobody wants it
        self.lost = False
        self.agent_died_at: float | None = None
        self.member: Membership | None = None
        self._world, self._door = world, door
        self._doors: list[str] = []
        self._plan = 0
        self._backoff_s = 1.0
        self._moves = 0
        self._done: dict[int, bool] = {}
        self._acknowledged: set[int] = set()
        self._waiting = False
        self.tunnel = self._opened()

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def time(self) -> Time:
        return self._world.time

    @property
    def random(self) -> Random:
        return self._world.random

    @property
    def trace(self) -> Trace:
        return self._world.trace

    @property
    def ends_at(self) -> float:
        """The true time at which its session is over by the configuration."""
        return self.began + self.plan.session_s

    @property
    def lives(self) -> bool:
        """Whether it runs, its agent too, and wants to belong."""
        return self.ended is None and self.agent_died_at is None and not self.leaving

    @property
    def session(self) -> str | None:
        """The session that its agent speaks for: none, if it forgot, until it registers anew."""
        return self.member.id if self.member is not None else None

    @property
    def address(self) -> str:
        """Where its requests come from."""
        return f"198.51.{self.number // 250}.{self.number % 250}"

    def __str__(self) -> str:
        return f"{self.name}'s run {self.number}"

    # ── what the onlooker does to it ────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Start: the agent says where it is."""
        self.trace.tell("world", f"{self} begins at {self.tunnel.host}")
        self._next(0.5 + self.random.random())

    def end(self, why: str) -> None:
        """Be no more: what ran there is gone, and so is its address."""
        if self.ended is None:
            self.trace.tell("world", f"{self} ends: {why}")
            self.ended = self.time.true
            self._plan += 1
            self._world.close(self.tunnel)

    def move(self) -> None:
        """Get a new address, as tunnels do when they reconnect."""
        if self.ended is None and not self.leaving:
            mode = self.tunnel.mode
            self._world.close(self.tunnel)
            self.tunnel = self._opened()
            self.tunnel.mode = mode
            self.tunnel.agent = self if self.agent_died_at is None else None
            self.trace.tell("world", f"{self} is at {self.tunnel.host} now")
            self._world.judge()
            self._next(1.0 + self.random.random())

    def kill_agent(self) -> None:
        """Have the agent die: its engine goes on, and anybody reaches it."""
        if self.ended is None and self.agent_died_at is None:
            self.trace.tell("world", f"the agent of {self} is dead")
            self.agent_died_at = self.time.true
            self._plan += 1
            self.tunnel.agent = None
            self._world.judge()

    def revive_agent(self, *, forgets: bool) -> None:
        """Start the agent again: it takes its session up, or `forgets` it."""
        if self.ended is None and self.agent_died_at is not None:
            self.trace.tell("world", f"the agent of {self} is back")
            self.agent_died_at, self._waiting = None, False
            if forgets:
                self.member = None
                self._doors.clear()
            self.tunnel.agent = self
            self._world.judge()
            self._next(0.5 + self.random.random())

    def lose(self, lost: bool) -> None:
        """Have nothing that it says arrive, or again."""
        self.trace.tell("world", f"{self} is {'not heard' if lost else 'heard'}")
        self.lost = lost

    def noticed(self) -> None:
        """Say soon how things are: the engine or the tunnel changed."""
        if self.honest and self.lives and self.member is not None:
            self._next(0.5 + 2.0 * self.random.random())

    def _opened(self) -> Tunnel:
        self._moves += 1
        said = f"{self.number}.{self._moves}.{self.name}".encode()
        host = f"{hashlib.blake2b(said, digest_size=6).hexdigest()}.{self.plan.suffix}"
        tunnel = Tunnel(self.name, host=host, agent=self, tells=self.honest)
        self._world.open(tunnel)
        return tunnel

    # ── who comes by its tunnel ─────────────────────────────────────────────────────────────────

    def identify(self, nonce: str) -> Reply:
        """Answer the challenge."""
        member = self.member
        if member is None:
            return Reply(503, JSON, b'{"error": {"message": "no session yet"}}', 0.02)
        secret = identity.secret_of(member.token)
        proof = identity.proof(secret, nonce, member.id, member.host)
        if member.host == self.tunnel.host:
            self._world.proven(member.id, member.host)
        said = {"version": identity.VERSION, "session": member.id, "proof": proof}
        return Reply(200, JSON, json.dumps(said).encode(), 0.02)

    def admits(self, authorization: str) -> bool:
        """Say whether that is the key of its session, or of the one before."""
        return authorization.removeprefix("Bearer ") in self._doors[-2:]

    # ── what its agent says ─────────────────────────────────────────────────────────────────────

    def _next(self, wait_s: float) -> None:
        """Speak then, instead of whenever it was going to."""
        self._plan += 1
        plan = self._plan
        self.time.after(wait_s, lambda: self._speak() if plan == self._plan else None)

    def _speak(self) -> None:
        if not self.lives:
            return
        if self._waiting:  # for the answer to what was said before
            self._next(1.0)
        elif self.member is None or self.member.host != self.tunnel.host:
            self._register()
        else:
            self._beat(self.member)

    def _say(self, call: Call, heard: Heard) -> None:
        """Send it off; what is heard is heard once, by this very run of the agent."""
        if self.lost or self._world.deaf or self._world.network_lost:
            self.time.after(2.0, lambda: heard(0, {}))
        elif self.random.random() < self.unsteady / 4:  # it arrives, and its answer does not
            self._door(call, lambda _status, _said: self.time.after(20.0, lambda: heard(0, {})))
        else:
            self._door(call, heard)

    def _stamp(self, true: float) -> str:
        return datetime.fromtimestamp(EPOCH + true + self.clock_error_s, UTC).isoformat()

    def _register(self) -> None:
        host = self.tunnel.host
        body = {
            "backend": self.name,
            "url": f"https://{host}",
            "engine": plans.engine_of(self.name),
            "models": ["m"],
            "started_at": self._stamp(self.began),
            "now": self._stamp(self.time.true),
            "gpu": {"name": "Tesla T4", "memory_mb": 15360},
            "agent": "0.3.0",
        }

        def heard(status: int, said: dict[str, Any]) -> None:
            self._waiting = False
            if not self.lives or self.tunnel.host != host:
                return
            if status == 201:
                self._take(Membership(said["session"], said["token"], host))
            elif status in REFUSED:
                self._refused(f"{status} {said.get('detail', '')}")
            else:
                self._missed(said)

        self._waiting = True
        self._say(Call(self, "POST", "/register", self.token, body), heard)

    def _take(self, member: Membership) -> None:
        self.member = member
        self._doors.append(member.key)
        self._done.clear()
        self._acknowledged.clear()
        self._backoff_s = 1.0
        self.trace.tell("agent", f"{self} is registered")
        self._next(0.2)

    def _beat(self, member: Membership) -> None:
        member.seq += 1
        body, well = self._condition(member.seq)
        done = dict(self._done)

        def heard(status: int, said: dict[str, Any]) -> None:
            self._waiting = False
            if not self.lives or self.member is not member:
                return
            if status == 200:
                self._acknowledged |= done.keys()
                self._backoff_s = 1.0
                self._obey(said["commands"])
                if self.lives:
                    self._next(self._pause_s(well))
            elif status == 410:
                self._over(said.get("detail", ""))
            elif status in (401, 404):
                self.member = None
                self._next(0.5)
            else:
                self._missed(said)

        path = f"/sessions/{member.id}/heartbeat"
        call = Call(self, "POST", path, member.token, body)
        self._waiting = True
        if self.random.random() < self.unsteady:
            self._again(call)
        self._say(call, heard)

    def _condition(self, seq: int) -> tuple[dict[str, Any], bool]:
        mode = self.tunnel.mode if self.honest else Mode.OK
        engine = mode not in ENGINE_TROUBLE
        through = not self.tunnel.dead or mode in ENGINE_TROUBLE or mode is Mode.WRONG
        reached = through and self.tunnel.operator not in self._world.lost_operators
        reached = reached or not self.honest
        done = [{"id": id_, "ok": ok} for id_, ok in self._done.items()]
        body = {
            "seq": seq,
            "state": "loading" if mode is Mode.LOADING else "ready",
            "engine_ready": engine,
            "tunnel_ready": reached,
            "busy": 0,
            "gpu": None,
            "done": [one for one in done if one["id"] not in self._acknowledged],
            "detail": "",
        }
        return body, engine and reached

    def _pause_s(self, well: bool) -> float:
        if not well:
            return DOUBT_S
        if self.random.random() < self.unsteady:
            return HEARTBEAT_S * (0.2 + 2.0 * self.random.random())
        return HEARTBEAT_S * (0.97 + 0.05 * self.random.random())

    def _again(self, call: Call) -> None:
        """Have the network repeat it later, even after those that follow."""
        wait_s = 40.0 * self.random.random()
        self.time.after(wait_s, lambda: self._say(call, lambda _status, _said: None))

    def _missed(self, said: dict[str, Any]) -> None:
        wait_s = max(self._backoff_s * (0.6 + 0.4 * self.random.random()), said.get("wait_s", 0.0))
        self._backoff_s = min(2 * self._backoff_s, LONGEST_WAIT_S)
        self._next(wait_s)

    def _obey(self, commands: list[dict[str, Any]]) -> None:
        for one in commands:
            if one["id"] in self._done:
                continue
            self._done[one["id"]] = True
            self.trace.tell("agent", f"{self} is to {one['do']}")
            if one["do"] == "restart":
                self._restart()
            elif one["do"] == "stop":
                self._leave()

    def _restart(self) -> None:
        tunnel = self.tunnel
        tunnel.mode = Mode.LOADING
        self._world.judge()

        def loaded() -> None:
            if tunnel.mode is Mode.LOADING:
                tunnel.mode = Mode.OK
                self._world.judge()

        self.time.after(20.0 + (LOADS_S - 20.0) * self.random.random(), loaded)

    def _leave(self) -> None:
        assert self.member is not None
        path = f"/sessions/{self.member.id}"
        self.leaving = True
        self._say(Call(self, "DELETE", path, self.member.token), lambda _status, _said: None)
        self.time.after(2.0, lambda: self.end("it was told to stop"))

    def _over(self, why: str) -> None:
        self.leaving = True
        self.trace.tell("agent", f"{self} hears that it is over: {why}")
        self.time.after(GRACE_S, lambda: self.end("it is over"))

    def _refused(self, why: str) -> None:
        self.leaving = True
        self.trace.tell("agent", f"{self} is refused: {why}")
        self.time.after(1.0, lambda: self.end("it was refused"))
