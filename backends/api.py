"""The kind `api`: an account with a provider of inference, reached with a key.

A probe asks for the model list with the key, which costs nothing; where that list is public and so
says nothing of the key, the provider's own question about the key is asked instead. Completions
are asked for only where canaries are configured (`health.canary`, off for this kind by default).
The address is never shown, and the key goes to the configured origin only, with the one exception
in `KEY_CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from backends import base
from backends.base import Credential, Plan, Ports, Reply
from backends.engines.answers import OK, Finding, failed, parse, plain, refusal, stranger
from backends.engines.asking import LIST_BYTES, LIST_EVERY_S, read_list
from backends.engines.form import chat
from backends.engines.names import Comparison
from backends.engines.servers import OPENAI
from backends.static import address, headers_of
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.errors import Unreachable

LISTS: Final = replace(OPENAI, same=lambda wanted, one: _id(wanted) == _id(one.name))
OUT_OF_CREDIT_S: Final = 3600.0  # HTTP 402: somebody has to pay; no use in asking often
CHAT: Final = "/chat/completions"


def _openrouter(reply: Reply) -> Finding:
    """Read OpenRouter's `GET /key`: `limit_remaining` is null for an unlimited key."""
    body = parse(reply)
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        return failed("answers 200, but says nothing of the key")
    left = data.get("limit_remaining")
    if isinstance(left, int | float) and not isinstance(left, bool) and left <= 0:
        return Finding(Verdict.BUSY, "the key's credit limit is used up", OUT_OF_CREDIT_S)
    return OK


def _huggingface(reply: Reply) -> Finding:
    """Read Hugging Face's `whoami-v2`, which names the token's owner."""
    body = parse(reply)
    if isinstance(body, dict) and isinstance(body.get("name"), str):
        return OK
    return failed("answers 200, but does not name the token's owner")


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """Where a provider with a public model list says whether a key is good."""

    url: str  # an address, or a path after `base_url`
    read: Callable[[Reply], Finding]


KEY_CHECKS: Final = {
    "openrouter.ai": KeyCheck("/key", _openrouter),
    # The router and whoami are one provider's: the same key, another host.
    "router.huggingface.co": KeyCheck("https://huggingface.co/api/whoami-v2", _huggingface),
}


def _id(name: str) -> str:
    return name.removeprefix("models/")  # Gemini lists them with it and takes them without


class Options(base.Options):
    """The keys of an `api` backend besides those that every backend has."""

    base_url: str
    """Its OpenAI-compatible address, such as `https://api.groq.com/openai/v1`."""
    key: Credential | None = None
    """Sent as `Authorization: Bearer …`."""
    headers: dict[str, str | Credential] = Field(default={})
    """More headers, each a text or a credential."""
    key_check: str | None = None
    """Address that says whether the key is good, for providers whose model list is public."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url, ("https", "http"))

    @field_validator("key_check")
    @classmethod
    def _is_the_same_origin(cls, url: str | None, info: Any) -> str | None:
        if url is None:
            return None
        url = address(url, ("https", "http"))
        given = info.data.get("base_url", "")
        if urlsplit(url)[:2] != urlsplit(given)[:2]:
            raise ValueError("the key goes to the origin of `base_url` only")
        return url

    @property
    def url(self) -> str:
        """The address, as drivers call it."""
        return self.base_url


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a provider's `x-ratelimit-*` headers say is left; None: not said."""

    requests: int | None = None
    requests_left: int | None = None
    tokens: int | None = None
    tokens_left: int | None = None

    def budget(self) -> tuple[tuple[str, float, float], ...]:
        """Give what is limited, the limit and what is left, of each that is said whole."""
        said = (
            ("requests", self.requests, self.requests_left),
            ("tokens", self.tokens, self.tokens_left),
        )
        return tuple(
            (what, float(limit), float(left))
            for what, limit, left in said
            if limit is not None and left is not None
        )


def rate_limits(reply: Reply) -> RateLimits:
    """Read Groq's and OpenAI's headers, else OpenRouter's `X-RateLimit-Limit` and `-Remaining`."""

    def count(*names: str) -> int | None:
        texts = (reply.headers.get(f"x-ratelimit-{name}", "") for name in names)
        return next((int(text) for text in texts if text.isascii() and text.isdigit()), None)

    return RateLimits(
        count("limit-requests", "limit"),
        count("remaining-requests", "remaining"),
        count("limit-tokens"),
        count("remaining-tokens"),
    )


class Driver:
    """Looks at an `api` backend. `limits`: what its last answer said of its rate limits."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        self.limits = RateLimits()
        self._plan = plan
        self._ports = ports
        self._base: str = plan.options.base_url
        self._headers = headers_of(plan)
        self._check = _key_check(plan)
        self._listed_at: float | None = None

    async def probe(self) -> Observation:
        """Ask whether the key is good, and for the model list: always, or when it is due."""
        if self._check is None:
            return await self._list()
        url = self._check.url
        reply = await self._ask("GET", self._base + url if url.startswith("/") else url)
        if isinstance(reply, Finding):
            return self._seen(Source.PROBE, reply)
        found = _refused(reply, self._ports.clock.wall()) or self._check.read(reply)
        due = self._listed_at is None or (
            self._ports.clock.steady() - self._listed_at >= LIST_EVERY_S
        )
        if found.verdict is not Verdict.OK or not due:
            return self._seen(Source.PROBE, found, reply)
        return await self._list()

    async def canary(self) -> Observation | None:
        """Ask for one token. The caller asks only where the operator configured canaries."""
        model = next(iter(self._plan.models.values()), None)
        if model is None:
            return None
        call = chat(model)
        timeout_s = self._plan.backend.health.canary_timeout_s
        reply = await self._ask("POST", self._base + CHAT, call.body, timeout_s)
        if isinstance(reply, Finding):
            return self._seen(Source.CANARY, reply)
        found, body = _refused(reply, self._ports.clock.wall()), parse(reply)
        if found is None:
            found = OK if call.done(body) else failed("answers 200, but with no completion")
        return replace(self._seen(Source.CANARY, found, reply), tokens=_tokens(body))

    async def _list(self) -> Observation:
        reply = await self._ask("GET", f"{self._base}/models")
        if isinstance(reply, Finding):
            return self._seen(Source.PROBE, reply)
        wall = self._ports.clock.wall()
        found = _refused(reply, wall) or OPENAI.ready(reply)
        if found.verdict is not Verdict.OK:
            return self._seen(Source.PROBE, found, reply)
        compared = read_list(LISTS, reply, wall, self._plan.models)
        if compared.finding.verdict is Verdict.OK:
            self._listed_at = self._ports.clock.steady()
        return self._seen(Source.PROBE, compared.finding, reply, compared)

    async def _ask(
        self, method: str, url: str, body: bytes | None = None, timeout_s: float | None = None
    ) -> Reply | Finding:
        headers = self._headers
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            reply = await self._ports.http.request(
                method,
                url,
                headers=headers,
                body=body,
                timeout_s=timeout_s or self._plan.backend.health.timeout_s,
                max_bytes=LIST_BYTES,
            )
        except Unreachable as error:
            return failed(str(error))
        self.limits = rate_limits(reply)
        return reply

    def _seen(
        self,
        source: Source,
        found: Finding,
        reply: Reply | None = None,
        compared: Comparison | None = None,
    ) -> Observation:
        if found.verdict is not Verdict.OK:
            self._listed_at = None
        return Observation(
            self._plan.backend.name,
            source,
            found.verdict,
            found.detail,
            None if reply is None else reply.latency_s,
            None if reply is None else reply.status,
            None if compared is None else compared.models,
            () if compared is None else compared.missing,
            found.retry_after_s,
            budget=() if reply is None else self.limits.budget(),
        )


def _key_check(plan: Plan) -> KeyCheck | None:
    if not plan.secrets.get("key"):
        return None
    if plan.options.key_check:
        return KeyCheck(plan.options.key_check, lambda _: OK)
    return KEY_CHECKS.get(urlsplit(plan.options.base_url).hostname or "")


def _tokens(body: object) -> int:
    """Read what a completion used, 0 where it does not say."""
    usage = body.get("usage") if isinstance(body, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return max(0, total) if isinstance(total, int) and not isinstance(total, bool) else 0


def _refused(reply: Reply, wall: float) -> Finding | None:
    if found := stranger(reply):
        return found
    if reply.status == 402:  # noqa: PLR2004  # OpenRouter, Hugging Face: no credit left
        said = refusal(reply, wall)
        return Finding(Verdict.BUSY, plain(said.detail if said else ""), OUT_OF_CREDIT_S)
    return refusal(reply, wall)
