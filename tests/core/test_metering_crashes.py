"""I6 through the whole core: a daemon that dies at any commit never lets more be used than there is.

A notebook runs whenever its quota is not spent; its provider keeps the truth. The daemon is killed
before or after a commit and comes back later, from what was committed and nothing else.
"""

import random  # noqa: TID251 - seeded, so the same each time
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from orchestrator.core.events import Event, Spent, Tick
from orchestrator.core.fleet import apply, resumed, step
from orchestrator.core.lives import Session
from orchestrator.core.meters import MeterSpec, MeterState, Unit, reserved, usable
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.core.windows import Per, Window
from tests.core.worlds import backend, config

DAY_S, TICK_S = 86400.0, 5.0
BEGIN = DAY_S * 12.8
GPU = MeterSpec("a:hours", Unit.HOURS, 2.0, Window(Per.DAY), "a", rate_per_hour=1.0)
CALLS = MeterSpec("b:requests", Unit.REQUESTS, 60.0, Window(Per.DAY), "b", block=3.0)
METERS = TypeAdapter(dict[str, MeterState])


class Life:
    """A daemon, its database, and the truth."""

    def __init__(self, keep: Callable[[MeterState], MeterState] = lambda state: state) -> None:
        self.at = BEGIN
        meters = {GPU.key: GPU, CALLS.key: CALLS}
        pool = (backend("a", registers=True), backend("b"))
        self.config = config(*pool, meters=meters)
        self.keep = keep
        self.meters: dict[str, MeterState] = {}
        self.backends: dict[str, BackendState] = {}
        self.fleet: Fleet | None = None
        self.commits_left: float = float("inf")
        self.dies_before = True
        self.hours: dict[int, float] = {}
        self.calls: dict[int, int] = {}
        self.runs_until = 0.0  # what the provider itself allows this run
        self.unsaid = 0
        self.start()

    def start(self) -> None:
        stored = METERS.validate_json(METERS.dump_json(self.meters))
        self.fleet = resumed(
            self.config,
            Now(self.at, self.at),
            backends=dict(self.backends),
            meters={key: self.keep(state) for key, state in stored.items()},
        )

    def give(self, event: Event) -> None:
        if self.fleet is None:
            return
        turn = step(self.fleet, event, Now(self.at, self.at))
        if turn.durable:
            self.commits_left -= 1
            dies = self.commits_left <= 0
            if not (dies and self.dies_before):
                self.meters.update({k: v for k, v in turn.meters.items() if v is not None})
                self.backends.update({k: v for k, v in turn.backends.items() if v is not None})
            if dies:
                self.fleet, self.commits_left, self.unsaid = None, float("inf"), 0
                return
        apply(self.fleet, turn)

    def pass_time(self, seconds: float) -> None:
        end = self.at + seconds
        while self.at < end:
            self.at += TICK_S
            if self.at <= self.runs_until:
                day = int(self.at // DAY_S)
                self.hours[day] = self.hours.get(day, 0.0) + TICK_S / 3600
            self.give(Tick(self.at))
            self._notebook()
            self._requests()

    def _notebook(self) -> None:
        """Start it when it may, stop it when its quota is spent; first written, then done."""
        if self.fleet is None:
            return
        state = self.fleet.backends["a"]
        spent = state.exhausted_until is not None and state.exhausted_until > self.at
        runs = self.at < self.runs_until
        if state.session is not None and (spent or not runs):
            self._session(None)
            self.runs_until = min(self.runs_until, self.at)
        elif state.session is None and not spent and GPU.key in self.fleet.meters:
            room = usable(self.fleet.meters[GPU.key], GPU, self.at) or 0.0
            self._session(Session("s", self.at, self.at, lease_s=30 * DAY_S))
            self.runs_until = self.at + room * 3600

    def _session(self, session: Session | None) -> None:
        assert self.fleet is not None
        for table in (self.fleet.backends, self.backends):
            table["a"] = replace(self.fleet.backends["a"], session=session)

    def _requests(self) -> None:
        if self.fleet is None or CALLS.key not in self.fleet.meters:
            return
        if self.unsaid + 1 <= reserved(self.fleet.meters[CALLS.key]):
            day = int(self.at // DAY_S)
            self.calls[day] = self.calls.get(day, 0) + 1
            self.unsaid += 1
        elif self.unsaid:
            told, self.unsaid = self.unsaid, 0
            self.give(Spent(((CALLS.key, float(told)),)))

    def check(self) -> None:
        slack = 2 * TICK_S / 3600  # a tick is how finely all of this is seen
        assert all(hours <= 2.0 + slack for hours in self.hours.values()), self.hours
        assert all(calls <= 60 for calls in self.calls.values()), self.calls


def live(life: Life, seed: int) -> Life:
    dice = random.Random(seed)
    while life.at < BEGIN + 0.6 * DAY_S:
        if life.fleet is None:
            life.pass_time(dice.choice((5.0, 60.0, 1200.0, 7200.0)))
            life.start()
        life.commits_left = dice.randint(1, 12)
        life.dies_before = dice.random() < 0.5
        life.pass_time(dice.choice((60.0, 900.0, 3600.0)))
        life.check()
    return life


@pytest.mark.parametrize("seed", range(6))
def test_a_daemon_killed_at_any_commit_keeps_within_its_limits(seed):
    life = live(Life(), seed)
    assert max(life.hours.values()) > 1.0  # and something was used


def test_a_daemon_that_is_never_killed_uses_what_there_is():
    life = Life()
    life.pass_time(0.6 * DAY_S)
    life.check()
    assert max(life.hours.values()) > 1.85
    assert max(life.calls.values()) == 60


def test_a_daemon_that_forgets_what_it_had_set_aside_is_caught():
    def forgetful(state: MeterState) -> MeterState:
        return replace(state, block=None)

    for seed in range(12):
        try:
            live(Life(forgetful), seed)
        except AssertionError:
            return
    pytest.fail("nobody noticed")
