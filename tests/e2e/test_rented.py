"""A real daemon rents: stand-ins of two providers, real engines behind the addresses they give."""

import shutil
import signal

import httpx
import pytest

from tests.e2e.kit import ROOT, Process, until
from tests.standins import runpod, vast

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
    world.serves("box", within_s=60)
    assert "nothing is free" in world.api("backends/pod")["power"]["detail"]
    assert "not enough free GPUs" in world.api("backends/pod")["power"]["detail"]
    (label,) = boxes.seen()["began"]
    assert label.split()[-1] == world.api("backends/box")["power"]["launch"]
    assert pods.seen()["began"] == []
    assert pods.seen()["pods"][0]["name"] == "my pod"
    world.start("main")
    world.serves("main")
    until(lambda: boxes.seen()["instances"][0]["cur_state"] == "stopped", "it is given back", 60)
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
    world.serves("pod", within_s=60)
    assert pods.asked("POST /v1/pods") == 1
    assert len(running(pods)) == 1
    actions = [one["action"] for one in world.api("events", limit=1000)]
    assert "power_unknown" in actions
    assert actions.count("power_start") == 1
    world.start("main")
    world.serves("main")
    until(lambda: len(pods.seen()["pods"]) == 1, "the pod is deleted", 60)


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
    world.serves("pod", within_s=60)
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
    world.serves("pod", within_s=60)
    until(lambda: phase(world, "pod") == "on", "it is known")
    assert world.api("backends/pod")["power"]["launch"] == pod["name"]
    assert pods.asked("POST /v1/pods") == 1
    if forgotten:
        found = [one["action"] for one in world.api("events", limit=1000)]
        assert "power_found" in found
        assert "power_adopted" in found
    world.start("main")
    world.serves("main")
    until(lambda: running(pods) == [], "it is given back", 60)
    assert pods.asked("POST /v1/pods") == 1
