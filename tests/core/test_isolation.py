"""Is it us? No verdict on a remote backend is drawn before it is known that our network works."""

import itertools

import pytest

from orchestrator.core.events import AskControls, Challenge, ControlsAnswered, Observed, ProbeSoon
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Health, Observation, Source, Verdict
from orchestrator.core.registry import Challenged, Heartbeat
from orchestrator.core.specs import HealthPolicy
from tests.core.worlds import START, World, backend, config

BAD = Verdict.FAILED


def remote_world(names="ab", **more):
    world = World(config(*(backend(name, remote=True) for name in names), controls=4, **more))
    world.up(*names)
    world.at += 20  # the last success is older than an interval
    world.tick(0)
    world.lives(1)
    world.forget()
    return world


def controls(world, failed):
    return world.give(ControlsAnswered(failed, 4, world.at))


def test_the_first_suspicious_failure_asks_the_controls():
    world = remote_world()
    world.sees("a", BAD)
    assert AskControls() in world.effects
    world.forget()
    world.sees("a", BAD)
    assert AskControls() not in world.effects, "one question at a time"


def test_a_verdict_waits_for_the_controls_and_falls_once_they_answered():
    world = remote_world()
    for _ in range(3):
        world.sees("a", BAD)
    assert world.active == "a"
    controls(world, failed=1)
    assert world.active == "b"
    assert world.fleet.backends["a"].health is Health.DOWN


@pytest.mark.parametrize(("failed", "health"), [(4, Health.UNKNOWN), (0, Health.DOWN)])
def test_where_nobody_has_answered_yet_the_controls_are_heard_before_any_verdict(failed, health):
    world = World(config(*(backend(name, remote=True) for name in "ab"), controls=4))
    for _, name in itertools.product(range(6), "ab"):
        world.sees(name, BAD)
    assert world.effects.count(AskControls()) == 1
    assert {state.health for state in world.fleet.backends.values()} == {Health.UNKNOWN}
    controls(world, failed)
    assert {state.health for state in world.fleet.backends.values()} == {health}


@pytest.mark.parametrize("failed", [2, 3, 4])
def test_with_two_controls_silent_it_is_us(failed):
    world = remote_world()
    for name in "ab":
        for _ in range(3):
            world.sees(name, BAD)
    controls(world, failed)
    assert world.fleet.world.isolated_since == world.at
    assert world.active == "a"
    for _, name in itertools.product(range(10), "ab"):
        world.tick()
        world.sees(name, BAD)
    assert world.active == "a"
    assert all(state.health is Health.UP for state in world.fleet.backends.values())
    assert "isolated:" in world.fleet.incidents
    assert "backend_down:a" not in world.fleet.incidents


def test_a_remote_success_within_the_last_interval_outvotes_the_controls():
    world = remote_world()
    world.sees("b")
    for _ in range(3):
        world.sees("a", BAD)
    controls(world, 4)
    assert world.fleet.world.isolated_since is None


def test_a_remote_success_during_the_failure_is_proof_enough():
    world = remote_world()
    world.sees("b")
    for _ in range(3):
        world.sees("a", BAD)
    assert world.active == "b"
    assert AskControls() not in world.effects


def fails(world, name, *, began):
    """Have a probe fail that was sent then."""
    world.give(Observed(Observation(name, Source.PROBE, BAD, "timed out"), began))


@pytest.mark.parametrize("first", ["controls", "remote"])
def test_a_probe_sent_into_a_dead_network_blames_nobody_when_the_network_comes_back(first):
    """It times out after the others answer again; that they do says nothing of when it was sent."""
    world = remote_world()
    world.sees("b")
    for began in (1, 7):
        fails(world, "a", began=world.at)
        world.tick(began)
        controls(world, 4)
    sent = world.at
    world.tick(4)
    if first == "remote":
        world.sees("b")
    else:
        controls(world, 0)
    fails(world, "a", began=sent)
    controls(world, 0)
    assert world.fleet.backends["a"].health is Health.UP
    again = world.at
    world.tick(4)
    fails(world, "a", began=again)
    assert world.fleet.backends["a"].health is Health.DOWN, (
        "the next one was sent by a live network"
    )


def test_with_two_controls_lost_for_good_a_dead_one_is_still_found_by_what_others_answer():
    world = remote_world()
    world.sees("b")
    for _ in range(4):
        fails(world, "a", began=world.at)
        controls(world, 2)
        world.tick(2)
        world.sees("b")
    assert world.fleet.world.isolated_since is None
    assert world.fleet.backends["a"].health is Health.DOWN


def test_local_verdicts_never_freeze():
    world = World(
        config(
            backend("near"), backend("far", remote=True), backend("too", remote=True), controls=4
        )
    )
    world.up("near", "far", "too")
    world.at += 20
    world.tick(0)
    for name in ("far", "too"):
        world.sees(name, BAD)
    controls(world, 4)
    assert world.fleet.world.isolated_since is not None
    world.down("near")
    assert world.fleet.backends["near"].health is Health.DOWN
    assert world.active == "far"


def test_while_isolated_the_controls_are_asked_again_and_their_word_ends_it():
    world = remote_world()
    world.sees("a", BAD)
    controls(world, 4)
    world.forget()
    world.tick(3)
    assert AskControls() in world.effects
    world.forget()
    controls(world, 0)
    assert world.fleet.world.isolated_since is None
    assert {ProbeSoon("a"), ProbeSoon("b")} <= set(world.effects)
    assert "isolated:" not in world.fleet.incidents


def test_any_remote_answer_ends_isolation():
    world = remote_world()
    world.sees("a", BAD)
    controls(world, 4)
    world.sees("b")
    assert world.fleet.world.isolated_since is None


def test_failures_from_before_the_isolation_do_not_count_after_it():
    world = remote_world()
    world.sees("a", BAD)
    world.sees("a", BAD)
    controls(world, 4)
    world.tick()
    controls(world, 0)
    world.sees("a", BAD)
    world.sees("a", BAD)
    controls(world, 0)
    assert world.fleet.backends["a"].health is Health.UP
    world.sees("a", BAD)
    controls(world, 0)
    assert world.fleet.backends["a"].health is Health.DOWN


def test_an_answer_from_before_the_failure_proves_nothing():
    world = remote_world()
    world.sees("a", BAD)
    asked_at = world.at
    world.lives(4, down="a")
    world.forget()
    world.give(ControlsAnswered(0, 4, asked_at))
    assert world.fleet.backends["a"].health is Health.UP
    assert AskControls() in world.effects, "so they are asked again"


def test_without_controls_verdicts_are_drawn_at_once():
    world = World(config(backend("a", remote=True), backend("b", remote=True), controls=0))
    world.up("a", "b")
    world.down("a")
    assert world.active == "b"


def test_one_question_at_a_time_until_its_answer_must_be_lost():
    world = remote_world()
    for _ in range(10):
        world.sees("a", BAD)
        world.tick()
    assert world.effects.count(AskControls()) == 1
    for _ in range(3):
        world.tick()
        world.sees("a", BAD)
    assert world.effects.count(AskControls()) == 2


def test_a_lost_question_is_asked_again():
    world = remote_world()
    world.sees("a", BAD)
    world.forget()
    world.tick(32)
    world.sees("a", BAD)
    assert AskControls() in world.effects


# ── sessions ──


def notebooks(*names, **more):
    policy = HealthPolicy(canary_s=None)
    backends = [backend(name, health=policy, registers=True) for name in names]
    stored = {
        name: BackendState(name, session=Session(f"s-{name}", START, START, **more))
        for name in names
    }
    world = World(config(*backends), backends=stored)
    world.up(*names)
    return world


def beats(world, *names, ready=True):
    for name in names:
        world.give(Heartbeat(name, f"s-{name}", ready))


def live(world, seconds, *, beating=(), up=()):
    for _ in range(seconds):
        world.tick()
        beats(world, *beating)
        for name in up:
            world.sees(name)


def test_a_late_heartbeat_is_doubt_and_probes_fast():
    world = notebooks("a", "b")
    live(world, 20, beating="b", up="ab")
    assert not world.fleet.backends["a"].doubt
    world.forget()
    for _ in range(4):
        world.tick()
        beats(world, "b")
    assert world.fleet.backends["a"].doubt
    assert ProbeSoon("a") in world.effects
    assert world.active == "a"


def test_a_lapsed_session_that_does_not_answer_the_challenge_is_out():
    world = notebooks("a", "b")
    live(world, 63, beating="b", up="ab")
    assert world.active == "b"


def test_all_leases_lapsing_while_probes_pass_is_our_own_ingress():
    world = notebooks("a", "b")
    live(world, 200, up="ab")
    assert "inbound_lost:" in world.fleet.incidents
    assert world.active == "a"
    beats(world, "a")
    world.tick()
    assert "inbound_lost:" not in world.fleet.incidents
    live(world, 30, beating="ab", up="ab")
    assert world.active == "a"


def test_a_restart_grants_stored_sessions_one_lease():
    world = notebooks("a", "b")
    again = World(
        world.fleet.config,
        world.at + 1000,
        backends=world.fleet.backends,
        services=world.fleet.services,
    )
    again.up("a", "b")
    assert again.active == "a"


def test_a_session_past_its_end_is_out():
    world = notebooks("a", "b", ends_at=START + 1000)
    assert world.active == "a"
    live(world, 1001, beating="ab", up="ab")
    assert world.active is None


@pytest.mark.parametrize(("others", "leaves_s"), [("b", 700), ("", 1000)])
def test_a_session_is_left_at_its_margin_or_serves_to_its_end_if_nobody_else_can(others, leaves_s):
    session = Session("s-a", START, START, ends_at=START + 1000)
    stored = {"a": BackendState("a", session=session)}
    here = [backend(name, registers=name == "a") for name in "a" + others]
    world = World(config(*here), backends=stored)
    world.up("a", *others)
    while world.at < START + leaves_s - 1:
        live(world, 1, beating="a")
        assert world.active == "a"
    live(world, 2, beating="a")
    assert world.active == (others or None)


def test_the_agents_word_counts_like_a_probe():
    world = notebooks("a", "b")
    for _ in range(3):
        beats(world, "a", ready=False)
    assert world.fleet.backends["a"].health is Health.DOWN


def test_a_heartbeat_of_another_session_means_nothing():
    world = notebooks("a", "b")
    before = world.fleet.backends["a"]
    world.give(Heartbeat("a", "s-old", ready=False))
    assert world.fleet.backends["a"] is before


def test_the_operator_is_warned_before_a_session_ends():
    world = notebooks("a", "b", ends_at=START + 4000)
    live(world, 1400, beating="ab", up="ab")
    asked = world.fleet.incidents["start_soon:chat"]
    assert asked.params["backend"] == "a"  # … and this says that it ends
    assert "session_ending:b" in world.fleet.incidents


def test_a_canary_of_a_remote_backend_degrades_only_once_we_are_known_to_be_online():
    policy = HealthPolicy(canary_s=300)
    world = World(config(*(backend(name, remote=True, health=policy) for name in "ab"), controls=4))
    world.up("a", "b")
    world.at += 20
    world.tick(0)
    for _ in range(2):
        world.sees("a", BAD, source=Source.CANARY)
    assert world.fleet.backends["a"].health is Health.UP
    controls(world, 0)
    assert world.fleet.backends["a"].health is Health.DEGRADED


# ── controls that are themselves cut off: two of four blocked by a firewall ──


def firewalled(world, seconds, *, up=(), down=(), every_s=10):
    """Let time pass with two controls that never answer: each question takes three seconds."""
    answer_at, asked_at = None, world.at
    for second in range(seconds):
        world.tick()
        for name in down:
            if second % 2 == 0:
                world.sees(name, BAD)
        for name in up:
            if second % every_s == 0 or ProbeSoon(name) in world.effects:
                world.sees(name)
        if AskControls() in world.effects and answer_at is None:
            asked_at, answer_at = world.at, world.at + 3
        world.forget()
        if answer_at is not None and world.at >= answer_at:
            world.give(ControlsAnswered(2, 4, asked_at))
            answer_at = None
        if world.active != "a":
            return second
    return seconds


def test_with_two_controls_blocked_a_healthy_witness_tells_that_it_is_not_us():
    world = remote_world()
    world.sees("b")
    world.sees("a")
    assert firewalled(world, 60, up="b", down="a") <= 20
    assert world.active == "b"


def test_a_remote_success_settles_what_waits_when_the_controls_did_not():
    world = remote_world()
    world.sees("b")
    world.tick(5)
    for _ in range(3):
        world.sees("a", BAD)
    world.forget()
    controls(world, 2)
    assert world.active == "a"
    assert ProbeSoon("b") in world.effects, "a witness is called"
    assert ProbeSoon("a") not in world.effects
    world.sees("b")
    assert world.active == "b"


def test_a_success_just_over_an_interval_ago_is_recent_as_intervals_have_jitter():
    world = remote_world()
    world.sees("b")
    world.tick(11)
    world.sees("a", BAD)
    controls(world, 4)
    assert world.fleet.world.isolated_since is None


def test_canaries_that_failed_while_we_were_cut_off_do_not_count_after_it():
    policy = HealthPolicy(canary_s=300)
    world = World(config(*(backend(name, remote=True, health=policy) for name in "ab"), controls=4))
    world.up("a", "b")
    world.tick(20)
    for _ in range(2):
        world.sees("a", BAD, source=Source.CANARY)
    controls(world, 4)
    assert world.fleet.world.isolated_since is not None
    controls(world, 0)
    assert world.fleet.backends["a"].health is Health.UP


def test_a_cool_down_is_kept_when_everything_is_looked_at_again():
    world = remote_world()
    world.sees("b", Verdict.BUSY, retry_after_s=600)
    world.tick(20)
    world.sees("a", BAD)
    controls(world, 4)
    world.forget()
    controls(world, 0)
    assert ProbeSoon("a") in world.effects
    assert ProbeSoon("b") not in world.effects


def test_a_good_answer_is_not_judged_by_the_failures_before_it():
    """Its third failure waits for the controls, two of which are blocked; then it answers well."""
    world = remote_world()
    world.sees("b")
    world.at += 2
    for _ in range(3):
        world.sees("a", BAD)
    controls(world, 2)
    world.forget()
    world.at += 1
    world.sees("a")
    assert world.fleet.backends["a"].health is Health.UP
    assert not any(entry.action == "health" for entry in world.entries)


def test_a_silent_session_that_proved_itself_is_challenged_once_a_minute():
    world = notebooks("a", "b")
    world.forget()
    asked = 0
    for _ in range(600):
        world.tick()
        beats(world, "b")
        world.sees("a")
        if Challenge("a") in world.effects:
            asked += 1
            world.forget()
            world.give(Challenged("a", "s-a", ok=True))
    assert world.active == "a"
    assert 9 <= asked <= 10
