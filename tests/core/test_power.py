"""Starting and stopping by machine: who is started when, what is believed, and what is let go."""

from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core import demand
from orchestrator.core.events import (
    ControlsAnswered,
    Drain,
    NameChecked,
    Pause,
    Reconfigured,
    Resume,
    Switchover,
    Tick,
    Traffic,
)
from orchestrator.core.lives import Do, PowerPhase, Session, Token
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import Health, Severity, Source, Verdict
from orchestrator.core.powering import (
    Ask,
    AskPower,
    Halt,
    PowerReport,
    PowerReported,
    Snag,
    Start,
    StartBackend,
    StopBackend,
)
from orchestrator.core.registry import Proved, Register
from orchestrator.core.specs import HealthPolicy, Tier
from tests.core.clouds import IDLE_S, Cloud, power, put, vm
from tests.core.worlds import DNS, World, backend, config, restarted


def world_of(*backends, **more):
    world = World(config(*backends, **more))
    cloud = Cloud(world)
    return world, cloud


def told(world, action):
    return [entry.text for entry in world.entries if entry.action == action]


def started(cloud):
    return [name for _, name, _ in cloud.starts]


# ── when ────────────────────────────────────────────────────────────────────────────────────────


def test_the_vm_is_started_when_nobody_serves_and_serves_once_it_is_up():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    assert world.active == "a"
    assert started(cloud) == []
    cloud.lives(60, down="a")
    assert started(cloud) == ["v"]
    assert world.active == "v"
    assert power(world, "v").phase is PowerPhase.ON
    assert told(world, "power_start") == ["v is started: nobody serves chat"]


def test_no_vm_is_started_before_everything_was_looked_at():
    world, cloud = world_of(backend("a"), vm("v"))
    for _ in range(20):
        world.tick()
        cloud.serve()
    assert not world.fleet.world.settled
    assert started(cloud) == []


def test_a_vm_whose_provider_has_not_said_how_it_is_is_not_started():
    _, cloud = world_of(backend("a"), vm("v"))
    cloud.mute = True
    cloud.lives(100, down="a")
    assert started(cloud) == []
    cloud.mute = False
    cloud.lives(60, down="a")
    assert started(cloud) == ["v"]


@pytest.mark.parametrize(
    ("others", "serving", "first"),
    [
        ((vm("p", tier=Tier.PAID), vm("f", tier=Tier.FREE)), "", "f"),
        ((vm("c"), vm("p", tier=Tier.PAID)), "", "c"),
        ((vm("v", priority=1), vm("w", priority=2)), "", "v"),
    ],
)
def test_the_cheapest_is_started_first_then_the_preferred_and_one_at_a_time(others, serving, first):
    world, cloud = world_of(backend("a"), *others)
    cloud.lives(30, down="a")
    assert started(cloud) == [first]
    cloud.lives(300, down="a")
    assert started(cloud) == [first], "a second one is not needed once the first serves"
    assert world.active == first


def test_a_free_one_is_started_though_a_dearer_one_serves_and_no_dearer_one_though_a_free_one_does():
    world, cloud = world_of(backend("paid", tier=Tier.PAID), vm("free", tier=Tier.FREE), vm("v"))
    for _ in range(30):
        cloud.lives(1)
        world.sees("paid")
    assert started(cloud) == ["free"]
    for _ in range(900):
        cloud.lives(1)
        world.sees("paid")
    assert started(cloud) == ["free"]


def test_while_one_loads_or_cools_down_nobody_else_is_started():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.sees("a", Verdict.BUSY, retry_after_s=60.0)
    cloud.lives(50)
    assert started(cloud) == []
    world, cloud = world_of(backend("a"), vm("v"))
    for _ in range(600):
        cloud.lives(1)
        world.sees("a", Verdict.LOADING)
    assert started(cloud) == []


def test_a_degraded_one_is_not_counted_on():
    world, cloud = world_of(backend("a", health=HealthPolicy()), vm("v"))
    cloud.lives(5, up="a")
    for _ in range(2):
        world.sees("a", Verdict.FAILED, source=Source.CANARY)
    cloud.lives(60, up="a")
    assert world.active == "v"


@pytest.mark.parametrize("why", ["paused", "shadow", "isolated", "drained", "exhausted", "manual"])
def test_nothing_is_started_while(why):
    remote = why == "isolated"
    spec = vm("v", remote=remote, auto_start=why != "manual")
    world, cloud = world_of(backend("a"), spec, shadow=why == "shadow", controls=4 * remote)
    cloud.lives(5, up="a")
    if why == "paused":
        world.give(Pause())
    elif why == "drained":
        world.give(Drain("v"))
    elif why == "exhausted":
        put(world, "v", exhausted_until=world.at + 1e6)
    elif why == "isolated":
        world.at += 30
        world.give(Tick(world.at))
        world.give(ControlsAnswered(4, 4, world.at))
        assert world.fleet.world.isolated_since is not None
    for _ in range(600):
        world.tick()
        cloud.serve()
        world.sees("a", Verdict.FAILED)
    assert cloud.starts == []
    assert (why in ("paused", "shadow")) == bool(told(world, "would_start"))
    assert len(told(world, "would_start")) <= 1


def session(world, left_s):
    return Session("s", world.at, world.at, ends_at=world.at + left_s, lease_s=1e9, late_s=1e9)


@pytest.mark.parametrize("boots", [(), (100.0,) * 9 + (600.0,), (200.0,)])
def test_for_a_session_that_ends_the_next_is_started_in_time_and_not_sooner(boots):
    world, cloud = world_of(backend("a"), vm("v", tier=Tier.FREE), dns=DNS)
    cloud.lives(5, up="a")
    put(world, "a", session=session(world, 3000.0))
    put(world, "v", boots=boots)
    ends_at = world.at + 3000.0
    lead_s = {0: 300.0, 10: 100.0, 1: 200.0}[
        len(boots)
    ] + 480.0  # 60 + its TTL + 120 is more than 420
    cloud.lives(int(3000 - lead_s) - 3, up="a")
    assert started(cloud) == []
    cloud.lives(6, up="a")
    assert started(cloud) == ["v"]
    assert ends_at - cloud.starts[0][0] == pytest.approx(lead_s, abs=2)


def test_for_a_session_that_ends_nobody_is_started_while_another_is_up():
    world, cloud = world_of(backend("a"), backend("b"), vm("v"))
    cloud.lives(5, up="ab")
    put(world, "a", session=session(world, 500.0))
    cloud.lives(400, up="ab")
    assert started(cloud) == []


def test_what_the_operator_planned_to_move_to_is_up_in_time():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.give(Switchover("chat", "v", world.at + 1000.0))
    cloud.lives(200, up="a")
    assert started(cloud) == []
    cloud.lives(100, up="a")
    assert started(cloud) == ["v"]
    cloud.lives(900, up="a")
    assert world.active == "v"


def test_its_provider_is_told_to_end_it_before_its_session_or_its_budget_does():
    meters = {
        "v:usd": MeterSpec("v:usd", Unit.USD, 10.0, backend="v", rate_per_hour=2.0),
        "w:usd": MeterSpec("w:usd", Unit.USD, 1.0, backend="w", rate_per_hour=2.0),
        "v:requests": MeterSpec("v:requests", Unit.REQUESTS, 1.0, backend="v"),
    }
    for session_s, most_s in ((None, 18000.0), (3600.0, 3600.0), (90000.0, 18000.0)):
        spec = vm("v", auto_start=False, session_s=session_s)
        world, cloud = world_of(backend("a"), spec, meters=meters)
        cloud.lives(5, up="a")
        world.give(Start("v"))
        asked = [one for one in world.effects if isinstance(one, StartBackend)]
        assert asked[0].max_run_s == pytest.approx(most_s, rel=0.06)
    world, cloud = world_of(backend("a"), vm("v", auto_start=False))
    world.give(Start("v"))
    assert world.turns[-1].effects[-1].max_run_s is None


def test_while_nobody_serves_discovery_says_when_the_one_that_is_started_may_be_up():
    world, cloud = world_of(vm("v"))
    put(world, "v", boots=(200.0,))
    cloud.lives(5)
    [(began, _, _)] = cloud.starts
    cloud.lives(20)
    assert world.fleet.services["chat"].retry_at == pytest.approx(began + 200.0, abs=5)


def test_one_that_may_not_be_started_yet_is_said_to_be_up_a_boot_after_it_may():
    world, cloud = world_of(vm("v"))
    put(world, "v", boots=(200.0,))
    cloud.fates = ["stockout"]
    cloud.lives(30)
    assert world.fleet.services["chat"].retry_at <= power(world, "v").retry_at + 200.0
    cloud.fates = ["stockout"] * 9
    cloud.lives(3000)
    assert power(world, "v").retry_at > world.at
    back = power(world, "v").retry_at + 200.0
    assert world.fleet.services["chat"].retry_at == pytest.approx(back, abs=210)


def test_one_whose_quota_is_spent_is_said_to_be_up_a_boot_after_the_reset():
    world, cloud = world_of(vm("v"))
    put(world, "v", boots=(200.0,), exhausted_until=world.at + 5000.0)
    until = world.at + 5000.0
    cloud.lives(20)
    assert cloud.starts == []
    assert world.fleet.services["chat"].retry_at == pytest.approx(until + 200.0, abs=1)
    put(world, "v", exhausted_until=None)
    world.give(Reconfigured(world.fleet.config))
    cloud.lives(20)
    assert world.fleet.services["chat"].retry_at <= world.at + 210.0, "it comes sooner now"


# ── answers, lost and otherwise ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fate", ["stockout", "denied", "quota", "transient"])
def test_one_that_is_refused_falls_to_the_next_and_waits_a_minute(fate):
    world, cloud = world_of(backend("a"), vm("v"), vm("w"))
    cloud.fates = [fate]
    cloud.lives(30, down="a")
    assert started(cloud) == ["v", "w"]
    assert power(world, "v").retry_at == pytest.approx(cloud.starts[0][0] + 60.0, abs=1)


def test_one_that_is_refused_is_tried_again_later_and_later():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["stockout"] * 7
    cloud.lives(8000, down="a")
    times = [at for at, _, _ in cloud.starts]
    waits = [round((b - a) / 60) for a, b in pairwise(times)]
    assert waits[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert "start_failed:v" in told_of(world)


def told_of(world):
    return {f"{notice.topic}:{notice.subject}" for notice in world.notices}


def test_a_provider_that_says_for_how_long_is_left_alone_for_so_long():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.give(Start("v"))
    label = power(world, "v").launch
    report = PowerReport(PowerPhase.OFF, snag=Snag.QUOTA, retry_after_s=7000.0)
    world.give(PowerReported("v", Ask.START, report, label, world.at))
    cloud.unserved = len(world.turns)
    cloud.lives(6900, down="a")
    assert started(cloud) == []
    cloud.lives(200, down="a")
    assert started(cloud) == ["v"]


@pytest.mark.parametrize("fate", ["lost", "gone"])
def test_a_launch_whose_answer_is_lost_is_not_repeated_before_the_status_was_read(fate):
    world, cloud = world_of(backend("a"), vm("v"), vm("w"))
    cloud.fates = [fate]
    cloud.lives(20, down="a")
    assert started(cloud) == ["v"], "and nobody else is started either"
    cloud.lives(100, down="a")
    assert started(cloud) == (["v"] if fate == "lost" else ["v", "v"])
    assert world.active == "v"


def test_one_that_answers_no_start_and_makes_none_is_told_of_and_the_next_has_its_turn():
    world, cloud = world_of(backend("a"), vm("v"), vm("w"))
    cloud.fates = ["gone", "gone", "", "gone"]
    cloud.lives(200, down="a")
    assert started(cloud) == ["v", "v", "w"], "once more, for the fault may have been a moment's"
    assert world.active == "w"
    assert "start_failed:v" in world.fleet.incidents
    assert "no answer" in power(world, "v").detail
    assert "timed out" in power(world, "v").detail


def test_one_that_answers_no_start_is_asked_later_and_later():
    _, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["gone"] * 30
    cloud.lives(3600, down="a")
    assert len(cloud.starts) <= 8


def test_a_start_that_was_never_asked_for_is_no_failure_of_its_provider():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(40, up="a")
    world.down("a")
    labels = set()
    for _ in range(5):
        labels.add(power(world, "v").launch)
        cloud.serve(dropped=True)  # the daemon was killed before it asked
        world.at += 40
        world.give(PowerReported("v", Ask.STATUS, PowerReport(PowerPhase.OFF), began_at=world.at))
        world.tick()
    assert len(labels) == 5
    assert power(world, "v").failures == 0


def test_while_the_provider_is_mute_a_lost_launch_is_not_repeated_and_in_the_end_stopped():
    _, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["lost"]
    cloud.machines["v"].boot_s = 1e9
    cloud.lives(10, down="a")
    cloud.mute = True
    cloud.lives(940, down="a")
    assert started(cloud) == ["v"]
    assert len(cloud.stops) == 1
    assert not cloud.running("v")


def test_off_just_after_a_start_is_the_providers_lag():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.give(Start("v"))
    cloud.serve()
    for wait_s, phase in ((10, PowerPhase.STARTING), (25, PowerPhase.OFF)):
        world.at += wait_s
        world.give(PowerReported("v", Ask.STATUS, PowerReport(PowerPhase.OFF), began_at=world.at))
        assert power(world, "v").phase is phase
    assert power(world, "v").failures == 1


def test_a_reading_from_before_the_start_says_nothing_of_it():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, up="a")
    world.give(Start("v"))
    world.at += 50
    old = PowerReported("v", Ask.STATUS, PowerReport(PowerPhase.OFF), began_at=world.at - 51)
    world.give(old)
    assert power(world, "v").phase is PowerPhase.STARTING


def test_a_reading_from_before_the_stop_does_not_bring_it_back():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    label, before = power(world, "v").launch, world.at
    cloud.lives(5, up="a")
    world.give(Halt("v"))
    cloud.serve()
    assert power(world, "v").phase is PowerPhase.OFF
    on = PowerReport(PowerPhase.ON, label)
    world.give(PowerReported("v", Ask.STATUS, on, began_at=before))
    assert power(world, "v").phase is PowerPhase.OFF


def test_one_that_never_comes_up_counts_as_failed_and_is_stopped():
    world, cloud = world_of(backend("a"), vm("v"), vm("w"))
    cloud.fates = ["never"]
    cloud.lives(890, down="a")
    assert started(cloud) == ["v"]
    cloud.lives(60, down="a")
    assert not cloud.running("v")
    assert started(cloud) == ["v", "w"]
    assert power(world, "v").failures == 1


def test_a_slow_boot_has_twice_its_p90():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.machines["v"].boot_s = 1100.0
    put(world, "v", boots=(600.0,))
    cloud.lives(1190, down="a")
    assert cloud.stops == []
    assert world.active == "v"


def test_how_long_it_took_is_learned():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    assert world.fleet.backends["v"].boots == (pytest.approx(42, abs=3),)
    cloud.lives(60, down="a")
    assert len(world.fleet.backends["v"].boots) == 1


def test_what_died_and_does_not_come_back_is_stopped_and_started_anew():
    _, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    cloud.machines["v"].dead = True
    cloud.lives(290, down="a")
    assert cloud.stops == []
    cloud.lives(120, down="a")
    assert len(cloud.stops) == 1
    assert started(cloud) == ["v", "v"]


def test_what_went_off_by_itself_is_started_again_if_it_is_needed():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(1000, down="a")
    cloud.machines["v"].launch = ""
    cloud.lives(400, down="a")
    assert started(cloud) == ["v", "v"]
    assert world.active == "v"
    assert power(world, "v").failures == 0


def test_what_is_lost_in_the_second_in_which_it_came_up_was_started_and_did_not_last():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(35, down="a")
    assert power(world, "v").answered
    assert world.fleet.backends["v"].health is Health.DOWN
    for verdict in [Verdict.OK] * 2 + [Verdict.FAILED] * 3:
        world.sees("v", verdict)
    world.give(ControlsAnswered(0, 4, world.at))
    assert world.fleet.backends["v"].health is Health.DOWN
    cloud.machines["v"].launch = ""
    cloud.lives(40, down="a")
    assert told(world, "power_failed") == []
    assert len(told(world, "power_lost")) == 1
    assert len(world.fleet.backends["v"].boots) == 1


# ── the daemon dies ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("carried_out", [True, False])
def test_killed_between_intent_and_effect_there_is_one_launch_only(carried_out):
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    while not any(isinstance(effect, StartBackend) for effect in world.effects):
        cloud.serve()
        world.tick()
        world.sees("a", Verdict.FAILED)
    if carried_out:
        for effect in world.turns[-1].effects + world.turns[-2].effects:
            if isinstance(effect, StartBackend):
                cloud.machines["v"].launch, cloud.machines["v"].since = effect.launch, world.at
    label = power(world, "v").launch
    again = restarted(world)
    after = Cloud(again, machines=cloud.machines)
    assert power(again, "v").launch == label
    after.lives(20, down="a")
    assert after.starts == [], "how it is was read first"
    after.lives(120, down="a")
    assert len(after.starts) == (0 if carried_out else 1)
    assert again.active == "v"
    assert power(again, "v").failures == 0


def test_what_was_off_before_a_restart_is_asked_for_before_it_is_started():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(20, up="a")
    assert power(world, "v").phase is PowerPhase.OFF
    again = restarted(world)
    after = Cloud(again, mute=True)
    after.lives(100, down="a")
    assert after.starts == []
    after.mute = False
    after.lives(60, down="a")
    assert started(after) == ["v"]


def test_one_of_ours_that_nobody_knows_of_is_stopped_unless_it_is_needed():
    for need in (True, False):
        world, cloud = world_of(backend("a"), vm("v"))
        cloud.machines["v"].launch = demand.label_start("aion", "v") + "17"
        cloud.lives(100, **({"down": "a"} if need else {"up": "a"}))
        assert cloud.running("v") is need
        assert cloud.starts == []
        assert (world.active == "v") is need


def test_one_that_somebody_else_started_is_left_alone_but_may_serve():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.machines["v"].launch = "by-hand"
    cloud.lives(1000, up="a")
    assert cloud.running("v")
    assert cloud.stops == []
    cloud.lives(60, down="a")
    assert world.active == "v"
    assert cloud.starts == []


def test_a_label_is_only_ours_if_it_is_wholly():
    assert demand.ours("home", "gpu", "aion-home-gpu-17")
    for label in ("aion-home-gpu-2-17", "aion-home-gpu-", "aion-away-gpu-17", "gpu-17", ""):
        assert not demand.ours("home", "gpu", label)


def test_labels_never_repeat():
    _, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["transient"] * 5
    cloud.lives(2500, down="a")
    labels = [label for _, _, label in cloud.starts]
    assert len(set(labels)) == len(labels) >= 6


# ── stopping ────────────────────────────────────────────────────────────────────────────────────


def test_it_is_stopped_after_idle_stop_and_not_before_nor_while_it_serves():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(2000, down="a")
    assert cloud.stops == []
    cloud.lives(5, up="a")
    cloud.lives(285, up="a")
    assert world.active == "v"
    cloud.lives(20, up="a")
    assert world.active == "a", "it was well for long enough"
    left_at = world.at
    cloud.lives(int(IDLE_S) - 20, up="a")
    assert cloud.stops == []
    cloud.lives(40, up="a")
    assert [name for _, name in cloud.stops] == ["v"]
    assert cloud.stops[0][0] - left_at == pytest.approx(IDLE_S, abs=20)
    assert not cloud.running("v")
    assert power(world, "v").phase is PowerPhase.OFF
    assert world.fleet.backends["v"].falls == ()
    assert "backend_down:v" not in told_of(world)


def test_traffic_keeps_it():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    cloud.lives(320, up="a")
    assert world.active == "a"
    for _ in range(20):
        cloud.lives(100, up="a")
        world.give(Traffic((), "v"))
    assert cloud.stops == []
    cloud.lives(310, up="a")
    assert len(cloud.stops) == 1


def test_a_rotation_stops_what_it_drained_only_if_that_costs():
    for tier in (Tier.FREE, Tier.CREDIT):
        world, cloud = world_of(backend("a"), vm("v", tier=tier, idle_stop_s=None))
        cloud.lives(60, down="a")
        assert world.active == "v"
        cloud.lives(5, up="a")
        world.give(Drain("v"))
        for _ in range(900):
            cloud.lives(1, up="a")
            world.give(NameChecked("chat", ok=True))
        assert world.active == "a"
        assert bool(cloud.stops) is (tier is Tier.CREDIT)


def test_what_has_spent_its_budget_is_stopped_even_while_paused():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    world.give(Pause())
    cloud.lives(60, down="a")
    assert cloud.stops == []
    put(world, "v", exhausted_until=world.at + 1e5)
    cloud.lives(3, down="a")
    assert len(cloud.stops) == 1
    cloud.lives(2000, down="a")
    assert len(cloud.starts) == 1


def test_an_idle_one_is_not_stopped_while_paused_but_afterwards():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    cloud.lives(310, up="a")
    world.give(Pause())
    cloud.lives(1000, up="a")
    assert cloud.stops == []
    world.give(Resume())
    cloud.lives(5, up="a")
    assert len(cloud.stops) == 1


def test_a_stop_that_does_nothing_is_repeated_and_told():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    label = cloud.machines["v"].launch
    cloud.lives(310, up="a")
    for _ in range(1500):
        cloud.lives(1, up="a")
        cloud.machines["v"].launch = label  # whatever it is told
        if power(world, "v").phase is PowerPhase.OFF:
            on = PowerReport(PowerPhase.ON, label)
            world.give(PowerReported("v", Ask.STATUS, on, began_at=world.at))
    assert len(cloud.stops) >= 2


@pytest.mark.parametrize(
    ("tier", "severity"), [(Tier.CREDIT, Severity.CRITICAL), (Tier.FREE, Severity.WARNING)]
)
def test_a_stop_without_an_answer_is_repeated_and_told(tier, severity):
    world, cloud = world_of(backend("a"), vm("v", tier=tier))
    cloud.lives(60, down="a")
    world.give(Halt("v"))
    cloud.mute = True
    cloud.unserved = len(world.turns)  # it never reached the provider
    for _ in range(700):
        world.tick()
        cloud.unserved = len(world.turns)
    stops = [effect for effect in world.effects if isinstance(effect, StopBackend)]
    assert len(stops) >= 3
    assert "stop_failed:v" in told_of(world)
    assert world.fleet.incidents["stop_failed:v"].severity is severity


def test_one_that_is_being_stopped_is_not_chosen():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    world.give(Halt("v"))
    assert world.active is None
    world.sees("v")
    world.tick()
    assert world.active is None


def test_an_agent_saves_before_its_machine_is_stopped():
    spec = vm("v", registers=True, url=None, session_s=None)
    world, cloud = world_of(backend("a"), spec)
    cloud.machines["v"].boot_s = 10.0
    world.fleet.tokens["t"] = Token("t", "v", "x", world.at)
    cloud.lives(5, down="a")
    assert started(cloud) == ["v"]
    cloud.lives(30, down="a")
    world.give(Register("v", "s1", "secret", "t", "https://v.test"))
    world.give(Proved("v", "s1", ok=True))
    cloud.lives(3, down="a")
    assert world.active == "v"
    assert len(world.fleet.backends["v"].boots) == 1
    world.give(Halt("v"))
    orders = world.fleet.backends["v"].session.orders
    assert [order.do for order in orders] == [Do.SAVE, Do.STOP]
    world.tick(60)
    assert not any(isinstance(effect, StopBackend) for effect in world.effects)
    world.tick(70)
    assert any(isinstance(effect, StopBackend) for effect in world.effects)


def test_what_is_no_longer_configured_is_stopped():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    world.give(Reconfigured(config(backend("a"))))
    assert StopBackend("v", cloud.machines["v"].launch) in world.turns[-1].effects


# ── the operator ────────────────────────────────────────────────────────────────────────────────


def test_the_operator_starts_and_stops():
    world, cloud = world_of(backend("a"), vm("v", auto_start=False))
    cloud.lives(5, up="a")
    assert "being started" in world.give(Start("v")).answer.text
    cloud.lives(60, up="a")
    assert power(world, "v").phase is PowerPhase.ON
    assert "already" in world.give(Start("v")).answer.text
    assert "being stopped" in world.give(Halt("v")).answer.text
    cloud.lives(30, up="a")
    assert not cloud.running("v")
    assert "off already" in world.give(Halt("v")).answer.text


def test_what_the_operator_stopped_is_not_started_again_within_the_hour():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(60, down="a")
    world.give(Halt("v"))
    cloud.lives(3500, down="a")
    assert len(cloud.starts) == 1
    cloud.lives(200, down="a")
    assert len(cloud.starts) == 2


@pytest.mark.parametrize("command", [Start("a"), Halt("a"), Start("zz")])
def test_what_cannot_be_started_is_refused(command):
    world, _ = world_of(backend("a"), vm("v"))
    answer = world.give(command).answer
    assert answer.problem in ("conflict", "unknown")


def test_a_start_is_refused_while_paused_spent_or_in_doubt():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.give(Pause())
    assert world.give(Start("v")).answer.problem == "conflict"
    world.give(Resume())
    put(world, "v", exhausted_until=world.at + 100)
    assert world.give(Start("v")).answer.problem == "conflict"
    put(world, "v", exhausted_until=None)
    cloud.fates = ["lost"]
    cloud.mute = True
    cloud.unserved = len(world.turns)
    world.give(Start("v"))
    cloud.serve()
    assert world.give(Start("v")).answer.problem == "conflict"
    assert len(cloud.starts) == 1


# ── what the operator hears ─────────────────────────────────────────────────────────────────────


def test_nobody_is_asked_to_start_by_hand_what_comes_by_itself_until_that_fails():
    by_hand = backend("a", restart_url="https://example.org/a")
    world, cloud = world_of(by_hand, vm("v", tier=Tier.FREE))
    cloud.fates = ["never"]
    cloud.lives(5, up="a")
    cloud.lives(800, down="a")
    assert "restart_needed:chat" not in told_of(world)
    cloud.lives(120, down="a")
    assert "restart_needed:chat" in told_of(world)


def test_a_vm_does_not_keep_the_operator_from_hearing_of_a_cheaper_one():
    by_hand = backend("a", restart_url="https://example.org/a")
    world, cloud = world_of(by_hand, vm("v", tier=Tier.PAID))
    cloud.lives(5, up="a")
    cloud.lives(60, down="a")
    assert world.active == "v"
    assert "restart_needed:chat" in told_of(world)


def test_one_that_is_on_and_still_boots_is_not_told_of_as_down():
    world, cloud = world_of(backend("a"), vm("v"), backend("c", tier=Tier.PAID))
    cloud.machines["v"].boot_s = 300.0
    cloud.lives(30, up="ac")
    assert world.fleet.backends["v"].health is Health.DOWN
    cloud.lives(250, up="c", down="a")
    assert power(world, "v").phase is PowerPhase.ON
    assert not power(world, "v").booted
    assert "backend_down:v" not in world.fleet.incidents
    cloud.lives(100, up="c", down="a")
    assert world.fleet.backends["v"].health is Health.UP


def test_an_incident_of_a_failed_start_is_over_once_it_is_up():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.fates = ["stockout"]
    cloud.lives(40, down="a")
    assert "start_failed:v" in world.fleet.incidents
    assert "backend_down:v" not in world.fleet.incidents, "one thing is told once"
    cloud.lives(120, down="a")
    assert world.active == "v"
    assert "start_failed:v" not in world.fleet.incidents


def test_a_provider_that_does_not_say_how_it_is_is_told():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(10, up="a")
    cloud.mute = True
    cloud.lives(1400, up="a")
    assert "start_failed:v" in world.fleet.incidents
    cloud.mute = False
    cloud.lives(60, up="a")
    assert "start_failed:v" not in world.fleet.incidents


# ── address, margin, status ─────────────────────────────────────────────────────────────────────


def test_an_address_comes_from_the_provider_and_goes_when_it_is_off():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    world.give(Start("v"))
    cloud.serve()
    on = PowerReport(PowerPhase.ON, power(world, "v").launch, "http://203.0.113.9:8000")
    turn = world.give(PowerReported("v", Ask.STATUS, on, began_at=world.at))
    assert power(world, "v").address == "http://203.0.113.9:8000"
    assert "Rewire" in {type(effect).__name__ for effect in turn.effects}
    world.give(Halt("v"))
    off = PowerReport(PowerPhase.OFF)
    turn = world.give(PowerReported("v", Ask.STOP, off, on.launch, world.at))
    assert power(world, "v").address == ""
    assert "Rewire" in {type(effect).__name__ for effect in turn.effects}


def test_status_is_asked_at_the_start_every_five_minutes_and_often_while_it_changes():
    world, cloud = world_of(backend("a"), vm("v"))
    world.tick()
    assert AskPower("v") in world.turns[-1].effects
    cloud.lives(5, up="a")
    world.forget()
    cloud.unserved = 0
    cloud.lives(1200, up="a")
    asked = sum(AskPower("v") in turn.effects for turn in world.turns)
    assert 3 <= asked <= 5
    world.forget()
    cloud.unserved = 0
    cloud.machines["v"].boot_s = 1e9
    world.give(Start("v"))
    cloud.lives(120, up="a")
    asked = sum(AskPower("v") in turn.effects for turn in world.turns)
    assert 8 <= asked <= 13


@pytest.mark.parametrize("dns", [DNS, None])
def test_with_a_name_to_keep_a_session_is_about_to_end_as_long_before_as_a_move_takes(dns):
    world = World(config(backend("a"), backend("b"), dns=dns))
    world.up("a", "b")
    put(world, "a", session=session(world, 1000.0))
    world.fleet.services["chat"] = replace(world.fleet.services["chat"], review_at=world.at)
    margin_s = 60 + 300 + 120 if dns else 300
    for _ in range(1000 - margin_s - 5):
        world.tick()
    assert world.fleet.services["chat"].rotation is None
    for _ in range(10):
        world.tick()
    assert world.fleet.services["chat"].rotation is not None


def test_a_healthy_backend_that_is_alone_serves_to_the_end_of_its_session():
    world, cloud = world_of(backend("a"))
    cloud.lives(5, up="a")
    put(world, "a", session=session(world, 100.0))
    cloud.lives(90, up="a")
    assert world.active == "a"


def test_the_provider_of_what_goes_down_is_asked_at_once_and_not_every_second():
    world, cloud = world_of(backend("a"), vm("v"))
    cloud.lives(5, up="a")
    cloud.lives(120, down="a")
    assert world.active == "v"
    cloud.lives(20, down="a")
    cloud.machines["v"].launch = ""
    before, began = len(cloud.starts), world.at
    while len(cloud.starts) == before:
        cloud.lives(1, down="a")
    assert world.at - began <= 90, "it went by itself: another one is started, not in five minutes"
    cloud.lives(120, down="a")
    cloud.mute, cloud.machines["v"].dead = True, True
    world.forget()
    cloud.unserved = 0
    cloud.lives(100, down="a")
    asked = [one for one in world.effects if isinstance(one, AskPower)]
    assert 1 <= len(asked) <= 5
