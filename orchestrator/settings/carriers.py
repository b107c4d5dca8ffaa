"""What the settings come to: one frozen value for each part of the daemon."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backends.base import Plan
from jobs.base import BackupSettings, DeadmanSettings, KeepaliveSettings
from orchestrator.core.specs import FleetConfig
from orchestrator.edge.alerts import AlertSettings
from orchestrator.edge.dns.base import DnsSettings
from orchestrator.settings.credentials import ensure_admin_token
from orchestrator.web.carrier import WebSettings


@dataclass(frozen=True)
class Config:
    """The configuration in force.

    `database` is an absolute sqlite:/// URL. `path`: the file it was read from, if any. `warnings`
    are lines for the operator about what is valid but will not do what one may expect.
    `web.admin_token_sha256` is empty where the file names no token: see `with_admin_token`.
    """

    fleet: FleetConfig
    plans: Mapping[str, Plan]
    dns: tuple[DnsSettings, ...]
    alerts: AlertSettings
    deadman: DeadmanSettings | None
    keepalive: tuple[KeepaliveSettings, ...]
    backups: tuple[BackupSettings, ...]
    controls: tuple[str, ...]
    web: WebSettings
    database: str
    state_dir: Path
    path: Path | None
    timezone: str
    warnings: tuple[str, ...] = ()

    def secrets(self) -> Iterator[str]:
        """Give every secret that no log line may show."""
        for plan in self.plans.values():
            yield from plan.secrets.values()
        for settings in self.dns:
            yield settings.token
        for channel in self.alerts.channels:
            yield channel.url
        if self.deadman is not None:
            yield self.deadman.ping_url
        for backup in self.backups:
            yield from backup.secrets()


def signed(config: Config, instance: str) -> Config:
    """Put in the name that signs our DNS records, where the file names none."""
    if config.fleet.instance:
        return config
    dns = tuple(replace(settings, instance=instance) for settings in config.dns)
    return replace(config, fleet=replace(config.fleet, instance=instance), dns=dns)


def with_admin_token(config: Config) -> tuple[Config, Path | None, bool]:
    """Give the configuration an admin token if the file names none.

    Returns it, the file that holds the token (None: a credential), and whether it was made just
    now. Raises ConfigError.
    """
    if config.web.admin_token_sha256:
        return config, None, False
    token, path, made = ensure_admin_token(config.state_dir)
    web = replace(config.web, admin_token_sha256=hashlib.sha256(token.encode()).digest())
    return replace(config, web=web), path, made
