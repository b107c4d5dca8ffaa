"""The kind `kaggle`, by Kaggle's own client library, against an account on loopback."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

import backends
from backends import kaggle, kaggle_child, kaggle_client
from backends.base import Launch
from backends.ipynb import launch_of
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag, Usage
from orchestrator.edge.child import run_child
from orchestrator.errors import ChildFailed, ChildTimedOut
from tests.backends.peak import taken
from tests.backends.worlds import TableHttp, driver, plan
from tests.standins.kaggle import AT_ONCE, KEY, QUOTA, SESSIONS, TOKEN, USER, Kaggle

KERNEL = f"{USER}/aion-gpu"
FILE = json.dumps({"username": USER, "key": KEY})
LAUNCH = Launch("aion-home-lab-7", 3600.0, "launch-token-0123456789")
OURS, OTHER = "# aion launch: aion-home-lab-7\n", "# aion launch: aion-elsewhere-lab-3\n"


async def inside(module, payload, *, timeout_s, news=None):
    """Do in this process what a child would: the same, without half a second for each."""
    assert module == kaggle.CHILD
    return await asyncio.to_thread(kaggle_child.main, json.loads(json.dumps(dict(payload))))


@pytest.fixture
def account():
    with Kaggle() as made:
        yield made
        assert made.wrong == []


def made(account, key=FILE, children=inside, **more):
    one = plan(
        "kaggle", "ollama", models={"ours": "qwen3:8b"}, secrets={"key": key}, api=account.url,
        **{"kernel": KERNEL, "key": {"credential": "k"}, **more},
    )  # fmt: skip
    object.__setattr__(one, "aion", "https://aion.example.org")
    return driver(TableHttp({}), one, children=children)


def start(account, launch=LAUNCH, **more):
    return asyncio.run(made(account, **more).start(launch))


def status(account, **more):
    return asyncio.run(made(account, **more).status())


def stop(account, label=LAUNCH.label, **more):
    return asyncio.run(made(account, **more).stop(label))


# ── what is pushed ──────────────────────────────────────────────────────────────────────────────


def test_a_start_pushes_a_private_notebook_that_knows_its_launch(account):
    report = start(account, datasets=["ann/weights"], accelerator="t4x2")
    assert (report.phase, report.launch) == (PowerPhase.STARTING, LAUNCH.label)
    assert report.detail == ""
    [sent] = account.kernels[KERNEL].requests
    source = sent.pop("text")
    assert sent == {
        "slug": KERNEL,
        "newTitle": "aion-gpu",
        "language": "python",
        "kernelType": "notebook",
        "kernelExecutionType": "SAVE_AND_RUN_ALL",
        "isPrivate": True,
        "enableGpu": True,
        "enableInternet": True,
        "enableTpu": False,
        "machineShape": "NvidiaTeslaT4Highmem",
        "sessionTimeoutSeconds": 3600,
        "datasetDataSources": ["ann/weights"],
    }
    assert launch_of(source) == LAUNCH.label
    [cell] = [one for one in json.loads(source)["cells"] if one["cell_type"] == "code"]
    code = "".join(cell["source"])
    compile(code, "cell", "exec")
    for line in ('aion = "https://aion.example.org"', 'backend = "lab"', 'models = ["qwen3:8b"]'):
        assert line in code
    assert f'token="{LAUNCH.token}"' in code
    assert source.count(LAUNCH.token) == 1


CANARIES = {
    "key": FILE,
    "token": "backend-token-canary-0123456789",
    "other": "some-other-canary-0123456789",
}


def test_no_credential_but_the_launch_s_token_is_in_what_is_pushed(account):
    one = plan(
        "kaggle", "ollama", models={"ours": "qwen3:8b"}, secrets=CANARIES, api=account.url,
        token={"credential": "t"},
    )  # fmt: skip
    asyncio.run(driver(TableHttp({}), one, children=inside).start(LAUNCH))
    pushed = json.dumps(account.kernels[KERNEL].requests)
    assert LAUNCH.token in pushed
    for canary in (*CANARIES.values(), KEY):
        assert canary not in pushed
    assert KEY not in repr(one)
    assert LAUNCH.token not in repr(LAUNCH)


@pytest.mark.parametrize(
    ("wished", "sent"), [(3600.7, 3600), (5.0, 60), (12 * 3600.0, 12 * 3600 - 60), (None, None)]
)
def test_kaggle_is_told_when_to_end_it_and_never_more_than_it_takes(account, wished, sent):
    assert start(account, Launch("aion-home-lab-7", wished, "t")).snag is Snag.NONE
    assert account.kernels[KERNEL].runs[-1].session_s == sent


@pytest.mark.parametrize(
    ("wished", "shape", "gpu", "tpu"),
    [
        ("t4", "NvidiaTeslaT4", True, False),
        ("NVIDIATESLAT4", "NvidiaTeslaT4", True, False),
        ("tpu-v5e-8", "TpuV5E8", False, True),
        ("none", None, False, False),
    ],
)
def test_accelerators_go_by_short_names_and_by_kaggles_own(account, wished, shape, gpu, tpu):
    assert start(account, accelerator=wished).snag is Snag.NONE
    sent = account.kernels[KERNEL].requests[-1]
    assert (sent.get("machineShape"), sent["enableGpu"], sent["enableTpu"]) == (shape, gpu, tpu)


def test_a_source_that_kaggle_does_not_know_is_said_though_it_runs(account):
    report = start(account, datasets=["ann/weights", "ann/gone"])
    assert (report.snag, report.phase) == (Snag.NONE, PowerPhase.STARTING)
    assert "without ann/gone" in report.detail


# ── who may ask ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", [FILE, TOKEN, f"  {TOKEN}\n"])
def test_a_key_is_a_token_or_a_file_and_no_other_that_lies_about_is_used(
    account, key, monkeypatch, tmp_path
):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "access_token").write_text("somebody-else-s")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "somebody-else-s")
    assert status(account, key=key).phase is PowerPhase.OFF


@pytest.mark.parametrize("key", ["", "{", '{"username": "ann"}', '{"key": 3}', "two words", "ü"])
def test_what_is_no_key_is_denied_without_asking(account, key):
    report = status(account, key=key)
    assert (report.snag, report.phase) == (Snag.DENIED, PowerPhase.UNKNOWN)
    assert "kaggle.json" in report.detail
    assert account.asked == []


def test_a_key_that_is_not_taken_is_denied(account):
    report = status(account, key="KGAT_expired")
    assert (report.snag, report.phase) == (Snag.DENIED, PowerPhase.UNKNOWN)
    assert "does not take the key: make a new one at https://www.kaggle.com/" in report.detail


# ── how it is ───────────────────────────────────────────────────────────────────────────────────

STATES = {
    "QUEUED": (PowerPhase.STARTING, True),
    "RUNNING": (PowerPhase.ON, False),
    "CANCEL_REQUESTED": (PowerPhase.STOPPING, False),
    "COMPLETE": (PowerPhase.OFF, False),
    "ERROR": (PowerPhase.OFF, False),
    "CANCEL_ACKNOWLEDGED": (PowerPhase.OFF, False),
    "NEW_SCRIPT": (PowerPhase.OFF, False),
}


@pytest.mark.parametrize("state", STATES)
def test_each_state_of_a_run_is_a_phase_and_its_label_is_read_back(account, state):
    account.put(KERNEL, OURS, state)
    report = status(account)
    phase, queued = STATES[state]
    assert (report.phase, report.queued, report.snag) == (phase, queued, Snag.NONE)
    assert report.launch == ("" if phase is PowerPhase.OFF else LAUNCH.label)


def test_one_that_died_in_the_queue_says_why(account):
    account.put(KERNEL, OURS, "ERROR").failure = "Failed to allocate\n a machine"
    report = status(account)
    assert report.phase is PowerPhase.OFF
    why, _, log = report.detail.partition(" (")
    assert why == "its run failed: Failed to allocate a machine"
    assert log == f"its log: https://www.kaggle.com/code/{KERNEL})"


def test_a_kernel_that_is_not_there_is_off_though_kaggle_only_says_it_may_not_be_seen(account):
    assert status(account).phase is PowerPhase.OFF
    assert account.asked[:2] == ["GetKernelSessionStatus", "ListKernels"]


@pytest.mark.parametrize("fate", [404, 501])
def test_where_nothing_is_listed_its_source_says_whether_it_is_there(account, fate):
    account.fates = {"ListKernels": [fate, fate]}
    assert status(account).phase is PowerPhase.OFF
    assert account.asked[:3] == ["GetKernelSessionStatus", "ListKernels", "GetKernel"]
    account.put(KERNEL, OURS)
    account.fates["GetKernelSessionStatus"] = [403]
    assert status(account).phase is PowerPhase.UNKNOWN


def test_where_only_pages_are_given_nothing_is_known(account):
    account.fates = {name: [(404, "<html>")] for name in ("GetKernelSessionStatus", "ListKernels")}
    account.fates["GetKernel"] = [(404, "<html>")]
    assert status(account).phase is PowerPhase.UNKNOWN


def test_a_kernel_is_known_by_its_path_too(account):
    account.put(KERNEL, "a notebook of the operator's", "COMPLETE")
    account.fates = {
        "GetKernelSessionStatus": [403],
        "ListKernels": [{"kernels": [{"ref": f"/code/{KERNEL.upper()}"}]}],
    }
    assert start(account).snag is Snag.DENIED
    assert "SaveKernel" not in account.asked


@pytest.mark.parametrize("answer", ["[]", '{"status": ""}', '{"status": "HIBERNATING"}', "null"])
def test_an_answer_that_names_no_state_is_unknown_and_never_off(account, answer):
    account.put(KERNEL, OURS)
    account.fates["GetKernelSessionStatus"] = [(200, answer)]
    report = status(account)
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)


def test_one_that_is_there_and_may_not_be_seen_is_unknown_and_never_off(account):
    account.put(KERNEL, OURS)
    account.fates["GetKernelSessionStatus"] = [403]
    report = status(account)
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.DENIED)
    account.fates = {"GetKernelSessionStatus": [403], "ListKernels": [503]}
    report = status(account)
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)


@pytest.mark.parametrize("fate", [401, 403, 404, 429, 500, 503, "lost", "half", "page"])
@pytest.mark.parametrize("name", ["GetKernelSessionStatus", "GetKernel"])
def test_what_cannot_be_read_is_unknown_whatever_went_wrong(account, name, fate):
    account.put(KERNEL, OURS)
    account.fates[name] = [fate]
    report = status(account)
    assert (report.phase, report.launch) == (PowerPhase.UNKNOWN, "")
    denied = fate in (401, 403, 404)
    assert report.snag is (Snag.DENIED if denied else Snag.TRANSIENT)
    assert report.retry_after_s == (17.0 if fate == 429 else None)
    assert status(account).phase is PowerPhase.ON


def test_where_nobody_listens_nothing_was_done_and_nothing_is_known(account):
    account.away()
    assert status(account).snag is Snag.TRANSIENT
    assert start(account).snag is Snag.TRANSIENT
    assert stop(account).snag is Snag.TRANSIENT


def test_what_was_never_sent_was_not_done(account):
    client = kaggle_client.Client(account.url, {"token": TOKEN})
    account.away()
    kernels = kaggle_child.KernelsApiClient(client)
    with pytest.raises(kaggle_client.Trouble) as trouble:
        kaggle_client.asked(kernels.save_kernel, kaggle_child.ApiSaveKernelRequest(), writes=True)
    assert trouble.value.snag is Snag.TRANSIENT


def test_a_key_does_not_follow_where_an_answer_points(account):
    account.fates["GetKernelSessionStatus"] = ["moved"]
    report = status(account)
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.DENIED)
    assert "points elsewhere" in report.detail
    assert account.asked == ["GetKernelSessionStatus"]


# ── the quota ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("shape", "usage"), [("t4", 1), ("tpu-v6e-8", 1), ("none", 0)])
def test_what_is_used_of_the_quota_comes_with_the_status(account, shape, usage):
    account.used_h = 12.5
    report = status(account, accelerator=shape)
    assert report.usage == (Usage("hours", 12.5, 30.0),) * usage


@pytest.mark.parametrize("fate", [500, 403, "page", {}])
def test_a_quota_that_cannot_be_read_spoils_nothing(account, fate):
    account.put(KERNEL, OURS)
    account.fates["GetAcceleratorQuotaStatistics"] = [fate]
    report = status(account)
    assert (report.phase, report.usage) == (PowerPhase.ON, ())


def test_a_spent_quota_is_told_with_the_time_at_which_it_is_given_anew(account):
    account.used_h = 30.0
    report = start(account)
    assert report.snag is Snag.QUOTA
    assert report.detail == "Maximum weekly GPU quota of 30.00 hours reached."
    assert report.retry_after_s == pytest.approx(account.refresh.timestamp() - 1.8e9)
    assert account.made == 0


@pytest.mark.parametrize(("wall", "wait_s"), [(0.0, 7 * 86400.0), (1.8e9, 230400.0), (1.9e9, None)])
def test_a_clock_that_is_wrong_bars_it_for_a_week_at_most(wall, wait_s):
    said = {"snag": "quota", "detail": "spent", "refresh": "2027-01-18T00:00:00+00:00"}
    assert kaggle.read(said, wall).retry_after_s == wait_s
    assert kaggle.read({**said, "refresh": "soon"}, wall).retry_after_s is None


def test_two_at_once_are_told_apart_from_a_spent_quota(account):
    for name in ("one", "two"):
        account.put(f"{USER}/{name}", "import this")
    report = start(account)
    assert report.snag is Snag.STOCKOUT
    assert report.detail == "Maximum batch GPU session count of 2 reached."
    assert start(account, accelerator="none").snag is Snag.NONE


# ── refusals ────────────────────────────────────────────────────────────────────────────────────

REFUSALS = {
    # As users of the command line report them, word for word.
    QUOTA.format(30): Snag.QUOTA,
    "Maximum weekly TPU quota of 20.00 hours reached.": Snag.QUOTA,
    SESSIONS.format(AT_ONCE): Snag.STOCKOUT,
    "Maximum batch CPU session count of 5 reached.": Snag.STOCKOUT,
    "Maximum interactive GPU session count of 1 reached.": Snag.STOCKOUT,
    "Kernel not found": Snag.DENIED,
    "Notebook not found": Snag.DENIED,
    # These two are guesses at what is not documented, and read by a word in them.
    "Phone verification is required for internet access": Snag.DENIED,
    "Something went wrong. Please try again.": Snag.TRANSIENT,
    "Too many requests": Snag.TRANSIENT,
    "Your weekly GPU limit has been reached": Snag.QUOTA,
    # As its site words it (Kaggle/kaggle-benchmarks issue 76).
    "You've exceeded the number of hours allowed to use GPU.": Snag.QUOTA,
}


@pytest.mark.parametrize("text", REFUSALS)
def test_each_refusal_of_a_push_is_told_apart(account, text):
    account.fates["SaveKernel"] = [text]
    report = start(account)
    assert report.snag is REFUSALS[text]
    assert report.detail.startswith(text.rstrip("."))
    assert ("kaggle.com/settings" in report.detail) is text.startswith("Phone")
    assert account.made == 0


@pytest.mark.parametrize("status", [400, 403, 409, 429])
@pytest.mark.parametrize("text", [QUOTA.format(30), SESSIONS.format(AT_ONCE)])
def test_a_refusal_means_the_same_with_a_status_that_is_an_error(account, status, text):
    account.fates["SaveKernel"] = [(status, json.dumps({"code": status, "message": text}))]
    report = start(account)
    assert report.snag is REFUSALS[text]
    assert report.detail == f"Kaggle answers {status}: {text}"
    if report.snag is Snag.QUOTA:
        assert report.retry_after_s == pytest.approx(account.refresh.timestamp() - 1.8e9)


def test_a_wait_that_kaggle_gives_as_a_date_is_believed(account):
    dates = {
        "Retry-After": "Sat, 21 Nov 2026 20:05:00 GMT",
        "Date": "Sat, 21 Nov 2026 20:00:00 GMT",
    }
    account.fates["SaveKernel"] = [(429, "<html>", dates)]
    assert start(account).retry_after_s == 300.0


@pytest.mark.parametrize("ref", ["/code/ann/aion-gpu-2", "ann/aion-gpu-2"])
def test_a_kernel_that_kaggle_made_under_another_address_is_told(account, ref):
    account.fates["SaveKernel"] = [{"ref": ref, "versionNumber": 1}]
    report = start(account)
    assert report.snag is Snag.DENIED
    assert 'set kernel = "ann/aion-gpu-2"' in report.detail


@pytest.mark.parametrize(
    "answer",
    [
        {"url": f"https://www.kaggle.com/code/{KERNEL}?scriptVersionId=7", "versionNumber": 1},
        {"ref": KERNEL.upper(), "versionNumber": 1},
        {"ref": "", "versionNumber": 1},
    ],
)
def test_its_own_address_is_known_in_every_form(account, answer):
    account.fates["SaveKernel"] = [answer]
    assert start(account).phase is PowerPhase.STARTING


@pytest.mark.parametrize(
    ("fate", "snag"),
    [
        (400, Snag.DENIED),
        (401, Snag.DENIED),
        (403, Snag.DENIED),
        (404, Snag.DENIED),
        (409, Snag.DENIED),
        (429, Snag.TRANSIENT),
        (408, Snag.LOST),
        (500, Snag.LOST),
        (502, Snag.LOST),
        (503, Snag.LOST),
        ({"code": 403, "message": "no"}, Snag.DENIED),
        ({"code": 500, "message": "no"}, Snag.LOST),
        ({"versionNumber": 0, "hasVersionNumber": False}, Snag.LOST),
        ({}, Snag.LOST),
        ("half", Snag.LOST),
        ("page", Snag.LOST),
        ("lost", Snag.LOST),
    ],
)
def test_whether_a_push_was_made_is_known_or_said_to_be_unknown(account, fate, snag):
    account.fates["SaveKernel"] = [fate]
    report = start(account)
    assert report.snag is snag
    assert report.detail
    assert KEY not in report.detail
    assert account.made == (1 if fate in ("half", "page", "lost") else 0)


def test_a_child_that_is_ended_while_kaggle_thinks_leaves_it_unknown_and_its_status_finds_it(
    account,
):
    account.fates["SaveKernel"] = [3.0]

    async def out_of_time(module, payload, *, timeout_s, news=None):
        child = asyncio.ensure_future(run_child(module, payload, timeout_s=timeout_s))
        while "SaveKernel" not in account.asked:  # noqa: ASYNC110 - a server in another thread
            await asyncio.sleep(0.01)
        child.cancel()
        await asyncio.gather(child, return_exceptions=True)
        raise ChildTimedOut(f"{module} took longer than {timeout_s:g} s")

    assert start(account, children=out_of_time).snag is Snag.LOST
    assert status(account).phase is PowerPhase.OFF
    for _ in range(2000):
        if (report := status(account)).launch:
            break
    assert report.launch == LAUNCH.label
    assert start(account).snag is Snag.NONE
    assert account.made == 1


def test_the_client_waits_for_an_answer_and_not_for_ever(account):
    client = kaggle_client.Client(account.url, {"token": TOKEN}, answer_s=0.2)
    account.fates["GetAcceleratorQuotaStatistics"] = [1.0]
    kernels = kaggle_child.KernelsApiClient(client)
    request = kaggle_child.ApiGetAcceleratorQuotaStatisticsRequest()
    for writes, snag in ((True, Snag.LOST), (False, Snag.NONE)):
        try:
            kaggle_client.asked(kernels.get_accelerator_quota_statistics, request, writes=writes)
        except kaggle_client.Trouble as trouble:
            assert trouble.snag is snag
            assert "no answer" in trouble.detail
        else:
            assert snag is Snag.NONE


def test_a_child_that_dies_or_hangs_leaves_it_unknown(account):
    async def dies(*_, **__):
        raise ChildFailed("backends.kaggle_child was killed by signal 9")

    assert start(account, children=dies).snag is Snag.LOST
    assert stop(account, children=dies).snag is Snag.LOST
    assert status(account, children=dies).snag is Snag.TRANSIENT


# ── what is not ours ────────────────────────────────────────────────────────────────────────────


def test_a_notebook_of_the_operator_s_own_is_not_written_over(account):
    account.put(KERNEL, "import this", "COMPLETE")
    report = start(account)
    assert report.snag is Snag.DENIED
    assert "one of its own" in report.detail
    assert account.made == 1


@pytest.mark.parametrize("source", [OTHER, "import this"])
def test_while_something_else_runs_there_nothing_is_pushed(account, source):
    account.put(KERNEL, source)
    report = start(account)
    assert report.snag is Snag.TRANSIENT
    assert "already" in report.detail
    assert account.made == 1


# ── stopping ────────────────────────────────────────────────────────────────────────────────────


def test_a_run_cannot_be_cancelled_from_outside_and_that_is_said(account):
    account.put(KERNEL, OURS)
    report = stop(account)
    assert (report.phase, report.snag) == (PowerPhase.STOPPING, Snag.NONE)
    assert "ends when its agent does" in report.detail
    assert len(account.active()) == 1
    account.active()[0].status = "COMPLETE"
    assert stop(account).phase is PowerPhase.OFF


def test_should_kaggle_come_to_name_its_sessions_they_are_cancelled(account):
    account.exposes = True
    account.put(KERNEL, OURS)
    assert stop(account).detail == ""
    assert account.active()[0].status == "CANCEL_REQUESTED"
    assert stop(account).phase is PowerPhase.STOPPING
    account.settle()
    assert stop(account).phase is PowerPhase.OFF
    account.put(KERNEL, OURS)
    account.fates["CancelKernelSession"] = [{"errorMessage": "Session is not active"}]
    assert stop(account).snag is Snag.DENIED


def test_where_the_operator_says_so_the_kernel_is_deleted(account):
    account.put(KERNEL, OURS, "QUEUED")
    assert stop(account, stop="delete").phase is PowerPhase.STOPPING
    assert account.kernels == {}
    assert status(account).phase is PowerPhase.OFF
    assert start(account).snag is Snag.NONE


@pytest.mark.parametrize("mode", ["agent", "delete"])
def test_what_runs_under_another_label_is_not_stopped(account, mode):
    account.put(KERNEL, OTHER)
    assert stop(account, stop=mode).phase is PowerPhase.OFF
    assert len(account.active()) == 1
    assert account.asked.count("DeleteKernel") == 0


@pytest.mark.parametrize("fate", ["lost", 500])
def test_a_deletion_whose_answer_is_lost_is_said_to_be(account, fate):
    account.put(KERNEL, OURS)
    account.fates["DeleteKernel"] = [fate]
    assert stop(account, stop="delete").snag is Snag.LOST


# ── the child ───────────────────────────────────────────────────────────────────────────────────


def test_what_the_child_answers_holds_neither_the_source_nor_the_key(account):
    start(account)
    for do in ("status", "checks", "stop"):
        one = made(account)
        payload = {**kaggle.payload_of(one._plan, do), "launch": "", "deletes": False}
        said = json.dumps(kaggle_child.main(payload))
        for secret in (LAUNCH.token, KEY):
            assert secret not in said


def test_a_child_of_its_own_does_all_of_it_within_its_memory(account):
    report = start(account, children=run_child)
    assert (report.snag, report.launch) == (Snag.NONE, LAUNCH.label)
    one = made(account)
    said, peak_kb, _ = taken("backends.kaggle_child", kaggle.payload_of(one._plan, "status"))
    assert said["launch"] == LAUNCH.label
    assert peak_kb < 200_000


def test_the_daemon_does_not_load_kaggles_library():
    code = (
        "import sys, orchestrator.main, backends.kaggle;"
        "print(sorted(one for one in sys.modules if one.split('.')[0] in ('kagglesdk', 'requests')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"


# ── keys of the configuration ───────────────────────────────────────────────────────────────────

WRONG = {
    "kernel": ("aion", "ann/", "ann/Aion", "ann/gpu", "ann/a--bcde", "ann/aion-gpu/3", "x" * 80),
    "accelerator": ("p100", "NvidiaTeslaP100", "gtx", ""),
    "internet": (False,),
    "datasets": (["weights"], ["ann/we ights"], ["a/b; rm"]),
    "agent": ({"token": "x"}, {"aion": "x"}, {"no_such": 1}, {"models": ["x"]}),
    "allow_hosts": (["*.ngrok-free.app"], ["box.example.org"]),
    "api": ("http://api.example.org", "ftp://x"),
    "stop": ("maybe",),
    "key": ("KGAT_literal",),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_key_that_cannot_work_is_refused_in_the_users_words(key, value):
    given = {"kernel": KERNEL, "key": {"credential": "k"}, key: value}
    with pytest.raises(ValidationError) as refused:
        backends.options("kaggle")(**given)
    assert refused.value.error_count() == 1
    assert "KGAT" not in str(refused.value)


def test_what_is_retired_names_its_successor():
    with pytest.raises(ValidationError, match="retired `P100`; use `t4`"):
        backends.options("kaggle")(kernel=KERNEL, key={"credential": "k"}, accelerator="P100")


def test_the_agent_is_told_more_where_the_operator_says_so(account):
    more = {"engine_args": "--ctx-size 8192", "install": False, "port": 8801}
    start(account, agent=more)
    [source] = account.kernels[KERNEL].sources
    call = re.search(r"start\(.*\)", "".join(json.loads(source)["cells"][1]["source"]))[0]
    for word in ('engine_args="--ctx-size 8192"', "install=False", "port=8801"):
        assert word in call


# ── aion doctor ─────────────────────────────────────────────────────────────────────────────────


def examined(account, **more):
    one = made(account, **more)
    return asyncio.run(kaggle.checks(one._plan, one._ports))


def test_doctor_says_that_the_key_works_whose_the_kernel_is_and_what_is_left(account):
    account.used_h = 12.5
    found = examined(account)
    assert [one.ok for one in found] == [True, True, True]
    assert "first start" in found[1].what
    assert found[2].what == "17.5 of 30 h are left this week, given anew 2027-01-18 00:00 UTC"
    account.put(KERNEL, OURS, "COMPLETE")
    assert "this backend's" in examined(account)[1].what
    account.put(KERNEL, "import this", "COMPLETE")
    account.used_h = 31.0
    found = examined(account)
    assert [one.ok for one in found] == [True, False, None]
    assert "SaveKernel" not in account.asked


@pytest.mark.parametrize("key", ["KGAT_expired", "two words"])
def test_doctor_says_what_is_wrong_with_a_key(account, key):
    [found] = examined(account, key=key)
    assert found.ok is False
    assert "kaggle.com/settings" in found.remedy


def test_doctor_sees_a_kernel_that_is_somebody_else_s(account):
    found = examined(account, kernel="bob/aion-gpu")
    assert found[1].ok is False
    assert "ann's" in found[1].what
