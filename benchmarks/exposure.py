"""How much the unit lets the daemon do, by systemd's own count."""

from __future__ import annotations

import re
import shutil
import subprocess

from benchmarks.world import ROOT, Row, limited

NAME = "unit exposure (systemd-analyze security)"


def run() -> list[Row]:
    """Ask systemd-analyze, where it is there."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return [Row(NAME, "not measured: no systemd-analyze here", "≤ 1.5")]
    argv = [program, "security", "--offline=true", str(ROOT / "systemd/aion.service")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"exposure level for aion.service: ([\d.]+)", done.stdout)
    if found is None:
        return [Row(NAME, "not measured: systemd-analyze says nothing", "≤ 1.5", ok=False)]
    return [limited(NAME, float(found[1]), 1.5, "")]
