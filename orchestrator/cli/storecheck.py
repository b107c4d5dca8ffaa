"""What `aion doctor` finds of the backups: each in a child process, as the daemon makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from orchestrator.cli.finding import ADVICE, FAILED, PASSED, Finding
from orchestrator.errors import ChildFailed

if TYPE_CHECKING:
    from orchestrator.settings import Config

CHILD = "jobs.backup.child"
WITHIN_S = 180.0
OUTCOMES = {"passed": PASSED, "failed": FAILED, "advice": ADVICE}


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Try the database and every place of each backup: a small object is written, read, deleted."""
    from orchestrator.edge.child import run_child

    for settings in config.backups:
        subject = f"backup {settings.name}"
        given = {"do": "look", "plan": settings.plan.to_json()}
        try:
            answer = await run_child(CHILD, given, timeout_s=WITHIN_S)
        except ChildFailed as error:
            yield Finding(FAILED, subject, str(error))
            continue
        if not answer["ok"]:
            yield Finding(FAILED, subject, str(answer["detail"]))
        for one in answer.get("found", ()):
            text = f"{one['subject']}: {one['text']}"
            yield Finding(OUTCOMES[one["outcome"]], subject, text, one["remedy"])
