"""The human: when awake, and how soon what aion asks for is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import time, tzinfo

from orchestrator.core.quiet import Window, quiet_until
from orchestrator.outlook.scene import Chance

ANSWER_S = 15 * 60.0  # half of all requests are answered within this, awake
LEISURE_S = 3 * 3600.0  # … and half of what is only told, since something else serves
USUAL_SLEEP: Window = (time(23), time(8))
GETTING_UP_S = 30 * 60.0  # what waited for the morning is done within this


@dataclass(frozen=True, slots=True)
class Person:
    """Who restarts what only a human can. `sleep`: from and to, by the clock of `zone`; or never.

    `basis` says where the hours come from.
    """

    sleep: Window | None
    zone: tzinfo
    basis: str = ""

    def wakes_at(self, wall: float) -> float | None:
        """Say when the sleep around `wall` ends, in Unix seconds; None: awake."""
        return quiet_until(wall, self.sleep, self.zone)

    def asleep(self, clock: time) -> bool:
        """Say whether this is asleep at that time of the day."""
        if self.sleep is None:
            return False
        start, end = self.sleep
        if start < end:
            return start <= clock < end
        return clock >= start or clock < end

    def answers_at(self, wall: float, chance: Chance, *, median_s: float = ANSWER_S) -> float:
        """Say when something asked for at `wall` is done.

        The delay is exponential and runs while awake; what is not done by bedtime is done in the
        morning.
        """
        start = self.wakes_at(wall) or wall
        done = start - math.log(1.0 - chance.random()) * median_s / math.log(2.0)
        morning = self.wakes_at(done)
        return done if morning is None else morning + chance.uniform(0.0, GETTING_UP_S)


def person(operator: Window | None, quiet: Window | None, zone: tzinfo) -> Person:
    """Make the human of a configuration: asleep outside `operator` hours, else in `quiet` hours."""
    if operator is not None:
        return Person((operator[1], operator[0]), zone, "alerts.operator_hours")
    if quiet is not None:
        return Person(quiet, zone, "alerts.quiet_hours")
    return Person(USUAL_SLEEP, zone, "assumed: asleep 23:00-08:00")
