"""The kind `notebook`: it registers itself, and its address comes with its session.

What answers at that address is the agent, which stands before the engine and admits us by a key
derived from the session's secret (`backends.identity`). The address is the word of whoever held
the token, so it is reached through the guarded client: public addresses only, looked at when
connecting. `allow_private = true` is for machines of one's own network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import field_validator

from backends import base, identity, tunnels
from backends.base import Credential, Plan, Ports, Reply, SessionPlan
from backends.engines import ENGINES
from backends.engines.answers import parse, plain, refusal, stranger
from backends.engines.asking import Asker
from orchestrator.core.addresses import why_not_pattern
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.errors import Unreachable

NOBODY: Final = "nobody has registered"
IDENTITY_BYTES: Final = 4096
NO_SESSION: Final = 503  # what an agent answers that has not registered yet
NOT_FOUND: Final = 404


class Options(base.Options):
    """The keys of a `notebook` backend besides those that every backend has."""

    token: Credential | None = None
    """What it registers with; absent: only with tokens that `aion token new` makes."""
    allow_private: bool = False
    """It may register with `http://` and an address of one's own network."""
    allow_hosts: tuple[str, ...] = tunnels.USUAL
    """Hosts it may register: `box.example.org`, or `*.example.org` for every name below it."""
    access: Literal["gateway", "clients", "open"] = "clients"
    """Who may use its own address: our gateway only, clients with a key of ours too, or anyone."""
    platform: Literal["colab", "kaggle", "replit", "box"] = "box"
    """Where it runs: what `aion notebook` writes, and which rules of the host it warns of."""

    @field_validator("allow_hosts")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if not patterns:
            raise ValueError("an empty list lets nothing register; leave the key out")
        for pattern in patterns:
            private = info.data.get("allow_private", False)
            if why := why_not_pattern(pattern, allow_private=private):
                raise ValueError(f"`{plain(pattern, 80)}` is {why}")
        return patterns


class Driver:
    """Looks at a `notebook` where its session says that it is."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        self._plan = plan
        self._http = ports.http if plan.options.allow_private else ports.guarded
        self._asks: Asker | None = None
        if plan.session is not None:
            engine = ENGINES[plan.backend.engine]
            root, headers = plan.session.url.rstrip("/"), headers_of(plan.session)
            self._asks = Asker(engine, root, headers, plan, replace(ports, http=self._http))

    async def probe(self) -> Observation:
        """Ask the engine behind the agent."""
        return self._nobody(Source.PROBE) if self._asks is None else await self._asks.probe()

    async def canary(self) -> Observation | None:
        """Ask for one token; none where canaries are off."""
        if self._plan.backend.health.canary_s is None:
            return None
        return self._nobody(Source.CANARY) if self._asks is None else await self._asks.canary()

    async def identify(self, nonce: str) -> str:
        """Do as `backends.base.Registered` says; no key is sent, as who answers is not known."""
        session = self._plan.session
        if session is None:
            return NOBODY
        try:
            reply = await self._http.request(
                "GET",
                f"{session.url.rstrip('/')}{identity.PATH}?nonce={nonce}",
                headers=tunnels.headers(session.url),
                timeout_s=self._plan.backend.health.timeout_s,
                max_bytes=IDENTITY_BYTES,
            )
        except Unreachable as error:
            return str(error)
        return read_identity(reply, session, nonce)

    def _nobody(self, source: Source) -> Observation:
        return Observation(self._plan.backend.name, source, Verdict.FAILED, NOBODY)


def headers_of(session: SessionPlan) -> dict[str, str]:
    """Gather what goes with each request to the engine behind a session's agent."""
    key = identity.gateway_key(session.secret, session.id)
    return {**tunnels.headers(session.url), "Authorization": f"Bearer {key}"}


def read_identity(reply: Reply, session: SessionPlan, nonce: str) -> str:
    """Say why this answer does not prove who gave it; "" if it does."""
    if reply.status == NO_SESSION and not (reply.body and stranger(reply)):
        return "the agent there has no session yet"
    if found := stranger(reply):
        return found.detail
    if reply.status == NOT_FOUND:
        return "no agent of aion answers there (HTTP 404)"
    # Wall time is for Retry-After alone, which nobody reads here.
    if refused := refusal(reply, 0.0):
        return refused.detail
    body = parse(reply)
    if not isinstance(body, dict) or body.get("version") != identity.VERSION:
        return "answers 200, but not as an agent of aion does"
    if body.get("session") != session.id:
        return "the agent there has another session"
    given, host = body.get("proof"), identity.host_of(session.url)
    if isinstance(given, str) and identity.proves(given, session.secret, nonce, session.id, host):
        return ""
    return "the agent there cannot prove that it is the one that registered"
