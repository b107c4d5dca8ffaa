"""What Google Compute Engine says, read without its client library: errors, states, addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from backends.engines.answers import plain
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag

LABEL: Final = "aion-launch"
ENDED: Final = "aion-ended"
"""What the label becomes with a stop: whoever starts it by hand later has one of his own."""
LABEL_MOST: Final = 63
QUOTA_AGAIN_S: Final = 3600.0
SAID_MOST: Final = 300
SHORTEST_S, LONGEST_S = 30.0, 120 * 86400.0
"""How short and how long a run may be limited to: "Limit the run time of a VM", Restrictions."""

PHASES: Final = {
    "PROVISIONING": PowerPhase.STARTING,
    "STAGING": PowerPhase.STARTING,
    "REPAIRING": PowerPhase.STARTING,
    "RUNNING": PowerPhase.ON,
    "PENDING_STOP": PowerPhase.STOPPING,
    "STOPPING": PowerPhase.STOPPING,
    "SUSPENDING": PowerPhase.STOPPING,
    "DEPROVISIONING": PowerPhase.STOPPING,
    "TERMINATED": PowerPhase.OFF,
    "STOPPED": PowerPhase.OFF,
    "SUSPENDED": PowerPhase.OFF,
}
"""`status` of an instance ("Compute Engine instance lifecycle"); any other is UNKNOWN."""

_STOCKOUT: Final = re.compile(
    r"RESOURCE_POOL_EXHAUSTED|stockout|does not have enough resources available", re.IGNORECASE
)
_QUOTA: Final = re.compile(r"quotaExceeded|QUOTA_EXCEEDED", re.IGNORECASE)
_BUSY: Final = re.compile(
    r"rateLimitExceeded|RATE_LIMIT|resourceNotReady|RESOURCE_NOT_READY|INTERNAL_ERROR"
    r"|SERVICE_UNAVAILABLE|operationInProgress|resourceInUse|RESOURCE_IN_USE",
    re.IGNORECASE,
)
_NO_GPUS: Final = re.compile(r"GPUS_ALL_REGIONS.{0,40}Limit: 0[.]0", re.DOTALL)
_NOWHERE: Final = re.compile(r"projects/[^/']+' was not found")
_EVERYWHERE: Final = re.compile(r"_ALL_REGIONS|globally")
_NOT_HERE: Final = re.compile(r"accelerator|machine ?type|not supported in|zone", re.IGNORECASE)
TRIAL: Final = (
    "an account on trial may not use GPUs, and a new one has none: upgrade it to a paid account"
    " (what is left of the credit stays), then ask for the quota `GPUs (all regions)`"
)


NO_KEY: Final = "Google does not take the credential: make a new key, aion secret set, aion reload"


class Trouble(Exception):
    """Something asked of Google did not go well.

    `gone`: what was asked about is not there. `taken`: that name exists already. `elsewhere`: it
    may go better in another zone.
    """

    def __init__(
        self,
        snag: Snag,
        detail: str,
        *,
        retry_after_s: float | None = None,
        gone: bool = False,
        taken: bool = False,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(detail)
        self.snag, self.detail = snag, plain(detail, SAID_MOST)
        self.retry_after_s, self.gone, self.taken = retry_after_s, gone, taken
        self.elsewhere = elsewhere


def refused(
    status: int,
    reasons: Iterable[str],
    message: str,
    *,
    writes: bool,
    retry_after_s: float | None = None,
) -> Trouble:
    """Read an HTTP status that is an error, with the reasons and the message in its body."""
    said = " ".join((*reasons, message))
    if _STOCKOUT.search(said):
        return Trouble(Snag.STOCKOUT, message, elsewhere=True)
    if _QUOTA.search(said) and "rateLimitExceeded" not in said:
        return _quota(message)
    if status in {408, 429} or (status < 500 and _BUSY.search(said)):  # noqa: PLR2004
        return Trouble(Snag.TRANSIENT, message, retry_after_s=retry_after_s)
    if status >= 500:  # noqa: PLR2004
        snag = Snag.LOST if writes else Snag.TRANSIENT
        return Trouble(snag, f"HTTP {status}: {message}", retry_after_s=retry_after_s)
    if status == 404:  # noqa: PLR2004
        found = _NOWHERE.search(message)
        return Trouble(Snag.DENIED, _denied(said, message), gone=not found, elsewhere=not found)
    if status == 401:  # noqa: PLR2004
        return Trouble(Snag.DENIED, f"{NO_KEY} ({message.rstrip('.')})")
    if status in {409, 412}:
        return Trouble(Snag.TRANSIENT, message, taken="alreadyExists" in said)
    return Trouble(Snag.DENIED, _denied(said, message), elsewhere=_not_here(status, message))


def _not_here(status: int, message: str) -> bool:
    return status == 400 and bool(_NOT_HERE.search(message))  # noqa: PLR2004


def _denied(said: str, message: str) -> str:
    if _NOWHERE.search(message):
        return f"there is no such project, or it is another account's: {message}"
    if "accessNotConfigured" in said or "SERVICE_DISABLED" in said:
        return f"the Compute Engine API is not enabled there: {message}"
    if "billing" in said.lower():
        return f"there is no billing (the trial is over, or the account is closed): {message}"
    return message


def _quota(message: str) -> Trouble:
    detail = f"{message.rstrip('.')}; {TRIAL}" if _NO_GPUS.search(message) else message
    there = not _EVERYWHERE.search(message)
    return Trouble(Snag.QUOTA, detail, retry_after_s=QUOTA_AGAIN_S, elsewhere=there)


def failed(errors: Sequence[tuple[str, str]], status: int) -> Trouble:
    """Read what an operation that is over failed by: codes with messages, and its HTTP status.

    It is known not to have been done.
    """
    code, message = errors[0] if errors else ("", "it failed without saying why")
    detail = f"{code}: {message}" if code else message
    codes = " ".join(one for one, _ in errors)
    if _STOCKOUT.search(f"{codes} {message}"):
        return Trouble(Snag.STOCKOUT, detail, elsewhere=True)
    if _QUOTA.search(codes):
        return _quota(detail)
    if _BUSY.search(codes) or status >= 500 or status == 409:  # noqa: PLR2004
        return Trouble(Snag.TRANSIENT, detail)
    denied = _denied(f"{codes} {message}", detail)
    return Trouble(Snag.DENIED, denied, elsewhere=_not_here(status or 400, message))


def worst(troubles: Sequence[Trouble]) -> Trouble:
    """Sum up why none of several places would do: what may pass soonest decides."""
    order = (Snag.TRANSIENT, Snag.STOCKOUT, Snag.QUOTA, Snag.DENIED)
    first = min(troubles, key=lambda one: order.index(one.snag))
    details = dict.fromkeys(one.detail for one in troubles)
    return Trouble(first.snag, "; ".join(details), retry_after_s=first.retry_after_s)


# ── machines ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance, as far as it matters here.

    `limit_s`: after how long it is ended by itself, None: never. `spot`: it may be taken away.
    """

    zone: str
    name: str
    status: str
    labels: dict[str, str] = field(default_factory=dict)
    external: str = ""
    internal: str = ""
    spot: bool = False
    limit_s: int | None = None

    @property
    def phase(self) -> PowerPhase:
        return PHASES.get(self.status, PowerPhase.UNKNOWN)

    @property
    def launch(self) -> str:
        ended = self.labels.get(ENDED, "") if self.phase is PowerPhase.STOPPING else ""
        return self.labels.get(LABEL, ended)

    def url(self, scheme: str, port: int, which: str) -> str:
        """Say where it is reached; "" while it does not run or has no such address."""
        given = self.internal if which == "internal" else self.external
        if self.phase is not PowerPhase.ON or not given:
            return ""
        try:
            ip = ipaddress.ip_address(given)
        except ValueError:
            return ""
        if "%" in given:  # an interface of somebody else's
            return ""
        return f"{scheme}://{f'[{ip}]' if ip.version == 6 else ip}:{port}"  # noqa: PLR2004


def is_label(text: str) -> bool:
    """Say whether Google takes this for a label, and for a machine's name."""
    return re.fullmatch(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", text) is not None


def limit_s(wanted_s: float) -> int:
    """Bring how long a run may last into what Google takes."""
    return int(min(max(wanted_s, SHORTEST_S), LONGEST_S))


def ours(prefix: str, launch: str) -> bool:
    """Say whether a launch is one of the backend whose labels begin so: a number comes after it.

    Not one of a backend whose name only begins like this one's.
    """
    return bool(prefix) and launch.startswith(prefix) and launch.removeprefix(prefix).isdigit()


def number(launch: str) -> int:
    """Give the number that a launch's label ends in: a later one's is higher."""
    found = launch.rpartition("-")[2]
    return int(found) if found.isdigit() else 0


def gpu_quota(accelerator: str, *, spot: bool) -> str:
    """Name the quota of a region that an accelerator's type counts against."""
    kind = accelerator.rpartition("/")[2].removeprefix("nvidia-").removeprefix("tesla-")
    name = f"NVIDIA_{kind.upper().replace('-', '_')}_GPUS"
    return f"PREEMPTIBLE_{name}" if spot else name


def region_of(zone: str) -> str:
    """Name the region that a zone is in."""
    return zone.rpartition("-")[0]
