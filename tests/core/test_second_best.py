"""A move to the second best is not the last one, and not made at all if the best is due at once."""

from __future__ import annotations

from tests.core.worlds import World, config


def recover(world: World, apart_s: float) -> None:
    """Have both recover, the better one so much later."""
    for name in ("b", "a"):
        world.sees(name)
        world.sees(name)
        world.tick(apart_s if name == "b" else 1)


def test_after_going_back_to_the_second_best_it_goes_back_to_the_best_unasked():
    world = World(config())
    world.up("a", "b", "c")
    world.tick(40)
    world.down("a", "b")
    assert world.active == "c"
    recover(world, apart_s=70)
    world.answering = frozenset("ab")
    world.tick(240)
    assert world.active == "b"
    world.tick(70)  # nothing but time passes, and it answers once more
    assert world.active == "a"


def test_one_that_is_due_within_a_minute_is_waited_for_since_moves_are_few():
    world = World(config())
    world.up("a", "b", "c")
    world.tick(40)
    world.down("a", "b")
    recover(world, apart_s=12)
    world.answering = frozenset("ab")
    while world.active == "c":
        world.tick(1)
    assert world.active == "a"
    assert len(world.fleet.services["chat"].moves) == 1
