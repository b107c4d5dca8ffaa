"""The lives of a backend that comes and goes: its sessions, who may open one, and its power."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.months import PowerMonth


class Do(StrEnum):
    """What a session's agent can be told to do."""

    DRAIN = "drain"
    SAVE = "save"
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Order:
    """Something a session's agent was told; said with every heartbeat until it is done."""

    id: int
    do: Do
    at: float


@dataclass(frozen=True, slots=True)
class Session:
    """One life of a backend that comes and goes.

    `beat_at`: when its agent last spoke; moved forward by any time in which we could not listen, so
    that a lease runs only while we do. `challenged_at`, `challenge_ok`: it was asked to prove
    itself after its lease lapsed, and whether it could; `unmet_at`: when it was asked and did not,
    while it is not known yet that the fault is not ours. `unheard`: since we could not listen then,
    it neither spoke nor proved itself. `generation` numbers the registrations of its backend;
    `secret` is the SHA-256 of its own token, hexadecimal, and `token` the id of the
    backend's token it was opened with. `tried_at`, `problem`: the last attempt to prove it before
    it may serve, and why it failed; `proving`: one is under way. `loading_at`: when its agent last
    said, before that, that it still loads. `seq`, `ready`, `state`, `busy`, `detail`: what its
    agent said last.
    """

    id: str
    started_at: float
    beat_at: float
    ends_at: float | None = None
    lease_s: float = 60.0
    late_s: float = 22.0
    challenged_at: float | None = None
    challenge_ok: bool = False
    unmet_at: float | None = None
    unheard: float | None = None
    generation: int = 0
    url: str = ""
    secret: str = field(default="", repr=False)
    token: str = ""
    registered_at: float = 0.0
    promoted_at: float | None = None
    tried_at: float | None = None
    problem: str = ""
    proving: bool = False
    loading_at: float | None = None
    seq: int = 0
    ready: bool = True
    state: str = ""
    busy: int = 0
    detail: str = ""
    models: tuple[str, ...] = ()
    gpu: str = ""
    gpu_memory_mb: int | None = None
    agent: str = ""
    orders: tuple[Order, ...] = ()
    ordered: int = 0  # orders ever given, so that their ids never repeat


@dataclass(frozen=True, slots=True)
class PastSession:
    """A session that is over: superseded, revoked, ended or gone. Its agent is told so (410)."""

    id: str
    backend: str
    generation: int
    secret: str = field(repr=False)
    token: str
    url: str
    started_at: float
    ended_at: float
    why: str


@dataclass(frozen=True, slots=True)
class Token:
    """A secret that lets a backend register; `secret` is its SHA-256, hexadecimal.

    `launch`: the label of the start that carries it, and for which alone it is good; "" for one
    that is good until it is revoked. `spent_at`: when a session that it opened first served.
    """

    id: str
    backend: str
    secret: str = field(repr=False)
    created_at: float
    by: str = ""
    revoked_at: float | None = None
    launch: str = ""
    spent_at: float | None = None


class PowerPhase(StrEnum):
    """Whether a backend that aion starts and stops is on, as far as is known."""

    UNKNOWN = "unknown"
    OFF = "off"
    STARTING = "starting"
    ON = "on"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Power:
    """What is known of a backend's power, and what was last asked of its provider.

    `launch`: our label of the start under way or running, "" for none. `asked_at`: when the last
    start or stop was asked for; `answered`: it was answered, or how it is was read since.
    `confirmed_at`: when the provider last said how it is, since the daemon started. `look_at`: when
    to ask it again. `number` of the last launch; `launched_at`, `deadline_at`: when it was asked
    for, and until when it has to be up; `booted`: it was. `stray`: one of ours that we knew nothing
    of. `idle_since`: it has had no work from then. `stop_at`: until then its agent may save.
    `forced`: its budget is spent, so it is stopped even while we only observe. `failures` in a row;
    `retry_at`: no automatic start before. `address`: what the provider says. `why` it was started
    or stopped; `would`: what would be done if we did not only observe. `lost`: its last life had
    begun to serve and ended by itself, too soon to be worth a start. `in_hours`: it is on in hours
    in which it should be; False: it was, and they are over. `queued`: its provider took the start,
    which waits for its turn there. `months`: what each of the last ones saw. `theirs`: the label of
    what somebody else runs there. `unheard`: starts in a row that got no answer and came to
    nothing. `refused_at`: since when it does not let us read how it is.
    """

    phase: PowerPhase = PowerPhase.UNKNOWN
    since: float = 0.0
    launch: str = ""
    asked_at: float | None = None
    confirmed_at: float | None = None
    detail: str = ""
    failures: int = 0
    retry_at: float | None = None
    answered: bool = True
    look_at: float = 0.0
    number: int = 0
    launched_at: float | None = None
    deadline_at: float | None = None
    booted: bool = False
    stray: bool = False
    idle_since: float | None = None
    stop_at: float | None = None
    forced: bool = False
    address: str = ""
    why: str = ""
    would: str = ""
    lost: bool = False
    queued: bool = False
    in_hours: bool | None = None
    months: tuple[PowerMonth, ...] = ()
    theirs: str = ""
    unheard: int = 0
    refused_at: float | None = None
