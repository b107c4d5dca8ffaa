"""Where this runs: whose notebook, since when, with which GPU."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_S = 86400.0  # no notebook lives longer; a first process older than this is a machine's
MB_IN_GB = 1024


def where() -> str:
    """Name the kind of place: colab, kaggle or box."""
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "colab"
    return "kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in os.environ else "box"


def age_s() -> float:
    """For how long this notebook has been running; 0 where that cannot be known.

    A notebook's limit counts from when its container began, not from when the cell was run.
    """
    if where() == "box":
        return 0.0
    try:
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError, IndexError):
        return 0.0
    found = up_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return found if 0 < found < LONGEST_S else 0.0


def began_at(kept: Any) -> float:
    """Say when this session of the machine began, as Unix time; `kept`: what was said before."""
    if age := age_s():
        return time.time() - age
    now = time.time()
    return float(kept) if isinstance(kept, int | float) and 0 < kept <= now else now


def gpu() -> dict[str, Any] | None:
    """Ask for the GPU: `{name, memory_mb}`, several of them as one; None if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
        memory_mb = sum(int(memory) for _, memory in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    if not rows:
        return None
    name = rows[0][0].strip()
    return {"name": name if len(rows) == 1 else f"{len(rows)} of {name}", "memory_mb": memory_mb}


def described(found: dict[str, Any] | None) -> str:
    """Say the GPU in words."""
    if found is None:
        return "no GPU"
    return f"{found['name']}, {round(found['memory_mb'] / MB_IN_GB)} GB"


def architecture() -> str:
    """Name the processor as downloads do."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "amd64"
