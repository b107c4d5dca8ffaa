"""What the web is configured by. Light to import: the settings build it in every command."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Where to listen and what one client may cost.

    `admin_token_sha256` is the 32-byte digest of the admin token. `metrics`: host and port of a
    listener of its own for `/metrics`, without a token. `max_age_s`: how long clients may keep a
    discovery answer. Times in seconds, sizes in bytes.
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

    def local_url(self, port: int) -> str:
        """Give the address that reaches a listener of ours from this machine."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
        host = everywhere.get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
