"""What a backend kind is, and what it may use of the world.

A kind is one module named in `backends.KINDS` with two things in it: `Options`, the keys its
`[backends.NAME]` table may hold, and `Driver`, which looks at one such backend; a third, `checks`,
may say what `aion doctor` is to look at (see `Checks`). What a driver needs of the outside comes as
a `Ports`; it imports no client library and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.core.model import Observation
from orchestrator.core.powering import PowerReport
from orchestrator.core.specs import Backend
from orchestrator.errors import ChildFailed


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
        once: bool = False,
    ) -> Reply:
        """Send one request and read the answer; redirects are not followed.

        `once`: never sent a second time, not even where a connection kept alive turns out to be
        closed: for what must not be done twice.

        Raises `Unreachable` with one line saying how it failed (refused, timed out after N s, name
        not found, TLS, reset, answer cut short).
        """
        ...

    async def connect(self, host: str, port: int, *, timeout_s: float) -> float:
        """Open and close a TCP connection; returns seconds it took. Raises `Unreachable`."""
        ...


News = Callable[[dict[str, Any]], None]
"""Takes what a child tells before its answer (`orchestrator.childside.tell`)."""


class Children(Protocol):
    """Runs what is too heavy for the daemon's memory in a process of its own."""

    async def __call__(
        self,
        module: str,
        payload: Mapping[str, Any],
        *,
        timeout_s: float,
        news: News | None = None,
    ) -> dict[str, Any]:
        """Run `python -m module`, hand it `payload` on stdin, return the JSON it answers.

        Secrets go in `payload`, never elsewhere. `news` gets what it tells of how far it is. Raises
        `ChildFailed`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: `status` is its exit status, negative for a signal.

    `stdout` and `stderr` are the ends of what it wrote.
    """

    status: int
    stdout: str = ""
    stderr: str = ""


class Programs(Protocol):
    """Runs programs that the operator configured: an argument list, never a shell."""

    async def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], stdin: str, timeout_s: float
    ) -> Ended:
        """Run it to its end, with an allow-listed environment and `env` on top.

        Secrets go in `stdin`, never elsewhere. Raises `ChildFailed` if it cannot be started, and
        `ChildTimedOut` after `timeout_s`, when it and whatever it started in its process group is
        gone.
        """
        ...


async def no_programs(argv: Sequence[str], **_given: Any) -> Ended:
    """Refuse: where programs must not be run."""
    raise ChildFailed(f"{argv[0]} cannot be run here")


async def no_children(
    module: str,
    payload: Mapping[str, Any],  # noqa: ARG001 - as `Children` names it
    *,
    timeout_s: float,  # noqa: ARG001 - as `Children` names it
    news: News | None = None,  # noqa: ARG001 - as `Children` names it
) -> dict[str, Any]:
    """Refuse: where nothing may be started."""
    raise ChildFailed(f"{module} cannot be run here")


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
    `children` runs what imports a heavy client library.
    """

    http: Http
    guarded: Http
    clock: Clock
    random: Random
    programs: Programs = no_programs
    children: Children = no_children


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
    not come with one, or none has come yet. `address`: what the provider gave last, for those that
    get one with each start. `label`: how the labels of its launches begin, for those whose launches
    are found by it among others in one account; "" where nothing is started, as in `aion doctor`.
    `aion`: where the daemon is reached, for those that are told so as they are started.
    """

    backend: Backend
    options: Any
    models: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    session: SessionPlan | None = None
    address: str = ""
    label: str = ""
    aion: str = ""


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


@dataclass(frozen=True, slots=True)
class Launch:
    """A start to be made.

    `label`: what the provider is to call it, so that it is recognised whoever asks later.
    `max_run_s`: after so long the provider ends it by itself, for a daemon that is dead cannot.
    `token`: what this launch alone registers with, for a driver that says `carries_token = True`.
    """

    label: str
    max_run_s: float | None = None
    token: str = field(default="", repr=False)


class Powered(Protocol):
    """Starts and stops one backend: what a driver may do beside looking at it.

    None of them raises for what the provider does; that is what they report. Each is bounded: it
    answers within five minutes. Only one is under way at a time, and it may be cancelled.

    - A snag other than LOST says that it was *not* done. Whoever does not know says LOST: a
      time-out after the request was sent, an answer cut short, a 5xx to a write. Then `status` is
      asked before anything else, so no launch is made twice.
    - QUOTA with `retry_after_s` where the provider says when it is refilled; STOCKOUT once every
      place that was configured was tried; DENIED for a key or permission; TRANSIENT for 429, and
      for 503 to a question.
    - What takes long is not waited for: report STARTING or STOPPING, and `status` says the rest.
    - Where providers have labels or names, the launch's is set with the request itself, in the same
      call, and `status` reports the label of what runs: an orphan is found by it.
    - An address that comes with each start is reported by `status`, read from the provider and
      never guessed.
    """

    async def start(self, launch: Launch) -> PowerReport:
        """Have it started; with what runs already under that label, do nothing and say so."""
        ...

    async def stop(self, launch: str) -> PowerReport:
        """Have what runs under that label stopped, "" whatever runs; OFF if nothing does.

        May be asked again for what is being stopped or is gone.
        """
        ...

    async def status(self) -> PowerReport:
        """Say how it is. UNKNOWN, with a snag, where that cannot be read: never OFF by mistake."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that `aion doctor` looked at for one backend, beside whether its engine answers.

    `ok`: None is advice, worth knowing and not amiss. `what`: one line of what was found, without
    the backend's name. `remedy`: what to do, where something is to be done.
    """

    ok: bool | None
    what: str
    remedy: str = ""


class Checks(Protocol):
    """What a kind has `aion doctor` look at: a function `checks` in its module, if it has one.

    For what only this kind knows: does the provider take the credential, may it do what `start` and
    `stop` ask, is what is to be started there, is there quota for it. It changes nothing at the
    provider and costs nothing; it answers within a minute (`timeout_s` of what it asks through
    `ports`), and does not raise for what the provider says: that is a `Check` that is not ok. One
    that it could not make at all is one too, and then the rest may be left out.
    """

    async def __call__(self, plan: Plan, ports: Ports) -> Sequence[Check]: ...
