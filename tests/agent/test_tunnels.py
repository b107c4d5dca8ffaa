"""Tunnels: opened, looked through, opened anew with another address; names waited for."""

import os
import signal
import time  # noqa: TID251

import pytest

from tests.agent.aion import TOKEN
from tests.agent.kit import alive, free_port, until


@pytest.fixture
def cloudflared(world):
    return world.program("cloudflared", "tunnel.py")


def test_a_quick_tunnel_is_opened_and_its_address_registered(world, cloudflared):
    agent = world.agent(engine_url=world.engine(), tunnel="cloudflared")
    world.ready()
    url = world.aion.registrations[0]["url"]
    assert url.startswith("http://localhost:")
    assert world.proves(url)
    assert f"{url} (cloudflared)" in agent.said()


def test_a_tunnel_that_dies_is_opened_again_and_its_new_address_registered(world, cloudflared):
    world.agent(engine_url=world.engine(), tunnel="cloudflared")
    world.ready()
    old = world.aion.registrations[0]["url"]
    os.kill(world.pids("cloudflared")[0], signal.SIGKILL)
    until(lambda: len(world.aion.registrations) == 2, "a second registration")
    world.ready()
    new = world.aion.registrations[1]["url"]
    assert new != old
    assert world.proves(new)


def test_a_tunnel_that_hangs_is_said_at_once_and_opened_again(world, cloudflared):
    agent = world.agent(engine_url=world.engine(), tunnel="cloudflared")
    world.ready()
    first = world.pids("cloudflared")[0]
    (world.control / "cut").touch()
    until(lambda: world.aion.now()["tunnel_ready"] is False, "the daemon hears of it")
    assert world.aion.now()["engine_ready"] is True
    until(lambda: not alive(first), "it is ended")
    (world.control / "cut").unlink()
    until(lambda: len(world.aion.registrations) > 1, "registered anew")
    world.ready()
    assert "has not worked for 1 s" in agent.said()


def test_a_short_cut_changes_nothing(world, cloudflared):
    world.agent(engine_url=world.engine(), tunnel="cloudflared", **{"tunnel-patience": "30s"})
    world.ready()
    (world.control / "cut").touch()
    until(lambda: world.aion.now()["tunnel_ready"] is False, "the daemon hears of it")
    (world.control / "cut").unlink()
    world.ready()
    assert len(world.aion.registrations) == 1


def test_while_the_whole_world_is_away_the_tunnel_is_left_alone(world, cloudflared):
    agent = world.agent(engine_url=world.engine(), tunnel="cloudflared")
    world.ready()
    first = world.pids("cloudflared")[0]
    world.aion.away()
    (world.control / "cut").touch()
    until(lambda: "not working" in agent.said(), "that it noticed")
    time.sleep(2.5)  # longer than its patience
    (world.control / "cut").unlink()
    world.aion.back()
    world.ready()
    assert alive(first)
    assert len(world.aion.registrations) == 1


def test_a_named_tunnel_has_its_own_address_and_its_token_is_in_no_argument(world, cloudflared):
    port, target = free_port(), free_port()
    env = {
        "TUNNEL_TOKEN": "tunnel-secret-0123456789",
        "TUNNEL_PORT": str(port),
        "TUNNEL_TARGET": f"x:{target}",
    }
    world.agent(
        engine_url=world.engine(),
        tunnel="cloudflared",
        url=f"http://localhost:{port}",
        port=target,
        env=env,
    )
    world.ready()
    assert world.aion.registrations[0]["url"] == f"http://localhost:{port}"
    assert world.pids("tunnel-secret") == []


def test_a_named_tunnel_without_its_token_is_one_line(world, cloudflared):
    agent = world.agent(
        engine_url=world.engine(), tunnel="cloudflared", url="https://ai.example.org"
    )
    assert agent.ended() == 1
    assert "TUNNEL_TOKEN" in agent.said()


def test_ngrok_is_opened_with_its_token(world):
    world.program("ngrok", "tunnel.py")
    world.agent(
        engine_url=world.engine(),
        tunnel="ngrok",
        env={"NGROK_AUTHTOKEN": "ngrok-secret-0123456789"},
    )
    world.ready()
    assert world.proves(world.aion.registrations[0]["url"])
    assert world.pids("ngrok-secret") == []


def test_what_ngrok_says_is_passed_on(world):
    world.program("ngrok", "tunnel.py")
    agent = world.agent(
        engine_url=world.engine(), tunnel="ngrok", env={"NGROK_AUTHTOKEN": "wrong-0123456789"}
    )
    until(lambda: "ERR_NGROK_4018" in agent.said(), "why")
    assert "wrong-0123456789" not in agent.said()


def test_a_fresh_name_is_not_registered_before_the_world_knows_it(world, cloudflared, resolver):
    resolver.knows = False
    world.agent(engine_url=world.engine(), tunnel="cloudflared", doh=resolver.url)
    until(lambda: len(resolver.asked) > 2, "it asks")
    assert resolver.asked[0] == ("localhost", "A")
    assert world.aion.registrations == []
    resolver.knows = True
    world.ready()


def test_an_address_where_somebody_else_answers_is_not_ready(world):
    other = world.agent(engine_url=world.engine())
    world.ready()
    # The same address as the other's: what answers there is not this agent.
    agent = world.agent(engine_url=world.engine(), url=other.url, state=world.folder / "elsewhere")
    until(lambda: "somebody else answers" in agent.said(), "it is said")


def test_a_new_address_is_registered_with_the_session_s_own_token(world, cloudflared):
    world.aion.once = True  # as the token of a launch is: it would open no second session
    agent = world.agent(engine_url=world.engine(), tunnel="cloudflared")
    world.ready()
    first = world.aion.sessions["s1"]
    os.kill(world.pids("cloudflared")[0], signal.SIGKILL)
    until(lambda: len(world.aion.registrations) == 2, "a second registration")
    world.ready()
    assert world.aion.tokens == [TOKEN, first]
    assert first not in agent.said()
