"""The nouns of aion as plain frozen values.

Times are *steady seconds*: Unix time at the first start since the machine booted, carried on by the
monotonic clock, and over a restart of the daemon by boot time. So they never jump and can be stored
and compared after a restart. After a reboot they begin at Unix time again, but never before what is
stored (`edge/clock.py`). `Now.wall` is what the wall clock says; it serves for showing times and
for calendars, never for intervals. Durations end in `_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from orchestrator.core.lives import Power, Session, Token
from orchestrator.core.meters import MeterState
from orchestrator.core.specs import FleetConfig, Target


class Now(NamedTuple):
    """One reading of the clock: `at` in steady seconds, `wall` in Unix seconds."""

    at: float
    wall: float


Clocks = tuple[float, float, float]  # steady seconds, wall clock, boot time


class Health(StrEnum):
    """What is believed of a backend after many observations."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    WARMING = "warming"
    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


class Source(StrEnum):
    """Who says so."""

    PROBE = "probe"
    CANARY = "canary"
    HEARTBEAT = "heartbeat"
    TRAFFIC = "traffic"


class Verdict(StrEnum):
    """What one observation says. DENIED (401, 403) and BUSY (429) are answers, not deaths."""

    OK = "ok"
    LOADING = "loading"
    FAILED = "failed"
    DENIED = "denied"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one probe, canary, heartbeat or proxied request told us.

    `detail` is one line for the operator. `models` is the list the backend gave, None when it was
    not asked; `missing` are configured models that the list lacks. `retry_after_s` comes with
    BUSY. `tokens` is what a completion used; `budget` what the provider says of its limits: what
    is limited, the limit, what is left.
    """

    backend: str
    source: Source
    verdict: Verdict
    detail: str = ""
    latency_s: float | None = None
    status: int | None = None
    models: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    retry_after_s: float | None = None
    tokens: int = 0
    budget: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class BackendState:
    """What is believed of one backend, and the evidence it stands on.

    `doubt`: something was amiss since the last good answer, so it is probed fast; the verdict
    stands. `failed_at`: the last failure counted. `ok_since`: start of unbroken health. `denied`,
    `cooldown_until`: it answers, but not for us, or not now. `falls`: when it went down within the
    last hour; `flap_level`: how often its failback wait is doubled. `session`: the one that proved
    itself; `pending`: the newest that registered and has not yet. `boots`: how many seconds its
    last starts took, from being asked for to being up; `hand_starts`: the same, of those that a
    human was asked for, in operator hours. `asked_at`: since then a voluntary move to it waits for
    a good answer; `shown_at`: when the last such answer came.
    """

    name: str
    health: Health = Health.UNKNOWN
    since: float = 0.0
    reason: str = "not looked at yet"
    oks: int = 0
    fails: int = 0
    denials: int = 0
    doubt: bool = True
    doubt_since: float | None = None
    failed_at: float | None = None
    ok_since: float | None = None
    canary_fails: int = 0
    canary_at: float | None = None
    traffic_fail_at: float | None = None
    denied: str = ""
    cooldown_until: float | None = None
    falls: tuple[float, ...] = ()
    flap_level: int = 0
    drained: bool = False
    exhausted_until: float | None = None
    missing: tuple[str, ...] = ()
    session: Session | None = None
    pending: Session | None = None
    generation: int = 0
    power: Power | None = None
    boots: tuple[float, ...] = ()
    hand_starts: tuple[float, ...] = ()
    asked_at: float | None = None
    shown_at: float | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """The operator prefers `backend` until then; `hard`: whatever happens."""

    backend: str
    until: float
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A switchover the operator scheduled."""

    to: str
    at: float


class Phase(StrEnum):
    """Where a make-before-break rotation stands."""

    CANARY = "canary"
    VERIFY = "verify"
    TTL = "ttl"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Rotation:
    """A planned move under way from `old` to `new`; `good_since`.

    The public name answered well from then.
    """

    old: str
    new: str
    phase: Phase
    since: float
    why: str
    good_since: float | None = None


class DnsTrouble(StrEnum):
    """Why a DNS name is not as wanted."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    FOREIGN = "foreign"
    DRIFT = "drift"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class Publication:
    """A service's DNS name: what is wanted, what was last tried, what was read back.

    `record_ids` are the provider's names of the records known to be ours. `adopt`: the operator
    told us to take over what stands there. `corrections`: when drift was put back, within 24 h.
    """

    wanted: tuple[Target, ...] = ()
    wanted_epoch: int = 0
    attempted: tuple[Target, ...] = ()
    attempted_epoch: int = 0
    confirmed: tuple[Target, ...] = ()
    confirmed_epoch: int = 0
    confirmed_at: float | None = None
    record_ids: tuple[str, ...] = ()
    trouble: DnsTrouble | None = None
    trouble_since: float | None = None
    detail: str = ""
    retry_at: float | None = None
    adopt: bool = False
    corrections: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service's assignment, and what holds or plans it.

    `moves`: times of voluntary moves within the last hour. `settled`: the stored assignment was
    confirmed, or a new one was made, since this daemon started. `would`: what would be done if it
    were not paused. `review_at`: when the choice may change without new evidence.
    """

    name: str
    active: str | None = None
    since: float = 0.0
    epoch: int = 0
    reason: str = "nobody has been chosen yet"
    settled: bool = False
    hold_until: float | None = None
    pin: Pin | None = None
    moves: tuple[float, ...] = ()
    planned: Planned | None = None
    rotation: Rotation | None = None
    rotation_failed_at: float | None = None
    publication: Publication = Publication()
    would: str = ""
    review_at: float | None = None
    retry_at: float | None = None


class Severity(StrEnum):
    """How much it matters; critical rings in quiet hours."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Incident:
    """Something the operator should know or do: one thread from opened to closed.

    `key` names what is wrong (`backend_down:colab`); `id` names this one time that it was wrong.
    `params` fill the text's placeholders.
    """

    id: str
    key: str
    kind: str
    subject: str
    severity: Severity
    opened_at: float
    params: Mapping[str, str] = field(default_factory=dict)
    acked_at: float | None = None
    acked_by: str = ""
    muted_until: float | None = None
    noticed_at: float = 0.0
    reminders: int = 0
    escalated_at: float | None = None
    closed_at: float | None = None


class NoticeKind(StrEnum):
    """What a notice says of its incident; `moved` stands alone and tells of a new assignment."""

    OPENED = "opened"
    REMINDER = "reminder"
    ESCALATED = "escalated"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Notice:
    """One message about an incident, or about a move.

    `id` never changes, so a repeat can be recognised.
    """

    id: str
    kind: NoticeKind
    topic: str  # the incident's kind, or "moved": which text
    subject: str
    severity: Severity
    created_at: float
    incident: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    everywhere: bool = False  # escalated: to every channel
    sent_at: float | None = None
    channel: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """What is true of us rather than of a backend.

    `online_at`: when we last knew that our own network works; `remote_ok_at`: when a remote
    backend last answered well. `gap_at`: when we last woke from not running. `asked_at`: a check
    of the controls is under way since then. `suspected_at`: since then controls fail, and whether
    it is us is open; `cleared_at`: they answered again. `proofs`: when something remote answered
    well lately. `settled`: everything was looked at once since the start.
    `epoch_floor`: the highest epoch of a service that was removed; a new one goes on from there.
    """

    started_at: float = 0.0
    settled: bool = False
    paused_since: float | None = None
    paused_until: float | None = None
    paused_by: str = ""
    isolated_since: float | None = None
    online_at: float | None = None
    remote_ok_at: float | None = None
    gap_at: float | None = None
    asked_at: float | None = None
    controls_failed: int = 0
    suspected_at: float | None = None
    cleared_at: float | None = None
    proofs: tuple[float, ...] = ()
    inbound_lost_since: float | None = None
    incident_seq: int = 0
    epoch_floor: int = 0


@dataclass(slots=True)
class Fleet:
    """The whole state: a mutable table of frozen values. Only the loop changes it, through `apply`.

    `pools`: backend → the services it is in. `unseen`: backends not looked at since the start.
    `tokens` by id, `meters` by key. `tick`: the last tick's clocks, to notice gaps.
    """

    config: FleetConfig
    world: World = World()
    backends: dict[str, BackendState] = field(default_factory=dict)
    services: dict[str, ServiceState] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)  # open ones, by key
    outbox: dict[str, Notice] = field(default_factory=dict)  # unsent ones, by id
    flags: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, subject) → detail
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)
    tokens: dict[str, Token] = field(default_factory=dict)
    meters: dict[str, MeterState] = field(default_factory=dict)
    tick: Clocks | None = None
