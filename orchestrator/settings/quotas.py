"""Quotas, costs and budgets: what is wrong with them, and the meters they come to."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from zoneinfo import ZoneInfo

from backends import registers
from backends.tunnels import metered
from orchestrator.core.meters import EGRESS, KEEPALIVE, TUNNEL, MeterSpec, Unit
from orchestrator.core.windows import Per, Window
from orchestrator.settings.policies import METERED_REQUESTS
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import Backend, Cost, Quota

DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOUR_S: Final = 3600.0
# What only warns sets little aside: a crash forfeits it.
EGRESS_BLOCK: Final = 1_000_000.0
TUNNEL_BLOCK: Final = 20.0
_RESETS: Final = re.compile(rf"({'|'.join(DAYS)})?\s*(?:([01]\d|2[0-3]):00)?")
_LENGTHS_S: Final = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604800.0}


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with each quota."""
    for name, backend in reading.settings.backends.items():
        if backend.quota is not None:
            yield from _wrong(("backends", name, "quota"), backend.quota)


def _wrong(path: Path, quota: Quota) -> Iterator[Problem]:
    if quota.limit is None and quota.requests is None and quota.tokens is None:
        text = "nothing is limited: set `limit`, `requests` or `tokens`"
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
    place = (*path, "limit")
    most_s = _LENGTHS_S.get(quota.per)
    if quota.limit is not None and most_s is not None and quota.limit > most_s:
        yield Problem(place, f"{dotted(place)}: more than a {quota.per} has")
    if quota.resets is None:
        return
    place = (*path, "resets")
    day, hour = _resets(quota.resets) or (None, None)
    if day is None and hour is None:
        text = 'expected a day, an hour or both, such as "saturday" or "saturday 07:00"'
    elif quota.rolling:
        text = "what is rolling does not begin anew at any time; remove one of both"
    elif quota.per in ("minute", "hour"):
        text = f"a {quota.per} begins when the clock says so; remove it"
    elif day is not None and quota.per != "week":
        text = f"a {quota.per} does not begin on a day of the week; write the hour alone"
    else:
        return
    yield Problem(place, f"{dotted(place)}: {text}")


def _resets(text: str) -> tuple[int | None, int | None] | None:
    found = _RESETS.fullmatch(text.strip().lower())
    if found is None:
        return None
    day, hour = found.groups()
    return (DAYS.index(day) if day else None), (int(hour) if hour else None)


def meters(reading: Reading) -> dict[str, MeterSpec]:
    """Give the meters of every backend, and that of our own traffic, by key."""
    found = [
        spec
        for name, backend in reading.settings.backends.items()
        for spec in _of_backend(reading, name, backend)
    ]
    limit = reading.settings.server.egress_limit
    month = Window(Per.MONTH)
    found.append(MeterSpec(EGRESS, Unit.BYTES, limit, month, block=EGRESS_BLOCK, advisory=True))
    zone = reading.settings.timezone
    return {spec.key: replace(spec, zone=zone) for spec in found}


def _of_backend(reading: Reading, name: str, backend: Backend) -> Iterator[MeterSpec]:
    if backend.quota is not None:
        yield from _of_quota(name, backend.quota)
    if backend.cost is not None:
        yield from _of_cost(name, backend.cost, reading.settings.timezone)
    if _tunnelled(reading, name):
        key, window = f"{name}:{TUNNEL}", Window(Per.MONTH)
        yield MeterSpec(
            key,
            Unit.REQUESTS,
            float(METERED_REQUESTS),
            window,
            name,
            block=TUNNEL_BLOCK,
            advisory=True,
        )
    if backend.keepalive is not None and backend.keepalive.budget is not None:
        key, window = f"{name}:{KEEPALIVE}", Window(Per.MONTH, reading.settings.timezone)
        budget = float(backend.keepalive.budget)
        yield MeterSpec(key, Unit.REQUESTS, budget, window, name, advisory=True)


def _of_quota(name: str, quota: Quota) -> Iterator[MeterSpec]:
    day, hour = _resets(quota.resets or "") or (None, None)
    window = Window(Per(quota.per), quota.timezone, quota.rolling, day or 0, hour or 0)
    limits = (
        (Unit.HOURS, None if quota.limit is None else quota.limit / HOUR_S, 1.0),
        (Unit.REQUESTS, quota.requests, None),
        (Unit.TOKENS, quota.tokens, None),
    )
    for unit, limit, rate in limits:
        if limit is not None:
            key = f"{name}:{unit.value}"
            yield MeterSpec(key, unit, float(limit), window, name, rate_per_hour=rate)


def _of_cost(name: str, cost: Cost, timezone: str) -> Iterator[MeterSpec]:
    if not cost.per_hour and cost.limit is None and cost.expires is None:
        return
    ends = None
    if cost.expires is not None:
        day = dt.datetime.combine(cost.expires, dt.time(), ZoneInfo(timezone))
        ends = day.timestamp()
    window = Window(expires_at=ends)
    key = f"{name}:{Unit.USD.value}"
    yield MeterSpec(key, Unit.USD, cost.limit, window, name, rate_per_hour=cost.per_hour)


def _tunnelled(reading: Reading, name: str) -> bool:
    """Say whether a backend is, or may be, behind a tunnel whose host counts requests."""
    options = reading.options.get(name)
    comes = registers(reading.settings.backends[name].kind, options)
    hosts = getattr(options, "allow_hosts", ()) if comes else ()
    urls = [f"https://x{host.removeprefix('*')}" for host in hosts]
    return any(map(metered, (*urls, str(getattr(options, "url", "") or ""))))
