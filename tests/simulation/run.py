"""One seed: a machine, its bad luck, and the monitor that judges it."""

from __future__ import annotations

import gc
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.base import Random
from orchestrator.edge.clock import SeededRandom
from tests.simulation import plans
from tests.simulation.faults import HOUR_S, Faults
from tests.simulation.human import Human
from tests.simulation.machine import Machine, watch_the_log
from tests.simulation.monitor import CONVERGED_S, Breach, Monitor
from tests.simulation.provider import PLACES, SLOW_S, Cloud
from tests.simulation.virtual import Time

DAY_S = 86400.0
LOOK_S = 5.0
LAST_CALM_S = 2.5 * HOUR_S  # longer than the longest failback wait
BACKENDS = (2, 3, 3, 4, 4, 5)


@dataclass
class Result:
    """What came of one seed. `seconds` are virtual."""

    seed: int
    seconds: float
    digest: str
    breaches: list[Breach] = field(default_factory=list)
    lives: int = 0
    checks: int = 0
    requests: int = 0
    notices: int = 0
    moves: dict[str, int] = field(default_factory=dict)
    sessions: int = 0  # promoted
    launches: int = 0
    spent: int = 0  # quotas and budgets that were used up
    misled: int = 0  # figures of providers that were wrong
    provider: dict[str, int] = field(default_factory=dict)  # what happened there how often
    writes: int = 0
    struck: dict[str, int] = field(default_factory=dict)
    same: bool = True  # a second run, if there was one, gave the same trace
    story: str = ""


def simulate(
    seed: int,
    days: float,
    *,
    backends: int | None = None,
    faults: bool = True,
    last_calm_s: float = LAST_CALM_S,
) -> Result:
    """Run one seed for that many virtual days; the same arguments give the same result.

    `last_calm_s`: how long no fault begins before the end; at the default everybody's favourite
    must serve then.
    """
    shm = Path("/dev/shm")  # a real file, but nobody waits for a real disk
    folder = Path(tempfile.mkdtemp(prefix="aion-sim-", dir=shm if shm.is_dir() else None))
    try:
        return _simulate(folder, seed, days, backends, last_calm_s if faults else days * DAY_S)
    finally:
        shutil.rmtree(folder)
        gc.collect()


def _simulate(
    folder: Path, seed: int, days: float, backends: int | None, last_calm_s: float
) -> Result:
    random = SeededRandom(seed)
    count = backends or BACKENDS[int(random.random() * len(BACKENDS))]
    drift = "correct" if random.random() < 0.3 else "respect"
    notebooks = _notebooks(random)
    notebooks, rented = _limited(notebooks, SeededRandom(seed + 3))
    count = max(2, count - len(notebooks))
    config = plans.configuration(folder, count, notebooks, rented, drift=drift)
    time = Time()
    machine = Machine(folder, config, time, random)
    monitor = Monitor(machine)
    human = Human(machine, notebooks, SeededRandom(seed + 2))
    monitor.registry.human = human
    watch_the_log(monitor.failed)
    monitor.spending.begin(
        SeededRandom(seed + 4), _character(machine.cloud, SeededRandom(seed + 5))
    )
    until = days * DAY_S
    _look(machine, monitor)
    human.begin()
    luck = Faults(machine, human, SeededRandom(seed + 1))
    _phases(machine, monitor, luck, until - last_calm_s)
    if last_calm_s >= LAST_CALM_S:
        machine.time.at(until - 1.0, monitor.best_serve)
    machine.time.at(until - 1.0, monitor.finished)
    machine.run(until)
    first = monitor.breaches[0].at if monitor.breaches else 0.0
    return Result(
        seed=seed,
        seconds=until,
        digest=machine.trace.digest,
        breaches=monitor.breaches,
        lives=machine.lives,
        checks=monitor.checks,
        requests=machine.world.asked,
        notices=len(machine.phone.arrived),
        moves=monitor.moves,
        sessions=monitor.registry.promoted,
        launches=sum(not one.orphan for one in machine.cloud.machines),
        spent=monitor.spending.spent,
        provider=dict(machine.cloud.seen),
        misled=sum(one.low + one.high for one in monitor.spending.figures.values()),
        writes=len(machine.zone.writes),
        struck=dict(luck.struck),
        story=machine.trace.story(before=first) if monitor.breaches else "",
    )


def _notebooks(random: Random) -> list[plans.Notebook]:
    """Draw the backends that register: none, one or two, preferred or not."""
    count = (0, 1, 1, 2, 2)[int(5 * random.random())]
    return [
        plans.Notebook(
            name,
            priority=5 + 5 * int(6 * random.random()),
            session_s=HOUR_S * (1.5 + 4.0 * random.random()),
            canary=random.random() < 0.7,
        )
        for name in plans.NOTEBOOKS[:count]
    ]


def _limited(
    notebooks: list[plans.Notebook], random: Random
) -> tuple[list[plans.Notebook], plans.Rented | None]:
    """Draw quotas for the notebooks of every second seed, and what can be rented for others."""
    if random.random() < 0.5:
        notebooks = [replace(one, quota_h=1.0 + 3.0 * random.random()) for one in notebooks]
    if random.random() < 0.5:
        return notebooks, None
    priority = int(2 + 30 * random.random())
    alone, limit = random.random() < 0.7, 0.5 + 5.0 * random.random() ** 2
    return notebooks, plans.Rented(priority, limit * plans.PER_HOUR_USD, alone)


def _character(cloud: Cloud, random: Random) -> float:
    """Draw what the one who rents machines out is like; returns how far behind its books are."""
    cloud.heeds = cloud.limits = random.random() < 0.75
    cloud.lists_all = random.random() < 0.5
    for place in PLACES:
        cloud.sold_out[place] = 24.0 * random.random(), 16.0 * random.random()
    slow = random.random() < 0.4
    cloud.seen["does not end what it was told to"] += not cloud.limits
    cloud.seen["its books are slow"] += slow
    return HOUR_S + (SLOW_S - HOUR_S) * random.random() ** 2 if slow else 0.0


def _look(machine: Machine, monitor: Monitor) -> None:
    """Have the monitor look around every few seconds."""

    def again() -> None:
        machine.time.after(LOOK_S, again)
        monitor.look()

    again()


def _phases(machine: Machine, monitor: Monitor, luck: Faults, until: float) -> None:
    """Alternate faulty phases with calm ones; all is over by `until`."""
    at = 120.0
    while True:
        faulty_s = HOUR_S * (0.3 + 1.2 * luck.random.random())
        if luck.random.random() < 0.12:
            faulty_s = HOUR_S * (3.0 + 2.0 * luck.random.random())
        calm_s = HOUR_S * (0.1 + 0.9 * luck.random.random())
        ends = at + faulty_s
        if ends > until:
            break
        machine.time.at(at, lambda ends=ends: luck.rage(ends))
        machine.time.at(ends + CONVERGED_S, monitor.converged)
        at = ends + CONVERGED_S + calm_s
