"""The kind `runpod` against a stand-in that is as strict as its document (`tests.standins.runpod`)."""

import asyncio
import time  # noqa: TID251 - how long a decision takes to be a request
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import ValidationError

import backends
from backends.base import Launch
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Verdict
from orchestrator.core.powering import Snag
from orchestrator.edge.http import AioHttp
from tests.backends.worlds import plan, ports
from tests.standins.rest import Fault
from tests.standins.runpod import KEY, NO_LONGER, NO_MONEY, POD, READ_BACK, STOCKOUT, RunpodStandin

LABEL, OTHER = "aion-home-lab-7", "aion-home-lab-8"
MADE = {"image": "vllm/vllm-openai:latest", "gpu": ["NVIDIA L4", "NVIDIA RTX A4000"]}
START = f"POST /v1/pods/{POD}/start"


@asynccontextmanager
async def rented(**keys):
    keys = {"port": 8000, **keys}
    keys.setdefault("pod", None if "image" in keys else POD)
    async with RunpodStandin() as there, AioHttp() as http:
        made = plan(
            "runpod",
            secrets={"api_key": KEY},
            **{"api": there.api, "api_key": {"credential": "runpod"}, "url": None, **keys},
        )
        made = replace(made, label="aion-home-lab-")
        one = backends.driver(made, ports(http))
        one.look_s = 0.01
        yield there, one, made


def story(coroutine):
    return asyncio.run(coroutine)


# ── one pod, again and again ────────────────────────────────────────────────────────────────────


def test_a_pod_bears_the_label_while_it_runs_and_its_own_name_afterwards():
    async def main():
        async with rented() as (there, one, _):
            await one.start(Launch(LABEL))
            assert there.pods[POD]["name"] == f"my pod {LABEL}"
            # The label is there before the pod runs: what is lost between them costs nothing.
            patched = there.requests.index(f"PATCH /v1/pods/{POD}")
            assert patched < there.requests.index(START)
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF
            assert there.pods[POD]["name"] == "my pod"

    story(main())


def test_a_start_that_is_refused_leaves_no_label_behind():
    async def main():
        async with rented() as (there, one, _):
            there.faults.append(Fault(START, 500, STOCKOUT))
            report = await one.start(Launch(LABEL))
            assert report.snag is Snag.STOCKOUT
            assert "not enough free GPUs" in report.detail
            assert there.pods[POD]["name"] == "my pod"

    story(main())


@pytest.mark.parametrize(
    ("on", "fault", "snag", "runs"),
    [
        (f"PATCH /v1/pods/{POD}", {"status": 0}, Snag.TRANSIENT, 0),
        (f"PATCH /v1/pods/{POD}", {"status": 0, "done": True}, Snag.TRANSIENT, 0),
        (f"GET /v1/pods/{POD}", {"status": 503, "body": "<html></html>"}, Snag.TRANSIENT, 0),
        (START, {"status": 500, "body": READ_BACK}, Snag.LOST, 0),
        (START, {"status": 500, "body": READ_BACK, "done": True}, Snag.LOST, 1),
        (START, {"status": 502, "body": "<html>Bad Gateway</html>"}, Snag.LOST, 0),
        (START, {"status": 0, "done": True}, Snag.LOST, 1),
        (START, {"status": 500, "body": NO_MONEY}, Snag.QUOTA, 0),
        (START, {"status": 400, "body": {"error": "Invalid Pod ID."}}, Snag.DENIED, 0),
    ],
)
def test_only_of_the_start_itself_it_may_not_be_known_whether_it_was_made(on, fault, snag, runs):
    async def main():
        async with rented() as (there, one, _):
            there.faults.append(Fault(on, **fault))
            assert (await one.start(Launch(LABEL))).snag is snag
            assert len(there.running()) == runs
            assert there.requests.count(START) <= 1

    story(main())


def test_a_pod_that_somebody_else_started_is_not_ours_and_not_stopped():
    async def main():
        async with rented() as (there, one, _):
            there.run(there.pods[POD])
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.ON, "")
            taken = await one.start(Launch(LABEL))
            assert taken.snag is Snag.TRANSIENT
            assert "somebody else" in taken.detail
            left = await one.stop(LABEL)
            assert (left.phase, left.detail) == (PowerPhase.OFF, "somebody else started it")
            assert len(there.running()) == 1
            assert there.pods[POD]["name"] == "my pod"

    story(main())


def test_without_renaming_what_runs_is_taken_for_what_was_started():
    async def main():
        async with rented(rename=False) as (there, one, _):
            there.faults.append(Fault(START, 0, done=True))
            assert (await one.start(Launch(LABEL))).snag is Snag.LOST
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.ON, "")
            assert (await one.start(Launch(LABEL))).phase is PowerPhase.ON
            assert there.requests.count(START) == 1
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF
            assert not there.running()
            assert there.pods[POD]["name"] == "my pod"

    story(main())


def test_a_pod_that_was_deleted_by_hand_is_off_and_cannot_be_started():
    async def main():
        async with rented() as (there, one, _):
            await one.start(Launch(LABEL))
            del there.pods[POD]
            seen = await one.status()
            assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE)
            assert seen.detail == f"there is no pod {POD} in this account"
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF
            again = await one.start(Launch(OTHER))
            assert again.snag is Snag.DENIED
            assert again.detail == seen.detail

    story(main())


@pytest.mark.parametrize("body", [{"pods": []}, [], "null", "<html>", {"desiredStatus": 7}])
def test_an_answer_that_is_no_pod_is_never_taken_for_off(body):
    async def main():
        async with rented() as (there, one, _):
            there.faults.append(Fault("GET", 200, body))
            seen = await one.status()
            assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)

    story(main())


def test_its_address_is_the_proxys_or_the_one_that_its_port_got():
    async def main():
        async with rented() as (there, one, _):
            await one.start(Launch(LABEL))
            assert (await one.status()).address == f"https://{POD}-8000.proxy.runpod.net"
        async with rented(via="ip") as (there, one, _):
            await one.start(Launch(LABEL))
            assert (await one.status()).phase is PowerPhase.STARTING  # it has none yet
            there.pods[POD] |= {"publicIp": "100.65.0.119", "portMappings": {"8000": 10341}}
            seen = await one.status()
            assert (seen.phase, seen.address) == (PowerPhase.ON, "http://100.65.0.119:10341")
        async with rented(url="http://10.0.0.9:1") as (_, one, _made):
            await one.start(Launch(LABEL))
            assert (await one.status()).address == ""
            assert (await one.probe()).verdict is Verdict.FAILED

    story(main())


# ── one that is made ────────────────────────────────────────────────────────────────────────────


def test_a_pod_is_made_under_its_label_in_one_request_and_deleted_at_the_stop():
    async def main():
        keys = {"env": {"MODEL": "qwen"}, "disk": 60, "volume": "agv6w2qcg7", "spot": True}
        async with rented(**MADE, **keys) as (there, one, _):
            assert (await one.status()).phase is PowerPhase.OFF
            taken = await one.start(Launch(LABEL))
            assert (taken.phase, taken.snag) == (PowerPhase.STARTING, Snag.NONE)
            (pod,) = there.running()
            assert pod["asked"] == {
                "name": LABEL,
                "cloudType": "SECURE",
                "gpuTypeIds": MADE["gpu"],
                "gpuTypePriority": "custom",
                "interruptible": True,
                "imageName": MADE["image"],
                "containerDiskInGb": 60,
                "networkVolumeId": "agv6w2qcg7",
                "env": {"MODEL": "qwen"},
                "ports": ["8000/http"],
            }
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
            assert seen.address == f"https://{pod['id']}-8000.proxy.runpod.net"
            assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
            assert pod["id"] not in there.pods
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    story(main())


def test_a_pod_that_is_made_finds_its_token_and_its_limit_in_its_environment():
    async def main():
        async with rented(**MADE, registers=True, port=None) as (there, one, made):
            assert one.carries_token
            await one.start(Launch(LABEL, 5400.4, "token-of-this-launch"))
            (pod,) = there.running()
            assert pod["asked"]["env"] == {
                "AION_TOKEN": "token-of-this-launch",
                "AION_MAX_RUN_S": "5400",
            }
            assert "ports" not in pod["asked"]
            assert made.options.env == {}
            assert "token-of-this-launch" not in repr(await one.status())
        for keys in ({}, {"registers": True, "port": None}):
            async with rented(**keys) as (_, one, _made):
                assert not one.carries_token

    story(main())


def test_what_is_free_is_looked_for_in_every_cloud_before_it_is_a_stockout():
    async def main():
        async with rented(**MADE, cloud=["secure", "community"]) as (there, one, _):
            there.faults.append(Fault("POST /v1/pods$", 400, NO_LONGER))
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            (pod,) = there.running()
            assert pod["cloud"] == "COMMUNITY"
            await one.stop(LABEL)
            there.stock = set()
            report = await one.start(Launch(OTHER))
            assert report.snag is Snag.STOCKOUT
            assert there.requests.count("POST /v1/pods") == 4

    story(main())


def test_the_second_gpu_is_taken_where_the_first_is_not_free():
    async def main():
        async with rented(**MADE) as (there, one, _):
            there.stock = {"NVIDIA RTX A4000"}
            await one.start(Launch(LABEL))
            assert [pod["gpu"] for pod in there.running()] == ["NVIDIA RTX A4000"]

    story(main())


@pytest.mark.parametrize("status", [0, 500])
def test_a_pod_whose_making_was_answered_wrong_is_found_by_its_label_and_not_made_again(status):
    # transformerlab/transformerlab-app #2305: HTTP 500 though the pod was made
    async def main():
        async with rented(**MADE, cloud=["secure", "community"]) as (there, one, _):
            there.faults.append(Fault("POST /v1/pods$", status, READ_BACK, done=True))
            taken = await one.start(Launch(LABEL))
            assert (taken.phase, taken.launch, taken.snag) == (PowerPhase.ON, LABEL, Snag.NONE)
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            assert there.requests.count("POST /v1/pods") == 1
            assert len(there.pods) == 2  # the operator's own, and one

    story(main())


def test_a_pod_that_is_not_to_be_seen_yet_is_not_known_to_be_missing():
    async def main():
        async with rented(**MADE, cloud=["secure", "community"]) as (there, one, _):
            there.faults.append(Fault("POST /v1/pods$", 500, READ_BACK))
            assert (await one.start(Launch(LABEL))).snag is Snag.LOST
            assert there.requests.count("GET /v1/pods") == 4
            there.faults.append(Fault("POST /v1/pods$", 500, READ_BACK, done=True))
            there.faults.append(Fault("GET /v1/pods$", 502, "<html></html>", skip=1, times=2))
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE

    story(main())


def test_pods_of_others_in_the_same_account_are_neither_seen_nor_touched():
    async def main():
        async with rented(**MADE) as (there, one, _):
            for name in ("aion-other-lab-3", "aion-home-lab2-3", "aion-home-lab-x", "my pod"):
                there.pods[name] = there._pod(name, name, desiredStatus="RUNNING")
            assert (await one.status()).phase is PowerPhase.OFF
            await one.start(Launch(LABEL))
            assert (await one.status()).launch == LABEL
            assert (await one.stop("")).phase is PowerPhase.STOPPING
            assert len(there.pods) == 5
            assert "DELETE" not in {asked.split()[0] for asked in there.requests[:-1]}

    story(main())


def test_one_that_was_forgotten_is_told_one_after_the_other_and_no_other_is_made_beside_it():
    async def main():
        async with rented(**MADE) as (there, one, _):
            for name in (OTHER, LABEL):
                there.pods[name] = there._pod(name, name, desiredStatus="RUNNING")
            assert (await one.status()).launch == LABEL
            assert (await one.start(Launch("aion-home-lab-9"))).snag is Snag.TRANSIENT
            await one.stop(LABEL)
            assert (await one.status()).launch == OTHER
            await one.stop(OTHER)
            assert (await one.status()).phase is PowerPhase.OFF

    story(main())


def test_what_came_late_is_deleted_with_the_launch_that_was_made_after_it():
    async def main():
        async with rented(**MADE) as (there, one, _):
            for name in (LABEL, OTHER, "aion-home-lab-9"):
                there.pods[name] = there._pod(name, name, desiredStatus="RUNNING")
            assert (await one.stop(OTHER)).phase is PowerPhase.STOPPING
            assert [pod["name"] for pod in there.running()] == ["aion-home-lab-9"]
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    story(main())


def test_what_runpod_itself_stopped_is_off_its_disk_is_told_of_and_gone_at_the_next_start():
    async def main():
        async with rented(**MADE, spot=True) as (there, one, _):
            await one.start(Launch(LABEL))
            (pod,) = there.running()
            pod["desiredStatus"] = "EXITED"
            seen = await one.status()
            assert seen.phase is PowerPhase.OFF
            assert seen.detail == f"stopped by RunPod, its disk still costs: {pod['id']}"
            assert (await one.start(Launch(OTHER))).snag is Snag.NONE
            assert pod["id"] not in there.pods
            assert [one["name"] for one in there.running()] == [OTHER]

    story(main())


# ── what is configured, what is checked, how long it takes ──────────────────────────────────────


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "either `pod`"),
        ({"pod": POD, "image": "x"}, "either `pod`"),
        ({"image": "x"}, "it needs `gpu`"),
        ({"pod": POD}, "it needs `port`"),
        ({"pod": "../x", "port": 1}, "pattern"),
        ({"pod": POD, "port": 1, "api": "http://rest.example.org"}, "https://"),
        ({"image": "x", "gpu": ["y"], "port": 1, "cloud": []}, "empty list"),
        ({"pod": POD, "port": 1, "api_key": "rpa_123"}, "not written in the file"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, why):
    options = backends.options("runpod")
    with pytest.raises(ValidationError, match=why):
        options(**{"api_key": {"credential": "k"}, **keys})


def test_the_doctor_says_what_it_costs_and_what_is_missing():
    async def main():
        async with rented() as (there, _, made), AioHttp() as http:
            world = ports(http)
            look = backends.checks("runpod")
            fine = await look(made, world)
            assert [one.ok for one in fine] == [True, True, None]
            assert "0.69 USD an hour" in fine[1].what
            there.faults.append(Fault("GET", 401, {"error": "unauthorized"}))
            (denied,) = await look(made, world)
            assert denied.ok is False
            assert denied.remedy.endswith("aion secret set runpod")
            del there.pods[POD]
            (gone,) = await look(made, world)
            assert (gone.ok, gone.remedy) == (False, "correct `pod`")
            assert all(asked.startswith("GET") for asked in there.requests)

    story(main())


def test_from_the_decision_to_the_request_it_is_less_than_a_second():
    async def main():
        async with rented() as (there, one, _):
            began = time.perf_counter()
            await one.start(Launch(LABEL))
            assert START in there.requests
            return time.perf_counter() - began

    assert any(story(main()) < 1.0 for _ in range(5))  # a busy machine may be slow at times
