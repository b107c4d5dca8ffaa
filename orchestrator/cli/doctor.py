"""`aion doctor`: check everything aion depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.output import Cell

if TYPE_CHECKING:
    from orchestrator.cli.finding import Finding
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output

_STYLES = {"PASSED": "good", "FAILED": "bad", "ADVICE": "warn"}


def doctor(ctx: typer.Context) -> int:
    """Check everything aion depends on: PASSED or FAILED, and the remedy. Changes nothing.

    A place of backups is tried with a small object, which is deleted again.

    Needs no running daemon. Exit 0 if nothing failed, else 1. ADVICE is worth knowing, not amiss.
    """
    return asyncio.run(_examine(ctx.obj))


async def _examine(given: Given) -> int:
    from orchestrator.cli.checkup import examine
    from orchestrator.cli.finding import FAILED

    output = given.output()
    findings: list[Finding] = []
    async for finding in examine(given.config):
        findings.append(finding)
        if not output.json:
            _print(output, finding)
    if output.json:
        output.data([finding.as_json() for finding in findings])
    else:
        _conclude(output, findings)
    return 1 if any(finding.outcome == FAILED for finding in findings) else 0


def _print(output: Output, finding: Finding) -> None:
    mark = Cell(finding.outcome, _STYLES[finding.outcome])
    first, *more = finding.text.splitlines() or [""]
    output.line(mark, f"  {finding.subject}: {first}")
    for line in more:
        output.line(f"        {line}")
    if finding.remedy:
        output.line(Cell(f"        → {finding.remedy}", "strong"))


def _conclude(output: Output, findings: Sequence[Finding]) -> None:
    failed = sum(finding.outcome == "FAILED" for finding in findings)
    total = len(findings)
    output.say(f"{failed or 'none'} of {total} checks failed")
