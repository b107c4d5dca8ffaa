"""The disk that holds the state is full: what must go on goes on, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time  # noqa: TID251 - deadlines for real processes

import pytest

from tests.e2e.kit import until
from tests.edge.store.test_disk import file_system, fill


@pytest.fixture
def small(world, fresh):
    """Alpha and beta, an alert hook, and a state directory on a disk of 4 MB."""
    world.serve_from("alpha", "beta")
    world.tables["services.chat"]["failback_after"] = "1h"
    world.told = world.hook().told
    with file_system(world.state, "size=4m,mode=0700"):
        shutil.copy(fresh, world.state / "aion.db")
        yield world
        if world.daemon is not None:
            world.crash()


def room(world) -> int:
    found = os.statvfs(world.state)
    return found.f_bavail * found.f_frsize


def incident(world, kind: str):
    return next((one for one in world.api("incidents") if one["kind"] == kind), None)


def stored(world) -> list[dict]:
    """What the database holds of the log; the daemon is dead."""
    with sqlite3.connect(world.state / "aion.db") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        rows = db.execute("select seq, action, text from event order by seq").fetchall()
    db.close()
    return rows


def test_on_a_full_disk_the_service_still_moves_it_is_told_and_nothing_is_lost(small):
    small.boot()
    small.all_up()
    first = small.serves("alpha")
    filler = fill(small.state)
    assert room(small) < 4096
    small.stop_backend("alpha")
    began = time.monotonic()
    second = small.serves("beta", 10)
    print(f"moved after {time.monotonic() - began:.2f} s")
    assert second["epoch"] == first["epoch"] + 1
    full = until(lambda: incident(small, "disk_full"), "there is an incident")
    assert full["severity"] == "critical"
    until(lambda: f"{full['id']}:opened" in small.told(), "it is told")
    until(lambda: f"moved:chat:{second['epoch']}" in small.told(), "so is the move")

    small.start("alpha")
    until(lambda: small.health_of("alpha") == "up", "health goes on too")
    small.stop_backend("beta")
    third = small.serves("alpha", 10)
    assert incident(small, "disk_full")

    filler.unlink()
    until(lambda: not incident(small, "disk_full"), "it is over")
    until(lambda: f"{full['id']}:closed" in small.told(), "that is told")
    until(lambda: f"moved:chat:{third['epoch']}" in small.told(), "and the second move")
    assert (small.state / "aion.db.ballast").stat().st_size > 0
    epochs = [int(event["data"]["epoch"]) for event in small.assigned()]
    assert epochs == [first["epoch"], second["epoch"], third["epoch"]]
    logged = [event["seq"] for event in small.api("events", limit=1000)]
    small.crash()
    rows = stored(small)
    assert [row[0] for row in rows][: len(logged)] == logged == list(range(1, len(logged) + 1))
    assert len(small.told()) == len(set(small.told()))


def test_killed_on_a_disk_with_no_room_at_all_it_starts_and_goes_on_when_there_is(small):
    small.boot()
    small.all_up()
    small.serves("alpha")
    fill(small.state)
    small.stop_backend("alpha")
    second = small.serves("beta", 10)
    until(lambda: incident(small, "disk_full"), "there is an incident")
    filler = fill(small.state)  # the ballast's room too
    assert room(small) < 4096
    small.crash()

    small.boot(wait=False)
    found = until(small.discovery, "discovery answers")
    assert found["epoch"] == second["epoch"]
    assert found["active"]["backend"] == "beta"
    assert room(small) < 4096
    until(lambda: '"store_failed"' in small.log(), "it tried to store something")
    assert small.http.get("/healthz").status_code == 200
    assert small.discovery()["active"]["backend"] == "beta"

    filler.unlink()
    until(lambda: small.discovery()["state"] == "serving", "it goes on")
    small.start("alpha")
    until(lambda: small.health_of("alpha") == "up", "and sees what changes")
    until(lambda: not incident(small, "disk_full"), "it is over")
    os.kill(small.pid("beta"), signal.SIGKILL)
    assert small.serves("alpha")["epoch"] == second["epoch"] + 1
    small.crash()
    stored(small)
