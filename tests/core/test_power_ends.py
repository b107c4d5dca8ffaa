"""What ends by itself: it was up, so nobody is told that it could not be started."""

import pytest

from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Verdict
from orchestrator.core.powering import Ask, AskPower, PowerReport, PowerReported
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import World, backend, config


@pytest.fixture
def young():
    """A machine that serves, two minutes after it was started."""
    world = World(config(backend("a"), vm("v")))
    cloud = Cloud(world)
    cloud.lives(120, down="a")
    assert world.active == "v"
    return world, cloud


def goes(world, cloud, *phases, detail="preempted"):
    """Its provider takes it away, and says so when asked."""
    for phase in phases:
        launch = "" if phase is PowerPhase.OFF else cloud.machines["v"].launch
        report = PowerReport(phase, launch, detail=detail)
        world.tick()
        world.give(PowerReported("v", Ask.STATUS, report, "", world.at))
    cloud.machines["v"].launch = ""
    cloud.unserved = len(world.turns)


def told(world, action):
    return [entry.text for entry in world.entries if entry.action == action]


@pytest.mark.parametrize("phases", [(PowerPhase.OFF,), (PowerPhase.STOPPING, PowerPhase.OFF)])
def test_a_young_one_that_is_taken_away_went_off_by_itself_and_was_started_well(young, phases):
    world, cloud = young
    goes(world, cloud, *phases)
    world.tick(10)
    assert told(world, "power_failed") == []
    assert len(told(world, "power_lost")) == 1
    assert told(world, "power_lost")[0].startswith("v went off by itself, 11")
    assert ": preempted; not again within 60 s" in told(world, "power_lost")[0]
    assert "start_failed:v" not in world.fleet.incidents
    assert "preempted" in world.fleet.incidents["went_off:v"].params["reason"]


def test_it_waits_before_the_next_start_and_the_incident_ends_with_that(young):
    world, cloud = young
    goes(world, cloud, PowerPhase.OFF)
    began = len(cloud.starts)
    cloud.lives(50, down="a")
    assert len(cloud.starts) == began, "what does not last is not started in a row"
    cloud.lives(120, down="a")
    assert len(cloud.starts) == began + 1
    assert world.active == "v"
    assert "went_off:v" not in world.fleet.incidents


def test_an_old_one_that_is_taken_away_is_followed_at_once_and_the_log_says_by_what(young):
    world, cloud = young
    cloud.lives(600, down="a")
    goes(world, cloud, PowerPhase.OFF)
    began = len(cloud.starts)
    cloud.lives(10, down="a")
    assert len(cloud.starts) == began + 1
    assert told(world, "power_lost")[0].endswith("after it was started: preempted")
    assert not {"went_off:v", "start_failed:v"} & set(world.fleet.incidents)


def test_one_that_goes_down_is_asked_for_at_its_provider_at_once(young):
    world, cloud = young
    cloud.lives(60, down="a")
    cloud.machines["v"].launch = ""
    world.forget()
    cloud.unserved = 0
    cloud.lives(6, down="a")
    assert AskPower("v") in world.effects, "and not only after five minutes"
    assert power(world, "v").phase is PowerPhase.OFF


def test_one_that_was_never_up_could_not_be_started():
    world = World(config(backend("a"), vm("v")))
    cloud = Cloud(world, fates=["never"])
    cloud.lives(60, down="a")
    goes(world, cloud, PowerPhase.OFF, detail="no quota for GPUs")
    assert told(world, "power_failed")[0].startswith("v could not be started: no quota for GPUs")
    assert "start_failed:v" in world.fleet.incidents


def test_one_that_died_and_was_stopped_for_that_did_not_last(young):
    world, cloud = young
    cloud.machines["v"].dead = True
    for _ in range(400):
        world.tick()
        cloud.serve()
        world.sees("v", Verdict.FAILED)
    assert told(world, "power_lost")[0].startswith("v died and did not come back")
    assert "start_failed:v" not in world.fleet.incidents
