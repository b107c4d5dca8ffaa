"""The kind `command`, with real programs: what is read of them, and that none outlives its deadline."""

import asyncio
import json
import os
import sys
import time  # noqa: TID251 - deadlines of real processes
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

import backends
from backends.base import Ended, Launch
from backends.command import read
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Verdict
from orchestrator.core.powering import Snag
from orchestrator.edge.programs import run_program
from tests.backends.worlds import TableHttp, plan, ports, reply

SECRET = "s3cret-0123456789"


def run(*lines):
    """An argument list that runs these lines of Python."""
    return (sys.executable, "-c", "\n".join(lines))


def driver_of(http=None, *, secrets=None, address="", url="http://10.0.0.5:8080", **verbs):
    given = dict.fromkeys(("start", "stop", "status"), ("/bin/true",))
    made = plan("command", secrets=secrets, commands={**given, **verbs}, url=url)
    made = replace(made, address=address)
    return backends.driver(made, ports(http or TableHttp({}), None, run_program))


def alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid, within_s=60.0):
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


# ── what is read ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (0, PowerPhase.ON),
        (3, PowerPhase.OFF),
        (4, PowerPhase.STARTING),
        (5, PowerPhase.STOPPING),
    ],
)
def test_an_exit_status_says_how_it_is(status, phase):
    one = driver_of(status=run(f"raise SystemExit({status})"))
    report = asyncio.run(one.status())
    assert (report.phase, report.snag, report.detail) == (phase, Snag.NONE, "")


@pytest.mark.parametrize("status", [1, 2, 6, 127, 255])
def test_a_status_that_cannot_be_read_is_not_off(status):
    one = driver_of(
        status=run("import sys", "print('no route', file=sys.stderr)", f"sys.exit({status})")
    )
    report = asyncio.run(one.status())
    assert (report.phase, report.snag) == (PowerPhase.UNKNOWN, Snag.LOST)
    assert report.detail == f"exit status {status}: no route"


@pytest.mark.parametrize(
    ("status", "snag"),
    [(69, "stockout"), (73, "quota"), (75, "transient"), (77, "denied"), (1, "lost"), (3, "lost")],
)
def test_an_exit_status_of_a_start_says_what_is_in_the_way(status, snag):
    assert read(Ended(status)).snag == Snag(snag)


def test_the_last_line_says_more_and_nothing_strange_is_believed():
    said = {"state": "on", "url": "http://203.0.113.9:8000/", "launch": "l", "detail": "a\nb"}
    report = read(Ended(0, "noise\n" + json.dumps(said) + "\n"), reads=True)
    assert (report.phase, report.address, report.launch) == (
        PowerPhase.ON,
        "http://203.0.113.9:8000",
        "l",
    )
    assert report.detail == "a b"
    report = read(Ended(3, json.dumps({"problem": "quota", "retry_after_s": 60})), reads=True)
    assert (report.snag, report.retry_after_s, report.phase) == (
        Snag.QUOTA,
        60.0,
        PowerPhase.UNKNOWN,
    )
    for odd in ({"state": "half"}, {"url": "file:///etc/passwd"}, {"launch": 7}, [], "on", 7, None):
        report = read(Ended(3, json.dumps(odd)), reads=True)
        assert (report.phase, report.address, report.launch) == (PowerPhase.OFF, "", "")
    assert read(Ended(0, '{"state": "on"'), reads=True).phase is PowerPhase.ON


def test_what_a_program_says_of_its_secret_is_not_shown():
    report = read(Ended(1, "", f"bad key {SECRET}"), SECRET)
    assert SECRET not in repr(report)


def test_an_address_that_its_status_gave_is_where_it_is_looked_for():
    http = TableHttp({"/v1/models": reply(200, {"object": "list", "data": []})})
    one = driver_of(http, url=None, address="http://203.0.113.9:8000")
    assert asyncio.run(one.probe()).verdict is Verdict.OK
    assert http.sent[0][0].startswith("http://203.0.113.9:8000/")
    nowhere = driver_of(http, url=None)
    assert asyncio.run(nowhere.probe()).verdict is Verdict.FAILED
    assert asyncio.run(nowhere.canary()) is None


# ── what is run ─────────────────────────────────────────────────────────────────────────────────


def test_a_label_goes_into_its_arguments_and_nothing_of_it_is_a_shells():
    tell = run("import json, sys", "print(json.dumps({'detail': ' '.join(sys.argv[1:])}))")
    one = driver_of(start=(*tell, "--name={launch}", "{max_run_s}", "$HOME; false"))
    report = asyncio.run(one.start(Launch("aion-x-1", 90.4)))
    assert report.detail == "--name=aion-x-1 90 $HOME; false"
    assert report.phase is PowerPhase.STARTING


def test_its_secret_comes_by_stdin_and_its_environment_is_clean(tmp_path):
    out = tmp_path / "out"
    lines = (
        "import json, os, sys",
        "argv = open('/proc/self/cmdline').read()",
        f"open({str(out)!r}, 'w').write(json.dumps([sys.stdin.read(), dict(os.environ), argv]))",
    )
    os.environ["AION_CREDENTIAL_HIDDEN"] = "hidden"
    try:
        commands = {verb: run(*lines) for verb in ("start", "stop", "status")}
        commands |= {"stdin": {"credential": "k"}, "env": {"REGION": "eu"}}
        made = plan("command", secrets={"commands.stdin": SECRET}, commands=commands)
        one = backends.driver(made, ports(TableHttp({}), None, run_program))
        asyncio.run(one.start(Launch("l")))
    finally:
        del os.environ["AION_CREDENTIAL_HIDDEN"]
    stdin, environ, argv = json.loads(out.read_text())
    assert stdin == SECRET
    assert environ["REGION"] == "eu"
    assert "hidden" not in environ.values()
    assert SECRET not in argv
    assert SECRET not in environ.values()
    assert SECRET not in repr(made)


def test_at_its_deadline_it_and_what_it_started_are_gone_and_its_answer_is_lost(tmp_path):
    pids = tmp_path / "pids"
    lines = (
        "import os, subprocess, sys, signal, time",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')",
        "time.sleep(600)",
    )
    for timeout_s in (1.5, 6, 30):  # until it had time to start its own child
        one = driver_of(start=run(*lines), timeout=f"{timeout_s * 1000:.0f}ms")
        report = asyncio.run(one.start(Launch("l")))
        assert report.snag is Snag.LOST
        assert f"longer than {timeout_s} s" in report.detail
        if pids.exists() and pids.read_text():
            break
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def test_one_that_is_cancelled_is_gone_too(tmp_path):
    pid = tmp_path / "pid"
    line = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    one = driver_of(start=run(line))

    async def story():
        task = asyncio.ensure_future(one.start(Launch("l")))
        while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert gone(int(pid.read_text()))


def test_what_a_start_leaves_running_goes_on_and_is_not_waited_for(tmp_path):
    pid = tmp_path / "pid"
    lines = (
        "import subprocess, sys",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
        f"open({str(pid)!r}, 'w').write(str(child.pid))",
    )
    began = time.monotonic()
    report = asyncio.run(driver_of(start=run(*lines)).start(Launch("l")))
    left = int(pid.read_text())
    try:
        assert report.snag is Snag.NONE
        assert time.monotonic() - began < 20
        assert alive(left)
    finally:
        os.kill(left, 9)


def test_a_program_that_talks_without_end_is_heard_to_the_end_and_not_kept():
    lines = (
        "import sys",
        "sys.stdout.write('x' * 5_000_000 + '\\n')",
        'print(\'{"state": "off"}\')',
    )
    report = asyncio.run(driver_of(status=run(*lines)).status())
    assert report.phase is PowerPhase.OFF


def test_a_program_that_is_not_there_did_nothing():
    report = asyncio.run(driver_of(start=("/nowhere/gpu",)).start(Launch("l")))
    assert report.snag is Snag.TRANSIENT
    assert "/nowhere/gpu" in report.detail


# ── what is configured ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "wrong",
    [
        {"commands": {"start": [], "stop": ["x"], "status": ["x"]}},
        {"commands": {"start": ["gpu start"], "stop": ["x"], "status": ["x"]}},
        {"commands": {"start": ["x"], "stop": ["x"]}},
        {"commands": {"start": ["x"], "stop": ["x"], "status": ["x"], "timeout": "6m"}},
        {"commands": {"start": ["x"], "stop": ["x"], "status": ["x"], "stdin": SECRET}},
        {"registers": True},
        {"url": "file:///x"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        plan("command", **wrong)


def test_the_fakes_starts_are_read():
    for wrong in ("boot", "stockout 3s", "explode", "boot 3s,"):
        with pytest.raises(ValidationError):
            plan("fake", power=wrong)
