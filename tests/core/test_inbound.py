"""All agents silent at once: our own ingress, unless they cannot prove that they are there."""

from __future__ import annotations

import pytest

from orchestrator.core.events import Challenge
from orchestrator.core.health import Lease, lease
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState
from orchestrator.core.registry import Challenged, Heartbeat
from tests.core.worlds import START, World, backend, config


@pytest.fixture
def world():
    """Two notebooks whose agents fall silent now, and one that needs none; all engines answer."""
    stored = {name: BackendState(name, session=Session(f"s-{name}", START, START)) for name in "ab"}
    three = [backend(name, registers=name != "c") for name in "abc"]
    made = World(config(*three), backends=stored)
    made.up("a", "b", "c")
    made.forget()
    return made


def silent(world, seconds, *, met):
    """Let time pass; those in `met` meet their challenges, the others do not."""
    asked = []
    for _ in range(seconds):
        for effect in world.tick().effects:
            if isinstance(effect, Challenge):
                asked.append(effect.backend)
                ident = f"s-{effect.backend}"
                world.give(Challenged(effect.backend, ident, ok=effect.backend in met))
        for name in "abc":
            world.sees(name)
    return asked


def heard(world, name):
    world.give(Heartbeat(name, f"s-{name}", ready=True))


def test_while_our_ingress_is_lost_who_proves_itself_serves_on_and_is_asked_once_a_minute(world):
    asked = silent(world, 600, met="ab")
    assert world.fleet.world.inbound_lost_since is not None
    assert world.active == "a"
    assert 9 <= asked.count("a") <= 12
    session = world.fleet.backends["a"].session
    assert lease(session, world.at + 30) is Lease.LATE, "its lease stood still"


def test_while_our_ingress_is_lost_a_dead_agent_is_found_out_all_the_same(world):
    silent(world, 60, met="b")
    assert world.active == "b"
    assert world.fleet.world.inbound_lost_since is not None, "another one is there and not heard"
    assert "inbound_lost:" in world.fleet.incidents
    heard(world, "b")
    silent(world, 1, met="b")
    assert world.fleet.world.inbound_lost_since is None
    silent(world, 10, met="b")
    assert world.active == "b"


def test_when_no_silent_agent_proves_itself_it_was_not_our_ingress_but_them(world):
    asked = silent(world, 60, met="")
    assert world.active == "c"
    assert world.fleet.world.inbound_lost_since is None
    silent(world, 300, met="")
    assert world.fleet.world.inbound_lost_since is None, "their engines still answer"
    opened = [entry for entry in world.entries if entry.action == "inbound_lost"]
    assert len(opened) == 1
    assert asked.count("a") < 20


def test_who_dies_after_it_proved_itself_while_our_ingress_is_lost_is_left_within_minutes(world):
    silent(world, 300, met="ab")
    assert world.active == "a"
    silent(world, 80, met="b")
    assert world.active == "b"


def test_one_that_died_long_ago_does_not_say_that_our_ingress_works(world):
    for second in range(120):
        if second % 10 == 0:
            heard(world, "b")
        silent(world, 1, met="b")
    assert world.active == "b"
    assert world.fleet.world.inbound_lost_since is None
    silent(world, 120, met="b")
    assert world.active == "b", "silent, but it proves itself"
