"""What `aion simulate` prints: tables and sentences, or JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from orchestrator.cli.meters import amount
from orchestrator.cli.output import Cell, Output, Row
from orchestrator.cli.plotting import Found
from orchestrator.cli.times import rfc3339
from orchestrator.core.durations import spoken
from orchestrator.core.meters import Unit
from orchestrator.core.windows import Per
from orchestrator.edge.texts import Style, render
from orchestrator.outlook.advice import advice
from orchestrator.outlook.lives import End
from orchestrator.outlook.play import Plot
from orchestrator.outlook.story import Ending, Line, Part, Story
from orchestrator.outlook.summary import (
    BackendOutlook,
    Outlook,
    ServiceOutlook,
    Spread,
    quantile,
    summarise,
)
from orchestrator.outlook.tally import Tally

WORSE = "1 in 20 is worse than"
GOOD, FAIR = 0.999, 0.99
STYLES = {
    Part.WORLD: "strong",
    Part.LOOK: "dim",
    Part.VERDICT: "warn",
    Part.MOVE: "good",
    Part.NAME: "",
    Part.TOLD: "",
    Part.NOTE: "dim",
}
ENDS = {End.FAILED: "failed", End.SESSION: "ended", End.QUOTA: "spent"}


# ── a month ─────────────────────────────────────────────────────────────────────────────────────


def month(output: Output, found: Found, plot: Plot, tallies: Sequence[Tally]) -> None:
    """Print what many plays of one plot say."""
    outlook = summarise(plot, tallies)
    sentences = advice(outlook, plot)
    if output.json:
        output.data(_month_json(outlook, found, plot, sentences))
        return
    begins = datetime.fromtimestamp(plot.begins, found.zone)
    times = "once" if outlook.seeds == 1 else f"{outlook.seeds} times"
    output.line(f"{spoken(plot.lasts_s)} from {begins:%a %d %b}, played {times}.")
    output.line(Cell(f"Failure rates: {found.source}.", "dim"))
    output.line(Cell(_hours(plot), "dim"))
    for service in outlook.services:
        output.line()
        output.table((service.name, "typical", WORSE), list(_service(service)))
    asks = list(_asks(outlook))
    if asks:
        output.line()
        output.table(("asked of you", "typical", WORSE), asks)
    output.line()
    columns = ("backend", "serves", "alive", *(ENDS.values()), "rates")
    output.table(columns, [_backend(one) for one in outlook.backends])
    started = list(_started(outlook))
    if started:
        output.line()
        output.table(("started by aion", "typical", WORSE, "refused"), started)
    used = list(_used(outlook, plot))
    if used:
        output.line()
        output.table(("used", "typical", "1 in 20 uses more than", "of"), used)
    output.line()
    for sentence in sentences:
        output.line(sentence)
    if outlook.asked.mean and not found.channels:
        output.line("No alert channel is configured: nobody would be asked; see docs/alerts.md.")


def _hours(plot: Plot) -> str:
    sleep = plot.person.sleep
    if sleep is None:
        return ""
    window = f"{sleep[0]:%H:%M} to {sleep[1]:%H:%M}"
    assumed = " (assumed)" if plot.person.basis.startswith("assumed") else f" ({plot.person.basis})"
    return f"Nobody starts anything from {window}{assumed}."


def _service(one: ServiceOutlook) -> Iterator[Row]:
    share = one.available.p50
    style = "good" if share >= GOOD else "warn" if share >= FAIR else "bad"
    yield "available", Cell(_percent(share), style), _percent(one.available.p5)
    for name, spread in (("uncovered", one.uncovered_min), ("longest gap", one.longest_min)):
        yield name, _minutes(spread.p50), _minutes(spread.p95)
    yield "failovers", *_counts(one.forced)
    yield "failbacks", *_counts(one.voluntary)
    yield "with nobody left", *_counts(one.lost)


def _asks(outlook: Outlook) -> Iterator[Row]:
    if outlook.asked.p95 or outlook.told.p95:
        yield "start one, urgently", *_counts(outlook.asked)
        yield "  of these, asleep", *_counts(outlook.asked_asleep)
        yield "start one, no hurry", *_counts(outlook.told)


def _backend(one: BackendOutlook) -> Row:
    if not one.plays:
        return (Cell(one.name, "dim"), "-", "-", "", "", "", Cell(one.basis, "dim"))
    ends = (f"{one.ends[why]:.0f}" if round(one.ends[why]) else "" for why in ENDS)
    return one.name, f"{100 * one.served:.1f} %", f"{100 * one.alive:.1f} %", *ends, one.basis


def _started(outlook: Outlook) -> Iterator[Row]:
    """Say how often aion starts what it can start."""
    for one in outlook.backends:
        if one.starts.p95:
            refused = f"{one.refused:.0f}" if round(one.refused) else ""
            yield one.name, *_counts(one.starts), refused


def _used(outlook: Outlook, plot: Plot) -> Iterator[Row]:
    """Say what is used of each meter that is paid by time."""
    for one in outlook.backends:
        for unit, spread in ((Unit.HOURS, one.hours), (Unit.USD, one.usd)):
            spec = plot.config.meters.get(f"{one.name}:{unit}")
            if spec is None or not one.plays:
                continue
            per = "in all" if spec.window.per is Per.EVER else f"a {spec.window.per}"
            of = "" if spec.limit is None else f"{amount(unit, spec.limit)} {per}"
            yield spec.key, amount(unit, spread.p50), amount(unit, spread.p95), of


def _counts(spread: Spread) -> tuple[str, str]:
    return f"{spread.p50:.0f}", f"{spread.p95:.0f}"


def _percent(share: float) -> str:
    """Write a share so that only what never failed is 100 %."""
    return "100 %" if share >= 1.0 else f"{math.floor(share * 1e5) / 1e3:.3f} %"


def _minutes(minutes: float) -> str:
    return spoken(minutes * 60.0) if minutes else "none"


def _month_json(
    outlook: Outlook, found: Found, plot: Plot, sentences: Sequence[str]
) -> dict[str, Any]:
    sleep = plot.person.sleep
    return {
        "days": outlook.days,
        "seeds": outlook.seeds,
        "from": rfc3339(datetime.fromtimestamp(plot.begins, UTC)),
        "rates": found.source,
        "operator": {
            "asleep": f"{sleep[0]:%H:%M}-{sleep[1]:%H:%M}" if sleep else None,
            "basis": plot.person.basis,
        },
        "services": [asdict(one) for one in outlook.services],
        "backends": [{**asdict(one), **_rates(plot, one.name)} for one in outlook.backends],
        "asked": asdict(outlook.asked),
        "asked_asleep": asdict(outlook.asked_asleep),
        "told": asdict(outlook.told),
        "sentences": list(sentences),
    }


def _rates(plot: Plot, name: str) -> Mapping[str, Any]:
    habits = plot.habits.get(name)
    if habits is None:
        return {"mtbf_s": None, "mttr_s": None}
    return {"mtbf_s": habits.rates.mtbf_s, "mttr_s": habits.rates.mttr_s}


# ── a mishap ────────────────────────────────────────────────────────────────────────────────────


def mishap(
    output: Output, found: Found, text: str, told: Story, others: Sequence[Sequence[Ending]]
) -> None:
    """Print a mishap as it would happen, and how it ends."""
    offset_s = told.began_wall - told.began_at
    style = Style(found.reading.settings.language, found.zone, offset_s)
    if output.json:
        output.data(_mishap_json(found, text, told, others, style))
        return
    output.line(f"{_start(found, told)} Then: {text.strip()}.")
    output.line()
    rows = [(_clock(line.t), Cell(_words(line, style), STYLES[line.part])) for line in told.lines]
    output.table(("after", "what happens"), rows)
    output.line()
    for number, ending in enumerate(told.endings):
        output.line(_ending(ending, told))
        if spread := _spread(number, others):
            output.line(Cell(spread, "dim"))
    if not found.channels and any(line.part is Part.TOLD for line in told.lines):
        output.line("No alert channel is configured: these messages would only stand in the log.")


def _start(found: Found, told: Story) -> str:
    serving = (f"{one.service} is served by {one.began_with or 'nobody'}" for one in told.endings)
    what = "As the daemon last wrote it" if found.peek else "With everything up"
    return f"{what}, {', '.join(serving)}."


def _clock(t: float) -> str:
    hours, rest = divmod(t, 3600.0)
    minutes, seconds = divmod(rest, 60.0)
    if hours:
        return f"{hours:.0f}:{minutes:02.0f}:{math.floor(seconds):02d}"
    return f"{minutes:.0f}:{math.floor(seconds * 10) / 10:04.1f}"


def _words(line: Line, style: Style) -> str:
    if line.notice is None:
        return line.text
    title = render(line.notice, style).title
    if line.held_until is None:
        return f"you are told: {title}"
    return f"you are told at {datetime.fromtimestamp(line.held_until, style.zone):%H:%M}: {title}"


def _ending(ending: Ending, told: Story) -> str:
    after = spoken(told.lasted_s)
    now = f"{ending.ended_with} serves it" if ending.ended_with else "nobody serves it"
    if not ending.uncovered_s:
        return f"{ending.service}: answered all the while; {now} after {after}."
    return (
        f"{ending.service}: {_length(ending.uncovered_s)} without an answer; {now} after {after}."
    )


def _spread(number: int, others: Sequence[Sequence[Ending]]) -> str:
    """Say how long it takes at other moments: what is looked at every 10 s dies in between."""
    ranked = sorted(endings[number].uncovered_s for endings in others)
    if not ranked:
        return ""
    least, middle, most = (_length(quantile(ranked, share)) for share in (0.0, 0.5, 1.0))
    if least == most:
        return ""
    return (
        f"Played at {len(ranked)} other moments: from {least} to {most}, half of them within"
        f" {middle}."
    )


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else spoken(seconds)  # noqa: PLR2004


def _mishap_json(
    found: Found, text: str, told: Story, others: Sequence[Sequence[Ending]], style: Style
) -> dict[str, Any]:
    return {
        "what_if": text,
        "at": rfc3339(datetime.fromtimestamp(told.began_wall, UTC)),
        "from": "database" if found.peek else "everything up",
        "lasted_s": told.lasted_s,
        "lines": [
            {
                "t": round(line.t, 3),
                "kind": line.part,
                "subject": line.subject,
                "text": _words(line, style),
            }
            for line in told.lines
        ],
        "services": [
            {**asdict(ending), "others_s": sorted(one[number].uncovered_s for one in others)}
            for number, ending in enumerate(told.endings)
        ],
    }
