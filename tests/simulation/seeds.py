"""Many seeds, each in its turn or two at a time, and what they came to."""

from __future__ import annotations

import gc
import multiprocessing
import time  # noqa: TID251 - how long a real run took
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.run import Result, simulate
from tests.simulation.trace import clock

TWICE_EVERY = 20


def played(order: tuple[int, float, int | None]) -> tuple[Result, float]:
    """Run one seed, twice if its number says so; returns it and the processor seconds it took."""
    seed, days, backends = order
    gc.freeze()  # what was imported stays; a seed's own rubbish is little
    gc.set_threshold(20_000, 20, 50)
    began = time.process_time()
    result = simulate(seed, days, backends=backends)
    took_s = time.process_time() - began
    if seed % TWICE_EVERY == 0:
        again = simulate(seed, days, backends=backends)
        result.same = again.digest == result.digest
    return result, took_s


def results(
    seeds: range, days: float, backends: int | None, jobs: int
) -> Iterator[tuple[Result, float]]:
    """Run the seeds, `jobs` at a time; gives them in order."""
    orders = [(seed, days, backends) for seed in seeds]
    if jobs == 1:
        yield from map(played, orders)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        # What is run twice begins first, or one processor waits for another at the end.
        begun = sorted(orders, key=lambda order: order[0] % TWICE_EVERY != 0)
        futures = {order: pool.submit(played, order) for order in begun}
        for order in orders:
            yield futures.pop(order).result()


def replay(result: Result, backends: int | None) -> str:
    """Say how to play this seed again."""
    more = f" --backends {backends}" if backends else ""
    days = f"{result.seconds / 86400:g}"
    return f"python -m tests.simulation --first {result.seed} --seeds 1 --days {days}{more} --story"


def told(result: Result, backends: int | None) -> str:
    """Tell of a seed in which a promise was broken."""
    lines = [f"seed {result.seed}: {len(result.breaches)} breaches"]
    lines += [f"  {b.invariant} at {clock(b.at)}: {b.what}" for b in result.breaches[:10]]
    if not result.same:
        lines.append("  the second run gave another trace")
    if result.story:
        lines += ["what led to the first:", result.story]
    return "\n".join([*lines, f"again: {replay(result, backends)}"])


class Summary:
    """What all seeds came to."""

    def __init__(self) -> None:
        self.seeds = self.lives = self.checks = self.requests = self.notices = self.writes = 0
        self.sessions = self.launches = self.spent = self.misled = 0
        self.twice = self.broken = 0
        self.virtual_s = self.cpu_s = 0.0
        self.moves: Counter[str] = Counter()
        self.breaches: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.provider: Counter[str] = Counter()

    def add(self, result: Result, took_s: float) -> None:
        """Count one seed."""
        self.seeds += 1
        self.lives += result.lives
        self.sessions += result.sessions
        self.launches += result.launches
        self.spent += result.spent
        self.misled += result.misled
        self.checks += result.checks
        self.requests += result.requests
        self.notices += result.notices
        self.writes += result.writes
        self.twice += result.seed % TWICE_EVERY == 0
        self.virtual_s += result.seconds
        self.cpu_s += took_s
        self.moves.update(result.moves)
        self.breaches.update(breach.invariant for breach in result.breaches)
        self.struck.update(result.struck)
        self.provider.update(result.provider)
        self.broken += bool(result.breaches or not result.same)

    def text(self, wall_s: float) -> str:
        """Lay it out."""
        days, speed = self.virtual_s / 86400, self.virtual_s / max(self.cpu_s, 1e-9)
        struck = ", ".join(f"{name} {count:,}" for name, count in self.struck.most_common())
        provider = ", ".join(f"{name} {count:,}" for name, count in self.provider.most_common())
        moves = ", ".join(f"{count:,} {name}" for name, count in self.moves.items())
        broken = ", ".join(f"{name} {count}" for name, count in self.breaches.items()) or "none"
        return "\n".join(
            (
                f"{self.seeds} seeds, {days:g} days, {wall_s:.0f} s; {speed:,.0f} times real time a core",
                f"faults: {struck}",
                f"starts {self.lives:,}, sessions {self.sessions:,}, requests {self.requests:,}, turns {self.checks:,}",
                f"launches {self.launches:,}, quotas used up {self.spent:,}, wrong figures {self.misled:,}",
                f"at the provider: {provider}",
                f"moves: {moves}; DNS changes {self.writes:,}, notices {self.notices:,}",
                f"the same trace twice: {self.twice} seeds",
                f"broken promises: {broken}",
            )
        )
