"""A soak: real daemons and real faults for minutes or hours.

    python -m tests.e2e.soak --minutes 10 [--seed 1] [--slack 5] [--json]

Five backends behind fault proxies are killed, frozen and cut off at random times. Two daemons look
at them, each with a Cloudflare stand-in and an alert hook of its own: `killed` is killed and started
again at random times, `steady` never, so that its memory, descriptors, threads and tasks can be
watched. A front end polls both. What must hold is in `watching.py`, and at the end in `settled`.

The seed gives the schedule; what the machine makes of it is its own. The exit status is 1 if
anything was broken; the report then says what and when.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import random  # noqa: TID251 - the schedule, seeded
import re
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time  # noqa: TID251 - the schedule is of real time
from collections import Counter
from itertools import count
from pathlib import Path

from tests.e2e.kit import Hook, World, ids_in, until
from tests.e2e.toxics import Bandwidth, BlackHole, Latency, LimitData, ResetPeer, Slicer, Timeout
from tests.e2e.watching import SAMPLE_S, Bounds, Truth, Vitals, Watch

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
A_MINUTE = 6  # kills of the daemon, and as many faults of backends
LASTS_S = (1.0, 15.0)
BLACKOUT_S = 6.0  # once in ten minutes, everybody at once
# The kit's health settings, with jitter: an interval, two fast ones, three time-outs.
LEAVES_S = 0.5 * 1.1 + 2 * 0.15 * 1.1 + 3 * 0.7
ANSWERS_S = 2.0
WRITES_S = 2.0  # a read, a write, a read back
TOXICS = {
    "reset": [ResetPeer()],
    "cut short": [LimitData(40, stream="downstream")],
    "swallowed": [Timeout()],
    "closed late": [Timeout(0.3)],
    "answers lost": [BlackHole(stream="downstream")],
    "black hole": [BlackHole()],
    "refused": None,
}
SLOW = [Latency(0.1, jitter_s=0.05, stream="downstream"), Bandwidth(20_000), Slicer(200, 0.005)]
FAULTS = ("killed", "frozen", *TOXICS, "slow")
WEIGHTS = (10, 10, *(2,) * len(TOXICS), 4)


class Soak:
    """The world of a run. Leave it and all of it is gone."""

    def __init__(self, folder: Path, seed: int, minutes: float, slack_s: float) -> None:
        self.seed, self.minutes = seed, minutes
        self.chance = random.Random(seed)
        # A start is two seconds of nothing but computing: others on the machine delay it most.
        self.bounds = Bounds(ANSWERS_S + 2 * slack_s, LEAVES_S + slack_s, WRITES_S + slack_s)
        self.worlds: list[World] = []
        self.watches: list[Watch] = []
        self.did: Counter[str] = Counter()
        self.faulty: dict[str, str] = {}
        for name in ("killed", "steady"):
            (folder / name).mkdir()
            self.worlds.append(World(folder / name))
        self.killed, self.steady = self.worlds

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for watch in self.watches:
            watch.stop()
        for world in self.worlds:
            world.__exit__()

    def begin(self) -> None:
        """Start everything; the first answers are there when this returns."""
        self.killed.serve_from(*NAMES)
        self.proxies = {name: self.killed.behind(name) for name in NAMES}
        self.killed.tables["services.chat"]["failback_after"] = "10s"
        self.steady.tables = {key: dict(table) for key, table in self.killed.tables.items()}
        self.hooks: list[Hook] = [world.hook() for world in self.worlds]
        self.truth = Truth(NAMES)
        self.watches = [
            Watch(world, world.cloudflare(), self.truth, self.bounds) for world in self.worlds
        ]
        for world in self.worlds:
            world.boot()
        self.vitals = Vitals(self.steady)
        for watch in self.watches:
            watch.start()

    # ── what happens, and when ──────────────────────────────────────────────────────────────────

    def schedule(self) -> list[tuple[float, str]]:
        """When which thing happens, in seconds from the beginning."""
        lasts_s = self.minutes * 60.0
        number = round(self.minutes * A_MINUTE)
        at = self.chance.uniform
        kills = [(at(5.0, lasts_s), "kill") for _ in range(number)]
        faults = [(at(5.0, lasts_s), "strike") for _ in range(number)]
        blackouts = [(at(10.0, lasts_s), "blackout") for _ in range(int(self.minutes // 10))]
        return sorted(kills + faults + blackouts)

    def run(self) -> None:
        began, order = time.monotonic(), count()
        todo = [(at, next(order), what, "") for at, what in self.schedule()]
        todo += [(at, next(order), "sample", "") for at in _every(SAMPLE_S, self.minutes)]
        todo += [(at, next(order), "progress", "") for at in _every(60.0, self.minutes)]
        heapq.heapify(todo)
        while todo:
            at, _, what, whom = heapq.heappop(todo)
            time.sleep(max(0.0, began + at - time.monotonic()))
            if what == "kill":
                self.watches[0].kill_and_launch()
                self.did["daemon kills"] += 1
            elif what == "strike":
                for whom, lasts_s in self.struck():
                    heapq.heappush(todo, (at + lasts_s, next(order), "heal", whom))
            elif what == "blackout":
                self.did["blackouts"] += 1
                for whom in [name for name in NAMES if name not in self.faulty]:
                    self.strike(whom, "reset")
                    heapq.heappush(todo, (at + BLACKOUT_S, next(order), "heal", whom))
            elif what == "heal":
                self.heal(whom)
            elif what == "sample":
                self.vitals.sample()
            else:
                self.progress(at)

    def struck(self):
        """Strike somebody, every other time the one that serves; yields whom, and for how long."""
        fault = self.chance.choices(FAULTS, WEIGHTS)[0]
        lasts_s, somebody = self.chance.uniform(*LASTS_S), self.chance.choice(NAMES)
        serving = self.watches[self.chance.randrange(2)].active
        target = serving if serving and self.chance.random() < 0.5 else somebody
        whole = [name for name in (target, *NAMES) if name not in self.faulty]
        if whole:
            self.strike(whole[0], fault)
            self.did[fault] += 1
            yield whole[0], lasts_s

    def strike(self, name: str, fault: str) -> None:
        self.faulty[name] = fault
        if fault == "slow":
            self.proxies[name].set(*SLOW)
            return
        self.truth.say(name, False)
        if fault == "killed":
            self.killed.stop_backend(name)
        elif fault == "frozen":
            os.kill(self.killed.pid(name), signal.SIGSTOP)
        elif fault == "refused":
            self.proxies[name].down()
        else:
            self.proxies[name].set(*TOXICS[fault])

    def heal(self, name: str) -> None:
        fault = self.faulty.pop(name)
        if fault == "killed":
            self.killed.start(name)
        elif fault == "frozen":
            os.kill(self.killed.pid(name), signal.SIGCONT)
        else:
            self.proxies[name].clear()
        if fault != "slow":
            self.truth.say(name, True)

    def progress(self, at: float) -> None:
        one, other = (watch.found for watch in self.watches)
        here = self.vitals.sample()
        left = [*one.left_s, *other.left_s]
        _say(
            f"{at / 60:.0f}/{self.minutes:g} min: {self.did['daemon kills']} kills, "
            f"{sum(self.did[fault] for fault in FAULTS)} faults, "
            f"epochs {self.watches[0].epoch} and {self.watches[1].epoch}, "
            f"answered ≤ {max(one.answered_s, default=0):.1f} s, "
            f"left ≤ {max(left, default=0):.1f} s, "
            f"steady {here['rss_mb']:.1f} MB, {here['fds']:.0f} fds, {here['threads']:.0f} threads, "
            f"{here['tasks']:.0f} tasks, breaches {len(one.breaches) + len(other.breaches)}"
        )

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def settled(self) -> dict:
        """Let everything heal, then look at what must hold of the whole; returns the report."""
        for name in list(self.faulty):
            self.heal(name)
        notices = [self.at_rest(*pair) for pair in zip(self.watches, self.hooks, strict=True)]
        for watch in self.watches:
            watch.stop()
        for watch in self.watches:
            if watch.world.daemon.child.poll() is not None:
                watch.found.breach(f"{watch.name}: the daemon ended by itself")
            self.check_epochs(watch)
        for what in self.vitals.growth():
            self.watches[1].found.breach(f"steady: {what}")
        return self.report(notices)

    def at_rest(self, watch: Watch, hook: Hook) -> dict:
        """Wait until all is well and told; count what was told twice."""
        world, kills = watch.world, self.did["daemon kills"] if watch is self.watches[0] else 0
        try:
            until(watch.ready, "it answers", 30)
            until(lambda: world.discovery()["state"] == "serving", "it serves", 30)
            world.all_up()
            until(lambda: not world.kinds() - {"flapping"}, "incidents are closed", 60)
            until(lambda: _waiting(world) == 0, "all notices are sent", 180, every_s=0.5)
        except AssertionError as error:
            watch.found.breach(f"{watch.name}: {str(error)[:300]}")
        wanted = [f"moved:chat:{epoch}" for epoch, to in _moves(world) if to]
        told, twice = _told(hook)
        missing = [one for one in wanted if one not in told]
        if missing:
            watch.found.breach(f"{watch.name}: never told: {missing[:10]}")
        if twice > kills:
            watch.found.breach(f"{watch.name}: {twice} messages were repeated by {kills} kills")
        return {"moves": len(wanted), "told": len(told), "twice": twice}

    def check_epochs(self, watch: Watch) -> None:
        used = [epoch for epoch, _ in _moves(watch.world)]
        if used != sorted(set(used)):
            watch.found.breach(f"{watch.name}: epochs of assignments went back: {used}")
        written = watch.written_epochs()
        if written != sorted(written):
            watch.found.breach(f"{watch.name}: epochs of the record went back: {written}")
        rows = watch.dns.records()
        if len(rows) != 1 or not rows[0]["comment"].endswith(f"epoch={watch.epoch}"):
            watch.found.breach(f"{watch.name}: the record ends as {rows}")

    def report(self, notices: list[dict]) -> dict:
        daemons = {}
        for watch, told in zip(self.watches, notices, strict=True):
            found = watch.found
            daemons[watch.name] = {
                "polls": found.polls,
                "epoch": watch.epoch,
                "answered_s": _spread(found.answered_s),
                "start_cpu_s": _spread(found.start_cpu_s),
                "left_s": _spread(found.left_s),
                "notices": told,
                "breaches": found.breaches,
            }
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "load": os.getloadavg()[1],
            "bounds_s": vars(self.bounds),
            "did": dict(self.did),
            "daemons": daemons,
            "steady_thirds": self.vitals.thirds(),
            "samples": len(self.vitals.samples),
            "broken": sum(len(one["breaches"]) for one in daemons.values()),
        }


def _every(step_s: float, minutes: float) -> list[float]:
    return [step * step_s for step in range(1, int(minutes * 60 / step_s) + 1)]


def _waiting(world: World) -> int:
    text = world.http.get("/metrics", headers=world._bearer).text
    return int(float(re.search(r"^aion_notices_waiting (\S+)$", text, re.MULTILINE)[1]))


def _moves(world: World) -> list[tuple[int, str]]:
    """Every assignment there was, from the database: epoch and to whom."""
    uri = f"{(world.state / 'aion.db').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
        rows = db.execute(
            "select data from event where action = 'assigned' order by seq"
        ).fetchall()
    data = [json.loads(row[0]) for row in rows]
    return [(int(one["epoch"]), one["new"]) for one in data]


def _told(hook: Hook) -> tuple[set[str], int]:
    """All ids that were told, and how many messages told one again."""
    known: set[str] = set()
    twice = 0
    for body in list(hook.bodies):
        ids = set(ids_in(body["message"]))
        twice += bool(ids & known)
        known |= ids
    return known, twice


def _spread(values: list[float]) -> dict:
    if not values:
        return {"count": 0}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "max": round(ordered[-1], 2),
    }


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(report: dict) -> str:
    """Show a report to people."""
    bounds = ", ".join(f"{key} {value:.1f}" for key, value in report["bounds_s"].items())
    did = ", ".join(f"{value} {key}" for key, value in sorted(report["did"].items()))
    lines = [
        f"seed {report['seed']}, {report['minutes']:g} min, load {report['load']:.1f}",
        f"bounds: {bounds}",
        f"done: {did}",
    ]
    for name, one in report["daemons"].items():
        lines.append(f"{name}: epoch {one['epoch']}, {one['polls']} answers of discovery")
        for key in ("answered_s", "start_cpu_s", "left_s", "notices"):
            shown = ", ".join(f"{what} {value}" for what, value in one[key].items())
            lines.append(f"  {key:<11} {shown}")
        lines += [f"  BROKEN at {at} s: {what}" for at, what in one["breaches"]]
    lines.append(f"steady's medians of the first, middle and last third of {report['samples']}:")
    for key, thirds in report["steady_thirds"].items():
        lines.append(f"  {key:<11} " + "  ".join(f"{value:g}" for value in thirds))
    broken = report["broken"]
    lines.append(
        f"{broken} broken: run again with --seed {report['seed']}" if broken else "all held"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slack", type=float, default=5.0, help="seconds more for a busy machine")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and leave nothing running
    folder = Path(tempfile.mkdtemp(prefix="aion-soak-"))
    with Soak(folder, args.seed, args.minutes, args.slack) as soak:
        soak.begin()
        soak.run()
        report = soak.settled()
    print(json.dumps(report, indent=2) if args.json else table(report))
    if report["broken"]:
        _say(f"logs and databases are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
