"""Simulate many seeds: `python -m tests.simulation --seeds 200 --days 1`, or `make simulate`.

Seeds run in as many processes as there are cores. Every twentieth is run a second time and must give
the same trace. Exits 1 if a promise was broken, with the command that plays that seed again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time  # noqa: TID251 - how long a real run took
from dataclasses import asdict

from tests.simulation.seeds import Summary, results, told

SHOWN = 5  # seeds whose story is printed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--days", type=float, default=1.0, help="virtual days for each")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--backends", type=int, help="how many backends; the seed says otherwise")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--story", action="store_true", help="print the first breach's story")
    parser.add_argument("--json", action="store_true", help="print each seed's result as a line")
    given = parser.parse_args()
    began = time.monotonic()
    summary, shown = Summary(), 0
    seeds = range(given.first, given.first + given.seeds)
    for result, took_s in results(seeds, given.days, given.backends, min(given.jobs, given.seeds)):
        summary.add(result, took_s)
        if given.json:
            print(json.dumps({**asdict(result), "cpu_s": round(took_s, 2)}), flush=True)
        if (result.breaches or not result.same) and shown < SHOWN:
            shown += 1
            if not given.story and result.story:
                result.story = "\n".join(result.story.splitlines()[-25:])
            print(told(result, given.backends), file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(f"\r{summary.seeds}/{given.seeds} seeds", end="", file=sys.stderr, flush=True)
    print(summary.text(time.monotonic() - began), file=sys.stderr if given.json else sys.stdout)
    return int(summary.broken > 0)


if __name__ == "__main__":
    sys.exit(main())
