"""Sessions whose agent falls silent and comes back, and machines that sleep meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.events import (
    AskControls,
    Challenge,
    ControlsAnswered,
    Drain,
    Pause,
    Prove,
    Resume,
)
from orchestrator.core.health import Lease, lease
from orchestrator.core.model import Verdict
from orchestrator.core.registry import Challenged
from tests.core.test_sessions import HOUR, Notebooks, after, fleet, world


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


# ── silent, and perhaps it is us ────────────────────────────────────────────────────────────────


def suspect(controls=4):
    """One that fell silent, met its challenge, and serves on."""
    at = Notebooks(replace(fleet(remote=True), controls=controls))
    at.up("lab")
    at.tick(40)
    ident = at.serves()
    at.beating(ident, 320)
    for second in range(90):
        at.tick()
        at.sees("colab")
        at.sees("lab")
        if second == 45:
            at.give(Challenged("colab", ident, ok=True))
    assert lease(at.colab.session, at.at) is Lease.SUSPECT
    assert at.active == "colab"
    at.forget()
    return at, ident


def unmet(at, ident):
    """Have a challenge not be met, three seconds after it was asked."""
    while Challenge("colab") not in at.effects:
        at.tick()
    at.tick(3)
    at.give(Challenged("colab", ident, ok=False))


def test_a_challenge_that_was_not_met_moves_nobody_before_it_is_known_that_it_is_not_us():
    at, ident = suspect()
    unmet(at, ident)
    at.tick()
    assert AskControls() in at.effects
    assert at.active == "colab"
    at.give(ControlsAnswered(0, 4, at.at))
    at.tick()
    assert at.active == "lab"


def test_a_challenge_that_was_not_met_while_we_were_cut_off_says_nothing():
    at, ident = suspect()
    unmet(at, ident)
    at.give(ControlsAnswered(4, 4, at.at))
    assert at.fleet.world.isolated_since is not None
    at.tick(20)
    at.forget()
    at.give(ControlsAnswered(0, 4, at.at))
    at.tick()
    assert at.active == "colab"
    assert at.colab.session.unmet_at is None
    assert Challenge("colab") in at.effects, "it is asked again at once"


def test_without_controls_a_challenge_that_was_not_met_counts_at_once():
    at, ident = suspect(controls=0)
    unmet(at, ident)
    assert at.active == "lab"


def test_a_challenge_that_was_under_way_while_this_machine_slept_says_nothing():
    at, ident = suspect(controls=0)
    while Challenge("colab") not in at.effects:
        at.tick()
    at.boot_offset += 30.0
    at.tick()
    at.give(Challenged("colab", ident, ok=False))
    assert at.active == "colab"


# ── registered, and nobody could look ───────────────────────────────────────────────────────────


def test_who_proved_itself_during_a_long_pause_serves_after_it():
    at = world()
    old = at.serves()
    at.give(Pause(None, "me"))
    new = at.registers()
    at.proves(new)
    at.beating(old, 1200)
    at.give(Resume())
    at.forget()
    at.beating(old, 100)
    assert Prove("colab") in at.effects
    at.proves(new)
    assert at.colab.session.id == new


@pytest.mark.parametrize("beside", [False, True])
def test_who_had_not_proved_itself_when_we_went_away_is_asked_at_once_and_has_its_time(beside):
    at = world()
    if beside:
        at.serves()
    new = at.registers()
    at.tick(1)
    later = after(at, HOUR)
    assert later.colab.pending.id == new
    later.tick()
    assert Prove("colab") in later.effects
    later.tick(110)
    assert later.colab.pending.id == new


def test_who_proves_itself_though_its_agent_is_silent_serves():
    at = world()
    at.serves()
    new = at.registers()
    at.tick(120)
    at.proves(new)
    assert lease(at.colab.session, at.at) is Lease.SUSPECT
    at.tick()
    assert at.colab.session.id == new
    assert at.colab.session.challenge_ok


def test_nobody_moves_back_to_who_was_not_looked_at_because_we_were_cut_off():
    at, ident = suspect()
    at.give(Drain("colab"))
    at.tick(150)
    assert at.active == "lab"
    at.beats(ident)
    at.sees("colab", Verdict.FAILED)
    at.sees("colab")  # well again, and five minutes later it would be moved back to
    at.give(Drain("colab", drained=False))
    at.tick(20)
    at.give(ControlsAnswered(4, 4, at.at))
    assert at.fleet.world.isolated_since is not None
    at.tick(400)
    assert at.active == "lab"


# ── asked as soon as we can listen again ────────────────────────────────────────────────────────


def reaches(at, seconds, ident, *, met):
    """Let time pass in which the engine answers, its agent never speaks, and meets or does not."""
    for second in range(1, seconds + 1):
        at.forget()
        at.tick()
        for name in ("colab", "lab"):
            at.sees(name)
        if Challenge("colab") in at.effects:
            at.give(Challenged("colab", ident, ok=met))
        if at.active != "colab":
            return second
    return None


def slept(at):
    at.boot_offset += 900.0
    at.tick()


def was_cut_off(at):
    at.tick(13)
    at.give(ControlsAnswered(4, 4, at.at))
    assert at.fleet.world.isolated_since is not None
    at.tick(300)
    at.give(ControlsAnswered(0, 4, at.at))


AWAY = pytest.mark.parametrize("away", [slept, was_cut_off])


def serving(at, **more):
    ident = at.serves(**more)
    at.beating(ident, 320)
    assert at.active == "colab"
    at.forget()
    return ident


def remote(controls=4):
    at = Notebooks(replace(fleet(remote=True), controls=controls))
    at.up("lab")
    at.tick(40)
    return at


@AWAY
def test_whose_agent_died_while_we_could_not_listen_is_left_within_seconds(away):
    at = remote()
    ident = serving(at)
    away(at)
    assert at.active == "colab"
    left_s = reaches(at, 60, ident, met=False)
    assert left_s is not None
    assert 5 <= left_s <= 20, "not at the first challenge, and long before its lease is over"
    assert lease(at.colab.session, at.at) is Lease.OUT


@AWAY
def test_who_proves_itself_after_we_could_not_listen_serves_on_and_is_not_asked_again_and_again(
    away,
):
    at = remote()
    ident = serving(at)
    away(at)
    at.forget()
    assert reaches(at, 3, ident, met=True) is None
    assert at.colab.session.unheard is None
    for _ in range(30):
        at.forget()
        at.tick()
        at.sees("colab")
        assert Challenge("colab") not in at.effects, "its lease has time left"


@AWAY
def test_who_is_heard_after_we_could_not_listen_is_asked_nothing(away):
    at = remote()
    ident = serving(at)
    away(at)
    at.beats(ident)
    at.forget()
    at.beating(ident, 60)
    assert Challenge("colab") not in at.effects
    assert at.active == "colab"


@AWAY
def test_a_start_grants_a_lease_though_we_could_not_listen_right_before(away):
    at = remote()
    ident = serving(at)
    away(at)
    later = after(at, 60)
    later.sees("colab")
    later.tick(30)
    assert Challenge("colab") not in later.effects
    assert later.colab.session.id == ident
    assert lease(later.colab.session, later.at) is not Lease.OUT


def test_a_challenge_that_is_not_met_by_one_that_was_heard_lately_takes_nothing_off_its_lease():
    at = remote(controls=0)
    ident = serving(at)
    before = at.colab.session.beat_at
    at.tick(45)
    at.give(Challenged("colab", ident, ok=False))
    assert at.colab.session.beat_at == before
