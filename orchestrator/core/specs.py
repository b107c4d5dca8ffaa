"""What is configured, as the core sees it: backends, services and their policies as plain values.

Durations end in `_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.meters import MeterSpec
from orchestrator.core.onhours import OnHours


class Tier(StrEnum):
    """What serving costs; the order is the order in which money is avoided."""

    FREE = "free"
    CREDIT = "credit"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How often to look and how much evidence moves a verdict. `canary_s` None: no canaries."""

    interval_s: float = 10.0
    fast_interval_s: float = 2.0
    down_interval_s: float = 30.0
    timeout_s: float = 4.0
    fall: int = 3
    rise: int = 2
    canary_s: float | None = 300.0
    canary_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something a DNS name can point at: `type` is A, AAAA or CNAME."""

    type: str
    content: str


@dataclass(frozen=True, slots=True)
class Backend:
    """A configured backend. `url` is what clients may use, None where it is never shown (`api`).

    `remote`: its verdicts freeze while our own network is lost. `assignable`: it can be a service's
    active backend as the daemon is built and configured. `targets`: its own DNS records, if it has
    any; `follows_address`: they are what its provider says while it is on. `registers`: its address
    arrives with a session, which lasts `session_s`. `powered`: aion can start and stop it;
    `auto_start`: it may do so by itself, and stops it after `idle_stop_s` without work; in its
    `on_hours` it should be on whoever needs it.
    """

    name: str
    kind: str
    engine: str
    priority: int = 100
    tier: Tier = Tier.FREE
    url: str | None = None
    models: tuple[str, ...] = ()
    remote: bool = True
    assignable: bool = True
    targets: tuple[Target, ...] = ()
    follows_address: bool = False
    restart_url: str | None = None
    warn_before_s: float = 2700.0
    drain_margin_s: float = 300.0
    registers: bool = False
    session_s: float | None = None
    powered: bool = False
    auto_start: bool = False
    idle_stop_s: float | None = None
    on_hours: OnHours | None = None
    health: HealthPolicy = HealthPolicy()


class Drift(StrEnum):
    """What to do when somebody else changed our record."""

    RESPECT = "respect"
    CORRECT = "correct"


@dataclass(frozen=True, slots=True)
class DnsPolicy:
    """What the core needs to know of a service's DNS name.

    `gateway`: targets of the gateway, if any.
    """

    name: str
    gateway: tuple[Target, ...] = ()
    drift: Drift = Drift.RESPECT
    ttl_s: float = 300.0  # the longest a resolver may keep the old answer


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """How a planned move takes its time.

    `lead_s`: how long before it is needed the next one has to be up. `verify_s`: how long the
    public name must answer well after the move. `drain_s`: how long the old one may finish what
    it does.
    """

    lead_s: float = 420.0
    verify_s: float = 60.0
    drain_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Service:
    """A stable name. `backends` are its pool, most preferred first."""

    name: str
    backends: tuple[str, ...]
    failback_after_s: float = 300.0
    rotation: RotationPolicy = RotationPolicy()
    dns: DnsPolicy | None = None
    gateway: str | None = None  # base URL of our own gateway, shown instead of an `api` backend's


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """When an open incident is said again.

    `escalate_s`: unacknowledged critical ones go to every channel.
    """

    remind_s: float = 7200.0
    escalate_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """Everything the core decides by.

    `instance` signs DNS records. `controls` is how many there are. `seeds`: backend → SHA-256 of
    the token in its configuration. `meters` by key. `operator_hours`: when a human can start
    something (minutes of the day in `timezone`, from and until; None: always).
    """

    backends: Mapping[str, Backend]
    services: Mapping[str, Service]
    alerts: AlertPolicy = AlertPolicy()
    instance: str = "aion"
    controls: int = 0
    interval_s: float = 10.0
    shadow: bool = False
    seeds: Mapping[str, str] = field(default_factory=dict, repr=False)
    meters: Mapping[str, MeterSpec] = field(default_factory=dict)
    operator_hours: tuple[int, int] | None = None
    timezone: str = "UTC"
