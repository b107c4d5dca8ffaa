"""Every promise about quotas and budgets that the simulator watches can be seen broken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.events import Event
from orchestrator.core.lives import PowerPhase
from orchestrator.core.meters import MeterState, ProviderSaid
from orchestrator.core.powering import Halt, Start
from tests.simulation import plans, spending
from tests.simulation.cases import BOOK, Case, judge, sound, unsaid
from tests.simulation.provider import THEIRS
from tests.simulation.sabotage import Steps, believe, decide, fleet, keep, once, order, starts
from tests.simulation.scripted import Act, Rig, short_run
from tests.simulation.virtual import EPOCH

SIX_MINUTES_H = 0.1
BRIEF = replace(BOOK, quota_h=SIX_MINUTES_H)
ALONE = plans.Rented(priority=5, limit_usd=SIX_MINUTES_H * plans.PER_HOUR_USD)
BESIDE = plans.Rented(priority=90, limit_usd=10.0, alone=False)


def forgets(key: str) -> Act:
    """Have a meter forget whatever was used, and its provider say nothing of it."""

    def act(rig: Rig) -> None:
        if key in fleet(rig).meters:
            fleet(rig).meters[key] = MeterState(key, paid_until=rig.steady())

    def sabotage(rig: Rig) -> None:
        real = rig.report

        def report(event: Event) -> None:
            if not isinstance(event, ProviderSaid):
                real(event)

        rig.report = report  # type: ignore[method-assign]
        keep(act)(rig)

    return sabotage


def tells_nobody(rig: Rig) -> None:
    session = fleet(rig).backends["book"].session
    if session is not None and session.orders:
        believe(rig, "book", session=replace(session, orders=()))


def is_away(rig: Rig) -> None:
    rig.away_until = rig.time.true + 600.0
    rig.kill()


def ends_nothing(rig: Rig) -> None:
    rig.cloud.limits = False


def is_not_asked_to(rig: Rig) -> None:
    rig.cloud.heeds = rig.cloud.limits = False


def orphan(rig: Rig) -> None:
    """We go on from an older database, and what had been started since is not in it."""
    rig.cloud.turn_up(f"aion-sim-gpu-{int(EPOCH)}", lasts_s=7200.0)
    rig.kill()


def others(rig: Rig) -> None:
    rig.cloud.lists_all = True
    rig.cloud.turn_up(f"{THEIRS}1", lasts_s=7200.0)


def shows_nothing(rig: Rig) -> None:
    rig.cloud.said = lambda: (3, {})  # type: ignore[method-assign]


def takes_it_for_ours(rig: Rig) -> None:
    power = fleet(rig).backends[plans.RENTED].power
    if power is not None and power.phase is PowerPhase.ON:
        ours = replace(power, launch=f"{THEIRS}1", stray=True)
        believe(rig, plans.RENTED, power=ours)


def takes_it_for_off(rig: Rig) -> None:
    power = fleet(rig).backends[plans.RENTED].power
    if power is not None and power.phase is PowerPhase.STARTING and power.answered:
        off = replace(power, phase=PowerPhase.OFF, launch="", confirmed_at=rig.steady())
        believe(rig, plans.RENTED, power=off)


def never_idle(rig: Rig) -> None:
    power = fleet(rig).backends[plans.RENTED].power
    if power is not None and power.idle_since is not None:
        believe(rig, plans.RENTED, power=replace(power, idle_since=rig.steady()))


def serves_spent(rig: Rig) -> None:
    believe(rig, "colab", exhausted_until=rig.steady() + 3600.0)
    decide(rig, "chat", review_at=None)


def clock(error_s: float) -> Act:
    return lambda rig: rig.step_wall_clock(error_s)


STARTED: Steps = (starts("book"),)

CASES = {
    "a meter forgets the hours of a session": Case(
        "I6", "s more than there is,", STARTED, forgets("book:hours"),
        seconds=1500.0, notebooks=(BRIEF,),
    ),
    "an agent is not told that its hours are used up": Case(
        "I6", "s more than there is,", STARTED, keep(tells_nobody),
        seconds=1500.0, notebooks=(BRIEF,),
    ),
    "nor while our clock is an hour ahead, on the same day": Case(
        "I6", "s more than there is,", (*STARTED, (6.0, clock(3600.0))), forgets("book:hours"),
        seconds=1500.0, notebooks=(BRIEF,),
    ),
    "a meter forgets what was paid": Case(
        "I6", "s after its budget was spent", (), forgets("gpu:usd"),
        seconds=900.0, rented=ALONE,
    ),
    "a provider ends nothing by itself": Case(
        "I6", "s after its budget was spent", ((200.0, is_away),), once(0.5, ends_nothing),
        seconds=900.0, rented=ALONE,
    ),
    "one that its provider does not end is not ended": Case(
        "I6", "s after its budget was spent", ((0.5, is_not_asked_to),), forgets("gpu:usd"),
        seconds=1500.0, rented=ALONE,
    ),
    "a launch is forgotten": Case(
        "I12", "two launches for one need:", (), keep(takes_it_for_off),
        seconds=200.0, rented=replace(ALONE, limit_usd=5.0), also=("I6",),
    ),
    "an idle one is left running": Case(
        "I13", "runs and nobody needs it,", ((60.0, order(Start(plans.RENTED))),), keep(never_idle),
        seconds=1200.0, rented=BESIDE,
    ),
    "a provider shows nothing of what runs": Case(
        "I13", "runs and we know nothing of it,", ((60.0, orphan),), once(59.0, shows_nothing),
        seconds=1200.0, rented=BESIDE,
    ),
    "somebody else's machine is taken for ours": Case(
        "I14", "is somebody else's and was stopped", ((60.0, others),),
        keep(takes_it_for_ours, since=100.0), seconds=700.0, rented=BESIDE,
    ),
    "a spent one serves on": Case(
        "I6", "is spent and serves,", (), keep(serves_spent, since=60.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_nobody_tampered_with_keeps_every_promise(name):
    assert sound(CASES[name]) == ()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_promise_is_named_and_no_other(name):
    judge(CASES[name])


def test_hours_that_our_own_clock_counts_on_another_day_are_no_broken_promise():
    script = (*STARTED, (6.0, clock(21600.0)))
    run = short_run(1500.0, script=script, sabotage=forgets("book:hours"), notebooks=(BRIEF,))
    assert run.breaches == []


def test_what_a_restored_database_knows_nothing_of_is_found_and_ended():
    script: Steps = (
        (30.0, lambda rig: rig.back_up()),
        (60.0, order(Start(plans.RENTED))),
        (200.0, lambda rig: rig.restore()),
    )
    run = short_run(900.0, script=script, rented=BESIDE)
    lines = "\n".join(what for _, who, what in run.machine.trace.lines if who == "aion")
    assert "which is ours and was not known" in lines
    assert run.machine.cloud.running == []
    assert len(run.machine.cloud.machines) == 1
    assert run.breaches == []


def test_an_order_to_stop_it_does_not_stop_what_somebody_else_runs_there():
    run = short_run(
        900.0, script=((60.0, others), (500.0, order(Halt(plans.RENTED)))), rented=BESIDE
    )
    assert [one.label for one in run.machine.cloud.theirs] == [f"{THEIRS}1"]
    assert run.breaches == []


def test_everything_that_can_be_said_of_spending_is_said_in_some_case():
    assert unsaid(spending, CASES.values(), at_least=5) == []
