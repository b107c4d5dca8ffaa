"""The fleets that are simulated: a real configuration file, read by the real settings."""

from __future__ import annotations

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


def host_of(name: str) -> str:
    return f"{name}.backend"


def operator_of(name: str) -> str:
    """Name the company whose network this backend's tunnel runs through."""
    stem = name.rstrip("0123456789")
    return OPERATORS[NAMES.index(stem)]


def engine_of(name: str) -> str:
    """Name the engine: every second one lists its models only when asked for them."""
    stem = name.rstrip("0123456789")
    return ("openai", "llamacpp")[NAMES.index(stem) % 2]


def names_of(count: int) -> tuple[str, ...]:
    return tuple(
        NAMES[i] if i < len(NAMES) else f"{NAMES[i % len(NAMES)]}{i // len(NAMES) + 1}"
        for i in range(count)
    )


def _backend(name: str, number: int, *, canary: bool) -> str:
    engine = engine_of(name)
    target = f'dns = {{ a = "203.0.113.{10 + number}" }}' if number % 2 == 0 else ""
    tier = 'tier = "paid"' if name.startswith("rented") else ""
    return f"""
[backends.{name}]
kind = "static"
engine = "{engine}"
url = "http://{host_of(name)}"
priority = {10 * (number + 1)}
models = ["m"]
{target}
{tier}
health = {{ canary = "{"5m" if canary else "off"}" }}
"""


def text(count: int, *, drift: str, canaries: bool, quick: bool) -> str:
    """Write the configuration of `count` backends, a service with a DNS name and one without.

    `quick`: failback after a minute, and a record that resolvers keep for a minute only.
    """
    names = names_of(count)
    failback = 'failback_after = "1m"' if quick else ""
    ttl = "proxied = false\nttl = 60" if quick else ""
    parts = [
        'timezone = "UTC"\ninstance = "sim"',
        f"[health]\ncontrols = {[f'https://{host}' for host in CONTROLS]}",
        *(_backend(name, i, canary=canaries and i % 2 == 0) for i, name in enumerate(names)),
        f"[services.chat]\nbackends = {list(names)}\n{failback}",
        f"""[services.chat.dns]
provider = "cloudflare"
zone = "{ZONE}"
name = "{NAME}"
token = {{ credential = "cloudflare" }}
drift = "{drift}"
gateway = "{GATEWAY}"
private = true
{ttl}""",
        f"[services.embed]\nbackends = {list(names[1:3])}\n{failback}",
        '[alerts]\nurls = [{ credential = "first" }, { credential = "second" }]',
    ]
    return "\n".join(parts).replace("'", '"') + "\n"


def configuration(
    folder: Path,
    count: int,
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
    path = folder / "aion.toml"
    path.write_text(text(count, drift=drift, canaries=canaries, quick=quick))
    return load(path, environ={"CREDENTIALS_DIRECTORY": str(secrets)})
