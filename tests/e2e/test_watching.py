"""The judges of a soak see what is wrong, and nothing else."""

from __future__ import annotations

import time  # noqa: TID251 - the watch's own clock

import pytest

from tests.e2e.kit import World
from tests.e2e.watching import Bounds, Truth, Vitals, Watch

LATER_S = 100.0


@pytest.fixture
def watch(tmp_path):
    world = World(tmp_path)
    world.tables = {"backends.alpha": {}, "services.chat": {}, "backends.beta": {}}
    made = Watch(world, None, Truth(["alpha", "beta"]), Bounds(1.0, 2.0, 3.0))
    made._ready = time.monotonic()
    yield made
    world.http.close()


def told(watch, active: str | None, epoch: int, after_s: float = 0.0) -> list[str]:
    """Hand it an answer; gives the breaches so far."""
    watch._judge(
        {"epoch": epoch, "active": active and {"backend": active}}, time.monotonic() + after_s
    )
    return [what for _, what in watch.found.breaches]


def test_a_live_one_may_serve_for_ever(watch):
    watch.truth.say("beta", False)
    assert told(watch, "alpha", 1) == told(watch, "alpha", 1, LATER_S) == []


def test_a_dead_one_may_serve_within_the_bound_and_is_one_breach_beyond(watch):
    watch.truth.say("alpha", False)
    assert told(watch, "alpha", 1, 1.5) == []
    assert len(told(watch, "alpha", 1, 2.5)) == len(told(watch, "alpha", 1, 3.0)) == 1
    assert len(told(watch, "beta", 2, 4.0)) == 1
    assert watch.found.left_s == [pytest.approx(4.0, abs=0.5)]


def test_a_dead_one_may_serve_while_no_other_lives(watch):
    watch.truth.say("alpha", False)
    watch.truth.say("beta", False)
    assert told(watch, "alpha", 1, LATER_S) == []


def test_nobody_may_serve_only_while_nobody_lives(watch):
    watch.truth.say("alpha", False)
    told(watch, None, 1)
    assert len(told(watch, None, 1, LATER_S)) == 1


def test_an_epoch_must_not_go_back(watch):
    assert told(watch, "alpha", 7) == []
    assert len(told(watch, "alpha", 6)) == 1


def test_growth_is_of_the_last_third_over_the_middle_one(tmp_path):
    vitals = Vitals(None)
    level = {"rss_mb": 100.0, "fds": 20, "threads": 7, "tasks": 10}
    vitals.samples = [{**level, "rss_mb": 60.0}] * 3 + [level] * 6  # warming up is no leak
    assert vitals.growth() == []
    vitals.samples[6:] = [{"rss_mb": 106.0, "fds": 26, "threads": 9, "tasks": 16}] * 3
    assert [what.split(" ")[0] for what in vitals.growth()] == ["rss_mb", "fds", "threads", "tasks"]
