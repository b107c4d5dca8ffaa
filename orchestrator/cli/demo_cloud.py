"""A provider of machines for the demo, on this one: they start, or do not, as a script says.

    python -m orchestrator.cli.demo_cloud start|stop|status|run FILE [LABEL]

FILE is JSON: `{name, port, model, folder, owner, fates}`. `fates` say how one start after the other
goes, the last one for ever: `boot`; `stockout`: none is free; `lost`: it boots, and the answer of
the start never comes. What runs is a fake engine. It ends when the process `owner` does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

from orchestrator.cli.demo_box import alive

LOOK_S, STOPPED_S = 0.25, 5.0
DONE, FAILED, OFF, STOCKOUT = 0, 1, 3, 69  # exit statuses as the kind `command` reads them
_waiting = Event()  # nobody sets it: to wait by


def main(words: list[str]) -> int:
    """Do what the first word says with the machine that the file describes."""
    verb, machine = words[0], json.loads(Path(words[1]).read_text())
    label = words[2] if len(words) > 2 else ""  # noqa: PLR2004 - verb and file come first
    if verb == "start":
        return start(words[1], machine, label)
    if verb == "stop":
        return stop(machine, label)
    return run(machine) if verb == "run" else status(machine)


def start(file: str, machine: dict[str, Any], label: str) -> int:
    """Have a machine begin as its script says, and note that somebody asked."""
    asked = starts(machine)
    with _path(machine, "starts").open("a") as log:
        log.write(f"{label}\n")
    fates = machine["fates"]
    fate = fates[min(len(asked), len(fates) - 1)]
    if fate == "stockout":
        _say(problem="stockout", detail="no machine of this type is free in this zone")
        return STOCKOUT
    if not _running(machine):
        with _path(machine, "log").open("ab") as log_file:
            child = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.demo_cloud", "run", file],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )
        told = json.dumps({"pid": child.pid, "launch": label})
        _path(machine, "run").write_text(told)
    if fate == "lost":
        sys.stderr.write("the connection broke before an answer came\n")
        return FAILED
    _say(state="starting", launch=label)
    return DONE


def stop(machine: dict[str, Any], label: str) -> int:
    """End the machine if it runs under that label, and wait until it has."""
    found = _running(machine)
    if found and label in {"", found["launch"]}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pid"], signal.SIGTERM)
        for _ in range(int(STOPPED_S / LOOK_S)):
            if not alive(found["pid"]):
                break
            _waiting.wait(LOOK_S)
    return DONE


def status(machine: dict[str, Any]) -> int:
    """Say whether it runs, and under which label."""
    found = _running(machine)
    if not found:
        return OFF
    _say(state="on", launch=found["launch"])
    return DONE


def run(machine: dict[str, Any]) -> int:
    """Run its engine until it is told to end, or its owner does."""
    words = ["--port", str(machine["port"]), "--name", machine["name"], "--model", machine["model"]]
    engine = subprocess.Popen(
        [sys.executable, "-m", "backends.fake_server", *words, "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
    try:
        while engine.poll() is None and alive(machine["owner"]):
            _waiting.wait(LOOK_S)
    finally:
        engine.kill()
        engine.wait()
    return DONE


def starts(machine: dict[str, Any]) -> list[str]:
    """List the labels of all starts that were asked for."""
    try:
        return _path(machine, "starts").read_text().split()
    except OSError:
        return []


def _running(machine: dict[str, Any]) -> dict[str, Any]:
    """Give what runs: its process and its label; nothing if nothing does."""
    try:
        found: dict[str, Any] = json.loads(_path(machine, "run").read_text())
    except (OSError, ValueError):
        return {}
    return found if alive(found["pid"]) else {}


def _path(machine: dict[str, Any], what: str) -> Path:
    return Path(machine["folder"]) / f"{machine['name']}.{what}"


def _say(**words: str) -> None:
    sys.stdout.write(json.dumps(words) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
