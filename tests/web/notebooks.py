"""A site with two notebooks that may register, and an agent to register with."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import httpx
from webkit import START, Site, backend, run

from orchestrator.core.registry import Proved
from orchestrator.core.specs import FleetConfig, Service
from orchestrator.web.carrier import RegisterSettings

TOKENS = {"colab": "colab-token-0123456789abcdef", "kaggle": "kaggle-token-0123456789abcde"}
KEY = "client-key-0123456789abcdefghijklmnopqrst"
CLIENTS = {"front": hashlib.sha256(KEY.encode()).hexdigest()}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fleet(**more: Any) -> FleetConfig:
    """Two notebooks, and a backend that is always there."""
    session = {"url": None, "registers": True, "session_s": 43200.0, "remote": True}
    backends = [
        backend("colab", 10, **session),
        backend("kaggle", 20, **session),
        backend("lab", 30),
    ]
    return FleetConfig(
        backends={one.name: one for one in backends},
        services={"chat": Service("chat", ("colab", "kaggle", "lab"))},
        seeds={name: sha(token) for name, token in TOKENS.items()},
        **more,
    )


def begin(test: Any, **given: Any) -> None:
    """Run a test against a site with notebooks."""
    hosts = RegisterSettings(("*.trycloudflare.com", "box.example.org"))
    given.setdefault("registering", {"colab": hosts, "kaggle": hosts})
    given.setdefault("clients", CLIENTS)
    config = given.pop("config", None) or fleet()

    async def settled(site: Site) -> None:
        site.stand.seen("lab", times=2)
        site.stand.pass_time(1)
        await test(site)

    run(settled, config, settled=False, **given)


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def saying(**changes: Any) -> dict[str, Any]:
    """What an agent registers with."""
    said = {
        "backend": "colab",
        "url": "https://swift-fox.trycloudflare.com",
        "engine": "ollama",
        "models": ["qwen3:8b"],
        "started_at": stamp(START - 600),
        "now": stamp(START),
        "gpu": {"name": "Tesla T4", "memory_mb": 15360},
        "agent": "0.3.0",
    }
    return {name: value for name, value in {**said, **changes}.items() if value is not ...}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def register(site: Site, token: str = TOKENS["colab"], **changes: Any) -> httpx.Response:
    return await site.client.post("/register", json=saying(**changes), headers=bearer(token))


class Agent:
    """One registered agent, and what it says."""

    def __init__(self, site: Site, told: dict[str, Any]) -> None:
        self.site, self.told, self.seq = site, told, 0
        self.id, self.headers = told["session"], bearer(told["token"])

    @classmethod
    async def of(cls, site: Site, token: str = TOKENS["colab"], **changes: Any) -> Agent:
        answer = await register(site, token, **changes)
        assert answer.status_code == 201, answer.text
        return cls(site, answer.json())

    async def beats(self, **changes: Any) -> httpx.Response:
        self.seq += 1
        said = {
            "seq": self.seq,
            "state": "ready",
            "engine_ready": True,
            "tunnel_ready": True,
            "busy": 0,
            "gpu": None,
            "done": [],
            "detail": "",
            **changes,
        }
        body = {name: value for name, value in said.items() if value is not ...}
        path = f"/sessions/{self.id}/heartbeat"
        return await self.site.client.post(path, json=body, headers=self.headers)

    async def leaves(self) -> httpx.Response:
        return await self.site.client.delete(f"/sessions/{self.id}", headers=self.headers)

    def proves(self, backend: str = "colab", *, ok: bool = True, detail: str = "") -> None:
        self.site.stand.feed(Proved(backend, self.id, ok, detail))


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    """Check that an answer is a problem, said in one line."""
    shown = answer.json()
    assert (answer.status_code, shown["status"]) == (status, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert shown["title"]
    assert shown["detail"].isprintable()
    assert len(shown["detail"]) <= 500
    for word in words:
        assert word in shown["detail"]
