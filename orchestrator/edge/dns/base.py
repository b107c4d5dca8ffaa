"""What a DNS provider is.

A provider is one module named in `edge.dns.PROVIDERS`. It knows one name, reads what stands there
and carries plans out; it decides nothing and repeats nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core.records import Place, Plan, Record
from orchestrator.core.specs import Drift
from orchestrator.errors import Unreachable

ATTEMPT_S = 3.8  # no single attempt takes longer


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """`[services.NAME.dns]`, with its credentials.

    `ttl` in seconds, 1 is automatic. `username` is for `dyndns2`, whose password is `token`.
    `resolver`: `address:port` of the DNS server asked, empty for the system's. `instance` signs
    records. `private`: addresses that are not global may be published.
    """

    service: str
    provider: str
    zone: str
    name: str
    token: str = field(repr=False)
    api: str
    proxied: bool = False
    ttl: int = 1
    drift: Drift = Drift.RESPECT
    username: str = ""
    resolver: str = ""
    instance: str = "aion"
    private: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `aion doctor`. `remedy` says what to do when it is not `ok`."""

    ok: bool
    what: str
    remedy: str = ""


class NotSent(Unreachable):
    """The request certainly never arrived, so it may be sent again at once."""


class Provider(Protocol):
    """Reads and writes one name.

    `marks`: it keeps ids and comments, so a record of ours is known by both; else by content.
    `settle_s`: for how long after a write a read may still show what was there before.
    `rewrites`: writing the same again is harmless while nobody knows whether it arrived.
    """

    marks: bool
    settle_s: float
    rewrites: bool

    async def read(self, name: str) -> Sequence[Record]:
        """Read everything that stands at exactly `name`; an empty answer means nothing does.

        Raises `Unreachable`, `BadReply`, `Throttled` or `NotAllowed`: unknown is not empty.
        """
        ...

    async def apply(self, name: str, plan: Plan) -> None:
        """Carry out the plan's changes, all or none where the provider can.

        Returns once the provider has accepted them. Raises as `read` does; after `Unreachable` and
        `BadReply` they may or may not have been made.
        """
        ...

    async def check_token(self) -> list[Finding]:
        """Look whether the credentials do what is needed and no more, without writing."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


def place_of(settings: DnsSettings, *, marks: bool) -> Place:
    """Say the settings the way the core's plan takes them."""
    return Place(
        name=settings.name,
        zone=settings.zone,
        instance=settings.instance,
        proxied=settings.proxied,
        ttl=settings.ttl,
        drift=settings.drift,
        marks=marks,
        private=settings.private,
    )
