"""Planned moves: what they may interrupt, what may interrupt them, and what comes of it."""

from dataclasses import replace

import pytest

from orchestrator.core.events import (
    CanarySoon,
    CheckName,
    ControlsAnswered,
    Drain,
    Failover,
    NameChecked,
    Pause,
    PinTo,
    Reconfigured,
    Resume,
    Switchover,
)
from orchestrator.core.model import Health, Phase, Source, Verdict
from orchestrator.core.specs import HealthPolicy
from tests.core.worlds import DNS, World, backend, config, drained

BAD = Verdict.FAILED
POLICY = HealthPolicy(canary_s=300)


@pytest.fixture
def world():
    found = World(config(*(backend(name, health=POLICY) for name in "abc"), dns=DNS))
    found.up("a", "b", "c")
    found.forget()
    return found


def service(world):
    return world.fleet.services["chat"]


def proves(world, name):
    world.sees(name, source=Source.CANARY)
    world.tick()


def moved_to_b(world):
    world.give(Switchover("chat", "b", 0))
    world.tick()
    proves(world, "b")
    assert world.active == "b"
    world.forget()


def topics(world):
    return [notice.topic for notice in world.notices]


# ── beginning ──


def test_a_planned_move_to_the_one_that_serves_by_then_is_nothing(world):
    world.give(Switchover("chat", "b", world.at + 60))
    world.give(Failover("chat", "b"))
    epoch = world.epoch
    world.lives(600, up="abc")
    assert world.epoch == epoch
    assert not drained(world, "b"), "the one that serves is not stopped"
    assert service(world).planned is None


def test_a_planned_move_to_a_dead_one_is_told_as_given_up_and_moves_nobody(world):
    world.give(Switchover("chat", "b", world.at + 60))
    world.down("b")
    world.lives(70, up="ac", down="b")
    assert world.active == "a"
    assert service(world).planned is None
    assert topics(world).count("rotation_failed") == 1


def test_a_planned_move_to_a_dead_one_does_not_publish_it_though_nobody_serves(world):
    world.give(Switchover("chat", "b", world.at + 60))
    world.lives(70, down="abc")
    assert world.active is None
    assert service(world).planned is None


def test_a_plan_whose_time_passed_long_ago_is_given_up(world):
    world.give(Switchover("chat", "b", world.at + 60))
    stored = {"services": world.fleet.services, "backends": world.fleet.backends}
    again = World(world.fleet.config, world.at + 86400, **stored)
    again.up("a", "b", "c")
    again.tick(3)
    assert again.active == "a"
    assert service(again).rotation is None
    assert topics(again).count("rotation_failed") == 1


def test_a_plan_whose_time_passed_during_a_short_restart_is_carried_out(world):
    world.give(Switchover("chat", "b", world.at + 60))
    stored = {"services": world.fleet.services, "backends": world.fleet.backends}
    again = World(world.fleet.config, world.at + 120, **stored)
    again.up("a", "b", "c")
    again.tick(2)
    proves(again, "b")
    assert again.active == "b"


def test_a_newer_pin_takes_the_place_of_a_plan(world):
    world.give(Switchover("chat", "b", world.at + 60))
    world.give(PinTo("chat", "c", hard=True))
    world.lives(120, up="abc")
    assert world.active == "c"
    assert service(world).pin is not None


def test_a_plan_for_after_the_pin_stands(world):
    world.give(Switchover("chat", "b", world.at + 600))
    world.give(PinTo("chat", "c", for_s=60))
    assert service(world).planned is not None


def test_a_move_to_a_drained_one_is_refused_while_somebody_better_serves(world):
    world.give(Drain("b"))
    for command in (Switchover("chat", "b", 0), Failover("chat", "b")):
        answer = world.give(command).answer
        assert answer is not None
        assert answer.problem == "conflict"
        assert "drained" in answer.text


@pytest.mark.parametrize("command", [Failover("chat", "b"), PinTo("chat", "b")])
def test_a_move_to_a_degraded_one_is_not_done_and_undone(world, command):
    for _ in range(2):
        world.sees("b", BAD, source=Source.CANARY)
    assert world.fleet.backends["b"].health is Health.DEGRADED
    epoch = world.epoch
    world.give(command)
    world.tick(2)
    assert (world.active, world.epoch) == ("a", epoch)


# ── while the next one is made ready ──


def test_one_that_refuses_us_is_not_published_because_its_canary_worked(world):
    world.give(Switchover("chat", "b", 0))
    epoch = world.epoch
    for _ in range(3):
        world.sees("b", Verdict.DENIED)
    proves(world, "b")
    assert (world.active, world.epoch) == ("a", epoch)
    assert service(world).rotation is None


def test_the_operators_choice_is_not_replaced_by_the_best_other(world):
    world.give(Switchover("chat", "c", 0))
    world.give(Drain("a"))
    turn = service(world).rotation
    assert turn is not None
    assert turn.new == "c"


def test_an_incumbent_that_dies_is_left_at_once_for_the_one_being_made_ready(world):
    world.give(Switchover("chat", "b", 0))
    world.forget()
    world.down("a")
    assert world.active == "b"
    assert service(world).rotation is None
    assert "rotation_failed" not in topics(world), "it went where it should"


def test_one_put_back_into_rotation_goes_on_serving(world):
    world.give(Drain("a"))
    assert service(world).rotation is not None
    world.give(Drain("a", drained=False))
    assert service(world).rotation is None
    world.lives(100, up="abc")
    assert world.active == "a"


def test_what_failed_is_tried_again_after_a_minute_without_new_evidence(world):
    world.give(Drain("a"))
    world.lives(95, up="abc")
    assert service(world).rotation is None
    assert world.active == "a", "nobody is drained before a successor is published"
    world.forget()
    world.lives(62, up="abc")
    assert CanarySoon("b") in world.effects
    proves(world, "b")
    assert world.active == "b"


def test_a_switchover_that_moved_nobody_holds_nothing(world):
    world.down("a")
    assert world.active == "b"
    world.give(Switchover("chat", "c", 0))
    world.lives(95, up="abc")
    assert world.active == "b"
    world.lives(300, up="abc")
    assert world.active == "a", "failback is not held for an hour"


def test_a_hold_ends_with_the_one_it_was_for(world):
    world.give(Failover("chat", "c"))
    world.down("a", "c")
    assert world.active == "b"
    world.lives(310, up="abc")
    assert world.active == "a"


# ── after it was published ──


def test_a_name_nobody_looked_through_is_not_verified(world):
    moved_to_b(world)
    world.lives(200, up="abc")
    turn = service(world).rotation
    assert turn is not None
    assert turn.phase is Phase.VERIFY
    assert world.effects.count(CheckName("chat")) > 30


def test_one_bad_look_through_the_name_begins_the_minute_anew(world):
    moved_to_b(world)
    world.give(NameChecked("chat", ok=True))
    world.lives(50, up="abc")
    world.give(NameChecked("chat", ok=False))
    world.give(NameChecked("chat", ok=True))
    world.lives(50, up="abc")
    assert service(world).rotation.phase is Phase.VERIFY
    world.lives(11, up="abc")
    assert service(world).rotation.phase is Phase.TTL


def drains(world):
    moved_to_b(world)
    world.give(NameChecked("chat", ok=True))
    world.lives(61 + 301, up="abc")
    assert service(world).rotation.phase is Phase.DRAIN


def test_nobody_is_stopped_while_paused_nor_at_once_after(world):
    drains(world)
    world.give(Pause())
    world.lives(200, up="abc")
    assert not drained(world, "a")
    world.give(Resume())
    world.lives(100, up="abc")
    assert not drained(world, "a")
    world.lives(21, up="abc")
    assert drained(world, "a")


def test_nobody_is_stopped_for_time_that_passed_while_we_did_not_run(world):
    drains(world)
    world.at += 500
    world.lives(100, up="abc")
    assert not drained(world, "a")
    world.lives(25, up="abc")
    assert drained(world, "a")


def test_nobody_is_stopped_while_we_are_isolated():
    far = (backend(name, health=POLICY, remote=True) for name in "abc")
    world = World(config(*far, dns=DNS, controls=4))
    world.up("a", "b", "c")
    drains(world)
    world.tick(20)
    world.sees("c", BAD)
    world.give(ControlsAnswered(4, 4, world.at))
    assert world.fleet.world.isolated_since is not None
    world.tick(200)
    assert not drained(world, "a")


def test_a_rotation_survives_a_restart_and_begins_its_phase_anew(world):
    drains(world)
    stored = {"services": world.fleet.services, "backends": world.fleet.backends}
    again = World(world.fleet.config, world.at + 1000, **stored)
    again.up("a", "b", "c")
    assert not drained(again, "a")
    again.lives(121, up="abc")
    assert drained(again, "a")
    assert again.active == "b"


def test_a_rotation_whose_next_one_is_configured_away_is_given_up(world):
    world.give(Switchover("chat", "b", 0))
    less = replace(
        config(backend("a", health=POLICY), backend("c", health=POLICY)),
        alerts=world.fleet.config.alerts,
    )
    world.give(Reconfigured(less))
    world.tick()
    assert service(world).rotation is None
    assert world.active == "a"
