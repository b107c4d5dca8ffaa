"""`aion plan`: the coming rotations, what has to be started by when, and uncovered hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Cell
from orchestrator.cli.times import BadTime, clock, duration, parsed
from orchestrator.core.durations import spoken

if TYPE_CHECKING:
    from orchestrator.cli.output import Output

WATCH_S = 10.0
MOST_DAYS = 14
PIPED_COLUMNS = 96
LEAST_LANE, MOST_LANE = 24, 144  # columns
LABEL = 6  # columns that a label under the lanes needs
STEPS_H = (1, 2, 3, 6, 12, 24, 48)
NOBODY = "nobody"
MARKS = {
    "serving": ("#", "good"),
    "auto": ("A", "good"),
    "hand": ("H", "warn"),
    "standby": ("-", "dim"),
    "uncovered": ("!", "bad"),
}
LEGEND = "# serves  A after aion started it  H after somebody started it  - stands by  ! nobody"
HOW = {"auto": "by itself", "hand": "by hand", "serving": ""}


def plan(
    ctx: typer.Context,
    *,
    hours: Annotated[
        str, typer.Option("--hours", help="How far: hours, or a duration such as 36h or 7d.")
    ] = "48",
    service: Annotated[str | None, typer.Option("--service", help="Only this one.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C.")
    ] = False,
) -> int:
    """Show who serves when, what has to be started by when, and the hours nobody covers.

    Times are by the clock here. No mishaps are foreseen: `aion simulate` plays those.
    """
    given = ctx.obj
    output, client = given.output(), given.client()
    wanted = _hours(hours)

    def fetch() -> Any:
        return client.get("/api/plan", hours=f"{wanted:g}", service=service)

    if watch:
        from orchestrator.cli.watching import keep_showing

        keep_showing(output, fetch, show, WATCH_S)
        return 0
    seen = fetch()
    if output.json:
        output.data(seen)
    else:
        show(output, seen)
    return 0


def _hours(text: str) -> float:
    """Read "48", "36h" or "7d" as hours. Raises BadTime."""
    try:
        found = float(text)
    except ValueError:
        found = duration(text) / 3600
    if not 0 < found <= MOST_DAYS * 24:
        raise BadTime(f"--hours {text}: more than nothing and at most {MOST_DAYS}d")
    return found


def show(output: Output, seen: Mapping[str, Any]) -> None:
    """Print a plan for a person."""
    begins, ends = _moment(seen["as_of"]), _moment(seen["ends_at"])
    lacking = sum(one["uncovered_hours"] for one in seen["services"])
    said = f"uncovered: {spoken(lacking * 3600)}" if lacking else "every hour is covered"
    output.line(
        Cell(said, "bad" if lacking else "good"),
        Cell(f"  until {clock(ends, begins)}, in {spoken((ends - begins).total_seconds())}", "dim"),
        Cell(f"  starts cost ${seen['usd']:.2f}" if seen["usd"] else "", "dim"),
    )
    for one in seen["services"]:
        output.line()
        _service(output, one, begins, ends)


def _service(output: Output, one: Mapping[str, Any], begins: datetime, ends: datetime) -> None:
    output.heading(one["service"])
    for cells in lanes(one, begins, ends, _columns(output)):
        output.line(*cells)
    if one["asks"]:
        output.line()
        output.table(
            ("to start by hand", "between", "for the hours from", "why"),
            [_ask(ask, begins) for ask in one["asks"]],
        )
        for name, url in {ask["backend"]: ask["url"] for ask in one["asks"]}.items():
            if url:
                output.line(Cell(f"to start {name}, open ", "dim"), url)
    if one["handovers"]:
        output.line()
        output.table(
            ("at", "from", "to", "started", "why"),
            [_handover(move, begins) for move in one["handovers"]],
        )
    if one["gaps"]:
        output.line()
        output.table(
            ("uncovered", "for", "cheapest way", "cost", "why nobody is there"),
            [_gap(gap, begins) for gap in one["gaps"]],
        )


def _ask(ask: Mapping[str, Any], now: datetime) -> Sequence[Cell | str]:
    at, by = _moment(ask["at"]), _moment(ask["by"])
    between = f"{clock(at, now)} and {clock(by, at)}" if at < by else clock(by, now)
    return (
        Cell(ask["backend"], "strong"),
        Cell("now" if by <= now else between, "warn"),
        clock(_moment(ask["needed_at"]), now),
        ask["why"],
    )


def _handover(move: Mapping[str, Any], now: datetime) -> Sequence[Cell | str]:
    started = HOW.get(move["how"], move["how"])
    if move["start_by"]:
        started = f"{clock(_moment(move['start_by']), now)} {started}"
    return (
        clock(_moment(move["at"]), now),
        move["old"] or Cell(NOBODY, "bad"),
        Cell(move["new"], "strong"),
        started,
        Cell(move["why"], "dim"),
    )


def _gap(gap: Mapping[str, Any], now: datetime) -> Sequence[Cell | str]:
    begins, ends = _moment(gap["begins_at"]), _moment(gap["ends_at"])
    cost = "" if gap["usd"] is None else f"${gap['usd']:.2f}"
    why = "; ".join(f"{one['backend']}: {one['why']}" for one in gap["others"])
    way = f"{gap['backend']}: {gap['do']}" if gap["backend"] else gap["do"]
    return (
        Cell(f"{clock(begins, now)} to {clock(ends, now)}", "bad"),
        spoken((ends - begins).total_seconds()),
        way,
        cost,
        Cell(why, "dim"),
    )


# ── the picture ─────────────────────────────────────────────────────────────────────────────────


def _columns(output: Output) -> int:
    return int(output.console.width) if output.terminal else PIPED_COLUMNS


def lanes(
    one: Mapping[str, Any], begins: datetime, ends: datetime, columns: int
) -> Iterator[list[Cell]]:
    """Draw one lane a backend, then the clock; nothing where there is no room for it."""
    used = {part["backend"] or NOBODY for part in (*one["line"], *one["beside"])}
    names = [name for name in (*one["backends"], NOBODY) if name in used]
    margin = max((len(name) for name in names), default=0) + 2
    width = min(columns - margin - 1, MOST_LANE)
    if width < LEAST_LANE:
        return
    for name in names:
        lane = _lane(one, name, begins, ends, width)
        yield [Cell(f"{name:<{margin}}", "strong"), *_runs(lane)]
    yield [Cell(" " * margin + _axis(begins, ends, width), "dim")]
    if columns > len(LEGEND):
        yield [Cell(" " * margin + LEGEND if columns > margin + len(LEGEND) else LEGEND, "dim")]


def _lane(
    one: Mapping[str, Any], name: str, begins: datetime, ends: datetime, width: int
) -> list[str]:
    """Give the state of each column. What serves shows over what stands by, however short."""
    lane = [""] * width
    step = (ends - begins) / width
    for part in (*one["beside"], *one["line"]):
        if (part["backend"] or NOBODY) != name:
            continue
        first = int((_moment(part["begins_at"]) - begins) / step)
        until = (_moment(part["ends_at"]) - begins) / step
        last = max(first, int(until) - (until == int(until)))
        for at in range(max(0, first), min(width - 1, last) + 1):
            lane[at] = part["how"]
    return lane


def _runs(lane: Sequence[str]) -> Iterator[Cell]:
    """Join columns of the same state into pieces of one style."""
    start = 0
    for at in range(1, len(lane) + 1):
        if at == len(lane) or lane[at] != lane[start]:
            mark, style = MARKS.get(lane[start], (".", "dim"))
            yield Cell(mark * (at - start), style)
            start = at


def _axis(begins: datetime, ends: datetime, width: int) -> str:
    """Write the clock below the lanes: the day at midnight, else the hour."""
    total_h = (ends - begins).total_seconds() / 3600
    step_h = next((one for one in STEPS_H if width * one / total_h >= LABEL), STEPS_H[-1])
    row = [" "] * width
    at = begins.astimezone().replace(minute=0, second=0, microsecond=0)
    free = 0
    while at <= ends:
        hour = at.astimezone()
        column = int((at - begins) / (ends - begins) * width)
        label = f"{hour:%a}" if hour.hour == 0 else f"{hour:%H}h"
        days = (hour.date() - begins.astimezone().date()).days
        due = (days * 24 + hour.hour) % step_h == 0
        if due and free <= column <= width - len(label):
            row[column : column + len(label)] = label
            free = column + len(label) + 1
        at += timedelta(hours=1)
    return "".join(row).rstrip()


def _moment(text: str | None) -> datetime:
    found = parsed(text)
    assert found is not None
    return found
