"""A real daemon, and an account at Kaggle that really runs what is pushed to it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib

import httpx
import pytest

from tests.e2e.kit import ROOT, Process, _environment, free_port, until

HOST = "127.8.7.9"  # loopback too, and nobody else's
USER = "ann"


class Account:
    """The stand-in of Kaggle as a child; leave it and all that it runs is gone."""

    def __init__(self, folder) -> None:
        self.process = Process(str(ROOT / "tests/standins/kaggle.py"), "--run", str(folder))
        said = self.process.first_line()
        self.api, self.token = said["api"], said["token"]
        self.file = json.dumps({"username": said["username"], "key": said["key"]})

    def seen(self) -> dict:
        return httpx.get(f"{self.api}/_control").json()

    def tell(self, **wish) -> dict:
        return httpx.post(f"{self.api}/_control", json=wish).json()

    def runs(self, *statuses: str) -> list[dict]:
        return [one for one in self.seen()["runs"] if not statuses or one["status"] in statuses]

    def kill(self) -> None:
        if self.process.child.poll() is None:
            self.process.child.stdin.close()
            self.process.child.wait(20)
        self.process.kill()


@pytest.fixture
def account(tmp_path):
    made = Account(tmp_path / "kernels")
    yield made
    wrong = made.seen()["wrong"]
    made.kill()
    assert wrong == []


def here(engine: int) -> dict:
    """Say where the agent is on this machine, and the engine behind it."""
    port = free_port()
    return {
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


@pytest.fixture
def ready(world, account):
    """A static backend that serves, and one at Kaggle behind it that nobody needs yet."""
    world.serve_from("main")
    engine = world.start("engine")
    world.server["public_url"] = world.url
    world.credentials |= {"kaggle": account.file, "token": "backend-token-canary-0123456789abcdef"}
    world.tables["backends.kaggle"] = {
        "kind": "kaggle",
        "engine": "openai",
        "models": ["demo-model"],
        "priority": 50,
        "start": "auto",
        "session": "700h",  # a run is as old as the machine it runs on, which is this one
        "quota": {"limit": "30h", "per": "week"},
        "idle_stop": "3s",
        "kernel": f"{USER}/aion-gpu",
        "key": {"credential": "kaggle"},
        "token": {"credential": "token"},
        "api": account.api,
        **here(engine),
    }
    world.tables["services.chat"] = {"backends": ["main", "kaggle"], "failback_after": "1s"}
    world.boot()
    world.serves("main")
    until(lambda: phase(world) == "off", "its status is known")
    return world


def phase(world):
    return world.api("backends/kaggle")["power"]["phase"]


def carried(account) -> str:
    """The token that the last push carried."""
    [source] = account.seen()["sources"]
    return re.search(r'token=\\"([0-9a-f]+)\\"', source)[1]


def test_a_kernel_is_pushed_when_it_is_needed_serves_and_is_let_go(ready, account):
    assert account.runs() == []
    ready.stop_backend("main")
    ready.serves("kaggle")
    [run] = account.runs()
    assert run["status"] == "RUNNING"
    assert run["label"] == ready.api("backends/kaggle")["power"]["launch"]
    assert run["session_s"] == 12 * 3600 - 60
    # What was pushed opens no second session, and nothing else in it is a secret.
    token = carried(account)
    said = {"backend": "kaggle", "url": f"http://{HOST}:1", "started_at": "2026-11-21T00:00:00Z"}
    again = ready.http.post("/register", json=said, headers={"Authorization": f"Bearer {token}"})
    assert again.status_code == 401
    for secret in ready.credentials.values():
        assert secret not in json.dumps(account.seen()["sources"])
    assert token not in ready.log()
    assert account.token not in ready.log()
    [shown] = [one for one in ready.api("tokens") if one["by"] == f"launch {run['label']}"]
    assert shown["revoked_at"] is None
    ready.start("main")
    ready.serves("main")
    until(lambda: account.runs("COMPLETE"), "its agent ended it")
    until(lambda: phase(ready) == "off", "and that is known")
    assert len(account.runs()) == 1
    assert "backend_down" not in {
        one["kind"] for one in ready.api("incidents") if one["subject"] == "kaggle"
    }


def test_what_kaggle_says_is_used_counts(ready, account):
    account.tell(used_h=12.5)
    ready.crash()
    ready.launch()

    def hours():
        return next(one for one in ready.api("meters") if one["key"] == "kaggle:hours")

    until(lambda: hours()["used"] == pytest.approx(12.5, abs=0.1), "its figure is taken")


def test_a_spent_quota_is_told_and_nothing_is_pushed_again(ready, account):
    account.tell(used_h=30.0)
    ready.stop_backend("main")
    until(lambda: "SaveKernel" in account.seen()["asked"], "it was tried")
    until(lambda: "quota" in ready.api("backends/kaggle")["power"]["detail"], "it is told")
    assert account.runs() == []
    assert account.seen()["asked"].count("SaveKernel") == 1


@pytest.mark.timeout(600)
def test_one_that_serves_is_stopped_when_kaggle_says_that_the_week_is_used_up(ready, account):
    ready.stop_backend("main")
    ready.serves("kaggle")
    account.tell(used_h=30.0)
    ready.crash()
    ready.launch()  # which asks Kaggle at once, and not in five minutes
    until(lambda: account.runs("COMPLETE"), "its agent ended it", within_s=90)
    until(lambda: phase(ready) == "off", "and that is known")
    assert "meter_spent" in {event["action"] for event in ready.api("events", limit=1000)}
    assert account.seen()["asked"].count("SaveKernel") == 1


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fate", ["slow", 4.0], ids=["after the push", "on its way"])
def test_a_daemon_killed_while_it_pushes_does_not_push_again(ready, account, fate):
    account.tell(fates={"SaveKernel": [fate]})
    ready.stop_backend("main")
    until(lambda: "SaveKernel" in account.seen()["asked"], "it pushes", every_s=0.005)
    ready.crash()
    assert ready.daemon.child.returncode == -signal.SIGKILL
    ready.launch()
    ready.serves("kaggle", within_s=150)
    assert len(account.runs()) == 1
    assert account.seen()["asked"].count("SaveKernel") == 1


@pytest.mark.timeout(600)
def test_an_orphan_of_a_restored_database_ends_within_ten_minutes(ready, account, tmp_path):
    ready.stop()
    shutil.copytree(ready.state, tmp_path / "before")
    ready.launch()
    ready.serves("main")
    ready.stop_backend("main")
    ready.serves("kaggle")
    ready.crash()
    shutil.rmtree(ready.state)
    shutil.copytree(tmp_path / "before", ready.state)
    ready.start("main")
    ready.launch()
    ready.serves("main")
    until(lambda: account.runs("COMPLETE"), "its agent was let in no more", within_s=120)
    until(lambda: phase(ready) == "off", "and it is known to be off", within_s=120)
    assert len(account.runs()) == 1


# ── docs/kaggle.md ──────────────────────────────────────────────────────────────────────────────


def blocks(language: str) -> list[str]:
    """What the page has to type or to write, in order."""
    page = (ROOT / "docs/kaggle.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


def test_what_the_page_says_works_as_it_is_printed(world, account, tmp_path):
    [table] = blocks("toml")
    commands = [line for text in blocks("sh") for line in text.splitlines()]
    asked, kept, *looks = commands
    more = {
        "engine": "openai",
        "models": ["demo-model"],
        "session": "700h",
        "start": "manual",
        "api": account.api,
        **here(world.start("engine")),
    }
    world.tables["backends.kaggle"] = {**tomllib.loads(table)["backends"]["kaggle"], **more}
    world.tables["services.chat"] = {"backends": ["kaggle"]}
    world.server["public_url"] = world.url
    world.write()
    (tmp_path / "kaggle.json").write_text(account.file)

    def types(line: str) -> subprocess.CompletedProcess:
        program, *words = shlex.split(line)
        assert program == "aion"
        return subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "--config", str(world.config), *words],
            capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
            env=_environment(STATE_DIRECTORY=str(world.state)), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    assert asked == "aion secret set kaggle"
    ran = types(kept)
    assert ran.returncode == 0, ran.stderr
    world.boot(wait=False)
    until(lambda: world.http.get("/healthz").status_code == 200, "the daemon answers")
    until(lambda: phase(world) == "off", "its status is known")
    said = {}
    for line in looks:
        ran = types(line)
        assert ran.returncode in ((0, 1) if line == "aion doctor" else (0, 3)), ran.stderr
        said[line] = ran.stdout + ran.stderr
    assert "kaggle kaggle: Kaggle takes the key" in said["aion doctor"]
    assert "30.0 of 30 h are left this week" in said["aion doctor"]
    assert "terms of kaggle" in said["aion doctor"]
    assert "being started" in said["aion backend start kaggle -y"]
    world.serves("kaggle")
    assert len(account.runs("RUNNING")) == 1
