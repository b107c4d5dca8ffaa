"""How long a dead backend may go on serving, with every interval at its longest."""

import heapq

import pytest

from orchestrator.core.events import AskControls, ControlsAnswered, Observed, ProbeSoon, Tick
from orchestrator.core.health import JITTER, next_probe_s
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy
from tests.core.worlds import World, backend, config

CONTROLS_S = 3.0  # what a question takes of which two hang


class Race:
    """Two remote backends, probed as the pacer would at its slowest; `a` is dead.

    `takes_s`: how long a probe of the dead one takes to fail. `phase_s`: when `b` is looked at.
    """

    def __init__(self, *, takes_s, controls_failed=0, controls_s=0.3, phase_s=0.0):
        self.takes_s, self.failed, self.controls_s = takes_s, controls_failed, controls_s
        self.policy = HealthPolicy(canary_s=None)
        far = [backend(name, remote=True, health=self.policy) for name in "ab"]
        self.world = World(config(*far, controls=4))
        self.world.up("a", "b")
        self.world.sees("b")
        self.world.sees("a")
        self.queue: list[tuple[float, int, str, str, float]] = []
        self.due = dict.fromkeys("ab", 0.0)
        self.number = 0
        self.look("a", 10 * (1 + JITTER))
        self.look("b", phase_s)
        self.plan(0.7, "tick")

    def plan(self, after_s, what, name=""):
        self.number += 1
        at = self.world.at
        heapq.heappush(self.queue, (at + after_s, self.number, what, name, at))

    def look(self, name, after_s):
        self.due[name] = self.world.at + after_s
        self.plan(after_s, "start", name)

    def run(self):
        """Say how many seconds `a` serves after its death."""
        died_at = self.world.at
        while self.world.active == "a" and self.world.at < died_at + 120:
            self.world.at, _, what, name, planned_at = heapq.heappop(self.queue)
            self.world.forget()
            getattr(self, what)(name, planned_at)
            for effect in self.world.effects:
                if isinstance(effect, AskControls):
                    self.plan(self.controls_s, "controls")
                elif effect == ProbeSoon("b"):
                    self.look("b", 0.0)
        return self.world.at - died_at

    def tick(self, _name, _at):
        self.world.give(Tick(self.world.at))
        self.plan(1, "tick")

    def controls(self, _name, asked_at):
        self.world.give(ControlsAnswered(self.failed, 4, asked_at))

    def start(self, name, _at):
        if self.due[name] == self.world.at:
            self.plan(self.takes_s if name == "a" else 0.05, "end", name)

    def end(self, name, began_at):
        verdict = Verdict.FAILED if name == "a" else Verdict.OK
        self.world.give(Observed(Observation(name, Source.PROBE, verdict, "x"), began_at))
        isolated = self.world.fleet.world.isolated_since is not None
        state = self.world.fleet.backends[name]
        again_s = next_probe_s(state, self.policy, self.world.at, isolated=isolated)
        self.look(name, again_s * (1 + JITTER))


PHASES = [float(second) for second in range(11)]


@pytest.mark.parametrize("phase_s", PHASES)
@pytest.mark.parametrize(("takes_s", "within_s"), [(0.0, 16), (4.0, 28)], ids=["refused", "hang"])
def test_a_dead_remote_backend_is_left_in_time_once_the_controls_said_that_it_is_not_us(
    takes_s, within_s, phase_s
):
    assert Race(takes_s=takes_s, phase_s=phase_s).run() <= within_s


@pytest.mark.parametrize("phase_s", PHASES)
@pytest.mark.parametrize("takes_s", [0.0, 4.0], ids=["refused", "hang"])
def test_two_controls_blocked_for_ever_cost_seconds_not_the_failover(takes_s, phase_s):
    race = Race(takes_s=takes_s, controls_failed=2, controls_s=CONTROLS_S, phase_s=phase_s)
    assert race.run() <= 45
