"""The address that a provider gave a backend, as what a DNS name may point at.

It is somebody else's once it is released. So a name points there only while that backend is on, and
what is stopped on purpose is stopped once no name of ours points there any more.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from orchestrator.core.draft import Draft
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.specs import Backend, Target
from orchestrator.core.targets import same

AWAY_FIRST_S = 15.0  # a stop waits so long at most for the name to have moved away


def own(spec: Backend, power: Power | None) -> tuple[Target, ...]:
    """Give the targets of a backend: those configured, or where its provider has it now."""
    if not spec.follows_address:
        return spec.targets
    if power is None or power.phase in (PowerPhase.OFF, PowerPhase.STOPPING):
        return ()
    return at(power.address)


def at(address: str) -> tuple[Target, ...]:
    """Read an address such as `http://203.0.113.7:8000`; none where there is no IP in it."""
    try:
        ip = ipaddress.ip_address(urlsplit(address).hostname or "")
    except ValueError:
        return ()
    return (Target("A" if ip.version == 4 else "AAAA", str(ip)),)  # noqa: PLR2004


def named(draft: Draft, name: str) -> bool:
    """Say whether a name of ours may still point at what a backend's provider gave it."""
    spec, power = draft.config.backends[name], draft.backend(name).power
    if not spec.follows_address or power is None:
        return False
    theirs = at(power.address)
    for service in draft.pools.get(name, ()):
        record = draft.service(service).publication
        if record.trouble is not None:  # it cannot be moved now, and a machine costs
            continue
        shown = (*record.confirmed, *record.attempted)
        if any(same(one, other) for one in theirs for other in shown):
            return True
    return False
