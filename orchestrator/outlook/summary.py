"""What many plays say together: spreads over the seeds, service by service, backend by backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.meters import Unit
from orchestrator.outlook.lives import DAY_S, HOUR_S, End
from orchestrator.outlook.play import Cover, Kind, Plot, machines_of
from orchestrator.outlook.tally import ALIVE_TILL, BackendTally, ServiceTally, Tally

MINUTE_S = 60.0
LOW, MIDDLE, HIGH = 0.05, 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all plays: its mean, and below what 5, 50 and 95 of 100 lie."""

    mean: float
    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Make it of one value for each play."""
        ranked = sorted(values)
        mean = sum(ranked) / len(ranked)
        return cls(mean, *(quantile(ranked, share) for share in (LOW, MIDDLE, HIGH)))


def quantile(ranked: Sequence[float], share: float) -> float:
    """Give the value below which `share` of the sorted values lie, between two of them if need be.

    The usual one (Hyndman and Fan's type 7, as spreadsheets have it).
    """
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class ServiceOutlook:
    """One service over all plays.

    `covers` are minutes of each sort, on average; `hours` minutes uncovered by the hour of the day;
    `asleep_min` minutes in which the one who could help slept.
    """

    name: str
    available: Spread  # share of the time, 0 to 1
    uncovered_min: Spread
    longest_min: Spread
    forced: Spread
    voluntary: Spread
    lost: Spread
    covers: Mapping[Cover, float]
    asleep_min: float
    hours: Sequence[float]
    missing_min: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BackendOutlook:
    """One backend over all plays, in counts on average; `served` share of the services' time.

    `hours` of being on, `usd` what they cost. `starts` that aion asks for, `refused` of them.
    """

    name: str
    basis: str
    plays: bool  # False: it cannot serve, so its deaths matter to nobody
    alive: float  # share of the time
    served: float
    deaths: Spread
    ends: Mapping[End, float]
    asked: float
    asked_asleep: float
    told: float
    hours: Spread
    usd: Spread
    starts: Spread
    refused: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is likely in `days` days, by `seeds` plays."""

    days: float
    seeds: int
    services: tuple[ServiceOutlook, ...]
    backends: tuple[BackendOutlook, ...]
    asked: Spread
    asked_asleep: Spread
    told: Spread


def summarise(plot: Plot, tallies: Sequence[Tally]) -> Outlook:
    """Put the books of all plays of one plot together."""
    served = {
        name: _mean(
            [sum(one.served_s[name] for one in tally.services.values()) for tally in tallies]
        )
        for name in plot.config.backends
    }
    whole_s = plot.lasts_s * max(1, len(plot.config.services))
    return Outlook(
        days=plot.lasts_s / DAY_S,
        seeds=len(tallies),
        services=tuple(_service(name, tallies) for name in plot.config.services),
        backends=tuple(
            _backend(plot, name, tallies, served[name] / whole_s) for name in plot.config.backends
        ),
        asked=_over(tallies, lambda one: one.asked),
        asked_asleep=_over(tallies, lambda one: one.asked_asleep),
        told=_over(tallies, lambda one: one.told),
    )


def _over(tallies: Sequence[Tally], figure: Callable[[BackendTally], float]) -> Spread:
    return Spread.of([sum(map(figure, tally.backends.values())) for tally in tallies])


def _service(name: str, tallies: Sequence[Tally]) -> ServiceOutlook:
    books = [tally.services[name] for tally in tallies]

    def spread(figure: Callable[[ServiceTally], float]) -> Spread:
        return Spread.of([figure(book) for book in books])

    names = {missing for book in books for missing in book.missing}
    return ServiceOutlook(
        name=name,
        available=spread(lambda book: book.cover_s[Cover.SERVED] / book.total_s),
        uncovered_min=spread(lambda book: book.uncovered_s / MINUTE_S),
        longest_min=spread(lambda book: book.longest_s / MINUTE_S),
        forced=spread(lambda book: book.moves[Kind.FORCED]),
        voluntary=spread(lambda book: book.moves[Kind.VOLUNTARY]),
        lost=spread(lambda book: book.moves[Kind.LOST]),
        covers={
            cover: _mean([book.cover_s[cover] / MINUTE_S for book in books]) for cover in Cover
        },
        asleep_min=_mean([book.asleep_s / MINUTE_S for book in books]),
        hours=tuple(_mean([book.hours[hour] / MINUTE_S for book in books]) for hour in range(24)),
        missing_min={one: _mean([book.missing[one] / MINUTE_S for book in books]) for one in names},
    )


def _backend(plot: Plot, name: str, tallies: Sequence[Tally], served: float) -> BackendOutlook:
    habits, lasts_s = plot.habits.get(name), plot.lasts_s
    meter = plot.config.meters.get(f"{name}:{Unit.USD}")
    rate = meter.rate_per_hour or 0.0 if meter is not None else 0.0
    books = [tally.backends.get(name, BackendTally()) for tally in tallies]
    powered = name in machines_of(plot)
    on_h = [(book.on_s if powered else book.lived_s) / HOUR_S for book in books]
    return BackendOutlook(
        name=name,
        basis=habits.rates.basis if habits is not None else "cannot serve yet",
        plays=habits is not None,
        alive=_mean([book.lived_s for book in books]) / lasts_s if habits is not None else 1.0,
        served=served,
        deaths=Spread.of([book.deaths for book in books]),
        ends={
            why: _mean([book.ends[why] for book in books]) for why in End if why not in ALIVE_TILL
        },
        asked=_mean([book.asked for book in books]),
        asked_asleep=_mean([book.asked_asleep for book in books]),
        told=_mean([book.told for book in books]),
        hours=Spread.of(on_h),
        usd=Spread.of([hours * rate for hours in on_h]),
        starts=Spread.of([book.starts for book in books]),
        refused=_mean([book.refused for book in books]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
