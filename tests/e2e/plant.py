"""What a `command` backend's programs do in these tests: start, stop and look at a real engine.

    python tests/e2e/plant.py FOLDER PORT start LABEL | stop | status

In FOLDER: `pid` of the engine and its `label` while it runs, `launches` with a line for each start.
With a file `kill-before` or `kill-after` the first start kills the daemon, which is its parent,
before or after it has done anything; both are used up.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OFF, TRY_LATER = 3, 75


def pid(folder: Path) -> int:
    """The engine's pid, 0 if it does not run."""
    with suppress(OSError, ValueError):
        found = int((folder / "pid").read_text())
        state = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()[0]
        return 0 if state == "Z" else found
    return 0


def used_up(path: Path) -> bool:
    with suppress(FileNotFoundError):
        path.unlink()
        return True
    return False


def start(folder: Path, port: str, label: str) -> int:
    if used_up(folder / "kill-before"):
        os.kill(os.getppid(), signal.SIGKILL)
        return 1
    if used_up(folder / "stockout"):
        return 69
    if pid(folder):
        return 0
    words = ("-m", "backends.fake_server", "--port", port, "--name", "plant")
    engine = subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=ROOT,
    )
    (folder / "pid").write_text(str(engine.pid))
    (folder / "label").write_text(label)
    with (folder / "launches").open("a") as log:
        log.write(f"{label}\n")
    if used_up(folder / "kill-after"):
        os.kill(os.getppid(), signal.SIGKILL)
    return 0


def main() -> int:
    folder, port, verb, *rest = Path(sys.argv[1]), *sys.argv[2:]
    if verb == "start":
        return start(folder, port, rest[0])
    running = pid(folder)
    if verb == "stop":
        if running:
            os.kill(running, signal.SIGTERM)
        return 0
    if not running:
        return OFF
    print(json.dumps({"state": "on", "launch": (folder / "label").read_text()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
