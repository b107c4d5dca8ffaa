"""The kind `gce` with Google's own client library, against a stand-in that is as strict as Google.

Where the error bodies come from stands in `tests/standins/gce.py`.
"""

import asyncio
import json
import logging
import os
import socket
from dataclasses import replace
from functools import partial

import pytest

from backends.base import Launch
from backends.gce import checks, read, wish
from backends.gce_child import main
from backends.gce_past import DRY_S
from backends.gce_words import PHASES, Machine, failed, gpu_quota, limit_s, ours, refused
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag
from orchestrator.edge.child import clean_environment, run_child
from orchestrator.errors import ChildFailed
from tests.backends.gce_world import OTHER_ZONE, PREFIX, ZONE, backend, in_a_thread
from tests.backends.peak import taken
from tests.backends.worlds import TableHttp, ports
from tests.standins import gce
from tests.standins.gce import Fault, Google, account

LABEL, NEXT, LATER = (f"{PREFIX}179500000{one}" for one in (1, 2, 3))
TWO = {"instance": (f"{ZONE}/gpu-1", f"{OTHER_ZONE}/gpu-2")}
MADE = {"template": "gpu", "zones": (ZONE, OTHER_ZONE)}


def story(play, *, faults=(), two=False, template=False, **keys):
    """Run `play(google, driver)` in front of one stopped instance, two, or a template."""

    async def run():
        async with Google() as google:
            if template:
                google.template("gpu")
            else:
                google.machine(ZONE, "gpu-1")
                if two:
                    google.machine(OTHER_ZONE, "gpu-2")
            google.faults += [
                fault if isinstance(fault, Fault) else Fault(*fault) for fault in faults
            ]
            given = {**(TWO if two else {}), **(MADE if template else {}), **keys}
            return await play(google, backend(google, **given))

    return asyncio.run(run())


async def impatient(module, payload, *, timeout_s):
    """Wait for nothing, so that a failure shows too late."""
    return await in_a_thread(module, {**payload, "at_once_s": 0.2}, timeout_s=timeout_s)


async def began(google, one, label=LABEL, max_run_s=None):
    report = await one.start(Launch(label, max_run_s))
    assert report.snag is Snag.NONE, report
    google.settle()
    return report


def running(google):
    return {(one["_zone"], one["name"]): one["labels"].get("aion-launch") for one in google.alive()}


def calls(google, *names):
    return [one["call"] for one in google.asked if not names or one["call"] in names]


# ── what Google refuses, told apart ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("what", "snag", "words"),
    [
        ("denied", Snag.DENIED, "compute.instances.start"),
        ("disabled", Snag.DENIED, "the Compute Engine API is not enabled"),
        ("billing", Snag.DENIED, "no billing"),
        ("gpu", Snag.DENIED, "acceleratorTypes/nvidia-tesla-p4"),
        ("rate", Snag.TRANSIENT, "Quota exceeded for quota group"),
        ("busy", Snag.TRANSIENT, "Too many requests"),
        ("quota", Snag.QUOTA, "NVIDIA_T4_GPUS"),
        ("regional", Snag.QUOTA, "NVIDIA_T4_GPUS"),
        ("stockout", Snag.STOCKOUT, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"),
        ("internal", Snag.LOST, "HTTP 500"),
        ("unavailable", Snag.LOST, "HTTP 503"),
        ("page", Snag.LOST, "HTTP 502"),
        ("cut", Snag.LOST, "no answer"),
    ],
)
def test_why_a_start_failed_is_told_apart(what, snag, words):
    async def play(google, one):
        report = await one.start(Launch(LABEL))
        assert report.snag is snag
        assert words in report.detail
        assert report.detail.startswith(f"{ZONE}: ")
        assert "http://127" not in report.detail, "what Google says, and not how it was asked"
        assert running(google) == {}
        assert (report.retry_after_s == 3600.0) == (snag is Snag.QUOTA)

    story(play, faults=[("start", what)])


def test_a_key_that_google_does_not_take_is_denied():
    async def play(google, one):
        for do in (one.status(), one.start(Launch(LABEL)), one.stop(LABEL)):
            report = await do
            assert report.snag is Snag.DENIED
            assert "Google does not take the credential: make a new key" in report.detail
            assert "authentication credential" in report.detail or "Credentials" in report.detail
            assert report.phase is PowerPhase.UNKNOWN

    story(play, faults=[("get", "unauthorized", 99)])


def test_an_account_on_trial_is_named_where_it_has_no_gpus_at_all():
    async def play(google, one):
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.QUOTA
        assert "GPUS_ALL_REGIONS" in report.detail
        assert "on trial may not use GPUs" in report.detail
        assert calls(google, "start") == ["start"], "no other zone helps"

    story(play, faults=[("start", "nogpus")], two=True)
    quota_everywhere = failed(
        [("QUOTA_EXCEEDED", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.")], 403
    )
    assert not quota_everywhere.elsewhere
    assert quota_everywhere.retry_after_s == 3600.0


@pytest.mark.parametrize("call", ["setLabels", "setScheduling"])
@pytest.mark.parametrize("what", ["lost", "cut", "internal"])
def test_what_is_lost_before_the_start_is_no_lost_start(call, what):
    async def play(google, one):
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.TRANSIENT
        assert "before its start" in report.detail
        assert running(google) == {}
        await began(google, one, max_run_s=3600.0)

    story(play, faults=[(call, what)])


def test_labels_and_limits_are_waited_for_before_it_is_started():
    async def play(google, one):
        google.small_s = 0.05
        await began(google, one, max_run_s=3600.0)
        order = calls(google, "setScheduling", "setLabels", "wait", "start")
        assert order[:5] == ["setScheduling", "wait", "setLabels", "wait", "start"]

    story(play)


@pytest.mark.parametrize("how", ["hurried", "gone", "unavailable"])
def test_a_wait_that_ends_before_its_operation_is_no_failed_start(how):
    async def play(google, one):
        google.small_s = google.boot_s = 0.3
        google.hurried = how == "hurried"
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.NONE, report
        google.settle()
        assert running(google) == {(ZONE, "gpu-1"): LABEL}
        assert (await one.status()).phase is PowerPhase.ON

    faults = [] if how == "hurried" else [Fault("wait", how, 9)]
    story(play, faults=faults)


def test_an_operation_that_is_not_kept_is_known_by_its_instance():
    async def play(google, one):
        google.small_s = 0.3
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.NONE, report
        google.settle()
        assert running(google) == {(ZONE, "gpu-1"): LABEL}

    story(play, faults=[Fault("wait", "gone", 9), Fault("operation", "gone", 9)])


@pytest.mark.parametrize("call", ["setScheduling", "setLabels"])
def test_what_is_neither_over_nor_seen_is_not_started(call):
    async def play(google, one):
        google.small_s = 3600.0
        google.ignores = call
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.TRANSIENT
        assert f"{call} takes too long" in report.detail
        assert calls(google, "start") == []

    faults = [Fault("wait", "gone", 9), Fault("operation", "gone", 9)]
    story(play, faults=faults, children=impatient)


@pytest.mark.parametrize(("small_s", "snag"), [(0.05, Snag.DENIED), (0.0, Snag.NONE)])
def test_who_may_not_look_at_operations_is_told_before_a_start_and_not_misled_after_it(
    small_s, snag
):
    async def play(google, one):
        google.small_s = small_s
        report = await one.start(Launch(LABEL))
        assert report.snag is snag
        google.settle()
        assert len(google.alive()) == (snag is Snag.NONE)

    story(play, faults=[("wait", "denied", 9)])


def test_nobody_there_at_all_did_nothing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def play(google, one):
            report = await one.start(Launch(LABEL))
            assert report.snag is Snag.TRANSIENT
            assert "could not be reached" in report.detail

        story(play, api=nowhere)


def test_retry_after_is_believed():
    trouble = refused(429, ["rateLimitExceeded"], "slow down", writes=True, retry_after_s=17.0)
    assert (trouble.snag, trouble.retry_after_s) == (Snag.TRANSIENT, 17.0)


def test_somebody_who_labelled_it_in_between_wins():
    async def play(google, one):
        google.machines[ZONE, "gpu-1"]["labels"] = Changing({"team": "ai"})
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.TRANSIENT
        assert "fingerprint" in report.detail
        assert running(google) == {}

    story(play)


class Changing(dict):
    """Labels that somebody else changes each time they are read."""

    reads = 0

    def items(self):
        Changing.reads += 1
        return {**dict(super().items()), "n": str(Changing.reads)}.items()


# ── where ───────────────────────────────────────────────────────────────────────────────────────


def test_a_zone_without_room_is_followed_by_the_next():
    async def play(google, one):
        report = await began(google, one)
        assert (report.phase, report.launch) == (PowerPhase.ON, LABEL), "it was up at once"
        assert report.address == "http://203.0.113.9:8000"
        assert running(google) == {(OTHER_ZONE, "gpu-2"): LABEL}
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
        assert seen.address == "http://203.0.113.9:8000"

    async def at_an_address(google, one):
        google.address = "203.0.113.9"
        await play(google, one)

    story(at_an_address, faults=[("start", "stockout")], two=True)


@pytest.mark.parametrize("what", ["stockout", "regional", "gpu"])
def test_only_when_no_zone_is_left_it_is_given_up(what):
    async def play(google, one):
        report = await one.start(Launch(LABEL))
        snags = {"stockout": Snag.STOCKOUT, "regional": Snag.QUOTA, "gpu": Snag.DENIED}
        assert report.snag is snags[what]
        assert f"{ZONE}: " in report.detail
        assert f"{OTHER_ZONE}: " in report.detail
        assert calls(google, "start") == ["start", "start"]
        assert running(google) == {}

    story(play, faults=[("start", what, 2)], two=True)


@pytest.mark.parametrize("what", ["lost", "denied", "busy", "internal"])
def test_what_is_no_matter_of_the_zone_is_not_tried_in_the_next(what):
    async def play(google, one):
        await one.start(Launch(LABEL))
        assert calls(google, "start") == ["start"]
        assert (OTHER_ZONE, "gpu-2") not in running(google)

    story(play, faults=[("start", what)], two=True)


def test_a_failure_that_takes_long_is_told_by_its_status():
    async def play(google, one):
        google.late_s = 600.0
        report = await one.start(Launch(LABEL))
        assert (report.snag, report.phase) == (Snag.NONE, PowerPhase.STARTING)
        google.settle()
        seen = await one.status()
        assert seen.phase is PowerPhase.OFF
        assert "RESOURCE_POOL_EXHAUSTED" in seen.detail
        assert (await one.status()).detail == "", "it is asked why once, not each time"

    story(play, faults=[("start", "stockout")], children=impatient)


@pytest.mark.parametrize("template", [False, True])
def test_a_zone_that_had_no_room_a_while_ago_is_tried_last(template):
    async def play(google, one):
        one._ports.clock.now = google.now()
        call = "insert" if template else "start"
        google.late_s = 600.0
        google.faults += [Fault(call, "stockout", 1, ZONE)]
        assert (await one.start(Launch(LABEL))).phase is PowerPhase.STARTING
        google.settle()
        assert (await one.status()).phase is PowerPhase.OFF
        report = await one.start(Launch(NEXT))
        assert report.snag is Snag.NONE
        google.settle()
        assert {zone for zone, _ in running(google)} == {OTHER_ZONE}
        await one.stop(NEXT)
        google.settle()
        google.late_s = 0.0
        one._ports.clock.now += DRY_S + 60.0
        await one.start(Launch(LATER))
        google.settle()
        assert {zone for zone, _ in running(google)} == {ZONE}, (
            "after a while it is the first again"
        )

    story(play, two=not template, template=template, children=impatient)


def test_a_place_that_cannot_be_read_may_be_the_one_where_it_runs():
    async def play(google, one):
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.TRANSIENT
        seen = await one.status()
        assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)
        assert calls(google, "start") == []
        assert (await one.status()).phase is PowerPhase.OFF

    story(play, faults=[Fault("get", "unavailable", 2, OTHER_ZONE)], two=True)


def test_one_that_runs_is_told_though_another_place_cannot_be_read():
    async def play(google, one):
        await began(google, one)
        google.faults.append(Fault("get", "unavailable", 1, OTHER_ZONE))
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)

    story(play, two=True)


# ── how it is ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [*PHASES, "DREAMING"])
def test_every_status_of_an_instance_is_read(status):
    async def play(google, one):
        google.machine(ZONE, "gpu-1", status=status, labels={"aion-launch": LABEL})
        seen = await one.status()
        assert seen.phase is PHASES.get(status, PowerPhase.UNKNOWN)
        assert (seen.snag is Snag.NONE) == (status in PHASES)
        assert seen.launch == ("" if seen.phase is PowerPhase.OFF else LABEL)
        assert bool(seen.address) == (status == "RUNNING")

    story(play)


@pytest.mark.parametrize(
    ("keys", "address"),
    [
        ({}, "http://203.0.113.9:8000"),
        ({"scheme": "https", "port": 443}, "https://203.0.113.9:443"),
        ({"address": "internal"}, "http://10.164.0.7:8000"),
        ({"registers": True}, ""),
        ({"url": "http://gpu.example.org:8000"}, ""),
    ],
)
def test_its_address_is_the_providers(keys, address):
    async def play(google, one):
        google.address = "203.0.113.9"
        await began(google, one)
        assert (await one.status()).address == address

    story(play, **keys)


def test_strange_addresses_are_none():
    for given in ("", "fe80::%eth0", "localhost", "203.0.113.9/24"):
        assert Machine(ZONE, "x", "RUNNING", external=given).url("http", 80, "external") == ""
    six = Machine(ZONE, "x", "RUNNING", external="2001:db8::9")
    assert six.url("http", 8000, "external") == "http://[2001:db8::9]:8000"


def test_a_machine_that_google_took_back_is_off_and_says_so():
    async def play(google, one):
        await began(google, one)
        google.stop_s = 60.0
        google.preempt(ZONE, "gpu-1")
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.STOPPING, LABEL)
        assert "preempted" in seen.detail
        google.settle()
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.OFF, "")
        assert "preempted" in seen.detail

    story(play)


def _taken_back(google):
    google.preempt(ZONE, "gpu-1")


def _too_long(google):
    google.skip(3700)


def _shut_down(google):
    google._end(google.machines[ZONE, "gpu-1"], "compute.instances.guestTerminate")


def _by_hand(google):
    machine = google.machines[ZONE, "gpu-1"]
    google.go(machine, "STOPPING", "TERMINATED", 0.0)
    google.operation(ZONE, "stop", machine["selfLink"], user="ana@example.org")


def _without_a_word(google):
    google.go(google.machines[ZONE, "gpu-1"], "STOPPING", "TERMINATED", 5.0)


@pytest.mark.parametrize(
    "how",
    [_taken_back, _too_long, _shut_down, _by_hand, _without_a_word],
    ids=lambda one: one.__name__,
)
def test_what_went_off_by_itself_and_is_started_by_hand_is_not_ours(how):
    async def play(google, one):
        await began(google, one, max_run_s=3600.0)
        how(google)
        google.skip(10.0)
        google.settle()
        assert (await one.status()).phase is PowerPhase.OFF
        machine = google.machines[ZONE, "gpu-1"]
        assert machine["labels"] == {"team": "ai", "aion-ended": LABEL}
        google.go(machine, "STAGING", "RUNNING", 0.0)
        google.settle()
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.ON, "")
        assert (await one.stop(LABEL)).phase is PowerPhase.OFF
        assert machine["status"] == "RUNNING"

    story(play)


def test_an_instance_that_does_not_name_its_own_link_is_known_by_its_place():
    async def play(google, one):
        await began(google, one)
        machine = google.machines[ZONE, "gpu-1"]
        google.preempt(ZONE, "gpu-1")
        google.settle()
        del machine["selfLink"]
        assert "preempted" in (await one.status()).detail
        assert "aion-launch" not in machine["labels"]

    story(play)


def test_a_start_that_cannot_be_seen_yet_keeps_its_label():
    async def play(google, one):
        machine = google.machines[ZONE, "gpu-1"]
        google.faults += [Fault("start", "lost")]
        google.boot_s = 3600.0
        assert (await one.start(Launch(LABEL))).snag is Snag.LOST
        machine["status"] = "TERMINATED"  # what is read lags
        assert (await one.status()).phase is PowerPhase.OFF
        google.settle()
        assert running(google) == {(ZONE, "gpu-1"): LABEL}

    story(play)


def test_a_label_set_since_it_went_off_stays_for_a_start_may_follow():
    async def play(google, one):
        await began(google, one)
        google.preempt(ZONE, "gpu-1")
        google.settle()
        machine = google.machines[ZONE, "gpu-1"]
        machine["labels"]["aion-launch"] = NEXT
        google.operation(ZONE, "setLabels", machine["selfLink"])
        assert (await one.status()).phase is PowerPhase.OFF
        assert machine["labels"]["aion-launch"] == NEXT

    story(play)


def test_lists_are_not_trusted_to_hold_only_what_was_asked_for():
    async def play(google, one):
        google.careless = True
        await began(google, one)
        name = next(iter(running(google)))[1]
        await one.stop(LABEL)
        google.settle()
        google.operation(
            ZONE, "stop", f"{gce.LINK}/zones/{ZONE}/instances/web", user="ben@example.org"
        )
        google.operation(ZONE, "insert", f"{gce.LINK}/zones/{ZONE}/instances/{name}", failure={})
        google.settle()
        assert "ben@example.org" not in (await one.status()).detail
        await began(google, one, NEXT)
        assert set(running(google).values()) == {NEXT}

    story(play, template=True)


def test_an_instance_that_somebody_deleted_is_off_and_is_not_started():
    async def play(google, one):
        del google.machines[ZONE, "gpu-1"]
        seen = await one.status()
        assert seen.phase is PowerPhase.OFF
        assert "there is no instance" in seen.detail
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.DENIED
        assert "there is no instance" in report.detail
        assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    story(play)


def test_a_project_that_is_not_there_is_denied():
    async def play(google, one):
        for report in (await one.start(Launch(LABEL)), await one.status()):
            assert report.snag is Snag.DENIED
            assert "there is no such project" in report.detail

    faults = [Fault("get", "noproject", 9)]
    story(play, faults=faults)


def test_what_somebody_stopped_by_hand_says_by_whom():
    async def play(google, one):
        await began(google, one)
        machine = google.machines[ZONE, "gpu-1"]
        google.go(machine, "STOPPING", "TERMINATED", 0.0)
        google.operation(ZONE, "stop", machine["selfLink"], user="ana@example.org")
        google.settle()
        assert "ana@example.org" in (await one.status()).detail

    story(play)


# ── limits, labels, others ──────────────────────────────────────────────────────────────────────


def test_google_ends_it_by_itself_even_if_nobody_here_lives():
    async def play(google, one):
        await began(google, one, max_run_s=5400.4)
        assert google.machines[ZONE, "gpu-1"]["scheduling"] == {
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": True,
            "preemptible": False,
            "provisioningModel": "STANDARD",
            "maxRunDuration": {"seconds": "5400"},
            "instanceTerminationAction": "STOP",
        }
        google.skip(5400)
        google.settle()
        assert (await one.status()).phase is PowerPhase.OFF

    story(play)


def test_a_limit_is_set_only_where_it_changes_and_is_taken_off_where_it_was_ours():
    async def play(google, one):
        for label, limit_s_ in ((LABEL, 3600.0), (NEXT, 3600.0)):
            await began(google, one, label, limit_s_)
            await one.stop(label)
            google.settle()
        assert calls(google, "setScheduling") == ["setScheduling"]
        await began(google, one, f"{PREFIX}1795000003")
        scheduling = google.machines[ZONE, "gpu-1"]["scheduling"]
        assert not {"maxRunDuration", "instanceTerminationAction"} & set(scheduling)

    async def theirs(google, one):
        limit = {"maxRunDuration": {"seconds": "600"}, "instanceTerminationAction": "STOP"}
        google.machines[ZONE, "gpu-1"]["scheduling"].update(limit)
        await began(google, one)
        assert calls(google, "setScheduling") == []

    story(play)
    story(theirs)


def test_limits_are_brought_into_what_google_takes():
    assert [limit_s(one) for one in (1.0, 30.0, 99.9, 1e9)] == [30, 30, 99, 120 * 86400]


def test_its_own_labels_stay():
    async def play(google, one):
        await began(google, one)
        assert google.machines[ZONE, "gpu-1"]["labels"] == {"team": "ai", "aion-launch": LABEL}

    story(play)


def test_a_label_that_is_too_long_is_told_before_anything_is_asked():
    async def play(google, one):
        report = await one.start(Launch("aion-" + "x" * 60 + "-1"))
        assert report.snag is Snag.DENIED
        assert "63" in report.detail
        assert calls(google) == []

    story(play)


@pytest.mark.parametrize("label", ["", "aion-elsewhere-lab-3", "aion-home-lab-2-1795000001"])
def test_a_machine_that_runs_for_somebody_else_is_neither_taken_nor_stopped(label):
    async def play(google, one):
        labels = {"aion-launch": label} if label else {}
        google.machine(ZONE, "gpu-1", status="RUNNING", labels=labels)
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.TRANSIENT
        assert "runs already" in report.detail
        assert (await one.stop(LABEL)).phase is PowerPhase.OFF
        assert len(google.alive()) == 1
        assert calls(google, "start", "stop", "setLabels", "setScheduling") == []

    story(play)


def test_what_is_started_by_hand_after_a_stop_of_ours_is_not_ours():
    async def play(google, one):
        await began(google, one)
        google.stop_s = 60.0
        assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
        assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.STOPPING, LABEL)
        google.settle()
        google.go(google.machines[ZONE, "gpu-1"], "STAGING", "RUNNING", 0.0)
        google.settle()
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.ON, "")
        assert (await one.stop(LABEL)).phase is PowerPhase.OFF
        assert len(google.alive()) == 1
        await one.stop("")
        google.settle()
        await began(google, one, NEXT)
        assert google.machines[ZONE, "gpu-1"]["labels"] == {"team": "ai", "aion-launch": NEXT}

    story(play)


def test_a_label_that_cannot_be_taken_off_does_not_hold_up_a_stop():
    async def play(google, one):
        await began(google, one)
        google.faults.append(Fault("setLabels", "internal"))
        assert (await one.stop(LABEL)).snag is Snag.NONE
        google.settle()
        assert google.alive() == []

    story(play)


def test_one_of_ours_that_we_forgot_is_told_instead_of_started_again():
    async def play(google, one):
        google.machine(ZONE, "gpu-1", status="RUNNING", labels={"aion-launch": LABEL})
        report = await one.start(Launch(NEXT))
        assert (report.snag, report.launch) == (Snag.NONE, LABEL)
        assert google.launches == 0

    story(play)


def test_one_that_is_still_going_off_is_waited_for():
    async def play(google, one):
        await began(google, one)
        google.stop_s = 600.0
        assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
        report = await one.start(Launch(NEXT))
        assert report.snag is Snag.TRANSIENT
        assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
        assert calls(google, "stop") == ["stop"]

    story(play)


def test_a_suspended_one_goes_on_unless_its_run_is_to_be_limited():
    async def play(google, one):
        google.machine(ZONE, "gpu-1", status="SUSPENDED")
        assert "suspended" in (await one.status()).detail
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.DENIED
        await began(google, one)
        assert calls(google, "start", "resume") == ["resume"]
        assert running(google) == {(ZONE, "gpu-1"): LABEL}

    story(play)


def test_whose_label_it_is():
    assert ours(PREFIX, LABEL)
    for other in ("", PREFIX, f"{PREFIX}2-17", "aion-home-lab2-17", "aion-elsewhere-lab-17"):
        assert not ours(PREFIX, other)
    assert not ours("", LABEL)


# ── made by a template ──────────────────────────────────────────────────────────────────────────


def test_a_machine_is_made_by_the_template_and_deleted_when_it_is_stopped():
    async def play(google, one):
        assert (await one.status()).phase is PowerPhase.OFF
        await began(google, one, max_run_s=3600.0)
        made = google.machines[ZONE, LABEL]
        assert made["labels"] == {"team": "ai", "aion-launch": LABEL}
        assert made["scheduling"] == {
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": True,
            "preemptible": False,
            "provisioningModel": "STANDARD",
            "maxRunDuration": {"seconds": "3600"},
            "instanceTerminationAction": "DELETE",
        }
        seen = await one.status()
        assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
        assert (await one.start(Launch(LABEL))).snag is Snag.NONE
        assert google.launches == 1
        assert (await one.stop(LABEL)).phase is PowerPhase.STOPPING
        google.settle()
        assert google.machines == {}
        assert (await one.stop(LABEL)).phase is PowerPhase.OFF

    story(play, template=True)


def test_a_spot_machine_is_asked_for_as_google_wants_it():
    async def play(google, one):
        await began(google, one)
        scheduling = google.machines[ZONE, LABEL]["scheduling"]
        assert scheduling["provisioningModel"] == "SPOT"
        assert scheduling["instanceTerminationAction"] == "DELETE"
        google.preempt(ZONE, LABEL)
        google.settle()
        assert google.machines == {}
        seen = await one.status()
        assert seen.phase is PowerPhase.OFF
        assert "preempted" in seen.detail, "though nothing of it is left"
        assert (await one.status()).detail == ""

    story(play, template=True, spot=True)


def test_a_zone_without_room_for_a_template_is_followed_by_the_next():
    async def play(google, one):
        await began(google, one)
        assert running(google) == {(OTHER_ZONE, LABEL): LABEL}

    story(play, template=True, faults=[("insert", "stockout")])


@pytest.mark.parametrize("what", ["lost", "cut"])
def test_a_machine_whose_making_got_no_answer_is_not_made_twice(what):
    async def play(google, one):
        assert (await one.start(Launch(LABEL))).snag is Snag.LOST
        assert calls(google, "insert") == ["insert"], "the next zone is no place to try now"
        google.settle()
        seen = await one.status()
        assert (seen.launch == LABEL) == (what == "lost")
        await began(google, one)
        assert google.launches == 1

    story(play, template=True, faults=[("insert", what)])


def test_one_that_is_being_made_and_cannot_be_seen_yet_is_not_made_twice():
    async def play(google, one):
        google.operation(ZONE, "insert", f"{gce.LINK}/zones/{ZONE}/instances/{LABEL}", ends_s=60.0)
        report = await one.start(Launch(NEXT))
        assert report.snag is Snag.TRANSIENT
        assert google.launches == 0

    story(play, template=True)


def test_a_name_that_exists_is_the_launch_that_was_asked_for():
    async def play(google, one):
        google.machine(ZONE, LABEL, labels={})
        assert (await one.start(Launch(LABEL))).snag is Snag.NONE
        assert google.launches == 0

    story(play, template=True)


def test_what_is_left_of_earlier_machines_is_deleted_for_its_disk_costs():
    async def play(google, one):
        google.machine(OTHER_ZONE, LABEL, labels={"aion-launch": LABEL})
        google.machine(OTHER_ZONE, "theirs", labels={"aion-launch": "aion-elsewhere-lab-3"})
        google.machine(ZONE, "sibling", labels={"aion-launch": "aion-home-lab-2-1795000000"})
        google.machine(ZONE, "plain", labels={})
        assert (await one.status()).phase is PowerPhase.OFF
        await began(google, one, NEXT)
        assert {name for _, name in google.machines} == {NEXT, "theirs", "sibling", "plain"}

    story(play, template=True)


def test_two_of_ours_are_told_and_both_go_with_the_newer_one():
    async def play(google, one):
        for zone, label in ((ZONE, LABEL), (OTHER_ZONE, NEXT)):
            google.machine(zone, label, status="RUNNING", labels={"aion-launch": label})
        google.machine(ZONE, "theirs", status="RUNNING", labels={"aion-launch": "aion-else-lab-3"})
        seen = await one.status()
        assert seen.launch == NEXT
        assert LABEL in seen.detail
        await one.stop(NEXT)
        google.settle()
        assert {name for _, name in google.machines} == {"theirs"}

    story(play, template=True)


def test_an_older_launch_of_ours_elsewhere_goes_with_the_newer_one():
    async def play(google, one):
        google.machine(ZONE, "gpu-1", status="RUNNING", labels={"aion-launch": LABEL})
        google.machine(OTHER_ZONE, "gpu-2", status="RUNNING", labels={"aion-launch": NEXT})
        assert (await one.status()).launch == NEXT
        await one.stop(LABEL)
        google.settle()
        assert running(google) == {(OTHER_ZONE, "gpu-2"): NEXT}
        google.machine(ZONE, "gpu-1", status="RUNNING", labels={"aion-launch": LABEL})
        await one.stop(NEXT)
        google.settle()
        assert running(google) == {}

    story(play, two=True)


def test_without_a_label_to_know_its_own_by_it_touches_nothing():
    async def play(google, one):
        google.machine(ZONE, "theirs", status="RUNNING", labels={"aion-launch": "aion-else-lab-3"})
        assert (await one.status()).phase is PowerPhase.OFF
        await one.stop("")
        assert len(google.alive()) == 1

    story(play, template=True, label="")


def test_all_pages_of_a_list_are_read():
    async def play(google, one):
        for number in range(5):
            label = f"aion-else-lab-{number}"
            google.machine(ZONE, f"a{number}", status="RUNNING", labels={"aion-launch": label})
        google.machine(ZONE, LABEL, status="RUNNING", labels={"aion-launch": LABEL})
        assert (await one.status()).launch == LABEL
        assert calls(google, "list").count("list") == 4

    story(play, template=True)


def test_a_template_that_is_gone_is_denied():
    async def play(google, one):
        google.templates.clear()
        report = await one.start(Launch(LABEL))
        assert report.snag is Snag.DENIED
        assert "instanceTemplates/gpu" in report.detail

    story(play, template=True)


# ── the child ───────────────────────────────────────────────────────────────────────────────────


def test_a_real_child_does_it_with_a_clean_environment_and_its_secret_unseen():
    async def play(google, one):
        report = await one.start(Launch(LABEL, 3600.0))
        assert report.snag is Snag.NONE
        google.settle()
        assert (await one.status()).launch == LABEL

    os.environ["AION_CREDENTIAL_HIDDEN"] = "hidden"
    try:
        story(play, children=run_child)
    finally:
        del os.environ["AION_CREDENTIAL_HIDDEN"]


def test_a_child_that_dies_leaves_a_start_lost_and_a_question_unanswered():
    async def dead(module, payload, *, timeout_s):
        raise ChildFailed(f"{module} was killed by signal 9")

    async def play(google, one):
        assert (await one.start(Launch(LABEL))).snag is Snag.LOST
        assert (await one.stop(LABEL)).snag is Snag.LOST
        seen = await one.status()
        assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)

    story(play, children=dead)


def test_a_start_takes_less_than_200_mb_and_its_request_is_soon_on_its_way():
    async def play(google, one):
        payload = {**wish(one._plan, "start"), "launch": LABEL, "max_run_s": 3600.0}
        answer, peak_kb, cpu_s = await asyncio.to_thread(taken, "backends.gce_child", payload)
        assert answer["launch"] == LABEL
        assert peak_kb <= 200_000
        assert cpu_s <= 4.0, "of the processor: who else runs is no matter"

    story(play)


@pytest.mark.parametrize("call", ["get", "setLabels", "start", "wait"])
def test_a_child_killed_at_any_point_leaves_a_truth_that_is_told(call):
    """It is cancelled once that call has arrived at Google, which does it all the same."""

    async def play(google, one):
        task = asyncio.ensure_future(one.start(Launch(LABEL)))
        async with asyncio.timeout(60):
            while call not in calls(google):  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        google.settle()
        seen = await one.status()
        there = running(google)
        assert (seen.phase is PowerPhase.ON) == bool(there)
        assert seen.launch == ("" if not there else LABEL)
        await began(google, one)
        assert google.launches == 1

    story(play, children=run_child)


def test_a_machine_at_google_needs_no_key_of_its_own():
    """What the machine's metadata server gives is enough."""

    async def play(google, one):
        host = google.url.removeprefix("http://")
        env = {**clean_environment(), "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
        env |= {"HOME": "/nonexistent", "GCE_METADATA_ROOT": host}
        given = partial(run_child, env=env)
        one._ports = replace(one._ports, children=given)
        one._plan = replace(one._plan, secrets={})
        seen = await one.status()
        assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE), seen

    story(play)


@pytest.mark.parametrize("key", ["{}", "not json", "[]", '{"type": "authorized_user"}'])
def test_what_is_no_key_is_denied_and_not_shown(key):
    said = main(
        {"do": "status", "project": "p", "places": [], "api": "http://127.0.0.1:9", "account": key}
    )
    assert said["snag"] == "denied"
    assert "service account" in said["detail"]


def test_nobody_but_the_configured_address_is_asked(caplog):
    """Not by operations, whose own client forgets the address, nor by the credential."""
    caplog.set_level(logging.DEBUG, "urllib3")

    async def play(google, one):
        await began(google, one)
        await one.status()

    story(play)
    asked = [line for line in caplog.messages if line.startswith("Starting new")]
    assert asked
    assert all(": 127.0.0.1:" in line for line in asked), asked


def test_the_key_is_nowhere_in_what_is_told():
    private = json.loads(account())["private_key"].splitlines()[1]

    async def play(google, one):
        reports = [await one.status(), await one.start(Launch(LABEL)), await one.stop(LABEL)]
        assert private not in repr(reports)
        assert private not in repr(one._plan)

    story(play)


def test_what_the_child_says_is_made_harmless():
    report = read(
        {"phase": "on", "detail": "a\nb\x1b[31m", "address": "file:///etc", "launch": None}
    )
    assert (report.detail.isprintable(), report.address, report.launch) == (True, "", "")


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────


def examined(*, two=False, template=False, lacking=(), quotas=None, faults=(), **keys):
    async def play(google, one):
        google.lacking = set(lacking)
        google.quotas = quotas or google.quotas
        return await checks(one._plan, ports(TableHttp({}), None, None, in_a_thread))

    found = story(play, two=two, template=template, faults=faults, **keys)
    return [(one.ok, one.what, one.remedy) for one in found]


@pytest.mark.parametrize("template", [False, True])
def test_doctor_finds_nothing_amiss_where_nothing_is(template):
    found = examined(template=template)
    assert [ok for ok, _, _ in found] == [True] * len(found)
    assert any("NVIDIA_T4_GPUS" in what for _, what, _ in found)
    assert all(not remedy for _, _, remedy in found)


def test_doctor_names_what_the_credential_may_not():
    found = examined(lacking=["compute.instances.setScheduling"])
    assert (False, f"on {ZONE}/gpu-1 it may not: compute.instances.setScheduling") in [
        (ok, what) for ok, what, _ in found
    ]


def test_doctor_names_an_account_on_trial():
    found = examined(quotas={"GPUS_ALL_REGIONS": 0.0, "NVIDIA_T4_GPUS": 1.0})
    (bad,) = [one for one in found if one[0] is False]
    assert "trial" in bad[2]
    found = examined(quotas={"GPUS_ALL_REGIONS": 1.0, "NVIDIA_T4_GPUS": 0.0})
    (bad,) = [one for one in found if one[0] is False]
    assert "NVIDIA_T4_GPUS in europe-west4" in bad[2]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"faults": [("get", "disabled")]}, "not enabled"),
        ({"instance": f"{ZONE}/gone"}, "there is no instance"),
        ({"faults": [("operations", "denied")]}, "compute.instances.start"),
        ({"template": True, "faults": [("template", "denied")]}, "compute.instances.start"),
    ],
)
def test_doctor_says_why_it_could_not_look(keys, words):
    found = examined(**keys)
    assert [ok for ok, _, _ in found] == [False]
    assert words in found[0][1]
    assert found[0][2]


def test_the_quota_of_a_gpu_is_named_as_google_does():
    for kind, name in (
        ("nvidia-tesla-t4", "NVIDIA_T4_GPUS"),
        ("nvidia-l4", "NVIDIA_L4_GPUS"),
        ("projects/p/zones/z/acceleratorTypes/nvidia-a100-80gb", "NVIDIA_A100_80GB_GPUS"),
    ):
        assert gpu_quota(kind, spot=False) == name
        assert gpu_quota(kind, spot=True) == f"PREEMPTIBLE_{name}"
