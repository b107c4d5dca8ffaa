"""Small worlds to put the core into: a fleet, a clock that is moved by hand, and what was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.core.events import Effect, Entry, Event, Observed, ProbeSoon, Tick, Turn
from orchestrator.core.fleet import apply, resumed, step
from orchestrator.core.model import Fleet, Notice, Now, Observation, Source, Verdict
from orchestrator.core.specs import Backend, DnsPolicy, FleetConfig, HealthPolicy, Service, Target

START = 1_000_000.0
POLICY = HealthPolicy(canary_s=None)


def backend(name: str, **changes: object) -> Backend:
    given: dict[str, object] = {
        "kind": "static",
        "engine": "openai",
        "url": f"http://{name}.test",
        "remote": False,
        "health": POLICY,
    }
    return Backend(name, **{**given, **changes})  # type: ignore[arg-type]


def config(
    *backends: Backend,
    failback_after_s: float = 300.0,
    dns: DnsPolicy | None = None,
    **more: object,
) -> FleetConfig:
    backends = backends or (backend("a"), backend("b"), backend("c"))
    service = Service(
        "chat",
        tuple(one.name for one in backends),
        failback_after_s=failback_after_s,
        dns=dns,
    )
    return FleetConfig(
        backends={one.name: one for one in backends},
        services={"chat": service},
        **more,  # type: ignore[arg-type]
    )


DNS = DnsPolicy("ai.example.org", gateway=(Target("A", "203.0.113.1"),))


class World:
    """A fleet and everything that its turns said and asked for.

    `answering`: those that answer well within the second when they are to be looked at at once.
    """

    def __init__(self, config: FleetConfig, at: float = START, **stored: object) -> None:
        self.at = at
        self.wall_offset = 0.0
        self.boot_offset = 0.0
        self.fleet: Fleet = resumed(config, Now(at, at), **stored)  # type: ignore[arg-type]
        self.turns: list[Turn] = []
        self.checks: list[Callable[[World, Turn], None]] = []
        self.answering: frozenset[str] = frozenset()

    @property
    def now(self) -> Now:
        return Now(self.at, self.at + self.wall_offset)

    @property
    def active(self) -> str | None:
        return self.fleet.services["chat"].active

    @property
    def epoch(self) -> int:
        return self.fleet.services["chat"].epoch

    def give(self, event: Event) -> Turn:
        turn = step(self.fleet, event, self.now)
        apply(self.fleet, turn)
        self.turns.append(turn)
        for check in self.checks:
            check(self, turn)
        return turn

    def sees(self, name: str, verdict: Verdict = Verdict.OK, **more: object) -> Turn:
        given = {"source": Source.PROBE, "detail": "" if verdict is Verdict.OK else verdict.value}
        seen = Observation(name, verdict=verdict, **{**given, **more})  # type: ignore[arg-type]
        return self.give(Observed(seen, self.at))

    def tick(self, seconds: float = 1.0) -> Turn:
        turn = Turn()
        whole, rest = divmod(seconds, 1.0)
        for wait in [1.0] * int(whole) + ([rest] if rest or not whole else []):
            self.at += wait
            turn = self.give(Tick(self.at + self.boot_offset))
            for name in self.answering:
                if ProbeSoon(name) in turn.effects:
                    self.sees(name)
        return turn

    def up(self, *names: str) -> None:
        """Bring these up, all the others' word being out already."""
        for _ in range(2):
            for name in names:
                self.sees(name)
        self.tick()

    def down(self, *names: str) -> None:
        for _ in range(3):
            for name in names:
                self.sees(name, Verdict.FAILED)
        self.tick()

    def lives(self, seconds: int, *, up: Sequence[str] = (), down: Sequence[str] = ()) -> None:
        """Let time pass, everybody being probed once a second."""
        for _ in range(seconds):
            self.tick()
            for name in up:
                self.sees(name)
            for name in down:
                self.sees(name, Verdict.FAILED)

    @property
    def entries(self) -> list[Entry]:
        return [entry for turn in self.turns for entry in turn.entries]

    @property
    def notices(self) -> list[Notice]:
        return [notice for turn in self.turns for notice in turn.notices.values()]

    @property
    def effects(self) -> list[Effect]:
        return [effect for turn in self.turns for effect in turn.effects]

    def forget(self) -> None:
        """Start listening anew."""
        self.turns.clear()


def drained(world: World, name: str) -> bool:
    """Say whether a planned move away from that backend was carried to its end."""
    done = (entry for entry in world.entries if entry.action == "rotation_done")
    return any(entry.data["old"] == name for entry in done)


def restarted(world: World, seconds: float = 5.0) -> World:
    """Start again from what is stored, this long after."""
    fleet = world.fleet
    return World(
        fleet.config,
        world.at + seconds,
        world=fleet.world,
        backends=fleet.backends,
        services=fleet.services,
        incidents=fleet.incidents,
        outbox=fleet.outbox,
        tokens=fleet.tokens,
    )
