"""Waiting for a job that the daemon runs: by asking again and again, so that hours are no matter.

Nothing hangs on one connection: a daemon that is restarted meanwhile is waited for, and a run that
it took down with it is never told of as done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import AionError, BadReply, DaemonUnreachable

if TYPE_CHECKING:
    from orchestrator.cli.client import Client
    from orchestrator.cli.options import Given

FIRST_S: Final = 0.2
MOST_S: Final = 2.0
PATIENCE_S: Final = 600.0
"""How long a daemon that does not answer is waited for."""
_SLOWER: Final = 1.2
Row = Mapping[str, Any]


def nothing() -> None:
    """Look at nothing else meanwhile."""


def standing(client: Client, job: str) -> Row | None:
    """Return a job as `/api/jobs` shows it; None if there is none of that name."""
    return next((one for one in client.get("/api/jobs") if one["name"] == job), None)


def follow(
    given: Given,
    client: Client,
    job: str,
    before: Row | None,
    meanwhile: Callable[[], None] = nothing,
) -> str:
    """Wait for the end of a run that was just asked for; return what it came to.

    `before`: how the job stood before that. `meanwhile` is called at each look. Raises `AionError`
    with what went wrong, `DaemonUnreachable` when the daemon stays away.
    """
    output, wait_s, away_s = given.output(), FIRST_S, 0.0
    output.say(f"the daemon runs {job}; it goes on if you leave")
    last = before["last_at"] if before else None
    while True:
        try:
            row = standing(client, job)
            if row is not None and row["running"]:
                meanwhile()
            elif row is None or row["last_at"] or not last:  # else it has just begun to live
                return _came_to(job, row, last)
            away_s = 0.0
        except (DaemonUnreachable, BadReply):
            if not away_s:
                output.say("the daemon does not answer; waiting for it to come back")
            away_s += wait_s
            if away_s > PATIENCE_S:
                raise
        threading.Event().wait(wait_s)
        wait_s = min(wait_s * _SLOWER, MOST_S)


def _came_to(job: str, row: Row | None, last: object) -> str:
    if row is None:
        raise AionError(f"the daemon was given another configuration, which has no job {job}")
    if row["last_at"] == last:
        raise AionError(f"{job} was not begun, for the daemon was restarted first: run it again")
    if row["problem"]:
        raise AionError(f"{job}: {row['problem']}")
    return f"{job}: {row.get('said', '')}"
