"""How fast time passes in the simulator of the tests, and in `aion simulate`.

The first runs the real loop, core, store and drivers through bad luck; what is shown is the
processor time of a virtual hour. The second plays a month of a fleet of five a hundred times.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time  # noqa: TID251

from benchmarks.baseline import beside
from benchmarks.world import ROOT, Row, limited

HOUR_S = 3600.0
REAL_TIME = {5: 2000, 20: 700}  # backends → how many times real time it must be
SEEDS, DAYS = 3, 0.25
FLEET = "tests/cli/fleets/contract.toml"


def run() -> list[Row]:
    """Measure both."""
    return [*(virtual(backends, times) for backends, times in REAL_TIME.items()), months()]


def virtual(backends: int, times: int) -> Row:
    """Simulate some seeds one after the other."""
    words = f"--seeds {SEEDS} --days {DAYS} --backends {backends} --jobs 1 --json".split()
    with beside("python") as base:
        lines = called("-m", "tests.simulation", *words).splitlines()
    seeds = [json.loads(line) for line in lines]
    broken = [seed["seed"] for seed in seeds if seed["breaches"]]
    if broken:
        raise RuntimeError(f"a promise was broken in seeds {broken}")
    cpu_s, virtual_s = (sum(seed[key] for seed in seeds) for key in ("cpu_s", "seconds"))
    name = f"CPU of a simulated hour, {backends} backends"
    row = limited(name, cpu_s / virtual_s * HOUR_S, HOUR_S / times, "s", base=base.cpu("python"))
    row.value += f" ({virtual_s / cpu_s:,.0f} times real time)"
    return row


def months() -> Row:
    """Play 30 days of five backends 100 times, start of the command included."""
    with beside("python") as base:
        began = time.perf_counter()
        called(
            "-m", "orchestrator.cli", *f"simulate --days 30 --seeds 100 --config {FLEET}".split()
        )
        took_s = time.perf_counter() - began
    return limited("aion simulate, 30 days, 100 seeds", took_s, 30.0, "s", base=base.wall("python"))


def called(*words: str) -> str:
    """Run Python with these words from the root of the tree; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
