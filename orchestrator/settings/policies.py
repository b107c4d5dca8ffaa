"""What a backend's health settings come to: its own, its kind's and host's, the general ones."""

from __future__ import annotations

from typing import Final

from backends import CANARYLESS
from backends.tunnels import METERED_S, metered
from orchestrator.core.specs import HealthPolicy
from orchestrator.settings.schema import Backend, BackendHealth, Health, Settings

MONTH_S: Final = 30 * 86400.0
METERED_REQUESTS: Final = 20_000


def metered_host(url: str | None) -> bool:
    """Tell whether the address counts every request against a small monthly allowance."""
    return bool(url) and metered(url or "")


def policy(settings: Settings, given: Backend, url: str | None) -> HealthPolicy:
    """Give the health policy of one backend.

    The general intervals are for servers of our own: `api` kinds and metered tunnels begin from
    5 minutes, and an `api` has no canary unless its own table asks for one. Some engines have none.
    """
    kind, own = given.kind, given.health
    general = settings.health
    slow = kind == "api" or metered_host(url)
    interval = own.interval or (METERED_S if slow else general.interval)
    fast = own.fast_interval or min(interval, METERED_S if slow else general.fast_interval)
    down = own.down_interval or (min(interval, METERED_S) if slow else general.down_interval)
    canary = (
        "off"
        if given.engine in CANARYLESS
        else own.canary or ("off" if kind == "api" else general.canary)
    )
    return HealthPolicy(
        interval_s=interval,
        fast_interval_s=fast,
        down_interval_s=down,
        timeout_s=own.timeout or general.timeout,
        fall=own.fall or general.fall,
        rise=own.rise or general.rise,
        canary_s=None if canary == "off" else float(canary),
        canary_timeout_s=own.canary_timeout or general.canary_timeout,
    )


def too_fast(table: Health | BackendHealth, interval: float) -> bool:
    """Tell whether a table asks to look less often in doubt than in peace."""
    given = "fast_interval" in table.model_fields_set and table.fast_interval
    return bool(given and given > interval)
