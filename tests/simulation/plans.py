"""The fleets that are simulated: a real configuration file, read by the real settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.settings import Config, load

CONTROLS = {  # host → operator
    "one.control": "cloud",
    "two.control": "cloud",
    "three.control": "third",
    "four.control": "fourth",
}
ZONE, NAME = "example.org", "ai.example.org"
GATEWAY = "203.0.113.200"
NAMES = ("colab", "kaggle", "lab", "rented", "vm", "spot")
OPERATORS = ("cloud", "cloud", "third", "own", "fifth", "cloud")
NOTEBOOKS = ("book", "pad")  # these register themselves
TUNNELS = ("trycloudflare.com", "ngrok-free.app")  # where each of them does; the second is metered
KEYED = "colab"  # the one of the others that wants a key
RENTED = "gpu"  # the one that is started and stopped
RENTED_FROM = "third"  # the company whose network it and its provider are reached through
PER_HOUR_USD = 1.0


def host_of(name: str) -> str:
    return f"{name}.backend"


def token_of(name: str) -> str:
    """Give the token that the configuration has for a notebook."""
    return f"token-of-{name}-0123456789abcdef0123456789"


def key_of(name: str) -> str:
    """Give the key that a backend wants."""
    return f"key-of-{name}-0123456789abcdef"


def restart_of(name: str) -> str:
    """Say where a human starts a notebook."""
    return f"https://notebooks.example/{name}"


def operator_of(name: str) -> str:
    """Name the company whose network this backend's tunnel runs through."""
    if name == RENTED:
        return RENTED_FROM
    stem = name.rstrip("0123456789")
    return OPERATORS[NAMES.index(stem)]


def engine_of(name: str) -> str:
    """Name the engine: every second one lists its models only when asked for them."""
    if name in NOTEBOOKS:
        return ("llamacpp", "openai")[NOTEBOOKS.index(name)]
    if name == RENTED:
        return "openai"
    stem = name.rstrip("0123456789")
    return ("openai", "llamacpp")[NAMES.index(stem) % 2]


def names_of(count: int) -> tuple[str, ...]:
    return tuple(
        NAMES[i] if i < len(NAMES) else f"{NAMES[i % len(NAMES)]}{i // len(NAMES) + 1}"
        for i in range(count)
    )


def _backend(name: str, number: int, *, canary: bool, paid: bool) -> str:
    engine = engine_of(name)
    target = f'dns = {{ a = "203.0.113.{10 + number}" }}' if number % 2 == 0 else ""
    tier = 'tier = "paid"' if paid or name.startswith("rented") else ""
    key = f'key = {{ credential = "{name}" }}' if name == KEYED else ""
    return f"""
[backends.{name}]
kind = "static"
engine = "{engine}"
url = "http://{host_of(name)}"
priority = {10 * (number + 1)}
models = ["m"]
{target}
{tier}
{key}
health = {{ canary = "{"5m" if canary else "off"}" }}
"""


@dataclass(frozen=True)
class Notebook:
    """A backend that registers: how preferred it is, and how long one of its sessions lasts.

    `quota_h`: how many hours a day it may be on.
    """

    name: str
    priority: int
    session_s: float
    canary: bool = True
    quota_h: float | None = None

    @property
    def suffix(self) -> str:
        """What the name of each of its tunnels ends with."""
        return TUNNELS[NOTEBOOKS.index(self.name)]

    def text(self) -> str:
        """Write its part of the configuration."""
        return f"""
[backends.{self.name}]
kind = "notebook"
engine = "{engine_of(self.name)}"
priority = {self.priority}
models = ["m"]
token = {{ credential = "{self.name}" }}
allow_hosts = ["*.{self.suffix}"]
session = "{self.session_s:.0f}s"
restart_url = "{restart_of(self.name)}"
{self._quota()}
health = {{ canary = "{"5m" if self.canary else "off"}" }}
"""

    def _quota(self) -> str:
        if self.quota_h is None:
            return ""
        return f'quota = {{ limit = "{3600 * self.quota_h:.0f}s", per = "day" }}'


@dataclass(frozen=True)
class Rented:
    """The backend that aion starts and stops: how preferred, and how much it may cost in all.

    `alone`: nobody else is as cheap, so that it is needed all the time.
    """

    priority: int
    limit_usd: float
    alone: bool = True

    name = RENTED

    def text(self) -> str:
        """Write its part of the configuration."""
        return f"""
[backends.{RENTED}]
kind = "command"
engine = "{engine_of(RENTED)}"
url = "http://{host_of(RENTED)}"
priority = {self.priority}
models = ["m"]
tier = "credit"
start = "auto"
idle_stop = "4m"
cost = {{ per_hour = {PER_HOUR_USD}, limit = {self.limit_usd:.3f} }}
health = {{ canary = "5m" }}
[backends.{RENTED}.commands]
start = ["provider", "start", "{{launch}}", "{{max_run_s}}"]
stop = ["provider", "stop", "{{launch}}"]
status = ["provider", "status"]
"""


def pool_of(count: int, others: Sequence[Notebook | Rented]) -> list[str]:
    """Name all backends, most preferred first."""
    ranks = {name: 10 * (number + 1) for number, name in enumerate(names_of(count))}
    ranks |= {one.name: one.priority for one in others}
    return sorted(ranks, key=lambda name: (ranks[name], name))


def text(
    count: int,
    notebooks: Sequence[Notebook],
    rented: Rented | None = None,
    *,
    drift: str,
    canaries: bool,
    quick: bool,
) -> str:
    """Write the configuration of `count` backends, a service with a DNS name and one without.

    Beside them come those that register, the first of these in both services, and the one that is
    started and stopped.

    `quick`: failback after a minute, and a record that resolvers keep for a minute only.
    """
    names = names_of(count)
    others = [*notebooks, *([rented] if rented is not None else [])]
    paid = rented is not None and rented.alone
    failback = 'failback_after = "1m"' if quick else ""
    ttl = "proxied = false\nttl = 60" if quick else ""
    embed = [*names[1:3], *(one.name for one in notebooks[:1])]
    parts = [
        'timezone = "UTC"\ninstance = "sim"',
        f"[health]\ncontrols = {[f'https://{host}' for host in CONTROLS]}",
        *(
            _backend(name, i, canary=canaries and i % 2 == 0, paid=paid)
            for i, name in enumerate(names)
        ),
        *(one.text() for one in others),
        f"[services.chat]\nbackends = {pool_of(count, others)}\n{failback}",
        f"""[services.chat.dns]
provider = "cloudflare"
zone = "{ZONE}"
name = "{NAME}"
token = {{ credential = "cloudflare" }}
drift = "{drift}"
gateway = "{GATEWAY}"
private = true
{ttl}""",
        f"[services.embed]\nbackends = {embed}\n{failback}",
        '[alerts]\nurls = [{ credential = "first" }, { credential = "second" }]',
    ]
    return "\n".join(parts).replace("'", '"') + "\n"


def configuration(
    folder: Path,
    count: int,
    notebooks: Sequence[Notebook] = (),
    rented: Rented | None = None,
    *,
    drift: str = "respect",
    canaries: bool = True,
    quick: bool = False,
) -> Config:
    """Write a configuration into `folder` and read it as the daemon does."""
    secrets = folder / "credentials"
    secrets.mkdir(parents=True, exist_ok=True)
    (secrets / "cloudflare").write_text("token-of-the-simulated-zone")
    (secrets / "first").write_text("json://first.channel/hook")
    (secrets / "second").write_text("json://second.channel/hook")
    (secrets / KEYED).write_text(key_of(KEYED))
    for one in notebooks:
        (secrets / one.name).write_text(token_of(one.name))
    path = folder / "aion.toml"
    path.write_text(text(count, notebooks, rented, drift=drift, canaries=canaries, quick=quick))
    return load(path, environ={"CREDENTIALS_DIRECTORY": str(secrets)})
