"""Backends die, hang and come back; the service moves, says why, tells, and remembers."""

from __future__ import annotations

import os
import signal

from tests.e2e.kit import until


def test_a_killed_backend_is_left_with_a_reason_a_notice_and_a_record_and_returned_to(world):
    world.serve_from("alpha", "beta")
    hook = world.hook()
    world.boot()
    first = world.serves("alpha")
    assert first["state"] == "serving"
    world.all_up()

    world.stop_backend("alpha")
    second = world.serves("beta", 10)
    assert second["epoch"] > first["epoch"]
    assert second["active"]["url"] == world.tables["backends.beta"]["url"]
    said = world.aion("explain", "chat")
    assert said.returncode == 0, said.stderr
    assert "alpha is down" in said.stdout
    assert "refused" in said.stdout
    until(lambda: f"moved:chat:{second['epoch']}" in hook.told(), "the move is told")
    until(lambda: "backend_down" in world.kinds(), "there is an incident")

    world.start("alpha")
    third = world.serves("alpha")
    assert third["epoch"] > second["epoch"]
    until(lambda: "backend_down" not in world.kinds(), "the incident is closed")
    epochs = [int(event["data"]["epoch"]) for event in world.assigned()]
    assert epochs == sorted(set(epochs))
    assert [event["data"]["new"] for event in world.assigned()][-2:] == ["beta", "alpha"]
    assert len(hook.told()) == len(set(hook.told()))


def test_a_backend_that_hangs_is_left_and_when_it_goes_on_it_is_returned_to(world):
    world.serve_from("alpha", "beta")
    world.boot()
    world.serves("alpha")
    world.all_up()
    os.kill(world.pid("alpha"), signal.SIGSTOP)
    try:
        moved = world.serves("beta", 15)
        assert world.health_of("alpha") == "down"
        assert "timed out" in world.assigned()[-1]["text"]
    finally:
        os.kill(world.pid("alpha"), signal.SIGCONT)
    assert world.serves("alpha")["epoch"] > moved["epoch"]


def test_when_all_are_dead_nobody_is_published_and_the_first_to_return_serves(world):
    world.serve_from("alpha", "beta")
    hook = world.hook()
    world.boot()
    world.serves("alpha")
    world.all_up()
    world.stop_backend("alpha")
    world.stop_backend("beta")
    down = world.serves(None)
    assert (down["state"], down["active"], down["fallbacks"]) == ("down", None, [])
    assert down["retry_at"]
    assert world.aion("status").returncode == 3
    until(lambda: "service_down" in world.kinds(), "the operator has an incident")
    until(lambda: "service_down" in hook.texts or "chat" in hook.texts, "and is told")
    world.start("beta")
    assert world.serves("beta")["epoch"] > down["epoch"]
    until(lambda: "service_down" not in world.kinds(), "the incident is closed")
