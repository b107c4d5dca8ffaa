"""Hours in which a backend should be on: what counts is whether it should be on now."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core.events import Drain, Failover, Pause, PinTo, Resume
from orchestrator.core.lives import PowerPhase
from orchestrator.core.meters import MeterSpec, ProviderSaid, Unit
from orchestrator.core.onhours import OnHours, next_from, spans, until
from orchestrator.core.powering import Halt
from orchestrator.core.specs import Tier
from tests.core.clouds import IDLE_S, Cloud, power, vm
from tests.core.worlds import World, backend, config, restarted

LISBON = "Europe/Lisbon"
DAY = OnHours(8 * 60, 19 * 60)
WEEK = OnHours(8 * 60, 19 * 60, (0, 1, 2, 3, 4))
NIGHT = OnHours(22 * 60, 6 * 60, (4,))  # Friday's, until Saturday


def wall(text, zone=LISBON):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


# ── the calendar ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hours", "at", "ends"),
    [
        (DAY, "2026-11-21T07:59:59", None),
        (DAY, "2026-11-21T08:00:00", "2026-11-21T19:00"),
        (DAY, "2026-11-21T19:00:00", None),
        (WEEK, "2026-11-21T12:00:00", None),  # a Saturday
        (WEEK, "2026-11-23T12:00:00", "2026-11-23T19:00"),
        (NIGHT, "2026-11-20T21:59:59", None),
        (NIGHT, "2026-11-20T22:00:00", "2026-11-21T06:00"),
        (NIGHT, "2026-11-21T05:59:59", "2026-11-21T06:00"),
        (NIGHT, "2026-11-21T22:00:00", None),
        (OnHours(0, 1440, (5, 6)), "2026-11-21T12:00:00", "2026-11-23T00:00"),
        (None, "2026-11-21T12:00:00", None),
    ],
)
def test_it_should_be_on_in_its_hours_by_the_calendar_and_at_no_other_time(hours, at, ends):
    assert until(hours, LISBON, wall(at)) == (None if ends is None else wall(ends))


def test_on_the_days_on_which_summer_time_begins_or_ends_the_clock_on_the_wall_counts():
    night = OnHours(0, 6 * 60)
    for day, hours in (("2026-03-29", 5), ("2026-10-25", 7), ("2026-06-01", 6)):
        span = next(s for s in spans(night, LISBON, wall(day), wall(f"{day}T23:00")))
        assert span == (wall(f"{day}T00:00"), wall(f"{day}T06:00"))
        assert span[1] - span[0] == hours * 3600
    skipped = OnHours(60 + 30, 6 * 60)  # 01:30 does not exist on that day
    assert until(skipped, LISBON, wall("2026-03-29T02:31")) == wall("2026-03-29T06:00")


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        (LISBON, "2026-03-29T01:00"),
        ("America/New_York", "2026-03-08T02:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:00"),  # it skips half an hour
        ("Africa/Cairo", "2026-04-24T00:00"),
    ],
)
@pytest.mark.parametrize("begins", range(-90, 120, 15))
@pytest.mark.parametrize("lasts", [30, 60, 105])
def test_of_hours_that_summer_time_cuts_what_the_clock_shows_is_left(zone, day, begins, lasts):
    skipped = datetime.fromisoformat(day)
    first = (skipped.hour * 60 + begins) % 1440
    hours = OnHours(first, (first + lasts) % 1440 or 1440)
    start = wall(day, zone) - 6 * 3600
    for at in range(int(start), int(start) + 12 * 3600, 300):
        shown = datetime.fromtimestamp(at, ZoneInfo(zone))
        minute = shown.hour * 60 + shown.minute
        after, before = minute >= hours.begins, minute < hours.ends
        within = after and before if hours.ends > hours.begins else after or before
        assert (until(hours, zone, at) is not None) is within, shown


def test_hours_that_touch_are_one_and_those_of_a_whole_week_have_no_next():
    always = OnHours(0, 1440)
    assert len(spans(always, LISBON, wall("2026-11-21"), wall("2026-11-24"))) == 1
    assert until(always, LISBON, wall("2026-11-21")) > wall("2026-11-28")
    assert next_from(WEEK, LISBON, wall("2026-11-21T12:00")) == wall("2026-11-23T08:00")


# ── in the fleet ────────────────────────────────────────────────────────────────────────────────


def world_at(text, *backends, hours=DAY, **more):
    """Monday unless said; `v` has hours, `a` is always there."""
    backends = backends or (backend("a"), vm("v", on_hours=hours, priority=200))
    world = World(config(*backends, timezone=LISBON, **more), wall(text))
    return world, Cloud(world)


def started(cloud):
    return [name for _, name, _ in cloud.starts]


def told(world, action):
    return [entry.text for entry in world.entries if entry.action == action]


def test_it_is_started_when_its_hours_begin_and_not_stopped_though_nobody_needs_it():
    world, cloud = world_at("2026-11-23T07:59:00")
    cloud.lives(55, up="a")
    assert started(cloud) == []
    cloud.lives(int(IDLE_S) + 200, up="a")
    assert started(cloud) == ["v"]
    assert told(world, "power_start") == ["v is started: these are its hours"]
    assert cloud.up("v")
    assert world.active == "a", "on is not serving"


def test_when_its_hours_are_over_it_is_stopped_as_any_idle_one_is():
    world, cloud = world_at("2026-11-23T18:50:00")
    cloud.lives(590, up="a")
    assert cloud.up("v")
    cloud.lives(int(IDLE_S), up="a")
    assert cloud.up("v"), "let go, and idle for less than it may be"
    cloud.lives(30, up="a")
    assert not cloud.running("v")
    assert told(world, "power_hours") == ["v: its hours are over, so it is let go"]
    cloud.lives(100, up="a")
    assert started(cloud) == ["v"]


def test_one_that_serves_when_its_hours_end_is_drained_if_another_serves():
    world, cloud = world_at("2026-11-23T18:40:00", vm("v", on_hours=DAY), backend("a"))
    cloud.lives(1190, up="a")
    assert world.active == "v"
    cloud.lives(20, up="a")
    assert world.active == "a"
    cloud.lives(130, up="a")
    assert power(world, "v").phase is PowerPhase.ON, "the name is being verified"


def test_one_that_serves_when_its_hours_end_goes_on_while_nobody_else_can_then_it_goes():
    world, cloud = world_at("2026-11-23T18:40:00", vm("v", on_hours=DAY), backend("a"))
    cloud.lives(3000, down="a")
    assert world.active == "v", "the last one serves to its end"
    cloud.lives(20, up="a")
    assert world.active == "a"


def test_traffic_does_not_go_to_a_dearer_one_because_hours_are_over():
    dear = backend("a", tier=Tier.PAID)
    world, cloud = world_at("2026-11-23T18:40:00", vm("v", on_hours=DAY), dear)
    cloud.lives(1500, up="a")
    assert world.active == "v"


@pytest.mark.parametrize("wish", ["pin", "failover"])
def test_what_the_operator_wants_goes_before_the_hours(wish):
    world, cloud = world_at("2026-11-23T18:40:00", backend("a"), vm("v", on_hours=DAY))
    cloud.lives(300, up="a")
    world.give(PinTo("chat", "v", 7200.0) if wish == "pin" else Failover("chat", "v"))
    cloud.lives(1500, up="a")
    assert world.active == "v"


def test_after_a_time_away_only_what_should_be_on_now_is_started():
    for back, starts in (("2026-11-23T12:00:00", ["v"]), ("2026-11-23T20:00:00", [])):
        _, cloud = world_at(back)
        cloud.lives(60, up="a")
        assert started(cloud) == starts


def test_hours_that_ended_while_the_daemon_was_away_are_over_when_it_comes_back():
    world, cloud = world_at("2026-11-23T18:50:00")
    cloud.lives(300, up="a")
    machines = cloud.machines
    world = restarted(world, 1200.0)
    cloud = Cloud(world, machines=machines)
    cloud.lives(int(IDLE_S) + 30, up="a")
    assert not cloud.running("v")


@pytest.mark.parametrize("why", ["paused", "shadow", "drained", "spent", "manual"])
def test_no_hours_start_what_may_not_be_started(why):
    spec = MeterSpec("v:usd", Unit.USD, 5.0, backend="v", rate_per_hour=1.0)
    one = vm("v", on_hours=DAY, auto_start=why != "manual")
    more = {"meters": {"v:usd": spec}, "shadow": why == "shadow"}
    world, cloud = world_at("2026-11-23T07:59:50", backend("a"), one, **more)
    if why == "paused":
        world.give(Pause())
    elif why == "drained":
        world.give(Drain("v"))
    elif why == "spent":
        world.give(ProviderSaid("v:usd", 5.0))
    cloud.lives(120, up="a")
    assert started(cloud) == []
    if why == "paused":
        assert told(world, "would_start") == [
            "v would be started: these are its hours (only observing)"
        ]
        world.give(Resume())
        cloud.lives(10, up="a")
        assert started(cloud) == ["v"]


def test_a_spent_budget_stops_it_in_its_hours():
    spec = MeterSpec("v:usd", Unit.USD, 0.5, backend="v", rate_per_hour=1.0)
    one = vm("v", on_hours=DAY)
    world, cloud = world_at("2026-11-23T08:00:00", backend("a"), one, meters={"v:usd": spec})
    cloud.lives(1900, up="a")
    assert started(cloud) == ["v"]
    assert not cloud.running("v")
    assert world.fleet.meters["v:usd"].out


def test_what_the_operator_stopped_stays_off_for_an_hour_and_no_longer():
    world, cloud = world_at("2026-11-23T08:00:00")
    cloud.lives(100, up="a")
    world.give(Halt("v"))
    cloud.lives(3500, up="a")
    assert started(cloud) == ["v"]
    cloud.lives(200, up="a")
    assert started(cloud) == ["v", "v"]


def test_nothing_is_started_for_the_last_minutes():
    _, cloud = world_at("2026-11-23T18:56:00")
    cloud.lives(200, up="a")
    assert started(cloud) == []


def test_what_a_service_needs_goes_before_what_the_hours_want():
    free, paid = vm("v", on_hours=DAY, tier=Tier.FREE), vm("w", tier=Tier.PAID)
    world, cloud = world_at("2026-11-23T07:00:00", backend("a"), free, paid)
    cloud.fates = ["stockout"]
    cloud.lives(30, down="a")
    assert started(cloud)[:2] == ["v", "w"], "it may be started out of its hours as well"
    assert world.active is None
