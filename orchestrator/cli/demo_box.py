"""A machine of the demo that comes and goes: a fake engine, and the agent in front of it.

    python -m orchestrator.cli.demo_box start|stop|status|run FILE

FILE is JSON: `{name, aion, port, engine_port, model, token_file, folder, owner}`. `run` stays until
the agent ends, `start` leaves one running and returns, `stop` and `status` are about that one. All
of it ends when the process `owner` does, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from threading import Event
from typing import Any

LOOK_S = 0.25
ON, FAILED, OFF = 0, 1, 3  # what `status` ends with
_waiting = Event()  # nobody sets it: to wait by


def main(words: list[str]) -> int:
    """Do what the first word says with the box that the file describes."""
    verb, box = words[0], json.loads(Path(words[1]).read_text())
    if verb == "run":
        return run(box)
    if verb == "start":
        return start(words[1], box)
    return stop(box) if verb == "stop" else status(box)


def run(box: dict[str, Any]) -> int:
    """Start engine and agent, and stay until the agent has ended, or the owner."""
    _pid_file(box).write_text(str(os.getpid()))
    folder = Path(box["folder"])
    agent = folder / f"{box['name']}-agent.py"
    with urllib.request.urlopen(f"{box['aion']}/agent.py", timeout=10.0) as reply:  # noqa: S310 - the demo's own daemon
        agent.write_bytes(reply.read())
    listening = ["--port", str(box["engine_port"]), "--name", box["name"], "--model", box["model"]]
    engine = subprocess.Popen(
        [sys.executable, "-m", "backends.fake_server", *listening, "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    options = {
        "--aion": box["aion"],
        "--backend": box["name"],
        "--engine": "openai",
        "--engine-url": f"http://127.0.0.1:{box['engine_port']}",
        "--models": box["model"],
        "--url": f"http://127.0.0.1:{box['port']}",
        "--port": str(box["port"]),
        "--token-file": box["token_file"],
        "--state": str(folder / f"{box['name']}-state"),
        "--linger": "3s",
        "--drain": "5s",
    }
    flat = [word for pair in options.items() for word in pair]
    child = subprocess.Popen([sys.executable, str(agent), *flat], stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        while child.poll() is None and alive(box["owner"]):
            _waiting.wait(LOOK_S)
    finally:
        for each in (child, engine):
            each.kill()
            each.wait()
        _pid_file(box).unlink(missing_ok=True)
    return child.returncode


def start(file: str, box: dict[str, Any]) -> int:
    """Have a box run, and leave it."""
    if status(box) == OFF:
        with (Path(box["folder"]) / f"{box['name']}.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "orchestrator.cli.demo_box", "run", file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    return ON


def stop(box: dict[str, Any]) -> int:
    """End the box that runs, if one does."""
    with contextlib.suppress(ProcessLookupError, OSError, ValueError):
        os.kill(int(_pid_file(box).read_text()), signal.SIGTERM)
    return ON


def status(box: dict[str, Any]) -> int:
    """Say by the exit status whether it runs."""
    try:
        return ON if alive(int(_pid_file(box).read_text())) else OFF
    except (OSError, ValueError):
        return OFF


def _pid_file(box: dict[str, Any]) -> Path:
    return Path(box["folder"]) / f"{box['name']}.pid"


def alive(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # a zombie is not alive
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
