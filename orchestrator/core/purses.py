"""How long something that is paid by time could be on, now and after each reset of its meters.

For planning only: nothing is reserved or spent here. A calendar period is what its meter says. A
rolling one is taken to give back what was used before exactly when it will, and to hold what the
plan itself uses for one whole period from now: at that one moment it may promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.meters import MeterSpec, MeterState, exhausted_until, usable
from orchestrator.core.windows import LENGTHS_S, Per, counts_until

Draws = tuple[tuple[str, float], ...]
"""Meters by key, each with how much of it a second of being on takes."""
TOO_SHORT = (Per.MINUTE, Per.HOUR)  # what starts again so soon holds up no plan


@dataclass(slots=True)
class _Period:
    begins: float
    ends: float
    left: float


class Purses:
    """What is left of each meter that is paid by time, period by period, while a plan is made."""

    def __init__(
        self,
        specs: Mapping[str, MeterSpec],
        states: Mapping[str, MeterState],
        begins: float,
        ends: float,
    ) -> None:
        self._ends = ends
        self._periods = {
            key: _periods(spec, states.get(key) or MeterState(key), begins, ends)
            for key, spec in specs.items()
            if _paid_by_time(spec)
        }

    def lasts(self, draws: Draws, begins: float, until: float) -> float:
        """Say until when something that goes on at `begins` can be on, at most `until`."""
        for key, rate in draws:
            for period in self._periods.get(key, ()):
                if period.ends <= begins or rate <= 0:
                    continue
                if period.begins >= until:
                    break
                start = max(begins, period.begins)
                if start + period.left / rate < min(until, period.ends):
                    until = start + period.left / rate
                    break
        return until

    def take(self, draws: Draws, begins: float, ends: float) -> None:
        """Have something on for that time."""
        for key, rate in draws:
            for period in self._periods.get(key, ()):
                on_s = min(ends, period.ends) - max(begins, period.begins)
                if on_s > 0:
                    period.left = max(0.0, period.left - on_s * rate)

    def give(self, draws: Draws, begins: float, ends: float) -> None:
        """Take that back."""
        self.take(tuple((key, -rate) for key, rate in draws), begins, ends)

    def over(self, draws: Draws, at: float) -> tuple[float, float] | None:
        """Say when the scarcest meter's period around `at` ends, and how long what is left lasts.

        None: nothing limits it.
        """
        found: tuple[float, float] | None = None
        for key, rate in draws:
            for period in self._periods.get(key, ()):
                if period.begins <= at < period.ends and rate > 0:
                    rest = (min(period.ends, self._ends), period.left / rate)
                    found = rest if found is None else min(found, rest, key=lambda one: one[1])
        return found

    def between(self, draws: Draws, begins: float, ends: float) -> bool:
        """Say whether a new period of one of these meters begins within that time."""
        periods = (period for key, _ in draws for period in self._periods.get(key, ()))
        return any(begins < period.begins <= ends for period in periods)

    def some_from(self, draws: Draws, at: float, need_s: float) -> float:
        """Say from when on there is enough for so long; infinity: never within the plan."""
        found, moved = at, True
        while moved and found < math.inf:
            moved = False
            for key, rate in draws:
                later = self._some(key, rate, found, need_s)
                moved |= later > found
                found = max(found, later)
        return found

    def _some(self, key: str, rate: float, at: float, need_s: float) -> float:
        if key not in self._periods or rate <= 0:
            return at
        for period in self._periods[key]:
            if period.ends > at and period.left >= min(need_s, period.ends - at) * rate:
                return max(at, period.begins)
        return math.inf


def _paid_by_time(spec: MeterSpec) -> bool:
    timed = spec.limit is not None and bool(spec.rate_per_hour) and not spec.advisory
    return timed and spec.window.per not in TOO_SHORT


def hours_left(
    specs: Mapping[str, MeterSpec],
    states: Mapping[str, MeterState],
    backend: str,
    wall: float,
) -> float:
    """Say for how many hours a backend may be on by its meters now; infinite without any."""
    found = math.inf
    for key, spec in specs.items():
        if spec.backend == backend and _paid_by_time(spec):
            rest = usable(states.get(key) or MeterState(key), spec, wall)
            found = min(found, (math.inf if rest is None else rest) / (spec.rate_per_hour or 1.0))
    return found


def draws_of(specs: Mapping[str, MeterSpec], backend: str) -> Draws:
    """List the meters that this backend's being on is paid from."""
    return tuple(
        (key, (spec.rate_per_hour or 0.0) / 3600)
        for key, spec in specs.items()
        if spec.backend == backend and _paid_by_time(spec)
    )


def _periods(spec: MeterSpec, state: MeterState, begins: float, ends: float) -> Sequence[_Period]:
    limit = spec.limit or 0.0
    none_until = exhausted_until(state, spec, begins)
    rest = 0.0 if none_until is not None else usable(state, spec, begins) or 0.0
    found: list[_Period] = []
    if spec.window.rolling:
        found = _rolling(spec, state, begins, rest)
    else:
        found = [_Period(begins, counts_until(spec.window, begins), rest)]
    while found[-1].ends < ends:
        start = found[-1].ends
        length_s = LENGTHS_S.get(spec.window.per, 0.0)
        end = start + length_s if spec.window.rolling else counts_until(spec.window, start)
        found.append(_Period(start, max(end, start + 1.0), limit))
    expires_at = spec.window.expires_at
    if expires_at is None or expires_at >= ends:
        return found
    kept = [one for one in found if one.begins < expires_at]
    for one in kept:
        one.ends = min(one.ends, expires_at)
    return [*kept, _Period(max(begins, expires_at), math.inf, 0.0)]


def _rolling(spec: MeterSpec, state: MeterState, begins: float, rest: float) -> list[_Period]:
    """Cut the period from now on where earlier use is forgotten."""
    over = begins + LENGTHS_S[spec.window.per]
    found, start = [], begins
    for slot in sorted(state.slots, key=lambda one: one.until):
        if begins < slot.until < over:
            found.append(_Period(start, slot.until, rest))
            start, rest = slot.until, slot.amount
    return [*found, _Period(start, over, rest)]
