"""A real daemon rents: stand-ins of two providers, real engines behind the addresses they give."""

import asyncio
import json
import re
import shutil
import signal
import textwrap
import threading
import tomllib

import httpx
import pytest

from tests.e2e.kit import ROOT, Process, until
from tests.standins import ec2, runpod, vast

POD, BOX = runpod.POD, vast.INSTANCE


class Provider:
    """A stand-in as a process; `seen()` is its truth."""

    def __init__(self, name: str) -> None:
        self.process = Process(str(ROOT / f"tests/standins/{name}.py"))
        self.url = self.process.first_line()["url"]

    def seen(self) -> dict:
        return httpx.get(f"{self.url}/_control").json()

    def tell(self, **wish) -> dict:
        return httpx.post(f"{self.url}/_control", json=wish).json()

    def fault(self, on: str, **more) -> None:
        self.tell(fault={"on": on, **more})

    def asked(self, what: str) -> int:
        return self.seen()["requests"].count(what)

    def kill(self) -> None:
        self.process.kill()


@pytest.fixture
def rents(world):
    """Make a stand-in whose machine has a real engine, and configure a backend on it."""

    def make(name, kind, priority, **keys):
        made = Provider(kind)
        world._others.append(made)
        port = world.start(f"engine-of-{name}")
        made.tell(mapped={"8000": port}, quick=True)
        world.credentials[kind] = {"runpod": runpod.KEY, "vast": vast.KEY}[kind]
        root = {"runpod": "/v1", "vast": ""}[kind]
        world.tables[f"backends.{name}"] = {
            "kind": kind,
            "engine": "openai",
            "api_key": {"credential": kind},
            "api": made.url + root,
            "port": 8000,
            "priority": priority,
            "tier": "paid",
            "models": ["demo-model"],
            "start": "auto",
            "idle_stop": "3s",
            **keys,
        }
        return made

    return make


MADE = {"via": "ip", "image": "vllm/vllm-openai:latest", "gpu": ["NVIDIA L4"]}


def phase(world, name):
    return world.api(f"backends/{name}")["power"]["phase"]


def running(pods):
    return [pod for pod in pods.seen()["pods"] if pod["desiredStatus"] == "RUNNING"]


def test_where_the_first_has_no_gpu_the_second_is_rented_and_given_back_when_it_is_idle(
    world, rents
):
    world.serve_from("main")
    pods = rents("pod", "runpod", 50, pod=POD, via="ip")
    boxes = rents("box", "vast", 60, instance=BOX)
    pods.fault(f"POST /v1/pods/{POD}/start", status=500, body=runpod.STOCKOUT)
    world.boot()
    world.serves("main")
    until(lambda: (phase(world, "pod"), phase(world, "box")) == ("off", "off"), "both are known")
    assert pods.seen()["began"] == boxes.seen()["began"] == []
    world.stop_backend("main")
    world.serves("box")
    assert "nothing is free" in world.api("backends/pod")["power"]["detail"]
    assert "not enough free GPUs" in world.api("backends/pod")["power"]["detail"]
    (label,) = boxes.seen()["began"]
    assert label.split()[-1] == world.api("backends/box")["power"]["launch"]
    assert pods.seen()["began"] == []
    assert pods.seen()["pods"][0]["name"] == "my pod"
    world.start("main")
    world.serves("main")
    until(lambda: boxes.seen()["instances"][0]["cur_state"] == "stopped", "it is given back")
    until(lambda: phase(world, "box") == "off", "and known to be")
    assert boxes.seen()["instances"][0]["label"] == "my box"
    assert len(boxes.seen()["began"]) == 1


def test_a_pod_whose_making_was_answered_with_an_error_is_found_and_not_made_again(world, rents):
    world.serve_from("main")
    pods = rents("pod", "runpod", 50, **MADE)
    pods.fault("POST /v1/pods$", status=500, body=runpod.READ_BACK, done=True)
    world.boot()
    world.serves("main")
    until(lambda: phase(world, "pod") == "off", "it is known")
    world.stop_backend("main")
    world.serves("pod")
    assert pods.asked("POST /v1/pods") == 1
    assert len(running(pods)) == 1
    world.start("main")
    world.serves("main")
    until(lambda: len(pods.seen()["pods"]) == 1, "the pod is deleted")


def test_a_start_whose_answer_is_lost_is_looked_into_and_not_repeated(world, rents):
    world.serve_from("main")
    pods = rents("pod", "runpod", 50, pod=POD, via="ip")
    pods.fault(f"POST /v1/pods/{POD}/start", status=0, done=True)
    world.boot()
    world.serves("main")
    until(lambda: phase(world, "pod") == "off", "it is known")
    world.stop_backend("main")
    world.serves("pod")
    assert pods.asked(f"POST /v1/pods/{POD}/start") == 1
    actions = [one["action"] for one in world.api("events", limit=1000)]
    assert "power_unknown" in actions
    assert actions.count("power_start") == 1


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_daemon_that_was_killed_takes_its_pod_back_and_does_not_rent_another(
    world, rents, forgotten
):
    world.serve_from("main")
    pods = rents("pod", "runpod", 50, **MADE)
    world.boot(AION_INSTANCE="home")
    world.serves("main")
    until(lambda: phase(world, "pod") == "off", "it is known")
    world.stop_backend("main")
    world.serves("pod")
    (pod,) = running(pods)
    assert pod["name"].startswith("aion-home-pod-")
    world.daemon.signal(signal.SIGKILL)
    assert world.daemon.close() == -signal.SIGKILL
    assert [one["id"] for one in running(pods)] == [pod["id"]]
    if forgotten:  # as after a restore from an old backup
        shutil.rmtree(world.state)
        world.state.mkdir(mode=0o700)
        shutil.copy(world.fresh, world.state / "aion.db")
    world.launch(AION_INSTANCE="home")
    world.serves("pod")
    until(lambda: phase(world, "pod") == "on", "it is known")
    assert world.api("backends/pod")["power"]["launch"] == pod["name"]
    assert pods.asked("POST /v1/pods") == 1
    if forgotten:
        found = [one["action"] for one in world.api("events", limit=1000)]
        assert "power_found" in found
        assert "power_adopted" in found
    world.start("main")
    world.serves("main")
    until(lambda: running(pods) == [], "it is given back")
    assert pods.asked("POST /v1/pods") == 1


# ── the page about it ───────────────────────────────────────────────────────────────────────────


class Aws:
    """EC2's stand-in, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.ec2 = ec2.Ec2()
        self._await(self.ec2.__aenter__())

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(90)

    def runs(self) -> list[str]:
        return self._await(ec2.Truth(self.ec2).runs())

    def kill(self) -> None:
        self._await(self.ec2.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def printed() -> tuple[dict, list[str]]:
    """What the page prints: its backends, and the verbs of `aion` in its boxes."""
    page = textwrap.dedent(re.sub(r"(?m)^   ", "", (ROOT / "docs/rented.md").read_text()))
    boxes = re.findall(r"```(toml|sh)\n(.*?)```", page, re.DOTALL)
    tables = [tomllib.loads(text)["backends"] for kind, text in boxes if kind == "toml"]
    lines = [line for kind, text in boxes if kind == "sh" for line in text.splitlines()]
    verbs = [line.removeprefix("aion ") for line in lines if line.startswith("aion ")]
    return {name: table for each in tables for name, table in each.items()}, verbs


def test_what_the_page_about_rented_gpus_prints_works_as_printed(world):
    backends, verbs = printed()
    assert list(backends) == ["pod", "made", "box", "vm"]
    pods, boxes, aws = Provider("runpod"), Provider("vast"), Aws()
    world._others += [pods, boxes, aws]
    apis = {"pod": f"{pods.url}/v1", "made": f"{pods.url}/v1", "box": boxes.url, "vm": aws.ec2.url}
    for name, table in backends.items():
        given = {key: value for key, value in table.items() if key != "start"}
        world.tables[f"backends.{name}"] = {**given, "api": apis[name], "start": "manual"}
    keys = {"runpod": runpod.KEY, "vast": vast.KEY, "aws": json.dumps(ec2.ACCOUNT)}
    world.serve_from("main")
    world.credentials |= {name: key for name, key in keys.items() if name != "runpod"}
    (world.folder / "runpod.key").write_text(runpod.KEY + "\n")
    secret, check, doctor, *rest = verbs
    world.write()
    done = world.aion(*secret.replace("runpod.key", f"{world.folder}/runpod.key").split())
    assert done.returncode == 0, done.stderr
    world.boot()
    world.serves("main")
    assert world.aion(*check.split()).returncode == 0
    looked = world.aion(*doctor.split()).stdout
    assert "RunPod takes the key" in looked
    assert "0.69 USD an hour" in looked
    assert "vast.ai takes the key" in looked
    assert "ec2 takes the account" in looked
    until(lambda: {phase(world, name) for name in backends} == {"off"}, "all are known")
    for verb in rest:
        done = world.aion(*verb.split())
        assert done.returncode == 0, done.stderr
        if verb.startswith("backend start"):
            until(lambda: running(pods), "it runs")
    until(lambda: not running(pods), "it is stopped")
    for name, runs in (
        ("made", lambda: [pod for pod in running(pods) if pod["name"].startswith("aion-")]),
        ("box", lambda: boxes.seen()["began"]),
        ("vm", aws.runs),
    ):
        assert world.aion("backend", "start", name, "-y").returncode == 0
        until(runs, f"{name} runs")
    assert world.aion("backend", "stop", "vm", "-y").returncode == 0
    until(lambda: aws.runs() == [], "that is stopped too")
