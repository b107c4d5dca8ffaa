"""What was lately done to machines, by Google's own list of operations.

By it is known why one is off, that its launch is over, and where there was no room for a while.
Times are Google's; what is read here are operations as its client library gives them, newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from backends.gce_client import Compute, why_failed
from backends.gce_words import Machine, Trouble, ours
from orchestrator.core.powering import Snag

DRY_S: Final = 1800.0
"""For so long a zone that had no room is tried last."""
STARTS: Final = frozenset({"insert", "start", "startWithEncryptionKey", "resume"})
STOPS: Final = frozenset({"stop", "suspend", "delete"})
BY_GOOGLE: Final = "compute.instances."
REASONS: Final = {
    "preempted": "preempted: Google took the spot machine back",
    "hostError": "the host that it ran on failed",
    "guestTerminate": "it shut itself down",
    "terminateOnHostMaintenance": "its host is being maintained",
}
"""System events of an instance (docs.cloud.google.com/compute/docs/logging/audit-logging)."""
Place = tuple[str, str]


def why_off(zone: str, operations: Sequence[Any]) -> str:
    """Say by what a machine went off, as far as it can be known; "" if it cannot."""
    kinds = STARTS | STOPS
    last = next(
        (
            one
            for one in operations
            if one.operation_type in kinds or one.operation_type.startswith(BY_GOOGLE)
        ),
        None,
    )
    if last is None:
        return ""
    if reason := REASONS.get(last.operation_type.removeprefix(BY_GOOGLE)):
        return reason
    if trouble := why_failed(last):
        return f"{zone}: {trouble.detail}"
    if last.operation_type == "stop" and last.user:
        return f"stopped by {last.user}"
    return ""


def is_over(raw: Any, operations: Sequence[Any]) -> bool:
    """Say whether what an instance that is off was last started for is certainly over.

    Not while a start may be under way that its status does not show yet, nor where a label was set
    since: whoever set it is about to start it.
    """
    if not operations or not _is_done(operations[0]):
        return False
    last = operations[0]
    if last.operation_type in STOPS or last.operation_type.startswith(BY_GOOGLE):
        return True
    if last.operation_type not in STARTS:
        return False
    return why_failed(last) is not None or _at(raw.last_stop_timestamp) > _at(last.insert_time) > 0


def by_room(cloud: Compute, prefix: str, places: list[Place], raw: Any, now: float) -> list[Place]:
    """Put those places last where a start found no room a while ago, the longest ago before others.

    `raw`: instances as Google describes them, by place; for a template there are none. `now`: Unix
    time. Where it cannot be read, the order stays.
    """
    if len(places) < 2:  # noqa: PLR2004 - nothing to choose from
        return places
    dry: dict[Place, float] = {}
    for place in places:
        try:
            last = _last_start(cloud, prefix, place, raw.get(place))
        except Trouble:
            continue
        trouble = None if last is None else why_failed(last)
        if trouble is None or trouble.snag is not Snag.STOCKOUT:
            continue
        at = _at(last.end_time) or _at(last.insert_time)
        if abs(now - at) < DRY_S:
            dry[place] = at
    return sorted(places, key=lambda place: dry.get(place, 0.0))


def _last_start(cloud: Compute, prefix: str, place: Place, raw: Any) -> Any:
    zone, name = place
    if raw is not None:
        found = cloud.last_operations(zone, cloud.link(zone, name))
        return next((one for one in found if one.operation_type in STARTS), None)
    made = cloud.last_inserts(zone)
    return next((one for one in made if ours(prefix, target_of(one))), None)


def target_of(operation: Any) -> str:
    """Name the instance that an operation is about."""
    return str(operation.target_link).rpartition("/")[2]


def gone(places: Sequence[Place], name: str) -> list[Machine]:
    """Give a machine that is gone as it is known by its operations alone, in each zone."""
    return [Machine(zone, name, "") for zone, _ in places]


def _is_done(operation: Any) -> bool:
    return bool(operation.status == type(operation).Status.DONE)


def _at(text: str) -> float:
    """Read a time as Google writes it; 0 where there is none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
