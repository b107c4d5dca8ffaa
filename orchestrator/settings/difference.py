"""What a reload changes, said for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.settings.carriers import Config


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changes. `restart`: not before the daemon is restarted."""

    text: str
    restart: bool = False

    def __str__(self) -> str:
        return f"{self.text}; takes effect at the next restart" if self.restart else self.text


def diff(old: Config, new: Config) -> list[str]:
    """Say in one sentence each what differs; secrets are only said to differ."""
    return [str(difference) for difference in differences(old, new)]


def differences(old: Config, new: Config) -> list[Difference]:
    """List what differs, and what of it needs a restart."""
    found: list[Difference] = []
    found += _tables("backend", old.plans, new.plans)
    found += _tables("service", old.fleet.services, new.fleet.services)
    found += _tables(
        "DNS of service", {d.service: d for d in old.dns}, {d.service: d for d in new.dns}
    )
    found += _tables("backup", {b.name: b for b in old.backups}, {b.name: b for b in new.backups})
    found += _tables("hook", old.web.hooks, new.web.hooks)
    found += _clients(old.web.clients, new.web.clients)
    found += [
        Difference(f"{what} change")
        for what, before, after in (
            ("the alerts", (old.alerts, old.fleet.alerts), (new.alerts, new.fleet.alerts)),
            ("the dead-man's ping settings", old.deadman, new.deadman),
            ("the controls", old.controls, new.controls),
            ("the operator's hours", old.fleet.operator_hours, new.fleet.operator_hours),
            ("the keep-alive pings", old.keepalive, new.keepalive),
        )
        if before != after
    ]
    found += [
        Difference(f"{what} changes: {before} → {after}")
        for what, before, after in (
            ("instance", old.fleet.instance, new.fleet.instance),
            ("timezone", old.timezone, new.timezone),
        )
        if before != after
    ]
    found += [
        Difference(f"{what} changes", restart=True)
        for what, before, after in (
            ("server.listen", (old.web.host, old.web.port), (new.web.host, new.web.port)),
            ("server.metrics_listen", old.web.metrics, new.web.metrics),
            ("server.database", old.database, new.database),
            ("the state directory", old.state_dir, new.state_dir),
            ("server.public_url", old.web.public_url, new.web.public_url),
            ("server.body_limit", old.web.body_limit, new.web.body_limit),
            ("the admin token", old.web.admin_token_sha256, new.web.admin_token_sha256),
            ("the page's language", old.web.language, new.web.language),
        )
        if before != after
    ]
    return found


def _clients(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    found = [Difference(f"client `{name}` is added") for name in new if name not in old]
    found += [Difference(f"client `{name}` is removed") for name in old if name not in new]
    changed = (name for name in new if name in old and old[name] != new[name])
    return [*found, *(Difference(f"client `{name}` changes: key") for name in changed)]


def _tables(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    found = [Difference(f"{what} `{name}` is added") for name in new if name not in old]
    found += [Difference(f"{what} `{name}` is removed") for name in old if name not in new]
    for name in new:
        if name in old and old[name] != new[name]:
            keys = ", ".join(sorted(_changed(old[name], new[name])))
            found.append(Difference(f"{what} `{name}` changes: {keys}"))
    return found


def _changed(old: Any, new: Any) -> set[str]:
    """Name the fields that differ; a backend's plan is looked into."""
    found: set[str] = set()
    for each in fields(old):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if before == after:
            continue
        if each.name == "backend":
            found |= _changed(before, after)
        elif each.name == "options":
            names = {*type(before).model_fields, *type(after).model_fields}
            found |= {n for n in names if getattr(before, n, None) != getattr(after, n, None)}
        else:
            found.add(each.name.removesuffix("_s").replace("_", " "))
    return found
