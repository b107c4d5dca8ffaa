"""A real daemon has Google's tool, a strict stand-in of it, start a session that registers."""

import json

import pytest

from tests.e2e.kit import free_port, until
from tests.standins import colab

HOST = "127.8.7.11"  # loopback too, and nobody else's


@pytest.fixture
def tool(tmp_path):
    truth = tmp_path / "colab.json"
    truth.write_text(json.dumps(colab.EMPTY))
    yield truth, colab.tool(tmp_path)
    for pids in json.loads(truth.read_text())["kernels"].values():
        colab.let_go(pids)


def test_a_session_is_started_when_it_is_needed_registers_serves_and_is_stopped(world, tool):
    path, program = tool

    def truth():
        with colab.Truth(path) as held:
            return held

    world.serve_from("main")
    engine, port = world.start("engine"), free_port()
    world.server["public_url"] = world.url
    world.tables["backends.gpu"] = {
        "kind": "colab",
        "accept_terms": True,
        "cli": program,
        "env": {"COLAB_STANDIN": str(path)},
        "engine": "openai",
        "models": ["demo-model"],
        "priority": 50,
        "start": "auto",
        "idle_stop": "3s",
        "session": "700h",
        "allow_private": True,
        "allow_hosts": [HOST],
        "agent": {
            "url": f"http://{HOST}:{port}",
            "listen": HOST,
            "port": port,
            "tunnel": "none",
            "engine_url": f"http://127.0.0.1:{engine}",
        },
    }
    world.boot()
    world.serves("main")
    until(lambda: world.api("backends/gpu")["power"]["phase"] == "off", "it is known")
    world.stop_backend("main")
    world.serves("gpu")
    (label,) = truth()["sessions"]
    assert label == world.api("backends/gpu")["power"]["launch"]
    (shown,) = [one for one in world.api("tokens") if one["by"] == f"launch {label}"]
    assert shown["revoked_at"] is None
    world.start("main")
    world.serves("main")
    until(lambda: truth()["sessions"] == {}, "it is stopped")
    assert len(truth()["began"]) == 1
    doctor = world.aion("doctor").stdout
    assert "is signed in with Colab" in doctor
    assert "Google's FAQ forbids" in doctor
