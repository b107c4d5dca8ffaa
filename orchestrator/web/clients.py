"""Who is at the other end: the address that audit and limits go by."""

from __future__ import annotations

import ipaddress

from orchestrator.web.ports import Scope

LOCAL = frozenset({"127.0.0.1", "::1"})


def client_of(scope: Scope) -> str:
    """Return the client's address.

    `X-Forwarded-For` is believed only from a proxy on this machine, and only its last entry: that
    one the proxy wrote itself, those before it anyone could have.
    """
    peer = scope.get("client")
    address = str(peer[0]) if peer else "unknown"
    if address not in LOCAL:
        return address
    for name, value in reversed(scope["headers"]):
        if name == b"x-forwarded-for":
            claimed = value.rsplit(b",", 1)[-1].strip().decode("latin-1")
            try:
                return str(ipaddress.ip_address(claimed))
            except ValueError:
                return address
    return address
