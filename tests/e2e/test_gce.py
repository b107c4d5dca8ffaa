"""A real daemon and a machine at Google: a stand-in holds it, and a real engine answers on it."""

import re
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib

import httpx
import pytest

from tests.e2e.kit import ROOT, Process, _environment, free_port, until

HERE, THERE = "europe-west4-a", "europe-west4-b"
GATEWAY = "93.184.216.99"
pytestmark = pytest.mark.timeout(600)
WITHIN_S = 240.0  # what went off soon after its start is started again a minute later


class Google:
    """The stand-in as a child, controlled by HTTP."""

    def __init__(self) -> None:
        self.port = free_port()
        script = str(ROOT / "tests/standins/gce.py")
        self._process = Process(script, "--port", "0", "--engine", str(self.port))
        said = self._process.first_line()
        self.url, self.account = said["url"], said["account"]

    def tell(self, **wish) -> None:
        httpx.post(f"{self.url}/_control", json=wish).raise_for_status()

    def seen(self) -> dict:
        return httpx.get(f"{self.url}/_control").json()

    def running(self) -> list[str]:
        machines = self.seen()["machines"]
        return [one["zone"] for one in machines if one["status"] != "TERMINATED"]

    def asked(self, call: str) -> list[dict]:
        return [one for one in self.seen()["asked"] if one["call"] == call]

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture
def google(world):
    """One instance in each of two zones, as a backend behind the one that is there."""
    made = Google()
    world._others.append(made)
    machines = [{"zone": HERE, "name": "gpu-1"}, {"zone": THERE, "name": "gpu-2"}]
    made.tell(machines=machines, address="127.0.0.1", boot_s=0.3, stop_s=0.3)
    world.credentials["gcp"] = made.account
    world.serve_from("main")
    world.tables["backends.vm"] = {
        "kind": "gce",
        "engine": "openai",
        "project": "my-project",
        "instance": [f"{HERE}/gpu-1", f"{THERE}/gpu-2"],
        "port": made.port,
        "account": {"credential": "gcp"},
        "api": made.url,
        "priority": 50,
        "tier": "credit",
        "models": ["demo-model"],
        "start": "auto",
        "idle_stop": "3s",
        "cost": {"per_hour": 0.35, "limit": 300},
    }
    return made


def power(world):
    return world.api("backends/vm")["power"]


def ready(world):
    world.boot()
    world.serves("main")
    until(lambda: power(world)["phase"] == "off", "its status is known", WITHIN_S)


def test_a_machine_in_the_second_zone_takes_over_and_its_address_is_the_names(world, google):
    dns = world.cloudflare(gateway=GATEWAY, private=True)
    world.tables["backends.vm"]["dns"] = {"follow": True}
    ready(world)
    google.tell(faults=[{"call": "start", "what": "stockout", "zone": HERE}])
    world.stop_backend("main")
    world.serves("vm", WITHIN_S)
    assert google.running() == [THERE]
    assert [one["zone"] for one in google.asked("start")] == [HERE, THERE]
    (limit,) = {one["body"]["maxRunDuration"]["seconds"] for one in google.asked("setScheduling")}
    assert int(limit) <= 120 * 86400
    until(lambda: dns.resolve() == ["127.0.0.1"], "the name points at the machine")
    launch = power(world)["launch"]
    assert launch.startswith("aion-")
    labels = [one["labels"] for one in google.seen()["machines"] if one["zone"] == THERE]
    assert labels == [{"team": "ai", "aion-launch": launch}]
    world.start("main")
    world.serves("main")
    until(lambda: not google.running(), "it is stopped, for nobody needs it", WITHIN_S)
    assert dns.resolve() == ["93.184.216.1"]
    until(lambda: power(world)["phase"] == "off", "and known to be off", WITHIN_S)
    assert "backend_down" not in {
        one["kind"] for one in world.api("incidents") if one["subject"] == "vm"
    }


def test_a_daemon_killed_between_the_start_and_its_answer_starts_it_once(world, google):
    world.tables["backends.vm"]["idle_stop"] = "10m"
    ready(world)
    google.tell(victim=world.daemon.pid, faults=[{"call": "start", "what": "kill"}])
    world.stop_backend("main")
    assert world.daemon.close() == -signal.SIGKILL
    assert google.seen()["launches"] == 1
    world.launch()
    world.serves("vm", WITHIN_S)
    assert google.seen()["launches"] == 1
    assert len(google.running()) == 1


def test_a_machine_that_google_took_back_is_a_session_that_ended(world, google):
    world.tables["backends.vm"]["idle_stop"] = "10m"
    ready(world)
    world.stop_backend("main")
    world.serves("vm", WITHIN_S)
    google.tell(preempt=[HERE, "gpu-1"])
    until(lambda: google.seen()["launches"] == 2, "it is started anew", WITHIN_S)
    world.serves("vm", WITHIN_S)
    told = "\n".join(str(one) for one in world.api("events", limit=1000))
    assert "could not be started" not in told, told
    assert "start_failed" not in world.kinds()


def test_a_machine_that_somebody_deleted_is_told_and_nothing_else_breaks(world, google):
    del world.tables["backends.vm"]["instance"]
    world.tables["backends.vm"] |= {"zone": HERE, "instance": "gpu-1"}
    google.tell(remove=[HERE, "gpu-1"])
    ready(world)
    world.stop_backend("main")
    until(lambda: "start_failed" in world.kinds(), "it is told", WITHIN_S)
    assert "there is no instance" in power(world)["detail"]
    shown = world.aion("doctor").stdout
    assert "there is no instance europe-west4-a/gpu-1" in shown


# ── docs/gcp.md ─────────────────────────────────────────────────────────────────────────────────


def blocks(language):
    """What the page has to type or to write, in order."""
    page = (ROOT / "docs/gcp.md").read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


def phase(world):
    return world.api("backends/gpu-vm")["power"]["phase"]


def test_what_the_page_says_works_as_it_is_printed(world, google, tmp_path):
    [table] = blocks("toml")
    commands = [line for text in blocks("sh") for line in text.splitlines()]
    more = {"engine": "openai", "models": ["demo-model"], "port": google.port, "api": google.url}
    del world.tables["backends.vm"]
    given = tomllib.loads(table)["backends"]["gpu-vm"]
    assert given["cost"].pop("expires").year > 2026  # the kit writes no dates
    world.tables["backends.gpu-vm"] = {**given, **more, "start": "manual"}
    world.write()
    (tmp_path / "gcp.json").write_text(google.account)
    (world.folder / "credentials" / "gcp").unlink()
    said, booted = {}, False
    for line in commands:
        program, *words = shlex.split(line)
        if program == "gcloud":  # Google's own; that they are one line each is all we can see
            assert words[0] in {"services", "iam", "projects", "compute"}
            continue
        if words[:2] == ["backend", "start"] and not booted:
            booted = bool(world.boot())
            until(lambda: phase(world) == "off", "its status is known", WITHIN_S)
        ran = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "--config", str(world.config), *words],
            capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
            env=_environment(STATE_DIRECTORY=str(world.state)), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ran.returncode in ((0, 1) if words == ["doctor"] else (0,)), ran.stderr
        said[line] = ran.stdout + ran.stderr
        if words[:2] == ["backend", "start"]:
            until(lambda: world.health_of("gpu-vm") == "up", "it is up", WITHIN_S)
    assert (
        "gce gpu-vm: on europe-west4-a/gpu-1 the credential may do what is needed"
        in (said["aion doctor"])
    )
    assert "quota NVIDIA_T4_GPUS in europe-west4: 1, 0 used" in said["aion doctor"]
    assert re.search(r"aion-\S+-gpu-vm-\d+", said["aion backend show gpu-vm"])
    until(lambda: not google.running(), "it is stopped", WITHIN_S)
    (scheduled,) = google.asked("setScheduling")
    assert int(scheduled["body"]["maxRunDuration"]["seconds"]) == 8 * 3600
