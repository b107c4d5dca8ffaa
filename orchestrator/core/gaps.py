"""What could be done about hours that nobody covers: the cheapest way, and why not the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.coverage import DRAINED, Means
from orchestrator.core.durations import spoken
from orchestrator.core.filling import SPENT, WORTH_A_BOOT_S, WORTH_A_HUMAN_S, Starter
from orchestrator.core.hours import clock
from orchestrator.core.spans import Span
from orchestrator.core.specs import FleetConfig, Tier


@dataclass(frozen=True, slots=True)
class Gap:
    """Hours that nobody covers.

    `backend`, `do`: the cheapest way to cover them after all, None and what is lacking where the
    configuration has none; `usd` None: nobody gave a price. `others`: why each of the pool does
    not.
    """

    begins: float
    ends: float
    backend: str | None
    do: str
    usd: float | None
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """What somebody could do. `rank`: of two that cost the same the lower is the lesser trouble."""

    backend: str
    do: str
    usd: float | None
    rank: int

    @property
    def order(self) -> tuple[float, int]:
        return (math.inf if self.usd is None else self.usd), self.rank


def gap_of(config: FleetConfig, pool: Sequence[Starter], awake: Sequence[Span], span: Span) -> Gap:
    """Say what there is to say of one gap of a service with this pool."""
    ways = [way for one in pool for way in _ways(config, one, awake, span)]
    best = min(ways, key=lambda way: way.order, default=None)
    others = tuple((one.cover.backend, _why_not(config, one, awake, span)) for one in pool)
    if best is None:
        do = "nothing in the pool can; one more backend that aion starts by itself would"
        return Gap(*span, None, do, None, others)
    return Gap(*span, best.backend, best.do, best.usd, others)


def _ways(config: FleetConfig, one: Starter, awake: Sequence[Span], span: Span) -> Iterator[_Way]:
    """List what would cover this gap, though not by the rules of the plan."""
    cover = one.cover
    spec, name = config.backends[cover.backend], cover.backend
    usd = 0.0 if spec.tier is Tier.FREE else None
    if cover.usd_per_hour is not None:
        usd = cover.usd_per_hour * (span[1] - span[0]) / 3600
    asked = span[0] - cover.takes_s
    if cover.why_not == DRAINED:
        yield _Way(name, f"aion backend undrain {name}", 0.0, 0)
    elif cover.why_not:
        return
    elif _spent(one, span):
        yield _Way(name, "raise its limit, or buy more", usd, 3)
    elif cover.means is Means.HUMAN:
        up = any(begins <= asked <= ends for begins, ends in awake)
        when = "" if up else ", outside operator hours"
        at = f"at {clock(asked, config.timezone)}{when}" if asked > cover.free_at else "at once"
        yield _Way(name, f"start it by hand {at}", usd, 2)
    elif cover.means is Means.NOBODY and spec.powered:
        yield _Way(name, f"aion backend start {name}", usd, 1)


def _spent(one: Starter, span: Span) -> bool:
    """Say whether it is not there because what it may use is spent."""
    last = next((run for run in reversed(one.runs) if run.ends_at <= span[0]), None)
    if last is not None and last.why_over == SPENT:
        return not one.purses.between(one.cover.draws, last.ends_at, span[0])
    begun = any(run.up_at >= span[0] and (run.asked_at or 0.0) <= span[0] for run in one.runs)
    if last is not None or begun or one.cover.means is not Means.MACHINE:
        return False
    first = one.purses.some_from(one.cover.draws, span[0], WORTH_A_BOOT_S)
    return first > span[0]


def _why_not(config: FleetConfig, one: Starter, awake: Sequence[Span], span: Span) -> str:
    """Say in words why this one does not cover the gap."""
    cover, zone = one.cover, config.timezone
    if cover.why_not:
        return cover.why_not
    last = next((run for run in reversed(one.runs) if run.ends_at <= span[0]), None)
    begun = next((run for run in one.runs if run.up_at >= span[1]), None)
    if _spent(one, span):
        again = one.purses.some_from(cover.draws, span[1], WORTH_A_BOOT_S)
        if begun is not None and begun.asked_at is not None:
            again = begun.asked_at
        until = "" if math.isinf(again) else f" until {clock(again, zone)}"
        return f"{SPENT}{until}"
    if cover.means is Means.NOBODY:
        return last.why_over if last is not None else cover.reason
    if cover.means is Means.MACHINE:
        if begun is not None and begun.asked_at is not None and begun.asked_at <= span[1]:
            return f"it is starting and is up at {clock(begun.up_at, zone)}"
        return last.why_over if last is not None else "it cannot be up in time"
    if begun is not None and begun.asked_at is not None and begun.asked_at <= span[0]:
        return f"asked for at once it is up at {clock(begun.up_at, zone)}"
    if span[1] - span[0] < WORTH_A_HUMAN_S:
        return f"for {spoken(span[1] - span[0])} nobody is asked to start it"
    if begun is not None:
        return f"nobody is there to start it so that it is up before {clock(begun.up_at, zone)}"
    opens = next((begins for begins, _ in awake if begins > span[0]), None)
    until = "" if opens is None else f" until {clock(opens, zone)}"
    return f"nobody is there to start it{until}"
