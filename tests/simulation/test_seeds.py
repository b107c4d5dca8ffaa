"""Twenty days of bad luck: no promise is broken, and the same seed gives the same trace."""

import os

import pytest

from tests.simulation.faults import KINDS
from tests.simulation.seeds import Summary, results, told

SEEDS, DAYS = range(1, 41), 0.5
AT_THE_PROVIDER = {  # beside what strikes by itself
    "deleted by hand",
    "its books are slow",
    "never came up",
    "showed another's",
    "sold out everywhere",
    "sold out in one place",
    "status refused: busy",
    "status refused: down",
    "status refused: expired",
    "taken away",
    "waited long",
    "we were away",
}
UNANSWERED = ("done and not answered", "not done and not answered")  # starts and stops


@pytest.mark.timeout(900)
def test_twenty_days_of_bad_luck_break_no_promise():
    summary, stories = Summary(), []
    for result, took_s in results(SEEDS, DAYS, None, len(os.sched_getaffinity(0))):
        summary.add(result, took_s)
        if result.breaches or not result.same:
            stories.append(told(result, None))
    assert not stories, "\n\n".join(stories[:3])
    assert summary.virtual_s >= 20 * 86400
    assert summary.twice == 2
    # What would be proved by luck that spared us, or by faults that nobody noticed?
    assert set(summary.struck) == {kind.name for kind in KINDS}
    assert summary.moves["forced"] > 100
    assert summary.moves["voluntary"] > 50
    assert summary.moves["planned"] > 10
    assert summary.lives > 100
    assert summary.sessions > 200
    assert summary.launches > 15
    assert summary.spent > 20
    assert summary.misled > 100
    assert {name for name, count in summary.provider.items() if count} >= AT_THE_PROVIDER
    for fate in UNANSWERED:
        assert summary.provider[f"start {fate}"] + summary.provider[f"stop {fate}"] > 0
