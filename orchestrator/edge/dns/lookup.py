"""Ask the DNS what a name says."""

from __future__ import annotations

import asyncio

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.rdatatype
import dns.resolver

from orchestrator.core.specs import Target
from orchestrator.errors import Unreachable

_DNS_PORT = 53


async def lookup(name: str, *, resolver: str = "", timeout_s: float = 3.8) -> tuple[Target, ...]:
    """Return the CNAME at `name`, or else its A and AAAA addresses; empty if it has none.

    `resolver`: `host` or `host:port` of the server to ask, empty for the system's. UDP first, TCP
    when an answer is cut short. Raises `Unreachable` if nobody answers or the answer is an error:
    only a server that says so makes a name empty.
    """
    asked = await _resolver(resolver, timeout_s)
    answers = await asyncio.gather(*(_ask(asked, name, kind) for kind in ("A", "AAAA")))
    found = {target: None for answer in answers for target in answer}
    aliases = tuple(t for t in found if t.type == "CNAME")
    return aliases or tuple(found)


async def _resolver(where: str, timeout_s: float) -> dns.asyncresolver.Resolver:
    try:
        made = dns.asyncresolver.Resolver(configure=not where)
        made.timeout = timeout_s / 2  # a lost datagram leaves time to ask once more
        made.lifetime = timeout_s
        if where:
            host, _, port = where.rpartition(":") if _has_port(where) else (where, "", "")
            made.port = int(port or _DNS_PORT)
            made.nameservers = await _addresses(host.strip("[]"), timeout_s)
    except (dns.exception.DNSException, ValueError, OSError) as error:
        raise Unreachable(f"no DNS server to ask: {where or 'none configured here'}") from error
    return made


async def _addresses(host: str, timeout_s: float) -> list[str]:
    if dns.inet.is_address(host):
        return [host]
    system = dns.asyncresolver.Resolver()
    system.lifetime = timeout_s / 2
    return list((await system.resolve_name(host)).addresses())


def _has_port(where: str) -> bool:
    return "]:" in where or (where.count(":") == 1)


async def _ask(asked: dns.asyncresolver.Resolver, name: str, kind: str) -> list[Target]:
    try:
        answer = await asked.resolve(name, kind, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN:
        return []
    except (dns.exception.DNSException, OSError) as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Unreachable(f"the DNS did not say what {name} is: {text}") from error
    # one answer holds the whole chain of aliases; ours is the one at the name itself
    for rrset in answer.response.answer:
        if rrset.name == answer.qname and rrset.rdtype == dns.rdatatype.CNAME:
            return [Target("CNAME", str(rrset[0].target).rstrip("."))]
    return [Target(kind, record.address) for record in answer.rrset or ()]
