"""Told to end, the daemon ends soon, whatever is under way, and leaves no process behind."""

from __future__ import annotations

import os
import signal

from tests.e2e.kit import alive, children, until


def test_it_ends_within_five_seconds_with_listeners_a_hung_probe_and_a_hung_alert(world):
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
        code, took_s = world.stop()
    finally:
        os.kill(world.pid("beta"), signal.SIGCONT)
    assert code == 0, world.log()
    assert took_s < 5, world.log()
    assert not any(map(alive, gone))
    until(lambda: all(one.ended for one in listeners), "the streams ended")
    assert "Traceback" not in world.log()
    assert "never retrieved" not in world.log()


def test_told_to_end_or_to_reload_while_it_starts_it_does_so_in_good_order(world):
    world.serve_from("alpha")
    world.boot(wait=False)
    until(world.state.exists, "it has begun", every_s=0.001)
    gone = children(world.daemon.pid)
    assert world.stop()[0] == 0, world.log()
    assert not any(map(alive, gone))
    world.log_path.unlink()
    world.boot(wait=False)
    until(lambda: "listening" in world.log(), "it listens", every_s=0.001)
    world.daemon.signal(signal.SIGHUP)
    world.serves("alpha")
    assert world.daemon.child.poll() is None
