"""What comes in (events, commands) and what goes out (a Turn: changed values, effects, reasons)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.lives import PastSession, Token
from orchestrator.core.meters import MeterState, ProviderSaid, Spent
from orchestrator.core.model import (
    BackendState,
    Clocks,
    DnsTrouble,
    Incident,
    Notice,
    Observation,
    ServiceState,
    World,
)
from orchestrator.core.powering import PowerCommand, PowerEffect, PowerReported
from orchestrator.core.registry import RegistryCommand, RegistryEvent
from orchestrator.core.specs import FleetConfig, Target

# ── events ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Observed:
    """A probe, canary or heartbeat came back. `started_at`: steady time at which it was sent."""

    observation: Observation
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """One proxied request ended.

    Who failed it, in order, and who answered at last, if anyone did.
    """

    failed: tuple[str, ...]
    served: str | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ControlsAnswered:
    """The controls were tried in parallel: `failed` of `total` gave no HTTP answer."""

    failed: int
    total: int
    started_at: float  # steady


@dataclass(frozen=True, slots=True)
class Tick:
    """Once a second. `boot`: seconds that go on while the machine is suspended."""

    boot: float


@dataclass(frozen=True, slots=True)
class NameChecked:
    """The service was asked for through its public name."""

    service: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DnsAttempting:
    """The reconciler is about to write `targets` as `epoch`.

    Remembered before it is done, so that a write whose answer is lost is recognised as ours.
    `correction`: it puts back what somebody else changed, and counts towards the limit of those.
    """

    service: str
    targets: tuple[Target, ...]
    epoch: int
    correction: bool = False


@dataclass(frozen=True, slots=True)
class DnsConfirmed:
    """The name was read and holds what we wrote. `ids` are the provider's record ids."""

    service: str
    targets: tuple[Target, ...]
    epoch: int
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsTroubled:
    """The name could not be read or written, or is not ours to write.

    `epoch`: the one found there. `outbid`: with NEWER, it is ours to go above that epoch (our own
    record after a restore, or the operator told us to adopt), so take the next one. `replaced`:
    with NEWER, our own instance goes on elsewhere, in a later era: nothing is ours to do any more.
    """

    service: str
    trouble: DnsTrouble
    detail: str
    retry_at: float | None = None
    epoch: int | None = None
    outbid: bool = False
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class NoticesSent:
    """These notices were accepted by `channel`."""

    ids: tuple[str, ...]
    channel: str


@dataclass(frozen=True, slots=True)
class Flagged:
    """A part of the daemon reports a lasting problem (`detail`), or its end (`detail` empty).

    For what the core cannot see by itself: alert channels down, disk full, a job quarantined.
    """

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A new configuration is in force."""

    config: FleetConfig


# ── commands: events an operator gave; each is answered once it is committed ────────────────────


@dataclass(frozen=True, slots=True)
class Failover:
    """Move a service now: to `to`, else to the best other one."""

    service: str
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Switchover:
    """Move a service at steady time `at`, make-before-break."""

    service: str
    to: str
    at: float


@dataclass(frozen=True, slots=True)
class PinTo:
    """Prefer `backend` for `for_s` seconds; `hard`: whatever happens."""

    service: str
    backend: str
    for_s: float = 14400.0
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Unpin:
    """End a pin."""

    service: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Observe only, for `for_s` seconds or until resumed."""

    for_s: float | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """End a pause."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Take a backend out of rotation, or put it back."""

    backend: str
    drained: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """Probe and canary a backend now."""

    backend: str


@dataclass(frozen=True, slots=True)
class SyncDns:
    """Take over whatever stands at the service's name."""

    service: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The operator knows: no more reminders."""

    incident: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Mute:
    """No notices of this incident for `for_s` seconds."""

    incident: str
    for_s: float = 14400.0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """A hook was called and something outside of the core was done: the log is to say so."""

    hook: str
    text: str


Command = (
    Failover
    | Switchover
    | PinTo
    | Unpin
    | Pause
    | Resume
    | Drain
    | Check
    | SyncDns
    | Acknowledge
    | Mute
    | Called
    | RegistryCommand
    | PowerCommand
)
Event = (
    Observed
    | Traffic
    | RegistryEvent
    | ControlsAnswered
    | Tick
    | NameChecked
    | DnsAttempting
    | DnsConfirmed
    | DnsTroubled
    | NoticesSent
    | Flagged
    | Spent
    | ProviderSaid
    | Reconfigured
    | PowerReported
    | Command
)

# ── effects: what the edge is asked to do; all are idempotent ───────────────────────────────────


@dataclass(frozen=True, slots=True)
class ProbeSoon:
    """Probe this backend now rather than when it is due."""

    backend: str


@dataclass(frozen=True, slots=True)
class CanarySoon:
    """Ask this backend for a one-token completion now."""

    backend: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """Ask this backend's agent for proof of identity."""

    backend: str


@dataclass(frozen=True, slots=True)
class Prove:
    """Find out whether this backend's pending session may serve."""

    backend: str


@dataclass(frozen=True, slots=True)
class Rewire:
    """This backend's address is another one now, or it has none any more."""

    backend: str


@dataclass(frozen=True, slots=True)
class AskControls:
    """Try the controls, to learn whether it is us."""


@dataclass(frozen=True, slots=True)
class CheckName:
    """Ask for the service through its public name."""

    service: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Compare this service's DNS name with what is wanted, now."""

    service: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """There are notices to send."""


Effect = (
    ProbeSoon
    | CanarySoon
    | Challenge
    | Prove
    | Rewire
    | AskControls
    | CheckName
    | Reconcile
    | Deliver
    | PowerEffect
)


# ── a turn ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the event log: `action` is a stable machine name, `text` one English sentence."""

    action: str
    subject: str
    text: str
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command's giver is told. `problem`: None, "unknown" (no such name) or "conflict"."""

    text: str
    problem: str | None = None


@dataclass(slots=True)
class Turn:
    """What one event changes: only the values that differ, and what to do about it.

    Made for each event, so it is not frozen, which costs three times as much; treat it as if.

    `durable`: something in here must survive a restart, so it is committed before it is applied or
    carried out. An incident or notice that is over (`closed_at`, `sent_at`) leaves the fleet when
    applied. `tick`: the clocks of one that says that time passed.
    """

    backends: Mapping[str, BackendState | None] = field(default_factory=dict)
    services: Mapping[str, ServiceState | None] = field(default_factory=dict)
    incidents: Mapping[str, Incident] = field(default_factory=dict)
    notices: Mapping[str, Notice] = field(default_factory=dict)
    flags: Mapping[tuple[str, str], str] = field(default_factory=dict)
    tokens: Mapping[str, Token | None] = field(default_factory=dict)
    past: tuple[PastSession, ...] = ()
    meters: Mapping[str, MeterState | None] = field(default_factory=dict)
    world: World | None = None
    config: FleetConfig | None = None
    effects: tuple[Effect, ...] = ()
    entries: tuple[Entry, ...] = ()
    seen: str | None = None  # a backend that was looked at for the first time since the start
    answer: Answer | None = None
    durable: bool = False
    tick: Clocks | None = None
