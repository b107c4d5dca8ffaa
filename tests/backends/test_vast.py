"""The kind `vast` against a stand-in that is as strict as its documents (`tests.standins.vast`)."""

import asyncio
import time  # noqa: TID251 - how long a decision takes to be a request
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

import backends
from backends.base import Launch
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag
from orchestrator.edge.http import AioHttp
from tests.backends.worlds import plan, ports
from tests.standins.rest import Fault
from tests.standins.vast import INSTANCE, KEY, NO_CREDIT, VastStandin

LABEL = "aion-home-lab-7"
PUT = f"PUT /api/v0/instances/{INSTANCE}/"


@asynccontextmanager
async def rented(**keys):
    async with VastStandin() as there, AioHttp() as http:
        given = {"api": there.api, "api_key": {"credential": "vast"}, "instance": INSTANCE}
        made = plan(
            "vast", secrets={"api_key": KEY}, **{"url": None, "port": 8000, **given, **keys}
        )
        one = backends.driver(made, ports(http))
        one.pace_s = 0.01
        yield there, one, made


def test_state_and_label_are_set_in_one_request_and_the_label_comes_off_after_the_stop():
    async def main():
        async with rented() as (there, one, _):
            box = there.instances[INSTANCE]
            taken = await one.start(Launch(LABEL))
            assert (taken.phase, taken.snag) == (PowerPhase.STARTING, Snag.NONE)
            assert there.requests.count(PUT) == 1
            assert (box["cur_state"], box["label"]) == ("running", f"my box {LABEL}")
            assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
            assert (box["intended_status"], box["label"]) == ("stopped", "my box")
            # Without its label it is known as ours no more, but it is going off all the same.
            assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    asyncio.run(main())


def test_a_start_that_is_queued_is_taken_back_or_it_would_come_when_nobody_needs_it():
    async def main():
        async with rented() as (there, one, _):
            there.full = True
            report = await one.start(Launch(LABEL))
            assert report.snag is Snag.STOCKOUT
            assert "state change queued" in report.detail
            there.control({"free": True})
            assert not there.running()
            assert there.instances[INSTANCE]["label"] == "my box"

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 500, 0])
def test_a_start_that_stays_queued_is_told_as_lost_and_then_as_waiting(status):
    async def main():
        async with rented() as (there, one, _):
            there.full = True
            fault = Fault(PUT, status, {"error": "too_many_requests"}, skip=1, times=2)
            there.faults.append(fault)
            assert (await one.start(Launch(LABEL))).snag is Snag.LOST
            there.instances[INSTANCE]["intended_status"] = "running"  # as while it is scheduled
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.STARTING, LABEL)
            assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
            there.control({"free": True})
            assert not there.running()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "snag", "runs"),
    [
        ({"status": 400, "body": NO_CREDIT}, Snag.QUOTA, 0),
        ({"status": 400, "body": {"success": False, "msg": "Invalid"}}, Snag.DENIED, 0),
        ({"status": 200, "body": {"success": False, "error": "frozen"}}, Snag.DENIED, 0),
        ({"status": 404, "body": {"success": False, "error": "no_such_instance"}}, Snag.DENIED, 0),
        ({"status": 200, "body": {}}, Snag.LOST, 0),
        ({"status": 200, "body": [1]}, Snag.LOST, 0),
        ({"status": 502, "body": "<html></html>"}, Snag.LOST, 0),
        ({"status": 0, "done": True}, Snag.LOST, 1),
    ],
)
def test_what_it_refuses_is_told_apart_from_what_is_not_known(fault, snag, runs):
    async def main():
        async with rented() as (there, one, _):
            there.faults.append(Fault(PUT, **fault))
            report = await one.start(Launch(LABEL))
            assert report.snag is snag
            assert report.detail
            assert len(there.running()) == runs
            assert there.requests.count(PUT) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("cur", "intended", "actual", "phase"),
    [
        ("stopped", "stopped", "exited", PowerPhase.OFF),
        ("stopped", "stopped", "stopped", PowerPhase.OFF),
        ("inactive", "stopped", "exited", PowerPhase.OFF),
        ("stopped", "running", "exited", PowerPhase.STARTING),  # outbid, or queued
        ("running", "running", None, PowerPhase.STARTING),
        ("running", "running", "loading", PowerPhase.STARTING),
        ("running", "running", "exited", PowerPhase.STARTING),
        ("running", "running", "running", PowerPhase.ON),
        ("running", "frozen", "frozen", PowerPhase.ON),
        ("running", "running", "offline", PowerPhase.ON),
        ("running", "running", "unknown", PowerPhase.ON),
        ("running", "stopped", "running", PowerPhase.STOPPING),
        ("running", None, "running", PowerPhase.ON),
    ],
)
def test_an_instance_is_on_as_long_as_its_gpu_is_held(cur, intended, actual, phase):
    async def main():
        async with rented() as (there, one, _):
            box = there.instances[INSTANCE]
            box |= {"cur_state": cur, "intended_status": intended, "actual_status": actual}
            assert (await one.status()).phase is phase

    asyncio.run(main())


def test_its_address_is_the_public_one_of_its_port():
    async def main():
        async with rented() as (there, one, _):
            there.mapped = {"8000": 33526, "22": 33500}
            await one.start(Launch(LABEL))
            seen = await one.status()
            assert (seen.phase, seen.address) == (PowerPhase.ON, "http://127.0.0.1:33526")
            for odd in ({}, None, {"8000/tcp": []}, {"8000/tcp": ["33526"]}, {"8000/tcp": [{}]}):
                there.mapped = {}
                there.instances[INSTANCE]["ports"] = odd
                assert (await one.status()).address == ""

    asyncio.run(main())


def test_one_that_was_destroyed_by_hand_is_off_and_cannot_be_started():
    async def main():
        async with rented() as (there, one, _):
            del there.instances[INSTANCE]
            seen = await one.status()
            assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE)
            assert "there is no instance" in seen.detail
            assert (await one.start(Launch(LABEL))).snag is Snag.DENIED

    asyncio.run(main())


@pytest.mark.parametrize("body", [[], {}, {"instances": []}, {"instances": {"id": 1}}, "<html>"])
def test_an_answer_that_is_no_instance_is_never_taken_for_off(body):
    async def main():
        async with rented() as (there, one, _):
            there.faults.append(Fault("GET", 200, body))
            seen = await one.status()
            assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)

    asyncio.run(main())


def test_what_somebody_started_by_hand_is_left_alone():
    async def main():
        async with rented() as (there, one, _):
            there.run(there.instances[INSTANCE])
            assert (await one.start(Launch(LABEL))).snag is Snag.TRANSIENT
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF
            assert len(there.running()) == 1
            assert PUT not in there.requests

    asyncio.run(main())


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "it needs `port`"),
        ({"port": 8000, "instance": 0}, "greater than"),
        ({"port": 8000, "api": "http://console.example.org"}, "https://"),
        ({"port": 8000, "api_key": "0123"}, "not written in the file"),
        ({"url": "console", "port": 1}, "starts with"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, why):
    options = backends.options("vast")
    with pytest.raises(ValidationError, match=why):
        options(**{"api_key": {"credential": "k"}, "instance": 7, **keys})


def test_the_doctor_says_what_it_costs_and_what_is_missing():
    async def main():
        async with rented() as (there, _, made), AioHttp() as http:
            look, world = backends.checks("vast"), ports(http)
            there.instances[INSTANCE]["is_bid"] = True
            fine = await look(made, world)
            assert [one.ok for one in fine] == [True, None, None]
            assert "0.36 USD an hour" in fine[0].what
            there.faults.append(Fault("GET", 403, {"error": "no"}))
            assert [one.ok for one in await look(made, world)] == [False]
            del there.instances[INSTANCE]
            assert [one.remedy for one in await look(made, world)] == ["correct `instance`"]
            assert PUT not in there.requests

    asyncio.run(main())


def test_from_the_decision_to_the_request_it_is_less_than_a_second():
    async def main():
        async with rented() as (there, one, _):
            began = time.perf_counter()
            await one.start(Launch(LABEL))
            assert PUT in there.requests
            return time.perf_counter() - began

    assert any(asyncio.run(main()) < 1.0 for _ in range(5))  # a busy machine may be slow at times
