"""The address a provider gave: a name points there only while it is ours."""

from dataclasses import replace

import pytest

from orchestrator.core.events import DnsAttempting, DnsConfirmed, DnsTroubled, Pause, PinTo
from orchestrator.core.lives import PowerPhase
from orchestrator.core.meters import MeterSpec, ProviderSaid, Unit
from orchestrator.core.model import DnsTrouble
from orchestrator.core.powering import Halt
from orchestrator.core.specs import Target
from orchestrator.core.whereabouts import AWAY_FIRST_S, at
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import DNS, World, backend, config, restarted

GATEWAY = DNS.gateway


class Placing(Cloud):
    """A provider that gives another address with each start."""

    def address(self, name):
        return f"203.0.113.{100 + len(self.starts)}"

    def _status(self, name):
        report = super()._status(name)
        if report.phase is not PowerPhase.ON:
            return report
        return replace(report, address=f"http://{self.address(name)}:8000")


class Zone:
    """What the name holds: each change takes `takes_s`; while `down` none comes through."""

    def __init__(self, world, cloud):
        self.world, self.cloud = world, cloud
        self.takes_s, self.down = 2, False
        self.holds, self.due_at = (), None
        self.log = []

    def turn(self):
        record = self.world.fleet.services["chat"].publication
        if record.wanted == self.holds:
            self.due_at = None
        elif self.down:
            self.world.give(DnsTroubled("chat", DnsTrouble.UNREACHABLE, "HTTP 500"))
        elif self.due_at is None:
            self.due_at = self.world.at + self.takes_s
            self.world.give(DnsAttempting("chat", record.wanted, record.wanted_epoch))
        elif self.world.at >= self.due_at:
            self.holds, self.due_at = record.wanted, None
            self.world.give(DnsConfirmed("chat", self.holds, record.wanted_epoch))
            self.log.append((self.world.at, self.holds))

    def lives(self, seconds, **how):
        for _ in range(seconds):
            self.cloud.lives(1, **how)
            self.turn()


def world_of(**more):
    spec = vm("v", follows_address=True, **more)
    world = World(config(backend("a"), spec, dns=DNS))
    cloud = Placing(world)
    return world, cloud, Zone(world, cloud)


def serving(**more):
    """A world in which the VM serves and the name points at it."""
    world, cloud, zone = world_of(**more)
    zone.lives(5, up="a")
    assert zone.holds == GATEWAY
    zone.lives(120, down="a")
    assert world.active == "v"
    assert zone.holds == (Target("A", "203.0.113.101"),)
    return world, cloud, zone


def stop(world, cloud, zone, **how):
    """Have it stopped; returns how long after it was asked for the provider and the name knew."""
    began = world.at
    world.give(Halt("v"))
    for _ in range(60):
        zone.lives(1, **how)
    moved = next((when for when, held in zone.log if when >= began and held == GATEWAY), None)
    return cloud.stops[0][0] - began, None if moved is None else moved - began


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("http://203.0.113.7:8000", (Target("A", "203.0.113.7"),)),
        ("https://[2001:db8::7]:8000", (Target("AAAA", "2001:db8::7"),)),
        ("http://vm.example.org:8000", ()),
        ("", ()),
        ("http://[::", ()),
    ],
)
def test_an_address_is_a_target_if_it_is_an_ip(address, targets):
    assert at(address) == targets


def test_the_name_follows_the_address_and_points_at_the_gateway_while_there_is_none():
    world, cloud, zone = serving()
    assert [held for _, held in zone.log] == [GATEWAY, (Target("A", "203.0.113.101"),)]
    cloud.machines["v"].launch = ""
    zone.lives(400, down="a")
    zone.lives(200, down="a")
    assert len(cloud.starts) == 2
    assert zone.holds == (Target("A", "203.0.113.102"),), "with the next start comes another"
    assert [held for _, held in zone.log[2:]] == [GATEWAY, zone.holds]
    assert world.active == "v"


def test_what_is_stopped_on_purpose_is_stopped_once_the_name_has_moved_away():
    world, cloud, zone = serving()
    stopped_s, moved_s = stop(world, cloud, zone, down="a")
    assert moved_s is not None
    assert moved_s <= stopped_s <= AWAY_FIRST_S
    assert power(world, "v").phase is PowerPhase.OFF
    assert zone.holds == GATEWAY


def test_not_even_a_hard_pin_leaves_the_name_at_what_is_being_stopped():
    world, cloud, zone = serving()
    world.give(PinTo("chat", "v", hard=True))
    stopped_s, moved_s = stop(world, cloud, zone, down="a")
    assert moved_s is not None
    assert moved_s <= stopped_s
    assert zone.holds == GATEWAY


@pytest.mark.parametrize("how", ["slow", "down"])
def test_a_name_that_cannot_be_moved_does_not_keep_a_machine_running(how):
    world, cloud, zone = serving()
    zone.takes_s, zone.down = (600, False) if how == "slow" else (0, True)
    stopped_s, moved_s = stop(world, cloud, zone, down="a")
    assert moved_s is None
    assert stopped_s <= AWAY_FIRST_S + 1
    zone.takes_s, zone.down = 0, False
    zone.due_at = None
    zone.lives(3, down="a")
    assert zone.holds == GATEWAY


def test_what_has_spent_its_budget_is_stopped_at_once():
    spec = vm("v", follows_address=True)
    meter = MeterSpec("v:usd", Unit.USD, 5.0, backend="v", rate_per_hour=0.35)
    world = World(config(backend("a"), spec, dns=DNS, meters={"v:usd": meter}))
    cloud = Placing(world)
    zone = Zone(world, cloud)
    zone.lives(5, up="a")
    zone.lives(120, down="a")
    assert zone.holds == (Target("A", "203.0.113.101"),)
    began = world.at
    world.give(ProviderSaid("v:usd", 5.0))
    zone.lives(20, down="a")
    assert cloud.stops[0][0] - began <= 10
    assert zone.holds == GATEWAY


def test_an_address_that_was_released_by_itself_leaves_the_name_with_the_first_word_of_it():
    world, cloud, zone = serving()
    cloud.machines["v"].launch = ""
    while power(world, "v").phase is PowerPhase.ON:
        cloud.lives(1, down="a")
    record = world.fleet.services["chat"].publication
    assert record.wanted == GATEWAY
    zone.lives(4, down="a")
    assert zone.holds == GATEWAY


def test_after_a_restart_the_name_stands_where_the_machine_is():
    world, cloud, zone = serving()
    again = restarted(world)
    cloud.world = zone.world = again
    cloud.unserved = 0
    zone.lives(60, down="a")
    assert again.active == "v"
    assert zone.holds == (Target("A", "203.0.113.101"),)
    assert len(zone.log) == 2


def test_while_we_only_observe_nothing_is_published():
    world, cloud, zone = world_of()
    zone.lives(5, up="a")
    world.give(Pause())
    zone.lives(100, down="a")
    assert zone.holds == GATEWAY
    assert len(zone.log) == 1
    assert cloud.starts == []
