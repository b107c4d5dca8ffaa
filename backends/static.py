"""The kind `static`: an address that does not change, and any engine behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from backends import base, tunnels
from backends.base import Credential, Plan, Ports, Reply
from backends.engines import ENGINES
from backends.engines.answers import OK, Finding, failed, parse, plain, refusal, stranger
from backends.engines.asking import Asker
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.errors import Unreachable

PORTS: Final = {"http": 80, "https": 443}
Scalar = str | int | float | bool | None


class Check(base.Options):
    """What the engine `http` asks, and what a good answer looks like."""

    path: str = Field(default="/", pattern=r"^/[^\s#]*$")
    """Path and query, after the backend's `url`."""
    method: Literal["GET", "HEAD", "POST"] = "GET"
    """How to ask."""
    status: int | None = Field(default=None, ge=100, le=599)
    """The status a good answer has; absent: any 2xx."""
    contains: str = ""
    """Text a good answer's body contains."""
    json_is: dict[str, Scalar] = Field(default={}, alias="json")
    """Values a good answer's JSON has, by dotted path: `{ "data.0.state" = "ready" }`."""


class Options(base.Options):
    """The keys of a `static` backend besides those that every backend has."""

    url: str
    """Its address, with `http://`, `https://` or, for the engine `tcp`, `tcp://HOST:PORT`."""
    key: Credential | None = None
    """Sent as `Authorization: Bearer …` with each request."""
    headers: dict[str, str | Credential] = Field(default={})
    """More headers, each a text or a credential."""
    check: Check = Check()
    """For the engine `http`."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        return address(url, ("http", "https", "tcp"))

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, Any]) -> dict[str, Any]:
        for name, value in headers.items():
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"`{plain(name, 40)}` is not a header's name")
            if isinstance(value, str) and not value.isprintable():
                raise ValueError(f"the value of `{name}` has control characters in it")
        return headers


def address(url: str, schemes: tuple[str, ...]) -> str:
    """Check an address as written in a configuration; raises ValueError in the user's words."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from None
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"an address starts with {' or '.join(f'{s}://' for s in schemes)}")
    if parts.username or parts.password:
        raise ValueError("no user or password in an address; use `key` or `headers`")
    if parts.query or parts.fragment or any(c.isspace() for c in url):
        raise ValueError("an address has no query, fragment or spaces")
    if parts.scheme == "tcp" and port is None:
        raise ValueError("`tcp://` needs a port")
    return url.rstrip("/")


def headers_of(plan: Plan) -> dict[str, str]:
    """Gather the headers to send, secrets filled in."""
    found: dict[str, str] = {}
    for name, value in getattr(plan.options, "headers", {}).items():
        given = plan.secrets.get(f"headers.{name}", "") if isinstance(value, Credential) else value
        found[name] = given
    if key := plan.secrets.get("key"):
        found.setdefault("Authorization", f"Bearer {key}")
    return {**tunnels.headers(plan.options.url), **found}


def root_of(url: str) -> str:
    """Give the address that engines' paths are appended to: many write it with `/v1` at its end."""
    return url.rstrip("/").removesuffix("/v1")


class Driver:
    """Looks at a `static` backend, as its engine asks for."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        name = plan.backend.engine
        self._asks: Asker | HttpCheck | TcpCheck
        if name == "tcp":
            self._asks = TcpCheck(plan, ports)
        elif name == "http":
            self._asks = HttpCheck(plan, ports)
        else:
            root = root_of(plan.options.url)
            self._asks = Asker(ENGINES[name], root, headers_of(plan), plan, ports)

    async def probe(self) -> Observation:
        return await self._asks.probe()

    async def canary(self) -> Observation | None:
        return await self._asks.canary()


class TcpCheck:
    """The engine `tcp`: a connection is opened and closed."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        parts = urlsplit(plan.options.url)
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS.get(parts.scheme, 0)
        self._plan = plan
        self._ports = ports

    async def probe(self) -> Observation:
        """Connect."""
        name, timeout_s = self._plan.backend.name, self._plan.backend.health.timeout_s
        try:
            took_s = await self._ports.http.connect(self._host, self._port, timeout_s=timeout_s)
        except Unreachable as error:
            return Observation(name, Source.PROBE, Verdict.FAILED, str(error))
        return Observation(name, Source.PROBE, Verdict.OK, latency_s=took_s)

    async def canary(self) -> Observation | None:
        """Give none: who knows what listens there."""
        return None


class HttpCheck:
    """The engine `http`: one request, compared with what the configuration calls good."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        self._check: Check = plan.options.check
        self._url = plan.options.url + self._check.path
        self._headers = headers_of(plan)
        self._plan = plan
        self._ports = ports

    async def probe(self) -> Observation:
        """Ask."""
        name, timeout_s = self._plan.backend.name, self._plan.backend.health.timeout_s
        try:
            reply = await self._ports.http.request(
                self._check.method, self._url, headers=self._headers, timeout_s=timeout_s
            )
        except Unreachable as error:
            return Observation(name, Source.PROBE, Verdict.FAILED, str(error))
        found = read_check(self._check, reply, self._ports.clock.wall())
        return Observation(
            name,
            Source.PROBE,
            found.verdict,
            found.detail,
            reply.latency_s,
            reply.status,
            retry_after_s=found.retry_after_s,
        )

    async def canary(self) -> Observation | None:
        """Give none: who knows what runs there."""
        return None


def read_check(check: Check, reply: Reply, wall: float) -> Finding:
    """Hold an answer against what was configured. `wall`: Unix time now."""
    if found := stranger(reply, pages_are=not check.contains and check.status is None):
        return found
    if check.status is None:
        if refused := refusal(reply, wall):
            return refused
    elif reply.status != check.status:
        said = refusal(reply, wall)
        if said is not None and said.verdict is not Verdict.FAILED:
            return said
        return failed(f"HTTP {reply.status}, not {check.status}")
    if check.contains and check.contains.encode() not in reply.body:
        return failed(
            f"HTTP {reply.status}, but the text “{plain(check.contains, 60)}” is not there"
        )
    return _json_as_wanted(check.json_is, reply) if check.json_is else OK


def _json_as_wanted(wanted: Mapping[str, Scalar], reply: Reply) -> Finding:
    body = parse(reply)
    if body is None:
        return failed(f"HTTP {reply.status}, but not JSON")
    for path, value in wanted.items():
        there, found = _at(body, path)
        if not there:
            return failed(f"`{plain(path, 60)}` is not in its JSON")
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            return failed(f"`{plain(path, 60)}` is {plain(found, 60)}, not {plain(value, 60)}")
    return OK


def _at(body: Any, path: str) -> tuple[bool, Any]:
    """Follow a dotted path; a number steps into a list."""
    for step in path.split("."):
        if isinstance(body, dict) and step in body:
            body = body[step]
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return False, None
    return True, body
