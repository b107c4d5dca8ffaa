"""Sessions whose agent falls silent and comes back, and machines that sleep meanwhile."""

from __future__ import annotations

import pytest

from orchestrator.core.events import Challenged
from orchestrator.core.health import Lease, lease
from tests.core.test_sessions import HOUR, world


def test_who_could_not_prove_itself_for_a_while_waits_as_long_as_one_that_was_ill():
    at = world()
    ident = at.serves()
    at.beating(ident, 320)
    assert at.active == "colab", "it is preferred, and was well long enough"
    for second in range(90):  # its agent is dead; its engine still answers whoever asks
        at.tick()
        at.sees("colab")
        at.sees("lab")
        if second > 40:
            at.give(Challenged("colab", ident, ok=False))
    assert lease(at.colab.session, at.at) is Lease.OUT
    assert at.active == "lab"
    back_at = at.at
    while at.active == "lab":
        at.beating(ident, 1)
        assert at.at < back_at + 330
    assert at.at >= back_at + 300


@pytest.mark.parametrize("pending", [False, True])
def test_a_session_ends_when_it_ends_where_it_runs_however_long_this_machine_slept(pending):
    at = world()
    ident = at.registers() if pending else at.serves()
    before = at.colab.pending if pending else at.colab.session
    at.boot_offset += HOUR  # asleep: boot time went on, the steady clock did not
    at.tick()
    after = at.colab.pending if pending else at.colab.session
    assert after.id == ident
    assert after.ends_at == pytest.approx(before.ends_at - HOUR)
    assert after.started_at == pytest.approx(before.started_at - HOUR)
    assert after.lease_s == before.lease_s
    assert at.turns[-1].durable


def test_a_session_that_ended_while_this_machine_slept_is_over_at_once():
    at = world()
    at.serves()
    at.tick(10)
    at.boot_offset += 13 * HOUR
    at.tick(2)
    assert at.colab.session is None
    assert at.active != "colab"


def test_a_step_of_the_wall_clock_moves_no_sessions_end():
    at = world()
    at.serves()
    before = at.colab.session.ends_at
    at.wall_offset += HOUR
    at.tick(2)
    assert at.colab.session.ends_at == before
