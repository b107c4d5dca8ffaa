"""How long planning takes: 20 backends, seven days, on one core, as the daemon is.

Seven notebooks that a human starts, seven that a machine does with a weekly quota, four VMs on
credit, two that are always there, in three services; sessions are short, so much has to be started.
"""

from __future__ import annotations

import time  # noqa: TID251

from benchmarks.baseline import beside
from benchmarks.turns import Took, one_core
from benchmarks.world import Row, limited, quantile
from orchestrator.core.lives import Session
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import BackendState, Fleet, Health, Now
from orchestrator.core.planner import plan
from orchestrator.core.specs import Backend, FleetConfig, Service, Tier
from orchestrator.core.windows import Per, Window
from orchestrator.web.planning import plan_view

START = 1_795_000_000.0
HOUR, DAY = 3600.0, 86_400.0
TIMES = 60
ZONE = "Europe/Lisbon"


def run() -> list[Row]:
    """Measure a plan of seven days, one of two, and the answer over HTTP made of the first."""
    found, now = fleet(), Now(START, START)
    week, days, view = Took(), Took(), Took()
    with one_core(), beside("python") as base:
        for at in range(TIMES):
            with week.one():
                made = plan(found, now, 7 * DAY)
            with days.one():
                plan(found, now, 2 * DAY)
            with view.one():
                plan_view(found, now, 7 * 24).model_dump_json()
            if at % 20 == 19:
                base.more()
    pieces = sum(len(one.line) for one in made.services.values())
    assert pieces > 100, pieces
    python = base.wall("python")
    rows = []
    for name, took, most in (
        ("week", week, 200.0),
        ("two days", days, None),
        ("answer", view, None),
    ):
        ms = quantile(took.wall_s, 0.5) * 1e3
        worst = max(took.wall_s) * 1e3
        row = limited(f"plan, 20 backends, {name}", ms, most, "ms", base=python)
        row.value += f" (longest {worst:.1f} ms)"
        rows.append(row)
    return rows


def fleet() -> Fleet:
    """Make the fleet that is planned for."""
    backends: list[Backend] = []
    meters: list[MeterSpec] = []
    for at in range(7):
        backends.append(_notebook(f"hand{at}", at, powered=False))
        backends.append(_notebook(f"auto{at}", at, powered=True))
        quota = Window(Per.WEEK, ZONE, weekday=5)
        key = f"auto{at}:hours"
        meters.append(MeterSpec(key, Unit.HOURS, 10.0 + at, quota, f"auto{at}", 1.0))
    for at in range(4):
        name = f"vm{at}"
        vm = Backend(name, "gce", "vllm", 60, Tier.CREDIT, powered=True, auto_start=True)
        backends.append(vm)
        key = f"{name}:usd"
        meters.append(MeterSpec(key, Unit.USD, 300.0, backend=name, rate_per_hour=0.3 + at / 10))
    backends += [Backend(f"lab{at}", "static", "openai", 80) for at in range(2)]
    names = tuple(one.name for one in backends)
    config = FleetConfig(
        {one.name: one for one in backends},
        {f"s{at}": Service(f"s{at}", names[at:]) for at in range(3)},
        meters={one.key: one for one in meters},
        operator_hours=(8 * 60, 23 * 60),
        timezone=ZONE,
    )
    states = {name: BackendState(name, Health.DOWN) for name in names}
    for name, hours in (("hand0", 2.0), ("auto0", 3.0)):
        session = Session("s", START, START, ends_at=START + hours * HOUR)
        states[name] = BackendState(name, Health.UP, session=session)
    return Fleet(config, backends=states)


def _notebook(name: str, at: int, *, powered: bool) -> Backend:
    session_s = (3.0 + at) * HOUR
    return Backend(
        name,
        "kaggle" if powered else "notebook",
        "ollama",
        10 + at,
        restart_url=None if powered else f"https://{name}.example",
        registers=True,
        session_s=session_s,
        powered=powered,
        auto_start=powered,
    )


if __name__ == "__main__":
    began = time.perf_counter()
    print(*run(), sep="\n")
    print(f"{time.perf_counter() - began:.1f} s")
