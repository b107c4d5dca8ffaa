"""Starting and stopping in words: what is asked of a provider, and what it answers.

Events and effects of `core.power`, and the report that every kind which can be started gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.lives import PowerPhase


class Snag(StrEnum):
    """Why something asked of a provider did not go well.

    QUOTA: what may be used is used up, and only time or money helps. STOCKOUT: nothing free there
    now. DENIED: it does not let us. TRANSIENT: it could not just now. With these four it was *not*
    done. LOST: nobody knows whether it was done, so how it is must be read before anything else.
    """

    NONE = ""
    QUOTA = "quota"
    STOCKOUT = "stockout"
    DENIED = "denied"
    TRANSIENT = "transient"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider says is used of one of a backend's meters, in the meter's own unit.

    `unit`: as `core.meters.Unit` names it. `limit`: how much there is, where it says that too.
    """

    unit: str
    used: float
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class PowerReport:
    """What a provider says of one backend.

    `phase`: UNKNOWN where it did not say. `launch`: the label of what runs there, "" where nothing
    does or there is none to be seen. `address`: where it is reached, for those whose address is the
    provider's to give. `detail`: one line for the operator. `retry_after_s`: how long it is of no
    use to ask again, where it said so. `usage`: what it says is used, whatever else it said.
    `queued`: it took the start, and that waits for its turn there.
    """

    phase: PowerPhase = PowerPhase.UNKNOWN
    launch: str = ""
    address: str = ""
    detail: str = ""
    snag: Snag = Snag.NONE
    retry_after_s: float | None = None
    usage: tuple[Usage, ...] = ()
    queued: bool = False


class Ask(StrEnum):
    """What a provider was asked."""

    START = "start"
    STOP = "stop"
    STATUS = "status"


# ── events ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PowerReported:
    """A provider answered, or it is known that its answer is lost.

    `launch`: the label it was asked with. `began_at`: steady time at which it was asked.
    """

    backend: str
    ask: Ask
    report: PowerReport
    launch: str = ""
    began_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start a backend now."""

    backend: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop a backend now."""

    backend: str


PowerCommand = Start | Halt

# ── effects ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StartBackend:
    """Have the provider start it, labelled `launch`, and end it by itself after `max_run_s`."""

    backend: str
    launch: str
    max_run_s: float | None = None


@dataclass(frozen=True, slots=True)
class StopBackend:
    """Have the provider stop what it runs under that label; "": whatever runs there."""

    backend: str
    launch: str


@dataclass(frozen=True, slots=True)
class AskPower:
    """Have the provider say how it is."""

    backend: str


PowerEffect = StartBackend | StopBackend | AskPower
