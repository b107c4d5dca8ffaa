"""A provider of machines for the core to start and stop: it does as told, late, not at all, or mute."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.model import Verdict
from orchestrator.core.powering import (
    Ask,
    AskPower,
    PowerReport,
    PowerReported,
    Snag,
    StartBackend,
    StopBackend,
)
from orchestrator.core.specs import Tier
from tests.core.worlds import World, backend

IDLE_S = 300.0


def vm(name, **changes):
    given = {"powered": True, "auto_start": True, "idle_stop_s": IDLE_S, "tier": Tier.CREDIT}
    return backend(name, **{**given, **changes})


def power(world, name):
    return world.fleet.backends[name].power or Power()


def put(world, name, **changes):
    world.fleet.backends[name] = replace(world.fleet.backends[name], **changes)


@dataclass
class Machine:
    """What the provider has: the truth. `since`: when it was switched on."""

    launch: str = ""
    since: float = 0.0
    boot_s: float = 40.0
    dead: bool = False


@dataclass
class Cloud:
    """Carries out what a world's turns ask for. `fates` are those of the next starts.

    "": it boots; "stockout", "denied", "quota", "transient": it is refused; "lost": it boots and the
    answer is lost; "gone": neither; "never": it runs and never comes up. `mute`: it says nothing of
    how anything is; `status`: it says this.
    """

    world: World
    machines: dict[str, Machine] = field(default_factory=dict)
    fates: list[str] = field(default_factory=list)
    mute: bool = False
    status: PowerReport | None = None
    labels: bool = True
    unserved: int = 0
    starts: list[tuple[float, str, str]] = field(default_factory=list)
    stops: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, spec in self.world.fleet.config.backends.items():
            if spec.powered:
                self.machines.setdefault(name, Machine())

    def running(self, name: str) -> bool:
        return bool(self.machines[name].launch)

    def up(self, name: str) -> bool:
        one = self.machines[name]
        return bool(one.launch) and not one.dead and self.world.at - one.since >= one.boot_s

    def serve(self, *, dropped: bool = False) -> None:
        """Carry out what was asked since the last time; `dropped`: the daemon died before it did."""
        while self.unserved < len(self.world.turns):
            turn = self.world.turns[self.unserved]
            self.unserved += 1
            if not dropped:
                for effect in turn.effects:
                    self._carry(effect)

    def _carry(self, effect) -> None:
        if isinstance(effect, StartBackend):
            self._start(effect)
        elif isinstance(effect, StopBackend):
            one = self.machines[effect.backend]
            self.stops.append((self.world.at, effect.backend))
            if effect.launch in ("", one.launch):
                one.launch = ""
            report = PowerReport(PowerPhase.OFF if not one.launch else PowerPhase.ON, one.launch)
            self._tell(effect.backend, Ask.STOP, report, effect.launch)
        elif isinstance(effect, AskPower):
            self._tell(effect.backend, Ask.STATUS, self._status(effect.backend))

    def _status(self, name: str) -> PowerReport:
        one = self.machines[name]
        if self.status is not None:
            return self.status
        if self.mute:
            return PowerReport(snag=Snag.TRANSIENT, detail="HTTP 503")
        if not one.launch:
            return PowerReport(PowerPhase.OFF)
        booting = self.world.at - one.since < one.boot_s / 2
        phase = PowerPhase.STARTING if booting else PowerPhase.ON
        return PowerReport(phase, one.launch if self.labels else "")

    def _start(self, effect: StartBackend) -> None:
        name, fate = effect.backend, self.fates.pop(0) if self.fates else ""
        one = self.machines[name]
        assert not one.launch, f"{effect.launch} is a second launch beside {one.launch}"
        self.starts.append((self.world.at, name, effect.launch))
        if fate in ("", "lost", "never"):
            one.launch, one.since, one.dead = effect.launch, self.world.at, fate == "never"
        report = PowerReport(PowerPhase.STARTING, effect.launch)
        if fate in ("stockout", "denied", "quota", "transient"):
            report = PowerReport(PowerPhase.OFF, snag=Snag(fate), detail=fate)
        elif fate in ("lost", "gone"):
            report = PowerReport(snag=Snag.LOST, detail="timed out")
        self._tell(name, Ask.START, report, effect.launch)

    def _tell(self, name: str, ask: Ask, report: PowerReport, launch: str = "") -> None:
        self.world.give(PowerReported(name, ask, report, launch, self.world.at))

    def lives(self, seconds: int, *, up: str = "", down: str = "") -> None:
        """Let time pass: everybody is probed once a second, machines as they are in truth."""
        for _ in range(seconds):
            self.world.tick()
            self.serve()
            for name in up:
                self.world.sees(name)
            for name in down:
                self.world.sees(name, Verdict.FAILED)
            for name in self.machines:
                self.world.sees(name, Verdict.OK if self.up(name) else Verdict.FAILED)
            self.serve()
