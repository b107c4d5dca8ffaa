"""From settings that hold together to the carriers that the parts of the daemon take."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from pathlib import Path as File

from backends import powered, registers
from backends.base import Plan
from jobs.base import DeadmanSettings, KeepaliveSettings
from orchestrator.core.specs import (
    AlertPolicy,
    Backend,
    DnsPolicy,
    Drift,
    FleetConfig,
    RotationPolicy,
    Service,
    Tier,
)
from orchestrator.edge.alerts import AlertSettings, Channel
from orchestrator.edge.dns.base import DnsSettings
from orchestrator.settings import backups, dnschecks, hours, quotas, schema
from orchestrator.settings.carriers import Config
from orchestrator.settings.checks import url_of
from orchestrator.settings.policies import policy
from orchestrator.settings.positions import Path
from orchestrator.settings.reading import Reading
from orchestrator.settings.values import is_remote
from orchestrator.web.carrier import HookSettings, RegisterSettings, WebSettings

DEFAULT_SERVICE = "default"
IDLE_STOP_S = 1200.0  # what aion starts by itself is not left running
PROXY_TTL_S = 300.0  # Cloudflare's proxy: "within five minutes or less"


def state_dir(environ: Mapping[str, str]) -> File:
    """Say where state is kept: the first of $STATE_DIRECTORY, else ./var."""
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return (File(given) if given else File("var")).absolute()


def build(reading: Reading, environ: Mapping[str, str]) -> Config:
    """Make the carriers. The reading has no problems left."""
    settings = reading.settings
    state = state_dir(environ)
    plans = {name: _plan(reading, name) for name in settings.backends}
    server = settings.server
    token = reading.secrets.get(("server", "admin_token"))
    return Config(
        fleet=fleet(reading),
        plans=plans,
        dns=_dns(reading),
        alerts=_alerts(reading),
        deadman=_deadman(reading),
        keepalive=_keepalive(reading),
        backups=backups.build(reading, state),
        controls=tuple(settings.health.controls),
        web=WebSettings(
            host=server.listen[0],
            port=server.listen[1],
            public_url=server.public_url,
            admin_token_sha256=hashlib.sha256(token.encode()).digest() if token else b"",
            metrics=server.metrics_listen,
            max_age_s=settings.health.fast_interval,
            body_limit=server.body_limit,
            language=settings.language,
            hooks=_hooks(reading),
            registering=_registering(reading),
            clients={name: _digest(reading, ("clients", name, "key")) for name in settings.clients},
        ),
        database=database(reading, environ),
        state_dir=state,
        path=reading.document.path,
        timezone=settings.timezone,
        warnings=tuple(problem.text for problem in reading.warnings),
    )


def fleet(reading: Reading) -> FleetConfig:
    """Give what the core decides by. It needs no secrets, so missing ones are no hindrance."""
    settings = reading.settings
    backends = {name: _backend(reading, name) for name in settings.backends}
    return FleetConfig(
        backends=backends,
        services=_services(settings, backends),
        alerts=AlertPolicy(settings.alerts.remind_every, settings.alerts.escalate_after),
        instance=settings.instance,
        controls=len(settings.health.controls),
        interval_s=settings.health.interval,
        seeds=_seeds(reading),
        meters=quotas.meters(reading),
        operator_hours=_minutes(settings.alerts.operator_hours),
        timezone=settings.timezone,
    )


def _seeds(reading: Reading) -> dict[str, str]:
    """Give the SHA-256 of each token that a backend may register with by this configuration."""
    return {
        name: hashlib.sha256(token.encode()).hexdigest()
        for name, backend in reading.settings.backends.items()
        if _registers(reading, name) and (token := reading.secrets.get(("backends", name, "token")))
    }


def database(reading: Reading, environ: Mapping[str, str]) -> str:
    """Give the database as an absolute sqlite:/// URL."""
    name = reading.settings.server.database.removeprefix("sqlite:///")
    return f"sqlite:///{state_dir(environ) / name}"


def _backend(reading: Reading, name: str) -> Backend:
    given = reading.settings.backends[name]
    url = url_of(reading, name)
    hidden = given.kind == dnschecks.API_KIND
    comes, starts = _registers(reading, name), powered(given.kind, reading.options.get(name))
    auto = given.start == "auto"
    return Backend(
        name=name,
        kind=given.kind,
        engine=given.engine,
        priority=given.priority,
        tier=Tier(given.tier or ("paid" if hidden else "free")),
        url=None if hidden else url,
        models=tuple(given.models),
        remote=is_remote(url) if url else comes or starts,
        assignable=not hidden,
        targets=dnschecks.targets(given.dns),
        follows_address=given.dns is not None and given.dns.follow,
        restart_url=given.restart_url,
        warn_before_s=given.warn_before,
        drain_margin_s=given.drain_margin,
        registers=comes,
        session_s=given.session,
        powered=starts,
        auto_start=auto,
        on_hours=hours.of(given),
        idle_stop_s=given.idle_stop or (IDLE_STOP_S if auto else None),
        health=policy(reading.settings, given, url),
    )


def _registers(reading: Reading, name: str) -> bool:
    return registers(reading.settings.backends[name].kind, reading.options.get(name))


def _plan(reading: Reading, name: str) -> Plan:
    start: Path = ("backends", name)
    secrets = {
        ".".join(str(part) for part in path[2:]): value
        for path, value in reading.secrets.items()
        if path[:2] == start
    }
    models = dict(reading.settings.backends[name].models)
    backend, public_url = _backend(reading, name), reading.settings.server.public_url
    aion = (public_url or "") if backend.registers and backend.powered else ""
    return Plan(backend, reading.options[name], models, secrets, aion=aion)


def _services(settings: schema.Settings, backends: Mapping[str, Backend]) -> dict[str, Service]:
    if not settings.services:
        return {DEFAULT_SERVICE: Service(DEFAULT_SERVICE, _pool(None, backends))}
    return {
        name: Service(
            name=name,
            backends=_pool(service.backends, backends),
            failback_after_s=service.failback_after,
            rotation=RotationPolicy(
                service.rotation.lead, service.rotation.verify, service.rotation.drain
            ),
            dns=_dns_policy(service.dns) if service.dns else None,
        )
        for name, service in settings.services.items()
    }


def _pool(names: list[str] | None, backends: Mapping[str, Backend]) -> tuple[str, ...]:
    """Order a pool by priority, then the place in the service's own list, then name."""
    listed = sorted(backends) if names is None else names
    return tuple(sorted(listed, key=lambda name: backends[name].priority))  # sorting keeps order


def _dns_policy(dns: schema.Dns) -> DnsPolicy:
    ttl = PROXY_TTL_S if dnschecks.proxied(dns) or dns.ttl is None else float(dns.ttl)
    return DnsPolicy(dns.name, dnschecks.gateway(dns), Drift(dns.drift), ttl)


def _dns(reading: Reading) -> tuple[DnsSettings, ...]:
    return tuple(
        DnsSettings(
            service=name,
            provider=dns.provider,
            zone=dns.zone or "",
            name=dns.name,
            token=reading.secrets["services", name, "dns", "token"],
            api=dnschecks.api(dns),
            proxied=dnschecks.proxied(dns),
            ttl=dns.ttl or 1,
            drift=Drift(dns.drift),
            username=dns.username,
            resolver=dns.resolver,
            instance=reading.settings.instance,
            private=dns.private,
        )
        for name, service in reading.settings.services.items()
        if (dns := service.dns) is not None
    )


def _alerts(reading: Reading) -> AlertSettings:
    settings = reading.settings
    channels: list[Channel] = []
    if telegram := settings.alerts.telegram:
        token = reading.secrets["alerts", "telegram", "token"]
        channels.append(Channel("telegram", f"tgram://{token}/{telegram.chat}", telegram.api))
    for number, credential in enumerate(settings.alerts.urls):
        url = reading.secrets["alerts", "urls", number]
        channels.append(Channel(credential.credential, url))
    return AlertSettings(
        channels=tuple(channels),
        language=settings.language,
        timezone=settings.timezone,
        quiet=settings.alerts.quiet_hours,
        public_url=settings.server.public_url,
    )


def _keepalive(reading: Reading) -> tuple[KeepaliveSettings, ...]:
    return tuple(
        KeepaliveSettings(
            backend=name,
            every_s=wanted.every,
            url=wanted.url,
            between=wanted.between,
            public_only=_registers(reading, name)
            and not getattr(reading.options[name], "allow_private", False),
        )
        for name, backend in reading.settings.backends.items()
        if (wanted := backend.keepalive) is not None
    )


def _hooks(reading: Reading) -> dict[str, HookSettings]:
    return {
        name: HookSettings(
            token_sha256=hashlib.sha256(reading.secrets["hooks", name, "token"].encode()).digest(),
            job=hook.job or "",
            do=hook.do or "",
            target=hook.backend or hook.service or "",
            to=hook.to,
            for_s=hook.for_,
            in_url=hook.in_url,
            get=hook.get,
        )
        for name, hook in reading.settings.hooks.items()
    }


def _registering(reading: Reading) -> dict[str, RegisterSettings]:
    return {
        name: RegisterSettings(
            allow_hosts=tuple(reading.options[name].allow_hosts),
            allow_private=reading.options[name].allow_private,
            access=reading.options[name].access,
        )
        for name in reading.settings.backends
        if _registers(reading, name)
    }


def _digest(reading: Reading, path: Path) -> str:
    return hashlib.sha256(reading.secrets[path].encode()).hexdigest()


def _minutes(window: tuple[dt.time, dt.time] | None) -> tuple[int, int] | None:
    """Give a window of the day in minutes, from and until."""
    if window is None:
        return None
    begin, end = (time.hour * 60 + time.minute for time in window)
    return begin, end


def _deadman(reading: Reading) -> DeadmanSettings | None:
    deadman = reading.settings.deadman
    if deadman is None:
        return None
    return DeadmanSettings(reading.secrets["deadman", "ping_url"], deadman.every)
