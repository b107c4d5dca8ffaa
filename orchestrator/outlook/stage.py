"""A fleet in virtual time: every decision is made by `core.fleet.step`, as in the daemon.

A stage has two paces. `dense`: every probe and every tick, as they happen. Otherwise it jumps from
one thing that can change something to the next: the looks at a backend that is what it is believed
to be change nothing, and so do most ticks, so they are left out and their time passes in one go. A
test compares the two.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from orchestrator.core import health as rules
from orchestrator.core.draft import NOTHING
from orchestrator.core.events import (
    AskControls,
    CanarySoon,
    CheckName,
    Deliver,
    Effect,
    Event,
    Observed,
    ProbeSoon,
    Reconcile,
    Tick,
    Turn,
)
from orchestrator.core.fleet import apply, step
from orchestrator.core.model import Fleet, Health, Now, Observation, Source
from orchestrator.outlook.due import power_due
from orchestrator.outlook.hands import Hands
from orchestrator.outlook.looks import Looks
from orchestrator.outlook.scene import Chance, Watcher, Way

UNSLEPT_S = 4.0  # the rules take more than five without a tick for having slept
SETTLED_S = 60.0  # by then everything was looked at and decided; the daemon itself allows 30


class Stage:
    """Plays a fleet from steady time `at`; `wall` is what the clock on the wall says then.

    `dead` says who is dead in truth, and how; `cut_off` that our own network is lost; `dns_down`
    that the DNS provider's API does not answer. Change them by `kill`, `revive`, `cut`, `dns`.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        at: float,
        wall: float,
        chance: Chance,
        dense: bool = False,
        quiet_until: Callable[[float], float | None] = lambda _wall: None,
    ) -> None:
        self.fleet = fleet
        self.at = at
        self.chance = chance
        self.dense = dense
        self.dead: dict[str, Way] = {}
        self.cut_off = False
        self.dns_down = False
        self.watchers: list[Watcher] = []
        self._offset_s = wall - at
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._seq = 0
        self._tick_at = math.inf
        specs = fleet.config.backends.values()
        self._powered = [spec.name for spec in specs if spec.powered]
        self._looks = Looks(self)
        self._hands = Hands(self, quiet_until)
        self._carry: dict[type, Callable[..., None]] = {
            ProbeSoon: lambda effect: self._looks.soon(effect.backend),
            CanarySoon: lambda effect: self._looks.soon(effect.backend, Source.CANARY),
            AskControls: lambda _: self._hands.ask_controls(),
            CheckName: lambda effect: self._hands.check_name(effect.service),
            Deliver: lambda _: self._hands.deliver(),
            Reconcile: lambda effect: self._hands.reconcile(effect.service),
        }

    @property
    def wall(self) -> float:
        """What the clock on the wall says, in Unix seconds."""
        return self.at + self._offset_s

    def begin(self) -> None:
        """Start as the daemon does: look at everybody, and go on until all is decided."""
        self._plan_tick(self.at)
        self._looks.begin()
        self._hands.begin()
        self.advance(self.at + SETTLED_S)

    def carries(self, kind: type, do: Callable[..., None]) -> None:
        """Have that kind of effect carried out so."""
        self._carry[kind] = do

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def schedule(self, at: float, do: Callable[[], None]) -> None:
        """Have `do` called when it is `at`."""
        self._seq += 1
        heapq.heappush(self._heap, (at, self._seq, do))

    def advance(self, until: float) -> None:
        """Let time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            at, _, do = heapq.heappop(heap)
            self.at = max(self.at, at)
            do()
        self.at = max(self.at, until)

    # ── the truth ───────────────────────────────────────────────────────────────────────────────

    def kill(self, name: str, way: Way = Way.REFUSES) -> None:
        """Make a backend dead from now on."""
        self.dead[name] = way
        self._looks.stirred(name)

    def revive(self, name: str) -> None:
        """Make a backend answer again."""
        self.dead.pop(name, None)
        self._looks.stirred(name)

    def cut(self, cut_off: bool) -> None:
        """Take our own network away, or give it back; told only on a dense stage."""
        self.cut_off = cut_off

    def dns(self, down: bool) -> None:
        """Make the DNS provider's API fail, or work again."""
        self.dns_down = down

    # ── turning ─────────────────────────────────────────────────────────────────────────────────

    def give(self, event: Event) -> None:
        """Have the rules take an event into account, and carry out what they ask for."""
        self._pass_time()
        turn = step(self.fleet, event, Now(self.at, self.wall))
        if turn is NOTHING:
            return
        apply(self.fleet, turn)
        for watcher in self.watchers:
            watcher.turned(turn)
        for entry in turn.entries:
            if entry.action == "health" and entry.data.get("new") == Health.UP:
                self._looks.first_canary(entry.subject)
            elif entry.action == "reconnected":
                self._hands.begin()
        for effect in turn.effects:
            self._do(effect)
        if not self.dense:
            # Who is needed may be another one now; whoever is started is asked for on a tick.
            stirred = bool(turn.services or turn.entries) and any(self._powered)
            self._plan_tick(self.at if stirred else self._wanted())

    def observe(self, seen: Observation, began_at: float) -> None:
        """Have the rules take a look's result into account.

        Where time jumps, one that only counts towards a verdict is counted by `core.health` alone:
        no choice hangs on it, and the count is what the verdict will be drawn from.
        """
        fleet = self.fleet
        state, spec = fleet.backends[seen.backend], fleet.config.backends[seen.backend]
        counts = state.asked_at is None  # nobody waits for it
        if counts and not self.dense and fleet.world.settled and not fleet.config.controls:
            after = rules.fold(state, seen, spec.health, self.at)
            if after.health is state.health:
                apply(fleet, Turn(backends={seen.backend: after}))
                return
        self.give(Observed(seen, began_at))

    def _do(self, effect: Effect) -> None:
        carry = self._carry.get(type(effect))
        if carry is not None:
            carry(effect)

    def _pass_time(self) -> None:
        """Say that the daemon ran all the while, whatever ticks were left out."""
        tick = self.fleet.tick
        if tick is not None and self.at - tick[0] > UNSLEPT_S and not self.dense:
            apply(self.fleet, Turn(tick=(self.at, self.wall, self.at)))

    # ── ticks ───────────────────────────────────────────────────────────────────────────────────

    def _plan_tick(self, wanted: float) -> None:
        """Tick at the first whole second after now that is not before `wanted`."""
        due = max(math.ceil(wanted), math.floor(self.at) + 1) if wanted < math.inf else wanted
        if due < self._tick_at:
            self._tick_at = due
            self.schedule(due, lambda: self._tick(due))

    def _tick(self, due: float) -> None:
        if self._tick_at != due:
            return  # an earlier one took its place
        self._tick_at = math.inf
        self.give(Tick(self.at))
        self._plan_tick(self.at if self.dense else self._wanted())

    def _wanted(self) -> float:
        """Say when something may change by time alone."""
        fleet = self.fleet
        world = fleet.world
        if not world.settled or world.isolated_since is not None or world.paused_until is not None:
            return self.at
        wanted = math.inf
        for service in fleet.services.values():
            if not service.settled or service.rotation is not None or service.planned is not None:
                return self.at
            if service.review_at is None:
                continue
            if service.active is None and service.review_at == service.retry_at:
                continue  # nobody can serve, and only somebody's coming up changes that
            wanted = min(wanted, service.review_at)
        for incident in fleet.incidents.values():
            if incident.kind == "flapping":
                state = fleet.backends[incident.subject]
                wanted = min(wanted, rules.calmer_at(state, self.at))
        return min(
            [wanted, *(power_due(fleet, name, self.at, self.wall) for name in self._powered)]
        )
