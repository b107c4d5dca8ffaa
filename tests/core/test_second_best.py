"""A move to the second best is not the last one."""

from __future__ import annotations

from tests.core.worlds import World, config


def test_after_going_back_to_the_second_best_it_goes_back_to_the_best_with_no_new_evidence():
    world = World(config())
    world.up("a", "b", "c")
    world.tick(40)
    world.down("a", "b")
    assert world.active == "c"
    for name in ("b", "a"):  # both recover, the better one a little later
        world.sees(name)
        world.sees(name)
        world.tick(12)
    world.tick(300)
    assert world.active == "b"
    world.tick(70)  # a minute apart, and nothing but time passes
    assert world.active == "a"
