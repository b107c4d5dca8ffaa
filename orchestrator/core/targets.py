"""What a DNS name may point at, and when two spellings say the same."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.addresses import why_not_public
from orchestrator.core.specs import Target

ADDRESS_TYPES = ("A", "AAAA", "CNAME")

_HOST = re.compile(
    r"(?=.{1,253}\Z)"
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+"
    r"(?![0-9]+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
# Tunnels that answer to their own name only: a CNAME of ours to them is error 1014, or an unknown
# Host and TLS name, on every free plan.
_NEEDS_ITS_OWN_NAME = (
    "trycloudflare.com",
    "ngrok-free.app",
    "ngrok-free.dev",
    "ngrok.app",
    "ngrok.dev",
    "ngrok.io",
)
# For documentation: unroutable and nobody's, so a name that points there harms nobody.
_DOCUMENTATION = tuple(
    ipaddress.ip_network(net)
    for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)


class Said(Protocol):
    """A target or a record: something that says `content` as `type`."""

    @property
    def type(self) -> str: ...

    @property
    def content(self) -> str: ...


def host(name: str) -> str:
    """Spell a host name the way it is compared."""
    return name.strip().rstrip(".").lower()


def is_host(name: str) -> bool:
    """Say whether this is a host name of at least two labels."""
    return _HOST.fullmatch(name) is not None


def said(item: Said) -> tuple[str, str]:
    """Spell type and content the way they are compared and written."""
    if item.type == "CNAME":
        return item.type, host(item.content)
    try:
        return item.type, str(ipaddress.ip_address(item.content.strip()))
    except ValueError:
        return item.type, item.content.strip()


def same(one: Said, other: Said) -> bool:
    """Say whether two say the same, however it is spelled."""
    return said(one) == said(other)


def distinct(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Leave out repeats, keeping the order."""
    return tuple({said(t): t for t in targets}.values())


def unsafe_target(target: Target, name: str, *, proxied: bool, private: bool) -> str:
    """Say why `name` must not point at this target; empty if it may.

    `private`: addresses that are not global may be published.
    """
    if target.type == "CNAME":
        return _unsafe_alias(host(target.content), host(name), proxied=proxied)
    if target.type not in ADDRESS_TYPES:
        return f"{target.type} is not A, AAAA or CNAME"
    version = 4 if target.type == "A" else 6
    try:
        address = ipaddress.ip_address(target.content.strip())
    except ValueError:
        return f"{target.content} is not an IP address"
    if address.version != version:
        return f"{target.content} is not an IPv{version} address, as {target.type} needs"
    if not private and not is_public(address):
        return f"{target.content} is not an address that the world can reach"
    return ""


def _unsafe_alias(alias: str, name: str, *, proxied: bool) -> str:
    if not is_host(alias):
        return f"{alias} is not a host name"
    if alias == name:
        return f"{alias} would be an alias of itself"
    for suffix in _NEEDS_ITS_OWN_NAME:
        if alias == suffix or alias.endswith("." + suffix):
            return f"{alias} answers to its own name only; point the name at the gateway instead"
    if alias.endswith(".cfargotunnel.com") and not proxied:
        return f"{alias} works only through Cloudflare's proxy; set proxied = true"
    return ""


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether it is global unicast, and so is what is wrapped inside; or harms nobody."""
    documented = any(address in net for net in _DOCUMENTATION if net.version == address.version)
    return documented or not why_not_public(str(address))
