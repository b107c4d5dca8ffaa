"""The jobs that every instance has. Probes are not here: the loop's pacer sends them."""

from __future__ import annotations

from jobs import deadman, housekeeping, keepalive
from jobs.base import Job

SCHEDULE: tuple[Job, ...] = (
    Job("deadman", deadman.trigger, deadman.run, heavy=False, misfire_grace_s=60, catch_up=False),
    Job(
        "housekeeping",
        housekeeping.trigger,
        housekeeping.run,
        heavy=True,
        misfire_grace_s=3600,
        catch_up=True,
    ),
    Job(
        "keepalive",
        keepalive.trigger,
        keepalive.run,
        heavy=False,
        misfire_grace_s=60,
        catch_up=False,
    ),
)
