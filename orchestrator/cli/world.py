"""The demo's world: three fake backends and a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.cli.sandbox import MODEL, Sandbox

INTERVALS = {"interval": "1s", "fast_interval": "250ms", "down_interval": "2s", "timeout": "1s"}
FAILBACK_AFTER = "8s"


@dataclass(frozen=True, slots=True)
class Part:
    """One backend of the demo; `latency_s` is how long it takes to answer."""

    name: str
    priority: int
    latency_s: float


PARTS = (Part("alpha", 10, 0.05), Part("beta", 20, 0.05), Part("slow", 90, 1.5))


class World(Sandbox):
    """Two backends, a slow fallback and the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[str, int] = {}

    async def parts(self) -> None:
        """Start the backends."""
        # All are waited for, also when one fails: none may be half started when we clean up.
        started = (self.start(part.name) for part in PARTS)
        for result in await asyncio.gather(*started, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def configuration(self) -> str:
        """Return the demo's aion.toml."""
        return configuration(self.port, self.ports)

    def introduction(self) -> str:
        """Say what was made shorter than usual."""
        return (
            f"shortened for the demo: a look every {INTERVALS['interval']} (usually 10s), in doubt"
            f" every {INTERVALS['fast_interval']} (2s), when down every"
            f" {INTERVALS['down_interval']} (30s), failback after {FAILBACK_AFTER} (5m)"
        )

    async def start(self, name: str) -> None:
        """Start a part; a second time on the port it had. Raises AionError when it won't start."""
        part = next(part for part in PARTS if part.name == name)
        port = self.ports.get(name, 0)
        self.ports[name] = await self.engine(name, port=port, latency_s=part.latency_s)


def configuration(port: int, ports: Mapping[str, int]) -> str:
    """Return the demo's aion.toml."""
    return "\n".join(_lines(port, ports)) + "\n"


def _lines(port: int, ports: Mapping[str, int]) -> Iterator[str]:
    yield "[server]"
    yield f'listen = "127.0.0.1:{port}"'
    yield 'admin_token = { credential = "admin_token" }'
    yield ""
    yield "[health]  # shortened, so that the story takes half a minute"
    for name, value in INTERVALS.items():
        yield f'{name} = "{value}"'
    yield "controls = []  # everything here is on this machine"
    for part in PARTS:
        yield ""
        yield f"[backends.{part.name}]"
        yield 'kind = "static"'
        yield 'engine = "openai"'
        yield f'url = "http://127.0.0.1:{ports[part.name]}"'
        yield f"priority = {part.priority}"
        yield f'models = ["{MODEL}"]'
    yield ""
    yield "[services.chat]"
    yield f'failback_after = "{FAILBACK_AFTER}"'
