"""What tests of backends stand on: a clock to set, an HTTP client that answers from a table, plans."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import backends
from backends import identity
from backends.base import Plan, Ports, Reply, SessionPlan, no_children, no_programs
from orchestrator.core.specs import Backend, HealthPolicy
from orchestrator.errors import Unreachable

SESSION = SessionPlan("s-1", "https://fox.trycloudflare.com", identity.secret_of("s3cret"))


@dataclass
class HandClock:
    now: float = 1_800_000_000.0

    def steady(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def boot(self) -> float:
        return self.now


class Middle:
    """Randomness without any."""

    def random(self) -> float:
        return 0.5

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def getrandbits(self, k: int, /) -> int:
        return 1 << (k - 1)


Answer = Reply | str | Callable[[], Reply]


@dataclass
class TableHttp:
    """Answers by path; a text instead of a reply is how the request fails."""

    answers: Mapping[str, Answer]
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: list[tuple[str, Mapping[str, str], bytes | None]] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int = 65536,
        once: bool = False,
    ) -> Reply:
        self.sent.append((url, headers or {}, body))
        path = "/" + url.split("://", 1)[1].partition("/")[2]
        self.asked.append((method, path))
        answer = self.answers.get(path, reply(404, {"error": "not found"}))
        if isinstance(answer, str):
            raise Unreachable(answer)
        return answer if isinstance(answer, Reply) else answer()

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        answer = self.answers.get(f"{host}:{port}", "connection refused")
        if isinstance(answer, str):
            raise Unreachable(answer)
        return 0.001


def reply(status: int, body: Any = "", headers: Mapping[str, str] | None = None) -> Reply:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Reply(status, dict(headers or {}), content, 0.01)


def plan(
    kind: str = "static",
    engine: str = "openai",
    *,
    models: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    policy: HealthPolicy | None = None,
    session: SessionPlan | None = None,
    **keys: Any,
) -> Plan:
    needed = {
        "static": {"url": "http://10.0.0.5:8080"},
        "api": {"base_url": "https://api.example.org/v1"},
        "kaggle": {"kernel": "ann/aion-gpu", "key": {"credential": "k"}},
        "command": {
            "url": "http://10.0.0.5:8080",
            "commands": dict.fromkeys(("start", "stop", "status"), ("/bin/true",)),
        },
        "gce": {
            "url": "http://10.0.0.5:8080",
            "project": "my-project",
            "instance": "europe-west4-a/gpu-1",
        },
        "runpod": {"url": "http://10.0.0.5:8080", "api_key": {"credential": "k"}, "pod": "pod1"},
        "libcloud": {
            "url": "http://10.0.0.5:8080",
            "account": {"credential": "k"},
            "provider": "ec2",
            "node": "gpu-1",
        },
        "colab": {"accept_terms": True, "allow_hosts": ["*.trycloudflare.com"]},
        "vast": {"url": "http://10.0.0.5:8080", "api_key": {"credential": "k"}, "instance": 7},
    }
    given = needed.get(kind, {})
    options = backends.options(kind)(**{**given, **keys})
    backend = Backend(
        "lab", kind, engine, models=tuple(models or ()), health=policy or HealthPolicy()
    )
    return Plan(backend, options, models or {}, secrets or {}, session)


def ports(
    http: Any, clock: HandClock | None = None, programs: Any = None, children: Any = None
) -> Ports:
    clock = clock or HandClock()
    return Ports(http, http, clock, Middle(), programs or no_programs, children or no_children)


def driver(http: Any, made: Plan, clock: HandClock | None = None, children: Any = None) -> Any:
    return backends.driver(made, ports(http, clock, children=children))
