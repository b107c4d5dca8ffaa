"""From the death of a backend to discovery naming the next one, by real signals to real processes.

Many services with a pair of backends each live in one daemon and are killed at random moments, so
that twenty kills at default intervals take no longer than one.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251
import signal

from benchmarks.world import Fake, Listener, Row, backend, daemon, fakes, quantile, say

FAST = '[health]\ninterval = "1s"\nfast_interval = "250ms"\ndown_interval = "1s"\ncontrols = []\n'
DEFAULT = "[health]\ncontrols = []\n"


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    return asyncio.run(_all())


async def _all() -> list[Row]:
    dice = random.Random(1)
    fast = await _kills(dice, FAST, pairs=20, rounds=10, spread_s=2, again=True)
    say(f"200 kills done, the slowest {max(fast):.2f} s")
    killed, hung = await asyncio.gather(  # two daemons side by side: both have little to do
        _kills(dice, DEFAULT, pairs=20, rounds=1, spread_s=10),
        _kills(dice, DEFAULT, pairs=20, rounds=1, spread_s=10, how=signal.SIGSTOP),
    )
    return [
        _row("failover, SIGKILL, 1 s / 250 ms, p99", fast, 2.5, 0.99),
        _row("failover, SIGKILL, defaults, worst", killed, 16.0, 1.0),
        _row("failover, SIGSTOP, defaults, worst", hung, 28.0, 1.0),
    ]


def _row(name: str, times: list[float], bound_s: float, share: float) -> Row:
    """Hold a quantile to its bound; the median is compared: by itself, for intervals make it."""
    at, median = quantile(times, share), quantile(times, 0.5)
    value = f"{at:.2f} s (median {median:.2f} s, {len(times)} times)"
    figures = {"quantile_s": at, "count": len(times)}
    return Row(name, value, f"≤ {bound_s:g} s", at <= bound_s, figures).against(median)


async def _kills(
    dice: random.Random,
    health: str,
    pairs: int,
    rounds: int,
    *,
    spread_s: float,
    how: signal.Signals = signal.SIGKILL,
    again: bool = False,
) -> list[float]:
    names = [f"{side}{number}" for number in range(pairs) for side in "ab"]
    with fakes(*names) as found:
        services = {f"s{number}": [f"a{number}", f"b{number}"] for number in range(pairs)}
        toml = health + "".join(backend(name, one.port) for name, one in found.items())
        toml += "".join(
            f'[services.{name}]\nfailback_after = "1h"\nbackends = {members!r}\n'
            for name, members in services.items()
        )
        with daemon(toml) as one:
            async with Listener(one.url, list(services)) as listener:
                await listener.until({name: pair[0] for name, pair in services.items()}, 60)
                await asyncio.sleep(5)
                works = [
                    _service(
                        dice, listener, name, [found[n] for n in pair], rounds, spread_s, how, again
                    )
                    for name, pair in services.items()
                ]
                return [took for times in await asyncio.gather(*works) for took in times]


async def _service(
    dice: random.Random,
    listener: Listener,
    name: str,
    pair: list[Fake],
    rounds: int,
    spread_s: float,
    how: signal.Signals,
    again: bool,
) -> list[float]:
    times = []
    for _ in range(rounds):
        await asyncio.sleep(dice.uniform(0, spread_s))
        serving, other = sorted(pair, key=lambda one: one.name != listener.active[name])
        began = serving.send(how)
        await listener.until({name: other.name}, 60)
        times.append(listener.changed_at[name] - began)
        if again:
            serving.end()
            await asyncio.to_thread(serving.start)
            await asyncio.sleep(2.5)  # until it is up again: down interval, twice the fast one
    return times
