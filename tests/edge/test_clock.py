"""Steady seconds: Unix time at the start, carried on by the monotonic clock; over a restart, by boot time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.edge.clock import Anchor, CarriedClock, SystemClock, boot_id

WALL = 1_790_000_000.0
HEX = "0123456789abcdef0123456789abcdef"


class Hands:
    """A machine's three readings and the name of its boot, which the test moves."""

    def __init__(self) -> None:
        self.monotonic, self.wall, self.boot, self.boot_id = 77.0, WALL, 99.0, "monday"

    def clock(self) -> CarriedClock:
        return CarriedClock(
            lambda: self.monotonic, lambda: self.wall, lambda: self.boot, self.boot_id
        )

    def run_on(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds
        self.boot += seconds

    def suspend(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def reboot(self) -> None:
        self.monotonic = self.boot = 3.0
        self.boot_id = "tuesday"


def lived(hands: Hands, seconds: float = 1000.0) -> tuple[float, Anchor]:
    """Live for so long; returns the last steady time and the anchor, as the store keeps them."""
    clock = hands.clock()
    anchor = clock.resume(0.0, None)
    hands.run_on(seconds)
    return clock.steady(), anchor


def again(hands: Hands, written_at: float, anchor: Anchor | None) -> float:
    """Start anew; returns where steady seconds begin."""
    clock = hands.clock()
    clock.resume(written_at, anchor)
    return clock.steady()


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


@pytest.mark.parametrize("step_s", [0.0, 3600.0, -3600.0, -10 * 365 * 86400.0])
def test_within_one_boot_a_restart_goes_on_whatever_the_wall_clock_did(step_s):
    hands = Hands()
    written_at, anchor = lived(hands)
    hands.wall += step_s
    hands.run_on(20.0)
    for _ in range(3):
        clock = hands.clock()
        assert clock.resume(written_at, anchor) == anchor  # nothing new to store
        assert clock.steady() == written_at + 20.0
        hands.run_on(5.0)
        assert clock.steady() == written_at + 25.0
        hands.run_on(-5.0)


@pytest.mark.parametrize(
    ("step_s", "moves_s"),
    [(0.0, 20.0), (3600.0, 3620.0), (-3600.0, 0.0)],  # never before what was stored
)
@pytest.mark.parametrize("how", ["reboot", "nameless", "first", "was nameless"])
def test_without_a_boot_in_common_the_wall_clock_decides(how, step_s, moves_s):
    hands = Hands()
    if how == "nameless":
        hands.boot_id = ""
    written_at, anchor = lived(hands)
    hands.run_on(20.0)
    hands.wall += step_s
    if how == "reboot":
        hands.reboot()
    stored = {"first": None, "was nameless": replace(anchor, boot_id="")}.get(how, anchor)
    clock = hands.clock()
    new = clock.resume(written_at, stored)
    assert clock.steady() == written_at + moves_s
    assert new == Anchor(hands.boot_id, clock.steady() - hands.boot)


def test_after_a_reboot_the_new_boot_carries_on():
    hands = Hands()
    written_at, anchor = lived(hands)
    hands.reboot()
    clock = hands.clock()
    anchor = clock.resume(written_at, anchor)
    hands.run_on(50.0)
    written_at = clock.steady()
    hands.wall -= 3600.0
    assert again(hands, written_at, anchor) == written_at


def test_a_restart_goes_on_where_a_run_was_that_knew_it_had_been_suspended():
    """What happened since then must not seem older to the next run than it was to this one."""
    hands = Hands()
    clock = hands.clock()
    clock.resume(0.0, None)
    hands.suspend(3600.0)
    anchor = clock.anchor()
    hands.run_on(10.0)
    assert again(hands, clock.steady(), anchor) == clock.steady() == WALL + 10.0


def test_a_suspend_that_nobody_noted_moves_steady_seconds_at_the_next_start():
    hands = Hands()
    clock = hands.clock()
    anchor = clock.resume(0.0, None)
    hands.suspend(3600.0)
    hands.run_on(10.0)
    assert clock.steady() == WALL + 10.0
    assert again(hands, clock.steady(), anchor) == WALL + 3610.0


def test_even_within_one_boot_steady_seconds_never_begin_before_what_is_stored():
    hands = Hands()
    written_at, anchor = lived(hands)
    clock = hands.clock()
    later = clock.resume(written_at + 500.0, anchor)
    assert clock.steady() == written_at + 500.0
    assert again(hands, 0.0, later) == written_at + 500.0


def test_a_boot_has_the_kernels_name_and_what_was_told_counts_where_that_is_hidden(tmp_path):
    kernel = tmp_path / "boot_id"
    assert boot_id("", kernel) == ""
    assert boot_id(HEX, kernel) == HEX
    assert boot_id("%b", kernel) == ""  # nobody filled it in: no name at all
    kernel.write_text("4EC066DD-fe5a-4879-a4f5-b35e9e08b08a\n")
    assert boot_id(HEX, kernel) == "4ec066ddfe5a4879a4f5b35e9e08b08a"


def test_this_machine_goes_on_by_its_own_boot_time():
    first = SystemClock(HEX)  # told, should the kernel's own name be hidden here
    anchor = first.resume(0.0, None)
    assert len(anchor.boot_id) == 32
    ahead = Anchor(anchor.boot_id, anchor.offset_s + 3600.0)
    clock = SystemClock(HEX)
    assert clock.resume(0.0, ahead) == ahead
    assert 3599.0 < clock.steady() - first.steady() < 3660.0


def test_the_machines_clocks_begin_together_and_go_forward():
    clock = SystemClock()
    assert abs(clock.steady() - clock.wall()) < 60.0
    readings = [(clock.steady(), clock.boot()) for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[-1] > readings[0]
