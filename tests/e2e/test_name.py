"""The stable name moves: the real Cloudflare SDK, a strict stand-in, and real DNS queries."""

from __future__ import annotations

import pytest

from tests.e2e.kit import NAME, until

ALPHA, BETA = "93.184.216.1", "93.184.216.2"


@pytest.fixture
def dns(world):
    """Start alpha and beta with a name in Cloudflare; nothing runs yet."""
    world.serve_from("alpha", "beta")
    world.tables["services.chat"]["failback_after"] = "1h"
    return world.cloudflare()


def publication(world):
    return world.api("services/chat")["dns"]


def test_the_name_follows_the_service_and_carries_its_epoch(world, dns):
    world.boot()
    world.serves("alpha")
    until(lambda: dns.resolve() == [ALPHA], "the name points at alpha")
    world.all_up()
    world.stop_backend("alpha")
    epoch = world.serves("beta")["epoch"]
    until(lambda: dns.resolve() == [BETA], "the name points at beta")
    record = until(dns.records, "a record")
    assert len(record) == 1
    assert f"epoch={epoch}" in record[0]["comment"]
    until(lambda: publication(world)["trouble"] is None, "it is confirmed")
    assert any(event["action"] == "published" for event in world.api("events", limit=1000))


def test_a_foreign_record_is_left_alone_until_the_operator_adopts_it(world, dns):
    dns.tell(by_hand=[{"name": NAME, "type": "A", "content": "192.0.2.99"}])
    world.boot()
    world.serves("alpha")
    until(lambda: "dns_foreign" in world.kinds(), f"an incident: {world.kinds()}")
    assert dns.resolve() == ["192.0.2.99"]
    shown = world.aion("dns", "sync")
    assert "192.0.2.99" in shown.stdout + shown.stderr
    assert dns.resolve() == ["192.0.2.99"]  # shown, not applied
    adopted = world.aion("dns", "sync", "--apply", "-y")
    assert adopted.returncode == 0, adopted.stderr
    until(lambda: dns.resolve() == [ALPHA], "it is taken over")
    until(lambda: not world.kinds(), "the incident is closed")
    assert len(dns.records()) == 1


def test_while_the_dns_api_is_down_discovery_moves_and_the_record_follows_later(world, dns):
    world.boot()
    world.serves("alpha")
    until(lambda: dns.resolve() == [ALPHA], "the name points at alpha")
    world.all_up()
    dns.tell(fault={"kind": "error"})
    world.stop_backend("alpha")
    world.serves("beta", 10)
    until(lambda: publication(world)["trouble"] is not None, "the trouble is seen")
    assert dns.resolve() == [ALPHA]
    dns.tell(fault={"kind": ""})
    until(lambda: dns.resolve() == [BETA], "the record follows")
    until(lambda: publication(world)["trouble"] is None, "the trouble is over")


def test_a_write_whose_answer_is_lost_is_recognised_and_not_made_twice(world, dns):
    world.boot()
    world.serves("alpha")
    until(lambda: dns.resolve() == [ALPHA], "the name points at alpha")
    world.all_up()
    written = len(dns.seen()["journal"])
    dns.tell(fault={"kind": "lost", "on": "write", "times": 1})
    world.stop_backend("alpha")
    epoch = world.serves("beta", 10)["epoch"]
    until(lambda: dns.resolve() == [BETA], "it was written")
    until(lambda: publication(world)["confirmed_epoch"] == epoch, "and recognised as ours")
    assert len(dns.seen()["journal"]) == written + 1
    assert len(dns.records()) == 1
