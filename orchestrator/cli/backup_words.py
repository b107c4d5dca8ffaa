"""What the verbs of `aion backup` share: their options, doing in this process, a few words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from jobs.backup.form import Plan
    from orchestrator.cli.options import Given

Name = Annotated[str, typer.Argument(help="The backup, as in [backups.NAME].")]
AnyName = Annotated[str, typer.Argument(help="The backup; absent: all.")]
Dump = Annotated[str, typer.Argument(help="The dump, by id or number; absent: the newest good.")]
From = Annotated[
    str,
    typer.Option("--from", metavar="STORE", help="One store: file:/…, rclone:…, gs://…, hf://…"),
]
Rclone = Annotated[
    Path | None, typer.Option("--rclone-config", metavar="FILE", help="With --from rclone:…")
]
Google = Annotated[Path | None, typer.Option("--google", metavar="FILE", help="With --from gs://…")]


def do_here(given: Given, do: str, plan: Plan, store: str = "", dump: str = "") -> dict[str, Any]:
    """Do in this process what the child does; see `jobs.backup.child`."""
    from jobs.backup.child import DO
    from orchestrator.cli.backup_places import Bars, ports_of

    with Bars(given.output()) as bars:
        return DO[do](plan, ports_of(bars), store, dump)


def say_problems(given: Given, answer: Mapping[str, Any]) -> None:
    """Say what went wrong with whole stores."""
    for one in answer.get("problems", ()):
        given.output().say(f"{one['store']}: {one['detail']}")


def size(count: int) -> str:
    """Return bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - of SI's prefixes
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
