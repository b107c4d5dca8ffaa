"""Told to end, the daemon ends soon, whatever is under way, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing

import pytest

from orchestrator.edge.clock import boot_id
from tests.e2e.kit import alive, children, until


def test_it_ends_within_five_seconds_with_listeners_a_hung_probe_and_a_hung_alert(world):
    world.serve_from("alpha", "beta")
    world.health["timeout"] = "8s"  # longer than the stop may take
    hook = world.hook()
    hook.hangs.set()
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


@pytest.mark.skipif(not boot_id(), reason="this kernel names no boot")
def test_started_again_it_goes_on_by_boot_time_and_not_by_the_wall_clock(world):
    def ran() -> tuple[str, float, float]:
        world.boot()
        world.serves("alpha")
        assert world.stop()[0] == 0, world.log()
        with closing(sqlite3.connect(world.state / "aion.db")) as database:
            found = database.execute("select boot_id, boot_offset, written_at from world")
            return found.fetchone()

    world.serve_from("alpha")
    named, offset_s, written_at = ran()
    assert named == boot_id()
    with closing(sqlite3.connect(world.state / "aion.db")) as database, database:
        # As if the wall clock, which nobody but root may set, had gone back an hour since.
        database.execute("update world set boot_offset = boot_offset + 3600")
    again = ran()
    assert again[:2] == (named, offset_s + 3600.0)
    assert again[2] > written_at + 3600.0
