"""What the web is configured by. Light to import: the settings build it in every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HookSettings:
    """What an outside scheduler may have done with one token: a `job`, or the command `do`.

    `token_sha256` is the 32-byte digest. `target`: the backend or service that `do` is about, ""
    where it is about none; `to`: where a failover leads; `for_s`: how long a pause lasts. `in_url`:
    the token may stand in the address; `get`: a GET or HEAD does it too.
    """

    token_sha256: bytes = field(repr=False)
    job: str = ""
    do: str = ""
    target: str = ""
    to: str | None = None
    for_s: float | None = None
    in_url: bool = False
    get: bool = False


@dataclass(frozen=True, slots=True)
class RegisterSettings:
    """What one backend's agent may register with, and what it is told.

    `allow_hosts`, `allow_private`: see `core.addresses`. `access`: who may use the agent's address
    besides us: "gateway" (nobody), "clients" or "open".
    """

    allow_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    access: str = "clients"


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where to listen and what one client may cost.

    `admin_token_sha256` is the 32-byte digest of the admin token. `metrics`: host and port of a
    listener of its own for `/metrics`, without a token. `max_age_s`: how long clients may keep a
    discovery answer. `registering`: backends that may register. `clients`: the SHA-256 of each
    client's key, hexadecimal, by the client's name. Times in seconds, sizes in bytes.
    """

    host: str
    port: int
    public_url: str | None
    admin_token_sha256: bytes = field(repr=False)
    metrics: tuple[str, int] | None = None
    max_age_s: float = 2.0
    body_limit: int = 2_000_000
    body_deadline_s: float = 30.0
    header_deadline_s: float = 10.0
    idle_s: float = 60.0
    language: str = "en"
    hooks: Mapping[str, HookSettings] = field(default_factory=dict)
    registering: Mapping[str, RegisterSettings] = field(default_factory=dict)
    clients: Mapping[str, str] = field(default_factory=dict, repr=False)

    def local_url(self, port: int) -> str:
        """Give the address that reaches a listener of ours from this machine."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
        host = everywhere.get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
