"""The stage that jumps says what the stage that plays every probe and every tick says."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time

import pytest

from orchestrator.core.model import Health
from orchestrator.core.specs import HealthPolicy
from orchestrator.outlook.scene import Way
from tests.core.worlds import backend, config
from tests.outlook.worlds import played, staged

DEFAULTS = HealthPolicy()
DEMO = HealthPolicy(1.0, 0.25, 2.0, 1.0, canary_s=None)
PATIENT = HealthPolicy(interval_s=60.0, fast_interval_s=10.0, down_interval_s=45.0, fall=5, rise=4)
NAMES = ("a", "b", "c", "d")
APART_S = 900.0  # between changes: longer than a failback's wait, so that the order is one


def fleet(policy: HealthPolicy, *, remote: bool, failback_after_s: float = 300.0):
    found = (backend(name, health=policy, remote=remote) for name in NAMES)
    return config(*found, failback_after_s=failback_after_s, controls=4 if remote else 0)


def script(seed: int, changes: int = 14) -> list[tuple[float, str, Way | None]]:
    """One change at a time, far enough apart that only one order of moves can follow."""
    chance = random.Random(seed)
    dead: set[str] = set()
    found = []
    for number in range(changes):
        name = chance.choice(NAMES)
        at = 100.0 + number * APART_S + chance.uniform(0, 60)
        found.append((at, name, None if name in dead else chance.choice(list(Way))))
        dead ^= {name}
    return found


@pytest.mark.parametrize("policy", [DEFAULTS, DEMO, PATIENT], ids=["defaults", "demo", "patient"])
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("seed", range(3))
def test_jumping_makes_the_same_moves_in_the_same_order_within_a_probe_interval(
    policy, remote, seed
):
    story, world = script(seed), fleet(policy, remote=remote)
    seconds = story[-1][0] + APART_S
    every = played(world, story, seconds=seconds, seed=1, dense=True)
    jumped = played(world, story, seconds=seconds, seed=2, dense=False)
    assert len(every.seen) >= 5
    assert jumped.order == every.order
    slack_s = max(policy.interval_s, policy.down_interval_s) * 1.1
    slack_s += policy.timeout_s + max(policy.fall, policy.rise) * (policy.fast_interval_s * 0.2) + 2
    late = [there.at - here.at for here, there in zip(every.seen, jumped.seen, strict=True)]
    assert max(map(abs, late)) <= slack_s, late


@pytest.mark.parametrize("way", list(Way))
def test_jumping_takes_as_long_to_notice_a_death_as_looking_every_second(way):
    """Not only one by one: over many deaths, the least, the middle and the most agree."""
    world = fleet(DEFAULTS, remote=False)

    def took(dense: bool) -> list[float]:
        found = []
        for seed in range(60):
            stage = staged(world, seed=seed, dense=dense, calm_s=0)
            at = stage.at + 40.0 + seed * 0.37
            stage.advance(at)
            stage.kill("a", way)
            while stage.fleet.services["chat"].active == "a":
                stage.advance(stage.at + 0.1)
            found.append(stage.at - at)
        return sorted(found)

    every, jumped = took(True), took(False)
    for place in (0, 30, -1):
        assert jumped[place] == pytest.approx(every[place], abs=2.0)
    least_s, most_s = (4.0, 16.0) if way is Way.REFUSES else (14.0, 28.0)  # as README.md promises
    assert least_s - 0.5 <= every[0] and every[-1] <= most_s
    assert least_s - 0.5 <= jumped[0] and jumped[-1] <= most_s


def test_flapping_makes_failback_wait_longer_at_either_pace():
    story = []
    for turn in range(3):  # three falls within an hour
        story += [(100.0 + turn * 600, "a", Way.REFUSES), (160.0 + turn * 600, "a", None)]
    world = fleet(DEFAULTS, remote=False)
    every, jumped = (played(world, story, seconds=7200.0, dense=dense) for dense in (True, False))
    assert every.order == jumped.order == [("chat", "a", "b"), ("chat", "b", "a")] * 3
    waits = [every.seen[i + 1].at - every.seen[i].at for i in (0, 2, 4)]
    assert waits[2] > 2 * waits[0]
    for here, there in zip(every.seen, jumped.seen, strict=True):
        assert there.at == pytest.approx(here.at, abs=DEFAULTS.down_interval_s * 1.1 + 8)


def test_the_same_chance_gives_the_same_moves():
    story, world = script(7), fleet(DEFAULTS, remote=True)
    runs = [played(world, story, seconds=20_000, seed=3, dense=False).seen for _ in range(2)]
    assert runs[0] == runs[1] != []


def test_what_cannot_be_assigned_never_serves_and_all_dead_means_nobody():
    world = config(backend("a", health=DEFAULTS), backend("api", health=DEFAULTS, assignable=False))
    stage = staged(world)
    assert stage.fleet.services["chat"].active == "a"
    stage.kill("a")
    stage.advance(stage.at + 30)
    assert stage.fleet.services["chat"].active is None
    assert stage.fleet.backends["api"].health is Health.UP
    stage.revive("a")
    stage.advance(stage.at + 45)
    assert stage.fleet.services["chat"].active == "a"


def test_a_quiet_month_costs_next_to_nothing():
    """The jumps are real: nothing is played while nothing happens."""
    stage = staged(fleet(DEFAULTS, remote=True))
    turns = []

    class Count:
        def turned(self, turn):
            turns.append(turn)

        def probed(self, seen):
            turns.append(seen)

    stage.watchers.append(Count())
    stage.advance(stage.at + 30 * 86400)
    assert len(turns) < 20
