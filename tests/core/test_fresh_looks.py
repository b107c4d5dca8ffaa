"""A voluntary move is made on an answer of this moment; a forced one waits for nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.events import Drain, Observed, Pause, PinTo, ProbeSoon, Resume, Unpin
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy
from tests.core.worlds import World, backend, config

SELDOM = HealthPolicy(interval_s=300.0, canary_s=None)  # as behind a host that counts requests
BAD = Verdict.FAILED


@pytest.fixture
def world():
    """`a` is preferred, looked at every five minutes, and well again for almost as long."""
    made = World(config(backend("a", health=SELDOM), backend("b"), backend("c")))
    made.up("a", "b", "c")
    made.down("a")
    made.up("a")
    assert made.active == "b"
    made.lives(290, up="bc")
    made.forget()
    return made


def due(world):
    """Let the wait for `a` be over, without a word of it."""
    world.lives(30, up="bc")


def test_one_that_is_looked_at_seldom_is_looked_at_once_more_before_it_is_moved_to(world):
    due(world)
    assert world.active == "b"
    assert world.effects.count(ProbeSoon("a")) == 1, "once: its answer comes, whatever it is"
    world.sees("a")
    world.tick()
    assert world.active == "a"
    assert world.fleet.services["chat"].moves == (world.at,)


@pytest.mark.parametrize("verdict", [BAD, Verdict.BUSY, Verdict.DENIED, Verdict.LOADING])
def test_who_answers_that_look_badly_is_not_moved_to_and_waits_anew(world, verdict):
    due(world)
    world.sees("a", verdict)
    world.lives(299, up="abc")
    assert world.active == "b"
    world.lives(100, up="abc")
    assert world.active == "a"


def test_a_look_that_began_before_it_was_asked_for_is_not_the_answer(world):
    began_at = world.at
    due(world)
    world.give(Observed(Observation("a", Source.PROBE, Verdict.OK), began_at))
    world.tick()
    assert world.active == "b"
    world.sees("a")
    world.tick()
    assert world.active == "a"


def test_an_answer_is_good_for_seconds_only(world):
    due(world)
    world.give(Pause(None, "me"))
    world.sees("a")
    world.lives(60, up="bc")
    world.forget()
    world.give(Resume())
    assert world.active == "b"
    assert ProbeSoon("a") in world.effects
    world.sees("a")
    world.tick()
    assert world.active == "a"


def test_a_pin_is_returned_to_only_after_a_look(world):
    world.give(Drain("a"))
    world.give(PinTo("chat", "c"))  # moves at once: the operator said so
    assert world.active == "c"
    world.down("c")
    world.up("c")
    world.lives(298, up="b")
    world.forget()
    world.lives(10, up="b")
    assert world.active == "b"
    assert ProbeSoon("c") in world.effects
    world.sees("c")
    world.tick()
    assert world.active == "c"
    world.give(Unpin("chat"))


def test_the_dead_are_left_without_asking_anybody_first(world):
    due(world)
    world.forget()
    for _ in range(3):
        world.sees("b", BAD)
    assert world.active == "a", "at once, though nothing was heard of it lately"


def test_a_good_answer_that_nobody_waits_for_is_the_empty_turn(world):
    due(world)
    world.sees("a")
    world.tick()
    turn = world.sees("a")
    assert turn == type(turn)()
    assert world.sees("b") == type(turn)()


def test_who_waits_for_an_answer_waits_for_one_service_and_all_of_them():
    base = config(backend("a", health=SELDOM), backend("b"))
    embed = replace(base.services["chat"], name="embed")
    made = World(replace(base, services={**base.services, "embed": embed}))
    made.up("a", "b")
    made.down("a")
    made.up("a")
    made.lives(320, up="b")
    assert made.effects.count(ProbeSoon("a")) == 1
    made.sees("a")
    made.tick()
    assert [state.active for state in made.fleet.services.values()] == ["a", "a"]
