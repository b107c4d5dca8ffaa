"""The rules where they meet: failover, failback, pins, pauses, drains, planned moves, restarts."""

import copy
from dataclasses import replace

import pytest

from orchestrator.core.events import (
    CanarySoon,
    Check,
    CheckName,
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    Drain,
    Failover,
    Flagged,
    NameChecked,
    Observed,
    Pause,
    PinTo,
    ProbeSoon,
    Reconcile,
    Reconfigured,
    Resume,
    Switchover,
    SyncDns,
    Tick,
    Traffic,
    Unpin,
)
from orchestrator.core.fleet import step
from orchestrator.core.model import (
    DnsTrouble,
    Health,
    Now,
    Observation,
    Phase,
    Pin,
    Source,
    Verdict,
)
from orchestrator.core.specs import DnsPolicy, HealthPolicy, Target, Tier
from tests.core.worlds import DNS, START, World, backend, config, drained, restarted

BAD = Verdict.FAILED


@pytest.fixture
def world():
    found = World(config())
    found.up("a", "b", "c")
    assert found.active == "a"
    found.forget()
    return found


# ── failover ──


def test_a_dead_backend_is_left_at_the_third_failure_and_the_log_says_why(world):
    world.sees("a", BAD, detail="connection refused")
    world.sees("a", BAD, detail="connection refused")
    assert world.active == "a"
    turn = world.sees("a", BAD, detail="connection refused")
    assert world.active == "b"
    assert turn.durable, "what moves is committed before it is carried out"
    [moved] = [entry for entry in turn.entries if entry.action == "assigned"]
    assert "a is down: connection refused" in moved.text
    assert "b" in moved.text


def test_each_assignment_has_a_higher_epoch_and_its_own_notice(world):
    epochs = [world.epoch]
    for name in "abc":
        world.down(name)
        epochs.append(world.epoch)
    assert epochs == sorted(set(epochs))
    moves = [notice.id for notice in world.notices if notice.topic == "moved"]
    assert len(moves) == len(set(moves)) == 2, "the last one down is told as the service being down"
    assert world.active is None


def test_failback_waits_for_unbroken_health(world):
    world.down("a")
    world.lives(299, up="abc")
    assert world.active == "b"
    world.sees("a", BAD)
    world.lives(299, up="abc")
    assert world.active == "b", "one failure starts the wait anew"
    world.lives(10, up="abc")
    assert world.active == "a"


def test_a_third_fall_within_the_hour_doubles_the_wait_and_opens_one_incident(world):
    for _ in range(3):
        world.down("a")
        world.lives(310, up="abc")
    assert world.active == "b", "the wait is ten minutes now"
    assert "flapping:a" in world.fleet.incidents
    world.lives(300, up="abc")
    assert world.active in "ab"


def test_voluntary_moves_are_at_most_two_an_hour(world):
    moves = []
    last = world.active
    for _ in range(6):
        world.down("a")
        world.lives(320, up="abc")
        if world.active != last and world.active == "a":
            moves.append(world.at)
        last = world.active
    voluntary = world.fleet.services["chat"].moves
    assert len([at for at in voluntary if world.at - at < 3600]) <= 2


def test_a_removed_probe_result_is_nobodys_business(world):
    assert (
        step(world.fleet, Observed(Observation("zz", Source.PROBE, BAD)), world.now).backends == {}
    )


def test_step_never_touches_the_fleet(world):
    before = copy.deepcopy(world.fleet)
    for event in (
        Observed(Observation("a", Source.PROBE, BAD), world.at),
        Tick(world.at),
        Failover("chat"),
        PinTo("chat", "b"),
        Pause(60),
        Drain("a"),
        Traffic(("a",), "b"),
        Reconfigured(config(backend("b"))),
    ):
        step(world.fleet, event, Now(world.at + 1, world.at + 1))
        assert world.fleet == before, event


def test_a_good_answer_of_a_healthy_backend_is_the_empty_turn(world):
    turn = world.sees("a")
    assert turn == type(turn)()


# ── commands ──


def test_a_manual_failover_holds_for_an_hour(world):
    answer = world.give(Failover("chat", "c")).answer
    assert answer is not None
    assert answer.problem is None
    assert world.active == "c"
    world.lives(3590, up="abc")
    assert world.active == "c"
    world.lives(20, up="abc")
    assert world.active == "a"


def test_a_failover_without_a_target_goes_to_the_best_other(world):
    world.down("b")
    world.give(Failover("chat"))
    assert world.active == "c"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (Failover("chatt"), "unknown"),
        (Failover("chat", "zz"), "unknown"),
        (Failover("chat", "c"), "conflict"),
        (Switchover("chat", "c", 0), "conflict"),
        (PinTo("chat", "zz"), "unknown"),
        (Unpin("zz"), "unknown"),
        (Drain("zz"), "unknown"),
        (Check("zz"), "unknown"),
        (SyncDns("chat"), "conflict"),
    ],
)
def test_a_command_that_cannot_be_done_says_so_and_changes_nothing(world, command, problem):
    world.down("c")
    before = copy.deepcopy(world.fleet)
    turn = world.give(command)
    assert turn.answer is not None
    assert turn.answer.problem == problem
    assert world.fleet == before


def test_a_misspelt_name_is_answered_with_the_nearest(world):
    answer = world.give(Failover("chatt")).answer
    assert answer is not None
    assert "did you mean `chat`" in answer.text


def test_a_pin_is_left_when_dead_returned_to_and_ends_by_itself(world):
    world.give(PinTo("chat", "c", for_s=4000))
    assert world.active == "c"
    world.down("c")
    assert world.active == "a"
    world.lives(310, up="abc")
    assert world.active == "c"
    world.lives(4000, up="abc")
    assert world.active == "a"
    assert world.fleet.services["chat"].pin is None


def test_a_hard_pin_serves_even_dead_and_the_incident_says_so(world):
    world.give(PinTo("chat", "c", hard=True))
    world.down("c")
    assert world.active == "c"
    assert "hard_pin_dead:chat" in world.fleet.incidents
    world.give(Unpin("chat"))
    assert world.active == "a"
    assert "hard_pin_dead:chat" not in world.fleet.incidents


def test_a_hard_pin_ends_by_itself_too(world):
    world.give(PinTo("chat", "c", for_s=600, hard=True))
    world.down("c")
    world.lives(598, up="ab", down="c")
    assert world.active == "c"
    world.lives(2, up="ab", down="c")
    assert world.active == "a"
    assert world.fleet.services["chat"].pin is None
    assert "hard_pin_dead:chat" not in world.fleet.incidents


def test_while_paused_nothing_moves_and_the_log_says_what_would_have(world):
    world.give(Pause(for_s=600, by="me"))
    world.forget()
    world.down("a")
    assert world.active == "a"
    assert not any(isinstance(effect, Reconcile) for effect in world.effects)
    assert "would move to b" in world.fleet.services["chat"].would
    assert any(entry.action == "would_move" for entry in world.entries)
    assert "paused_dead:chat" in world.fleet.incidents
    world.lives(600, up="bc", down="a")
    assert world.active == "b", "a pause ends by itself"


def test_resume_does_at_once_what_the_pause_held_back(world):
    world.give(Pause())
    world.down("a")
    world.give(Resume())
    assert world.active == "b"


def test_a_failover_while_paused_is_refused(world):
    world.give(Pause())
    answer = world.give(Failover("chat")).answer
    assert answer is not None
    assert answer.problem == "conflict"


def test_in_the_shadow_nothing_is_ever_published():
    world = World(config(backend("a"), backend("b"), dns=DNS, shadow=True))
    world.up("a", "b")
    world.down("a")
    assert world.active is None
    assert world.epoch == 0
    assert not any(isinstance(effect, Reconcile) for effect in world.effects)
    assert any(entry.action == "would_move" for entry in world.entries)


# ── planned moves ──


def test_a_drained_backend_is_left_once_its_successor_is_proven(world):
    world.give(Drain("a"))
    assert world.active == "b", "without canaries, being up is the proof"
    turn = world.fleet.services["chat"].rotation
    assert turn is not None
    assert turn.phase is Phase.VERIFY


def test_nobody_is_drained_before_a_successor_is_published(world):
    world.down("b", "c")
    world.give(Drain("a"))
    world.lives(60, up="a", down="bc")
    assert world.active == "a", "the last one serves to its end"
    world.lives(5, up="ab")
    assert world.active == "b"


def with_canaries():
    policy = HealthPolicy(canary_s=300)
    world = World(config(*(backend(name, health=policy) for name in "ab"), dns=DNS))
    world.up("a", "b")
    world.forget()
    return world


def test_a_switchover_is_made_before_the_break():
    world = with_canaries()
    world.give(Switchover("chat", "b", 0))
    assert world.active == "a", "first the next one proves itself"
    assert CanarySoon("b") in world.effects
    world.tick()
    world.sees("b", source=Source.CANARY)
    world.tick()
    assert world.active == "b"
    assert CheckName("chat") in world.effects
    world.give(NameChecked("chat", ok=True))
    world.lives(61, up="ab")
    rotation = world.fleet.services["chat"].rotation
    assert rotation is not None
    assert rotation.phase is Phase.TTL, "resolvers may still hold the old answer"
    world.lives(301, up="ab")
    assert not drained(world, "a")
    world.lives(121, up="ab")
    assert drained(world, "a")
    assert world.fleet.services["chat"].rotation is None


def test_a_switchover_is_given_up_when_the_next_one_dies():
    world = with_canaries()
    world.give(Switchover("chat", "b", 0))
    world.down("b")
    assert world.active == "a"
    assert world.fleet.services["chat"].rotation is None
    assert any(notice.topic == "rotation_failed" for notice in world.notices)


def test_a_switchover_whose_next_one_dies_after_it_was_published_goes_back():
    world = with_canaries()
    world.give(Switchover("chat", "b", 0))
    world.tick()
    world.sees("b", source=Source.CANARY)
    world.tick()
    assert world.active == "b"
    world.down("b")
    assert world.active == "a"


def test_a_name_that_never_answers_well_ends_the_switchover():
    world = with_canaries()
    world.give(Switchover("chat", "b", 0))
    world.tick()
    world.sees("b", source=Source.CANARY)
    world.tick()
    for _ in range(310):
        world.give(NameChecked("chat", ok=False))
        world.lives(1, up="ab")
    assert world.fleet.services["chat"].rotation is None


def test_a_switchover_can_be_planned_for_later():
    world = with_canaries()
    world.give(Switchover("chat", "b", world.at + 100))
    world.lives(99, up="ab")
    assert world.fleet.services["chat"].rotation is None
    world.lives(3, up="ab")
    assert world.fleet.services["chat"].rotation is not None


# ── start ──


def test_after_a_restart_the_stored_assignment_stands_once_a_probe_confirms_it(world):
    world.down("a")
    again = restarted(world)
    assert again.active == "b"
    assert not again.fleet.services["chat"].settled
    epoch = again.epoch
    for name in "bac":
        again.sees(name)
    again.tick()
    assert again.active == "b"
    assert again.fleet.services["chat"].settled
    assert again.epoch == epoch


def test_after_a_restart_a_dead_incumbent_is_left(world):
    again = restarted(world)
    again.up("b", "c")
    again.down("a")
    assert again.active == "b"


def test_after_a_restart_flap_counters_pins_pauses_and_drains_are_remembered(world):
    for _ in range(3):
        world.down("a")
        world.up("a")
    world.give(PinTo("chat", "c"))
    world.give(Drain("b"))
    world.give(Pause())
    again = restarted(world)
    assert again.fleet.backends["a"].flap_level == world.fleet.backends["a"].flap_level > 0
    assert again.fleet.services["chat"].pin == world.fleet.services["chat"].pin
    assert again.fleet.backends["b"].drained
    assert again.fleet.world.paused_since is not None


def test_at_a_first_start_the_preferred_one_gets_a_moment_to_answer():
    world = World(config())
    world.up("c")
    assert world.active is None
    world.up("b")
    assert world.active is None
    world.up("a")
    assert world.active == "a"


def test_at_a_first_start_a_silent_preferred_one_is_not_waited_for_long():
    world = World(config())
    world.lives(12, up="b")
    assert world.active == "b"


def test_everything_down_at_a_first_start_is_an_incident():
    world = World(config())
    world.lives(40, down="abc")
    assert world.active is None
    assert "service_down:chat" in world.fleet.incidents
    assert "backend_down:a" not in world.fleet.incidents, "the bigger incident explains it"


# ── time ──


def test_after_not_running_for_a_while_everything_is_doubted_but_nothing_moved(world):
    world.at += 60
    late = Observation("a", Source.PROBE, BAD, "timed out")
    for _ in range(5):
        world.give(Observed(late, START))
    assert world.active == "a"
    assert world.fleet.backends["a"].fails == 0, "it timed out while we slept"
    assert {ProbeSoon(name) for name in "abc"} <= set(world.effects)
    assert all(state.doubt for state in world.fleet.backends.values())


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_step_of_the_wall_clock_moves_nobody(world, jump_s):
    world.wall_offset = jump_s
    world.tick()
    assert any(entry.action == "gap" for entry in world.entries)
    world.lives(30, up="abc")
    assert world.active == "a"
    assert len([entry for entry in world.entries if entry.action == "gap"]) == 1


def test_a_suspend_is_noticed_by_boot_time(world):
    world.boot_offset = 90
    world.tick()
    assert any(entry.action == "gap" for entry in world.entries)


# ── traffic ──


def test_a_request_that_fails_on_two_backends_blames_neither(world):
    before = dict(world.fleet.backends)
    world.give(Traffic(("a", "b"), None))
    world.give(Traffic(("a", "b"), "c"))
    assert world.fleet.backends["a"] == before["a"]
    assert world.fleet.backends["b"] == before["b"]


def test_a_failed_request_starts_fast_probing(world):
    world.give(Traffic(("a",), "b", "connection reset"))
    assert ProbeSoon("a") in world.effects
    assert world.fleet.backends["a"].doubt
    assert world.active == "a"


# ── money ──


def test_api_backends_are_probed_but_not_assigned_without_a_gateway():
    world = World(config(backend("a"), backend("groq", tier=Tier.PAID, assignable=False)))
    world.up("a", "groq")
    world.down("a")
    assert world.active is None
    assert world.fleet.backends["groq"].health is Health.UP


def test_a_cool_down_says_when_asking_again_makes_sense():
    world = World(config(backend("a")))
    world.up("a")
    world.sees("a", Verdict.BUSY, retry_after_s=100)
    assert world.active is None
    assert world.fleet.services["chat"].retry_at is not None
    assert world.fleet.services["chat"].retry_at <= world.at + 100
    world.lives(99)
    assert world.active is None
    world.lives(3)
    assert world.active == "a"


# ── configuration ──


def test_a_backend_that_the_new_configuration_no_longer_has_is_left(world):
    world.give(Reconfigured(config(backend("b"), backend("c"))))
    assert world.active == "b"
    assert "a" not in world.fleet.backends
    assert "no longer" in world.fleet.services["chat"].reason


def test_a_new_backend_is_looked_at_at_once(world):
    more = (backend("n"), backend("a"), backend("b"), backend("c"))
    world.give(Reconfigured(config(*more)))
    assert ProbeSoon("n") in world.effects
    assert world.active == "a"


def test_a_service_that_is_gone_takes_its_incidents_along(world):
    world.down("a", "b", "c")
    assert "service_down:chat" in world.fleet.incidents
    world.give(Reconfigured(replace(config(), services={})))
    assert "service_down:chat" not in world.fleet.incidents


# ── publishing ──


def published():
    targets = (Target("CNAME", "a.example.net"),)
    world = World(config(backend("a", targets=targets), backend("b"), dns=DNS))
    world.up("a", "b")
    return world


def test_an_assignment_and_what_should_be_published_are_one_turn():
    world = published()
    record = world.fleet.services["chat"].publication
    assert record.wanted == (Target("CNAME", "a.example.net"),)
    assert record.wanted_epoch == world.epoch
    turn = next(turn for turn in world.turns if Reconcile("chat") in turn.effects)
    assert turn.durable
    assert turn.services["chat"].publication == record


def test_a_backend_without_a_target_is_published_as_the_gateway():
    world = published()
    world.down("a")
    assert world.fleet.services["chat"].publication.wanted == DNS.gateway


def test_with_everything_down_the_name_points_at_the_gateway():
    world = published()
    world.down("a", "b")
    assert world.active is None
    assert world.fleet.services["chat"].publication.wanted == DNS.gateway


def test_with_everything_down_and_no_gateway_the_name_keeps_its_record():
    targets = (Target("CNAME", "a.example.net"),)
    world = World(config(backend("a", targets=targets), dns=DnsPolicy("ai.example.org")))
    world.up("a")
    world.down("a")
    assert world.active is None
    record = world.fleet.services["chat"].publication
    assert (record.wanted, record.wanted_epoch) == (targets, world.epoch)


def test_the_attempt_is_remembered_before_the_write_and_the_read_confirms_it():
    world = published()
    record = world.fleet.services["chat"].publication
    assert world.give(DnsAttempting("chat", record.wanted, record.wanted_epoch)).durable
    turn = world.give(DnsConfirmed("chat", record.wanted, record.wanted_epoch, ("r1",)))
    assert turn.durable
    again = world.give(DnsConfirmed("chat", record.wanted, record.wanted_epoch, ("r1",)))
    assert not again.durable, "reading the same again is no news"
    assert world.fleet.services["chat"].publication.record_ids == ("r1",)


def test_a_foreign_record_is_an_incident_until_it_is_adopted():
    world = published()
    world.give(DnsTroubled("chat", DnsTrouble.FOREIGN, "A 192.0.2.1"))
    assert "dns_foreign:chat" in world.fleet.incidents
    world.give(SyncDns("chat"))
    record = world.fleet.services["chat"].publication
    assert record.adopt
    world.give(DnsConfirmed("chat", record.wanted, record.wanted_epoch, ("r1",)))
    assert not world.fleet.services["chat"].publication.adopt
    assert "dns_foreign:chat" not in world.fleet.incidents


def test_our_own_higher_epoch_is_gone_above():
    world = published()
    world.give(DnsTroubled("chat", DnsTrouble.NEWER, "epoch 40", epoch=40, outbid=True))
    assert world.epoch == 41
    assert world.fleet.services["chat"].publication.wanted_epoch == 41


def test_the_next_epoch_goes_above_the_records_own():
    world = published()
    state = world.fleet.services["chat"]
    record = replace(state.publication, confirmed_epoch=40, wanted_epoch=41)
    world.fleet.services["chat"] = replace(state, publication=record)
    world.down(world.active)
    assert world.epoch == 42
    assert world.fleet.services["chat"].publication.wanted_epoch == 42


def test_who_was_rebuilt_elsewhere_only_observes_from_then_on():
    world = published()
    epoch = world.epoch
    event = DnsTroubled("chat", DnsTrouble.NEWER, "rebuilt", epoch=1_000_000, replaced=True)
    world.give(event)
    assert world.fleet.world.paused_since is not None
    assert world.fleet.world.paused_until is None
    assert world.epoch == epoch
    assert "dns_newer:chat" in world.fleet.incidents
    since = world.fleet.world.paused_since
    world.give(event)
    assert world.fleet.world.paused_since == since


def test_who_finds_a_successor_in_the_backups_observes_until_the_operator_resumes():
    world = published()
    world.give(Flagged("replaced", "aion-state", "dump 7 is another machine's"))
    assert world.fleet.world.paused_since is not None
    assert "replaced:aion-state" in world.fleet.incidents
    world.give(Resume())
    world.give(Flagged("replaced", "aion-state", "dump 8 is another machine's"))
    assert world.fleet.world.paused_since is None  # told once; the operator knows better
    world.give(Flagged("replaced", "aion-state", ""))
    assert "replaced:aion-state" not in world.fleet.incidents


def test_a_higher_epoch_of_somebody_else_is_respected():
    world = published()
    epoch = world.epoch
    world.give(DnsTroubled("chat", DnsTrouble.NEWER, "by aion other", epoch=40))
    assert world.epoch == epoch
    assert "dns_newer:chat" in world.fleet.incidents


def test_a_dns_api_out_of_reach_is_told_only_after_five_minutes():
    world = published()
    world.give(DnsTroubled("chat", DnsTrouble.UNREACHABLE, "timed out"))
    world.lives(290, up="ab")
    assert "dns_unreachable:chat" not in world.fleet.incidents
    world.lives(20, up="ab")
    assert "dns_unreachable:chat" in world.fleet.incidents


def test_a_name_configured_while_we_were_away_is_published_once_everybody_was_looked_at():
    world = published()
    stored = world.fleet.services["chat"]
    moved = (Target("A", "203.0.113.77"),)
    specs = [backend(name, targets=moved) for name in "ab"]
    later = World(config(*specs, dns=DNS), services={"chat": stored})
    later.up("a", "b")
    after = later.fleet.services["chat"]
    assert (after.active, after.publication.wanted) == (stored.active, moved)
    assert after.epoch == after.publication.wanted_epoch == stored.epoch + 1
    assert Reconcile("chat") in later.effects


def test_a_pin_to_a_backend_that_went_while_we_were_away_is_forgotten():
    world = published()
    stored = world.fleet.services["chat"]
    stored = replace(stored, pin=Pin("gone", world.at + 900.0, hard=True))
    later = World(config(backend("a"), backend("b")), services={"chat": stored})
    later.up("a", "b")
    assert later.active in ("a", "b")
    assert later.fleet.services["chat"].pin is None
