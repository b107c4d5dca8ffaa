"""The kind `libcloud`: the real library against moto's EC2 behind a strict front, and by itself."""

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from libcloud.common.exceptions import BaseHTTPError, RateLimitReachedError
from libcloud.common.types import InvalidCredsError
from pydantic import ValidationError

import backends
from backends import libcloud_child
from backends.base import Launch
from backends.libcloud import payload
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag
from orchestrator.edge.child import run_child
from orchestrator.errors import ChildFailed
from tests.backends.peak import taken
from tests.backends.worlds import TableHttp, plan, ports
from tests.standins.ec2 import ACCOUNT, ERRORS, NODE, Ec2, in_process, planned
from tests.standins.rest import Fault

LABEL, OTHER = "aion-home-lab-7", "aion-home-lab-8"


def driver_of(made, children=in_process):
    return backends.driver(made, ports(TableHttp({}), children=children))


# ── against EC2 ─────────────────────────────────────────────────────────────────────────────────


def test_a_process_of_its_own_starts_and_stops_the_machine_and_the_daemon_never_loads_libcloud():
    async def main():
        async with Ec2() as there:
            one = driver_of(planned(there), run_child)
            assert (await one.status()).phase is PowerPhase.OFF
            taken = await one.start(Launch(LABEL))
            assert (taken.phase, taken.launch, taken.snag) == (
                PowerPhase.STARTING,
                LABEL,
                Snag.NONE,
            )
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.ON, LABEL)
            node = await asyncio.to_thread(lambda: there.node)
            assert seen.address == f"http://{node.public_ips[0]}:8000"
            assert (await one.stop(LABEL)).snag is Snag.NONE
            assert (await one.status()).phase is PowerPhase.OFF
            node = await asyncio.to_thread(lambda: there.node)
            assert "aion" not in node.extra["tags"]
            assert there.requests.index("CreateTags") < there.requests.index("StartInstances")

    asyncio.run(main())
    probe = "import sys, backends.libcloud; print('libcloud.compute' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("fault", "snag"),
    [
        ("stockout", Snag.STOCKOUT),
        ("quota", Snag.QUOTA),
        ("limit", Snag.QUOTA),
        ("denied", Snag.DENIED),
        ("auth", Snag.DENIED),
        ("transient", Snag.TRANSIENT),
        ("state", Snag.TRANSIENT),
        ("internal", Snag.LOST),
    ],
)
def test_each_of_ec2s_refusals_is_told_apart_and_no_label_stays_where_nothing_runs(fault, snag):
    async def main():
        async with Ec2() as there:
            one = driver_of(planned(there))
            there.faults.append(Fault("StartInstances", 1, fault))
            report = await one.start(Launch(LABEL))
            assert report.snag is snag
            assert ERRORS[fault][1] in report.detail
            node = await asyncio.to_thread(lambda: there.node)
            labelled = node.extra["tags"].get("aion") == LABEL
            assert labelled == (snag is Snag.LOST)
            assert there.requests.count("StartInstances") == 1

    asyncio.run(main())


def test_an_account_that_may_not_tag_is_told_so_and_can_do_without():
    async def main():
        async with Ec2() as there:
            there.faults.append(Fault("CreateTags", 1, "denied"))
            refused = await driver_of(planned(there)).start(Launch(LABEL))
            assert refused.snag is Snag.DENIED
            assert "StartInstances" not in there.requests
            one = driver_of(planned(there, tag=False))
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            seen = await one.status()
            assert (seen.phase, seen.launch) == (PowerPhase.ON, "")
            assert (await one.start(Launch(OTHER))).snag is Snag.NONE
            assert there.requests.count("StartInstances") == 1
            assert (await one.stop(OTHER)).phase is PowerPhase.STOPPING

    asyncio.run(main())


def test_what_somebody_else_started_is_left_alone():
    async def main():
        async with Ec2() as there:
            await asyncio.to_thread(lambda: there.driver.start_node(there.node))
            one = driver_of(planned(there))
            assert (await one.start(Launch(LABEL))).snag is Snag.TRANSIENT
            assert (await one.stop(LABEL)).phase is PowerPhase.OFF
            assert (await one.status()).phase is PowerPhase.ON

    asyncio.run(main())


def test_a_machine_that_is_gone_is_off_and_cannot_be_started():
    async def main():
        async with Ec2() as there:
            await asyncio.to_thread(lambda: there.driver.destroy_node(there.node))
            for node in (NODE, there.id, "i-0123456789abcdef0"):
                one = driver_of(planned(there, node=node))
                seen = await one.status()
                assert (seen.phase, seen.snag) == (PowerPhase.OFF, Snag.NONE)
                assert "there is no machine" in seen.detail
                assert (await one.start(Launch(LABEL))).snag is Snag.DENIED
            (missing,) = await backends.checks("libcloud")(
                planned(there), ports(TableHttp({}), children=in_process)
            )
            assert (missing.ok, missing.remedy) == (False, "correct `node` or `region`")

    asyncio.run(main())


def test_the_doctor_names_what_is_wrong_with_the_account():
    async def main():
        async with Ec2() as there:
            look, world = backends.checks("libcloud"), ports(TableHttp({}), children=in_process)
            assert [one.ok for one in await look(planned(there), world)] == [True, None]
            there.faults.append(Fault("DescribeInstances", 1, "auth"))
            (denied,) = await look(planned(there), world)
            assert denied.ok is False
            assert denied.remedy == "aion secret set aws"
            assert not {"StartInstances", "StopInstances", "CreateTags"} & set(there.requests)

    asyncio.run(main())


def test_what_a_childs_peak_memory_is():
    async def main():
        async with Ec2() as there:
            given = payload(planned(there), "start", LABEL)
            return await asyncio.to_thread(taken, "backends.libcloud_child", given)

    answer, peak_kb, _ = asyncio.run(main())
    assert answer["snag"] == "", answer
    assert peak_kb < 200_000


# ── without a provider ──────────────────────────────────────────────────────────────────────────


async def killed(*_, **__):
    raise ChildFailed("backends.libcloud_child was killed by signal -9")


def test_a_child_that_is_killed_leaves_it_open_whether_anything_was_done():
    one = driver_of(plan("libcloud"), killed)
    assert asyncio.run(one.start(Launch(LABEL))).snag is Snag.LOST
    assert asyncio.run(one.stop(LABEL)).snag is Snag.LOST
    assert asyncio.run(one.status()).snag is Snag.TRANSIENT


@pytest.mark.parametrize("done", [False, True])
def test_a_child_that_is_killed_while_it_waits_has_started_it_or_not_and_its_status_tells(done):
    async def main():
        async with Ec2() as there:

            async def killed_there(module, payload, *, timeout_s):
                child = asyncio.ensure_future(run_child(module, payload, timeout_s=timeout_s))
                while "StartInstances" not in there.requests or there.began < done:  # noqa: ASYNC110 - another process asks
                    await asyncio.sleep(0.01)
                child.cancel()  # which kills it at once
                await asyncio.gather(child, return_exceptions=True)
                raise ChildFailed("it was killed by signal 9")

            there.faults.append(Fault("StartInstances", -1, done=done))
            made = planned(there)
            assert (await driver_of(made, killed_there).start(Launch(LABEL))).snag is Snag.LOST
            one = driver_of(made)
            seen = await one.status()
            assert seen.phase is (PowerPhase.ON if done else PowerPhase.OFF)
            assert seen.launch == (LABEL if done else "")
            assert (await one.start(Launch(LABEL))).snag is Snag.NONE
            assert (await one.status()).launch == LABEL

    asyncio.run(main())


@pytest.mark.parametrize("said", [{}, {"snag": 7}, {"phase": "half", "snag": "x"}, {"snag": None}])
def test_an_answer_that_says_nothing_is_taken_for_lost(said):
    async def children(*_, **__):
        return said

    report = asyncio.run(driver_of(plan("libcloud"), children).status())
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.LOST)


GIVEN = {
    "ask": "status",
    "label": "",
    "provider": "dummy",
    "node": "dummy-1",
    "region": None,
    "account": '{"creds": "s3cret-0123456789"}',
    "arguments": {},
    "tag": True,
    "host": None,
    "port": None,
    "secure": True,
}


def test_libcloud_that_is_not_installed_is_one_clear_line():
    code = (
        "import sys, json; sys.modules['libcloud'] = None; sys.modules['libcloud.compute'] = None;"
        " from backends.libcloud_child import main; print(json.dumps(main(json.load(sys.stdin))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(GIVEN),
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["snag"] == "denied"
    assert said["detail"].endswith("pip install 'aion-orchestrator[libcloud]'")


def test_a_provider_that_libcloud_does_not_know_and_arguments_that_a_driver_does_not_take():
    said = libcloud_child.main({**GIVEN, "provider": "nowhere"})
    assert said == {"snag": "denied", "detail": "Apache Libcloud knows no provider `nowhere`"}
    said = libcloud_child.main({**GIVEN, "region": "mars"})
    assert said["snag"] == "denied"
    assert "does not take these arguments" in said["detail"]


def test_a_name_that_two_machines_have_is_no_name():
    node = SimpleNamespace(name="gpu", extra={}, state="running", public_ips=[], private_ips=[])
    both = [SimpleNamespace(**vars(node), id=one) for one in ("1", "2")]
    driver = SimpleNamespace(list_nodes=lambda: both)
    with pytest.raises(libcloud_child.Refused, match="2 machines are called gpu"):
        libcloud_child._node(driver, "gpu")
    both[1].state = "terminated"
    assert libcloud_child._node(driver, "gpu") is both[0]
    assert libcloud_child._node(driver, "2") is None


@pytest.mark.parametrize(
    ("error", "read", "write"),
    [
        (InvalidCredsError("bad"), "denied", "denied"),
        (RateLimitReachedError(headers={"retry-after": "9"}), "transient", "transient"),
        (BaseHTTPError(429, "slow down"), "transient", "transient"),
        (BaseHTTPError(422, "no such size"), "denied", "denied"),
        (BaseHTTPError(500, "oops"), "transient", "lost"),
        # learn.microsoft.com, "Resolve errors for SKU not available" and "… for resource quotas"
        (BaseHTTPError(409, "SkuNotAvailable: The requested size is not available"),) + ("stockout",) * 2,
        (BaseHTTPError(409, "[AllocationFailed] Allocation failed."), "stockout", "stockout"),
        (BaseHTTPError(409, "OperationNotAllowed: exceeding approved Cores quota"), "quota", "quota"),
        (ConnectionError("reset"), "transient", "lost"),
        (TimeoutError(), "transient", "lost"),
    ],
)  # fmt: skip
def test_what_drivers_raise_is_read(error, read, write):
    assert libcloud_child.refusal(error, wrote=False)["snag"] == read
    assert libcloud_child.refusal(error, wrote=True)["snag"] == write
    assert libcloud_child.refusal(error, wrote=True)["detail"]


def test_no_secret_of_an_account_comes_back():
    secret = ACCOUNT["secret"]
    # A driver that says what it was given: here the region, which is the secret by mistake.
    given = {**GIVEN, "provider": "ec2", "region": secret, "account": json.dumps(ACCOUNT)}
    said = libcloud_child.main(given)
    assert said["snag"] == "denied"
    assert "…" in said["detail"]
    assert secret not in json.dumps(said)
    made = plan("libcloud", secrets={"account": secret})
    assert secret not in repr(made)
    assert payload(made, "status", "")["account"] == secret


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "it needs `port`"),
        ({"port": 1, "provider": "../x"}, "pattern"),
        ({"port": 1, "account": "AKIA"}, "not written in the file"),
        ({"port": 1, "api": "http://ec2.example.org"}, "https://"),
        ({"port": 1, "api": "https://ec2.example.org/v1"}, "host and port only"),
        ({"port": 1, "key": "x"}, "not written in the file"),
    ],
)
def test_what_makes_no_sense_is_refused(keys, why):
    given = {"provider": "ec2", "node": "gpu-1", "account": {"credential": "aws"}}
    with pytest.raises(ValidationError, match=why):
        backends.options("libcloud")(**{**given, **keys})
