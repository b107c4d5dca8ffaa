"""I6, I12 to I14: what is spent by the provider's own count, and what runs there.

I6: no more is used than there is. I12: there are never two launches for one need. I13: nothing of
ours runs there for ten minutes that we know nothing of, or that nobody needs, while it could be
found: its provider is well, and so are we. I14: what others run there is never touched.

**A notebook's hours.** It counts, by the calendar's day, while a run of it is on, whoever started it;
two at once count once, as a session does. aion cannot end a notebook: it can have its agent do so.
So `used ≤ limit + BLOCK_S + unable`, where

- `BLOCK_S`, a quarter of an hour, is one open block: what was set aside and not settled may be off by
  so much, and an agent that is told to stop saves first;
- `unable` is the time after the limit was reached in which it was on and could not be told: while
  the daemon is down, asleep, cut off, not reached from outside or out of disk, while no run that is
  on is the session that was promoted (it registers, its engine does not answer, its token is
  revoked, it is over already and its agent has its 30 seconds), while its agent is dead or not
  heard; and REACHED_S after any of these, for an agent that found nobody tries again after half a
  minute and speaks every quarter of one, late at times; and the time in which our own clock
  says another day than it is, for then another day's hours are spent.

**What a rented machine costs.** Its provider ends it after the `max_run_s` of its start, and that is
what was left then. So `used ≤ limit`, without any allowance but ROUNDING_S for each start, since
`max_run_s` is whole seconds. What an earlier life of ours had started, and a restored database knows
nothing of, is I13's: its time is allowed for. Where the provider does not heed `max_run_s`, only we
can end it: then BLOCK_S is allowed as for a notebook, and the time in which nobody could be told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Protocol

from backends.base import Random
from orchestrator.core.demand import TIERS
from orchestrator.core.meters import ProviderSaid
from orchestrator.core.model import Fleet
from tests.simulation import plans
from tests.simulation.machine import Machine
from tests.simulation.notebooks import Notebook
from tests.simulation.provider import Counter, Figures, Temper, day_of
from tests.simulation.registry import Registry

BLOCK_S = 900.0
REACHED_S = 120.0
ROUNDING_S = 1.0
LEFT_S = 45.0  # as long as for one that is dead
UNNEEDED_S = 600.0
TOLD_EVERY_S = 600.0
HOUR_S = 3600.0


class Judge(Protocol):
    """What of the monitor is asked here."""

    registry: Registry

    def breach(self, invariant: str, what: str) -> None: ...

    def calm_since(self, now: float) -> float | None: ...

    def others(self, service: str, name: str) -> Iterator[str]: ...

    def stably_live(self, name: str) -> bool: ...


class Spending:
    """Watches what is used of the quotas and budgets of one machine."""

    def __init__(self, machine: Machine, judge: Judge) -> None:
        self._m, self._judge = machine, judge
        self.counters: dict[str, Counter] = {}
        self.figures: dict[str, Figures] = {}
        self._last = 0.0
        self._unable: dict[tuple[str, int], float] = defaultdict(float)
        self._hindered_at = 0.0
        self._hindered: dict[int, float] = {}
        self._spent_since: dict[str, float] = {}
        self._unneeded: dict[str, float] = {}
        self._unknown: dict[str, float] = {}
        self._ill_at = float("-inf")
        self._unended = 0.0  # for how long nobody could end what ran on after the limit
        self._told: set[str] = set()
        self.spent = 0  # times that the daemon said so

    def begin(self, random: Random, behind_s: float = 0.0) -> None:
        """Have the providers say from now on what they count.

        `behind_s`: the books of the one who rents machines out are so slow.
        """
        for key, spec in self._m.config.fleet.meters.items():
            if spec.backend is None or spec.rate_per_hour is None:
                continue
            self.counters[key] = counter = Counter(daily=spec.backend != plans.RENTED)
            late_s = behind_s if spec.backend == plans.RENTED else 0.0
            self.figures[key] = Figures(counter, random, late_s)
            self._m.time.after(TOLD_EVERY_S * random.random(), partial(self._tell, key, random))

    def _tell(self, key: str, random: Random) -> None:
        wait_s = TOLD_EVERY_S * (0.2 + 1.6 * random.random())
        self._m.time.after(wait_s, partial(self._tell, key, random))
        figure = self.figures[key].said(self._m.time.true)
        self._m.trace.mark(f"{key}: {figure:.4f}")
        self._m.report(ProviderSaid(key, figure))

    # ── every few seconds, whether the daemon is up or not ──────────────────────────────────────

    def look(self) -> None:
        """Count on, and judge."""
        now, since = self._m.time.true, self._last
        self._last = now
        self._note_hindrances(now)
        for key, counter in self.counters.items():
            name = key.partition(":")[0]
            if name == plans.RENTED:
                counter.used[0] = plans.PER_HOUR_USD * self._m.cloud.used_s() / HOUR_S
            else:
                self._count(key, name, counter, now, now - since)
            counter.note(now)
        if plans.RENTED in self._m.world.places:
            self._judge_spent(now, now - since)
            self._judge_rented(now)

    def awake(self) -> None:
        """Judge what the daemon, which is up, shows."""
        now = self._m.time.true
        for service in self._fleet().config.services:
            self._judge_serving(service, now)

    # ── a notebook's hours ──────────────────────────────────────────────────────────────────────

    def _note_hindrances(self, now: float) -> None:
        m = self._m
        lost = m.world.network_lost or m.world.deaf or m.disk.full
        if lost or m.up_since is None or now < m.asleep_until:
            self._hindered_at = now
        human = self._judge.registry.human
        for run in human.runs if human is not None else ():
            if run.ended is None and not self._heard(run):
                self._hindered[run.number] = now

    def _heard(self, run: Notebook) -> bool:
        """Say whether its agent could be told to stop now."""
        if run.lost or run.agent_died_at is not None or run.leaving or self._m.up_since is None:
            return False
        return self._judge.registry.serving(run.name) is run

    def _able(self, run: Notebook, now: float) -> bool:
        since = max(self._hindered_at, self._hindered.get(run.number, run.began), run.began)
        return now - since > REACHED_S and self._same_day(now)

    def _same_day(self, now: float) -> bool:
        """Say whether our own clock says the day that it is."""
        return day_of(now + self._m.time.wall_error) == day_of(now)

    def _count(self, key: str, name: str, counter: Counter, now: float, passed_s: float) -> None:
        human = self._judge.registry.human
        runs = human.running(name) if human is not None else []
        if not runs:
            return
        window, limit = counter.window(now), self._m.config.fleet.meters[key].limit or 0.0
        counter.used[window] += passed_s / HOUR_S
        over_s = (counter.used[window] - limit) * HOUR_S
        if over_s <= 0:
            return
        if not any(self._able(run, now) for run in runs):
            self._unable[key, window] += passed_s
        allowed_s = BLOCK_S + self._unable[key, window]
        if over_s > allowed_s:
            self._once(
                f"{key} {window}",
                "I6",
                f"{key}: used for {over_s:.0f} s more than there is, {allowed_s:.0f} s allowed",
            )

    # ── what is rented ──────────────────────────────────────────────────────────────────────────

    def _judge_spent(self, now: float, passed_s: float) -> None:
        cloud, key = self._m.cloud, f"{plans.RENTED}:usd"
        limit_s = (self._m.config.fleet.meters[key].limit or 0.0) / plans.PER_HOUR_USD * HOUR_S
        allowed_s = ROUNDING_S * len(cloud.machines) + cloud.used_s(orphans=True)
        over_s = cloud.used_s() - limit_s - allowed_s
        if over_s <= 0:
            return
        if not cloud.heeds:
            able = now - max(self._hindered_at, cloud.ill_until) > REACHED_S
            if not able or self._away(now):
                self._unended += passed_s
            over_s -= BLOCK_S + self._unended
        if over_s > 0:
            self._once("over", "I6", f"{key}: on for {over_s:.0f} s after its budget was spent")

    def _away(self, now: float) -> bool:
        """Say whether the provider could not be told anything just now."""
        m = self._m
        well = m.cloud.temper is Temper.WELL and not m.world.cut_off(plans.RENTED_FROM)
        if not well:
            self._ill_at = now
        return now - self._ill_at < REACHED_S

    def _judge_rented(self, now: float) -> None:
        cloud = self._m.cloud
        running = [one for one in cloud.running if not one.going]
        launched = [one.label for one in running if not one.orphan]
        if len(launched) > 1:
            labels = ", ".join(launched)
            self._once(labels, "I12", f"two launches for one need: {labels}")
        for label in cloud.touched:
            self._once(label, "I14", f"{label} is somebody else's and was stopped")
        findable, known = self._findable(now), self._known()
        for one in running:
            unknown_s = now - self._unknown.setdefault(one.label, now)
            if not findable or one.label == known:
                self._unknown[one.label] = now
            elif unknown_s > UNNEEDED_S:
                what = f"{one.label} runs and we know nothing of it, {unknown_s:.0f} s"
                self._once(f"unknown {one.label}", "I13", what)
            idle_s = now - self._unneeded.setdefault(one.label, now)
            if not findable or self._needed():
                self._unneeded[one.label] = now
            elif idle_s > UNNEEDED_S:
                self._once(
                    one.label, "I13", f"{one.label} runs and nobody needs it, {idle_s:.0f} s"
                )

    def _findable(self, now: float) -> bool:
        """Say whether whatever runs could be found and ended: we are well, and so is its provider."""
        m = self._m
        calm_since = self._judge.calm_since(now) if m.up_since is not None else None
        if calm_since is None or now < m.asleep_until or self._away(now):
            return False
        return min(now - calm_since, now - m.cloud.ill_until) >= REACHED_S

    def _known(self) -> str:
        """Give the label of the launch that the daemon counts as running."""
        power = self._fleet().backends[plans.RENTED].power if self._m.up_since is not None else None
        return "" if power is None else power.launch

    def _needed(self) -> bool:
        """Say whether what is rented has work."""
        fleet = self._fleet()
        return any(
            self._wanted(fleet, service)
            for service, spec in fleet.config.services.items()
            if plans.RENTED in spec.backends
        )

    def _wanted(self, fleet: Fleet, service: str) -> bool:
        name, state = plans.RENTED, fleet.services[service]
        turn, plan = state.rotation, state.planned
        if name == state.active or (state.pin is not None and state.pin.backend == name):
            return True
        if (turn is not None and name in (turn.old, turn.new)) or plan is not None:
            return True
        tiers = {one: TIERS.index(spec.tier) for one, spec in fleet.config.backends.items()}
        return not any(
            tiers[one] <= tiers[name]
            and self._judge.stably_live(one)
            and self._judge.registry.lasting(one)
            for one in self._judge.others(service, name)
        )

    # ── whoever is spent ────────────────────────────────────────────────────────────────────────

    def _judge_serving(self, service: str, now: float) -> None:
        fleet = self._fleet()
        state = fleet.services[service]
        until = fleet.backends[state.active].exhausted_until if state.active is not None else None
        hard = state.pin is not None and state.pin.hard
        calm_since = self._judge.calm_since(now)
        if until is None or until <= self._m.steady() or hard or calm_since is None:
            self._spent_since.pop(service, None)
            return
        assert state.active is not None
        since = self._spent_since.setdefault(service, now)
        able = any(
            self._judge.stably_live(one) for one in self._judge.others(service, state.active)
        )
        if able and now - max(since, calm_since) > LEFT_S:
            spent_s = now - since
            self._once(
                f"{service} {state.epoch}",
                "I6",
                f"{service}: {state.active} is spent and serves, {spent_s:.0f} s",
            )

    # ── small ───────────────────────────────────────────────────────────────────────────────────

    def _once(self, key: str, promise: str, what: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._judge.breach(promise, what)

    def _fleet(self) -> Fleet:
        assert self._m.assembly is not None
        return self._m.assembly.loop.fleet
