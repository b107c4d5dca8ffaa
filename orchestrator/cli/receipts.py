"""`aion meters --month`: what a month came to, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from orchestrator.cli.meters import amount
from orchestrator.cli.output import Cell, Row

if TYPE_CHECKING:
    from orchestrator.cli.output import Output

SAME = 0.005  # of a provider's figure: what differs by less is no difference worth a colour


def show(output: Output, receipt: dict[str, Any]) -> None:
    """Print one month: backends, then meters, then what it comes to."""
    over = "" if receipt["over"] else ", so far"
    output.line(Cell(f"{receipt['month']} by {receipt['timezone']}{over}", "strong"))
    backends = [one for one in receipt["backends"] if one["hours_on"] is not None]
    if backends:
        output.line()
        output.table(
            ("backend", "starts", "failed", "hours on", "cost", "by the end"),
            [_backend(one) for one in backends],
        )
    rows = [row for one in receipt["backends"] for row in _meters(one)]
    if rows:
        output.line()
        output.table(
            (
                *("meter", "counted", "corrected", "in all", "by the end"),
                *("its provider said", "ours then", "differs", "on"),
            ),
            rows,
        )
    output.line()
    output.line(_sum(receipt))
    others = [name for name in receipt["months"] if name != receipt["month"]]
    if others:
        output.line(Cell(f"Known as well: {', '.join(others)}", "dim"))


def _backend(one: dict[str, Any]) -> Row:
    return (
        Cell(one["backend"], "strong"),
        "" if one["starts"] is None else str(one["starts"]),
        str(one["failed_starts"]) if one["failed_starts"] else "",
        f"{one['hours_on']:.1f} h",
        _money(one["usd"]),
        _money(one["usd_forecast"]),
    )


def _meters(backend: dict[str, Any]) -> Iterator[Row]:
    for one in backend["meters"]:
        unit = one["unit"]
        ours = one["ours"]
        yield (
            Cell(one["key"], "strong"),
            amount(unit, one["counted"]),
            _signed(unit, one["corrected"]),
            amount(unit, one["total"]),
            "" if one["forecast"] is None else amount(unit, one["forecast"]),
            "" if one["said"] is None else amount(unit, one["said"]),
            "" if ours is None else amount(unit, ours),
            _differs(one),
            (one["said_at"] or "")[:16].replace("T", " "),
        )


def _differs(one: dict[str, Any]) -> Cell | str:
    if one["differs"] is None:
        return ""
    text = _signed(one["unit"], one["differs"]) or "no"
    much = abs(one["differs"]) > SAME * max(abs(one["said"]), abs(one["ours"]))
    return Cell(text, "warn" if much else "")


def _signed(unit: str, value: float) -> str:
    """Write what was put on top or taken off; nothing for nothing."""
    text = amount(unit, abs(value))
    if text == amount(unit, 0.0):
        return ""
    return f"{'+' if value > 0 else '-'}{text}"


def _money(value: float | None) -> str:
    return "" if value is None else amount("usd", value)


def _sum(receipt: dict[str, Any]) -> str:
    text = f"In all {amount('usd', receipt['usd'])}"
    if receipt["usd_forecast"] is None or receipt["over"]:
        return f"{text}."
    return f"{text}; as of late it comes to {amount('usd', receipt['usd_forecast'])} by the end."
