"""Filling the hours of one tier: who is started for them, by a machine or by a human, and when.

Time goes forward, as it will: at the first hour that nobody covers the best one that can be up by
then is started. A machine's next run begins when the one before it is over, so it leaves a hole as
long as its boot. A human's may begin while the old one lasts, for a new session supersedes the old
one only once it has proved itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.core.coverage import Cover, Means
from orchestrator.core.purses import Purses
from orchestrator.core.spans import Span, joined, total_s, without

WORTH_A_BOOT_S = 600.0  # nothing that runs out is started for less than this …
WORTH_A_HUMAN_S = 900.0  # … and nobody is asked to start something for a shorter gap
MOST_RUNS = 400  # of one backend in one plan
ENDS, SPENT = "its session ends", "what it may use is spent"
HOURS_OVER = "its hours are over"
UNNEEDED, SUPERSEDED = "it is not needed any more", "a new session takes over"


@dataclass(frozen=True, slots=True)
class Run:
    """One life of a backend, in Unix time.

    `asked_at`: when it has to be started, None for one that goes on already; `needed_at`: for the
    hours from then on. `why_over`: why it does not last longer.
    """

    backend: str
    up_at: float
    ends_at: float
    asked_at: float | None = None
    by_hand: bool = False
    why_over: str = ""
    needed_at: float = 0.0

    @property
    def began(self) -> float:
        """When it is on from, whether it answers yet or not."""
        return self.up_at if self.asked_at is None else self.asked_at


@dataclass(slots=True, eq=False)
class Starter:
    """One backend while a plan is made: its runs so far, and the next one it could offer.

    `ups`: when a human can have it up, somebody being awake. `lead_s`: how long before it is needed
    it should be up.
    """

    cover: Cover
    purses: Purses
    lead_s: float
    ups: list[Span] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def by_hand(self) -> bool:
        return self.cover.means is Means.HUMAN

    def goes_on(self) -> None:
        """Take the run that goes on already, and what it uses until its end."""
        if self.cover.there is None:
            return
        begins, until = self.cover.there
        ends = self.purses.lasts(self.cover.draws, begins, until)
        if ends > begins:
            why = ENDS if ends >= until else SPENT
            self.runs.append(Run(self.cover.backend, begins, ends, why_over=why))
            self.purses.take(self.cover.draws, begins, ends)

    def keeps_hours(self) -> None:
        """Take the runs of the hours in which it should be on, whoever needs it."""
        cover = self.cover
        for begins, until in cover.hours:
            at = max(begins, cover.free_at, self.runs[-1].ends_at if self.runs else 0.0)
            while until - at > cover.takes_s and len(self.runs) < MOST_RUNS:
                run = self._by_machine(at, until, at_once=True)
                if run is None:
                    break
                why = HOURS_OVER if run.why_over == UNNEEDED else run.why_over
                self.accept(replace(run, why_over=why))
                at = run.ends_at

    def offer(self, at: float, ends: float) -> Run | None:
        """Say which run could cover `at`, or what comes soonest after it; None: none can."""
        if len(self.runs) >= MOST_RUNS or self.cover.means is Means.NOBODY:
            return None
        if self.by_hand:
            return self._by_hand(at, ends) if ends - at >= WORTH_A_HUMAN_S else None
        return self._kept(at, ends) or self._by_machine(at, ends)

    def accept(self, run: Run) -> None:
        """Do what was offered."""
        draws = self.cover.draws
        kept = self._shorter(run)
        if kept is not None:
            self.purses.take(draws, self.runs[kept].ends_at, run.ends_at)
            self.runs[kept] = run
            self._joined(run)
            return
        last = self.runs[-1] if self.by_hand and self.runs else None
        if last is not None and run.up_at < last.ends_at:
            self.purses.give(draws, run.up_at, last.ends_at)
            self.runs[-1] = replace(last, ends_at=run.up_at, why_over=SUPERSEDED)
        begins = run.up_at if self.by_hand or run.asked_at is None else run.asked_at
        self.purses.take(draws, begins, run.ends_at)
        self.runs.append(run)
        if self.cover.hours:
            self.runs.sort(key=lambda one: one.up_at)
        self._joined(run)

    def _shorter(self, run: Run) -> int | None:
        """Find the place of the run that this one is a longer form of."""
        first = 0 if self.cover.hours else max(0, len(self.runs) - 1)
        same = (at for at in range(first, len(self.runs)) if self.runs[at].up_at == run.up_at)
        return next(same, None)

    def _joined(self, run: Run) -> None:
        """Let one that goes on until its hours begin go on in them: it boots no more."""
        for number, one in enumerate(self.runs if self.cover.hours else ()):
            if one.asked_at == run.ends_at:
                self.runs[number] = replace(one, up_at=run.ends_at)

    # ── by machine ──────────────────────────────────────────────────────────────────────────────

    def _kept(self, at: float, ends: float) -> Run | None:
        """Keep the last run for a gap that comes so soon that stopping it would not pay."""
        last, ends = self._before(at), self._free_until(at, ends)
        if last is None or last.asked_at is None:
            return None
        idle_s = at - last.ends_at
        if not 0.0 <= idle_s <= self.lead_s + self.cover.takes_s + WORTH_A_BOOT_S:
            return None
        until = self._until(last.asked_at, last.ends_at, ends)
        if until <= at:
            return None
        return replace(last, ends_at=until, why_over=self._why(last.asked_at, until, ends))

    def _before(self, at: float) -> Run | None:
        """Give its last run that has begun by then; without hours of its own that is its last."""
        if not self.cover.hours:
            return self.runs[-1] if self.runs else None
        return next((one for one in reversed(self.runs) if one.began <= at), None)

    def _free_until(self, at: float, ends: float) -> float:
        """Say until when it is not yet on by its hours anyway."""
        if not self.cover.hours:
            return ends
        return min([ends, *(one.began for one in self.runs if one.began > at)])

    def _by_machine(self, at: float, ends: float, *, at_once: bool = False) -> Run | None:
        cover, last = self.cover, self._before(at)
        ends = min(ends, self._free_until(at, ends))
        is_on = cover.warm and last is None and (at <= cover.free_at or not at_once)
        takes_s = 0.0 if is_on else cover.takes_s
        earliest = cover.free_at if last is None else max(last.ends_at, cover.free_at)
        asked = earliest if at_once else at - self.lead_s - takes_s
        asked = max(earliest, asked, at if at_once else 0.0)
        asked = self.purses.some_from(cover.draws, asked, takes_s + WORTH_A_BOOT_S)
        if asked + takes_s >= ends:
            return None
        until = self._until(asked, asked, ends)
        if until <= max(at, asked + takes_s):
            return None
        why = self._why(asked, until, ends)
        return Run(cover.backend, asked + takes_s, until, asked, why_over=why, needed_at=at)

    def _until(self, began: float, at: float, ends: float) -> float:
        lasts_s = self.cover.lasts_s
        until = ends if lasts_s is None else min(ends, began + lasts_s)
        return self.purses.lasts(self.cover.draws, at, until)

    def _why(self, began: float, until: float, ends: float) -> str:
        if until >= ends:
            return UNNEEDED
        over = self.cover.lasts_s is not None and until >= began + self.cover.lasts_s
        return ENDS if over else SPENT

    # ── by hand ─────────────────────────────────────────────────────────────────────────────────

    def _by_hand(self, at: float, ends: float) -> Run | None:
        """Offer to ask as late as is early enough; before bed, where the gap is in the night."""
        before = [min(e, max(b, at - self.lead_s)) for b, e in self.ups if b <= at]
        after = [b for b, _ in self.ups if at < b < ends]
        for up in (*before[-1:], *after):
            run = self._run_from(up, at)
            if run is not None:
                return run
        return None

    def _run_from(self, up: float, at: float) -> Run | None:
        last, draws = (self.runs[-1] if self.runs else None), self.cover.draws
        if last is not None and up <= last.up_at:
            return None
        again = last.ends_at if last is not None and up < last.ends_at else up
        self.purses.give(draws, up, again)
        until = self._until(up, up, math.inf)
        self.purses.take(draws, up, again)
        if until <= max(at, up):
            return None
        asked = up - self.cover.takes_s
        why = self._why(up, until, math.inf)
        return Run(
            self.cover.backend, up, until, asked, by_hand=True, why_over=why, needed_at=max(at, up)
        )


def up_moments(cover: Cover, awake: Sequence[Span]) -> list[Span]:
    """List when a human can have it up: asked for, and if possible up, within operator hours."""
    first = cover.free_at + cover.takes_s
    spans = ((b + cover.takes_s, max(e, b + cover.takes_s + 1.0)) for b, e in awake)
    return joined((max(b, first), e) for b, e in spans)


def reach(starters: Iterable[Starter]) -> list[Span]:
    """List what a human could cover with these at all, however often they are asked for."""
    found: list[Span] = []
    for one in starters:
        lasts_s = math.inf if one.cover.lasts_s is None else one.cover.lasts_s
        if one.by_hand:
            found += [(begins, ends + lasts_s) for begins, ends in one.ups]
    return joined(found)


def fill(pools: Sequence[tuple[list[Span], Sequence[Starter]]]) -> None:
    """Start whatever is needed. Each pool: the gaps of a service, and who could fill them, in turn.

    The gaps are cut down as they are filled.
    """
    todo = [list(gaps) for gaps, _ in pools]
    reached = [reach(starters) for _, starters in pools]
    while any(todo):
        which = min((at for at, gaps in enumerate(todo) if gaps), key=lambda at: todo[at][0])
        begins, ends = todo[which][0]
        starter, run = _best(pools[which][1], reached[which], begins, ends)
        if starter is None or run is None:
            todo[which] = todo[which][1:]
            continue
        if run.up_at > begins:  # till then nobody of this tier
            todo[which] = without(todo[which], [(begins, min(run.up_at, ends))])
        starter.accept(run)
        span = [(run.up_at, run.ends_at)]
        for at, (gaps, starters) in enumerate(pools):
            if starter in starters:
                gaps[:] = without(gaps, span)
                todo[at] = without(todo[at], span)


def _best(
    starters: Sequence[Starter], reached: Sequence[Span], at: float, ends: float
) -> tuple[Starter | None, Run | None]:
    """Pick the first in turn that is up in time, else the one that is up soonest.

    For the minutes that a machine takes to start again no human is asked. One that a machine starts
    waits for the hours in which no human can help, if it would run out before those; `reached` are
    the others.
    """
    offers = [(one, run) for one in starters if (run := one.offer(at, ends)) is not None]
    prompt = [(one, run) for one, run in offers if run.up_at <= at + WORTH_A_HUMAN_S]
    hands = [(one, run) for one, run in prompt if one.by_hand]
    for one, run in prompt:
        if one.by_hand or not hands or not _scarce(one, run, reached, at):
            return one, run
    if prompt:
        return hands[0]
    return min(offers, key=lambda offer: offer[1].up_at, default=(None, None))


def _scarce(one: Starter, run: Run, reached: Sequence[Span], at: float) -> bool:
    """Say whether after this run too little is left for the hours that no human can cover."""
    over = one.purses.over(one.cover.draws, at)
    if over is None:
        return False
    period_ends, left_s = over
    alone_s = total_s(without([(min(run.ends_at, period_ends), period_ends)], reached))
    began = run.up_at if run.asked_at is None else run.asked_at
    return left_s - (run.ends_at - began) < alone_s
