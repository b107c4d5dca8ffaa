"""Who should serve, and why: `choose(...)`.

Preference is the pool's order. A suspect incumbent keeps serving; a confirmed dead one never does
while a live one exists, except under a hard pin. Leaving the dead is never rate-limited; moving
back to a better one (a voluntary move) is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from orchestrator.core.durations import spoken
from orchestrator.core.model import Health, Pin
from orchestrator.core.specs import Tier

MOVES_AN_HOUR = 2
APART_S = 60.0
HOUR_S = 3600.0


class Rank(IntEnum):
    """How well somebody could serve now. UNDECIDED: not known yet, so an incumbent stays."""

    CANNOT = 0
    UNDECIDED = 1
    LAST = 2  # drained or about to end: serves only while nobody else can
    RESERVE = 3  # degraded or suspect: when nobody is up
    READY = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member of a pool as the choice sees it.

    `barred`: why it cannot serve although it lives, or "". `ok_since`: start of unbroken health.
    `wait_s`: how long that health must have lasted before a voluntary move to it. `fresh`: nothing
    was heard of it yet and it is too early to give up waiting. `over`: the hours in which it should
    be on are over, and one that costs no more is up.
    """

    name: str
    health: Health
    tier: Tier = Tier.FREE
    reason: str = ""
    barred: str = ""
    suspect: bool = False
    drained: bool = False
    ending: bool = False
    ok_since: float | None = None
    wait_s: float = 300.0
    flapping: bool = False
    fresh: bool = False
    over: bool = False

    @property
    def rank(self) -> Rank:
        if self.barred:
            return Rank.CANNOT
        if self.health is Health.UNKNOWN:
            return Rank.UNDECIDED
        if self.health not in (Health.UP, Health.DEGRADED):
            return Rank.CANNOT
        if self.drained or self.ending or self.over:
            return Rank.LAST
        return Rank.RESERVE if self.suspect or self.health is Health.DEGRADED else Rank.READY


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer: who, why, whether it is a voluntary move, and when to ask again.

    `planned`: the incumbent lives and leaves in good order, so the next one is made ready first.
    `notes`: per candidate, in words, why it is not the one.
    """

    to: str | None
    why: str
    voluntary: bool = False
    planned: bool = False
    review_at: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def choose(
    pool: Sequence[Candidate],
    serving: str | None,
    at: float,
    *,
    pin: Pin | None = None,
    hold_until: float | None = None,
    moves: Sequence[float] = (),
) -> Choice:
    """Say who should serve `pool`'s service now. `pool` is in order of preference."""
    incumbent = next((one for one in pool if one.name == serving), None)
    if pin is not None and pin.hard:
        return Choice(pin.backend, f"pinned hard to {pin.backend}", review_at=pin.until)
    if incumbent is None:
        return _first(pool, serving, pin)
    if incumbent.rank is Rank.UNDECIDED:
        return Choice(serving, f"{serving} was serving and has not been looked at yet")
    best = _best(pool, pin, but=incumbent.name)
    if incumbent.rank < Rank.RESERVE or (incumbent.rank is Rank.RESERVE and _must_go(incumbent)):
        return _leave(incumbent, best, pool)
    return _stay_or_better(pool, incumbent, at, pin, hold_until, moves)


def explain(pool: Sequence[Candidate], serving: str | None, at: float) -> dict[str, str]:
    """Say of each candidate in words how it stands."""
    return {one.name: _standing(one, serving, at) for one in pool}


def _first(pool: Sequence[Candidate], serving: str | None, pin: Pin | None) -> Choice:
    best = _best(pool, pin, but=None)
    lost = f"{serving} is no longer in the pool; " if serving else ""
    if best is None:
        return Choice(None, f"{lost}nobody can serve")
    for one in pool:
        if one is best:
            break
        if one.fresh and serving is None:
            return Choice(None, f"waiting for the first word of {one.name}, which is preferred")
    return Choice(best.name, f"{lost}{best.name} is the first that can serve")


def _best(pool: Sequence[Candidate], pin: Pin | None, *, but: str | None) -> Candidate | None:
    """Pick the best of the others: pinned, then up, then calm before flapping, then preference."""
    able = [one for one in pool if one.rank >= Rank.LAST and one.name != but]
    if not able:
        return None
    top = max(one.rank for one in able)
    able = [one for one in able if one.rank == top]
    pinned = next((one for one in able if pin is not None and one.name == pin.backend), None)
    return pinned or next((one for one in able if not one.flapping), able[0])


def _must_go(incumbent: Candidate) -> bool:
    """Make a degraded incumbent give way to one that is up; a suspect one keeps serving."""
    return incumbent.health is Health.DEGRADED


def _leave(incumbent: Candidate, best: Candidate | None, pool: Sequence[Candidate]) -> Choice:
    why = trouble(incumbent)
    alive = incumbent.rank >= Rank.LAST
    if best is None or (alive and best.rank <= incumbent.rank):
        if alive:
            return Choice(incumbent.name, f"{why}, but nobody better can serve")
        if any(one.fresh for one in pool):
            return Choice(incumbent.name, f"{why}; waiting for the first word of the others")
        return Choice(None, f"{why}, and nobody else can serve")
    planned = incumbent.rank is Rank.LAST
    return Choice(best.name, f"{why}; {best.name} is the first that can serve", planned=planned)


def trouble(one: Candidate) -> str:
    """Say in words why this one should not serve, or that it is up."""
    if one.barred:
        return f"{one.name} cannot serve: {one.barred}"
    if one.drained:
        return f"{one.name} is drained"
    if one.ending:
        return f"{one.name} is about to end"
    if one.over:
        return f"the hours of {one.name} are over"
    if one.suspect:
        return f"{one.name} is suspect: its agent is silent"
    words = {Health.UP: "is up", Health.UNKNOWN: "has not been looked at yet"}
    text = words.get(one.health, f"is {one.health.value}")
    because = "" if one.health in words or not one.reason else f": {one.reason}"
    return f"{one.name} {text}{because}"


def _stay_or_better(
    pool: Sequence[Candidate],
    incumbent: Candidate,
    at: float,
    pin: Pin | None,
    hold_until: float | None,
    moves: Sequence[float],
) -> Choice:
    pinned_here = pin is not None and pin.backend == incumbent.name
    wanted = _preferred(pool, incumbent, pin)
    review: float | None = None
    for one in wanted:
        due = _due(one, incumbent, moves)
        if hold_until is not None and not (pin is not None and pin.backend == one.name):
            due = max(due, hold_until)
        better_soon = review is not None and review <= at + APART_S  # one move, not two
        if at >= due and not better_soon:
            return Choice(
                one.name, f"{one.name} is preferred and has been well long enough", voluntary=True
            )
        if at < due < float("inf"):
            review = due if review is None else min(review, due)
    why = "is pinned and serves well" if pinned_here else "serves well"
    return Choice(incumbent.name, f"{incumbent.name} {why}", review_at=review)


def _preferred(pool: Sequence[Candidate], incumbent: Candidate, pin: Pin | None) -> list[Candidate]:
    """List those that are up and preferred over the incumbent, best first."""
    if pin is not None:
        if pin.backend == incumbent.name:
            return []
        pinned = [one for one in pool if one.name == pin.backend and one.rank is Rank.READY]
        if pinned:
            return pinned
    before: list[Candidate] = []
    for one in pool:
        if one.name == incumbent.name:
            break
        if one.rank is Rank.READY:
            before.append(one)
    return before


def _due(one: Candidate, incumbent: Candidate, moves: Sequence[float]) -> float:
    """When a voluntary move to `one` may happen: unbroken health, 2 an hour, 60 s apart."""
    due = (one.ok_since if one.ok_since is not None else float("inf")) + one.wait_s
    if moves:
        due = max(due, moves[-1] + APART_S)
    exempt = incumbent.tier is Tier.PAID and one.tier is Tier.FREE
    if len(moves) >= MOVES_AN_HOUR and not exempt:
        due = max(due, moves[-MOVES_AN_HOUR] + HOUR_S)
    return due


def _standing(one: Candidate, serving: str | None, at: float) -> str:
    if one.name == serving:
        return "serves"
    if one.rank is not Rank.READY:
        return trouble(one)
    if one.ok_since is None:
        return f"{one.name} is up, in doubt since its last answer failed"
    well_s = at - one.ok_since
    if well_s < one.wait_s:
        flaps = " (it flaps, so it waits longer)" if one.flapping else ""
        return f"{one.name} is up for {spoken(well_s)} of the {spoken(one.wait_s)} asked for{flaps}"
    return f"{one.name} is up"
