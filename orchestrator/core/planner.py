"""Looking ahead: who serves when, what has to be started and by whom, and what nobody covers.

`plan(fleet, now, horizon_s)` reads and changes nothing. It plays no mishaps (`aion simulate` does):
what is up stays up until its session or its meters end. Cheapest first: a tier's own running ones,
then what a machine can start, then what a human can, and only for the hours left the next tier.
Times are Unix seconds, for operator hours and quotas follow the calendar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from orchestrator.core.assignment import margin_s
from orchestrator.core.coverage import covers_of
from orchestrator.core.demand import TIERS
from orchestrator.core.filling import ENDS, UNNEEDED, Run, Starter, fill, up_moments
from orchestrator.core.gaps import Gap, gap_of
from orchestrator.core.hours import awake
from orchestrator.core.model import Fleet, Now, ServiceState
from orchestrator.core.purses import Purses
from orchestrator.core.spans import Span, joined, without
from orchestrator.core.specs import Service

SOON_S = 1800.0  # who follows one that ends so soon follows because it ends
SWITCHED_S = 3600.0  # what the operator moved by hand is not undone for so long


class How(StrEnum):
    """How a backend comes to be there in a stretch of the plan."""

    SERVING = "serving"
    STANDBY = "standby"
    AUTO = "auto"
    HAND = "hand"
    UNCOVERED = "uncovered"


@dataclass(frozen=True, slots=True)
class Stretch:
    """One backend (None: nobody) from `begins` until `ends`. `usd` None: nobody gave a price."""

    backend: str | None
    begins: float
    ends: float
    how: How
    why: str
    usd: float | None = None

    @property
    def hours(self) -> float:
        return (self.ends - self.begins) / 3600


@dataclass(frozen=True, slots=True)
class Handover:
    """Who follows whom. `start_by`: when the next one has to be started, None if it runs."""

    at: float
    old: str | None
    new: str
    how: How
    start_by: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a human has to start: best between `at` and `by`, both in operator hours.

    It is then up from `begins` to `ends`, for the hours from `needed_at` on. `url` "": there is no
    page to open.
    """

    backend: str
    at: float
    by: float
    needed_at: float
    begins: float
    ends: float
    url: str
    why: str


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service. `line` tiles the whole time; `beside` is who else is up meanwhile."""

    service: str
    line: tuple[Stretch, ...]
    beside: tuple[Stretch, ...]
    handovers: tuple[Handover, ...]
    asks: tuple[Ask, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All services from `begins` until `ends`. `usd`: what the starts in it cost."""

    begins: float
    ends: float
    services: Mapping[str, ServicePlan]
    usd: float


@dataclass(slots=True)
class _Sheet:
    """A plan in the making. `open`: what nobody covers yet, by service."""

    fleet: Fleet
    now: Now
    ends: float
    purses: Purses
    awake: list[Span]
    open: dict[str, list[Span]]
    starters: dict[str, Starter]

    @property
    def begins(self) -> float:
        return self.now.wall

    def runs(self, backend: str) -> list[Run]:
        """List the runs of a backend; none if it can never serve."""
        starter = self.starters.get(backend)
        return starter.runs if starter is not None else []


def plan(fleet: Fleet, now: Now, horizon_s: float) -> Plan:
    """Say what the coming `horizon_s` seconds look like if nothing unforeseen happens."""
    sheet = _sheet(fleet, now, now.wall + horizon_s)
    services = fleet.config.services
    for tier in range(len(TIERS)):
        members = [one for one in sheet.starters.values() if one.cover.tier == tier]
        for one in members:
            one.goes_on()
            one.keeps_hours()
            _cut(sheet, one)
        fill(
            [
                (sheet.open[name], [one for one in members if one.cover.backend in spec.backends])
                for name, spec in services.items()
            ]
        )
    plans = {name: _service_plan(sheet, service) for name, service in services.items()}
    usd = sum(_cost(sheet, run) for one in sheet.starters.values() for run in one.runs)
    return Plan(now.wall, sheet.ends, plans, usd)


def _sheet(fleet: Fleet, now: Now, ends: float) -> _Sheet:
    config = fleet.config
    purses = Purses(config.meters, fleet.meters, now.wall, ends)
    hours = awake(config.operator_hours, config.timezone, now.wall, ends)
    starters = {}
    for cover in covers_of(fleet, now, ends):
        spec = config.backends[cover.backend]
        pools = (one for one in config.services.values() if spec.name in one.backends)
        leads = (max(one.rotation.lead_s, margin_s(spec, one)) for one in pools)
        ups = up_moments(cover, hours)
        starters[cover.backend] = Starter(cover, purses, max(leads, default=0.0), ups)
    whole = {name: [(now.wall, ends)] for name in config.services}
    return _Sheet(fleet, now, ends, purses, hours, whole, starters)


def _cut(sheet: _Sheet, starter: Starter) -> None:
    spans = joined((run.up_at, run.ends_at) for run in starter.runs)
    for service in sheet.fleet.config.services.values():
        if spans and starter.cover.backend in service.backends:
            gaps = sheet.open[service.name]
            gaps[:] = without(gaps, spans)


def _cost(sheet: _Sheet, run: Run) -> float:
    price = sheet.starters[run.backend].cover.usd_per_hour or 0.0
    begins = run.up_at if run.asked_at is None else run.asked_at
    return price * max(0.0, min(run.ends_at, sheet.ends) - begins) / 3600


# ── who serves ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of the line: this run serves (None: nobody)."""

    run: Run | None
    begins: float
    ends: float


def _line(sheet: _Sheet, service: Service) -> list[_Piece]:
    """Say who serves when: of those that are up the preferred one, as the choice would."""
    wishes = _wishes(sheet, sheet.fleet.services.get(service.name))
    edges = {sheet.begins, sheet.ends}
    pool = [sheet.runs(name) for name in service.backends]
    times = [time for runs in pool for run in runs for time in (run.up_at, run.ends_at)]
    times += [time for _, begins, ends in wishes for time in (begins, ends)]
    edges.update(time for time in times if sheet.begins < time < sheet.ends)
    places = [0] * len(pool)
    found: list[_Piece] = []
    ordered = sorted(edges)
    for begins, ends in pairwise(ordered):
        up: dict[str, Run] = {}
        for at, runs in enumerate(pool):
            while places[at] < len(runs) and runs[places[at]].ends_at <= begins:
                places[at] += 1
            if places[at] < len(runs) and runs[places[at]].up_at <= begins:
                up[service.backends[at]] = runs[places[at]]
        wished = (name for name, since, until in wishes if since <= begins < until)
        run = next((up[name] for name in wished if name in up), next(iter(up.values()), None))
        if found and found[-1].run is run:
            found[-1] = _Piece(run, found[-1].begins, ends)
        else:
            found.append(_Piece(run, begins, ends))
    return found


def _wishes(sheet: _Sheet, state: ServiceState | None) -> list[tuple[str, float, float]]:
    """List what the operator wants to serve, from when until when."""
    shift_s = sheet.now.wall - sheet.now.at
    found = []
    if state is not None and state.pin is not None:
        found.append((state.pin.backend, sheet.begins, state.pin.until + shift_s))
    if state is not None and state.planned is not None:
        at = state.planned.at + shift_s
        found.append((state.planned.to, at, at + SWITCHED_S))
    return found


def _service_plan(sheet: _Sheet, service: Service) -> ServicePlan:
    line = _line(sheet, service)
    pool = [sheet.starters[name] for name in service.backends if name in sheet.starters]
    stretches: list[Stretch] = []
    for at, piece in enumerate(line):
        before = line[at - 1] if at else None
        stretches.append(_stretch(sheet, piece, before))
    return ServicePlan(
        service=service.name,
        line=tuple(stretches),
        beside=tuple(_beside(sheet, service, line)),
        handovers=tuple(_handovers(line, stretches)),
        asks=tuple(_asks(sheet, line, stretches)),
        gaps=tuple(
            gap_of(sheet.fleet.config, pool, sheet.awake, (piece.begins, piece.ends))
            for piece in line
            if piece.run is None
        ),
    )


def _how(run: Run | None) -> How:
    if run is None:
        return How.UNCOVERED
    if run.asked_at is None:
        return How.SERVING
    return How.HAND if run.by_hand else How.AUTO


def _stretch(sheet: _Sheet, piece: _Piece, before: _Piece | None) -> Stretch:
    run = piece.run
    if run is None:
        why = "nobody can be there" if before is None or before.run is None else _ended(before)
        return Stretch(None, piece.begins, piece.ends, How.UNCOVERED, why)
    price = sheet.starters[run.backend].cover.usd_per_hour
    usd = None if price is None else price * (piece.ends - piece.begins) / 3600
    why = "it is up" if before is None else _because(before, piece)
    return Stretch(run.backend, piece.begins, piece.ends, _how(run), why, usd)


def _because(before: _Piece, piece: _Piece) -> str:
    """Say why the line goes on with this piece."""
    if before.run is None:
        return "nobody else can be there"
    if piece.run is not None and before.run.backend == piece.run.backend:
        return ENDS
    lasts_s = before.run.ends_at - piece.begins
    if before.run.why_over == UNNEEDED or lasts_s > SOON_S:
        return f"it comes before {before.run.backend}"
    return _ended(before)


def _ended(piece: _Piece) -> str:
    assert piece.run is not None
    return f"{piece.run.backend}: {piece.run.why_over}"


def _beside(sheet: _Sheet, service: Service, line: Sequence[_Piece]) -> list[Stretch]:
    """List when members of the pool are up without serving."""
    found = []
    for name in service.backends:
        busy = [(piece.begins, piece.ends) for piece in line if _is(piece, name)]
        runs = sheet.runs(name)
        spans = [(max(run.up_at, sheet.begins), min(run.ends_at, sheet.ends)) for run in runs]
        idle = without(joined(spans), joined(busy))
        found += [Stretch(name, *span, How.STANDBY, "it is up") for span in idle]
    return sorted(found, key=lambda one: (one.begins, one.backend or ""))


def _is(piece: _Piece, name: str) -> bool:
    return piece.run is not None and piece.run.backend == name


def _handovers(line: Sequence[_Piece], stretches: Sequence[Stretch]) -> list[Handover]:
    found = []
    for at, piece in enumerate(line):
        if piece.run is None or (at == 0 and piece.run.asked_at is None):
            continue
        old = line[at - 1].run if at else None
        found.append(
            Handover(
                at=piece.begins,
                old=old.backend if old is not None else None,
                new=piece.run.backend,
                how=_how(piece.run),
                start_by=piece.run.asked_at,
                why=stretches[at].why,
            )
        )
    return found


def _asks(sheet: _Sheet, line: Sequence[_Piece], stretches: Sequence[Stretch]) -> list[Ask]:
    """List what a human has to start for this service, each once, in order."""
    found: dict[tuple[str, float], Ask] = {}
    for piece, stretch in zip(line, stretches, strict=True):
        run = piece.run
        if run is None or run.asked_at is None or not run.by_hand:
            continue
        spec = sheet.fleet.config.backends[run.backend]
        hours = next((s for s in sheet.awake if s[0] <= run.asked_at <= s[1]), None)
        opens = sheet.begins if hours is None else max(hours[0], sheet.begins)
        ask = Ask(
            backend=run.backend,
            at=min(run.asked_at, max(opens, run.asked_at - spec.warn_before_s)),
            by=run.asked_at,
            needed_at=run.needed_at,
            begins=run.up_at,
            ends=min(run.ends_at, sheet.ends),
            url=sheet.starters[run.backend].cover.url,
            why=stretch.why,
        )
        found.setdefault((run.backend, run.asked_at), ask)
    return sorted(found.values(), key=lambda one: one.by)
