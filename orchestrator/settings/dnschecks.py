"""What the keys of a service's DNS name say together, and with the backends' own targets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from backends import powered, registers
from orchestrator.core.specs import Target
from orchestrator.core.targets import is_host, unsafe_target
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.schema import CLOUDFLARE, Backend, BackendDns, Dns
from orchestrator.settings.values import is_remote

API_KIND = "api"


def targets(dns: BackendDns | None) -> tuple[Target, ...]:
    """Give a backend's own DNS targets, as far as they are configured."""
    if dns is None:
        return ()
    alias = (Target("CNAME", dns.cname),) if dns.cname else ()
    fours = (Target("A", content) for content in dns.a or ())
    return (*fours, *(Target("AAAA", content) for content in dns.aaaa or ()), *alias)


def gateway(dns: Dns) -> tuple[Target, ...]:
    """Give the DNS targets of the gateway."""
    if dns.gateway is None:
        return ()
    try:
        version = ipaddress.ip_address(dns.gateway).version
    except ValueError:
        return (Target("CNAME", dns.gateway),)
    return (Target("A" if version == 4 else "AAAA", dns.gateway),)  # noqa: PLR2004


def proxied(dns: Dns) -> bool:
    """Tell whether the record goes through Cloudflare's proxy: there, unless told otherwise."""
    return dns.provider == "cloudflare" if dns.proxied is None else dns.proxied


def api(dns: Dns) -> str:
    """Give the address of the provider's interface."""
    return dns.api or (CLOUDFLARE if dns.provider == "cloudflare" else "")


def pool(reading: Reading, service: str) -> list[tuple[str, Backend]]:
    """List the backends of a service that were read."""
    names = reading.settings.services[service].backends
    backends = reading.settings.backends
    return [(n, backends[n]) for n in (backends if names is None else names) if n in backends]


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the services' DNS names and the backends' targets."""
    seen: dict[str, str] = {}
    for name, service in reading.settings.services.items():
        if service.dns is None:
            continue
        path: Path = ("services", name, "dns")
        if other := seen.get(service.dns.name):
            place = (*path, "name")
            yield Problem(place, f"{dotted(place)}: services.{other} has this name already")
        seen.setdefault(service.dns.name, name)
        yield from _name(path, service.dns)
        yield from _provider(path, service.dns)
        yield from _targets(reading, name, path, service.dns)
    for name, backend in reading.settings.backends.items():
        if backend.dns is None:
            continue
        if backend.dns.follow:
            yield from _followed(reading, name)
        if backend.dns.cname and (backend.dns.a or backend.dns.aaaa):
            path = ("backends", name, "dns")
            yield Problem(
                path, f"{dotted(path)}: a CNAME stands alone; leave out `a` and `aaaa`, or `cname`"
            )


def _name(path: Path, dns: Dns) -> Iterator[Problem]:
    if not is_host(dns.name):
        yield Problem(
            (*path, "name"), f"{dotted((*path, 'name'))}: not a DNS name of at least two parts"
        )
    elif dns.zone and dns.name != dns.zone and not dns.name.endswith("." + dns.zone):
        text = f"`{dns.name}` is not in the zone `{dns.zone}`"
        yield Problem((*path, "name"), f"{dotted((*path, 'name'))}: {text}")


def _provider(path: Path, dns: Dns) -> Iterator[Problem]:
    here = dotted(path)
    if dns.provider == "cloudflare":
        if dns.zone is None:
            yield Problem((*path, "zone"), f"{here}: `zone` is missing", on_key=True)
        if dns.username or dns.resolver:
            key = "username" if dns.username else "resolver"
            yield Problem((*path, key), f"{here}: `{key}` is for dyndns2 only", on_key=True)
        if dns.ttl and proxied(dns):
            text = "has no effect through the proxy (always 300 s); leave it out"
            yield Problem((*path, "ttl"), f"{here}: `ttl` {text}", on_key=True)
    else:
        for key in ("username", "api"):
            if not getattr(dns, key):
                yield Problem((*path, key), f"{here}: `{key}` is missing", on_key=True)
        if dns.proxied:
            yield Problem(
                (*path, "proxied"), f"{here}: `proxied` is for cloudflare only", on_key=True
            )
    if dns.api and dns.api.startswith("http:") and is_remote(dns.api):
        yield Problem(
            (*path, "api"), f"{here}: `api` must begin with https://, for the token travels over it"
        )


def _targets(reading: Reading, service: str, path: Path, dns: Dns) -> Iterator[Problem]:
    """Everyone in the pool must be publishable, as itself or by the gateway."""
    if not reading.sound(path):
        return
    yield from _fit((*path, "gateway"), gateway(dns), dns)
    for name, backend in pool(reading, service):
        own = targets(backend.dns)
        place: Path = ("backends", name, "dns")
        yield from _fit(place, own, dns)
        if backend.dns and backend.dns.follow and not dns.gateway:
            text = (
                f"once the address of `{name}` is released, {dns.name} has to point elsewhere;"
                " set `gateway` here"
            )
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
            continue
        if not own and not dns.gateway and backend.kind != API_KIND and reading.sound(place):
            text = (
                f"when `{name}` serves, {dns.name} has nothing to point at;"
                f" set `gateway` here, or `dns` in [backends.{name}]"
            )
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def _followed(reading: Reading, name: str) -> Iterator[Problem]:
    """Only an address that comes with each start can be followed."""
    backend, options = reading.settings.backends[name], reading.options.get(name)
    if options is None:
        return
    path: Path = ("backends", name, "dns", "follow")
    comes = getattr(options, "url", "") is None and not registers(backend.kind, options)
    if not (comes and powered(backend.kind, options)):
        text = "its address does not come from its provider; write { a = … }, or leave it out"
        yield Problem(path, f"{dotted(path)}: {text}")
    elif targets(backend.dns):
        yield Problem(path, f"{dotted(path)}: either this, or records that do not change")


def _fit(path: Path, wanted: tuple[Target, ...], dns: Dns) -> Iterator[Problem]:
    for target in wanted:
        if dns.provider == "dyndns2" and target.type == "CNAME":
            text = "dyndns2 keeps addresses only; a name needs `a` or `aaaa` here"
            yield Problem(path, f"{dotted(path)}: {text}")
            return
        if why := unsafe_target(target, dns.name, proxied=proxied(dns), private=dns.private):
            yield Problem(path, f"{dotted(path)}: {why}")
