"""DNS providers, and the reconciler that keeps a name as it is wanted."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from orchestrator.edge.dns.base import DnsSettings, Provider
from orchestrator.errors import ConfigError

PROVIDERS = {
    "cloudflare": "orchestrator.edge.dns.cloudflare:Cloudflare",
    "dyndns2": "orchestrator.edge.dns.dyndns2:DynDns2",
}


def open_provider(settings: DnsSettings) -> Provider:
    """Import and make the provider that `settings` name; nothing is sent yet.

    The client library is imported here, at start, so that a failover pays no import.
    """
    path = PROVIDERS.get(settings.provider)
    if path is None:
        known = ", ".join(PROVIDERS)
        raise ConfigError(f"unknown DNS provider {settings.provider}; known are {known}")
    module, _, name = path.partition(":")
    return cast(Provider, getattr(import_module(module), name)(settings))
