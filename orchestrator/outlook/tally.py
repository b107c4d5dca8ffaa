"""The books of one play: what a month was like for each service and each backend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.outlook.lives import End
from orchestrator.outlook.machines import Rented
from orchestrator.outlook.person import Person
from orchestrator.outlook.play import Ask, Cover, Kind, Life, Move, Record, Stint

ALIVE_TILL = (End.OVER, End.STOPPED)  # ends that are no deaths
PIECE_S = 900.0  # an uncovered while is laid on the clock in pieces of this


@dataclass(slots=True)
class ServiceTally:
    """One service in one play, in seconds and counts.

    `hours`: uncovered seconds by the hour of the human's clock. `asleep_s`: the part of BY_HAND in
    which the human slept. `missing`: uncovered seconds for which each backend waited for the human.
    """

    total_s: float = 0.0
    cover_s: dict[Cover, float] = field(default_factory=lambda: defaultdict(float))
    longest_s: float = 0.0
    asleep_s: float = 0.0
    hours: list[float] = field(default_factory=lambda: [0.0] * 24)
    missing: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    served_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    moves: Counter[Kind] = field(default_factory=Counter)
    gap_s: float = 0.0  # the uncovered while under way

    @property
    def uncovered_s(self) -> float:
        """Seconds in which nobody was served."""
        return self.total_s - self.cover_s[Cover.SERVED]


@dataclass(slots=True)
class BackendTally:
    """One backend in one play. `asked` and `asked_asleep` are urgent requests to start it.

    `starts` by aion, `refused` of these by its provider; `on_s`: for how long it was on by those.
    """

    ends: Counter[End] = field(default_factory=Counter)
    lived_s: float = 0.0
    asked: int = 0
    asked_asleep: int = 0
    told: int = 0
    starts: int = 0
    refused: int = 0
    on_s: float = 0.0

    @property
    def deaths(self) -> int:
        """How often it died."""
        return sum(count for why, count in self.ends.items() if why not in ALIVE_TILL)


class Tally:
    """Notes what the table and the sentences of `aion simulate` are made of."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self.services: dict[str, ServiceTally] = {}
        self.backends: dict[str, BackendTally] = {}

    def note(self, record: Record) -> None:
        """Take a record into the books."""
        if isinstance(record, Stint):
            self._stint(record)
        elif isinstance(record, Move):
            self._service(record.service).moves[record.kind] += 1
        elif isinstance(record, Life):
            backend = self._backend(record.backend)
            backend.ends[record.why] += 1
            backend.lived_s += record.ended - record.began
        elif isinstance(record, Rented):
            backend = self._backend(record.backend)
            backend.starts += 1
            backend.refused += record.refused
            backend.on_s += record.ended - record.began
        else:
            self._ask(record)

    def _service(self, name: str) -> ServiceTally:
        return self.services.setdefault(name, ServiceTally())

    def _backend(self, name: str) -> BackendTally:
        return self.backends.setdefault(name, BackendTally())

    def _ask(self, ask: Ask) -> None:
        backend = self._backend(ask.backend)
        if ask.urgent:
            backend.asked += 1
            backend.asked_asleep += ask.asleep
        else:
            backend.told += 1

    def _stint(self, stint: Stint) -> None:
        service, lasted_s = self._service(stint.service), stint.ended - stint.began
        service.total_s += lasted_s
        service.cover_s[stint.cover] += lasted_s
        if stint.cover is Cover.SERVED:
            service.gap_s = 0.0
            service.served_s[stint.backend or ""] += lasted_s
            return
        service.gap_s += lasted_s
        service.longest_s = max(service.longest_s, service.gap_s)
        for name in stint.missing:
            service.missing[name] += lasted_s
        for at, piece_s in _pieces(stint):
            here = datetime.fromtimestamp(at, self._person.zone)
            service.hours[here.hour] += piece_s
            if stint.cover is Cover.BY_HAND and self._person.asleep(here.time()):
                service.asleep_s += piece_s


def _pieces(stint: Stint) -> Iterator[tuple[float, float]]:
    """Cut a while at the quarters of the hour: when each piece begins, and its seconds."""
    at = stint.began
    while at < stint.ended:
        cut = min((at // PIECE_S + 1) * PIECE_S, stint.ended)
        yield at, cut - at
        at = cut
