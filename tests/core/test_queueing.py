"""A launch in its provider's queue: waited for, not for ever, and holding nobody up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.lives import PowerPhase, Session
from orchestrator.core.powering import (
    Ask,
    AskPower,
    PowerReport,
    PowerReported,
    Start,
    StartBackend,
    StopBackend,
)
from orchestrator.core.queueing import BEGUN_S, LOADING_S, LONGEST_S, PATIENCE_S
from orchestrator.core.specs import Tier
from tests.core.worlds import World, backend, config

KAGGLE, DEAR = "kaggle", "dear"


class Queue(World):
    """Two that can be started; what the first one's provider says is asked every ten seconds."""

    state = PowerReport(PowerPhase.OFF)

    def __init__(self) -> None:
        more = {"powered": True, "auto_start": True}
        first = backend(KAGGLE, priority=10, **more)
        second = backend(DEAR, priority=20, tier=Tier.CREDIT, **more)
        super().__init__(config(first, second))

    def runs(self, seconds: float) -> None:
        """Let time pass; nobody is up."""
        for second in range(int(seconds)):
            self.tick()
            if second % 10 == 0:
                self.says(KAGGLE, self.state)
                self.says(DEAR, PowerReport(PowerPhase.OFF))

    def says(self, name: str, report: PowerReport) -> None:
        self.give(PowerReported(name, Ask.STATUS, report, "", self.at))

    @property
    def power(self):
        return self.fleet.backends[KAGGLE].power

    def started(self) -> list[str]:
        return [one.backend for one in self.effects if isinstance(one, StartBackend)]

    def stopped(self) -> list[str]:
        return [one.backend for one in self.effects if isinstance(one, StopBackend)]

    def queues(self) -> None:
        """Have it started, and taken into the queue."""
        self.runs(5)
        if not self.power.launch:
            self.give(Start(KAGGLE))
        label = self.power.launch
        self.give(PowerReported(KAGGLE, Ask.START, PowerReport(PowerPhase.STARTING, label), label))
        self.state = PowerReport(PowerPhase.STARTING, label, queued=True)

    def begins(self) -> None:
        self.state = PowerReport(PowerPhase.ON, self.power.launch)


@pytest.fixture
def queue():
    made = Queue()
    made.queues()
    return made


def test_a_queue_is_not_taken_for_a_boot_that_failed(queue):
    queue.runs(5000)
    assert KAGGLE not in queue.stopped()
    assert queue.power.phase is PowerPhase.STARTING
    assert "turn" in queue.power.detail
    queue.begins()
    queue.runs(BEGUN_S - 60)
    assert KAGGLE not in queue.stopped()
    assert queue.power.detail == ""
    queue.runs(120)
    assert KAGGLE in queue.stopped()


def test_a_queue_is_not_waited_for_without_end(queue):
    queue.runs(LONGEST_S - 60)
    assert KAGGLE not in queue.stopped()
    queue.runs(120)
    assert KAGGLE in queue.stopped()


def test_one_that_begins_just_before_it_would_be_given_up_has_its_time_to_boot(queue):
    queue.runs(LONGEST_S - 60)
    queue.begins()
    queue.runs(BEGUN_S - 60)
    assert KAGGLE not in queue.stopped()


def test_one_in_a_queue_holds_up_the_start_of_another_for_a_while_only(queue):
    queue.runs(PATIENCE_S - 60)
    assert queue.started() == [KAGGLE]
    queue.runs(120)
    assert queue.started()[:2] == [KAGGLE, DEAR]


def test_one_that_boots_is_given_no_more_time_than_before():
    made = Queue()
    made.queues()
    made.begins()
    made.runs(BEGUN_S + 60)
    assert KAGGLE in made.stopped()


def test_how_long_it_queued_is_learned_with_the_boot(queue):
    queue.runs(3000)
    queue.begins()
    queue.runs(60)
    queue.up(KAGGLE)
    queue.runs(2)
    [boot] = queue.fleet.backends[KAGGLE].boots
    assert boot == pytest.approx(3060, abs=30)
    assert not queue.power.queued


def test_one_whose_agent_says_that_it_loads_is_given_an_hour(queue):
    queue.begins()
    session = Session("s1", queue.at, queue.at, registered_at=queue.at)

    def loads(seconds: int) -> None:
        for _ in range(0, seconds, 30):
            state = queue.fleet.backends[KAGGLE]
            pending = replace(session, loading_at=queue.at)
            queue.fleet.backends[KAGGLE] = replace(state, pending=pending)
            queue.runs(30)

    loads(int(LOADING_S) - 60)
    assert KAGGLE not in queue.stopped()
    loads(120)
    assert KAGGLE in queue.stopped()


def test_one_whose_agent_has_fallen_silent_is_not_waited_for(queue):
    queue.begins()
    pending = Session("s1", queue.at, queue.at, registered_at=queue.at, loading_at=queue.at)
    state = queue.fleet.backends[KAGGLE]
    queue.fleet.backends[KAGGLE] = replace(state, pending=pending)
    queue.runs(BEGUN_S + 60)
    assert KAGGLE in queue.stopped()


def test_what_may_last_for_hours_is_asked_for_once_a_minute(queue):
    queue.runs(20)
    queue.forget()
    queue.tick(300)
    asked = [one for one in queue.effects if isinstance(one, AskPower) and one.backend == KAGGLE]
    assert 4 <= len(asked) <= 6
    queue.begins()
    queue.says(KAGGLE, queue.state)
    assert queue.power.look_at - queue.at <= 12
