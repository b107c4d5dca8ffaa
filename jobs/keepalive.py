"""Keeps hosts awake that sleep when nobody asks: one small request now and then.

What it sends counts against its own monthly budget and that of a metered tunnel: see `core.meters`.
Colab and Kaggle are not such hosts: a request to the tunnel does not keep their runtimes, and their
terms forbid pretending to be at work.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from backends.tunnels import metered
from orchestrator.core.health import ALIVE
from orchestrator.core.meters import KEEPALIVE, TUNNEL, used
from orchestrator.core.quiet import quiet_until
from orchestrator.errors import BadReply, Unreachable

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from backends.base import Reply
    from jobs.base import KeepaliveSettings, KeepaliveTools, Tools
    from orchestrator.core.model import Fleet, Now

TIMEOUT_S = 20.0  # a host that wakes up takes its time
JITTER = 0.1
LONGEST_JITTER_S = 15.0
MAX_BYTES = 4096
SERVER_ERROR = 500


def trigger(tools: Tools) -> BaseTrigger | None:
    """Return when to look who is due: as often as the most often pinged one asks for."""
    from jobs.triggers import every  # noqa: PLC0415 - the command line imports this module

    if tools.keepalive is None or not tools.keepalive.backends:
        return None
    return every(tick_s(tools.keepalive))


def tick_s(tools: KeepaliveTools) -> float:
    """Return the shortest interval asked for."""
    return min(one.every_s for one in tools.backends)


async def run(tools: Tools) -> str:
    """Ping who is due. Raises `Unreachable`, `BadReply` naming every one that did not answer."""
    assert tools.keepalive is not None
    mine, now, zone = tools.keepalive, tools.now(), ZoneInfo(tools.timezone)
    fleet = mine.fleet()
    if fleet.world.isolated_since is not None:
        return "nothing is pinged while our own network is lost"
    pinged: list[tuple[KeepaliveSettings, str]] = []
    said: list[str] = []
    for one in mine.backends:
        last = mine.asked.get(one.backend)
        if last is not None and now.at + tick_s(mine) <= last + one.every_s:
            continue  # the next look comes in time
        url = one.url or _address(fleet, one.backend)
        why = _why_not(one, fleet, url, now, zone) or _over_budget(one, fleet, url, now.wall)
        if why:
            said.append(f"{one.backend} skipped: {why}")
        else:
            mine.asked[one.backend] = now.at
            mine.spent(f"{one.backend}:{KEEPALIVE}", 1.0)
            pinged.append((one, url))
    answers = await asyncio.gather(*(_ping(mine, one, url) for one, url in pinged))
    failed = [text for ok, text in answers if not ok]
    if failed:
        raise (BadReply if all(" answered " in one for one in failed) else Unreachable)(
            "; ".join(failed)
        )
    return "; ".join([*(text for _, text in answers), *said]) or "nobody was due"


def _address(fleet: Fleet, name: str) -> str:
    """Return where a backend is: its configured address, else its session's."""
    spec, state = fleet.config.backends.get(name), fleet.backends.get(name)
    session = state.session if state is not None else None
    return (spec.url if spec is not None else None) or (session.url if session else "")


def _why_not(one: KeepaliveSettings, fleet: Fleet, url: str, now: Now, zone: ZoneInfo) -> str:
    state, spec = fleet.backends.get(one.backend), fleet.config.backends.get(one.backend)
    if state is None or spec is None:
        return "it is gone"
    if state.drained:
        return "drained"
    if one.between is not None and quiet_until(now.wall, one.between, zone) is None:
        return "not at this hour"
    probed = spec.health.interval_s <= one.every_s
    if state.session is not None and state.health in ALIVE and probed:
        return "its session runs well, and probes reach it as often"
    return "" if url else "it has no address, for it has no session"


def _over_budget(one: KeepaliveSettings, fleet: Fleet, url: str, wall: float) -> str:
    for what in (KEEPALIVE, TUNNEL) if metered(url) else (KEEPALIVE,):
        key = f"{one.backend}:{what}"
        spec, state = fleet.config.meters.get(key), fleet.meters.get(key)
        if spec is None or state is None or spec.limit is None:
            continue
        if used(state, wall) >= spec.limit:
            return f"this month's {spec.limit:g} requests are used up"
    return ""


async def _ping(tools: KeepaliveTools, one: KeepaliveSettings, url: str) -> tuple[bool, str]:
    """Send one request after a moment; returns whether the host is awake, and a line on it."""
    longest_s = min(JITTER * one.every_s, LONGEST_JITTER_S)
    await asyncio.sleep(tools.random.uniform(0.0, longest_s))
    http = tools.guarded if one.public_only and not one.url else tools.http
    try:
        reply: Reply = await http.request("GET", url, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES)
    except Unreachable as error:
        return False, f"{one.backend}: {error}"
    if reply.status >= SERVER_ERROR:
        return False, f"{one.backend} answered {reply.status}"
    return True, f"{one.backend} answered {reply.status}"
