"""Asks an engine, and makes one observation of what it and whatever stands before it say."""

# ruff: noqa: PLR2004  # HTTP statuses are known by their numbers

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backends.base import Plan, Ports, Reply
from backends.engines.answers import (
    OK,
    Finding,
    explanation,
    failed,
    parse,
    refusal,
    stranger,
)
from backends.engines.form import Engine
from backends.engines.names import Comparison, compare
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.errors import Unreachable

LIST_EVERY_S: Final = 60.0  # a model list costs a request of its own
LIST_BYTES: Final = 4_000_000  # OpenRouter's is some 500 kB
NO_MODEL: Final = "default"


def read_health(engine: Engine, reply: Reply, wall: float) -> Finding:
    """Read the answer to the engine's health path. `wall`: Unix time now."""
    if found := stranger(reply):
        return found
    if 200 <= reply.status < 300:
        return engine.ready(reply)
    if says := engine.loading(reply):
        return Finding(Verdict.LOADING, says)
    return refusal(reply, wall) or OK


def read_list(engine: Engine, reply: Reply, wall: float, models: Mapping[str, str]) -> Comparison:
    """Read the answer to the engine's model list and hold it against `models`.

    The health answer was good, so only what shows that we cannot use it counts here: a refused
    key, somebody else answering, none of our models there. No list at all is no fault.
    """
    if found := stranger(reply):
        return Comparison(found, (), ())
    refused = refusal(reply, wall)
    if refused is not None:
        denied = refused.verdict is Verdict.DENIED
        return Comparison(refused if denied else OK, (), ())
    listed = engine.listed(parse(reply))
    return Comparison(OK, (), ()) if listed is None else compare(listed, models, engine.same)


def read_canary(engine: Engine, reply: Reply, wall: float, done: bool) -> Finding:
    """Read the answer to a completion; `done`: it has the form of one, empty text included."""
    if found := stranger(reply):
        return found
    if engine.busy(reply):
        return Finding(Verdict.OK, "busy with other requests")
    refused = refusal(reply, wall)
    if refused is None:
        return OK if done else failed(f"answers 200, but with no completion{_said(reply)}")
    if refused.verdict is Verdict.BUSY:
        return Finding(Verdict.OK, "busy with other requests")
    return refused


def _said(reply: Reply) -> str:
    said = explanation(reply)
    return f" ({said})" if said else ""


class Asker:
    """Probes and canaries of one engine at `root`; makes a driver with a `Plan` and `Ports`.

    `headers` go with each request, the key among them; `root` is the address without `/v1`.
    """

    def __init__(
        self, engine: Engine, root: str, headers: Mapping[str, str], plan: Plan, ports: Ports
    ) -> None:
        self._engine = engine
        self._root = root
        self._headers = dict(headers)
        self._plan = plan
        self._ports = ports
        listing = engine.models is None or engine.health_lists
        self._health_bytes = LIST_BYTES if listing else 65536
        self._listed_at: float | None = None
        self._models: tuple[str, ...] = ()

    async def probe(self) -> Observation:
        """Ask for health, and for the model list when it is due."""
        try:
            reply = await self._get(self._engine.health, self._health_bytes)
        except Unreachable as error:
            return self._seen(failed(str(error)))
        finding = read_health(self._engine, reply, self._ports.clock.wall())
        if finding.verdict is not Verdict.OK:
            return self._seen(finding, reply)
        if self._engine.models is None:
            compared = self._compare(reply)
        elif self._due():
            compared = await self._ask_list()
        else:
            return self._seen(finding, reply)
        if compared is None and self._engine.health_lists:
            compared = self._compare(reply)
        if compared is None:
            return self._seen(finding, reply)
        told = finding if finding.detail and not compared.finding.detail else compared.finding
        return self._seen(told, reply, compared)

    async def canary(self) -> Observation | None:
        """Ask for one token."""
        if self._engine.canary is None:
            return None
        call = self._engine.canary(self._model())
        try:
            reply = await self._ports.http.request(
                "POST",
                self._root + call.path,
                headers={**self._headers, "Content-Type": "application/json"},
                body=call.body,
                timeout_s=self._plan.backend.health.canary_timeout_s,
            )
        except Unreachable as error:
            return self._observed(Source.CANARY, failed(str(error)))
        done = call.done(parse(reply))
        finding = read_canary(self._engine, reply, self._ports.clock.wall(), done)
        return self._observed(Source.CANARY, finding, reply)

    def _model(self) -> str:
        wanted = next(iter(self._plan.models.values()), None)
        return wanted or next(iter(self._models), NO_MODEL)

    async def _get(self, path: str, max_bytes: int) -> Reply:
        return await self._ports.http.request(
            "GET",
            self._root + path,
            headers=self._headers,
            timeout_s=self._plan.backend.health.timeout_s,
            max_bytes=max_bytes,
        )

    def _due(self) -> bool:
        last = self._listed_at
        return last is None or self._ports.clock.steady() - last >= LIST_EVERY_S

    async def _ask_list(self) -> Comparison | None:
        """Ask for the list; None when there is none to be had now."""
        try:
            reply = await self._get(self._engine.models or "", LIST_BYTES)
        except Unreachable:
            return None
        return self._compare(reply)

    def _compare(self, reply: Reply) -> Comparison | None:
        compared = read_list(self._engine, reply, self._ports.clock.wall(), self._plan.models)
        if compared.finding.verdict is Verdict.OK:
            self._listed_at = self._ports.clock.steady()
            if not (compared.models or compared.missing):
                return None
        self._models = compared.models
        return compared

    def _seen(
        self, finding: Finding, reply: Reply | None = None, compared: Comparison | None = None
    ) -> Observation:
        if finding.verdict is not Verdict.OK:
            self._listed_at = None  # after a failure it may be another server that answers
        return self._observed(Source.PROBE, finding, reply, compared)

    def _observed(
        self,
        source: Source,
        finding: Finding,
        reply: Reply | None = None,
        compared: Comparison | None = None,
    ) -> Observation:
        return Observation(
            backend=self._plan.backend.name,
            source=source,
            verdict=finding.verdict,
            detail=finding.detail,
            latency_s=None if reply is None else reply.latency_s,
            status=None if reply is None else reply.status,
            models=None if compared is None else compared.models,
            missing=() if compared is None else compared.missing,
            retry_after_s=finding.retry_after_s,
        )
