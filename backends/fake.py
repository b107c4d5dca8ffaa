"""The kind `fake`: a backend that plays a script, for tests, the simulator and trying things out.

Nothing is asked of any network; the time is the clock's that it is given.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from pydantic import Field, field_validator

from backends import base
from backends.base import Launch, Plan, Ports
from orchestrator.core.durations import seconds
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.powering import PowerReport, Snag

_STEP: Final = re.compile(r"([a-z]+)(?:\s+(\S+))?")


@dataclass(frozen=True, slots=True)
class Moment:
    """How a fake backend is at one time.

    `hangs`: it answers nothing until the time-out. `canary`: what a completion says, where that
    differs from the probe.
    """

    verdict: Verdict
    detail: str = ""
    hangs: bool = False
    retry_after_s: float | None = None
    canary: Verdict | None = None


WORDS: Final = {
    "up": Moment(Verdict.OK),
    "down": Moment(Verdict.FAILED, "connection refused"),
    "error": Moment(Verdict.FAILED, "HTTP 500"),
    "hang": Moment(Verdict.FAILED, "timed out", hangs=True),
    "loading": Moment(Verdict.LOADING, "loading the model"),
    "denied": Moment(Verdict.DENIED, "HTTP 401: it refuses our key"),
    "busy": Moment(Verdict.BUSY, "HTTP 429, again in 60 s", retry_after_s=60.0),
    "gray": Moment(Verdict.OK, canary=Verdict.FAILED),
}
ON: Final = PowerReport(PowerPhase.ON)
Script = tuple[tuple[float, Moment], ...]
World = Callable[[str, float], Moment]
"""How the backend of that name is at that steady time."""


def parse(text: str) -> Script:
    """Read `"up 30s, down 20s, up"`: each step with the second at which it ends.

    The last step has no duration and stays for ever. Raises ValueError in the user's words.
    """
    steps: list[tuple[float, Moment]] = []
    ends = 0.0
    parts = [part.strip() for part in text.split(",")]
    for number, part in enumerate(parts, 1):
        found = _STEP.fullmatch(part)
        if found is None or found[1] not in WORDS:
            words = ", ".join(sorted(WORDS))
            raise ValueError(f"step {number} is not one of {words}, with a duration such as `30s`")
        last = number == len(parts)
        if (found[2] is None) != last:
            raise ValueError("every step but the last has a duration, and the last has none")
        ends = float("inf") if last else ends + seconds(found[2])
        steps.append((ends, WORDS[found[1]]))
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class Fate:
    """How one start goes: `boot_s` until it is up, infinite for never; None: it does not begin."""

    boot_s: float | None
    snag: Snag = Snag.NONE


FATES: Final = {
    "boot": Fate(0.0),
    "never": Fate(math.inf),
    "lost": Fate(0.0, Snag.LOST),
    "gone": Fate(None, Snag.LOST),
    "stockout": Fate(None, Snag.STOCKOUT),
    "quota": Fate(None, Snag.QUOTA),
    "denied": Fate(None, Snag.DENIED),
    "transient": Fate(None, Snag.TRANSIENT),
}


def parse_starts(text: str) -> tuple[Fate, ...]:
    """Read `"stockout, lost 30s, boot 30s"`: how one start after the other goes; "" for none.

    `boot` and `lost` (it boots, and the answer is lost) come with how long that takes; `gone`:
    neither it nor an answer comes. Raises ValueError in the user's words.
    """
    found: list[Fate] = []
    for number, part in enumerate(text.split(",") if text.strip() else (), 1):
        step = _STEP.fullmatch(part.strip())
        if step is None or step[1] not in FATES:
            raise ValueError(f"start {number} is not one of {', '.join(sorted(FATES))}")
        fate = FATES[step[1]]
        if (step[2] is not None) != (fate.boot_s == 0.0):
            raise ValueError(
                "`boot` and `lost` come with a duration, such as `boot 30s`, others not"
            )
        found.append(fate if step[2] is None else replace(fate, boot_s=seconds(step[2])))
    return tuple(found)


class Plant:
    """What is on: the truth that a fake's power is about."""

    def __init__(self, starts: tuple[Fate, ...], now: Callable[[], float]) -> None:
        self._starts, self._now = starts, now
        self._up_at = 0.0
        self.launch = ""
        self.started = 0

    @property
    def phase(self) -> PowerPhase:
        if not self.launch:
            return PowerPhase.OFF
        return PowerPhase.ON if self._now() >= self._up_at else PowerPhase.STARTING

    def start(self, label: str) -> PowerReport:
        """Have one more start go as it is to."""
        if self.launch:
            return PowerReport(self.phase, self.launch)
        fate = self._starts[min(self.started, len(self._starts) - 1)]
        self.started += 1
        if fate.boot_s is not None:
            self.launch, self._up_at = label, self._now() + fate.boot_s
        if fate.snag is Snag.NONE:
            return PowerReport(PowerPhase.STARTING, label)
        return PowerReport(detail=f"the script says {fate.snag.value}", snag=fate.snag)

    def stop(self, label: str) -> PowerReport:
        """Switch it off."""
        if label in {"", self.launch}:
            self.launch = ""
        return self.status()

    def status(self) -> PowerReport:
        return PowerReport(self.phase, self.launch)


class Options(base.Options):
    """The keys of a `fake` backend besides those that every backend has."""

    script: str = "up"
    """What it plays from the daemon's start on, such as `"up 30s, down 20s, loading 5s, up"`."""
    url: str = Field(default="http://127.0.0.1:9", pattern=r"^https?://[^\s/?#]+[^\s?#]*$")
    """The address shown for it; nothing is asked there."""
    latency: str = "5ms"
    """How long its answers are said to take."""
    power: str = ""
    """It is off until it is started: how its starts go, one after the other, such as
    `"stockout, boot 30s"`; the last one for ever."""

    @field_validator("script")
    @classmethod
    def _is_a_script(cls, text: str) -> str:
        parse(text)
        return text

    @field_validator("power")
    @classmethod
    def _are_starts(cls, text: str) -> str:
        parse_starts(text)
        return text

    @field_validator("latency")
    @classmethod
    def _is_a_duration(cls, text: str) -> str:
        seconds(text)
        return text


class Driver:
    """Plays the script of its options, or does as `world` says."""

    def __init__(self, plan: Plan, ports: Ports, world: World | None = None) -> None:
        self._plan = plan
        self._clock = ports.clock
        self._latency_s = seconds(plan.options.latency)
        self._world = world or _play(parse(plan.options.script), ports.clock.steady())
        starts = parse_starts(plan.options.power)
        self.plant = Plant(starts, ports.clock.steady) if starts else None

    async def probe(self) -> Observation:
        now = self._moment()
        policy = self._plan.backend.health
        if now.hangs:
            await asyncio.sleep(policy.timeout_s)
            detail = f"timed out after {policy.timeout_s:g} s"
            return self._seen(Source.PROBE, now.verdict, detail)
        ours = tuple(self._plan.models.values())
        return self._seen(Source.PROBE, now.verdict, now.detail, now.retry_after_s, ours)

    async def canary(self) -> Observation | None:
        now = self._moment()
        if now.hangs:
            await asyncio.sleep(self._plan.backend.health.canary_timeout_s)
        if now.canary is not None:
            return self._seen(Source.CANARY, now.canary, "answers with no completion")
        return self._seen(Source.CANARY, now.verdict, now.detail, now.retry_after_s)

    async def start(self, launch: Launch) -> PowerReport:
        """Play a start; without `power` it is on and stays so."""
        return ON if self.plant is None else self.plant.start(launch.label)

    async def stop(self, launch: str) -> PowerReport:
        """Play a stop."""
        return ON if self.plant is None else self.plant.stop(launch)

    async def status(self) -> PowerReport:
        return ON if self.plant is None else self.plant.status()

    def _moment(self) -> Moment:
        phase = PowerPhase.ON if self.plant is None else self.plant.phase
        if phase is not PowerPhase.ON:
            return WORDS["down" if phase is PowerPhase.OFF else "loading"]
        return self._world(self._plan.backend.name, self._clock.steady())

    def _seen(
        self,
        source: Source,
        verdict: Verdict,
        detail: str,
        retry_after_s: float | None = None,
        models: tuple[str, ...] | None = None,
    ) -> Observation:
        ok = verdict is Verdict.OK
        return Observation(
            self._plan.backend.name,
            source,
            verdict,
            detail,
            latency_s=self._latency_s if ok else None,
            status=200 if ok else None,
            models=models if ok else None,
            retry_after_s=retry_after_s,
        )


def _play(script: Script, from_: float) -> World:
    def at(_: str, now: float) -> Moment:
        return next(moment for ends, moment in script if now - from_ < ends)

    return at
