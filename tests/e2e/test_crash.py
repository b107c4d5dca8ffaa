"""The daemon is killed outright, again and again, in the middle of failovers."""

from __future__ import annotations

import random  # noqa: TID251 - when to kill, seeded
import time  # noqa: TID251 - deadlines for real processes
from functools import partial

from tests.e2e.kit import ids_in, until

KILLS = 5
ADDRESS = {"alpha": "93.184.216.1", "beta": "93.184.216.2", "gamma": "93.184.216.3"}


def reconciled(world, dns, dead):
    """Somebody alive serves, is confirmed, and the one record says so too."""
    found = world.discovery()
    if found["state"] != "serving" or found["active"]["backend"] == dead:
        return False
    wanted = [ADDRESS[found["active"]["backend"]]]
    return [record["content"] for record in dns.records()] == wanted and dns.resolve() == wanted


def repeated(hook) -> int:
    """Messages that say again what one before them said."""
    known, count = set(), 0
    for body in hook.bodies:
        told = set(ids_in(body["message"]))
        count += bool(told & known)
        known |= told
    return count


def test_killed_at_any_moment_it_goes_on_where_it_was_and_loses_no_notice(world):
    chance = random.Random(20261121)
    world.serve_from("alpha", "beta", "gamma")
    world.tables["services.chat"]["failback_after"] = "1h"
    hook, dns = world.hook(), world.cloudflare()
    world.boot()
    until(lambda: reconciled(world, dns, None), "the first assignment")
    epochs = [world.discovery()["epoch"]]
    for _ in range(KILLS):
        world.all_up()
        dead = world.active()
        world.stop_backend(dead)
        time.sleep(chance.uniform(0.0, 1.2))  # the moment of the kill is what is tried out
        world.crash()
        began = time.monotonic()
        world.boot(wait=False)
        first = until(world.discovery, "discovery answers")
        answered_s = time.monotonic() - began
        assert first["state"] in ("starting", "serving", "degraded"), first
        assert first["epoch"] >= epochs[-1], "the stored answer stands"
        until(partial(reconciled, world, dns, dead), f"reconciled: {world.log()[-3000:]}")
        epochs.append(world.discovery()["epoch"])
        world.start(dead)
        print(f"discovery after {answered_s:.2f} s, reconciled {time.monotonic() - began:.2f} s")
    assert epochs == sorted(epochs)

    logged = [int(event["data"]["epoch"]) for event in world.assigned()]
    assert logged == sorted(set(logged)), "each epoch is used once, and they only grow"
    wanted = {f"moved:chat:{epoch}" for epoch in logged}
    until(lambda: wanted <= set(hook.told()), f"every move is told: {wanted}")
    assert repeated(hook) <= KILLS, "at most one message is repeated per crash"
    commented = max(int(r["comment"].rpartition("=")[2]) for r in dns.records())
    assert commented == world.discovery()["epoch"]
