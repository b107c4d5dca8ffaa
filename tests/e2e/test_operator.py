"""What the operator does with a running daemon, by the command line and by `/api`."""

from __future__ import annotations

import datetime as dt

from tests.e2e.kit import until


def test_in_the_shadow_nothing_is_published_and_it_says_what_it_would_do(world):
    world.serve_from("alpha", "beta")
    dns = world.cloudflare()
    world.boot("--shadow")
    until(lambda: world.api("services/chat")["would"], "it says what it would do")
    assert "alpha" in world.api("services/chat")["would"]
    assert "would" in world.aion("explain", "chat").stdout
    world.stop_backend("alpha")
    until(lambda: "beta" in world.api("services/chat")["would"], "it follows what happens")
    assert world.discovery()["active"] is None
    assert world.aion("failover", "chat", "-y").returncode == 1
    assert world.post("services/chat/failover").status_code == 409
    seen = dns.seen()
    assert (seen["records"], seen["journal"]) == ([], [])
    assert any(event["action"] == "would_move" for event in world.api("events"))


def test_paused_it_only_observes_and_resumed_it_catches_up(world):
    world.serve_from("alpha", "beta")
    dns = world.cloudflare()
    world.boot()
    world.serves("alpha")
    until(dns.records, "a record")
    world.all_up()
    written = len(dns.seen()["journal"])
    assert world.aion("pause", "--for", "1h", "-y").returncode == 0
    assert world.discovery()["state"] == "paused"
    world.stop_backend("alpha")
    until(lambda: "paused_dead" in world.kinds(), "the incident says that a dead one serves")
    assert world.active() == "alpha"
    assert "beta" in world.api("services/chat")["would"]
    assert world.post("services/chat/failover").status_code == 409
    assert len(dns.seen()["journal"]) == written
    assert world.aion("resume", "-y").returncode == 0
    world.serves("beta", 5)
    until(lambda: dns.resolve() == ["93.184.216.2"], "the record follows")
    until(lambda: not {"paused", "paused_dead"} & world.kinds(), "both incidents are closed")


def test_a_drained_one_is_left_for_a_successor_and_put_back(world):
    world.serve_from("alpha", "beta")
    world.boot()
    world.serves("alpha")
    world.all_up()
    assert world.aion("backend", "drain", "alpha", "-y").returncode == 0
    world.serves("beta")
    assert world.api("backends/alpha")["drained"]
    # The last one that can serve is never sent away.
    assert world.aion("backend", "drain", "beta", "-y").returncode == 0
    world.stop_backend("alpha")
    until(lambda: world.health_of("alpha") == "down", "alpha is down")
    assert world.active() == "beta"
    assert world.aion("backend", "undrain", "beta", "-y").returncode == 0
    assert not world.api("backends/beta")["drained"]


def test_the_same_idempotency_key_moves_once_and_answers_the_same(world):
    world.serve_from("alpha", "beta")
    world.boot()
    epoch = world.serves("alpha")["epoch"]
    world.all_up()
    key = {"Idempotency-Key": "once-and-only-once"}
    first = world.post("services/chat/failover", **key)
    assert first.status_code == 200, first.text
    assert world.active() == "beta", "answered after it was done"
    again = world.post("services/chat/failover", **key)
    assert (again.status_code, again.json()) == (200, first.json())
    assert (world.active(), world.discovery()["epoch"]) == ("beta", epoch + 1)
    world.crash()
    world.boot()
    restarted = world.post("services/chat/failover", **key)
    assert restarted.json() == first.json()
    assert world.discovery()["epoch"] == epoch + 1
    moved = [event for event in world.api("events", limit=1000) if event["action"] == "assigned"]
    assert moved[-1]["who"].startswith("admin")


def test_a_pin_is_left_when_dead_returned_to_and_ends_by_itself(world):
    world.serve_from("alpha", "beta", "gamma")
    world.boot()
    world.serves("alpha")
    world.all_up()
    assert world.aion("pin", "chat", "beta", "--for", "1h", "-y").returncode == 0
    assert world.active() == "beta", "moved before the command was answered"
    world.stop_backend("beta")
    world.serves("alpha")
    world.start("beta")
    world.serves("beta")
    assert world.post("services/chat/pin", {"backend": "beta", "for": "1s"}).status_code == 200
    until(lambda: world.api("services/chat")["pin"] is None, "the pin ends")


def test_a_switchover_happens_at_its_time(world):
    world.serve_from("alpha", "beta")
    world.boot()
    epoch = world.serves("alpha")["epoch"]
    world.all_up()
    at = dt.datetime.fromisoformat(world.api("status")["as_of"]) + dt.timedelta(seconds=2)
    asked = world.post("services/chat/switchover", {"to": "beta", "at": at.isoformat()})
    assert asked.status_code == 200, asked.text
    assert world.active() == "alpha"
    assert world.api("services/chat")["planned"]["to"] == "beta"
    assert world.serves("beta", 10)["epoch"] > epoch
    late = world.post("services/chat/switchover", {"to": "alpha", "at": "2020-01-01T00:00:00Z"})
    assert late.status_code == 422
