"""What the daemon holds and how soon it is there: memory, imports, start, restart, stop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time  # noqa: TID251
import urllib.request
from pathlib import Path

from benchmarks.world import PYTHON, Daemon, Listener, Row, backend, cpu_s, daemon, fakes, rss_mb

QUIET = "[health]\ncontrols = []\n"
STANDIN = Path(__file__).parents[1] / "tests/standins/cloudflare.py"
DNS = """
[services.chat]
backends = ["b0"]
[services.chat.dns]
provider = "cloudflare"
zone = "example.org"
name = "ai.example.org"
token = { credential = "cloudflare" }
api = "{api}"
gateway = "198.51.100.1"
"""


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    imports = _import_cpu_s()
    with fakes("b") as found:
        port = found["b"].port
        ten = QUIET + "".join(backend(f"b{number}", port) for number in range(10))
        with daemon(ten) as one:
            time.sleep(15)  # noqa: TID251
            idle = rss_mb(one.pid)
            before = cpu_s(one.pid)
            time.sleep(20)  # noqa: TID251
            load = (cpu_s(one.pid) - before) / 20
            status = _status_s(one)
            restart, reconciled = asyncio.run(_restart(one))
            stop = one.stop()
    return [
        Row("memory, ten backends, idle", f"{idle:.1f} MB", "≤ 100 MB", idle <= 100, {"mb": idle}),
        Row("CPU, ten backends, idle", f"{load:.2%} of a core", figures={"share": load}),
        Row("CPU to import the daemon", f"{imports:.2f} s", "≤ 1.6 s", imports <= 1.6, {"s": imports}),
        Row("aion status", f"{status:.2f} s", "≤ 0.5 s", status <= 0.5, {"s": status}),
        Row("restart after SIGKILL: discovery", f"{restart:.2f} s", "≤ 2 s", restart <= 2, {"s": restart}),
        Row("restart after SIGKILL: reconciled", f"{reconciled:.2f} s", "≤ 30 s", reconciled <= 30, {"s": reconciled}),
        Row("stop", f"{stop:.2f} s", "≤ 5 s", stop <= 5, {"s": stop}),
    ]


def _import_cpu_s() -> float:
    code = (
        "import time; import orchestrator.cli, orchestrator.cli.serve as s; s.without_rich();"
        "import orchestrator.main; print(time.process_time())"
    )
    times = [
        float(subprocess.run([PYTHON, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    return sorted(times)[2]


def _status_s(one: Daemon) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        argv = [PYTHON, "-m", "orchestrator.cli", "--config", str(one.path), "--url", one.url]
        subprocess.run([*argv, "status"], capture_output=True, check=True, env=_env(one))
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


def _env(one: Daemon) -> dict[str, str]:
    import os

    return {**os.environ, "STATE_DIRECTORY": str(one.folder / "var")}


async def _restart(one: Daemon) -> tuple[float, float]:
    """Kill and start again; seconds until discovery answers, and until it says `serving`."""
    one.kill()
    began = time.perf_counter()
    one.start()
    with urllib.request.urlopen(f"{one.url}/discovery/default") as reply:
        answer = json.load(reply)
    discovery = time.perf_counter() - began
    assert answer["active"], answer
    while answer["state"] != "serving":
        await asyncio.sleep(0.05)
        with urllib.request.urlopen(f"{one.url}/discovery/default") as reply:
            answer = json.load(reply)
    return discovery, time.perf_counter() - began


if __name__ == "__main__":
    for row in run():
        print(row.name, row.value, row.bound, row.ok)
