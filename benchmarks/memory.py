"""What the daemon holds and how soon it is there: memory, imports, start, restart, stop."""

from __future__ import annotations

import os
import subprocess
import time  # noqa: TID251

from benchmarks.baseline import beside
from benchmarks.world import (
    PYTHON,
    Daemon,
    Row,
    backend,
    cpu_s,
    daemon,
    fakes,
    limited,
    rss_mb,
    wait,
)

QUIET = "[health]\ncontrols = []\n"
IDLE_S = 25.0


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with beside("start", "python") as base:
        imports = _import_cpu_s()
        base.more()
        load, idle, status, restart, reconciled, stop = _lived()
    new, cpu = base.wall("start"), base.cpu("start")
    return [
        limited("memory, ten backends, idle", idle, 100.0, "MB"),
        limited(
            "CPU, ten backends, idle, of a core", load * 100, None, "%", base=base.cpu("python")
        ),
        limited("CPU to import the daemon", imports, 1.6, "s", base=cpu),
        limited("aion status", status, 0.5, "s", base=new),
        limited("restart after SIGKILL: discovery", restart, 2.0, "s", base=new),
        limited("restart after SIGKILL: serving again", reconciled, 30.0, "s", base=new),
        limited("stop", stop, 5.0, "s", base=new),
    ]


def _lived() -> tuple[float, float, float, float, float, float]:
    """One daemon's life: CPU of a core and MB while idle, seconds of `status`, restart, stop."""
    with fakes("b") as found:
        port = found["b"].port
        with daemon(QUIET + "".join(backend(f"b{at}", port) for at in range(10))) as one:
            time.sleep(12)
            before = cpu_s(one.pid)
            time.sleep(IDLE_S)
            load = (cpu_s(one.pid) - before) / IDLE_S
            idle = rss_mb(one.pid)
            status = _status_s(one)
            restart, reconciled = _restart(one)
            return load, idle, status, restart, reconciled, one.stop()


def _import_cpu_s() -> float:
    code = (
        "import time; import orchestrator.cli, orchestrator.cli.serve;"
        "import orchestrator.main; print(time.process_time())"
    )
    times = [
        float(subprocess.run([PYTHON, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    return sorted(times)[2]


def _status_s(one: Daemon) -> float:
    env = {**os.environ, "STATE_DIRECTORY": str(one.folder / "var")}
    argv = [PYTHON, "-m", "orchestrator.cli", "--config", str(one.path), "--url", one.url, "status"]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(argv, capture_output=True, check=True, env=env)
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


def _restart(one: Daemon) -> tuple[float, float]:
    """Kill and start again; seconds until discovery answers, and until it says `serving`."""
    one.kill()
    began = time.perf_counter()
    one.start()
    assert one.get("/discovery/default").body["active"]
    discovery = time.perf_counter() - began
    wait(lambda: one.get("/discovery/default").body["state"] == "serving", 60, 0.02)
    return discovery, time.perf_counter() - began
