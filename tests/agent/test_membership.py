"""Registered, kept by heartbeats, registered anew; the daemon away, strict, or refusing."""

import signal
import time  # noqa: TID251
from datetime import datetime

import httpx
import pytest

from tests.agent.kit import until


def test_one_command_brings_an_engine_into_the_fleet(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    body = world.aion.registrations[0]
    assert (body["backend"], body["url"]) == ("colab", agent.url)
    assert (body["engine"], body["models"]) == ("openai", ["m"])
    assert datetime.fromisoformat(body["started_at"]) <= datetime.fromisoformat(body["now"])
    assert world.proves(agent.url)
    reply = httpx.post(agent.url + "/v1/completions", json={}, headers=world.auth())
    assert reply.status_code == 200


def test_it_prints_six_calm_lines(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    until(lambda: "serving" in agent.said(), "the last line")
    subjects = sorted(line.split()[1] for line in agent.said().splitlines())
    assert subjects == ["agent", "aion", "engine", "serving", "tunnel"]


def test_it_says_that_it_serves_though_all_was_ready_before_it_registered(world):
    world.aion.away()
    agent = world.agent(engine_url=world.engine(), tunnel_check="1m")
    until(lambda: "ready: m" in agent.said(), "an engine that is ready")
    until(lambda: "asking again" in agent.said(), "nobody to register with")
    world.aion.back()
    until(lambda: "serving  " in agent.said(), "that it serves")


def test_heartbeats_go_on_and_are_numbered(world):
    world.agent(engine_url=world.engine())
    world.ready()
    until(lambda: world.aion.now().get("seq", 0) > 8, "eight heartbeats")
    numbers = [beat["seq"] for _, beat in world.aion.beats]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_changes_is_said_at_once(world):
    world.aion.heartbeat_s = 120.0
    world.agent(engine_url=world.engine())
    world.ready()

    def said_after_s() -> float:
        (world.control / "broken").touch()
        until(lambda: world.aion.now().get("engine_ready") is False, "that the engine fails")
        (world.control / "broken").unlink()
        mended = time.monotonic()
        world.ready()
        return time.monotonic() - mended

    # What fails is said every 5 s; a busy machine may be slow at times.
    assert any(said_after_s() < 3.0 for _ in range(5))


def test_an_engine_that_loads_is_loading_not_failed(world):
    (world.control / "loading").touch()
    world.agent(engine="llamacpp", engine_url=world.engine())
    until(lambda: world.aion.now().get("state") == "loading", "loading")
    (world.control / "loading").unlink()
    world.ready()


@pytest.mark.parametrize("trouble", [503, (429, 1), 500, 404])
def test_a_daemon_that_cannot_answer_is_asked_again(world, trouble):
    world.aion.trouble = [trouble, trouble]
    world.agent(engine_url=world.engine())
    world.ready()


def test_retry_after_is_honoured(world):
    world.aion.trouble = [(429, 2)]
    began = time.monotonic()
    world.agent(engine_url=world.engine())
    world.ready()
    assert time.monotonic() - began > 2.0


def test_an_absent_daemon_stops_nobody_from_being_served(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    key = world.auth()
    beats = len(world.aion.beats)
    world.aion.away()
    until(lambda: "serving meanwhile" in agent.said(), "that it noticed")
    for _ in range(5):
        assert httpx.post(agent.url + "/v1/completions", json={}, headers=key).status_code == 200
        time.sleep(0.1)
    world.aion.back()
    until(lambda: len(world.aion.beats) > beats, "heartbeats again")
    assert len(world.aion.registrations) == 1
    until(lambda: "there again" in agent.said(), "that it says so")


def test_a_daemon_that_is_away_from_the_start_is_waited_for(world):
    world.aion.away()
    agent = world.agent(engine_url=world.engine())
    until(lambda: "cannot be reached" in agent.said(), "that it noticed")
    world.aion.back()
    world.ready()


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (403, "token of another backend"),
        (409, "the session would be over"),
        (422, "host not allowed"),
    ],
)
def test_what_only_the_operator_can_mend_is_one_line_and_the_end(world, status, detail):
    world.aion.refusal = (status, detail)
    agent = world.agent(engine_url=world.engine())
    assert agent.ended() == 1
    errors = [line for line in agent.said().splitlines() if " error " in line]
    assert len(errors) == 1
    assert detail in errors[0]
    assert "Traceback" not in agent.said()


def test_a_wrong_token_is_one_line_without_it(world):
    agent = world.agent(engine_url=world.engine(), env={"AION_TOKEN": "wrong-token-0123456789"})
    assert agent.ended() == 1
    assert "the token is wrong" in agent.said()
    assert "wrong-token" not in agent.said()


def test_a_restored_daemon_that_forgot_the_session_gets_a_new_one(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    old = world.auth()
    with world.aion.lock:
        world.aion.sessions["s1"] = "another token"  # 401 first
    until(lambda: len(world.aion.registrations) == 2, "a second registration")
    world.ready()
    assert world.proves(agent.url)
    for key in (old, world.auth()):  # the gateway may not have heard of the new one yet
        assert httpx.post(agent.url + "/v1/completions", json={}, headers=key).status_code == 200
    with world.aion.lock:
        del world.aion.sessions["s2"]  # then 404
    until(lambda: len(world.aion.registrations) == 3, "a third registration")


def test_a_superseded_agent_serves_a_moment_longer_and_goes(world):
    agent = world.agent(engine_url=world.engine(), linger="2s")
    world.ready()
    key = world.auth()
    with world.aion.lock:
        world.aion.over.add("s1")
    until(lambda: "superseded" in agent.said(), "that it heard")
    assert httpx.post(agent.url + "/v1/completions", json={}, headers=key).status_code == 200
    assert agent.ended() == 0
    assert world.aion.left == []
    assert len(world.aion.registrations) == 1


def test_a_superseded_agent_lets_open_answers_end(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    asked = {"tokens": 30, "every_s": 0.1}
    with httpx.stream(
        "POST", agent.url + "/v1/completions", json=asked, headers=world.auth(), timeout=30
    ) as reply:
        lines = reply.iter_lines()
        next(lines)
        with world.aion.lock:
            world.aion.over.add("s1")
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert agent.ended() == 0


def test_a_paused_agent_goes_on_where_it_was(world):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    agent.signal(signal.SIGSTOP)
    time.sleep(3)
    beats = len(world.aion.beats)
    agent.signal(signal.SIGCONT)
    until(lambda: len(world.aion.beats) > beats + 3, "heartbeats again")
    assert len(world.aion.registrations) == 1
    assert world.proves(agent.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_to_end_leaves_in_good_order(world, number):
    agent = world.agent(engine_url=world.engine())
    world.ready()
    agent.signal(number)
    assert agent.ended() == 0
    assert world.aion.left == ["s1"]
    assert world.aion.beats[-1][1]["state"] == "stopping"
    assert "good order" in agent.said()


def test_a_clock_that_is_wrong_does_not_move_the_end(world):
    # The end is by the daemon's clock; `now` and `started_at` are by ours, so the age is right.
    agent = world.agent(engine_url=world.engine())
    world.ready()
    until(lambda: "until" in agent.said(), "the end")
    body = world.aion.registrations[0]
    age = datetime.fromisoformat(body["now"]) - datetime.fromisoformat(body["started_at"])
    assert 0 <= age.total_seconds() < 60


def test_what_does_not_work_is_said_every_five_seconds_whatever_the_rhythm(world):
    world.aion.heartbeat_s = 60.0
    world.agent(engine_url="http://127.0.0.1:9")
    until(lambda: world.aion.now().get("tunnel_ready"), "the tunnel works")
    seq = world.aion.now()["seq"]
    until(lambda: world.aion.now()["seq"] > seq, "another heartbeat", 40)
    assert world.aion.now()["engine_ready"] is False
