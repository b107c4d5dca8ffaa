"""Thousands at once: one look at a choice answers for many changes."""

import pytest

from orchestrator.core.events import Observed, Tick
from orchestrator.core.model import Observation, Source, Verdict
from tests.core.worlds import World, backend, config

CROWD = tuple(f"b{number:03}" for number in range(300))


@pytest.fixture
def crowd():
    world = World(config(*(backend(name) for name in CROWD)))
    world.up(*CROWD)
    assert world.active == CROWD[0]
    world.forget()
    return world


def pass_through(world, verdict, times, within_s=10):
    """Give everybody's answers in an order that has nothing to do with preference."""
    size = len(CROWD)
    answers = [
        (world.at + place * 7919 % size / size * within_s + 2 * number, name)
        for place, name in enumerate(CROWD, 1)
        for number in range(times)
    ]
    due = world.at + 1
    for at, name in sorted(answers):
        while due <= at:
            world.at = due
            world.give(Tick(world.at))
            due += 1
        world.at = at
        world.give(Observed(Observation(name, Source.PROBE, verdict), at))
        yield name
    world.tick(2)


def looks(world):
    """Count the turns that looked at the choice."""
    return sum("chat" in turn.services for turn in world.turns)


def test_when_everybody_falls_the_dead_are_left_at_once_for_few_looks(crowd):
    for _ in pass_through(crowd, Verdict.FAILED, 3):
        active = crowd.active
        assert active is None or crowd.fleet.backends[active].fails < 3
    assert crowd.active is None
    assert looks(crowd) < 100


def test_when_everybody_recovers_the_first_serves_at_once_for_few_looks(crowd):
    crowd.down(*CROWD)
    crowd.forget()
    seen = set()
    for name in pass_through(crowd, Verdict.OK, 2):
        if name in seen:
            assert crowd.active is not None, "the first that is up serves in the same turn"
        seen.add(name)
    assert looks(crowd) < 40


def test_a_start_of_many_costs_few_looks_and_ends_with_the_preferred():
    world = World(config(*(backend(name) for name in CROWD)))
    for _ in pass_through(world, Verdict.OK, 2, within_s=5):
        pass
    assert world.active == CROWD[0]
    assert looks(world) < 100


def test_an_ill_incumbent_is_left_in_the_turn_in_which_a_healthy_one_comes_up(crowd):
    crowd.down(*CROWD[1:])
    for _ in range(2):
        crowd.sees(CROWD[0], Verdict.FAILED, source=Source.CANARY)
    assert crowd.active == CROWD[0], "degraded, and still the best"
    crowd.sees(CROWD[9])
    crowd.sees(CROWD[9])
    assert crowd.active == CROWD[9]
