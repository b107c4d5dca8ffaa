"""Where a registered address may lead: the public internet, at a host its backend is allowed.

An address that came with a registration is the word of whoever holds the token. Were it followed
anywhere, it could reach what only this machine can: its loopback, its network, and the metadata
server of its cloud, which hands out credentials. So the URL is held against what the operator
allowed, and the IP address is looked at again at each connection, for names change their answers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final

LONGEST_URL: Final = 300

_V4 = ipaddress.IPv4Address
_V6 = ipaddress.IPv6Address

METADATA: Final = "a cloud's metadata server"
DOCUMENTATION: Final = "for documentation"
_PRIVATE: Final = "private"
_LOOPBACK: Final = "loopback"
_LINK: Final = "link-local"
_MULTICAST: Final = "multicast"
_RESERVED: Final = "reserved"

# The first that holds the address counts. IANA's special-purpose registries (RFC 6890 and later),
# and the addresses at which clouds answer their own machines.
_V4_NETS: Final = tuple(
    (ipaddress.IPv4Network(net), why)
    for net, why in (
        ("169.254.169.254/32", METADATA),  # most
        ("169.254.169.253/32", METADATA),  # AWS, its resolver
        ("169.254.170.0/24", METADATA),  # AWS, its containers' credentials
        ("100.100.100.200/32", METADATA),  # Alibaba
        ("192.0.0.192/32", METADATA),  # Oracle
        ("168.63.129.16/32", METADATA),  # Azure; looks like any public address
        ("0.0.0.0/8", "of this network"),
        ("10.0.0.0/8", _PRIVATE),
        ("100.64.0.0/10", "shared by a carrier's customers"),  # RFC 6598; Tailscale too
        ("127.0.0.0/8", _LOOPBACK),
        ("169.254.0.0/16", _LINK),
        ("172.16.0.0/12", _PRIVATE),
        ("192.0.0.0/24", "for protocols"),
        ("192.0.2.0/24", DOCUMENTATION),
        ("192.88.99.0/24", "of a 6to4 relay"),
        ("192.168.0.0/16", _PRIVATE),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", DOCUMENTATION),
        ("203.0.113.0/24", DOCUMENTATION),
        ("224.0.0.0/4", _MULTICAST),
        ("255.255.255.255/32", "for broadcasts"),
        ("240.0.0.0/4", _RESERVED),
    )
)
_V6_NETS: Final = tuple(
    (ipaddress.IPv6Network(net), why)
    for net, why in (
        ("::/128", "unspecified"),
        ("::1/128", _LOOPBACK),
        ("fd00:ec2::/32", METADATA),  # AWS
        ("fd20:ce::254/128", METADATA),  # Google
        ("64:ff9b:1::/48", "NAT64 of a local network"),  # RFC 8215: it may translate to anything
        ("100::/64", "for discarding"),
        ("2001::/32", ""),  # Teredo, by what is inside
        ("2001:2::/48", "for benchmarks"),
        ("2001:db8::/32", DOCUMENTATION),
        ("2001::/23", "for protocols"),
        ("3fff::/20", DOCUMENTATION),
        ("2000::/3", ""),  # global unicast, RFC 4291
        ("64:ff9b::/96", ""),  # NAT64, by what is inside
        ("::ffff:0:0/96", ""),  # IPv4-mapped, by what is inside
        ("fc00::/7", _PRIVATE),
        ("fe80::/10", _LINK),
        ("fec0::/10", "site-local"),
        ("ff00::/8", _MULTICAST),
        ("::/0", _RESERVED),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214, 6.1
_LOW: Final = 0xFFFFFFFF


def why_not_public(address: str) -> str:
    """Say what kind of address this is, if it is not global unicast; "" if it is.

    What an IPv6 address carries of IPv4 (mapped, compatible, 6to4, Teredo, NAT64, ISATAP) is held
    to the same: a router may take it out again.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "not an IP address"
    if isinstance(found, _V4):
        return next((why for net, why in _V4_NETS if found in net), "")
    for inner in _inside(found):
        if why := why_not_public(str(inner)):
            return f"{why} ({inner} inside)"
    return next(why for net, why in _V6_NETS if found in net)


def _inside(address: _V6) -> Iterator[_V4]:
    """Give the IPv4 addresses that this one carries."""
    number = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    compatible = address in _COMPATIBLE and number > 1  # :: and ::1 are something else
    if address in _NAT64 or compatible or (number >> 32) & _LOW in _ISATAP:
        yield _V4(number & _LOW)


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────

_METADATA_NAMES: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        "metadata.tencentyun.com",
    }
)
_LABEL: Final = re.compile(r"(?![-_])[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LONGEST_NAME: Final = 253
_LAST_PORT: Final = 65535


def why_not_url(url: str, allow_hosts: Sequence[str], *, allow_private: bool) -> str:
    """Say why a backend must not be reached at this URL; "" if it may.

    It is `https://HOST` or `https://HOST:PORT` and nothing else, so that no two readers of it can
    differ. `allow_hosts` are patterns, see `matches`. `allow_private`: `http://` and addresses of
    one's own network too. An IP address must be in `allow_hosts` as it is written, and other
    spellings of one (octal, hexadecimal, `127.1`) never pass; nor does a metadata server.
    """
    if len(url) > LONGEST_URL:
        return f"an address of more than {LONGEST_URL} characters"
    if not url.isascii() or not url.isprintable() or set(url) & set(" \\<>\"'`{}|^"):
        return "an address has plain characters only (a name in another script: its xn-- form)"
    scheme, found, rest = url.partition("://")
    if not found or scheme not in ("https", "http"):
        return "an address begins with https://"
    if scheme == "http" and not allow_private:
        return "only https:// (http:// needs allow_private = true)"
    netloc, _, path = rest.partition("/")
    if path or set(netloc) & set("?#"):
        return "an address of a host alone: no path, no `?`, no `#`"
    if "@" in netloc:
        return "no user or password in an address"
    host, colon, port = _split(netloc.lower())
    if colon and (_PORT.fullmatch(port) is None or int(port) > _LAST_PORT):
        return "not a port"
    return _why_not_host(host, allow_hosts, allow_private=allow_private)


def _split(netloc: str) -> tuple[str, str, str]:
    """Take host and port apart; the brackets of an IPv6 address stay on."""
    if netloc.startswith("["):
        inner, bracket, rest = netloc.partition("]")
        colon, port = rest[:1], rest[1:]
        return inner + bracket, rest[:1], port if colon in ("", ":") else "?"
    host, colon, port = netloc.partition(":")
    return host, colon, port


def _why_not_host(host: str, allow_hosts: Sequence[str], *, allow_private: bool) -> str:
    name = host.removesuffix(".")
    bare = _bare(name)
    literal = _is_address(bare) and (":" in bare) == (bare != name)
    if not literal:
        if why := _why_not_name(name):
            return why
        if name in _METADATA_NAMES:
            return f"`{name}` is {METADATA}"
    if not any(matches(name, pattern) for pattern in allow_hosts):
        return f"`{name}` is not in allow_hosts"
    if literal:
        why = why_not_public(bare)
        if METADATA in why or (why and not allow_private):
            return f"`{name}` is {why}" + ("" if METADATA in why else "; see allow_private")
    elif "." not in name and not allow_private:
        return f"`{name}` is a name of a local network; see allow_private"
    return ""


def _bare(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _is_address(text: str) -> bool:
    """Tell whether this is an address in the one spelling that nobody reads differently."""
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def _why_not_name(name: str) -> str:
    labels = name.split(".")
    if name.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return "an IP address in a spelling of its own; write it plainly"
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        return "not a host name"
    return ""


def matches(host: str, pattern: str) -> bool:
    """Say whether `pattern` means `host`: that very name, or with `*.` any name below.

    Case and a final dot make no difference.
    """
    name, meant = (_bare(text.lower().removesuffix(".")) for text in (host, pattern))
    if meant.startswith("*."):
        return name.endswith(meant[1:]) and len(name) > len(meant) - 1
    return name == meant


def why_not_pattern(pattern: str, *, allow_private: bool) -> str:
    """Say what this is instead of a pattern for `allow_hosts`; "" if it is one."""
    text = pattern.lower().removesuffix(".")
    name = text.removeprefix("*.")
    if not text.isascii() or "*" in name:
        return "not a host, nor `*.example.org` for all names below one"
    if _is_address(_bare(name)):
        return "" if text == name else "an IP address, with no names below it"
    if why := _why_not_name(name):
        return why
    if text != name and "." not in name and not allow_private:
        return "a whole top-level domain; name one below it"
    return ""
