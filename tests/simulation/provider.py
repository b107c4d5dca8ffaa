"""What providers truly have running, what they truly count of it, and what they say of both.

A rented machine is started and stopped by the programs of the kind `command`: it queues, boots, is
taken away, and is ended by its provider after `max_run_s`, where that is heeded. Programs fail,
hang, and carry out what nobody hears of. Machines of ours turn up that nobody knows of any more, and
somebody else's run in the same account. Figures of what is used lag, jump back and disagree.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter as Tally
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backends.base import Ended, Random
from orchestrator.errors import ChildTimedOut
from tests.simulation import plans
from tests.simulation.virtual import EPOCH
from tests.simulation.world import World

DAY_S = 86400.0
UNLISTED_S = 20.0  # for which a provider's list may not have what it took
STOPS_S = 20.0  # the longest that going off takes
NEVER_UP_S = math.inf
OLDEST_S = 2700.0  # what a provider says is never older than this …
SLOW_S = 24 * 3600.0  # … but where its books are slow: then it is always as old
PLACES = ("a", "b", "c")  # where it has machines; asked in this order
LONG_QUEUE = 0.2  # of starts that wait for 5 to 40 minutes
THEIRS = "aion-other-gpu-"  # what another orchestrator calls its machines in the same account
BUSY_AGAIN_S = 240.0  # the longest for which it asks to be left alone


class Temper(StrEnum):
    """How a provider is."""

    WELL = "well"
    DOWN = "down"  # it says that it could not
    HANGS = "hangs"  # nothing is done, and nobody knows
    LOSES_ANSWERS = "loses answers"  # it is done, and nobody knows
    FULL = "full"
    DENIES = "denies"
    SPENT = "spent"
    BUSY = "busy"  # 429, whatever it is asked
    EXPIRED = "expired"  # our key: nothing can be asked


REFUSALS = {Temper.DOWN: 75, Temper.FULL: 69, Temper.DENIES: 77, Temper.SPENT: 73}
ALWAYS = {Temper.DOWN: 75, Temper.BUSY: 75, Temper.EXPIRED: 77}  # to whatever it is asked


@dataclass
class Rented:
    """One machine, as it truly is. Times are true; `on_at`: it counts from then, None: it waits.

    `orphan`: it was not started by this daemon's database, but by what a later one knew.
    """

    label: str
    asked_at: float
    on_at: float | None = None
    up: bool = False
    off_at: float | None = None
    going: bool = False
    orphan: bool = False

    @property
    def ours(self) -> bool:
        """Whether its label is one of ours."""
        return not self.label.startswith(THEIRS)


class Cloud:
    """The provider of the one backend that is rented.

    `machines`: all that ever were, `theirs` included; `unlucky`: machines come up late or never, or
    wait in a queue, or there is none. `sold_out` by place: the hours of the day (from, for how many)
    in which that is so. `lists_all`: it shows others' too where ours are asked for. `seen`: what
    happened how often.
    """

    def __init__(self, world: World) -> None:
        self.world, self.time, self.trace = world, world.time, world.trace
        self.machines: list[Rented] = []
        self.temper = Temper.WELL
        self.ill_until = 0.0
        self.unlucky = False
        self.heeds = self.limits = True  # it is said to end what it was told to; it does
        self.lists_all = False
        self.sold_out: dict[str, tuple[float, float]] = {}
        self.touched: list[str] = []  # machines of others that we stopped
        self.seen: Tally[str] = Tally()

    @property
    def running(self) -> list[Rented]:
        """What of ours is not off, oldest first."""
        return [one for one in self.machines if one.off_at is None and one.ours]

    @property
    def theirs(self) -> list[Rented]:
        """What of others is not off."""
        return [one for one in self.machines if one.off_at is None and not one.ours]

    def become(self, temper: Temper) -> None:
        """Change how it is."""
        self.trace.tell("world", f"the provider: {temper}")
        self.temper, self.ill_until = temper, self.time.true

    def used_s(self, *, orphans: bool = False) -> float:
        """Add up for how long machines of ours were on, or orphans only; two at once cost twice."""
        now, total = self.time.true, 0.0
        for one in self.machines:
            if one.on_at is not None and one.ours and (one.orphan or not orphans):
                total += (one.off_at or now) - one.on_at
        return total

    def place(self) -> str | None:
        """Name the first place that has a machine now."""
        if not self.unlucky:
            return PLACES[0]
        hour = (EPOCH + self.time.true) % DAY_S / 3600.0
        for place in PLACES:
            begins, lasts = self.sold_out.get(place, (0.0, 0.0))
            if (hour - begins) % 24.0 >= lasts:
                return place
        return None

    def turn_up(self, label: str, *, lasts_s: float) -> None:
        """Have a machine run that nobody here started: an earlier one of ours, or somebody else's."""
        one = Rented(label, self.time.true - UNLISTED_S, self.time.true, up=True, orphan=True)
        self.machines.append(one)
        self.trace.tell("provider", f"{label} runs")
        self.time.after(lasts_s, lambda: self.end(one, "its time is over"))
        self._judge()

    # ── what it does ────────────────────────────────────────────────────────────────────────────

    def start(self, label: str, max_run_s: float) -> None:
        """Take a start: it queues, is switched on, boots, and ends by itself in due time."""
        if any(one.label == label for one in self.running):
            return
        random = self.world.random
        one = Rented(label, self.time.true)
        self.machines.append(one)
        self.trace.tell("provider", f"{label} is to run for {max_run_s:.0f} s")
        queue_s = 300.0 * random.random() ** 3 if self.unlucky else 1.0
        boot_s = 20.0 + 100.0 * random.random()
        if self.unlucky and random.random() < LONG_QUEUE:
            queue_s = 300.0 + 2100.0 * random.random()
            self.seen["waited long"] += 1
        if self.unlucky and random.random() < 0.1:
            boot_s = NEVER_UP_S
            self.seen["never came up"] += 1

        def on() -> None:
            if one.off_at is None and not one.going:
                one.on_at = self.time.true
                if max_run_s and self.limits:
                    self.time.after(max_run_s, lambda: self.end(one, "its time is over"))
                if boot_s < NEVER_UP_S:
                    self.time.after(boot_s, lambda: self._up(one))

        self.time.after(queue_s, on)

    def _up(self, one: Rented) -> None:
        if one.off_at is None and not one.going:
            one.up = True
            self.trace.tell("provider", f"{one.label} is up")
            self._judge()

    def stop(self, label: str) -> None:
        """Have what runs under that label go off; "": all."""
        for one in (*self.running, *self.theirs):
            if label in ("", one.label) and not one.going:
                if not one.ours:
                    self.touched.append(one.label)
                one.going, one.up = True, False
                self._judge()
                after_s = STOPS_S * self.world.random.random()
                self.time.after(after_s, lambda one=one: self.end(one, "it was stopped"))

    def end(self, one: Rented, why: str) -> None:
        """Have a machine be off."""
        if one.off_at is None:
            self.trace.tell("provider", f"{one.label} is off: {why}")
            one.off_at, one.up = self.time.true, False
            self._judge()

    def _judge(self) -> None:
        self.world.places[plans.RENTED].gone = not any(one.up for one in self.running)
        self.world.judge()

    def said(self) -> tuple[int, dict[str, str]]:
        """Say how it is: the exit status of `status`, and its last line."""
        late = UNLISTED_S if self.unlucky else 0.0
        shown = self.running or (self.theirs if self.lists_all else [])
        seen = [one for one in shown if self.time.true - one.asked_at >= late]
        if not seen:
            return 3, {}
        self.seen["showed another's"] += not seen[-1].ours
        one = seen[-1]
        status = 5 if one.going else 4 if one.on_at is None else 0
        return status, {"launch": one.label}


class Programs:
    """The port that runs the provider's programs, of one life of the daemon."""

    def __init__(
        self, cloud: Cloud, cut_off: Callable[[], bool], boundary: Callable[[str], None]
    ) -> None:
        self._cloud, self._cut_off, self._boundary = cloud, cut_off, boundary

    async def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str, timeout_s: float
    ) -> Ended:
        cloud = self._cloud
        self._boundary("provider")
        cloud.trace.mark(f"provider: {' '.join(argv)}")
        await asyncio.sleep(0.1 + 0.9 * cloud.world.random.random())
        temper = cloud.temper
        if self._cut_off() or temper is Temper.HANGS:
            cloud.seen[f"{argv[1]} not done and not answered"] += 1
            await self._hang(timeout_s)
        status, said = self._done(argv, temper)
        self._boundary("provider did")
        if temper is Temper.LOSES_ANSWERS and argv[1] != "status":
            cloud.seen[f"{argv[1]} done and not answered"] += 1
            await self._hang(timeout_s)
        return Ended(status, json.dumps(said))

    def _done(self, argv: Sequence[str], temper: Temper) -> tuple[int, dict[str, Any]]:
        cloud, verb = self._cloud, argv[1]
        if temper in ALWAYS or (verb == "start" and temper in REFUSALS):
            cloud.seen[f"{verb} refused: {temper}"] += 1
            wait_s = BUSY_AGAIN_S * cloud.world.random.random()
            said = {"problem": "transient", "retry_after_s": wait_s}
            refusal = {**REFUSALS, **ALWAYS}[temper]
            return (refusal, said) if temper is Temper.BUSY else (refusal, {})
        if verb == "status":
            return cloud.said()
        if verb == "start" and cloud.place() is None:
            cloud.seen["sold out everywhere"] += 1
            return REFUSALS[Temper.FULL], {}
        if verb == "start":
            cloud.seen["sold out in one place"] += cloud.place() != PLACES[0]
            cloud.start(argv[2], float(argv[3]))
        else:
            cloud.stop(argv[2])
        return 0, {}

    async def _hang(self, timeout_s: float) -> None:
        await asyncio.sleep(max(0.0, timeout_s - 1.0))
        raise ChildTimedOut(f"it took longer than {timeout_s:g} s")


def day_of(true: float) -> int:
    """Number the day, as the calendar has it, that a true time is in."""
    return int((EPOCH + true) // DAY_S)


class Counter:
    """What a provider counts of one meter: `used` by day, 0 for all time, and what it was lately."""

    def __init__(self, *, daily: bool) -> None:
        self.used: dict[int, float] = defaultdict(float)
        self._daily = daily
        self._lately: deque[tuple[float, float]] = deque(maxlen=int(SLOW_S / 60))

    def window(self, true: float) -> int:
        """Number the period around that time."""
        return day_of(true) if self._daily else 0

    def now(self, true: float) -> float:
        """Say what is used of the period around that time."""
        return self.used[self.window(true)]

    def note(self, true: float) -> None:
        """Remember how much it is now."""
        if not self._lately or true - self._lately[-1][0] >= 60.0:
            self._lately.append((true, self.now(true)))

    def before(self, true: float) -> float:
        """Say what it was at an earlier time, or as early as is remembered."""
        window = self.window(self._lately[-1][0]) if self._lately else 0
        seen = (figure for at, figure in self._lately if at >= true and self.window(at) == window)
        return next(seen, self.now(true))


class Figures:
    """What a provider says of one meter, from time to time. It is wrong for less than an hour.

    `behind_s`: unless its books are slow: then it always says how it was so long ago.
    """

    def __init__(self, counter: Counter, random: Random, behind_s: float = 0.0) -> None:
        self.behind_s = behind_s
        self._counter, self._random = counter, random
        self._wrong: Callable[[float, float], float] | None = None
        self._wrong_until = 0.0
        self._true_said = True
        self.told = self.low = self.high = 0

    def said(self, true: float) -> float:
        """Give the next figure."""
        exact = self._counter.now(true)
        if self.behind_s:
            behind = self._counter.before(true - self.behind_s)
            self.told += 1
            self.low += behind < exact - 1e-9
            return behind
        if true >= self._wrong_until:
            if self._wrong is not None:  # between two errors it says once how it is
                self._wrong = None
                return exact
            if self._random.random() < 0.3:
                self._wrong = self._error()
                self._wrong_until = true + OLDEST_S * self._random.random()
        figure = exact if self._wrong is None else max(0.0, self._wrong(true, exact))
        self.told += 1
        self.low += figure < exact - 1e-9
        self.high += figure > exact + 1e-9
        return figure

    def _error(self) -> Callable[[float, float], float]:
        kind, share = int(5 * self._random.random()), self._random.random()
        if kind == 0:
            return lambda true, _: self._counter.before(true - OLDEST_S * share)  # it lags
        if kind == 1:
            return lambda _, exact: exact * share  # it jumps back
        if kind == 2:
            return lambda _, exact: exact + 0.2 * share  # it counts more than it will
        if kind == 3:
            return lambda _, exact: exact * (0.98 + 0.04 * share)  # it is wrong by a little
        return lambda _, __: 0.0
