"""Machines that aion starts and stops, on a stage: the rules ask, and a provider answers.

How long a boot takes varies around what was learned. One that fails is taken away, and for as long
as it takes to recover nothing is free there; one whose allowance is spent is refused until there is
more. What is stopped because nobody needs it costs nothing from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import (
    Ask,
    AskPower,
    PowerReport,
    PowerReported,
    Snag,
    StartBackend,
    StopBackend,
)
from orchestrator.outlook.lives import Death, End, Fate, Habits
from orchestrator.outlook.scene import Way
from orchestrator.outlook.stage import Stage

ANSWER_S = 1.0  # until a provider has answered


@dataclass(frozen=True, slots=True)
class Rented:
    """One start of a machine: on from `began` to `ended`, both the same where it was refused.

    `up` from then, None for never; `why` it ended.
    """

    backend: str
    began: float
    ended: float
    up: float | None
    why: End
    refused: bool = False


@dataclass(slots=True)
class _Machine:
    """What the provider knows: `number` of the start, since when it is on and up (wall)."""

    fate: Fate
    number: int = 0
    launch: str = ""
    on_at: float = 0.0
    up_at: float | None = None
    free_at: float = 0.0


class Machines:
    """Carries out starts and stops. `note` takes each start that is over, `changed` hears of it."""

    def __init__(
        self,
        stage: Stage,
        habits: Mapping[str, Habits],
        note: Callable[[Rented], None],
        changed: Callable[[], None],
    ) -> None:
        self._stage, self._note, self._changed = stage, note, changed
        self._machines = {name: _Machine(Fate(one, stage.chance)) for name, one in habits.items()}
        stage.carries(StartBackend, self._start)
        stage.carries(StopBackend, self._stop)
        stage.carries(AskPower, self._ask)
        for name, one in self._machines.items():
            power = stage.fleet.backends[name].power
            if power is not None and power.launch and power.phase is PowerPhase.ON:
                one.launch, one.on_at, one.up_at = power.launch, stage.wall, stage.wall
            else:
                stage.kill(name)

    def __contains__(self, name: str) -> bool:
        return name in self._machines

    def booting(self, name: str) -> bool:
        """Say whether a machine is on and not up yet."""
        one = self._machines.get(name)
        return one is not None and bool(one.launch) and one.up_at is None

    def end(self) -> None:
        """Note what still runs."""
        for name, one in self._machines.items():
            if one.launch:
                self._over(name, one, self._stage.wall, End.OVER)

    # ── what is asked ───────────────────────────────────────────────────────────────────────────

    def _start(self, effect: StartBackend) -> None:
        name, one, now = effect.backend, self._machines[effect.backend], self._stage.wall
        allowed = one.fate.allowed_from(now)
        snag = Snag.QUOTA if allowed > now else Snag.STOCKOUT if one.free_at > now else Snag.NONE
        if snag is not Snag.NONE:
            self._note(Rented(name, now, now, None, End.FAILED, refused=True))
            wait_s = allowed - now if snag is Snag.QUOTA else None
            report = PowerReport(PowerPhase.OFF, snag=snag, retry_after_s=wait_s)
            self._tell(name, Ask.START, report, effect.launch)
            return
        one.number += 1
        one.launch, one.on_at, one.up_at = effect.launch, now, None
        up, death = one.fate.started(now)
        number = one.number
        if up < death.at:
            self._stage.schedule(up, partial(self._come_up, name, number))
        self._stage.schedule(death.at, partial(self._die, name, number, death))
        self._tell(name, Ask.START, PowerReport(PowerPhase.STARTING, effect.launch), effect.launch)
        self._changed()

    def _stop(self, effect: StopBackend) -> None:
        one = self._machines[effect.backend]
        if one.launch and effect.launch in {"", one.launch}:
            self._over(effect.backend, one, self._stage.wall, End.STOPPED)
            self._stage.kill(effect.backend)
            self._changed()
        self._tell(effect.backend, Ask.STOP, PowerReport(PowerPhase.OFF), effect.launch)

    def _ask(self, effect: AskPower) -> None:
        one = self._machines[effect.backend]
        phase = PowerPhase.OFF
        if one.launch:
            phase = PowerPhase.ON if one.up_at is not None else PowerPhase.STARTING
        self._tell(effect.backend, Ask.STATUS, PowerReport(phase, one.launch))

    def _tell(self, name: str, ask: Ask, report: PowerReport, launch: str = "") -> None:
        event = PowerReported(name, ask, report, launch, self._stage.at)
        self._stage.schedule(self._stage.at + ANSWER_S, partial(self._stage.give, event))

    # ── what becomes of it ──────────────────────────────────────────────────────────────────────

    def _come_up(self, name: str, number: int) -> None:
        one = self._machines[name]
        if one.launch and one.number == number:
            one.up_at = self._stage.wall
            self._stage.revive(name)
            self._changed()

    def _die(self, name: str, number: int, death: Death) -> None:
        one = self._machines[name]
        if not one.launch or one.number != number:
            return
        self._over(name, one, death.at, death.why)
        if death.why is End.FAILED:
            one.free_at = one.fate.back(death.at)
        self._stage.kill(name, Way.REFUSES)
        self._changed()

    def _over(self, name: str, one: _Machine, at: float, why: End) -> None:
        one.fate.used(one.on_at, at)
        self._note(Rented(name, one.on_at, at, one.up_at, why))
        one.launch, one.up_at = "", None
