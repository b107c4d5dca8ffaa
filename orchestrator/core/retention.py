"""Which dumps to keep.

Dumps are ordered by their sequence, which only grows, and aged against each other: neither the
present time nor a database is asked, so a clock that is wrong by a year expires nothing. Only
verified dumps count; what is not verified is never a reason to remove one that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

FLOOR: Final = 3


@dataclass(frozen=True, slots=True)
class Held:
    """One dump in one store. `made`: the day by its manifest, in UTC; `size` in bytes.

    `verified`: the store itself vouches for all of it now. `quarantined`: suspicious and not
    accepted, so it does not count though it be whole.
    """

    id: str
    sequence: int
    made: date
    size: int
    verified: bool
    quarantined: bool = False

    @property
    def counts(self) -> bool:
        """Whether it may be restored from without a second thought."""
        return self.verified and not self.quarantined


@dataclass(frozen=True, slots=True)
class Policy:
    """How many dumps are kept: the last of each of so many days, weeks, months and years.

    `floor` counting dumps stay whatever happens. Raises ValueError if it would keep nothing.
    """

    daily: int
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    floor: int = FLOOR

    def __post_init__(self) -> None:
        rules = (self.daily, self.weekly, self.monthly, self.yearly)
        if min(rules) < 0 or not any(rules):
            raise ValueError("a policy that keeps no dump is no policy")
        if self.floor < FLOOR:
            raise ValueError(f"at least {FLOOR} dumps are kept in each store")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one dump, and why."""

    id: str
    keep: bool
    why: str


def fates(held: Iterable[Held], policy: Policy) -> tuple[Fate, ...]:
    """Say for each dump of one store whether it stays, and why; the newest first.

    With fewer counting dumps than the floor nothing goes at all.
    """
    newest = sorted(held, key=_order, reverse=True)
    counting = [one for one in newest if one.counts]
    kept = _kept(counting, policy)
    floor = counting[policy.floor - 1] if len(counting) >= policy.floor else None
    found = []
    for one in newest:
        if one.counts:
            why = kept.get(one.id, "")
            fate = Fate(one.id, True, why) if why else Fate(one.id, False, "no rule keeps it")
        elif floor is not None and _order(one) < _order(floor):
            fate = Fate(one.id, False, f"{_flaw(one)}, and {policy.floor} good ones are newer")
        else:
            fate = Fate(one.id, True, f"{_flaw(one)}: it counts for nothing, and is left alone")
        found.append(fate)
    return tuple(found)


def room_for(held: Sequence[Held], policy: Policy, needed: int) -> tuple[str, ...]:
    """Return what to remove from a full store so that `needed` bytes are freed, first to last.

    What no rule keeps goes first, then the oldest; never below the floor, and nothing at all if
    that would not free enough. Ask only when a newer dump, verified, waits on this machine.
    """
    doomed = {fate.id for fate in fates(held, policy) if not fate.keep}
    oldest = sorted(held, key=_order)
    safe = {one.id for one in [one for one in oldest if one.counts][-policy.floor :]}
    if len(safe) < policy.floor:
        return ()
    order = [one for one in oldest if one.id in doomed]
    order += [one for one in oldest if one.counts and one.id not in doomed | safe]
    chosen: list[str] = []
    freed = 0
    for one in order:
        if freed >= needed:
            break
        chosen.append(one.id)
        freed += one.size
    return tuple(chosen) if freed >= needed else ()


def _order(one: Held) -> tuple[int, str]:
    return one.sequence, one.id


def _flaw(one: Held) -> str:
    return "suspicious" if one.quarantined else "not verified"


def _kept(counting: Sequence[Held], policy: Policy) -> dict[str, str]:
    """Return why each kept dump is kept; `counting` is newest first."""
    why: dict[str, list[str]] = {}
    for one in counting[: policy.floor]:
        why.setdefault(one.id, []).append(f"one of the last {policy.floor}")
    for count, noun, period in (
        (policy.daily, "day", lambda day: day.isoformat()),
        (policy.weekly, "week", lambda day: f"{day.isocalendar()[0]}-{day.isocalendar()[1]}"),
        (policy.monthly, "month", lambda day: f"{day.year}-{day.month}"),
        (policy.yearly, "year", lambda day: str(day.year)),
    ):
        seen: set[str] = set()
        for one in counting:
            name = period(one.made)
            if len(seen) < count and name not in seen:
                seen.add(name)
                why.setdefault(one.id, []).append(f"the last of its {noun}")
    return {name: ", ".join(reasons) for name, reasons in why.items()}
