"""What a child process takes of memory and processor, by its own account.

Not by its parent's: what `getrusage` calls the peak of a child begins with that of the process it
was forked from, which here is a test run of many hundred megabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, resource, sys
from importlib import import_module
said = import_module(sys.argv[1]).main(json.loads(sys.stdin.readline()))
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([said, int(status["VmHWM"].split()[0]), used.ru_utime + used.ru_stime]))
"""


def taken(module: str, payload: dict) -> tuple[dict, int, float]:
    """Run what that module does; returns its answer, its peak in kB and its seconds of CPU."""
    ran = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", CODE, module],
        check=False,
        input=json.dumps(payload),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    answer, peak_kb, cpu_s = json.loads(ran.stdout.splitlines()[-1])
    return answer, peak_kb, cpu_s
