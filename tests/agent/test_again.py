"""Run again: after a kill, beside a run that is there, in the same kernel; ways to start it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp import web

import backends
from backends.agent import VERSION, bundle, engines, settings, state, takeover
from backends.agent.children import ticks
from backends.agent.keys import Redactor
from backends.agent.printing import Printer
from backends.agent.settings import NAMES
from orchestrator import __version__
from tests.agent.aion import TOKEN
from tests.agent.kit import PROGRAMS, ROOT, alive, free_port, until

ENGINE = f"{sys.executable} {PROGRAMS / 'engine.py'} --port {{port}}"
SECRETS = {
    "AION_TOKEN": TOKEN,
    "AION_ENGINE_KEY": "engine-key-canary-0123",
    "HF_TOKEN": "hf_canary_0123456789abcdef",
}


def test_a_killed_agent_resumes_with_its_engine_tunnel_and_session(world):
    world.program("cloudflared", "tunnel.py")
    port = free_port()
    options = {"engine_command": ENGINE, "engine_port": port, "tunnel": "cloudflared"}
    first = world.agent(**options)
    world.ready()
    url = world.aion.registrations[0]["url"]
    engine, tunnel = world.pids(f"--port\0{port}")[0], world.pids("cloudflared")[0]
    first.signal(signal.SIGKILL)
    first.ended()
    beats = len(world.aion.beats)
    again = world.agent(port=first.url.rpartition(":")[2], **options)
    until(lambda: len(world.aion.beats) > beats, "heartbeats again")
    world.ready()
    assert len(world.aion.registrations) == 1
    assert world.proves(url)
    assert alive(engine) and alive(tunnel)
    assert "taken over" in again.said()
    assert "the session of the run before goes on" in again.said()


def test_a_second_run_takes_over_from_one_that_is_there(world):
    port = free_port()
    options = {"engine_command": ENGINE, "engine_port": port}
    first = world.agent(**options)
    world.ready()
    engine = world.pids(f"--port\0{port}")[0]
    seq = world.aion.now()["seq"]
    second = world.agent(port=first.url.rpartition(":")[2], **options)
    assert first.ended() == 0
    assert "handed over" in first.said()
    until(lambda: world.aion.now()["seq"] > seq + 3, "heartbeats go on")
    world.ready()
    assert len(world.aion.registrations) == 1
    assert world.aion.left == []
    assert alive(engine)
    assert "taking over" in second.said()


def test_a_run_that_is_stuck_is_ended(world):
    first = world.agent(engine_url=world.engine())
    world.ready()
    first.signal(signal.SIGSTOP)
    world.agent(engine_url=world.engine(), port=first.url.rpartition(":")[2])
    first.ended()
    seq = world.aion.now()["seq"]
    until(lambda: world.aion.now()["seq"] > seq + 3, "heartbeats again")
    assert world.proves(first.url)


def test_a_session_that_ended_meanwhile_is_followed_by_a_new_one(world):
    engine = world.engine()
    first = world.agent(engine_url=engine)
    world.ready()
    first.signal(signal.SIGKILL)
    first.ended()
    with world.aion.lock:
        world.aion.over.add("s1")
    world.agent(engine_url=engine, port=first.url.rpartition(":")[2])
    until(lambda: len(world.aion.registrations) == 2, "registered anew")
    world.ready()


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"agent": 3}', '{"session": {"x": 1}}'])
def test_a_state_file_that_makes_no_sense_harms_nobody(world, junk):
    world.state.mkdir()
    (world.state / "colab.json").write_text(junk)
    world.agent(engine_url=world.engine())
    world.ready()


def test_the_state_is_for_its_owner_only(world):
    world.agent(engine_url=world.engine())
    world.ready()
    assert world.state.stat().st_mode & 0o077 == 0
    assert (world.state / "colab.json").stat().st_mode & 0o077 == 0


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def test_no_secret_is_ever_said(world):
    """Canaries: in output, heartbeats, command lines, other children's environments, logs."""
    port = free_port()
    command = f'{sys.executable} -c \'import os, sys; sys.exit("my token is {TOKEN} " + os.environ.get("AION_TOKEN", "none"))\' {{port}}'
    agent = world.agent(engine_command=command, engine_port=port, env=SECRETS)
    until(lambda: world.aion.now().get("state") == "failed", "it fails, saying our token")
    until(lambda: "my token is" in world.aion.now()["detail"], "the daemon hears why")
    _, token = world.aion.session
    secrets = [*SECRETS.values(), token, world.key()]
    said = agent.said() + repr(world.aion.beats) + repr(world.aion.registrations)
    assert [secret for secret in secrets if secret in said] == []
    assert "•••" in agent.said()
    log = (world.state / "colab-engine.log").read_text()
    assert log.count(TOKEN) == 1  # what the test itself wrote; not what it had from us
    found = Path(f"/proc/{agent.pid}/cmdline").read_text()
    assert [secret for secret in (SECRETS["AION_ENGINE_KEY"], token) if secret in found] == []


def test_no_token_is_one_line_that_says_where_to_put_it(world):
    agent = world.agent(engine_url="http://127.0.0.1:9", env={"AION_TOKEN": None})
    assert agent.ended() == 1
    assert "secret AION_TOKEN" in agent.said()


def test_the_token_may_be_in_a_file(world):
    path = world.folder / "token"
    path.write_text(TOKEN + "\n")
    world.agent(engine_url=world.engine(), env={"AION_TOKEN": None}, token_file=path)
    world.ready()


# ── ways to start it ────────────────────────────────────────────────────────────────────────────


def test_the_one_file_is_the_same_each_time_and_holds_nothing_of_ours(world):
    text = bundle.source()
    assert text == bundle.source.__wrapped__()
    assert "import orchestrator" not in text
    assert "from orchestrator" not in text
    assert len(text) < 200_000
    compile(text, "agent.py", "exec")


def test_the_agent_has_the_products_version():
    assert __version__ == VERSION


def test_it_runs_from_standard_input(world):
    world.agent(engine_url=world.engine(), stdin=bundle.source().encode())
    world.ready()


def test_options_may_stand_in_the_environment(world):
    env = {"AION_ENGINE_URL": world.engine(), "AION_MODELS": "m,n"}
    world.agent(env=env)
    world.ready()
    assert world.aion.registrations[0]["models"] == ["m"]  # an option comes first


def test_an_older_python_is_told_so(world):
    text = bundle.source().replace("(3, 11)", "(99, 0)")
    done = subprocess.run(
        [sys.executable, "-"], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_aiohttp_it_says_what_to_install(world):
    argv = [sys.executable, "-I", "-S", "-"]
    done = subprocess.run(argv, input=bundle.source(), text=True, capture_output=True, check=False)
    assert "pip install aiohttp" in done.stderr
    assert "Traceback" not in done.stderr


KERNEL = """
import asyncio, os, sys, threading, types

colab = types.ModuleType("google.colab")
userdata = types.ModuleType("google.colab.userdata")
def get(name):
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("no secrets in this thread")
    if name == "AION_TOKEN":
        return os.environ["HIDDEN"]
    raise LookupError(name)
userdata.get = get
colab.userdata = userdata
sys.modules |= {"google": types.ModuleType("google"), "google.colab": colab, "google.colab.userdata": userdata}

async def kernel():
    cells = {"__name__": "__main__", "get_ipython": object}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            exec(line, cells)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print("cell done", flush=True)

asyncio.new_event_loop().run_until_complete(kernel())  # as there: SIGINT is not the loop's
"""


class Kernel:
    """A notebook's kernel: one thread, an event loop that runs, cells executed within it."""

    def __init__(self, world):
        self.log = world.folder / "kernel.log"
        env = world.env(AION_TOKEN=None, HIDDEN=TOKEN)
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-u", "-c", textwrap.dedent(KERNEL)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=env,
            )
        world.children.append(self.child)
        world.closing.append(self.child.stdin)
        self.load = f"exec(open({str(world.file)!r}).read());"

    def cell(self, text):
        self.child.stdin.write((self.load + text + "\n").encode())
        self.child.stdin.flush()

    def said(self):
        return self.log.read_text()


def cell(world, engine, **more):
    told = {"aion": world.aion.url, "backend": "colab", "engine": "openai", "models": ["m"]}
    told |= {
        "engine_url": engine,
        "state": str(world.state),
        "retry_most": "300ms",
        "tunnel_check": 0.3,
        **more,
    }
    return ", ".join(f"{name}={value!r}" for name, value in told.items())


def test_one_cell_starts_it_and_interrupting_the_cell_ends_it(world):
    kernel, port = Kernel(world), free_port()
    told = cell(world, world.engine(), port=port, url=f"http://127.0.0.1:{port}")
    kernel.cell(f"start({told})")
    world.ready()
    until(lambda: "serving" in kernel.said(), "it says so")
    assert "cell done" not in kernel.said()
    os.kill(kernel.child.pid, signal.SIGINT)
    until(lambda: "cell done" in kernel.said(), "the cell ends")
    assert world.aion.left == ["s1"]
    assert TOKEN not in kernel.said()
    assert "Traceback" not in kernel.said()


def test_the_same_cell_run_again_takes_over_in_the_same_kernel(world):
    kernel, port = Kernel(world), free_port()
    told = cell(world, world.engine(), port=port, url=f"http://127.0.0.1:{port}", wait=False)
    kernel.cell(f"start({told})")
    world.ready()
    seq = world.aion.now()["seq"]
    kernel.cell(f"start({told})")
    until(lambda: "handed over" in kernel.said(), "the old one leaves")
    until(lambda: world.aion.now()["seq"] > seq + 3, "heartbeats go on")
    assert len(world.aion.registrations) == 1
    assert world.proves(f"http://127.0.0.1:{port}")
    kernel.cell("stop()")
    until(lambda: world.aion.left == ["s1"], "it is ended, whichever cell loaded it")
    until(lambda: kernel.said().count("cell done") == 3, "the cell ends")


def test_a_mistake_in_the_cell_is_one_line(world):
    kernel = Kernel(world)
    kernel.cell("start(aion='https://aion.example.org', backend='colab', modles=['m'])")
    until(lambda: "cell done" in kernel.said(), "the cell ends")
    assert "did you mean models?" in kernel.said()
    assert "Traceback" not in kernel.said()


def test_it_is_the_agent_that_a_browser_would_reach(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    assert httpx.get(agent.url + "/.aion/health").headers["aion-agent"]


def test_every_option_is_in_its_page():
    page = (ROOT / "docs/agent.md").read_text()
    table = page.partition("## Options")[2].partition("\n## ")[0]
    told = re.findall(
        r"`([a-z_0-9]+)`",
        "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|")),
    )
    assert sorted(told) == sorted(NAMES)


def test_the_agent_knows_the_same_engines_as_the_daemon():
    assert set(settings.ENGINES) == set(backends.ENGINES) == set(engines.ENGINES)


def test_what_the_earlier_run_did_until_it_left_is_known_to_the_one_that_takes_over(tmp_path):
    told = settings.Settings(aion="http://127.0.0.1:9", backend="colab", state=str(tmp_path))
    earlier = state.State(told)
    pid = os.getpid()

    async def over() -> dict:
        async def leave(request: web.Request) -> web.Response:
            earlier.put("session", id="s2", seq=14)  # another than when the newer run began
            told_to_leave.set()
            return web.Response(status=202)

        told_to_leave = asyncio.Event()
        app = web.Application()
        app.router.add_post("/.aion/takeover", leave)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        here = {"boot": state.boot(), "pid": pid, "began": ticks(pid)}
        earlier.put("agent", **here, port=port, aion=told.aion)
        earlier.put("session", id="s1", seq=12)
        newer = state.State(told)
        async with aiohttp.ClientSession() as http:
            taking = asyncio.create_task(takeover.take(newer, http, Printer(Redactor())))
            await told_to_leave.wait()
            await runner.cleanup()
            assert await taking == port
        return newer.get("session")

    assert asyncio.run(over()) == {"id": "s2", "seq": 14}
