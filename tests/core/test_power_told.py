"""What the operator is told of a provider, and when: a key that expired, one that says nothing yet."""

from dataclasses import replace
from datetime import UTC

from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import Health, Notice, NoticeKind, Severity
from orchestrator.core.powering import Ask, PowerReport, PowerReported, Snag
from orchestrator.edge.texts import Style, render
from tests.core.clouds import Cloud, power, vm
from tests.core.worlds import World, backend, config

NO_KEY = PowerReport(snag=Snag.DENIED, detail="the key is not taken")


def world_of(*backends):
    world = World(config(*backends))
    return world, Cloud(world)


def refuse(world, cloud, seconds, **more):
    """Let time pass while the provider takes no key, whoever asks how it is."""
    cloud.status = NO_KEY
    cloud.lives(seconds, **more)


def test_a_key_that_is_taken_no_more_is_told_with_the_second_refusal():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(10, up="a")
    refuse(world, cloud, 400, up="a")
    incident = world.fleet.incidents["start_failed:v"]
    assert "it does not let us: the key is not taken" in incident.params["reason"]
    assert power(world, "v").refused_at is not None
    cloud.status = None
    cloud.lives(60, up="a")
    assert "start_failed:v" not in world.fleet.incidents
    assert power(world, "v").refused_at is None


def test_a_key_that_never_worked_is_told_within_a_minute_and_the_backend_is_not_called_down():
    world, cloud = world_of(backend("a"), vm("v"))
    refuse(world, cloud, 60, up="a")
    assert world.fleet.backends["v"].health is Health.DOWN
    assert "start_failed:v" in world.fleet.incidents
    assert "backend_down:v" not in world.fleet.incidents


def test_a_provider_that_does_not_say_how_a_backend_is_is_no_start_that_failed():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(10, up="a")
    refuse(world, cloud, 400, up="a")
    params = world.fleet.incidents["start_failed:v"].params
    opened = Notice("n", NoticeKind.OPENED, "start_failed", "v", Severity.WARNING, 0.0, "i", params)
    told = render(opened, Style("en", UTC))
    assert told.title == "aion cannot learn how v is"
    assert "What runs there costs all the same" in told.body
    assert "aion doctor" in told.body
    assert "started" not in told.title + told.body
    cloud.status = None
    cloud.fates = ["stockout"]
    cloud.lives(100, down="a")
    params = world.fleet.incidents["start_failed:v"].params
    failed = render(replace(opened, params=params), Style("en", UTC))
    assert failed.title == "v could not be started"
    assert failed.body.endswith("To try it now: aion backend start v")


def test_one_refusal_between_two_answers_is_not_told():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(10, up="a")
    world.give(PowerReported("v", Ask.STATUS, NO_KEY, began_at=world.at))
    world.tick()
    assert power(world, "v").refused_at is not None
    assert "start_failed:v" not in world.fleet.incidents
    cloud.lives(60, up="a")
    assert "start_failed:v" not in world.fleet.incidents


def test_one_whose_provider_has_not_said_yet_whether_it_is_on_is_not_told_of_as_down():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.mute = True
    cloud.lives(60, up="a")
    assert power(world, "v").phase is PowerPhase.UNKNOWN
    assert world.fleet.backends["v"].health is Health.DOWN
    assert "backend_down:v" not in world.fleet.incidents


def test_one_that_boots_and_never_serves_says_what_its_looks_say():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["never"]
    cloud.lives(5, up="a")
    cloud.lives(1000, down="a")
    [failed] = [entry.text for entry in world.entries if entry.action == "power_failed"]
    assert failed.startswith("v could not be started: it was not up 15 min")
    assert f"after it was started: {world.fleet.backends['v'].reason}; not again" in failed
