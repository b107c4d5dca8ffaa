"""Meters in the fleet: who is on, whose quota is spent, and what the operator hears of it."""

from dataclasses import replace

import pytest

from orchestrator.core.events import ProviderSaid, Reconfigured, Spent
from orchestrator.core.fleet import resumed
from orchestrator.core.lives import Do, Power, PowerPhase, Session
from orchestrator.core.meters import MeterSpec, Unit, reserved, used
from orchestrator.core.model import Fleet, Now
from orchestrator.core.powering import Ask, PowerReport, PowerReported, Snag, Usage
from orchestrator.core.registry import Proved
from orchestrator.core.windows import Per, Window
from tests.core.worlds import World, backend, config

HOUR = 3600.0
DAY = Window(Per.DAY)
GPU = MeterSpec("a:hours", Unit.HOURS, 3.0, DAY, "a", rate_per_hour=1.0)
RENT = MeterSpec("a:usd", Unit.USD, 10.0, backend="a", rate_per_hour=0.5)
CALLS = MeterSpec("a:requests", Unit.REQUESTS, 100.0, DAY, "a")
BEGIN = 86400.0 * 12.5  # noon


def metered(*specs: MeterSpec, **stored: object) -> World:
    meters = {spec.key: spec for spec in specs}
    pool = (backend("a"), backend("b"))
    return World(config(*pool, meters=meters), BEGIN, **stored)


def session(world: World, began: float | None) -> None:
    """Give `a` a session, or end it, behind the fleet's back."""
    life = None if began is None else Session("s", began, world.at, lease_s=10 * 86400.0)
    world.fleet.backends["a"] = replace(world.fleet.backends["a"], session=life)


def of_kind(world: World, **kind: object) -> None:
    """Make `a` of a kind that registers, or is started."""
    fleet_config = world.fleet.config
    backends = {**fleet_config.backends, "a": replace(fleet_config.backends["a"], **kind)}  # type: ignore[arg-type]
    world.fleet.config = replace(fleet_config, backends=backends)


def run(world: World, seconds: float, step: float = 4.0) -> None:
    """Let time pass, everybody being well: ticks come at least every 5 s."""
    end = world.at + seconds
    while world.at < end:
        world.tick(step)
        world.sees("a")
        world.sees("b")


def is_used(world: World, key: str) -> float:
    return used(world.fleet.meters[key], world.at)


# ── who is on ───────────────────────────────────────────────────────────────────────────────────


def test_a_session_uses_hours_as_long_as_it_lasts():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, HOUR)
    assert abs(is_used(world, "a:hours") - 1) < 0.01
    session(world, None)
    run(world, HOUR)
    assert abs(is_used(world, "a:hours") - 1) < 0.02


def test_power_costs_from_the_start_to_the_confirmed_stop():
    world = metered(RENT)
    of_kind(world, powered=True)
    for phase, hours in (("starting", 1), ("on", 2), ("stopping", 1), ("off", 4)):
        power = Power(PowerPhase(phase), since=world.at)
        world.fleet.backends["a"] = replace(world.fleet.backends["a"], power=power)
        run(world, hours * HOUR)
    assert abs(is_used(world, "a:usd") - 2) < 0.01


def test_what_cannot_be_turned_off_always_costs():
    world = metered(RENT)
    run(world, 2 * HOUR)
    assert abs(is_used(world, "a:usd") - 1) < 0.01


def test_blocks_are_stored_minutes_apart_and_nothing_else_is():
    world = metered(RENT)
    world.up("a", "b")
    run(world, 300)
    seen = len(world.turns)
    run(world, HOUR)
    stored = [turn for turn in world.turns[seen:] if turn.durable]
    assert len(stored) == 4


# ── being spent ─────────────────────────────────────────────────────────────────────────────────


def test_a_backend_whose_quota_is_spent_gives_way_and_returns_after_the_reset():
    world = metered(CALLS)
    world.up("a", "b")
    assert world.active == "a"
    world.give(Spent((("a:requests", 100.0),)))
    run(world, 8)
    assert world.active == "b"
    until = world.fleet.backends["a"].exhausted_until
    assert until is not None
    assert abs(until - (BEGIN + 43200)) < 60
    world.at = BEGIN + 43200 - 10
    run(world, 700)
    assert world.fleet.backends["a"].exhausted_until is None
    assert world.active == "a"


def test_hours_are_barred_before_the_last_minutes_are_gone():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at - 2.8 * HOUR)
    run(world, 30)
    assert world.fleet.backends["a"].exhausted_until is None
    run(world, 0.12 * HOUR)
    assert world.fleet.backends["a"].exhausted_until is not None
    assert is_used(world, "a:hours") < 3


def test_a_warning_bars_nobody():
    world = metered(replace(CALLS, advisory=True))
    world.up("a", "b")
    world.give(Spent((("a:requests", 100.0),)))
    run(world, 8)
    assert world.active == "a"
    assert "meter_spent:a:requests" in world.fleet.incidents


def test_a_meter_that_is_gone_bars_nobody():
    world = metered(CALLS)
    world.up("a", "b")
    world.give(Spent((("a:requests", 100.0),)))
    run(world, 8)
    world.give(Reconfigured(replace(world.fleet.config, meters={})))
    run(world, 8)
    assert world.fleet.backends["a"].exhausted_until is None
    assert "meter_spent:a:requests" not in world.fleet.incidents


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_taken_out_of_the_file_and_put_back_has_used_what_it_had(restarted):
    world = metered(CALLS, RENT)
    of_kind(world, registers=True)
    session(world, world.at)
    world.give(Spent((("a:requests", 70.0),)))
    run(world, 2 * HOUR)
    full = world.fleet.config
    world.give(Reconfigured(replace(full, meters={})))
    session(world, None)
    run(world, 60)
    if restarted:
        config, meters = world.fleet.config, world.fleet.meters
        world.fleet = resumed(config, world.now, meters=dict(meters))
    run(world, 600)
    world.give(Reconfigured(full))
    run(world, 60)
    assert is_used(world, "a:requests") == 70
    spent = is_used(world, "a:usd")
    assert 1 <= spent <= 1 + 0.5 * 0.3, "two hours, and what was reserved of the third"
    assert [round(month.counted, 3) for month in world.fleet.meters["a:usd"].months] == [
        pytest.approx(spent, abs=0.001)
    ]


def test_what_the_last_life_left_open_of_a_meter_that_is_gone_is_spent_when_it_comes_back():
    world = metered(RENT)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 60)
    meters, full = dict(world.fleet.meters), world.fleet.config
    assert meters["a:usd"].block is not None
    gone = replace(full, meters={})
    world.at += 30 * 24 * HOUR
    world.fleet = resumed(gone, world.now, meters=meters)
    world.give(Reconfigured(full))
    run(world, 60)
    assert is_used(world, "a:usd") == pytest.approx(meters["a:usd"].block.amount)


def test_the_books_of_a_meter_that_was_never_used_or_is_gone_for_years_are_thrown_away():
    world = metered(CALLS)
    world.give(Reconfigured(replace(world.fleet.config, meters={})))
    assert world.fleet.meters == {}
    world = metered(CALLS)
    world.give(Spent((("a:requests", 1.0),)))
    world.give(Reconfigured(replace(world.fleet.config, meters={})))
    assert list(world.fleet.meters) == ["a:requests"]
    world.at += 500 * 24 * HOUR
    world.give(Reconfigured(world.fleet.config))
    assert world.fleet.meters == {}


def test_what_nobody_knows_is_not_counted():
    world = metered(CALLS)
    assert not world.give(Spent((("gone:requests", 1.0), ("a:requests", 0.0)))).durable
    assert not world.give(ProviderSaid("gone:requests", 1.0)).durable


# ── what the operator hears ─────────────────────────────────────────────────────────────────────


def test_the_operator_hears_at_80_and_95_percent_and_when_it_is_spent():
    world = metered(CALLS)
    world.up("a", "b")
    run(world, 40)
    for amount, kind, percent in ((81, "low", "80"), (15, "low", "95"), (5, "spent", None)):
        world.give(Spent((("a:requests", float(amount)),)))
        run(world, 8)
        incident = world.fleet.incidents[f"meter_{kind}:a:requests"]
        assert incident.params.get("percent") == percent
        assert incident.params["limit"] == "100"
    assert "meter_low:a:requests" not in world.fleet.incidents


def test_the_operator_hears_it_when_it_will_not_last_until_its_reset():
    world = metered(replace(CALLS, limit=1000.0))
    world.up("a", "b")
    run(world, 40)
    world.give(Spent((("a:requests", 550.0),)))
    run(world, 8)
    incident = world.fleet.incidents["meter_low:a:requests"]
    assert "percent" not in incident.params
    world.at += 4 * HOUR
    run(world, 8)
    assert "meter_low:a:requests" not in world.fleet.incidents


def test_an_open_warning_is_not_written_anew_all_the_time():
    world = metered(CALLS)
    world.up("a", "b")
    run(world, 40)
    world.give(Spent((("a:requests", 85.0),)))
    run(world, 8)
    seen = len(world.turns)
    run(world, 600)
    assert not any(turn.durable for turn in world.turns[seen:])


# ── the provider ────────────────────────────────────────────────────────────────────────────────


def test_what_the_provider_says_counts_at_once():
    world = metered(CALLS)
    world.up("a", "b")
    world.give(ProviderSaid("a:requests", 100.0))
    run(world, 8)
    assert world.active == "b"


# ── starts and sleeps ───────────────────────────────────────────────────────────────────────────


def again(world: World, seconds: float) -> Fleet:
    """Start anew so many seconds later, from what is stored."""
    at = world.at + seconds
    stored = {"backends": world.fleet.backends, "meters": world.fleet.meters}
    return resumed(world.fleet.config, Now(at, at), world=world.fleet.world, **stored)


def test_what_a_provider_reports_with_the_state_of_its_machine_counts_too():
    world = metered(GPU)
    of_kind(world, powered=True)
    run(world, 10)
    usage = (Usage("hours", 1.25), Usage("requests", 7.0))
    off = PowerReport(PowerPhase.OFF, usage=usage)
    world.give(PowerReported("a", Ask.STATUS, off, began_at=world.at))
    assert is_used(world, "a:hours") == pytest.approx(1.25)
    unread = PowerReport(snag=Snag.TRANSIENT, usage=(Usage("hours", 1.5),))
    world.give(PowerReported("a", Ask.STATUS, unread, began_at=world.at))
    assert is_used(world, "a:hours") == pytest.approx(1.5)


def test_where_the_provider_gives_less_than_was_configured_only_that_much_can_be_used():
    world = metered(GPU)
    of_kind(world, powered=True)
    run(world, 10)
    report = PowerReport(PowerPhase.OFF, usage=(Usage("hours", 0.5, limit=1.0),))
    world.give(PowerReported("a", Ask.STATUS, report, began_at=world.at))
    assert is_used(world, "a:hours") == pytest.approx(2.5)


def test_a_start_forfeits_the_open_block_and_the_next_turn_stores_that():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 60)
    session(world, None)  # it ended while nobody was there
    fleet = again(world, 30)
    assert fleet.meters["a:hours"].block is None
    assert used(fleet.meters["a:hours"], world.at) == 0.25
    world.fleet = fleet
    first = len(world.turns)
    world.tick(5)
    stored = [
        turn.meters["a:hours"] for turn in world.turns[first:] if turn.durable and turn.meters
    ]
    assert stored
    assert stored[0] is not None
    assert used(stored[0], world.at) == 0.25


def test_a_session_that_went_on_meanwhile_is_paid_for():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 60)
    fleet = again(world, HOUR)
    assert abs(used(fleet.meters["a:hours"], world.at) - 61 / 60) < 0.01


def test_a_session_is_not_paid_for_beyond_its_end():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 60)
    state = world.fleet.backends["a"]
    assert state.session is not None
    ends = replace(state.session, ends_at=world.at + HOUR)
    world.fleet.backends["a"] = replace(state, session=ends)
    fleet = again(world, 20 * HOUR)
    assert abs(used(fleet.meters["a:hours"], world.at) - 61 / 60) < 0.01


def test_what_went_on_while_the_machine_slept_is_paid_for():
    world = metered(RENT)
    run(world, 60)
    world.boot_offset += HOUR
    world.wall_offset += HOUR
    run(world, 8)
    assert abs(is_used(world, "a:usd") - 0.5 * 1.02) < 0.01


def test_a_counted_meter_holds_a_block_ready():
    world = metered(CALLS)
    run(world, 8)
    assert reserved(world.fleet.meters["a:requests"]) == 2


def test_the_agent_of_a_session_whose_hours_are_used_up_is_told_to_save_and_stop():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 2.5 * HOUR)
    assert world.fleet.backends["a"].session.orders == ()
    run(world, HOUR)
    told = [order.do for order in world.fleet.backends["a"].session.orders]
    assert told == [Do.SAVE, Do.STOP]


def test_one_that_is_started_although_its_hours_are_used_up_is_told_to_stop_once_it_can_be():
    world = metered(GPU)
    of_kind(world, registers=True)
    session(world, world.at)
    run(world, 4 * HOUR)
    state = world.fleet.backends["a"]
    assert state.exhausted_until is not None
    late = Session("late", world.at, world.at, lease_s=900.0, url="https://a.example")
    world.fleet.backends["a"] = replace(state, session=None, pending=late)
    world.give(Proved("a", "late", ok=True))
    told = [order.do for order in world.fleet.backends["a"].session.orders]
    assert told == [Do.SAVE, Do.STOP]


def test_a_spent_quota_of_requests_stops_nobody():
    world = metered(CALLS)
    of_kind(world, registers=True)
    session(world, world.at)
    world.give(Spent((("a:requests", 100.0),)))
    assert world.fleet.backends["a"].exhausted_until is not None
    assert world.fleet.backends["a"].session.orders == ()
