"""Killed at any place where it could matter, aion goes on as if nothing had been."""

from __future__ import annotations

import os

import pytest

from orchestrator.core.events import Turn
from tests.simulation.scripted import Act, Rig
from tests.simulation.sweep import (
    EVERY_HTTP,
    QUIET,
    Baseline,
    chosen,
    killed,
    shown,
    summary,
    swept,
    undisturbed,
)

JOBS = min(2, len(os.sched_getaffinity(0)))
KINDS = {
    "commit",
    "committed",
    "http",
    "dns read",
    "dns was read",
    "dns write",
    "dns was written",
    "send",
    "sent",
}


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return undisturbed()


def first(baseline: Baseline, kind: str, *, after: float) -> int:
    """Find the first boundary of that kind after that second."""
    passed = enumerate(baseline.passed, 1)
    return next(number for number, (at, one) in passed if one == kind and at > after)


@pytest.mark.timeout(600)
def test_a_kill_at_any_boundary_changes_nothing_and_loses_no_notice(baseline):
    numbers = chosen(baseline.passed, EVERY_HTTP)
    assert {baseline.passed[number - 1][1] for number in numbers} == KINDS
    outcomes = list(swept(baseline, numbers, JOBS))
    assert [shown(one) for one in outcomes if not one.well] == [], summary(outcomes)
    assert len(outcomes) == len(numbers)


def test_the_script_goes_through_all_that_is_named(baseline):
    told = set().union(*(one.told for one in baseline.standing))
    for subject in ("moved moved chat", "moved moved embed"):
        assert subject in told
    for topic in ("backend_down colab", "dns_unreachable chat", "paused", "paused_dead chat"):
        assert {f"opened {topic}", f"closed {topic}"} <= told
    assert {"opened alerts_down first", "closed alerts_down second"} <= told
    assert [one.state["chat"][0] for one in baseline.standing] == [
        "colab", "lab", "colab", "colab", "colab"
    ]  # fmt: skip
    last = baseline.standing[-1].state
    assert last["lab"][1], "lab is drained"
    assert last["embed"][:2] == ("kaggle", ("kaggle", False))


def test_the_same_script_twice_passes_the_same_boundaries(baseline):
    assert undisturbed() == baseline


# ── that it can fail ────────────────────────────────────────────────────────────────────────────


def unwritten(**values: object) -> Act:
    """Leave something out of whatever is committed, and apply it all the same."""

    def sabotage(rig: Rig) -> None:
        kept: dict[str, object] = {}

        def put(turn: Turn, parts: dict[str, object]) -> None:
            for name, part in parts.items():
                object.__setattr__(turn, name, part)

        def before(turn: Turn) -> None:
            kept.update({name: getattr(turn, name) for name in values})
            put(turn, values)

        rig.before_commit = before
        rig.after_commit = lambda turn: put(turn, kept)

    return sabotage


def test_a_notice_that_is_not_in_the_commit_is_lost_by_a_kill(baseline):
    number = first(baseline, "send", after=40.0)
    assert killed(number, baseline=baseline).well
    outcome = killed(number, baseline=baseline, sabotage=unwritten(notices={}))
    assert outcome.lost == ["1:opened", "moved:chat:2", "nobody heard of opened backend_down colab"]


def test_sent_notices_that_are_not_noted_as_sent_are_repeated_by_a_kill(baseline):
    def never_noted(rig: Rig) -> None:
        def before(turn: Turn) -> None:
            unsent = {id_: one for id_, one in turn.notices.items() if one.sent_at is None}
            kept["notices"] = turn.notices
            object.__setattr__(turn, "notices", unsent)

        kept: dict[str, object] = {}
        rig.before_commit = before
        rig.after_commit = lambda turn: object.__setattr__(turn, "notices", kept["notices"])

    number = first(baseline, "http", after=120.0)
    assert killed(number, baseline=baseline).repeated == 0
    assert killed(number, baseline=baseline, sabotage=never_noted).repeated > 1


def test_a_move_that_is_not_in_the_commit_is_seen(baseline):
    number = first(baseline, "committed", after=QUIET[0])
    outcome = killed(number, baseline=baseline, sabotage=unwritten(services={}))
    assert any(one.startswith("chat: ('colab'") for one in outcome.divergences), outcome
