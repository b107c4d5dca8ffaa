"""Measure everything, or the parts named: `python -m benchmarks [PART …]`.

Progress goes to stderr, the table to stdout, the figures with the machine's description to
benchmarks/results/latest.json. Each row is held against the committed one. Exits 1 if a bound is
missed or a row became worse than is allowed.
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
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import compare
from benchmarks.compare import Change
from benchmarks.world import ROOT, Row, say

# A part is a module of this package with `run() -> list[Row]`.
PARTS = (
    "memory",
    "publishing",
    "probes",
    "failover",
    "discovery",
    "heartbeats",
    "registration",
    "store",
    "turns",
    "plan",
    "simulation",
    "exposure",
    "agent",
    "backup",
)
LATEST = ROOT / "benchmarks/results/latest.json"
COMMITTED = ROOT / "benchmarks/results/committed.json"
PASSING = ("date", "load_before")  # what of a machine's description is not the machine
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
        rows = list(importlib.import_module(f"benchmarks.{part}").run())
    except Exception as error:  # noqa: BLE001 - whatever it is, the others are measured
        traceback.print_exc()
        reason = " ".join(str(error).split())[:100]
        rows = [Row(part, f"failed: {type(error).__name__}: {reason}", ok=False)]
    say(f"{part}: {time.perf_counter() - began:.0f} s")
    for row in rows:
        row.part = part
    return rows


def table(rows: Sequence[Row], found: dict[str, Change | None]) -> str:
    """Lay the rows out in columns; the last is the change against the committed ones, and noise."""
    cells = [(row.name, row.value, row.bound, WORDS[row.ok], _held(row, found)) for row in rows]
    widths = [max(len(cell[at]) for cell in cells) for at in range(5)]
    return "\n".join(
        "  ".join(cell[at].ljust(widths[at]) for at in range(5)).rstrip() for cell in cells
    )


def _held(row: Row, found: dict[str, Change | None]) -> str:
    change = str(found[row.name] or "")
    return change if row.noise is None else f"{change} noise {row.noise:.0%}".strip()


def read(path: Path) -> tuple[dict[str, str | int | float], list[Row]]:
    """Read what an earlier run wrote: the machine, and the rows; both empty without a file."""
    if not path.exists():
        return {}, []
    found = json.loads(path.read_text())
    return found["machine"], [Row(**row) for row in found["rows"]]


def write(path: Path, where: dict[str, str | int | float], rows: Sequence[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    found = {"machine": where, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def same(one: dict[str, str | int | float], other: dict[str, str | int | float]) -> bool:
    """Say whether two descriptions are of one machine."""
    return all(one.get(key) == other.get(key) for key in one.keys() - PASSING)


def commit(where: dict[str, str | int | float], rows: Sequence[Row]) -> str:
    """Make these rows the committed ones; returns why not, or nothing."""
    machine_then, before = read(COMMITTED)
    if any(row.ok is False for row in rows):
        return "a bound is missed"
    if wild := compare.blind(rows):
        return f"the machine is not quiet enough, too much noise in: {', '.join(wild)}"
    if not same(where, machine_then) and {row.part for row in rows} != set(PARTS):
        return "another machine's figures are there, so measure all parts"
    there_still = [row for row in before if row.part in PARTS]
    write(COMMITTED, where, compare.refreshed(rows, there_still))
    return ""


def wishes() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--against", type=Path, default=COMMITTED, metavar="FILE")
    parser.add_argument(
        "--allow", type=float, default=compare.BOUND, help="times as much: %(default)s"
    )
    parser.add_argument("--times", type=int, default=1, help="measure so often, and the noise")
    parser.add_argument("--commit", action="store_true", help=f"write {COMMITTED.name}")
    given = parser.parse_args()
    if unknown := set(given.part) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return given


def main() -> int:
    given = wishes()
    where = machine()
    there, before = read(given.against)
    parts = given.part or PARTS
    runs = [[row for part in parts for row in measured(part)] for _ in range(max(1, given.times))]
    rows = compare.merged(runs)
    found = compare.changes(rows, before, given.allow)
    print(table(rows, found))
    for name in compare.gone(rows, before):
        print(f"no longer measured: {name}")
    print(", ".join(f"{key}: {value}" for key, value in where.items()))
    if before and not same(where, there):
        print("Compared with another machine's figures: ratios to a baseline hold, values less so.")
    write(LATEST, where, rows)
    worse = [row.name for row in rows if (change := found[row.name]) and change.worse]
    refused = commit(where, rows) if given.commit else ""
    if refused:
        print(f"Not committed: {refused}.")
    missed = any(row.ok is False for row in rows)
    return int(missed or bool(refused) or bool(worse and not given.commit))


if __name__ == "__main__":
    sys.exit(main())
