"""The fake server, run as a child as the demo and the end-to-end tests do, and probed as anything else."""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends.base import Ports
from orchestrator.core.model import Verdict
from orchestrator.edge.http import AioHttp
from tests.backends.worlds import HandClock, Middle, plan


@contextlib.contextmanager
def child(*args, **keys):
    command = [sys.executable, "-m", "backends.fake_server", *args]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **keys
    ) as running:
        try:
            yield running, json.loads(running.stdout.readline())
        finally:
            running.kill()


def talking(engine, told, use):
    """Run `use(driver, http)` with a real client and a driver pointed at the child."""

    async def main():
        async with AioHttp() as http:
            made = plan(engine=engine, url=told["url"], models={"ours": told["model"]})
            return await use(backends.driver(made, Ports(http, http, HandClock(), Middle())), http)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def told():
    with child("--name", "alpha", "--model", "demo-model") as (_, said):
        yield said


def test_it_says_where_it_listens(told):
    assert told == {
        "name": "alpha",
        "port": told["port"],
        "url": f"http://127.0.0.1:{told['port']}",
        "model": "demo-model",
    }


@pytest.mark.parametrize("engine", ["openai", "llamacpp", "vllm"])
def test_it_passes_for_an_openai_compatible_engine(told, engine):
    async def use(driver, _):
        return await driver.probe(), await driver.canary()

    probed, canaried = talking(engine, told, use)
    assert (probed.verdict, probed.models, probed.missing) == (Verdict.OK, ("demo-model",), ())
    assert canaried.verdict is Verdict.OK


def test_it_names_itself_in_its_completions_and_streams_them(told):
    async def use(_, http):
        asked = {"model": "demo-model", "messages": [{"role": "user", "content": "good day"}]}
        url = told["url"] + "/v1/chat/completions"
        whole = await http.request("POST", url, body=json.dumps(asked).encode(), timeout_s=5)
        asked["stream"] = True
        streamed = await http.request("POST", url, body=json.dumps(asked).encode(), timeout_s=5)
        odd = [
            await http.request("POST", url, body=body, timeout_s=5)
            for body in (b"{", b"[]", b'{"messages":[]}')
        ]
        return (
            whole,
            streamed,
            odd,
            await http.request("GET", told["url"] + "/nothing", timeout_s=5),
        )

    whole, streamed, odd, nothing = talking("openai", told, use)
    assert json.loads(whole.body)["choices"][0]["message"]["content"] == "alpha heard: good day"
    lines = [line[6:] for line in streamed.body.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    said = "".join(
        json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines[:-1]
    )
    assert said.strip() == "alpha heard: good day"
    assert [one.status for one in odd] == [400, 400, 400]
    assert nothing.status == 404


def test_it_loads_before_it_is_ready():
    async def use(driver, _):
        first = await driver.probe()
        async with asyncio.timeout(60):
            while (last := await driver.probe()).verdict is Verdict.LOADING:  # noqa: ASYNC110  # a deadline ends it
                await asyncio.sleep(0.02)  # between two probes
        return first, last

    for loading_s in (0.4, 2, 10):  # until we ask while it loads
        with child("--loading", f"{loading_s}s") as (_, said):
            first, last = talking("llamacpp", said, use)
        assert last.verdict is Verdict.OK
        if first.verdict is Verdict.LOADING:
            break
    assert first.verdict is Verdict.LOADING


def test_killed_it_is_refused():
    with child() as (running, said):
        running.kill()
        running.wait()
        seen = talking("openai", said, lambda driver, _: driver.probe())
    assert (seen.verdict, seen.detail) == (Verdict.FAILED, "connection refused")


def test_it_goes_with_its_parent_and_says_nothing():
    with child("--with-parent", stderr=subprocess.PIPE) as (running, said):

        async def use(driver, _):
            await driver.probe()
            running.stdin.close()
            return await asyncio.to_thread(running.wait, 5)

        assert talking("openai", said, use) == 0
        assert running.stderr.read() == b""


def test_it_idles_small():
    with child() as (running, _):
        status = Path(f"/proc/{running.pid}/status").read_text()
    [resident] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert resident < 40_000  # kB
