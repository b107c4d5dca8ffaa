"""Rules that matter seldom, and then much."""

from dataclasses import replace

import pytest

from orchestrator.core.choice import Candidate, choose
from orchestrator.core.events import (
    Acknowledge,
    ControlsAnswered,
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    Failover,
    Mute,
    Pause,
    PinTo,
    Reconcile,
    Reconfigured,
    Switchover,
    SyncDns,
    Traffic,
)
from orchestrator.core.lives import Session
from orchestrator.core.model import (
    BackendState,
    DnsTrouble,
    Health,
    NoticeKind,
    Pin,
    Source,
    Verdict,
)
from orchestrator.core.registry import Heartbeat
from orchestrator.core.specs import HealthPolicy, Target
from tests.core.worlds import DNS, START, World, backend, config, restarted

BAD = Verdict.FAILED
CANARIES = HealthPolicy(canary_s=300)
FAR = tuple(backend(name, remote=True) for name in "ab")


def started(*backends, **more):
    world = World(config(*backends, **more))
    world.up(*world.fleet.config.backends)
    world.forget()
    return world


def isolated(*backends, **more):
    """Start, and be cut off: two controls do not answer and nothing remote has for long."""
    world = started(*backends, controls=4, **more)
    world.tick(20)
    far = next(one.name for one in world.fleet.config.backends.values() if one.remote)
    world.sees(far, BAD)
    world.give(ControlsAnswered(4, 4, world.at))
    assert world.fleet.world.isolated_since is not None
    return world


# ── health ──


def test_one_that_comes_back_starts_with_no_canary_held_against_it():
    world = started(backend("a", health=CANARIES), backend("b", health=CANARIES))
    world.sees("a", BAD, source=Source.CANARY)
    world.down("a")
    world.up("a")
    world.sees("a", BAD, source=Source.CANARY)
    assert world.fleet.backends["a"].health is Health.UP


def test_a_failed_canary_breaks_the_health_that_failback_asks_for_even_in_doubt():
    world = started(backend("a", health=CANARIES), backend("b", health=CANARIES))
    world.down("a")
    world.up("a")
    world.at += 60
    world.tick(0)  # a gap: everybody is in doubt
    world.sees("a", BAD, source=Source.CANARY)
    assert world.fleet.backends["a"].ok_since is None


def test_a_request_that_failed_and_then_went_well_on_the_same_backend_says_nothing_good():
    world = started()
    world.sees("a", BAD)
    world.give(Traffic(("a", "b"), "a"))
    assert world.fleet.backends["a"].fails == 1


# ── choosing ──


def test_a_pin_to_one_that_is_ill_does_not_draw_a_healthy_service_to_it():
    pin = Pin("b", 2000.0)
    ill = Candidate("b", Health.DEGRADED, ok_since=0)
    assert choose([Candidate("a", Health.UP, ok_since=0), ill], "a", 1000.0, pin=pin).to == "a"


def test_a_hold_does_not_keep_the_pinned_one_away():
    pair = [Candidate("a", Health.UP, ok_since=0), Candidate("b", Health.UP, ok_since=0)]
    found = choose(pair, "b", 1000.0, pin=Pin("a", 2000.0), hold_until=1500.0)
    assert found.to == "a"


def test_a_pin_ends_the_hold_of_an_earlier_failover():
    world = started()
    world.give(Failover("chat", "c"))
    world.give(PinTo("chat", "b", for_s=60))
    world.lives(400, up="abc")
    assert world.active == "a"


def test_a_failover_elsewhere_ends_a_pin():
    world = started()
    world.give(PinTo("chat", "b", hard=True))
    world.give(Failover("chat", "c"))
    world.lives(10, up="abc")
    assert world.active == "c"


def test_a_spent_quota_keeps_nobody_serving():
    world = started()
    world.fleet.backends["a"] = replace(world.fleet.backends["a"], exhausted_until=world.at + 100)
    world.give(Reconfigured(world.fleet.config))
    assert world.active == "b"


# ── sessions ──


def notebooks(**more):
    stored = {
        name: BackendState(name, session=Session(f"s-{name}", START, START, **more))
        for name in "ab"
    }
    two = [backend(name, registers=True) for name in "ab"]
    world = World(config(*two), backends=stored)
    world.up("a", "b")
    return world


def test_a_session_past_its_end_is_out_even_while_our_ingress_is_lost():
    world = notebooks(ends_at=START + 300)
    world.lives(100, up="ab")
    assert world.fleet.world.inbound_lost_since is not None
    assert world.active == "a"
    world.lives(210, up="ab")
    assert world.active is None


def test_leases_stand_still_while_our_ingress_is_lost():
    world = notebooks()
    world.lives(500, up="ab")
    world.give(Heartbeat("a", "s-a", ready=True))
    world.lives(10, up="ab")
    assert world.active == "a"
    assert world.fleet.backends["b"].session.beat_at > START + 400


def test_lease_time_does_not_run_while_we_do_not():
    world = notebooks()
    world.tick(10)
    world.at += 300
    world.tick(0)
    silent_s = world.at - world.fleet.backends["a"].session.beat_at
    assert silent_s == pytest.approx(11)


def test_no_warning_of_an_end_that_has_passed():
    world = notebooks(ends_at=START + 60)
    world.tick(5)
    assert "session_ending:a" in world.fleet.incidents
    world.tick(60)
    assert "session_ending:a" not in world.fleet.incidents


# ── moving in good order ──


def test_an_old_canary_proves_nothing():
    world = started(backend("a", health=CANARIES), backend("b", health=CANARIES))
    world.sees("b", source=Source.CANARY)
    world.tick()
    world.give(Switchover("chat", "b", 0))
    world.tick(5)
    assert world.active == "a"


# ── starts ──


def test_the_stored_assignment_stands_only_after_its_record_was_read():
    world = started(backend("a", targets=(Target("A", "198.51.100.1"),)), backend("b"), dns=DNS)
    record = world.fleet.services["chat"].publication
    again = restarted(world)
    again.up("a", "b")
    assert not again.fleet.services["chat"].settled
    again.give(DnsConfirmed("chat", record.wanted, record.wanted_epoch))
    assert again.fleet.services["chat"].settled


def test_an_unreadable_record_does_not_keep_a_start_waiting():
    world = started(backend("a", targets=(Target("A", "198.51.100.1"),)), backend("b"), dns=DNS)
    again = restarted(world)
    again.lives(32, up="ab")
    assert again.fleet.services["chat"].settled


def test_a_cool_down_is_kept_over_a_restart():
    world = started()
    world.sees("a", Verdict.BUSY, retry_after_s=600)
    again = restarted(world)
    assert again.fleet.backends["a"].cooldown_until == world.fleet.backends["a"].cooldown_until


def test_a_changed_record_is_not_published_before_it_is_known_who_lives():
    world = started(backend("a", targets=(Target("A", "198.51.100.1"),)), backend("b"), dns=DNS)
    fleet = world.fleet
    changed = config(backend("a", targets=(Target("A", "198.51.100.2"),)), backend("b"), dns=DNS)
    again = World(changed, world.at + 5, backends=fleet.backends, services=fleet.services)
    again.sees("b")
    again.sees("b")
    again.tick(11)
    assert not any(isinstance(effect, Reconcile) for effect in again.effects)
    again.up("a")
    again.tick()
    wanted = again.fleet.services["chat"].publication.wanted
    assert wanted == (Target("A", "198.51.100.2"),)


# ── is it us? ──


def test_the_end_of_isolation_leaves_local_ones_alone():
    world = isolated(backend("near"), *FAR)
    before = world.fleet.backends["near"]
    world.sees("near", BAD)
    failed = world.fleet.backends["near"]
    assert failed is not before
    world.give(ControlsAnswered(0, 4, world.at))
    assert world.fleet.backends["near"] == failed


def test_a_local_answer_does_not_end_isolation():
    world = isolated(backend("near"), *FAR)
    world.sees("near", models=("x",), missing=("y",))
    assert world.fleet.world.isolated_since is not None


# ── notices ──


def test_isolation_explains_a_dns_api_out_of_reach():
    world = isolated(*FAR, dns=DNS)
    world.give(DnsTroubled("chat", DnsTrouble.UNREACHABLE, "timed out"))
    world.tick(400)
    assert "dns_unreachable:chat" not in world.fleet.incidents


def test_isolation_explains_a_service_that_is_down():
    world = isolated(backend("near"), replace(FAR[0], assignable=False))
    world.down("near")
    assert world.active is None
    assert "service_down:chat" not in world.fleet.incidents
    world.give(ControlsAnswered(0, 4, world.at))
    assert "service_down:chat" in world.fleet.incidents


def test_isolation_explains_a_remote_backend_that_is_down():
    world = started(backend("near"), FAR[0], FAR[1], controls=4)
    world.sees("b", models=("x",))
    for _ in range(3):
        world.sees("a", BAD)
    assert "backend_down:a" in world.fleet.incidents
    world.tick(20)
    world.sees("b", BAD)
    world.give(ControlsAnswered(4, 4, world.at))
    world.forget()
    world.tick(7300)
    assert {notice.topic for notice in world.notices} == {"isolated"}


def test_no_restart_is_asked_for_of_one_the_operator_drained():
    url = "https://colab.example/notebook"
    world = started(backend("a", restart_url=url), backend("b", tier="paid"))
    world.fleet.backends["a"] = replace(world.fleet.backends["a"], drained=True)
    world.down("a")
    assert "restart_needed:chat" not in world.fleet.incidents


def test_a_muted_incident_closes_in_silence():
    world = started()
    world.down("a")
    world.give(Mute("1"))
    world.give(Acknowledge("1", by="me"))
    world.up("a")
    assert "backend_down:a" not in world.fleet.incidents
    told = {notice.kind for notice in world.notices if notice.topic == "backend_down"}
    assert told == {NoticeKind.OPENED}


# ── publishing ──


def published():
    return started(backend("a", targets=(Target("A", "198.51.100.1"),)), backend("b"), dns=DNS)


def test_patience_with_a_dns_api_is_counted_from_its_first_failure():
    world = published()
    for _ in range(310):
        world.give(DnsTroubled("chat", DnsTrouble.UNREACHABLE, "timed out"))
        world.lives(1, up="ab")
    assert "dns_unreachable:chat" in world.fleet.incidents


def test_no_epoch_is_raised_while_paused():
    world = published()
    world.give(Pause())
    epoch = world.epoch
    world.give(DnsTroubled("chat", DnsTrouble.NEWER, "epoch 40", epoch=40, outbid=True))
    assert world.epoch == epoch


@pytest.mark.parametrize(
    ("trouble", "kept"), [(DnsTrouble.UNREACHABLE, True), (DnsTrouble.FOREIGN, False)]
)
def test_the_order_to_adopt_outlives_an_outage_but_not_a_refusal(trouble, kept):
    world = published()
    world.give(SyncDns("chat"))
    world.give(DnsTroubled("chat", trouble, "x"))
    assert world.fleet.services["chat"].publication.adopt is kept


def test_corrections_are_forgotten_after_a_day():
    world = published()
    record = world.fleet.services["chat"].publication
    again = DnsAttempting("chat", record.wanted, record.wanted_epoch, correction=True)
    world.give(again)
    world.at += 86401
    world.give(again)
    assert world.fleet.services["chat"].publication.corrections == (world.at,)


# ── more of each ──


@pytest.mark.parametrize("serving", ["a", "b"])
def test_between_two_that_are_equally_ill_nobody_moves(serving):
    ill = [Candidate(name, Health.DEGRADED) for name in "ab"]
    assert choose(ill, serving, 1000.0).to == serving
    leaving = [Candidate(name, Health.UP, drained=True) for name in "ab"]
    assert choose(leaving, serving, 1000.0).to == serving


def test_one_whose_canaries_were_switched_off_is_up_again_at_its_next_good_answer():
    world = started(backend("a", health=CANARIES), backend("b", health=CANARIES))
    for _ in range(2):
        world.sees("a", BAD, source=Source.CANARY)
    world.give(Reconfigured(config(backend("a"), backend("b"))))
    assert world.fleet.backends["a"].health is Health.DEGRADED
    world.sees("a")
    assert world.fleet.backends["a"].health is Health.UP
    assert "canary_failing:a" not in world.fleet.incidents


def test_a_failure_while_isolated_is_doubt_and_no_more():
    world = isolated(*FAR)
    world.sees("b", BAD)
    state = world.fleet.backends["b"]
    assert (state.doubt, state.ok_since, state.fails) == (True, None, 0)


def test_isolation_explains_what_it_keeps_us_from_putting_right():
    world = started(*FAR, dns=DNS, controls=4)
    world.give(DnsTroubled("chat", DnsTrouble.FOREIGN, "A 192.0.2.1"))
    world.tick(20)
    world.sees("a", BAD)
    world.give(ControlsAnswered(4, 4, world.at))
    world.forget()
    world.tick(7300)
    assert {notice.topic for notice in world.notices} == {"isolated"}


def test_a_plan_that_is_due_at_a_start_waits_until_it_is_known_who_lives():
    world = started()
    world.down("a", "b", "c")
    world.give(Switchover("chat", "b", world.at + 60))
    again = restarted(world, 120)
    again.tick(3)
    again.up("b")
    again.lives(3, up="b", down="ac")
    assert again.active == "b"
    assert not any(notice.topic == "rotation_failed" for notice in again.notices)
