"""A turn in the making: reads through to the fleet, collects what changes, touches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from orchestrator.core.events import Answer, Effect, Entry, Turn
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import PastSession, Token
from orchestrator.core.meters import MeterState
from orchestrator.core.model import (
    BackendState,
    Clocks,
    Fleet,
    Health,
    Incident,
    Notice,
    Now,
    ServiceState,
    World,
)
from orchestrator.core.specs import Backend, FleetConfig

NOTHING = Turn()
K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Draft:
    """What one event changes so far. `stale`: services whose choice must be looked at again.

    `stirred`: subjects whose incidents may have changed; "" stands for the world.
    """

    fleet: Fleet
    now: Now
    at: float  # `now.at`, which everybody asks for
    config: FleetConfig
    world: World
    pools: Mapping[str, tuple[str, ...]]
    backends: dict[str, BackendState | None] = field(default_factory=dict)
    services: dict[str, ServiceState | None] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    notices: dict[str, Notice] = field(default_factory=dict)
    flags: dict[tuple[str, str], str] = field(default_factory=dict)
    tokens: dict[str, Token | None] = field(default_factory=dict)
    past: list[PastSession] = field(default_factory=list)
    meters: dict[str, MeterState | None] = field(default_factory=dict)
    effects: dict[Effect, None] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    seen: str | None = None
    answer: Answer | None = None
    durable: bool = False
    tick: Clocks | None = None
    stale: dict[str, None] = field(default_factory=dict)
    stirred: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: Fleet, now: Now) -> Draft:
        """Start a turn on this state."""
        return cls(fleet, now, now.at, fleet.config, fleet.world, fleet.pools, tick=fleet.tick)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def backend(self, name: str) -> BackendState:
        """Give a backend's state as this turn leaves it; KeyError if there is none."""
        state = self.backends[name] if name in self.backends else self.fleet.backends[name]
        if state is None:
            raise KeyError(name)
        return state

    def service(self, name: str) -> ServiceState:
        """Give a service's state as this turn leaves it; KeyError if there is none."""
        state = self.services[name] if name in self.services else self.fleet.services[name]
        if state is None:
            raise KeyError(name)
        return state

    def incident(self, key: str) -> Incident | None:
        """Give the open incident of that key, if there is one."""
        found = self.incidents.get(key) or self.fleet.incidents.get(key)
        return None if found is None or found.closed_at is not None else found

    def open_incidents(self) -> Iterator[Incident]:
        """Go through the open incidents as this turn leaves them."""
        for key in {**self.fleet.incidents, **self.incidents}:
            found = self.incident(key)
            if found is not None:
                yield found

    def flag(self, kind: str, subject: str) -> str:
        """Give what a part of the daemon reported of `subject`; "" when all is well."""
        key = (kind, subject)
        return self.flags[key] if key in self.flags else self.fleet.flags.get(key, "")

    def isolated_from(self, spec: Backend) -> bool:
        """Say whether verdicts on this backend are frozen."""
        return spec.remote and self.world.isolated_since is not None

    def observing(self) -> bool:
        """Say whether nothing may be published: paused, or in the shadow."""
        return self.config.shadow or self.world.paused_since is not None

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

    def put_backend(self, state: BackendState, *, durable: bool = False) -> None:
        self.backends[state.name] = state
        self.durable |= durable

    def put_service(self, state: ServiceState, *, durable: bool = False) -> None:
        self.services[state.name] = state
        self.durable |= durable

    def change_world(self, *, durable: bool = False, **changes: Any) -> None:
        self.world = replace(self.world, **changes)
        self.durable |= durable

    def do(self, effect: Effect) -> None:
        self.effects[effect] = None

    def note(self, action: str, subject: str, text: str, **data: str) -> None:
        """Write one line of the event log; what is worth a line is worth keeping."""
        self.entries.append(Entry(action, subject, text, data))
        self.durable = True

    def touch(self, backend: str) -> None:
        """Have every service that this backend is in looked at again, and its incidents.

        At once where it matters at once, else with the next tick: a thousand that fall or rise
        together must not cost a thousand looks at a thousand.
        """
        for service in self.pools.get(backend, ()):
            state = self.service(service)
            if self._urgent(service, state.active, backend):
                self.stale[service] = None
            elif state.review_at is None or state.review_at > self.at:
                self.put_service(replace(state, review_at=self.at))
        self.stirred[backend] = None

    def _urgent(self, service: str, active: str | None, backend: str) -> bool:
        """Say whether this backend serves, or could take over from nobody or from an ill one."""
        if backend == active:
            return True
        state = self.backend(backend)
        if state.health not in ALIVE or state.denied:
            return False
        if active is None:  # at a start the preferred are waited for anyway
            first = self.config.services[service].backends[0]
            return self.world.settled or backend == first
        if active not in self.config.backends:
            return True
        return self.backend(active).health not in (Health.UP, Health.UNKNOWN)

    def turn(self) -> Turn:
        """Close the draft."""
        world = self.world if self.world is not self.fleet.world else None
        config = self.config if self.config is not self.fleet.config else None
        tick = self.tick if self.tick is not self.fleet.tick else None
        return Turn(
            backends=self.backends,
            services=self.services,
            incidents=self.incidents,
            notices=self.notices,
            flags=self.flags,
            tokens=self.tokens,
            past=tuple(self.past),
            meters=self.meters,
            world=world,
            config=config,
            effects=tuple(self.effects),
            entries=tuple(self.entries),
            seen=self.seen,
            answer=self.answer,
            durable=self.durable,
            tick=tick,
        )


def apply(fleet: Fleet, turn: Turn) -> None:
    """Carry a turn into the fleet. The only way the fleet changes."""
    if turn.config is not None:
        fleet.config = turn.config
        fleet.pools = pools(turn.config)
        fleet.unseen &= set(turn.config.backends)
    if turn.world is not None:
        fleet.world = turn.world
    if turn.tick is not None:
        fleet.tick = turn.tick
    if turn.seen is not None:
        fleet.unseen.discard(turn.seen)
    _merge(fleet.backends, turn.backends, lambda state: state is None)
    _merge(fleet.services, turn.services, lambda state: state is None)
    _merge(fleet.incidents, turn.incidents, lambda incident: incident.closed_at is not None)
    _merge(fleet.outbox, turn.notices, lambda notice: notice.sent_at is not None)
    _merge(fleet.flags, turn.flags, lambda detail: not detail)
    _merge(fleet.tokens, turn.tokens, lambda token: token is None)
    _merge(fleet.meters, turn.meters, lambda meter: meter is None)


def _merge(table: dict[K, V], changes: Mapping[K, V | None], over: Callable[[Any], bool]) -> None:
    for key, value in changes.items():
        if value is None or over(value):
            table.pop(key, None)
        else:
            table[key] = value


def pools(config: FleetConfig) -> dict[str, tuple[str, ...]]:
    """Turn services → backends around: backend → the services it is in."""
    found: dict[str, list[str]] = {}
    for service in config.services.values():
        for backend in service.backends:
            found.setdefault(backend, []).append(service.name)
    return {backend: tuple(services) for backend, services in found.items()}
