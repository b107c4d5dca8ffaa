"""The kind `fake`: a backend that plays a script, for tests, the simulator and trying things out.

Nothing is asked of any network; the time is the clock's that it is given.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import Field, field_validator

from backends import base
from backends.base import Plan, Ports
from orchestrator.core.durations import seconds
from orchestrator.core.model import Observation, Source, Verdict

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


class Options(base.Options):
    """The keys of a `fake` backend besides those that every backend has."""

    script: str = "up"
    """What it plays from the daemon's start on, such as `"up 30s, down 20s, loading 5s, up"`."""
    url: str = Field(default="http://127.0.0.1:9", pattern=r"^https?://[^\s/?#]+[^\s?#]*$")
    """The address shown for it; nothing is asked there."""
    latency: str = "5ms"
    """How long its answers are said to take."""

    @field_validator("script")
    @classmethod
    def _is_a_script(cls, text: str) -> str:
        parse(text)
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

    def _moment(self) -> Moment:
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
