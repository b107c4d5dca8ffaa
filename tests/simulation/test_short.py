"""A few short seeds with much bad luck: what is broken in the rules shows within seconds."""

import pytest

from tests.simulation.run import DAY_S, simulate
from tests.simulation.trace import clock


@pytest.mark.parametrize("seed", [5, 300, 7])
def test_an_hour_or_two_of_bad_luck_break_no_promise(seed):
    result = simulate(seed, 6000 / DAY_S, last_calm_s=150.0)
    told = [f"{b.invariant} at {clock(b.at)}: {b.what}" for b in result.breaches]
    assert not told, "\n".join([*told, result.story])
    assert sum(result.struck.values()) > 10
