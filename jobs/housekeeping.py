"""Keeps the database small: writes what is still in memory, then drops what is too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from jobs.base import Tools

CRON = "17 4 * * *"  # off the full hour, when everybody else's jobs run


def trigger(tools: Tools) -> BaseTrigger | None:
    """Return when: once a night, by the operator's clock."""
    from jobs.triggers import cron  # noqa: PLC0415 - the command line imports this module

    return cron(CRON, tools.timezone)


async def run(tools: Tools) -> str:
    """Flush and prune. Raises `StoreError`."""
    await tools.store.flush()
    await tools.store.prune(tools.now())
    return "pruned"
