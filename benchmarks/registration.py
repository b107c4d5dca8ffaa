"""How soon a notebook serves: from its agent's start, and from its registration.

The real daemon at its default intervals and the real agent, fetched from it, before an engine that
runs already. Nothing else serves, so the first name that discovery tells is the notebook's.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time  # noqa: TID251
from pathlib import Path

from benchmarks.world import PYTHON, Daemon, Fake, Row, daemon, fakes, limited, say, wait

RUNS = 5
SETTINGS = """
[health]
controls = []

[backends.colab]
kind = "notebook"
engine = "openai"
models = ["m"]
session = "12h"
token = { credential = "colab_token" }
allow_private = true
allow_hosts = ["127.0.0.1"]
"""


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    token = secrets.token_urlsafe(32)
    started = []
    with fakes("engine") as found, daemon(SETTINGS, colab_token=token) as one:
        agent = one.folder / "agent.py"
        agent.write_bytes(one.get("/agent.py").body)
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as state:
                started.append(_served(one, found["engine"], agent, token, Path(state)))
        registered = _after_registering(one)
    say(f"started {started}, registered {registered}")
    name = "notebook serves after"
    return [
        limited(f"{name} its registration", max(registered), 5.0, "s"),
        limited(f"{name} its agent's start", sorted(started)[RUNS // 2], 10.0, "s"),
    ]


def _served(one: Daemon, engine: Fake, agent: Path, token: str, state: Path) -> float:
    """Seconds from the agent's start until discovery names the notebook; then it leaves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = {
        "--aion": one.url,
        "--backend": "colab",
        "--engine": "openai",
        "--engine-url": f"http://127.0.0.1:{engine.port}",
        "--models": "m",
        "--url": f"http://127.0.0.1:{port}",
        "--port": str(port),
        "--state": str(state),
        "--drain": "1s",
    }
    flat = [word for pair in words.items() for word in pair]
    began = time.perf_counter()
    process = subprocess.Popen(
        [PYTHON, str(agent), *flat],
        env={**os.environ, "AION_TOKEN": token},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait(lambda: one.get("/discovery/default").body["active"] is not None, 30, 0.01)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(30)
        wait(lambda: one.get("/discovery/default").body["active"] is None, 30)


def _after_registering(one: Daemon) -> list[float]:
    """Seconds from each registration to the assignment that followed."""
    came = [line["at"] for line in one.said("registered")]
    served = [line["at"] for line in one.said("assigned") if "→ colab" in line["text"]]
    assert len(came) == len(served) == RUNS
    return [after - before for before, after in zip(came, served, strict=True)]
