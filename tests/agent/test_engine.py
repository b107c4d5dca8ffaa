"""Engines: started, waited for, restarted when they die or hang; Ollama's models pulled."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

from tests.agent.kit import PROGRAMS, alive, free_port, until

ENGINE = f"{sys.executable} {PROGRAMS / 'engine.py'} --port {{port}}"


def engine_pid(world, port):
    return until(lambda: world.pids(f"--port\0{port}"), "an engine runs")[0]


def test_an_engine_that_dies_is_started_again(world):
    port = free_port()
    agent = world.agent(engine_command=ENGINE, engine_port=port)
    world.ready()
    first = engine_pid(world, port)
    os.kill(first, signal.SIGKILL)
    until(lambda: world.aion.now()["engine_ready"] is False, "the daemon hears of it")
    world.ready()
    assert engine_pid(world, port) != first
    assert "ended by signal 9" in agent.said()
    assert len(world.aion.registrations) == 1
    assert (
        httpx.post(agent.url + "/v1/completions", json={}, headers=world.auth()).status_code == 200
    )


def test_an_engine_that_hangs_is_started_again(world):
    port = free_port()
    agent = world.agent(engine_command=ENGINE, engine_port=port)
    world.ready()
    first = engine_pid(world, port)
    (world.control / "broken").touch()
    until(lambda: not alive(first), "the old one is gone")
    (world.control / "broken").unlink()
    world.ready()
    assert "not ready for 1 s" in agent.said()


def test_an_engine_that_dies_at_once_is_tried_again_more_slowly_and_says_why(world):
    command = f"{sys.executable} -c 'import sys; sys.exit(\"CUDA out of memory\")' {{port}}"
    agent = world.agent(engine_command=command, engine_port=free_port())
    until(lambda: world.aion.now().get("state") == "failed", "it has failed")
    assert "CUDA out of memory" in world.aion.now()["detail"]
    assert "CUDA out of memory" in agent.said()
    assert agent.child.poll() is None


def test_the_engine_ends_with_the_agent(world):
    port = free_port()
    agent = world.agent(engine_command=ENGINE, engine_port=port)
    world.ready()
    pid = engine_pid(world, port)
    agent.signal(signal.SIGTERM)
    assert agent.ended() == 0
    assert not alive(pid)


def test_somebody_elses_engine_goes_on(world):
    engine = world.engine()
    agent = world.agent(engine_url=engine)
    world.ready()
    agent.signal(signal.SIGTERM)
    assert agent.ended() == 0
    assert httpx.get(engine + "/seen").status_code == 200


def test_ollama_is_started_its_models_pulled_and_loaded(world):
    world.program("ollama", "engine.py")
    port = free_port()
    agent = world.agent(engine="ollama", models="qwen3:8b,nomic-embed-text", engine_port=port)
    world.ready()
    seen = httpx.get(f"http://127.0.0.1:{port}/seen").json()
    assert [one["path"] for one in seen] == ["/api/pull", "/api/pull", "/api/generate"]
    names = httpx.get(f"http://127.0.0.1:{port}/api/tags").json()["models"]
    assert [one["name"] for one in names] == ["nomic-embed-text", "qwen3:8b"]
    details = [beat["detail"] for _, beat in world.aion.beats]
    assert all(
        beat["state"] != "ready" for _, beat in world.aion.beats[: details.count("") or 1][:1]
    )
    assert "ready after" in agent.said()


def test_a_model_that_cannot_be_pulled_is_said_and_tried_again(world):
    world.program("ollama", "engine.py")
    (world.control / "unknown").touch()
    agent = world.agent(engine="ollama", models="nonsense:1b", engine_port=free_port())
    until(
        lambda: "file does not exist" in world.aion.now().get("detail", ""),
        "the daemon hears of it",
    )
    assert "nonsense:1b cannot be pulled" in agent.said()
    assert world.aion.now()["engine_ready"] is False
    (world.control / "unknown").unlink()
    world.ready()


def test_textgen_without_a_model_is_loading(world):
    (world.control / "empty").touch()
    world.agent(engine="textgen", engine_url=world.engine())
    until(lambda: world.aion.now().get("state") == "loading", "loading")
    (world.control / "empty").unlink()
    world.ready()


def test_another_program_at_the_engines_address_is_not_ready(world):
    world.agent(engine="koboldcpp", engine_url=world.engine())
    until(lambda: "not KoboldCpp" in world.aion.now().get("detail", ""), "it is said")
    assert world.aion.now()["engine_ready"] is False


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"engine": "vllm", "models": "m"}, "vllm is not installed: pip install vllm"),
        ({"engine": "llamacpp", "models": ""}, "which model shall llamacpp load?"),
        ({"engine": "aion"}, "nobody knows how to start aion"),
        ({"engine": "olama"}, "did you mean ollama?"),
        ({"engine_command": "/nowhere/engine {port}"}, "/nowhere/engine is not there"),
        ({"save_to": "gdrive:x"}, "save_from and save_to go together"),
        ({"drain": "soon"}, "“soon” is no duration"),
        ({"aion": "http://aion.example.org"}, "https, please"),
        ({"url": "http://example.org"}, "https, please"),
    ],
)
def test_what_cannot_work_is_one_line_and_the_end(world, options, says):
    agent = world.agent(**options)
    assert agent.ended() == 1
    assert says in agent.said()
    assert len([line for line in agent.said().splitlines() if " error " in line]) == 1
    assert "Traceback" not in agent.said()


def test_an_engine_port_that_is_taken_is_said(world):
    port = world.engine().rpartition(":")[2]
    agent = world.agent(engine_command=ENGINE, engine_port=port)
    assert agent.ended() == 1
    assert "is in use" in agent.said()


# ── fetched where missing ───────────────────────────────────────────────────────────────────────


def test_a_missing_program_is_fetched_checked_and_said(world, shelf):
    address, hashed = shelf("cloudflared", (PROGRAMS / "tunnel.py").read_text())
    options = {
        "cloudflared_download": address,
        "cloudflared_sha256": hashed,
        "tunnel": "cloudflared",
    }
    agent = world.agent(engine_url=world.engine(), env={"PATH": "/usr/bin:/bin"}, **options)
    world.ready()
    assert f"cloudflared is missing; fetching {address}" in agent.said()


def test_an_archive_is_unpacked(world, shelf):
    address, _ = shelf("ollama", (PROGRAMS / "engine.py").read_text(), archive=True)
    options = {"ollama_download": address, "engine": "ollama", "engine_port": free_port()}
    world.agent(env={"PATH": "/usr/bin:/bin"}, **options)
    world.ready()


def test_a_program_with_another_hash_is_never_run(world, shelf):
    address, _ = shelf("cloudflared", (PROGRAMS / "tunnel.py").read_text())
    options = {
        "cloudflared_download": address,
        "cloudflared_sha256": "0" * 64,
        "tunnel": "cloudflared",
    }
    agent = world.agent(engine_url=world.engine(), env={"PATH": "/usr/bin:/bin"}, **options)
    assert agent.ended() == 1
    assert "hashes to" in agent.said()
    assert not (world.state / "programs/bin/cloudflared").exists()


def test_nothing_is_fetched_where_that_is_not_wanted(world):
    options = {"tunnel": "cloudflared", "engine_url": world.engine()}
    agent = world.agent("--no-install", env={"PATH": "/usr/bin:/bin"}, **options)
    assert agent.ended() == 1
    assert "cloudflared is not installed" in agent.said()


def test_a_second_interrupt_ends_everything_at_once(world):
    port = free_port()
    slow = f"{sys.executable} -c 'import time; time.sleep(60)'"
    agent = world.agent(engine_command=ENGINE, engine_port=port, save_command=slow)
    world.ready()
    pid = engine_pid(world, port)
    agent.signal(signal.SIGINT)
    until(lambda: "ending" in agent.said(), "it heard")
    agent.signal(signal.SIGINT)
    assert agent.ended(20) == 1
    until(lambda: not alive(pid), "the engine is gone")


def test_an_engine_whose_port_was_taken_meanwhile_is_tried_again(world):
    port = free_port()
    agent = world.agent(engine_command=ENGINE, engine_port=port)
    world.ready()
    first = engine_pid(world, port)
    squatter = world.folder / "squat.py"
    squatter.write_text(
        "import socket, sys, time\n"
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "while True:\n"
        "    try: s.bind(('127.0.0.1', int(sys.argv[1]))); break\n"
        "    except OSError: time.sleep(0.001)\n"
        "s.listen(); print('in', flush=True); time.sleep(1000)\n"
    )
    child = subprocess.Popen([sys.executable, str(squatter), str(port)], stdout=subprocess.PIPE)
    world.children.append(child)
    world.closing.append(child.stdout)
    os.kill(first, signal.SIGKILL)
    assert child.stdout.readline() == b"in\n"
    until(lambda: "is in use" in agent.said(), "it is said")
    assert agent.child.poll() is None
    child.kill()
    child.wait()
    world.ready()


def test_it_may_listen_elsewhere_and_register_plain_http_in_a_network_of_ones_own(world):
    port = free_port()
    url = f"http://127.0.0.2:{port}"
    agent = world.agent(
        "--insecure", engine_url=world.engine(), listen="127.0.0.2", url=url, port=port
    )
    world.ready()
    assert world.proves(url)
    second = world.agent(
        "--insecure", engine_url=world.engine(), listen="127.0.0.2", url=url, port=port
    )
    assert agent.ended() == 0
    until(lambda: "goes on" in second.said(), "it takes over there too")
