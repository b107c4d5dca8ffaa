"""Looking ahead: small worlds whose plan can be worked out by hand, and what holds of every plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.lives import Power, PowerPhase, Session
from orchestrator.core.meters import MeterSpec, MeterState, Slot, Unit
from orchestrator.core.model import BackendState, Fleet, Health, Now, Pin, ServiceState
from orchestrator.core.onhours import OnHours
from orchestrator.core.planner import How, Plan, ServicePlan, plan
from orchestrator.core.specs import Backend, FleetConfig, Service, Tier
from orchestrator.core.windows import Per, Window, counts_until

ZONE = "Europe/Lisbon"
HOUR, DAY = 3600.0, 86400.0
DAYTIME = (8 * 60, 23 * 60)
SHIFT = 5_000.0  # wall seconds less steady ones: the plan is in wall time


def moment(text: str) -> float:
    """Read "2026-11-16 09:00" by the operator's clock as Unix seconds."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()


def said(wall: float) -> str:
    return f"{datetime.fromtimestamp(round(wall), ZoneInfo(ZONE)):%a %H:%M}"


def now_at(wall: float) -> Now:
    return Now(wall - SHIFT, wall)


MONDAY = moment("2026-11-16 09:00")


def colab(name: str = "colab", **changes: object) -> Backend:
    given: dict[str, object] = {
        "priority": 10,
        "registers": True,
        "session_s": 12 * HOUR,
        "restart_url": f"https://{name}.example/notebook",
    }
    return Backend(name, "notebook", "ollama", **{**given, **changes})  # type: ignore[arg-type]


def kaggle(name: str = "kaggle", **changes: object) -> Backend:
    given: dict[str, object] = {
        "priority": 20,
        "registers": True,
        "session_s": 9 * HOUR,
        "powered": True,
        "auto_start": True,
    }
    return Backend(name, "kaggle", "ollama", **{**given, **changes})  # type: ignore[arg-type]


def machine(name: str = "vm", **changes: object) -> Backend:
    given: dict[str, object] = {
        "priority": 30,
        "tier": Tier.CREDIT,
        "powered": True,
        "auto_start": True,
    }
    return Backend(name, "gce", "vllm", **{**given, **changes})  # type: ignore[arg-type]


def static(name: str = "lab", **changes: object) -> Backend:
    given: dict[str, object] = {"priority": 40, "url": f"http://{name}.test"}
    return Backend(name, "static", "openai", **{**given, **changes})  # type: ignore[arg-type]


def hours_a_week(backend: str, limit: float = 30.0) -> MeterSpec:
    """Hours that start again on Saturday, at midnight."""
    window = Window(Per.WEEK, ZONE, weekday=5)
    return MeterSpec(f"{backend}:hours", Unit.HOURS, limit, window, backend, 1.0)


def dollars(backend: str, limit: float = 300.0, rate: float = 0.35) -> MeterSpec:
    return MeterSpec(f"{backend}:usd", Unit.USD, limit, Window(), backend, rate)


def fleet(
    *backends: Backend,
    up: Mapping[str, float | None] | None = None,
    at: float = MONDAY,
    meters: tuple[MeterSpec, ...] = (),
    used: Mapping[str, float] | None = None,
    states: Mapping[str, BackendState] | None = None,
    hours: tuple[int, int] | None = DAYTIME,
    services: Mapping[str, tuple[str, ...]] | None = None,
) -> Fleet:
    """A fleet in which those in `up` are up, with so many hours of their session left."""
    steady = at - SHIFT
    pools = services or {"chat": tuple(one.name for one in backends)}
    config = FleetConfig(
        backends={one.name: one for one in backends},
        services={name: Service(name, pool) for name, pool in pools.items()},
        meters={one.key: one for one in meters},
        operator_hours=hours,
        timezone=ZONE,
    )
    found = Fleet(config)
    for one in backends:
        state = BackendState(one.name, health=Health.DOWN, reason="nobody has registered")
        if one.name in (up or {}):
            left = (up or {})[one.name]
            ends_at = None if left is None else steady + left * HOUR
            session = Session("s", steady - HOUR, steady, ends_at=ends_at)
            session_or_none = session if one.registers else None
            state = BackendState(one.name, health=Health.UP, session=session_or_none)
        found.backends[one.name] = (states or {}).get(one.name, state)
    for key, amount in (used or {}).items():
        found.meters[key] = MeterState(key, slots=(Slot(moment("2026-11-21 00:00"), amount),))
    return found


def planned(world: Fleet, hours: float, at: float = MONDAY) -> ServicePlan:
    return whole(world, hours, at).services["chat"]


def whole(world: Fleet, hours: float, at: float = MONDAY) -> Plan:
    return plan(world, now_at(at), hours * HOUR)


def line(found: ServicePlan) -> list[tuple[str, str, str]]:
    return [(said(one.begins), one.backend or "-", one.how.value) for one in found.line]


def uncovered_s(found: ServicePlan) -> float:
    return sum(gap.ends - gap.begins for gap in found.gaps)


# ── small worlds ────────────────────────────────────────────────────────────────────────────────


def test_while_everything_is_fine_there_is_nothing_to_do():
    found = planned(fleet(static(), colab(), up={"lab": None}), 168)
    assert line(found) == [("Mon 09:00", "lab", "serving")]
    assert (found.handovers, found.asks, found.gaps) == ((), (), ())


def test_colab_is_followed_by_kaggle_until_its_week_is_used_up_and_then_by_colab():
    """Every handover is where a session or the 30 hours end; a boot's hole is nobody's fault."""
    world = fleet(colab(), kaggle(), up={"colab": 3}, meters=(hours_a_week("kaggle"),))
    found = planned(world, 48)
    assert line(found) == [
        ("Mon 09:00", "colab", "serving"),
        ("Mon 12:00", "kaggle", "auto"),  # asked 11:48, so its nine hours end 20:48
        ("Mon 20:48", "-", "uncovered"),
        ("Mon 20:53", "kaggle", "auto"),
        ("Tue 05:48", "-", "uncovered"),
        ("Tue 05:53", "kaggle", "auto"),
        ("Tue 14:48", "-", "uncovered"),
        ("Tue 14:53", "kaggle", "auto"),  # three hours are left
        ("Tue 17:41", "colab", "hand"),  # seven minutes before they are over
        ("Tue 23:00", "colab", "hand"),
    ]
    moves = [(said(one.at), one.old, one.new, said(one.start_by or 0)) for one in found.handovers]
    assert moves[0] == ("Mon 12:00", "colab", "kaggle", "Mon 11:48")
    assert ("Tue 17:41", "kaggle", "colab", "Tue 17:31") in moves
    assert found.line[8].why == "kaggle: what it may use is spent"


def test_a_night_that_nobody_covers_is_a_gap_with_what_would_help():
    world = fleet(colab(), up={"colab": 3}, hours=(9 * 60, 18 * 60))
    found = planned(world, 24)
    (gap,) = found.gaps
    assert (said(gap.begins), said(gap.ends)) == ("Tue 06:00", "Tue 09:00")
    assert (gap.backend, gap.usd) == ("colab", 0.0)
    assert gap.do == "start it by hand at Tue 05:50, outside operator hours"
    assert gap.others == (("colab", "nobody is there to start it"),)


def test_what_could_be_up_in_ten_minutes_is_asked_for_at_once():
    found = planned(fleet(colab()), 6)
    (ask,) = found.asks
    assert (ask.at, ask.by) == (MONDAY, MONDAY)
    (gap,) = found.gaps
    assert gap.do == "start it by hand at once"
    assert gap.others == (("colab", "asked for at once it is up at Mon 09:10"),)


def test_a_human_is_asked_before_bed_for_what_ends_in_the_night():
    found = planned(fleet(colab(), up={"colab": 18}), 20)  # until 03:00
    (ask,) = found.asks
    assert (said(ask.at), said(ask.by)) == ("Mon 22:05", "Mon 22:50")
    assert (said(ask.needed_at), ask.why) == ("Tue 03:00", "its session ends")
    assert (said(ask.begins), ask.url) == ("Mon 23:00", "https://colab.example/notebook")
    assert found.gaps == ()
    assert [(one.old, one.new) for one in found.handovers] == [("colab", "colab")]


def test_the_measured_time_to_a_restart_is_what_is_planned_with():
    slow = tuple(60.0 * minutes for minutes in (5, 5, 5, 5, 5, 5, 5, 5, 40, 300))
    state = replace(fleet(colab(), up={"colab": 18}).backends["colab"], hand_starts=slow)
    (ask,) = planned(fleet(colab(), states={"colab": state}), 20).asks
    assert said(ask.by) == "Mon 22:20"  # nine of ten took no longer than 40 minutes


def test_the_learned_boot_time_is_what_is_planned_with():
    world = fleet(colab(), kaggle(), up={"colab": 3})
    world.backends["kaggle"] = replace(world.backends["kaggle"], boots=(600.0, 620.0, 1200.0))
    handover = planned(world, 6).handovers[0]
    assert (said(handover.at), said(handover.start_by or 0)) == ("Mon 12:00", "Mon 11:33")


def test_hours_that_start_again_on_saturday_are_used_from_then():
    at = moment("2026-11-20 20:00")  # Friday
    world = fleet(kaggle(), meters=(hours_a_week("kaggle"),), used={"kaggle:hours": 29.9}, at=at)
    found = planned(world, 12, at)
    assert line(found) == [("Fri 20:00", "-", "uncovered"), ("Sat 00:05", "kaggle", "auto")]
    (gap,) = found.gaps
    assert (gap.backend, gap.do) == ("kaggle", "raise its limit, or buy more")
    assert gap.others == (("kaggle", "what it may use is spent until Sat 00:00"),)


def test_credit_that_expires_covers_nothing_from_then_on():
    expires = Window(expires_at=MONDAY + 6 * HOUR)
    meter = MeterSpec("vm:usd", Unit.USD, 300.0, expires, "vm", 0.35)
    found = planned(fleet(machine(), meters=(meter,)), 12)
    assert line(found)[1:] == [("Mon 09:05", "vm", "auto"), ("Mon 15:00", "-", "uncovered")]


def test_a_rolling_quota_comes_back_when_what_was_used_of_it_is_forgotten():
    meter = MeterSpec("kaggle:h", Unit.HOURS, 10.0, Window(Per.DAY, ZONE, True), "kaggle", 1.0)
    world = fleet(kaggle(session_s=None), meters=(meter,))
    used = (Slot(MONDAY + 4 * HOUR, 7.0), Slot(MONDAY + 9 * HOUR, 1.0))
    world.meters[meter.key] = MeterState(meter.key, slots=used)  # two of ten hours are left
    assert line(planned(world, 8)) == [
        ("Mon 09:00", "-", "uncovered"),
        ("Mon 09:05", "kaggle", "auto"),
        ("Mon 11:00", "-", "uncovered"),
        ("Mon 13:05", "kaggle", "auto"),
    ]


def test_of_those_that_a_human_starts_the_one_that_lasts_longest_is_asked_for():
    few = hours_a_week("a", 5.0)
    world = fleet(colab("a", priority=1), colab("b", priority=2), meters=(few,))
    assert {ask.backend for ask in planned(world, 12).asks} == {"b"}


def test_what_costs_money_starts_only_when_nothing_cheaper_can_be_ready():
    paid = machine("paid", tier=Tier.PAID, priority=5)
    prices = (dollars("paid", rate=2.0), dollars("vm"))
    everything = fleet(static(), kaggle(), machine(), paid, up={"lab": None}, meters=prices)
    assert {one.backend for one in planned(everything, 48).line} == {"lab"}
    free = fleet(kaggle(session_s=None), machine(), paid, meters=prices)
    assert [one.backend for one in planned(free, 48).line] == [None, "kaggle"]
    credit = fleet(machine(), paid, meters=prices, up={})
    assert {one.backend for one in planned(credit, 48).line} == {None, "vm"}
    alone = planned(fleet(paid, meters=prices), 48)
    assert [one.backend for one in alone.line] == [None, "paid"]
    assert alone.line[1].usd == pytest.approx(2.0 * (48 - 300 / 3600))


def test_credit_covers_the_minutes_in_which_the_free_one_starts_again():
    world = fleet(kaggle(), machine(), up={"kaggle": 2}, meters=(dollars("vm"),))
    found = planned(world, 4)
    assert line(found) == [
        ("Mon 09:00", "kaggle", "serving"),
        ("Mon 11:00", "vm", "auto"),
        ("Mon 11:05", "kaggle", "auto"),
    ]
    assert whole(world, 4).usd == pytest.approx(0.35 * (420 + 300 + 300) / 3600)


def test_a_machine_keeps_its_hours_for_when_no_human_can_help():
    """Nine hours are left until Saturday: one night's worth, and the human is there by day."""
    at = moment("2026-11-19 18:00")  # Thursday
    world = fleet(
        colab(session_s=5 * HOUR),
        kaggle(session_s=None),
        up={"colab": 1},
        at=at,
        meters=(hours_a_week("kaggle"),),
        used={"kaggle:hours": 24.0},
    )
    found = planned(world, 24, at)
    assert [(said(one.begins), one.backend) for one in found.line][:4] == [
        ("Thu 18:00", "colab"),
        ("Thu 18:53", "colab"),
        ("Thu 23:00", "colab"),
        ("Fri 04:00", "kaggle"),
    ]
    assert found.gaps == ()


def test_a_pin_and_a_planned_switchover_are_in_the_plan():
    world = fleet(static("a", priority=1), static("b", priority=2), up={"a": None, "b": None})
    world.services["chat"] = ServiceState("chat", "b", pin=Pin("b", MONDAY - SHIFT + 2 * HOUR))
    assert line(planned(world, 4)) == [
        ("Mon 09:00", "b", "serving"),
        ("Mon 11:00", "a", "serving"),
    ]


def test_nobody_is_asked_for_the_minutes_of_a_boot():
    found = planned(fleet(kaggle(), colab(priority=30), up={"kaggle": 2}), 8)
    assert found.asks == ()
    (gap,) = found.gaps
    assert gap.ends - gap.begins == 300.0
    assert dict(gap.others)["colab"] == "for 5 min nobody is asked to start it"


def test_what_is_drained_or_refuses_us_covers_nothing_and_says_so():
    gone = BackendState("lab", Health.UP, drained=True)
    shut = BackendState("b", Health.UP, denied="401")
    found = planned(fleet(static(), static("b"), states={"lab": gone, "b": shut}), 4)
    (gap,) = found.gaps
    assert (gap.backend, gap.do) == ("lab", "aion backend undrain lab")
    assert gap.others == (("lab", "it is drained"), ("b", "it refuses us (401)"))


def test_one_that_only_the_operator_may_start_is_offered_with_its_price():
    world = fleet(machine(auto_start=False), meters=(dollars("vm"),))
    (gap,) = planned(world, 10).gaps
    assert (gap.backend, gap.do, gap.usd) == ("vm", "aion backend start vm", pytest.approx(3.5))


@pytest.mark.parametrize(
    ("problem", "loading_at", "counts"),
    [("", None, True), ("HTTP 503", 5.0, True), ("name not found", None, False)],
)
def test_what_registered_and_cannot_prove_itself_is_not_counted_on(problem, loading_at, counts):
    at = MONDAY - SHIFT
    pending = Session("s", at, at, problem=problem, loading_at=loading_at)
    state = BackendState("colab", Health.STARTING, pending=pending)
    found = planned(fleet(colab(), states={"colab": state}), 4)
    assert (uncovered_s(found) == 0) is counts


def test_a_machine_that_is_on_needs_no_boot_and_one_that_starts_is_waited_for():
    on = Power(PowerPhase.ON)
    state = BackendState("vm", Health.UP, power=on)
    assert line(planned(fleet(machine(), states={"vm": state}), 4)) == [("Mon 09:00", "vm", "auto")]
    asked = Power(PowerPhase.STARTING, launch="aion-vm-1", launched_at=MONDAY - SHIFT - 100.0)
    state = BackendState("vm", Health.DOWN, power=asked)
    found = planned(fleet(machine(), states={"vm": state}), 4)
    assert found.gaps[0].ends - MONDAY == pytest.approx(200.0)


def test_one_session_serves_every_service_that_it_is_in():
    world = fleet(
        kaggle(session_s=None),
        static("a"),
        services={"chat": ("kaggle",), "embed": ("kaggle", "a")},
        meters=(hours_a_week("kaggle", 10.0),),
    )
    found = whole(world, 24)
    assert uncovered_s(found.services["chat"]) == pytest.approx(14 * HOUR + 300)
    assert uncovered_s(found.services["embed"]) == pytest.approx(14 * HOUR + 300)


@pytest.mark.parametrize(
    ("day", "asked", "night_h"),
    [
        ("2027-03-27", "Sat 22:50", 8),  # the night in which an hour is missing
        ("2026-10-24", "Sat 22:50", 10),  # … and the one that has one more
        ("2026-11-16", "Mon 22:50", 9),
    ],
)
def test_the_nights_of_daylight_saving_are_an_hour_shorter_or_longer(day, asked, night_h):
    at = moment(f"{day} 20:00")
    found = planned(fleet(colab(session_s=4 * HOUR), up={"colab": 1}, at=at), 24, at)
    assert asked in [said(ask.by) for ask in found.asks]
    gap = found.gaps[0]
    assert said(gap.begins)[4:] == {8: "04:00", 10: "02:00", 9: "03:00"}[night_h]
    assert said(gap.ends)[4:] == "08:10"
    assert (gap.ends - gap.begins) / HOUR == pytest.approx(night_h - 4 + 1 / 6)


def test_operator_hours_may_cross_midnight():
    found = planned(fleet(colab(), up={"colab": 8}, hours=(20 * 60, 2 * 60)), 24)
    assert [said(ask.by) for ask in found.asks] == ["Mon 20:00", "Tue 01:50"]
    assert [(said(gap.begins), said(gap.ends)) for gap in found.gaps] == [
        ("Mon 17:00", "Mon 20:10")
    ]


def test_in_its_hours_a_machine_is_planned_though_nobody_needs_it_and_out_of_them_by_need():
    office = OnHours(8 * 60, 19 * 60)
    world = fleet(colab(), machine(on_hours=office), up={"colab": 1})
    found = planned(world, 36)
    assert {one.backend for one in found.line} == {"colab"}, "what costs nothing is asked for"
    beside = [(said(one.begins), said(one.ends)) for one in found.beside if one.backend == "vm"]
    assert beside == [("Mon 09:05", "Mon 19:00"), ("Tue 08:05", "Tue 19:00")]
    alone = planned(fleet(machine(on_hours=office)), 24)
    assert uncovered_s(alone) == 300.0, "it boots once, and is kept on where it is needed"


def test_a_machine_that_is_kept_on_until_its_hours_begin_boots_no_more():
    office = OnHours(12 * 60, 19 * 60)
    vm = machine(on_hours=office)
    found = planned(fleet(colab(), vm, up={"colab": 2}, hours=(20 * 60, 21 * 60)), 12)
    assert line(found) == [
        ("Mon 09:00", "colab", "serving"),
        ("Mon 11:00", "vm", "auto"),
        ("Mon 12:00", "vm", "auto"),
        ("Mon 20:10", "colab", "hand"),
    ]
    assert not found.gaps


# ── every plan ──────────────────────────────────────────────────────────────────────────────────

QUARTER = 900.0
HOURS = (None, None, OnHours(8 * 60, 19 * 60), OnHours(22 * 60, 2 * 60, (0, 2, 4)))


@st.composite
def backends(draw: st.DrawFn, name: str) -> tuple[Backend, BackendState, tuple[MeterSpec, ...]]:
    """Any backend: what it is, how it stands, what it may use."""
    steady = MONDAY - SHIFT
    kind = draw(st.sampled_from((colab, kaggle, machine, static)))
    session_s = draw(st.sampled_from((None, 2 * HOUR, 9 * HOUR, 12 * HOUR)))
    priority = draw(st.integers(1, 5))
    tier = draw(st.sampled_from(Tier)) if kind in (machine, kaggle) else Tier.FREE
    if kind is static:
        spec = static(name, priority=priority)
    else:
        spec = kind(name, priority=priority, session_s=session_s, tier=tier)
    if spec.powered:
        spec = replace(spec, on_hours=draw(st.sampled_from(HOURS)))
    up = draw(st.booleans())
    health = Health.UP if up else Health.DOWN
    state = BackendState(name, health, drained=draw(st.integers(0, 9)) == 0)
    if spec.registers and up:
        left_s = draw(st.integers(1, 48)) * QUARTER
        state = replace(state, session=Session("s", steady, steady, ends_at=steady + left_s))
    meters: tuple[MeterSpec, ...] = ()
    if spec.powered and draw(st.booleans()):
        per = draw(st.sampled_from((Per.DAY, Per.WEEK, Per.EVER)))
        limit = float(draw(st.integers(1, 30)))
        meters = (MeterSpec(f"{name}:h", Unit.HOURS, limit, Window(per, ZONE), name, 1.0),)
    return spec, state, meters


@st.composite
def fleets(draw: st.DrawFn, most: int = 4) -> Fleet:
    members = [draw(backends(f"b{at}")) for at in range(draw(st.integers(1, most)))]
    hours = draw(st.sampled_from((None, DAYTIME, (9 * 60, 12 * 60), (22 * 60, 3 * 60))))
    return together(members, hours)


def together(
    members: list[tuple[Backend, BackendState, tuple[MeterSpec, ...]]],
    hours: tuple[int, int] | None,
) -> Fleet:
    specs = sorted((spec for spec, _, _ in members), key=lambda one: (one.priority, one.name))
    return fleet(
        *specs,
        states={spec.name: state for spec, state, _ in members},
        meters=tuple(meter for _, _, meters in members for meter in meters),
        hours=hours,
    )


@given(fleets(), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_the_stretches_of_a_service_tile_the_time_without_overlap(world, hours):
    found = planned(world, hours)
    assert (found.line[0].begins, found.line[-1].ends) == (MONDAY, MONDAY + hours * HOUR)
    for one, other in pairwise(found.line):
        assert one.begins < one.ends == other.begins
    gaps = [(one.begins, one.ends) for one in found.line if one.how is How.UNCOVERED]
    assert gaps == [(gap.begins, gap.ends) for gap in found.gaps]


@given(fleets(), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_nobody_is_planned_beyond_a_session_s_end_or_what_a_meter_holds(world, hours):
    found = planned(world, hours)
    for name, spec in world.config.backends.items():
        spans = [(o.begins, o.ends) for o in (*found.line, *found.beside) if o.backend == name]
        session = world.backends[name].session
        if session is not None and session.ends_at is not None:
            running = [o for o in found.line if o.backend == name and o.how is How.SERVING]
            assert all(one.ends <= session.ends_at + SHIFT for one in running)
        if spec.session_s is not None:
            asked = [o for o in found.line if o.backend == name and o.how is not How.SERVING]
            assert all(one.ends - one.begins <= spec.session_s for one in asked)
        for meter in world.config.meters.values():
            if meter.backend == name:
                _within(meter, spans, MONDAY + hours * HOUR)


def _within(meter: MeterSpec, spans: list[tuple[float, float]], until: float) -> None:
    """In no period of the meter more is planned than there is in one."""
    begins = MONDAY
    while begins < until:
        ends = counts_until(meter.window, begins)
        on = sum(max(0.0, min(e, ends) - max(b, begins)) for b, e in spans)
        assert on <= (meter.limit or 0.0) * HOUR + 1e-3
        begins = ends


@given(fleets(), st.integers(1, 100))
@settings(max_examples=150, deadline=None)
def test_a_human_is_only_asked_in_operator_hours(world, hours):
    found = planned(world, hours)
    allowed = world.config.operator_hours
    for ask in found.asks:
        assert MONDAY <= ask.at <= ask.by < ask.begins
        if allowed is None:
            continue
        for wall in (ask.at, ask.by):
            local = datetime.fromtimestamp(wall, ZoneInfo(ZONE))
            minute = local.hour * 60 + local.minute
            inside = allowed[0] <= minute <= allowed[1]
            crossing = minute >= allowed[0] or minute <= allowed[1]
            assert inside if allowed[0] < allowed[1] else crossing


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_more_backend_never_adds_uncovered_time(data):
    """But for the minutes of a boot: which of them are uncovered depends on when each begins."""
    hours = data.draw(st.sampled_from((None, DAYTIME, (9 * 60, 12 * 60))))
    members = [data.draw(backends(f"b{at}")) for at in range(data.draw(st.integers(1, 3)))]
    more = data.draw(backends("more"))
    before = planned(together(members, hours), 72)
    after = planned(together([*members, more], hours), 72)
    boots = sum(one.how in (How.AUTO, How.HAND) for one in (*before.line, *after.line))
    assert uncovered_s(after) <= uncovered_s(before) + boots * QUARTER


def test_planning_changes_nothing():
    world = fleet(colab(), kaggle(), up={"colab": 3}, meters=(hours_a_week("kaggle"),))
    before = (dict(world.backends), dict(world.services), dict(world.meters))
    assert plan(world, now_at(MONDAY), DAY) == plan(world, now_at(MONDAY), DAY)
    assert before == (world.backends, world.services, world.meters)
