"""What a start takes over, what it looks at anew, and what a reload changes."""

from dataclasses import replace

import pytest

from orchestrator.core.events import (
    NoticesSent,
    Observed,
    Pause,
    PinTo,
    Reconcile,
    Reconfigured,
    Resume,
)
from orchestrator.core.model import Health, NoticeKind, Observation, Source, Verdict
from orchestrator.core.specs import DnsPolicy, HealthPolicy, Target
from tests.core.worlds import DNS, World, backend, config, restarted

BAD = Verdict.FAILED


def kinds(world):
    return [(notice.topic, notice.kind) for notice in world.notices]


# ── incidents stand over a restart ──


def test_a_service_that_is_down_before_and_after_a_restart_is_one_incident():
    world = World(config())
    world.up("a", "b", "c")
    world.down("a", "b", "c")
    again = restarted(world)
    again.lives(40, down="abc")
    assert "service_down:chat" in again.fleet.incidents
    assert not kinds(again)


def test_one_that_refuses_us_before_and_after_a_restart_is_one_incident():
    world = World(config())
    world.up("a", "b", "c")
    for _ in range(3):
        world.sees("a", Verdict.DENIED)
    assert "denied:a" in world.fleet.incidents
    again = restarted(world)
    for _ in range(3):
        again.up("b", "c")
        again.sees("a", Verdict.DENIED)
    again.lives(35, up="bc")
    assert "denied:a" in again.fleet.incidents
    assert not any(topic == "denied" for topic, _ in kinds(again))


def test_a_canary_that_fails_before_and_after_a_restart_is_one_incident():
    policy = HealthPolicy(canary_s=300)
    world = World(config(backend("a", health=policy), backend("b", health=policy)))
    world.up("a", "b")
    for _ in range(2):
        world.sees("a", BAD, source=Source.CANARY)
    assert "canary_failing:a" in world.fleet.incidents
    again = restarted(world)
    again.up("a", "b")
    again.tick(40)
    assert "canary_failing:a" in again.fleet.incidents, "no canary says otherwise yet"
    again.sees("a", source=Source.CANARY)
    assert kinds(again) == [("canary_failing", NoticeKind.CLOSED)]


def test_missing_models_are_remembered_until_somebody_asks_for_the_list():
    world = World(config())
    world.up("a", "b", "c")
    world.sees("a", models=("x",), missing=("y",))
    again = restarted(world)
    again.up("a", "b", "c")
    again.tick(40)
    assert "models_missing:a" in again.fleet.incidents
    assert not kinds(again)


def test_nobody_is_reminded_of_what_may_be_over():
    world = World(config())
    world.up("a", "b", "c")
    world.down("a")
    again = restarted(world, seconds=9000)
    again.tick()
    assert not again.notices
    again.up("a", "b", "c")
    again.tick(2)
    assert ("backend_down", NoticeKind.CLOSED) in kinds(again)
    assert ("backend_down", NoticeKind.REMINDER) not in kinds(again)


def test_a_pause_that_ends_at_the_start_closes_its_incident():
    world = World(config())
    world.up("a", "b", "c")
    world.give(Pause())
    again = restarted(world)
    again.give(Resume())
    again.up("a", "b", "c")
    again.tick(2)
    assert "paused:" not in again.fleet.incidents


def test_a_notice_sent_twice_is_no_matter():
    world = World(config())
    world.up("a", "b", "c")
    [ident] = world.fleet.outbox
    assert world.give(NoticesSent((ident,), "mail")).durable
    assert not world.give(NoticesSent((ident,), "mail")).durable


# ── nobody ever served ──


def test_a_first_start_with_everything_down_says_when_asking_again_may_help():
    world = World(config())
    world.lives(40, down="abc")
    first = world.fleet.services["chat"].retry_at
    assert first is not None
    world.lives(100, down="abc")
    later = world.fleet.services["chat"].retry_at
    assert later is not None
    assert later >= world.at, "it is never in the past"
    assert later > first


def test_a_first_start_with_everything_down_points_the_name_at_the_gateway():
    world = World(config(dns=DNS))
    world.lives(40, down="abc")
    record = world.fleet.services["chat"].publication
    assert record.wanted == DNS.gateway
    assert record.wanted_epoch == world.epoch == 1
    assert Reconcile("chat") in world.effects


def test_before_it_is_known_who_lives_no_name_is_touched():
    world = World(config(dns=DNS))
    world.lives(5, down="a")
    assert world.fleet.services["chat"].publication.wanted == ()


# ── reloads ──


def test_another_gateway_is_published_while_everything_is_down():
    world = World(config(dns=DNS))
    world.up("a", "b", "c")
    world.down("a", "b", "c")
    epoch = world.epoch
    other = DnsPolicy(DNS.name, gateway=(Target("A", "203.0.113.9"),))
    world.give(Reconfigured(config(dns=other)))
    assert world.fleet.services["chat"].publication.wanted == other.gateway
    assert world.epoch > epoch


def test_at_a_new_address_the_verdict_stands_in_doubt_and_the_rest_is_forgotten():
    world = World(config())
    world.up("a", "b", "c")
    world.sees("a", models=("x",), missing=("y",))
    for name in "ab":
        world.sees(name, BAD)
    moved = (backend("a", url="http://other.test"), backend("b"), backend("c"))
    world.give(Reconfigured(config(*moved)))
    state = world.fleet.backends["a"]
    assert (state.health, state.doubt, state.fails, state.missing) == (Health.UP, True, 0, ())
    assert state.ok_since is None
    assert world.fleet.backends["b"].fails == 1, "the others are what they were"
    assert world.active == "a"


def test_refusals_of_the_old_address_are_not_held_against_the_new_one():
    world = World(config())
    world.up("a", "b", "c")
    for _ in range(3):
        world.sees("a", Verdict.DENIED)
    moved = (backend("a", url="http://other.test"), backend("b"), backend("c"))
    world.give(Reconfigured(config(*moved)))
    assert not world.fleet.backends["a"].denied


def test_a_hard_pin_to_one_that_cannot_be_assigned_any_more_ends():
    world = World(config())
    world.up("a", "b", "c")
    world.give(PinTo("chat", "c", hard=True))
    less = (backend("a"), backend("b"), backend("c", assignable=False))
    world.give(Reconfigured(config(*less)))
    assert world.active == "a"
    assert world.fleet.services["chat"].pin is None


# ── clocks ──


@pytest.mark.parametrize("waking", ["tick", "probe"])
def test_a_gap_is_told_once_whoever_notices_it(waking):
    world = World(config())
    world.up("a", "b", "c")
    world.at += 60
    if waking == "probe":
        world.give(Observed(Observation("a", Source.PROBE, BAD), world.at - 60))
    for _ in range(5):
        world.tick()
    assert [entry.action for entry in world.entries].count("gap") == 1


def test_a_clock_that_stands_still_or_goes_back_a_little_hurts_nobody():
    world = World(config())
    world.up("a", "b", "c")
    for step_s in (0, 0, -0.5, 0.5, -2, 3):
        world.at += step_s
        world.tick(0)
        world.sees("a")
    assert world.active == "a"


def test_a_step_of_the_wall_clock_does_not_end_a_pause():
    world = World(config())
    world.up("a", "b", "c")
    world.give(Pause(for_s=600))
    world.wall_offset = 7200
    world.tick(2)
    assert world.fleet.world.paused_since is not None
    world.tick(600)
    assert world.fleet.world.paused_since is None


def test_flapping_calms_down_hour_by_hour_and_the_better_one_serves_unasked():
    world = World(config(failback_after_s=300))
    world.up("a", "b", "c")
    for _ in range(6):
        world.down("a")
        world.up("a")
    assert world.fleet.backends["a"].flap_level == 4
    world.answering = frozenset("a")
    waited = 0
    while world.active != "a":
        world.tick(60)
        waited += 60
        assert waited <= 3600 + 120, "after an hour the wait of 80 min is one of 40, long over"
    assert waited > 3500


def test_a_reload_that_changes_nothing_changes_nobody():
    world = World(config())
    world.up("a", "b", "c")
    before = dict(world.fleet.backends)
    turn = world.give(Reconfigured(replace(config())))
    assert world.fleet.backends == before
    assert world.active == "a"
    assert not turn.entries, "nothing is in force that was not before"


def test_a_service_that_is_removed_and_comes_back_goes_on_with_its_epochs():
    world = World(config())
    world.up("a", "b", "c")
    world.down("a")
    epoch = world.epoch
    world.give(Reconfigured(replace(config(), services={})))
    world.give(Reconfigured(config()))
    world.lives(3, up="abc")
    assert world.active is not None
    assert world.epoch > epoch
