"""One possible month: lives and outages are drawn, the rules react, the human answers.

What happened is told as plain records to everyone who wants to keep books of it: see `Ledger`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Protocol

from orchestrator.core.configuring import resumed
from orchestrator.core.events import Turn
from orchestrator.core.model import Health, Notice, NoticeKind, Now
from orchestrator.core.specs import AlertPolicy, FleetConfig
from orchestrator.outlook.lives import Death, End, Fate, Habits
from orchestrator.outlook.machines import Machines, Rented
from orchestrator.outlook.person import LEISURE_S, Person
from orchestrator.outlook.scene import Chance, Watcher
from orchestrator.outlook.stage import SETTLED_S, Stage

CALM_S = 3700.0  # before the first day: the preferred serves, and its own start limits no move
NEVER_S = 1e12


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a backend, from its first answer to its end. Times are Unix seconds."""

    backend: str
    began: float
    ended: float
    why: End


class Cover(StrEnum):
    """How a service fared for a while, as its users saw it.

    UNNOTICED: the one that serves is dead, and another one lives: not moved yet. BOOTING: nobody
    lives, and a machine is being started. BY_HAND: nobody lives, and somebody waits to be started
    by a human. OUTAGE: nobody lives, nobody can help.
    """

    SERVED = "served"
    UNNOTICED = "unnoticed"
    BOOTING = "booting"
    BY_HAND = "by_hand"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Stint:
    """A while in which nothing changed for a service. `missing`: who waits for the human."""

    service: str
    backend: str | None
    began: float
    ended: float
    cover: Cover
    missing: tuple[str, ...] = ()


class Kind(StrEnum):
    """What sort of move. FORCED: the old one died. VOLUNTARY: a better one was well again.

    LOST: nobody could take over. FOUND: after that somebody could.
    """

    FORCED = "forced"
    VOLUNTARY = "voluntary"
    LOST = "lost"
    FOUND = "found"


@dataclass(frozen=True, slots=True)
class Move:
    """One new assignment of a service."""

    service: str
    old: str | None
    new: str | None
    at: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Ask:
    """The human was asked to start a backend; `urgent`: nothing as cheap serves."""

    backend: str
    service: str | None
    at: float
    urgent: bool
    asleep: bool


Record = Life | Stint | Move | Ask | Rented


class Ledger(Protocol):
    """Keeps books of a play: is told each record once it is complete, in order of its end.

    Figures are one; meters and costs of a month can be others.
    """

    def note(self, record: Record) -> None: ...


@dataclass(frozen=True, slots=True)
class Plot:
    """What is played: the operator's fleet, how its backends live, who answers, and for how long.

    `begins` in Unix seconds. Backends without habits never die: those that cannot serve anyway.
    """

    config: FleetConfig
    habits: Mapping[str, Habits]
    person: Person
    begins: float
    lasts_s: float


def play(plot: Plot, chance: Chance, ledgers: Sequence[Ledger]) -> None:
    """Play it once, and have everything noted."""
    config = _bare(plot.config, machines_of(plot))
    start = plot.begins - CALM_S - SETTLED_S
    fleet = resumed(config, Now(start, start))
    stage = Stage(fleet, at=start, wall=start, chance=chance)
    run = _Run(plot, stage, ledgers)
    stage.begin()
    stage.advance(stage.at + CALM_S)
    stage.watchers.append(run)
    run.begin()
    stage.advance(plot.begins + plot.lasts_s)
    run.end()


def machines_of(plot: Plot) -> set[str]:
    """Name the backends that aion starts by itself, and stops: the rules themselves do here."""
    specs = plot.config.backends.values()
    return {one.name for one in specs if one.powered and one.auto_start and one.name in plot.habits}


def _bare(config: FleetConfig, machines: Collection[str]) -> FleetConfig:
    """Leave out what costs time and cannot change who serves here.

    Names follow the assignment, reminders repeat what was said, nobody dies half (so canaries tell
    nothing), and our own network works (so the controls only say so, a fifth of a second later).
    Quotas end lives, whoever counts them; who lives is looked at, whoever registered it.
    """
    return replace(
        config,
        backends={
            name: replace(
                spec,
                health=replace(spec.health, canary_s=None),
                registers=False,
                powered=name in machines,
                auto_start=name in machines,
            )
            for name, spec in config.backends.items()
        },
        services={name: replace(service, dns=None) for name, service in config.services.items()},
        alerts=AlertPolicy(NEVER_S, NEVER_S),
        controls=0,
        shadow=False,
        meters={},
    )


class Stints:
    """Cuts each service's time into stints.

    `waits(name)`: only a human can end that death; `boots(name)`: it is being started.
    """

    def __init__(
        self,
        stage: Stage,
        note: Callable[[Stint], None],
        waits: Callable[[str], bool],
        boots: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._stage, self._note, self._waits, self._boots = stage, note, waits, boots
        self._open: dict[str, Stint] = {}

    def mark(self) -> None:
        """Begin a new stint for every service that fares differently now."""
        now = self._stage.wall
        for name, state in self._stage.fleet.services.items():
            cover, missing = self._cover(name, state.active)
            before = self._open.get(name)
            if before is not None:
                if (before.backend, before.cover, before.missing) == (state.active, cover, missing):
                    continue
                self._note(replace(before, ended=now))
            self._open[name] = Stint(name, state.active, now, now, cover, missing)

    def end(self) -> None:
        """Note what is still under way."""
        for stint in self._open.values():
            self._note(replace(stint, ended=self._stage.wall))
        self._open.clear()

    def _cover(self, service: str, active: str | None) -> tuple[Cover, tuple[str, ...]]:
        dead, config = self._stage.dead, self._stage.fleet.config
        if active is not None and active not in dead:
            return Cover.SERVED, ()
        pool = [
            name for name in config.services[service].backends if config.backends[name].assignable
        ]
        if any(name not in dead for name in pool):
            return Cover.UNNOTICED, ()
        if any(map(self._boots, pool)):
            return Cover.BOOTING, ()
        missing = tuple(filter(self._waits, pool))
        return (Cover.BY_HAND, missing) if missing else (Cover.OUTAGE, ())


class _Run(Watcher):
    """The truth of one play, and what is noted of it."""

    def __init__(self, plot: Plot, stage: Stage, ledgers: Sequence[Ledger]) -> None:
        self._plot, self._stage, self._ledgers = plot, stage, ledgers
        rented = machines_of(plot)
        habits = plot.habits.items()
        self._begun = False
        self._machines = Machines(
            stage, {name: one for name, one in habits if name in rented}, self._rented, self._mark
        )
        self._fates = {name: Fate(one, stage.chance) for name, one in habits if name not in rented}
        self._born: dict[str, float] = {}
        self._booting: set[str] = set()
        self._asked: set[str] = set()  # urgently, since they died
        self._deaths: Counter[str] = Counter()
        self._stints = Stints(
            stage,
            self._note,
            lambda name: self._by_hand(name) and name not in self._booting,
            self._machines.booting,
        )

    def begin(self) -> None:
        """Give everybody a life that has begun some time ago, but what aion starts."""
        self._begun = True
        for name, fate in self._fates.items():
            self._live(name, fate.first_age_s())
        self._stints.mark()

    def end(self) -> None:
        """Note what is still under way."""
        now = self._stage.wall
        for name, began in self._born.items():
            self._note(Life(name, began, now, End.OVER))
        self._machines.end()
        self._stints.end()

    def _rented(self, one: Rented) -> None:
        """Note a start of a machine, as far as the play has begun, and its life if it had one."""
        began = max(one.began, self._plot.begins)
        if not self._begun or one.ended < began:
            return
        self._note(replace(one, began=began))
        if one.up is not None:
            self._note(Life(one.backend, max(one.up, began), one.ended, one.why))

    def _mark(self) -> None:
        if self._begun:
            self._stints.mark()

    def _note(self, record: Record) -> None:
        for ledger in self._ledgers:
            ledger.note(record)

    # ── living and dying ────────────────────────────────────────────────────────────────────────

    def _live(self, name: str, age_s: float = 0.0) -> None:
        now = self._stage.wall
        self._born[name] = now
        death = self._fates[name].death(now, age_s)
        self._stage.schedule(death.at, partial(self._die, name, death))

    def _die(self, name: str, death: Death) -> None:
        self._note(Life(name, self._born.pop(name), death.at, death.why))
        self._stage.kill(name, death.way)
        self._deaths[name] += 1
        fate = self._fates[name]
        if not fate.habits.by_hand:
            self._stage.schedule(fate.back(death.at), partial(self._return, name))
        elif self._stage.fleet.backends[name].health is Health.DOWN:
            self._tell(name)  # its return was not seen, so only a reminder tells of its end
        self._stints.mark()

    def _return(self, name: str) -> None:
        self._booting.discard(name)
        self._asked.discard(name)
        self._stage.revive(name)
        self._live(name)
        self._stints.mark()

    # ── the human ───────────────────────────────────────────────────────────────────────────────

    def _read(self, notices: Iterable[Notice]) -> None:
        """Have the human read what is sent, the urgent first; each death is counted once."""
        opened = [notice for notice in notices if notice.kind is NoticeKind.OPENED]
        for notice in opened:
            if notice.topic == "restart_needed":
                self._ask(notice.params["backend"], notice.subject)
        for notice in opened:
            name = notice.params.get("backend", "")
            if notice.topic == "backend_down" and self._by_hand(name):
                self._tell(name)

    def _by_hand(self, name: str) -> bool:
        return name in self._fates and self._fates[name].habits.by_hand

    def _ask(self, name: str, service: str) -> None:
        now, person = self._stage.wall, self._plot.person
        if name not in self._asked:
            self._asked.add(name)
            asleep = person.wakes_at(now) is not None
            self._note(Ask(name, service, now, urgent=True, asleep=asleep))
        at = person.answers_at(now, self._stage.chance)
        self._stage.schedule(at, partial(self._answer, service))

    def _tell(self, name: str) -> None:
        """Have the human hear of a death, and see to it at leisure if nothing else does before."""
        now, person = self._stage.wall, self._plot.person
        if name not in self._asked:
            asleep = person.wakes_at(now) is not None
            self._note(Ask(name, None, now, urgent=False, asleep=asleep))
        at = person.answers_at(now, self._stage.chance, median_s=LEISURE_S)
        self._stage.schedule(at, partial(self._see_to, name, self._deaths[name]))

    def _see_to(self, name: str, death: int) -> None:
        if self._deaths[name] == death:
            self._start(name)

    def _answer(self, service: str) -> None:
        """Start what is asked for by now, if anything still is."""
        incident = self._stage.fleet.incidents.get(f"restart_needed:{service}")
        if incident is not None:
            self._start(incident.params["backend"])

    def _start(self, name: str) -> None:
        if name in self._born or name in self._booting or not self._by_hand(name):
            return
        self._booting.add(name)
        at = self._fates[name].booted(self._stage.wall)
        self._stage.schedule(at, partial(self._return, name))

    # ── keeping books ───────────────────────────────────────────────────────────────────────────

    def turned(self, turn: Turn) -> None:
        """Note the moves of a turn and who is served now, and pass its messages on."""
        assigned = [entry for entry in turn.entries if entry.action == "assigned"]
        for entry in assigned:
            name, old, new = entry.subject, entry.data["old"] or None, entry.data["new"] or None
            moves = self._stage.fleet.services[name].moves
            voluntary = bool(moves) and moves[-1] == self._stage.at
            kind = Kind.VOLUNTARY if voluntary else _kind(old, new)
            self._note(Move(name, old, new, self._stage.wall, kind))
        if assigned:
            self._stints.mark()
        if turn.notices:
            self._read(turn.notices.values())


def _kind(old: str | None, new: str | None) -> Kind:
    if new is None:
        return Kind.LOST
    return Kind.FOUND if old is None else Kind.FORCED
