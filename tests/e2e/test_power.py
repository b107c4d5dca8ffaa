"""A real daemon starts and stops a real engine by programs."""

import os
import signal
import sys
from contextlib import suppress

import pytest

from tests.e2e import plant
from tests.e2e.kit import ROOT, free_port, until


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    if running := plant.pid(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(running, signal.SIGKILL)


def powered(world, folder, **more):
    """Put a backend that is started by programs behind the static one."""
    port = free_port()
    program = [sys.executable, str(ROOT / "tests/e2e/plant.py"), str(folder), str(port)]
    world.tables["backends.vm"] = {
        "kind": "command",
        "engine": "openai",
        "url": f"http://127.0.0.1:{port}",
        "priority": 50,
        "models": ["demo-model"],
        "start": "auto",
        "idle_stop": "3s",
        **more,
    }
    world.tables["backends.vm.commands"] = {
        "start": [*program, "start", "{launch}"],
        "stop": [*program, "stop"],
        "status": [*program, "status"],
    }


def launches(folder):
    path = folder / "launches"
    return path.read_text().split() if path.exists() else []


def phase(world):
    return world.api("backends/vm")["power"]["phase"]


def test_an_engine_is_started_when_the_static_one_dies_and_stopped_when_it_is_idle(world, folder):
    world.serve_from("main")
    powered(world, folder)
    world.boot()
    world.serves("main")
    until(lambda: phase(world) == "off", "its status is known")
    assert launches(folder) == []
    assert "off" in next(line for line in world.aion("status").stdout.splitlines() if "vm" in line)
    assert "started when nobody cheaper" in world.aion("explain", "chat").stdout
    world.stop_backend("main")
    world.serves("vm")
    assert len(launches(folder)) == 1
    until(lambda: phase(world) == "on", "that is known")
    assert world.api("backends/vm")["power"]["launch"] == launches(folder)[0]
    world.start("main")
    world.serves("main")
    until(lambda: not plant.pid(folder), "the engine is stopped")
    until(lambda: phase(world) == "off", "and known to be")
    assert len(launches(folder)) == 1
    assert "backend_down" not in {
        one["kind"] for one in world.api("incidents") if one["subject"] == "vm"
    }


@pytest.mark.parametrize("when", ["kill-before", "kill-after"])
def test_a_daemon_killed_while_it_starts_one_starts_it_once(world, folder, when):
    world.serve_from("main")
    powered(world, folder, idle_stop="10m")
    world.boot()
    world.serves("main")
    until(lambda: phase(world) == "off", "its status is known")
    (folder / when).touch()
    world.stop_backend("main")
    assert world.daemon.close() == -signal.SIGKILL
    done = when == "kill-after"
    assert len(launches(folder)) == done
    world.launch()
    world.serves("vm", within_s=90)
    assert len(launches(folder)) == 1
    started = [one for one in world.api("events", limit=1000) if one["action"] == "power_start"]
    assert len(started) == (1 if done else 2)


def test_the_operator_starts_and_stops_and_hears_of_a_failure(world, folder):
    world.serve_from("main")
    powered(world, folder, start="manual")
    del world.tables["backends.vm"]["idle_stop"]
    world.boot()
    world.serves("main")
    (folder / "stockout").touch()
    assert world.aion("backend", "start", "vm", "-y").returncode == 0
    until(lambda: "start_failed" in world.kinds(), "the failure is told")
    assert "nothing is free" in world.api("backends/vm")["power"]["detail"]
    told = world.aion("backend", "start", "vm", "-y")
    assert "being started" in told.stdout + told.stderr
    until(lambda: world.health_of("vm") == "up", "it is up")
    until(lambda: "start_failed" not in world.kinds(), "that is over")
    shown = world.aion("backend", "show", "vm").stdout
    assert "on" in shown
    assert launches(folder)[0] in shown
    world.aion("backend", "stop", "vm", "-y")
    until(lambda: not plant.pid(folder), "the engine is stopped")
    assert world.aion("backend", "start", "main", "-y").returncode == 1
