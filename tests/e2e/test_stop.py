"""Told to end, the daemon ends soon, whatever is under way, and leaves no process behind."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.kit import alive, children, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_five_seconds_with_listeners_a_hung_probe_and_a_hung_alert(world, number):
    world.serve_from("alpha", "beta")
    world.health["timeout"] = "8s"  # longer than the stop may take
    hook = world.hook()
    hook.hangs.set()
    world.credentials["hook"] = world.credentials["hook"].replace("rto=3", "rto=15")
    world.boot()
    world.serves("alpha")
    listeners = [world.listen() for _ in range(20)]
    until(lambda: all(one.events for one in listeners), "all listen")
    until(lambda: hook.asked, "an alert is under way")
    os.kill(world.pid("beta"), signal.SIGSTOP)
    try:
        gone = children(world.daemon.pid)
        assert gone, "the process that sends the alert"
        world.daemon.signal(number)
        code, took_s = world.stop()
    finally:
        os.kill(world.pid("beta"), signal.SIGCONT)
    assert code == 0, world.log()
    assert took_s < 5, world.log()
    assert not any(map(alive, gone))
    until(lambda: all(one.ended for one in listeners), "the streams ended")
    assert "Traceback" not in world.log()
    assert "never retrieved" not in world.log()


def test_what_was_decided_is_there_after_a_stop(world):
    world.serve_from("alpha", "beta")
    world.tables["services.chat"]["failback_after"] = "1h"
    world.boot()
    world.serves("alpha")
    world.all_up()
    assert world.post("services/chat/failover").status_code == 200
    before = world.serves("beta")
    assert world.stop()[0] == 0
    world.boot()
    after = world.discovery()
    assert (after["active"]["backend"], after["epoch"]) == ("beta", before["epoch"])
    assert after["active"]["since"] == before["active"]["since"]
