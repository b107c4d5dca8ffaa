"""Who dies when, and for how long: lives and outages of one backend, drawn from its rates.

A life ends by failing (after a time that is exponential: failures have no memory), by reaching its
session's limit, or by spending its quota or credit. What comes after depends on the backend: one
that a human has to start waits for the human, the others come back by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.durations import spoken
from orchestrator.core.windows import FOREVER, Window, counts_until
from orchestrator.outlook.scene import Chance, Way

HOUR_S, DAY_S = 3600.0, 86400.0
SHORTEST_S = 1.0  # of a life or an outage
FULL_SESSION = 0.97  # a life that lasted so much of its session's limit ended by that limit
NEVER_S = 2 * FOREVER


class End(StrEnum):
    """Why a life ended. STOPPED: nobody needed it. OVER: it had not, when the play did."""

    FAILED = "failed"
    SESSION = "session"
    QUOTA = "quota"
    STOPPED = "stopped"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Rates:
    """How long a backend lives between failures and how long it is out, on average, in seconds.

    `hangs`: the share of deaths in which it does not answer rather than refuse. `boot_s`: from
    being started by a human to its first answer. `basis` says where the figures come from.
    """

    mtbf_s: float
    mttr_s: float
    hangs: float
    boot_s: float
    basis: str


# No study stands behind these: they are what the kinds are like, rounded. What was observed takes
# their place bit by bit (`learned`), and `--mtbf`, `--mttr` overrule both.
#
# Own hardware: restarts for updates, an engine out of memory, a line that drops: once in ten days,
# and a service manager or a person has it back within the half hour.
OWN = Rates(10 * DAY_S, 30 * 60.0, 0.3, 3 * 60.0, "assumed: own machine")
# Free notebooks: a tunnel that drops or a kernel that dies once a day. Somebody presses "run all",
# and the model is loaded after five minutes. Tunnels outlive what is behind them, so they refuse.
NOTEBOOK = Rates(24 * HOUR_S, 20 * 60.0, 0.2, 5 * 60.0, "assumed: free notebook")
# Rented machines: taken away or restarted twice a week; back once there is capacity again.
RENTED = Rates(84 * HOUR_S, 30 * 60.0, 0.3, 5 * 60.0, "assumed: rented machine")
# A provider's API: an incident every two weeks that lasts an hour, as status pages tell.
API = Rates(14 * DAY_S, 60 * 60.0, 0.3, 0.0, "assumed: API")
NOTEBOOKS = frozenset({"notebook", "kaggle", "colab"})
RENTALS = frozenset({"gce", "runpod", "vast", "libcloud"})


def assumed(kind: str, *, session: bool, restarted_by_hand: bool) -> Rates:
    """Give the rates of a backend of which nothing is known; a session or a page makes a notebook.

    `session`: it has a limit. `restarted_by_hand`: only a human can start it.
    """
    if kind == "api":
        return API
    if kind in RENTALS:
        return RENTED
    return NOTEBOOK if kind in NOTEBOOKS or session or restarted_by_hand else OWN


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of one backend's history: hours in which it was looked at, and its outages.

    `falls` are (when it went down, when it was up again or None), in steady seconds, in order.
    """

    hours: int
    falls: Sequence[tuple[float, float | None]]


def learned(rates: Rates, past: Past, session_s: float | None) -> Rates:
    """Put what was observed in the place of what is assumed.

    The assumption counts as one failure seen in one assumed time between failures (a conjugate
    prior of an exponential), so that a week without a failure is not taken for immortality. A life
    that ended at its session's limit was no failure.
    """
    if past.hours <= 0:
        return rates
    fails, out_s, outs, up_at = 0, 0.0, 0, None
    for down, up in past.falls:
        full = session_s is not None and up_at is not None
        ended = full and down - (up_at or 0.0) >= FULL_SESSION * (session_s or 0.0)
        fails += not ended
        up_at = up
        if up is not None and not ended:
            out_s, outs = out_s + up - down, outs + 1
    seen_s = max(0.0, past.hours * HOUR_S - out_s)
    return replace(
        rates,
        mtbf_s=(seen_s + rates.mtbf_s) / (fails + 1),
        mttr_s=(out_s + rates.mttr_s) / (outs + 1),
        basis=f"history: {fails} failure{'' if fails == 1 else 's'}"
        f" in {spoken(past.hours * HOUR_S)}",
    )


@dataclass(frozen=True, slots=True)
class Allowance:
    """Time of life that may be used in each period. One that rolls is taken for the calendar's."""

    limit_s: float
    window: Window


@dataclass(frozen=True, slots=True)
class Habits:
    """How one backend lives. `by_hand`: once dead, only a human starts it again."""

    name: str
    rates: Rates
    session_s: float | None = None
    allowances: tuple[Allowance, ...] = ()
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a life: when, why, and how it looks from outside."""

    at: float
    why: End
    way: Way


class Fate:
    """Draws one backend's lives, one after the other; `wall` times are Unix seconds."""

    def __init__(self, habits: Habits, chance: Chance) -> None:
        self.habits = habits
        self._chance = chance
        self._purses = [_Purse(allowance) for allowance in habits.allowances]

    def first_age_s(self) -> float:
        """Say how far its session has run when the play begins: anywhere."""
        return self._chance.random() * 0.95 * (self.habits.session_s or 0.0)

    def death(self, wall: float, age_s: float = 0.0) -> Death:
        """Say how the life that begins (or is `age_s` old) at `wall` ends."""
        rates = self.habits.rates
        ends = [(wall + self._lasting_s(rates.mtbf_s), End.FAILED)]
        if self.habits.session_s is not None:
            ends.append((wall + max(SHORTEST_S, self.habits.session_s - age_s), End.SESSION))
        ends += [(purse.spent_at(wall), End.QUOTA) for purse in self._purses]
        at, why = min(ends)
        for purse in self._purses:
            purse.use(wall, at)
        hangs = why is End.FAILED and self._chance.random() < rates.hangs
        return Death(at, why, Way.HANGS if hangs else Way.REFUSES)

    def back(self, wall: float) -> float:
        """Say when one that comes back by itself, dead since `wall`, does so."""
        return self._allowed_from(wall + self._lasting_s(self.habits.rates.mttr_s))

    def booted(self, wall: float) -> float:
        """Say when one that a human starts at `wall` answers."""
        boot_s = self.habits.rates.boot_s * self._chance.uniform(0.7, 1.3)
        return self._allowed_from(wall) + max(SHORTEST_S, boot_s)

    def started(self, wall: float) -> tuple[float, Death]:
        """Say when one that a machine starts at `wall` is up, and how it ends; `used` notes it."""
        up = wall + max(SHORTEST_S, self.habits.rates.boot_s * self._chance.uniform(0.7, 1.3))
        ends = [(up + self._lasting_s(self.habits.rates.mtbf_s), End.FAILED)]
        if self.habits.session_s is not None:
            ends.append((wall + max(SHORTEST_S, self.habits.session_s), End.SESSION))
        ends += [(purse.spent_at(wall), End.QUOTA) for purse in self._purses]
        at, why = min(ends)
        return up, Death(at, why, Way.REFUSES)

    def used(self, wall: float, until: float) -> None:
        """Note for how long one was on."""
        for purse in self._purses:
            purse.use(wall, until)

    def allowed_from(self, wall: float) -> float:
        """Say from when there is something to live on."""
        return self._allowed_from(wall)

    def _lasting_s(self, mean_s: float) -> float:
        return max(SHORTEST_S, -math.log(1.0 - self._chance.random()) * mean_s)

    def _allowed_from(self, wall: float) -> float:
        return max([wall, *(purse.allowed_from(wall) for purse in self._purses)])


class _Purse:
    """What is used of one allowance."""

    def __init__(self, allowance: Allowance) -> None:
        self._limit_s = allowance.limit_s
        self._window = replace(allowance.window, rolling=False)
        self._used_s: dict[float, float] = {}  # the period's end → what was used in it

    def spent_at(self, wall: float) -> float:
        """Say when it is spent by a life that goes on from `wall`."""
        expires_at = self._window.expires_at
        last = NEVER_S if expires_at is None else max(wall, expires_at)
        for _ in range(2):  # a limit that outlasts a whole period is never spent
            end = counts_until(self._window, wall)
            left_s = max(0.0, self._limit_s - self._used_s.get(end, 0.0))
            if wall + left_s < end:
                return min(wall + left_s, last)
            wall = end
        return last

    def use(self, wall: float, until: float) -> None:
        """Note a life."""
        while wall < until:
            end = counts_until(self._window, wall)
            self._used_s[end] = self._used_s.get(end, 0.0) + min(until, end) - wall
            wall = end

    def allowed_from(self, wall: float) -> float:
        """Say from when there is something to live on."""
        expires_at = self._window.expires_at
        if expires_at is not None and wall >= expires_at:
            return FOREVER
        end = counts_until(self._window, wall)
        spent = self._used_s.get(end, 0.0) >= self._limit_s - SHORTEST_S
        return end if spent else wall


def overruled(
    names: Mapping[str, Habits], mtbf_s: Mapping[str, float], mttr_s: Mapping[str, float]
) -> dict[str, Habits]:
    """Overrule rates by what the operator gave, by name."""
    found = {}
    for name, one in names.items():
        rates = one.rates
        if name in mtbf_s or name in mttr_s:
            rates = replace(
                rates,
                mtbf_s=mtbf_s.get(name, rates.mtbf_s),
                mttr_s=mttr_s.get(name, rates.mttr_s),
                basis="given" if name in mtbf_s and name in mttr_s else f"given, {rates.basis}",
            )
        found[name] = replace(one, rates=rates)
    return found
