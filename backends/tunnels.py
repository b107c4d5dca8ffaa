"""What is known of the tunnels that notebooks are reached through."""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from orchestrator.core.specs import HealthPolicy

USUAL: Final = ("*.trycloudflare.com", "*.ngrok-free.app", "*.ngrok-free.dev", "*.ngrok.app")
"""Where a notebook may register unless its configuration says otherwise."""

METERED_S: Final = 300.0
METERED_DOUBT_S: Final = 10.0
_WARNS: Final = (".ngrok-free.app", ".ngrok-free.dev", ".ngrok.app", ".ngrok.dev", ".ngrok.io")
# Free ngrok allows 20,000 requests a month, ours among them.
_METERED: Final = (".ngrok-free.app", ".ngrok-free.dev", ".ngrok.io")


def headers(url: str) -> dict[str, str]:
    """Give the headers without which a tunnel would not let a program through."""
    if _host(url).endswith(_WARNS):
        # Free ngrok shows whatever it takes for a browser a warning page instead of the answer.
        return {"ngrok-skip-browser-warning": "1"}
    return {}


def metered(url: str) -> bool:
    """Tell whether the address counts every request against a small monthly allowance."""
    return _host(url).endswith(_METERED)


def spared(policy: HealthPolicy, url: str) -> HealthPolicy:
    """Look less often at a metered address that came with a session.

    Its agent's heartbeats tell what happens meanwhile; doubt does not last.
    """
    if not metered(url):
        return policy
    return replace(
        policy,
        interval_s=max(policy.interval_s, METERED_S),
        fast_interval_s=max(policy.fast_interval_s, METERED_DOUBT_S),
        down_interval_s=max(policy.down_interval_s, METERED_S),
    )


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").removesuffix(".")
