"""Kinds `runpod` and `vast` where their providers answer otherwise than their documents' examples.

Bodies are bare, fields are missing or null, and what is not documented comes as it was seen: RunPod's
"This machine does not have the resources to deploy your pod" with HTTP 500 (its issue threads), its
404 for a list (`ListPods`), vast.ai's null for an instance that is gone (`Get Instance`).
"""

import asyncio
import json
from dataclasses import replace

import pytest

import backends
from backends.base import Launch, Reply
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag
from tests.backends.worlds import plan, ports

LABEL, OLD = "aion-home-lab-7", "aion-home-lab-6"
POD, BOX = "xedezhzb9la3ye", 329838
LIST, ONE = "GET /v1/pods", f"GET /v1/pods/{POD}"
START, STOP = f"POST /v1/pods/{POD}/start", f"POST /v1/pods/{POD}/stop"
NAME, MAKE = f"PATCH /v1/pods/{POD}", "POST /v1/pods"
SHOW, SHOW_ALL = f"GET /api/v0/instances/{BOX}/", "GET /api/v0/instances/"
PUT = f"PUT /api/v0/instances/{BOX}/"
IMAGE = {"image": "vllm/vllm-openai:latest", "gpu": ("NVIDIA L4",)}


class Provider:
    """Answers each request with the next of its answers, the last one again and again."""

    def __init__(self, **answers) -> None:
        self.answers, self.asked, self.sent = answers, [], []

    async def request(self, method, url, *, body=None, **_) -> Reply:
        path = url.removeprefix("https://api.test")
        self.asked.append(f"{method} {path}")
        self.sent.append(json.loads(body) if body else None)
        given = self.answers[f"{method} {path}"]
        status, said, *headers = given.pop(0) if len(given) > 1 else given[0]
        text = said if isinstance(said, str) else json.dumps(said)
        return Reply(status, dict(*headers), b"" if said is None else text.encode(), 0.01)

    def times(self, what) -> int:
        return self.asked.count(what)


def runpod(answers, **keys):
    there = Provider(**{one: list(them) for one, them in answers.items()})
    given = {"api": "https://api.test/v1", "api_key": {"credential": "runpod"}, "port": 8000}
    given |= {"url": None, "pod": None if "image" in keys else POD}
    made = plan("runpod", secrets={"api_key": "k3y"}, **{**given, **keys})
    made = replace(made, label="aion-home-lab-")
    one = backends.driver(made, ports(there))
    one.look_s = 0.0
    return there, one, made


def vast(answers, **keys):
    there = Provider(**{one: list(them) for one, them in answers.items()})
    given = {"api": "https://api.test", "api_key": {"credential": "vast"}, "instance": BOX}
    made = plan("vast", secrets={"api_key": "k3y"}, **{"url": None, "port": 8000, **given, **keys})
    one = backends.driver(made, ports(there))
    one.pace_s = 0.0
    return there, one, made


def done(coroutine):
    return asyncio.run(coroutine)


def pod(status="EXITED", name="my pod", **more):
    return {"id": POD, "desiredStatus": status, "name": name, **more}


# ── RunPod ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [
        "create pod: This machine does not have the resources to deploy your pod",
        "There are no instances currently available",
        "There are no longer any instances available with the requested specifications.",
        "There are not enough free GPUs on the host machine to start this pod.",
        "There are no available GPUs",
        "capacity pool empty for requested GPU family",
    ],
)
@pytest.mark.parametrize("form", [lambda w: {"error": w, "status": 500}, lambda w: w, lambda w: {
    "errors": [{"message": w}]}])  # fmt: skip
def test_what_runpod_says_where_nothing_is_free_is_a_stockout_in_whatever_form(words, form):
    there, one, _ = runpod({ONE: [(200, pod())], NAME: [(200, None)], START: [(500, form(words))]})
    report = done(one.start(Launch(LABEL)))
    assert report.snag is Snag.STOCKOUT
    assert words[:40] in report.detail
    assert there.sent[-1] == {"name": "my pod"}, "its label is off again"


@pytest.mark.parametrize(
    "words",
    [
        "Your account balance is insufficient",
        "You do not have enough funds",
        "insufficient balance",
        "Spending limit reached for this account",
    ],
)
def test_what_runpod_says_where_there_is_no_money_is_a_quota(words):
    _, one, _ = runpod({ONE: [(200, pod())], NAME: [(200, None)], START: [(400, {"error": words})]})
    assert done(one.start(Launch(LABEL))).snag is Snag.QUOTA


@pytest.mark.parametrize(
    ("status", "snag"),
    [(409, Snag.TRANSIENT), (423, Snag.TRANSIENT), (408, Snag.LOST), (400, Snag.DENIED)],
)
def test_a_conflict_passes_and_a_request_that_took_too_long_may_have_been_heard(status, snag):
    _, one, _ = runpod(
        {ONE: [(200, pod())], NAME: [(200, None)], START: [(status, {"error": "no"})]}
    )
    assert done(one.start(Launch(LABEL))).snag is snag


def test_an_account_without_pods_that_says_404_for_its_list_has_none():
    there, one, made = runpod(
        {LIST: [(404, {"error": "pod not found"})], MAKE: [(201, {"id": "new"})]}, **IMAGE
    )
    assert done(one.status()).phase is PowerPhase.OFF
    assert done(one.stop(LABEL)).phase is PowerPhase.OFF
    assert done(one.start(Launch(LABEL))).phase is PowerPhase.STARTING
    assert there.times(MAKE) == 1
    checks = done(backends.checks("runpod")(made, ports(there)))
    assert checks[0].ok
    assert "None" not in "".join(one.what for one in checks)


def test_a_pod_that_is_terminated_is_no_pod_any_more():
    gone = {"id": "old", "name": OLD, "desiredStatus": "TERMINATED"}
    there, one, _ = runpod({LIST: [(200, [gone])], MAKE: [(201, None)]}, **IMAGE)
    seen = done(one.status())
    assert (seen.phase, seen.detail) == (PowerPhase.OFF, ""), "its disk costs nothing"
    assert done(one.stop(OLD)).phase is PowerPhase.OFF
    assert done(one.start(Launch(LABEL))).phase is PowerPhase.STARTING
    assert not [what for what in there.asked if what.startswith("DELETE")]
    _, same, _ = runpod({ONE: [(200, pod("TERMINATED"))]})
    assert done(same.status()).phase is PowerPhase.OFF
    again = done(same.start(Launch(LABEL)))
    assert again.snag is Snag.DENIED
    assert "there is no pod" in again.detail


@pytest.mark.parametrize("status", [400, 404, 410])
@pytest.mark.parametrize("body", [None, "404: Not Found", "<html>gone</html>"])
def test_a_pod_that_says_no_in_no_form_is_looked_for_in_the_list(status, body):
    there, one, _ = runpod({ONE: [(status, body)], LIST: [(200, [{"id": "another"}])]})
    seen = done(one.status())
    assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE)
    assert there.times(LIST) == 1
    for listed in [(200, [{"id": POD}]), (200, {"pods": []}), (404, None), (500, None)]:
        _, unsure, _ = runpod({ONE: [(status, body)], LIST: [listed]})
        assert done(unsure.status()).phase is PowerPhase.UNKNOWN


@pytest.mark.parametrize("said", [{"id": POD, "name": "my pod"}, {"name": None}])
def test_a_pod_that_does_not_keep_its_label_is_not_started_and_the_way_out_is_named(said):
    there, one, _ = runpod({ONE: [(200, pod())], NAME: [(200, said)], START: [(200, None)]})
    report = done(one.start(Launch(LABEL)))
    assert report.snag is Snag.DENIED
    assert "rename = false" in report.detail
    assert there.times(START) == 0
    there, one, _ = runpod({ONE: [(200, pod())], NAME: [(404, None)], START: [(200, None)]})
    assert "rename = false" in done(one.start(Launch(LABEL))).detail


def test_bare_bodies_are_enough_to_start_and_stop_a_pod():
    bare = {"desiredStatus": "RUNNING", "name": f"x {LABEL}"}
    there, one, _ = runpod(
        {
            ONE: [(200, {"desiredStatus": "EXITED"}), (200, bare), (200, bare), (200, {
                "desiredStatus": "EXITED"})],
            NAME: [(200, None)],
            START: [(200, None)],
            STOP: [(200, None)],
        }
    )  # fmt: skip
    assert done(one.start(Launch(LABEL))).phase is PowerPhase.STARTING
    seen = done(one.status())
    assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
    assert seen.address == f"https://{POD}-8000.proxy.runpod.net"
    assert done(one.stop(LABEL)).phase is PowerPhase.OFF
    assert there.sent[2] is None


@pytest.mark.parametrize("where", [{}, {"portMappings": None}, {"portMappings": {}, "publicIp": ""},
    {"portMappings": {"8000": None}, "publicIp": "1.2.3.4"}])  # fmt: skip
def test_by_ip_a_pod_is_on_once_it_has_an_address(where):
    _, one, _ = runpod({ONE: [(200, pod("RUNNING", f"x {LABEL}", **where))]}, via="ip")
    seen = done(one.status())
    assert (seen.phase, seen.address) == (PowerPhase.STARTING, "")


# ── vast.ai ─────────────────────────────────────────────────────────────────────────────────────


def box(**state):
    return {"instances": {"id": BOX, "label": "my box", **state}}


OFF = box(cur_state="stopped", intended_status="stopped", actual_status="exited")


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ({"actual_status": "running"}, PowerPhase.ON),
        ({"cur_state": None, "actual_status": "running"}, PowerPhase.ON),
        ({"cur_state": None, "intended_status": "running", "actual_status": "running"},
         PowerPhase.ON),
        ({"actual_status": "loading"}, PowerPhase.STARTING),
        ({"actual_status": "loading", "intended_status": "running"}, PowerPhase.STARTING),
        ({"actual_status": "created"}, PowerPhase.STARTING),
        ({"actual_status": "exited"}, PowerPhase.OFF),
        ({"actual_status": "stopped", "intended_status": "stopped"}, PowerPhase.OFF),
        ({"actual_status": "exited", "intended_status": "stopped", "cur_state": "stopped"},
         PowerPhase.OFF),
        ({"actual_status": None, "cur_state": "running", "intended_status": "running"},
         PowerPhase.STARTING),
        ({"actual_status": "offline"}, PowerPhase.ON),
    ],
)  # fmt: skip
def test_an_instance_whose_body_is_bare_is_read_by_what_is_there(state, phase):
    _, one, _ = vast({SHOW: [(200, box(**state))]})
    assert done(one.status()).phase is phase


@pytest.mark.parametrize("body", [None, "404: Not Found", "<html>gone</html>"])
@pytest.mark.parametrize("status", [404, 410])
def test_an_instance_that_says_no_in_no_form_is_looked_for_in_the_list(status, body):
    there, one, _ = vast({SHOW: [(status, body)], SHOW_ALL: [(200, {"instances": [{"id": 1}]})]})
    seen = done(one.status())
    assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE)
    assert there.times(SHOW_ALL) == 1
    for listed in [(200, {"instances": [{"id": BOX}]}), (200, []), (404, None), (500, None)]:
        _, unsure, _ = vast({SHOW: [(status, body)], SHOW_ALL: [listed]})
        assert done(unsure.status()).phase is PowerPhase.UNKNOWN


def test_a_label_that_was_not_taken_with_the_start_is_set_again():
    bare = box(cur_state="running", intended_status="running", actual_status="loading")
    there, one, _ = vast({SHOW: [(200, OFF), (200, bare)], PUT: [(200, {"success": True})]})
    assert done(one.start(Launch(LABEL))).phase is PowerPhase.STARTING
    assert there.sent[-1] == {"label": f"my box {LABEL}"}


def test_a_label_that_was_taken_is_not_set_again():
    kept = box(cur_state="running", intended_status="running", actual_status="loading")
    kept["instances"]["label"] = f"my box {LABEL}"
    there, one, _ = vast({SHOW: [(200, OFF), (200, kept)], PUT: [(200, {"success": True})]})
    assert done(one.start(Launch(LABEL))).phase is PowerPhase.STARTING
    assert there.times(PUT) == 1


def test_too_many_questions_are_waited_out_for_as_long_as_vast_says_or_a_minute():
    for headers, wait_s in (({"retry-after": "17"}, 17.0), ({}, 60.0)):
        _, one, _ = vast({SHOW: [(429, {"detail": "API requests too frequent"}, headers)]})
        seen = done(one.status())
        assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)
        assert seen.retry_after_s == wait_s


def test_a_state_that_nobody_has_heard_of_is_told_with_its_name():
    _, one, _ = vast({SHOW: [(200, box(cur_state="hibernated", actual_status="hibernated"))]})
    seen = done(one.status())
    assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)
    assert seen.detail == "its state is hibernated"
