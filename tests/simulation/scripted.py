"""Short runs by a script instead of by luck, on a machine that can be tampered with."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from orchestrator.assembly import Assembly
from orchestrator.core.events import Command, Turn
from orchestrator.edge.clock import SeededRandom
from orchestrator.edge.store import Audit
from orchestrator.settings import Config
from tests.simulation import plans
from tests.simulation.human import Human
from tests.simulation.machine import Machine, watch_the_log
from tests.simulation.monitor import Breach, Monitor
from tests.simulation.virtual import Time

LOOK_S = 5.0
LAST_S = 1.0  # the last judgement comes so long before the end
OUTAGE_S = 2.0
TRY_AGAIN_S = 5.0


class Rig(Machine):
    """A machine whose turns can be seen, and spoilt, right before and right after their commit.

    Its operator gives each command a key, and gives it again if nobody answered, or if it
    could not be done yet. Its `human` starts a notebook when the script says so.
    """

    human: Human

    def __init__(self, folder: Path, config: Config, time: Time, seed: int) -> None:
        super().__init__(folder, config, time, SeededRandom(seed))
        self.before_commit: Callable[[Turn], None] = _nothing
        self.after_commit: Callable[[Turn], None] = _nothing
        self.outage_s = lambda: OUTAGE_S
        self.passed: list[tuple[float, str]] = []  # every boundary: when, of which kind
        self.topics: dict[str, str] = {}  # notice → what it is about, without its number
        self._given: list[Command] = []

    def boundary(self, kind: str) -> None:
        if not self._dead:
            self.passed.append((self.time.true, kind))
        turn = self.store.under_way if self.store is not None else None
        if turn is not None and not self._dead:
            for notice in turn.notices.values():
                self.topics[notice.id] = f"{notice.kind} {notice.topic} {notice.subject}".rstrip()
            if kind == "commit":
                self.before_commit(turn)
            elif kind == "committed":
                self.after_commit(turn)
        super().boundary(kind)

    async def _ordered(self, assembly: Assembly, command: Command) -> None:
        if not any(one is command for one in self._given):
            self._given.append(command)
        key = next(f"order-{i}" for i, one in enumerate(self._given) if one is command)
        try:
            answer = await assembly.loop.command(command, Audit(key, "the operator", "here"))
        except asyncio.CancelledError:
            self.onlooker.answered(command, None)
            self._orders.append(command)
        else:
            self.trace.tell("operator", f"was told: {answer.text}")
            self.onlooker.answered(command, answer)
            if answer.problem == "conflict":
                again = replace(command)
                self.time.after(TRY_AGAIN_S, lambda: self.order(again))


Act = Callable[[Rig], None]
Script = Iterable[tuple[float, Act]]


def _nothing(_: object) -> None:
    pass


@dataclass
class Run:
    """A run that is over, or about to begin."""

    machine: Rig
    monitor: Monitor

    @property
    def breaches(self) -> list[Breach]:
        return self.monitor.breaches

    @property
    def broken(self) -> set[str]:
        """The promises that were not kept."""
        return {breach.invariant for breach in self.breaches}


@contextmanager
def prepared(
    *,
    backends: int = 3,
    script: Script = (),
    seed: int = 1,
    drift: str = "respect",
    monitor: type[Monitor] = Monitor,
    notebooks: Sequence[plans.Notebook] = (),
    rented: plans.Rented | None = None,
) -> Iterator[Run]:
    """Set a machine up to live through `script`: what to do at which true second."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="aion-sim-", dir=shm if shm.is_dir() else None))
    try:
        config = plans.configuration(folder, backends, notebooks, rented, drift=drift, quick=True)
        machine = Rig(folder, config, Time(), seed)
        judge = monitor(machine)
        machine.human = judge.registry.human = Human(machine, notebooks, SeededRandom(seed + 2))
        watch_the_log(judge.failed)
        judge.spending.begin(SeededRandom(seed + 4))
        every(machine, LOOK_S, judge.look)
        for at, act in script:
            machine.time.at(at, lambda act=act: act(machine))
        yield Run(machine, judge)
    finally:
        shutil.rmtree(folder)
        structlog.reset_defaults()


def short_run(
    seconds: float,
    *,
    backends: int = 3,
    script: Script = (),
    sabotage: Act | None = None,
    last: tuple[str, ...] = ("finished",),
    seed: int = 1,
    drift: str = "respect",
    notebooks: Sequence[plans.Notebook] = (),
    rented: plans.Rented | None = None,
) -> Run:
    """Live through `script`; `sabotage` tampers with the machine before it begins.

    `last` names the judgements of the monitor that are made at the end.
    """
    with prepared(
        backends=backends,
        script=script,
        seed=seed,
        drift=drift,
        notebooks=notebooks,
        rented=rented,
    ) as run:
        if sabotage is not None:
            sabotage(run.machine)
        for judgement in last:
            run.machine.time.at(seconds - LAST_S, getattr(run.monitor, judgement))
        run.machine.run(seconds)
    return run


def every(machine: Machine, seconds: float, what: Callable[[], None]) -> None:
    """Do something now and every so many seconds."""

    def again() -> None:
        machine.time.after(seconds, again)
        what()

    again()
