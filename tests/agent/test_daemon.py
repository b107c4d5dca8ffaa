"""With the real daemon: what the agent says is understood, and what it serves is published."""

import json
import signal
import subprocess
import sys

import httpx
import pytest

from tests.agent.aion import TOKEN
from tests.agent.kit import ROOT, free_port, until

CONFIG = """
[server]
listen = "127.0.0.1:{port}"
database = "sqlite:///{folder}/aion.db"
admin_token = {{ credential = "admin_token" }}
[health]
controls = []
interval = "1s"
[backends.colab]
kind = "notebook"
engine = "openai"
models = ["m"]
allow_private = true
allow_hosts = ["127.0.0.1"]
token = {{ credential = "colab_token" }}
access = "gateway"
"""


class Daemon:
    """`aion serve` as a child."""

    def __init__(self, folder, env):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = {"Authorization": "Bearer admin-token-0123456789abcdefghijklmnopqrstuv"}
        folder.mkdir()
        (folder / "aion.toml").write_text(CONFIG.format(port=self.port, folder=folder))
        secrets = folder / "credentials"
        secrets.mkdir(mode=0o700)
        for name, value in (
            ("admin_token", self.admin["Authorization"][7:]),
            ("colab_token", TOKEN),
        ):
            (secrets / name).touch(mode=0o600)
            (secrets / name).write_text(value)
        argv = [
            sys.executable,
            "-m",
            "orchestrator.cli",
            "--config",
            str(folder / "aion.toml"),
            "serve",
        ]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            env = {**env, "PYTHONPATH": str(ROOT), "STATE_DIRECTORY": str(folder)}
            self.child = subprocess.Popen(argv, stderr=log, env=env, cwd=folder)
        until(lambda: httpx.get(self.url + "/healthz").status_code == 200, "the daemon listens", 60)

    def discovery(self):
        return httpx.get(self.url + "/discovery").json()

    def tell(self, order):
        return httpx.post(f"{self.url}/api/backends/colab/{order}", headers=self.admin, json={})


@pytest.fixture
def daemon(world):
    made = Daemon(world.folder / "daemon", world.env())
    world.children.append(made.child)
    return made


def active(daemon):
    return (daemon.discovery().get("active") or {}).get("backend")


def test_an_agent_fetched_from_the_daemon_registers_serves_obeys_and_leaves(world, daemon):
    fetched = httpx.get(daemon.url + "/agent.py")
    assert fetched.text == world.file.read_text()
    port = free_port()
    command = f"{sys.executable} {ROOT / 'tests/agent/programs/engine.py'} --port {{port}}"
    agent = world.agent(aion=daemon.url, engine_command=command, engine_port=port)
    until(lambda: active(daemon) == "colab", "it is published", 60)
    assert daemon.discovery()["active"]["url"] == agent.url
    engine = world.pids(f"--port\0{port}")[0]
    assert daemon.tell("restart").status_code == 200, daemon.tell("restart").text
    until(lambda: [engine] != world.pids(f"--port\0{port}") != [], "another engine runs", 60)
    assert agent.child.poll() is None
    agent.signal(signal.SIGTERM)
    assert agent.ended() == 0
    until(lambda: active(daemon) is None, "it is not published any more", 60)
    assert "Traceback" not in agent.said()
    assert [line for line in daemon.log.read_text().splitlines() if TOKEN in line] == []


def test_a_killed_agent_that_runs_again_keeps_its_session(world, daemon):
    engine = world.engine()
    first = world.agent(aion=daemon.url, engine_url=engine)
    until(lambda: active(daemon) == "colab", "it is published", 60)
    before = session(daemon)
    first.signal(signal.SIGKILL)
    first.ended()
    world.agent(aion=daemon.url, engine_url=engine, port=first.url.rpartition(":")[2])
    until(lambda: world.agents[-1].said().count("serving") == 1, "it serves again")
    assert session(daemon) == before


def session(daemon):
    live = httpx.get(daemon.url + "/api/sessions", headers=daemon.admin).json()["live"]
    return [json.dumps(one.get("id") or one.get("session")) for one in live]
