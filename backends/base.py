"""What a backend kind is, and what it may use of the world.

A kind is one module named in `backends.KINDS` with two things in it: `Options`, the keys its
`[backends.NAME]` table may hold, and `Driver`, which looks at one such backend. What a driver
needs of the outside comes as a `Ports`; it imports no client library and reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.core.model import Backend, Observation


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer.

    `body` holds at most the bytes asked for; `latency_s` is until its last byte.
    """

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    latency_s: float


class Http(Protocol):
    """One shared HTTP client for all probes."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        max_bytes: int = 65536,
    ) -> Reply:
        """Send one request and read the answer; redirects are not followed.

        Raises `Unreachable` with one line saying how it failed (refused, timed out after N s, name
        not found, TLS, reset, answer cut short).
        """
        ...

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        """Open and close a TCP connection; returns seconds it took. Raises `Unreachable`."""
        ...


class Children(Protocol):
    """Runs what is too heavy for the daemon's memory in a process of its own."""

    async def __call__(
        self, module: str, payload: Mapping[str, Any], *, timeout_s: float
    ) -> dict[str, Any]:
        """Run `python -m module`, hand it `payload` on stdin, return the JSON it answers.

        Secrets go in `payload`, never elsewhere. Raises `ChildFailed`.
        """
        ...


class Clock(Protocol):
    """The clocks of the world, all in seconds."""

    def steady(self) -> float:
        """Steady seconds, see `core.model`."""
        ...

    def wall(self) -> float:
        """Unix time as the system says."""
        ...

    def boot(self) -> float:
        """Seconds since boot, going on while suspended."""
        ...


class Random(Protocol):
    """The one source of randomness; `random.Random` is one."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...

    def getrandbits(self, k: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a driver may use of the world.

    `guarded` reaches public addresses only: for what a registration says, rather than the operator.
    """

    http: Http
    guarded: Http
    clock: Clock
    random: Random


class Options(BaseModel):
    """Base of a kind's own configuration keys: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Credential(BaseModel):
    """A secret by its name: `{ credential = "name" }` in the file, never the secret itself.

    A kind asks for one by a field of this type in its `Options`; `Plan.secrets` then holds what
    was found, by the field's name (`headers.NAME` for one inside a table `headers`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    credential: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_literals(cls, given: Any) -> Any:
        if isinstance(given, Credential) or (isinstance(given, dict) and "credential" in given):
            return given
        raise PydanticCustomError(
            "literal_secret",
            "a secret is not written in the file; keep it with `aion secret set NAME`"
            ' and write { credential = "NAME" } here',
        )


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """Where a backend that registers is for now: `secret` is the SHA-256 of its session's token."""

    id: str
    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """One configured backend as its driver gets it.

    `models` maps our model names to the backend's. `secrets` holds the credentials that `options`
    asked for, by key. `options` is the kind's own `Options`. `session`: None where the address does
    not come with one, or none has come yet.
    """

    backend: Backend
    options: Any
    models: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    session: SessionPlan | None = None


class Driver(Protocol):
    """Looks at one backend.

    Neither method raises for what the backend does; that is what they report.
    """

    async def probe(self) -> Observation:
        """Ask for the engine's own readiness, and for its model list where that costs nothing.

        Takes at most the policy's `timeout_s` for each request made.
        """
        ...

    async def canary(self) -> Observation | None:
        """Ask for a one-token completion of the first configured model, at most `canary_timeout_s`.

        Any completion counts, empty text too. None: this engine or kind has no canary.
        """
        ...


class Registered(Driver, Protocol):
    """Looks at a backend whose address came with a registration."""

    async def identify(self, nonce: str) -> str:
        """Have it prove that it is the agent of its session: "" if so, else one line why not.

        `nonce` is hexadecimal and never used twice. Takes at most the policy's `timeout_s`.
        """
        ...
