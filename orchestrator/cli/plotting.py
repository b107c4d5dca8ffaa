"""From the operator's configuration and database to what `aion simulate` plays."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from orchestrator.cli.checkup import SYSTEM_CONFIG, SYSTEM_STATE
from orchestrator.cli.times import BadTime, duration
from orchestrator.core.boots import boot_s
from orchestrator.core.configuring import resumed
from orchestrator.core.model import Fleet, Health, Now
from orchestrator.core.quiet import quiet_until
from orchestrator.core.specs import FleetConfig
from orchestrator.edge.alerts import zone_of
from orchestrator.edge.peek import Peek, peek
from orchestrator.errors import ConfigError, StoreError
from orchestrator.outlook.lives import Allowance, Habits, Past, assumed, learned, overruled
from orchestrator.outlook.person import Person, person
from orchestrator.outlook.play import Plot
from orchestrator.outlook.stage import SETTLED_S
from orchestrator.outlook.story import CALM_S, Setting
from orchestrator.settings import Reading, database, find_path, fleet, report, study
from orchestrator.settings.problems import dotted

DAY_S, HOUR_S = 86400.0, 3600.0
NEVER_S = 1e12


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to play with. `source` says in words where the failure rates come from."""

    reading: Reading
    config: FleetConfig
    zone: tzinfo
    peek: Peek | None
    source: str

    @property
    def channels(self) -> bool:
        """Whether anybody would be told anything."""
        alerts = self.reading.settings.alerts
        return alerts.telegram is not None or bool(alerts.urls)


def find(given: Path | None) -> Found:
    """Read configuration and history. Raises ConfigError; credentials need not be there."""
    path = find_path(given, environ=os.environ)
    if path is None:
        raise ConfigError("no configuration; `aion init` writes one, or give it with --config")
    environ = dict(os.environ)
    if path == SYSTEM_CONFIG and SYSTEM_STATE.exists():
        environ.setdefault("STATE_DIRECTORY", str(SYSTEM_STATE))  # as the unit would say
    reading = study(path, environ=environ)
    if any(dotted(problem.path) not in reading.credentials for problem in reading.problems):
        raise ConfigError(report(reading))
    url = database(reading, environ)
    place = url.removeprefix("sqlite:///")
    seen: Peek | None = None
    try:
        seen = peek(url)
        source = f"from the history in {place}" if seen else f"assumed: there is no {place} yet"
    except StoreError as error:
        source = f"assumed: {error}"
    return Found(reading, fleet(reading), zone_of(reading.settings.timezone), seen, source)


# ── a month ─────────────────────────────────────────────────────────────────────────────────────


def plot(found: Found, days: float, now: float, mtbf: Sequence[str], mttr: Sequence[str]) -> Plot:
    """Make what is played: it begins at the last midnight by the operator's clock."""
    midnight = datetime.fromtimestamp(now, found.zone).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    habits = {
        name: _habits(found, name)
        for name, backend in found.config.backends.items()
        if backend.assignable
    }
    names = list(habits)
    return Plot(
        config=found.config,
        habits=overruled(habits, _lengths(mtbf, names, "--mtbf"), _lengths(mttr, names, "--mttr")),
        person=human(found),
        begins=midnight.timestamp(),
        lasts_s=days * DAY_S,
    )


def human(found: Found) -> Person:
    """Make the human of this configuration."""
    alerts = found.reading.settings.alerts
    return person(alerts.operator_hours, alerts.quiet_hours, found.zone)


def _habits(found: Found, name: str) -> Habits:
    backend, given = found.config.backends[name], found.reading.settings.backends[name]
    by_hand = backend.restart_url is not None and not (backend.powered and backend.auto_start)
    rates = assumed(backend.kind, session=given.session is not None, restarted_by_hand=by_hand)
    stored = found.peek.saved.backends.get(name) if found.peek else None
    if stored is not None and stored.boots:
        rates = replace(rates, boot_s=boot_s(stored))
    outages = found.peek.outages.get(name) if found.peek else None
    if outages is not None:
        rates = learned(rates, Past(outages.hours, outages.falls), given.session)
    return Habits(name, rates, given.session, tuple(_allowances(found.config, name)), by_hand)


def _allowances(config: FleetConfig, name: str) -> Iterator[Allowance]:
    """Give what its meters let a backend live: hours, and the hours that its credit buys."""
    for spec in config.meters.values():
        rate = spec.rate_per_hour
        if spec.backend == name and rate is not None:
            hours = math.inf if spec.limit is None or rate <= 0 else spec.limit / rate
            yield Allowance(hours * HOUR_S, spec.window)


def _lengths(given: Sequence[str], names: Sequence[str], option: str) -> dict[str, float]:
    """Read `NAME=6h`, as often as it was given. Raises BadTime."""
    found = {}
    for text in given:
        name, sign, length = text.partition("=")
        if not sign:
            raise BadTime(f"{option} {text}: write a backend and a duration, such as NAME=6h")
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}"
            raise BadTime(f"{option}: no backend `{name}` that can serve; {hint}")
        found[name] = duration(length)
    return found


# ── a mishap ────────────────────────────────────────────────────────────────────────────────────


def setting(found: Found, now: float) -> Setting:
    """Make where a mishap begins: with what the daemon last wrote, else with everything up."""
    quiet = found.reading.settings.alerts.quiet_hours
    hush: Callable[[float], float | None] = partial(_quiet, quiet, found.zone)
    machines = dict(_machines(found))
    if found.peek is None:
        whole = partial(_fresh, found.config)
        return Setting(whole, at=now, wall=now, calm_s=CALM_S, quiet_until=hush, machines=machines)
    saved = found.peek.saved
    return Setting(
        partial(_resumed, found.config, found.peek),
        at=max(now, saved.written_at + SETTLED_S),
        wall=now,
        down=down(found),
        calm_s=0.0,
        quiet_until=hush,
        machines=machines,
    )


def _machines(found: Found) -> Iterator[tuple[str, Habits]]:
    """Give what aion starts and stops: during one mishap none of them fails by itself."""
    for name, spec in found.config.backends.items():
        if spec.powered and spec.auto_start and spec.assignable:
            habits = _habits(found, name)
            yield name, replace(habits, rates=replace(habits.rates, mtbf_s=NEVER_S))


def down(found: Found) -> tuple[str, ...]:
    """List the backends that were down when the daemon last wrote."""
    states: Mapping[str, object] = found.peek.saved.backends if found.peek else {}
    return tuple(
        name
        for name in found.config.backends
        if name in states and getattr(states[name], "health", None) is Health.DOWN
    )


def _quiet(window: object, zone: tzinfo, wall: float) -> float | None:
    return quiet_until(wall, window, zone)  # type: ignore[arg-type]


def _fresh(config: FleetConfig, at: float) -> Fleet:
    """Have everybody there, whoever would have to register first."""
    there = {name: replace(spec, registers=False) for name, spec in config.backends.items()}
    return resumed(replace(config, backends=there), Now(at, at))


def _resumed(config: FleetConfig, seen: Peek, at: float) -> Fleet:
    saved = seen.saved
    known = replace(config, instance=config.instance or saved.instance)
    return resumed(
        known,
        Now(at, at),
        world=saved.world,
        backends=saved.backends,
        services=saved.services,
        incidents=saved.incidents,
    )
