"""Runs in the container, as root, once it is up: installs aion, hurts it, and writes what it saw.

Standard library only. Each step's findings go to /results/seen.json at once, so that a step that
hangs leaves those before it.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import time  # noqa: TID251  # measures a container, has no part in the program
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

AION = "/opt/aion/.venv/bin/aion"
TOKEN = Path("/etc/aion/credentials/admin_token")
SEEN = Path("/results/seen.json")
seen: dict[str, Any] = {}


def run(*words: str, timeout: float = 60) -> dict[str, object]:
    begun = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    took = round(time.monotonic() - begun, 3)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr, "took_s": took}


def show() -> dict[str, str]:
    names = "ActiveState,SubState,Result,MainPID,NRestarts,StatusText,User,ControlGroup,MemoryHigh"
    out = str(run("systemctl", "show", "aion", f"--property={names}")["out"])
    return dict(line.split("=", 1) for line in out.splitlines())


def until(condition, timeout_s: float) -> float | None:
    """Seconds until it held; None if it never did."""
    begun = time.monotonic()
    while time.monotonic() - begun < timeout_s:
        if condition():
            return round(time.monotonic() - begun, 3)
        time.sleep(0.05)
    return None


def install() -> None:
    seen["install"] = run(AION, "service", "install", "--yes")
    assert seen["install"]["code"] == 0, seen["install"]
    seen["enabled"] = run("systemctl", "is-enabled", "aion")["out"]
    seen["running"] = state = show()
    process = Path("/proc") / state["MainPID"]
    environment = dict(
        pair.split("=", 1) for pair in (process / "environ").read_text().split("\0") if pair
    )
    folder = Path(environment.get("CREDENTIALS_DIRECTORY", "/nowhere"))
    seen["credentials"] = (
        sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    )
    seen["uid"] = process.stat().st_uid
    seen["known_users"] = [user.pw_uid for user in pwd.getpwall()]
    seen["arguments"] = (process / "cmdline").read_text()
    seen["state_files"] = sorted(path.name for path in Path("/var/lib/aion").iterdir())


def ask() -> None:
    seen["status"] = run(AION, "status", "--json", "--token-file", str(TOKEN))
    seen["status_wrong_token"] = run(AION, "status", "--json", "--token-file", "/etc/hostname")
    seen["service_status"] = run(AION, "service", "status", "--json")


def reload() -> None:
    seen["reload"] = run("systemctl", "reload", "aion")
    seen["after_reload"] = show()


def hang() -> None:
    before = show()
    os.kill(int(before["MainPID"]), signal.SIGSTOP)

    def back() -> bool:
        now = show()
        return now["ActiveState"] == "active" and now["MainPID"] not in {"0", before["MainPID"]}

    seen["watchdog_s"] = until(back, 60)
    seen["after_hang"] = show()


def stop() -> None:
    group = show()["ControlGroup"]
    seen["stop"] = run("systemctl", "stop", "aion")
    seen["stopped"] = show()
    lists = [path.read_text() for path in Path("/sys/fs/cgroup").rglob(f"*{group}/cgroup.procs")]
    seen["left_over"] = " ".join(lists).split()


def stored() -> None:
    with closing(sqlite3.connect("/var/lib/aion/aion.db")) as database:
        seen["boot_id"] = database.execute("select boot_id from world").fetchone()[0]
    seen["kernels_boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text()


def journal() -> None:
    out = str(run("journalctl", "--unit=aion", "--output=json", "--no-pager", "--all")["out"])
    seen["journal"] = [json.loads(line) for line in out.splitlines()]


for step in (install, ask, reload, hang, stop, stored, journal):
    if step is not journal and any(name.startswith("failed_") for name in seen):
        continue  # the journal says why
    try:
        step()
    except Exception:  # noqa: BLE001  # whatever it was, the test shows it
        seen[f"failed_{step.__name__}"] = traceback.format_exc()
    SEEN.write_text(json.dumps(seen))
subprocess.run(["systemctl", "poweroff", "--force"], check=False)
