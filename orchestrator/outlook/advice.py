"""What would help most, in a few sentences, each from the figures and only where they bear it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.durations import spoken
from orchestrator.outlook.lives import End
from orchestrator.outlook.play import Cover, Plot
from orchestrator.outlook.summary import MINUTE_S, BackendOutlook, Outlook

SENTENCES = 3
MOST = 0.6  # share of the uncovered time that is "most"
LONGEST_H = 10  # a stretch of the day longer than this is no stretch
NEARLY = 0.9  # share of the uncovered time that is nearly all
WORTH_MIN = 1.0  # less than this in the whole time is not worth a sentence
WORTH_SHARE = 0.1  # of the uncovered time


def advice(outlook: Outlook, plot: Plot) -> list[str]:
    """Say at most three things, the heaviest first."""
    weighed = sorted(_weighed(outlook, plot), key=lambda one: -one[0])
    return [text for _, text in weighed[:SENTENCES]]


def _weighed(outlook: Outlook, plot: Plot) -> Iterator[tuple[float, str]]:
    """Yield sentences with the uncovered minutes that they explain; the first stands first."""
    total = sum(one.uncovered_min.mean for one in outlook.services)
    span = spoken(plot.lasts_s)
    if total < WORTH_MIN:
        text = f"On average less than a minute in {span} is uncovered: more backends would not help"
        yield 2 * WORTH_MIN, f"{text}." if total else f"No minute of {span} was uncovered."
    else:
        when = _when(outlook, total)
        if when:
            yield 2 * total, when
        yield from _causes(outlook, plot, total, span)
    yield from _human(outlook, span)
    yield from _mortal(outlook, plot, span)


# ── when ────────────────────────────────────────────────────────────────────────────────────────


def _when(outlook: Outlook, total: float) -> str:
    """Say in which stretch of the day most of it falls, and what is so then."""
    hours = [sum(one.hours[hour] for one in outlook.services) for hour in range(24)]
    start, length, share = stretch(hours)
    if length > LONGEST_H:
        return ""
    text = (
        f"{_percent(share)} of the uncovered time{_of(outlook)} falls"
        f" between {start:02d}:00 and {(start + length) % 24:02d}:00"
    )
    asleep = sum(one.asleep_min for one in outlook.services)
    names = _waiting(outlook)
    if asleep >= total / 2 and names:
        text += f", when {_listed(names)} {_have(names)} ended and nobody is awake to start"
        text += " it again" if len(names) == 1 else " them again"
    return f"{text}."


def stretch(hours: Sequence[float]) -> tuple[int, int, float]:
    """Find the shortest stretch of the day with most of it: start, length in hours, its share."""
    total = sum(hours)
    for length in range(1, 25):
        sums = [sum(hours[(start + i) % 24] for i in range(length)) for start in range(24)]
        if max(sums) >= MOST * total:
            return sums.index(max(sums)), length, max(sums) / total if total else 1.0
    return 0, 24, 1.0


# ── why ─────────────────────────────────────────────────────────────────────────────────────────


def _causes(outlook: Outlook, plot: Plot, total: float, span: str) -> Iterator[tuple[float, str]]:
    covers = {cover: sum(one.covers[cover] for one in outlook.services) for cover in Cover}
    asleep = sum(one.asleep_min for one in outlook.services)
    awake = covers[Cover.BY_HAND] - asleep
    if asleep >= WORTH_SHARE * total:
        text = (
            f"One backend more{_of(outlook, 'for')} that starts by itself, however slow, would"
            f" cover up to {_minutes(asleep)} of the {_minutes(total)} in {span}: in these"
            " everything waits for you to wake."
        )
        yield asleep, text
    if awake >= WORTH_SHARE * total:
        text = (
            f"Waiting for you while you are awake makes {_minutes(awake)} in {span}:"
            f" {_listed(_waiting(outlook))} could be started before the last one ends."
        )
        yield awake, text
    if covers[Cover.UNNOTICED] >= WORTH_SHARE * total:
        yield covers[Cover.UNNOTICED], _noticing(outlook, plot, covers[Cover.UNNOTICED], span)
    if covers[Cover.BOOTING] >= WORTH_SHARE * total:
        text = (
            f"Waiting for a machine to boot makes {_minutes(covers[Cover.BOOTING])} in {span}: one"
            " that is on already at the hours that matter (on_from, on_until) would cover them."
        )
        yield covers[Cover.BOOTING], text
    if covers[Cover.OUTAGE] >= WORTH_SHARE * total:
        text = (
            f"For {_minutes(covers[Cover.OUTAGE])} in {span} every backend is out at once and"
            " none waits for you: only one more, elsewhere, would help."
        )
        yield covers[Cover.OUTAGE], text


def _noticing(outlook: Outlook, plot: Plot, minutes: float, span: str) -> str:
    times = sum(one.forced.mean for one in outlook.services)
    each_s = minutes * MINUTE_S / times if times else 0.0
    slowest = max(
        (plot.config.backends[one.name] for one in outlook.backends if one.served and one.plays),
        key=lambda spec: spec.health.interval_s,
    )
    return (
        f"Noticing deaths makes {_minutes(minutes)} in {span}, {spoken(each_s)} each time;"
        f" {slowest.name} is looked at every {slowest.health.interval_s:g} s."
    )


def _human(outlook: Outlook, span: str) -> Iterator[tuple[float, str]]:
    """Say how often the human is asked; weighs as if each time cost some minutes."""
    asked, asleep = outlook.asked.mean, outlook.asked_asleep.mean
    if asked >= 1.0:
        text = f"You would be asked to start something about {asked:.0f} times in {span}"
        text += f", {asleep:.0f} of them in your sleep" if asleep >= 1.0 else ""
        yield 5 * asked, f"{text}: most often {_most_asked(outlook.backends)}."


def _mortal(outlook: Outlook, plot: Plot, span: str) -> Iterator[tuple[float, str]]:
    """Say who dies most, and of what."""
    mortal = max(outlook.backends, key=lambda one: one.deaths.mean)
    if mortal.deaths.mean < 1.0:
        return
    why = max(mortal.ends, key=lambda end: mortal.ends[end])
    habits = plot.habits[mortal.name]
    limit = f" of {spoken(habits.session_s)}" if habits.session_s else ""
    because = {
        End.FAILED: "mostly by failing",
        End.SESSION: f"mostly at its session's limit{limit}",
        End.QUOTA: "mostly with its quota spent",
    }
    text = f"{mortal.name} dies about {mortal.deaths.mean:.0f} times in {span}"
    yield 0.0, f"{text}, {because[why]}; it serves {_percent(mortal.served)} of the time."


# ── words ───────────────────────────────────────────────────────────────────────────────────────


def _of(outlook: Outlook, word: str = "of") -> str:
    """Name the service that nearly all of the uncovered time is of, where there are several."""
    total = sum(one.uncovered_min.mean for one in outlook.services)
    worst = max(outlook.services, key=lambda one: one.uncovered_min.mean)
    alone = len(outlook.services) == 1 or worst.uncovered_min.mean < NEARLY * total
    return "" if alone else f" {word} {worst.name}"


def _waiting(outlook: Outlook) -> list[str]:
    """Name those that a human has to start while nobody serves, the most missed first."""
    missed: dict[str, float] = {}
    for service in outlook.services:
        for name, minutes in service.missing_min.items():
            missed[name] = missed.get(name, 0.0) + minutes
    worth = max(missed.values(), default=0.0) / 2
    return sorted((name for name in missed if missed[name] >= worth), key=lambda n: -missed[n])


def _most_asked(backends: Sequence[BackendOutlook]) -> str:
    return max(backends, key=lambda one: one.asked).name


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _have(names: Sequence[str]) -> str:
    return {1: "has", 2: "have both"}.get(len(names), "have all")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _minutes(minutes: float) -> str:
    return spoken(minutes * MINUTE_S)
