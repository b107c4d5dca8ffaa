"""Kill the daemon once at every place where that could matter: `python -m tests.simulation.sweep`.

A script without luck goes through what aion does: a failover and the failback, a switchover from
its canary to its last drained request, a DNS API that is down and then loses its answers, alert
channels that fail, a pause, a pin that ends, a drain. It takes 29 virtual minutes, for failback
comes after one minute here and not after five.

The script is lived through once undisturbed. Then once for each boundary that was passed: the
process is killed there, is back 1 to 3 seconds later, and at the next quiet moment of the script
everything must be as it was without the kill. No notice may be lost, and at most one message
repeated. The operator gives a command again, with the same key, if he was not answered.

Not compared is how many falls and voluntary moves are remembered: a backend that dies while nobody
looks did not fall before our eyes, and a pin ordered while nobody is known yet is followed later.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time  # noqa: TID251 - how long a real run took
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from orchestrator.core.events import (
    Command,
    Drain,
    Failover,
    Pause,
    PinTo,
    Resume,
    Switchover,
    Turn,
)
from orchestrator.core.records import signature
from orchestrator.edge.store import Saved
from tests.simulation.monitor import Monitor
from tests.simulation.phone import Line
from tests.simulation.scripted import Act, Rig, Run, prepared
from tests.simulation.trace import clock
from tests.simulation.world import Mode
from tests.simulation.zone import Ill

SEED = 1
QUIET = (255.0, 645.0, 1130.0, 1430.0, 1740.0)  # moments at which nothing is in motion
SETTLED_S = 85.0  # so long before one of them a kill is judged by the one after
EVERY_HTTP = 25  # of the requests that nothing was decided beside, one in so many
BESIDE = 1  # boundaries away from a commit


def _become(name: str, mode: Mode) -> Act:
    return lambda rig: rig.world.become(name, mode)


def _order(command: Command) -> Act:
    return lambda rig: rig.order(command)


def _dns(ill: Ill) -> Act:
    return lambda rig: rig.zone.suffer(ill)


def _channels(line: Line) -> Act:
    def act(rig: Rig) -> None:
        for name in rig.phone.lines:
            rig.phone.set(name, line)

    return act


SCRIPT: tuple[tuple[float, Act], ...] = (
    # The one that serves dies and comes back.
    (40.0, _become("colab", Mode.REFUSE)),
    (90.0, _become("colab", Mode.OK)),
    # The operator moves the service, make-before-break; it takes four minutes.
    (260.0, _order(Switchover("chat", "lab", at=0.0))),
    # The DNS API is down while the service moves, then does what it is told and does not say so.
    (650.0, _dns(Ill.DOWN)),
    (660.0, _order(Failover("chat", "colab"))),
    (680.0, _channels(Line.REFUSES)),
    (690.0, _become("lab", Mode.REFUSE)),
    (790.0, _channels(Line.WORKS)),
    (810.0, _become("lab", Mode.OK)),
    (990.0, _dns(Ill.LOSES_ANSWERS)),
    (1040.0, _dns(Ill.WELL)),
    # The one that serves dies while aion is paused.
    (1135.0, _order(Pause(600.0, "the operator"))),
    (1145.0, _become("colab", Mode.HANG)),
    (1215.0, _order(Resume())),
    (1245.0, _become("colab", Mode.OK)),
    # A pin ends by itself; another and a drain stand.
    (1435.0, _order(PinTo("embed", "lab", 120.0))),
    (1625.0, _order(Drain("lab"))),
    (1635.0, _order(PinTo("embed", "kaggle", 14400.0))),
)


class Ledger(Monitor):
    """A monitor that remembers every notice that was committed."""

    def __init__(self, machine: Rig) -> None:
        super().__init__(machine)
        self.committed: set[str] = set()

    def started(self, saved: Saved) -> None:
        super().started(saved)
        self.committed |= set(saved.outbox)

    def turned(self, turn: Turn) -> None:
        super().turned(turn)
        self.committed |= {one.id for one in turn.notices.values() if one.sent_at is None}


@dataclass(frozen=True)
class Standing:
    """What must be the same at a quiet moment, killed or not. `told`: what the operator heard."""

    state: dict[str, Any]
    told: frozenset[str]


@dataclass
class Baseline:
    """The script, undisturbed: every boundary, and how everything stood at each quiet moment."""

    passed: list[tuple[float, str]]
    standing: list[Standing]


@dataclass
class Outcome:
    """What came of one kill."""

    number: int
    kind: str
    at: float
    divergences: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repeated: int = 0
    story: str = ""

    @property
    def well(self) -> bool:
        return not self.divergences and not self.lost and self.repeated <= 1


# ── one run ─────────────────────────────────────────────────────────────────────────────────────


def undisturbed() -> Baseline:
    """Live through the script without a kill."""
    found: list[Standing] = []
    with prepared(script=SCRIPT, seed=SEED, monitor=Ledger) as run:
        for at in QUIET:
            run.machine.time.at(at, lambda: found.append(standing(run)))
        run.machine.run(QUIET[-1] + 1.0)
        if run.breaches:
            raise AssertionError(f"the script itself breaks promises: {run.breaches}")
        return Baseline(run.machine.passed, found)


def killed(
    number: int, *, baseline: Baseline, whole: bool = False, sabotage: Act | None = None
) -> Outcome:
    """Live through the script, killed at that boundary; judged at the next quiet moment.

    `whole`: at the end of the script instead. `sabotage` tampers with the machine before.
    """
    at, kind = baseline.passed[number - 1]
    outcome = Outcome(number, kind, at)
    last = len(QUIET) - 1 if whole else bisect_left(QUIET, at + SETTLED_S)
    found: list[Standing] = []
    with prepared(script=SCRIPT, seed=SEED, monitor=Ledger) as run:
        if sabotage is not None:
            sabotage(run.machine)
        run.machine.kill_at = number
        run.machine.outage_s = lambda: 1.0 + number % 3
        run.machine.time.at(QUIET[last], lambda: found.append(standing(run)))
        run.machine.run(QUIET[last] + 1.0)
        run.monitor.finished()
        _compare(run, outcome, baseline.standing[last], found)
        if not outcome.well:
            outcome.story = run.machine.trace.story(before=at + 120.0, seconds=240.0)
    return outcome


def standing(run: Run) -> Standing:
    """Say how everything stands now."""
    machine = run.machine
    assert machine.assembly is not None
    fleet = machine.assembly.loop.fleet
    state: dict[str, Any] = {
        "paused": fleet.world.paused_since is not None,
        "isolated": fleet.world.isolated_since is not None,
        "incidents": sorted(fleet.incidents),
        "outbox": sorted(fleet.outbox),
        "records": sorted((one.type, one.content) for one in machine.zone.standing()),
    }
    for name, backend in fleet.backends.items():
        state[name] = (backend.health.value, backend.drained, backend.denied)
    for name, service in fleet.services.items():
        record = service.publication
        pin = service.pin and (service.pin.backend, service.pin.hard)
        held = service.hold_until is not None
        state[name] = (service.active, pin, held, service.settled)
        state[f"{name} under way"] = (service.planned, service.rotation, record.trouble)
        published = record.confirmed == record.wanted and record.confirmed_epoch == service.epoch
        state[f"{name} published"] = published or not record.wanted
        state[f"{name} wanted"] = sorted((one.type, one.content) for one in record.wanted)
    signed = [signature(one.comment) for one in machine.zone.standing()]
    state["signed"] = signed == [("sim", fleet.services["chat"].epoch)]
    return Standing(state, frozenset(_told(machine)))


def _told(machine: Rig) -> Iterator[str]:
    """Name what arrived without its numbers, which may differ."""
    for id_ in machine.phone.arrived:
        yield machine.topics.get(id_, id_)


def _compare(run: Run, outcome: Outcome, wanted: Standing, found: Sequence[Standing]) -> None:
    assert isinstance(run.monitor, Ledger)
    outcome.divergences += [f"{b.invariant}: {b.what}" for b in run.breaches]
    if run.machine.lives != 2:
        outcome.divergences.append(f"it was started {run.machine.lives} times")
    if not found:
        outcome.divergences.append("it was not up at the end")
        return
    state = found[0].state
    for key, value in wanted.state.items():
        if state[key] != value:
            outcome.divergences.append(f"{key}: {state[key]}, not {value}")
    arrived = run.machine.phone.arrived
    outcome.lost += sorted(run.monitor.committed - set(arrived))
    outcome.lost += [f"nobody heard of {one}" for one in sorted(wanted.told - found[0].told)]
    twice = [those for those in arrived.values() if len(those) > 1]
    messages = {those[0].at for those in twice}
    repeats = {one.at for those in twice for one in those[1:]}
    outcome.repeated = max(len(messages), len(repeats))


# ── all of them ─────────────────────────────────────────────────────────────────────────────────


def chosen(passed: Sequence[tuple[float, str]], every_http: int) -> list[int]:
    """Number the boundaries to be killed at: all but requests, and of those some.

    A request counts if something is committed beside it, else one in `every_http`.
    """
    numbers = []
    for number, (at, kind) in enumerate(passed, 1):
        if at > QUIET[-1] - SETTLED_S:
            break
        near = passed[max(0, number - 1 - BESIDE) : number + BESIDE]
        beside = any(one == "commit" for _, one in near)
        if kind != "http" or beside or number % every_http == 0:
            numbers.append(number)
    return numbers


def swept(
    baseline: Baseline, numbers: Iterable[int], jobs: int, *, whole: bool = False
) -> Iterator[Outcome]:
    """Kill at each of these boundaries in a run of its own, `jobs` at a time."""
    kill = partial(killed, baseline=baseline, whole=whole)
    if jobs == 1:
        yield from map(kill, numbers)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        yield from pool.map(kill, numbers, chunksize=8)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Say what all kills came to."""
    kinds = Counter(one.kind for one in outcomes)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"{len(outcomes)} kills ({told}): "
        f"{sum(bool(one.divergences) for one in outcomes)} divergences, "
        f"{sum(len(one.lost) for one in outcomes)} lost notices, "
        f"{sum(one.repeated for one in outcomes)} repeated messages, "
        f"at most {max(one.repeated for one in outcomes)} after a kill"
    )


def shown(outcome: Outcome) -> str:
    """Tell of a kill that did not go well."""
    head = f"killed at {outcome.kind} ({outcome.number}), {clock(outcome.at)}"
    lines = [*outcome.divergences, *(f"lost: {one}" for one in outcome.lost)]
    lines.append(f"repeated messages: {outcome.repeated}")
    return "\n".join([head, *(f"  {line}" for line in lines)])


def main() -> int:
    """Sweep, and say what came of it; 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.sweep", description=__doc__)
    parser.add_argument("--http", type=int, default=1, help="one request in so many; default: all")
    parser.add_argument("--whole", action="store_true", help="judge at the end of the script only")
    parser.add_argument("--only", type=int, nargs="*", help="these boundaries, with their stories")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    began = time.monotonic()
    baseline = undisturbed()
    numbers = given.only or chosen(baseline.passed, given.http)
    outcomes = []
    for outcome in swept(baseline, numbers, given.jobs, whole=given.whole):
        outcomes.append(outcome)
        if not outcome.well:
            print(shown(outcome), file=sys.stderr)
            if given.only:
                print(outcome.story, file=sys.stderr)
    print(f"{summary(outcomes)}; {time.monotonic() - began:.0f} s")
    return int(not all(one.well for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
