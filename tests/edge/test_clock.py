"""Steady seconds: Unix time at the start, carried on by the monotonic clock and nothing else."""

from __future__ import annotations

import pytest

from orchestrator.edge.clock import CarriedClock, SystemClock

WALL = 1_790_000_000.0


class Hands:
    """Three readings that the test moves."""

    def __init__(self) -> None:
        self.monotonic, self.wall, self.boot = 77.0, WALL, 99.0

    def clock(self) -> CarriedClock:
        return CarriedClock(lambda: self.monotonic, lambda: self.wall, lambda: self.boot)


@pytest.mark.parametrize("step_s", [0.0, 3600.0, -3600.0, -10 * 365 * 86400.0])
def test_a_step_of_the_wall_clock_never_moves_steady_seconds(step_s):
    hands = Hands()
    clock = hands.clock()
    assert clock.steady() == WALL
    for passed_s in (0.25, 10.0, 86400.0):
        before = clock.steady()
        hands.monotonic += passed_s
        hands.wall += passed_s + step_s
        assert clock.steady() == before + passed_s
        assert clock.wall() == hands.wall


def test_a_suspend_shows_in_boot_time_alone():
    hands = Hands()
    clock = hands.clock()
    hands.boot += 3600.0
    assert (clock.steady(), clock.boot()) == (WALL, 3699.0)


@pytest.mark.parametrize(("stored", "begins"), [(WALL + 500.0, WALL + 500.0), (WALL - 500.0, WALL)])
def test_steady_seconds_begin_no_earlier_than_what_is_stored(stored, begins):
    hands = Hands()
    clock = hands.clock()
    clock.not_before(stored)
    assert clock.steady() == begins
    hands.monotonic += 5.0
    assert clock.steady() == begins + 5.0


def test_the_machines_clocks_begin_together_and_go_forward():
    clock = SystemClock()
    assert abs(clock.steady() - clock.wall()) < 60.0
    readings = [(clock.steady(), clock.boot()) for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]
