"""`aion meters`: what is left, and when it runs out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.times import until

BAR = 10
STYLE = {0: "good", 80: "warn", 95: "warn", 100: "bad"}
KILO = 1000.0


def meters(
    ctx: typer.Context,
    which: Annotated[
        str | None, typer.Argument(metavar="[2026-11]", help="Which month; default: this one.")
    ] = None,
    *,
    month: Annotated[
        bool, typer.Option("--month", help="What a month came to, against the providers' figures.")
    ] = False,
) -> None:
    """Show what is used of each quota, what is left, and when it runs out.

    With --month: what that calendar month took, how often what was started, and what it cost.
    """
    output, client = ctx.obj.output(), ctx.obj.client()
    if month or which is not None:
        receipt = client.get("/api/meters", month=which or "")
        if output.json:
            output.data(receipt)
        else:
            from orchestrator.cli import receipts

            receipts.show(output, receipt)
        return
    found = client.get("/api/meters")
    if output.json:
        output.data(found)
        return
    at = client.get("/api/status")["as_of"]
    output.table(
        ("meter", "used", "", "left", "starts again", "runs out", "state"),
        [_row(one, at) for one in found],
    )


def _row(one: dict[str, Any], at: str) -> tuple[Cell | str, ...]:
    unit, style = one["unit"], STYLE.get(one["level"], "")
    if one["limit"] is None:
        used, bar, left = amount(unit, one["used"]), Cell(""), ""
    else:
        used = f"{amount(unit, one['used'])} of {amount(unit, one['limit'])}"
        bar = Cell(drawn(one["used"], one["reserved"], one["limit"]), style)
        left = amount(unit, one["left"])
    return (
        Cell(one["key"], "strong"),
        used,
        bar,
        left,
        _again(one, at),
        until(one["runs_out_at"], at),
        _state(one, at),
    )


def _again(one: dict[str, Any], at: str) -> str:
    if one["starts_again_at"]:
        return until(one["starts_again_at"], at)
    if one["expires_at"]:
        return f"never; ends {one['expires_at'][:10]}"
    return f"bit by bit, over a {one['per']}" if one["rolling"] else "never"


def _state(one: dict[str, Any], at: str) -> Cell | str:
    if one["level"] == 100:  # noqa: PLR2004 - percent
        when = f" until {until(one['spent_until'], at)}" if one["spent_until"] else ""
        return Cell(f"spent{when}", "bad")
    if one["level"]:
        return Cell(f"over {one['level']} %", "warn")
    if one["short"]:
        return Cell("will not last", "warn")
    return "in use" if one["on"] else ""


def amount(unit: str, value: float) -> str:
    """Write an amount of a meter, such as `28.5 h`, `$12.40`, `12,300`, `0.42 GB`."""
    if unit == "hours":
        return f"{value:.1f} h"
    if unit == "usd":
        return f"${value:,.2f}"
    if unit != "bytes":
        return f"{value:,.0f}"
    for name in ("B", "kB", "MB"):
        if value < KILO:
            return f"{value:.3g} {name}"
        value /= KILO
    return f"{value:.2f} GB" if value < KILO else f"{value:,.0f} GB"


def drawn(used: float, reserved: float, limit: float) -> str:
    """Draw a bar: used, set aside, left."""
    if limit <= 0:
        return "█" * BAR
    full = min(BAR, int(used / limit * BAR + 0.5))
    held = min(BAR - full, int((used + reserved) / limit * BAR + 0.5) - full)
    return "█" * full + "▒" * max(0, held) + "░" * (BAR - full - max(0, held))
