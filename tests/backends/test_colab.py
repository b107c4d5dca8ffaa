"""The kind `colab` with a stand-in of Google's tool that takes what that tool takes, and no more.

The real tool was never run here.
"""

import asyncio
import json
import os
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

import backends
from backends.base import Launch
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag
from orchestrator.edge.programs import run_program
from tests.backends.worlds import TableHttp, plan, ports
from tests.standins import colab

LABEL, OTHER = "aion-home-lab-7", "aion-home-lab-8"
TOKEN = "launch-token-0123456789-abcdefghijklmnopqrstuvwxyz"
AGENT = """
import json, pathlib
class Run:
    def __repr__(self): return "<aion agent: running>"
def start(**given):
    pathlib.Path({told!r}).write_text(json.dumps(given))
    return Run()
"""


@contextmanager
def daemon(text):
    """What hands out the agent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/agent.py"
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


RICH = """\
╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /x/colab_cli/client.py:412 in assign                                         │
│                                                                              │
│   410 │   │   │   if get_status_code(e) == 412:                              │
│   411 │   │   │   │   raise TooManyAssignmentsError(str(e))                  │
│ ❱ 412 │   │   │   raise e                                                    │
╰──────────────────────────────────────────────────────────────────────────────╯
{}
"""
PLAIN = """\
Traceback (most recent call last):
  File "/x/colab_cli/client.py", line 412, in assign
    raise e  # no TooManyAssignmentsError
{}
"""


class Truth:
    """What the stand-in holds in its file; also what the contract asks of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(json.dumps(colab.EMPTY))

    @property
    def now(self) -> dict:
        return json.loads(self.path.read_text())

    def fault(self, on, says="", **more):
        with colab.Truth(self.path) as held:
            held["faults"].append({"on": on, "says": says, **more})

    def verbs(self):
        return [asked[1] for asked in self.now["asked"]]

    async def runs(self) -> list[str]:
        return list(self.now["sessions"])

    async def began(self) -> int:
        return len(self.now["began"])

    async def settle(self) -> None:
        return

    async def put(self, label: str) -> None:
        with colab.Truth(self.path) as held:
            held["sessions"][label] = "T4"

    async def longest_s(self) -> float | None:
        return None


@asynccontextmanager
async def rented(folder, text=None, **keys):
    truth = Truth(folder / "truth.json")
    with daemon(text or AGENT.format(told=str(folder / "told.json"))) as aion:
        env = {"COLAB_STANDIN": str(truth.path)}
        given = {"cli": colab.tool(folder), "env": env, "allow_hosts": ["*.trycloudflare.com"]}
        made = plan("colab", "ollama", models={"ours": "theirs"}, **{**given, **keys})
        made = replace(made, label="aion-home-lab-", aion=aion)
        try:
            yield truth, backends.driver(made, ports(TableHttp({}), None, run_program)), made
        finally:
            for pids in truth.now["kernels"].values():
                colab.let_go(pids)


FATES = {
    "lost": {"says": "", "status": -9 % 256, "done": True},
    "quota": {"says": colab.TOO_MANY},
    "denied": {"says": colab.UNAUTHORIZED},
    "transient": {"says": colab.THROTTLED},
}


@asynccontextmanager
async def contract(folder, case):
    """One that is off, for `tests/contract/test_powered_kinds.py`."""
    verbs = {"start": "new", "status": "sessions", "stop": "stop"}
    async with rented(folder) as (truth, one, _):
        if case.fate.value:
            truth.fault(verbs[case.ask.value], **FATES[case.fate.value])
        yield one, truth


# ── what is run ─────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_asked_for_under_its_label_and_the_notebooks_cell_begins_its_agent(tmp_path):
    async def main():
        async with rented(tmp_path) as (truth, one, made):
            taken = await one.start(Launch(LABEL, 3600.0, TOKEN))
            assert (taken.phase, taken.snag) == (PowerPhase.STARTING, Snag.NONE)
            assert truth.now["sessions"] == {LABEL: "T4"}
            assert truth.verbs() == ["sessions", "new", "exec"]
            told = json.loads((tmp_path / "told.json").read_text())
            assert told == {
                "aion": made.aion,
                "backend": "lab",
                "engine": "ollama",
                "models": ["theirs"],
                "tunnel": "cloudflared",
                "insecure": True,
                "token": TOKEN,
                "wait": False,
            }
            assert TOKEN not in json.dumps(truth.now["asked"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("says", "status", "snag"),
    [
        (colab.TOO_MANY, 1, Snag.QUOTA),
        (colab.REJECTED, 1, Snag.QUOTA),
        (colab.UNAUTHORIZED, 1, Snag.DENIED),
        ("google.auth.exceptions.DefaultCredentialsError: no credentials", 1, Snag.DENIED),
        (colab.THROTTLED, 1, Snag.TRANSIENT),
        (colab.BROKEN, 1, Snag.LOST),
        (RICH.format(colab.TOO_MANY), 1, Snag.QUOTA),
        # The code that a traceback shows names errors which it is not about.
        (RICH.format(colab.BROKEN), 1, Snag.LOST),
        (PLAIN.format(colab.BROKEN), 1, Snag.LOST),
        (PLAIN.format(colab.UNAUTHORIZED), 1, Snag.DENIED),
        ("", 137, Snag.LOST),
        ("", 0, Snag.LOST),  # it says that all went well, and not what
    ],
)
def test_what_the_tool_says_of_a_session_that_it_did_not_get_is_read(tmp_path, says, status, snag):
    async def main():
        async with rented(tmp_path) as (truth, one, _):
            truth.fault("new", says, status=status)
            report = await one.start(Launch(LABEL, None, TOKEN))
            assert report.snag is snag
            assert report.detail
            assert "exec" not in truth.verbs()

    asyncio.run(main())


def test_the_next_gpu_is_asked_for_where_the_account_may_not_have_the_first(tmp_path):
    async def main():
        async with rented(tmp_path, gpu=["A100", "L4"]) as (truth, one, _):
            truth.fault("new", colab.REJECTED)
            assert (await one.start(Launch(LABEL, None, TOKEN))).snag is Snag.NONE
            assert truth.now["sessions"] == {LABEL: "L4"}
            await one.stop(LABEL)
            truth.fault("new", colab.TOO_MANY)  # whichever it is, there may be no more
            assert (await one.start(Launch(OTHER, None, TOKEN))).snag is Snag.QUOTA
            assert truth.verbs().count("new") == 3
        async with rented(tmp_path, gpu=[]) as (truth, one, _):
            await one.start(Launch(LABEL, None, TOKEN))
            assert truth.now["sessions"] == {LABEL: "CPU"}

    asyncio.run(main())


def test_a_session_whose_agent_did_not_begin_is_given_back_at_once(tmp_path):
    async def main():
        async with rented(tmp_path) as (truth, one, _):
            truth.fault("exec", f"TimeoutError in {TOKEN}")
            report = await one.start(Launch(LABEL, None, TOKEN))
            assert report.snag is Snag.TRANSIENT
            assert TOKEN not in report.detail
            assert report.detail.startswith("its agent did not begin")
            assert truth.now["sessions"] == {}
            truth.fault("exec", "no route")
            truth.fault("stop", colab.BROKEN)
            assert (await one.start(Launch(OTHER, None, TOKEN))).snag is Snag.LOST
            assert (await one.status()).launch == OTHER

    asyncio.run(main())


def test_an_agent_that_refuses_to_begin_is_no_start(tmp_path):
    refuses = "def start(**given): print('error: no engine')"

    async def main():
        async with rented(tmp_path, text=refuses) as (truth, one, _):
            report = await one.start(Launch(LABEL, None, TOKEN))
            assert report.snag is Snag.TRANSIENT
            assert report.detail == "its agent did not begin: error: no engine"
            assert truth.now["sessions"] == {}

    asyncio.run(main())


def test_sessions_of_the_operators_own_are_not_seen_and_not_stopped(tmp_path):
    async def main():
        async with rented(tmp_path) as (truth, one, _):
            for name in ("?", "my-analysis", "aion-home-lab2-3"):
                await truth.put(name)
            assert (await one.status()).phase is PowerPhase.OFF
            await one.start(Launch(LABEL, None, TOKEN))
            assert (await one.start(Launch(OTHER, None, TOKEN))).snag is Snag.TRANSIENT
            await one.stop("")
            assert len(truth.now["sessions"]) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    "said", ["", "[colab] a new version is there", "Traceback (most recent call last):", "[x]"]
)
def test_a_list_that_cannot_be_read_is_not_an_empty_one(tmp_path, said):
    async def main():
        async with rented(tmp_path) as (truth, one, _):
            truth.fault("sessions", said, status=0)
            seen = await one.status()
            assert (seen.phase, seen.snag) == (PowerPhase.UNKNOWN, Snag.TRANSIENT)

    asyncio.run(main())


def test_a_tool_that_is_not_there_has_done_nothing(tmp_path):
    async def main():
        async with rented(tmp_path, cli="/nowhere/colab") as (_, one, made):
            assert (await one.start(Launch(LABEL))).snag is Snag.TRANSIENT
            world = ports(TableHttp({}), None, run_program)
            (missing,) = await backends.checks("colab")(made, world)
            assert missing.ok is False
            assert "google-colab-cli" in missing.remedy
        async with rented(tmp_path) as (_, one, made):
            (fine,) = await backends.checks("colab")(made, world)
            assert fine.ok

    asyncio.run(main())


def test_its_environment_is_clean_but_for_what_is_configured(tmp_path):
    os.environ["AION_CREDENTIAL_HIDDEN"] = "hidden"
    script = tmp_path / "colab"
    try:
        script.write_text(
            f"#!/bin/sh\nenv > {tmp_path}/env\necho '{'[colab] No active sessions found on server.'}'\n"
        )
        script.chmod(0o755)
        made = plan("colab", cli=str(script), env={"HOME": "/srv/colab"})
        one = backends.driver(made, ports(TableHttp({}), None, run_program))
        assert asyncio.run(one.status()).phase is PowerPhase.OFF
    finally:
        del os.environ["AION_CREDENTIAL_HIDDEN"]
    seen = (tmp_path / "env").read_text()
    assert "HOME=/srv/colab" in seen
    assert "hidden" not in seen


# ── what is configured ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"accept_terms": False}, "Google's FAQ forbids.*accept_terms = true"),
        ({"gpu": ["P100"]}, "gpu"),
        ({"cli": "colab; rm -rf /"}, "cli"),
        ({"allow_hosts": ["*.ngrok-free.app"]}, "quick tunnels"),
        ({"agent": {"token": "x"}}, "told to the agent already"),
        ({"agent": {"wait": True}}, "told to the agent already"),
        ({"agent": {"colour": "red"}}, "the agent has no option"),
        ({"platform": "box"}, "platform"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_terms_are_named(keys, why):
    with pytest.raises(ValidationError, match=why):
        plan("colab", **keys)
