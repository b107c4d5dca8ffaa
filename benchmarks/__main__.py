"""Measure everything, or the parts named: `python -m benchmarks [PART …]`.

Progress goes to stderr, the table to stdout, the figures with the machine's description to
benchmarks/results/latest.json. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time  # noqa: TID251
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.world import ROOT, Row, say

PARTS = ("memory", "publishing", "probes", "failover", "discovery", "store", "exposure")
LATEST = ROOT / "benchmarks/results/latest.json"
WORDS = {True: "ok", False: "MISSED", None: ""}


def machine() -> dict[str, str | int | float]:
    """Describe where this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),  # noqa: TID251
        "load_before": round(os.getloadavg()[0], 2),
    }


def measured(part: str) -> list[Row]:
    """Run one part; what goes wrong in it is a missed bound, not the end of the others."""
    say(f"{part} …")
    began = time.perf_counter()
    try:
        rows = importlib.import_module(f"benchmarks.{part}").run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are measured
        traceback.print_exc()
        rows = [Row(part, f"failed: {type(error).__name__}: {error}", ok=False)]
    say(f"{part}: {time.perf_counter() - began:.0f} s")
    return list(rows)


def table(rows: list[Row]) -> str:
    """Lay the rows out in columns."""
    cells = [(row.name, row.value, row.bound, WORDS[row.ok]) for row in rows]
    widths = [max(len(cell[at]) for cell in cells) for at in range(3)]
    return "\n".join(
        "  ".join([*(cell[at].ljust(widths[at]) for at in range(3)), cell[3]]).rstrip()
        for cell in cells
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS))
    parts = parser.parse_args().part or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    where = machine()
    rows = [row for part in parts for row in measured(part)]
    print(table(rows))
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    LATEST.parent.mkdir(exist_ok=True)
    found = {"machine": where, "rows": [asdict(row) for row in rows]}
    LATEST.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return int(any(row.ok is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
