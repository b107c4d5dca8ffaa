"""What the operator reads: notices and incidents in English or Portuguese.

The words of each kind stand in `phrases`, translated by gettext (`locale/`). Each kind has titles
and sentences; one whose placeholders are not all known is left out, so a missing value never
breaks a message, and an unknown kind is told plainly.

Refresh the catalogs after changing a phrase:

    pybabel extract -k N_ --no-location --omit-header --sort-output \
        -o orchestrator/edge/locale/aion.pot orchestrator/edge
    pybabel update -D aion -N -i orchestrator/edge/locale/aion.pot -d orchestrator/edge/locale
    pybabel compile -D aion -d orchestrator/edge/locale
"""

from __future__ import annotations

import gettext
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import lru_cache
from pathlib import Path

from orchestrator.core.durations import spoken
from orchestrator.core.model import Incident, Notice, NoticeKind, Severity
from orchestrator.edge.phrases import FRAMES, KINDS, SEVERITIES, Phrases

LOCALE = Path(__file__).with_name("locale")
MAX_VALUE = 300
_DURATIONS = frozenset({"gap", "wait", "lasted", "for"})
_OURS = frozenset({"subject", "name", "since", "lasted", "incident", "by"})
_MOMENTS = frozenset({"retry_at", "until", "ends_at", "latest", "gap_at"})
_NUMBER = re.compile(r"-?[0-9]{1,11}(\.[0-9]{1,9})?")  # nan and inf are words, not numbers


@dataclass(frozen=True, slots=True)
class Style:
    """How to say it: the language, the operator's time zone, and steady seconds + this = Unix."""

    language: str
    zone: tzinfo
    wall_offset_s: float = 0.0

    def moment(self, at: float, now: float) -> str:
        """Return steady time `at` as the operator's clock says it, with the date if not today."""
        when = datetime.fromtimestamp(at + self.wall_offset_s, self.zone)
        today = datetime.fromtimestamp(now + self.wall_offset_s, self.zone).date()
        return f"{when:%H:%M}" if when.date() == today else f"{when:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Text:
    """A title of one line, and the sentences that go with it, possibly none."""

    title: str
    body: str


def render(notice: Notice, style: Style) -> Text:
    """Say one notice. Never raises, whatever its topic and parameters."""
    values = _values(notice.params, style, notice.created_at)
    values.setdefault("subject", _clean(notice.subject))
    values.setdefault("name", values["subject"])
    if notice.incident:
        values.setdefault("incident", _clean(notice.incident))
    text = _describe(notice.topic, values, style)
    if notice.kind is NoticeKind.CLOSED:
        over = KINDS.get(notice.topic, Phrases()).over
        title = _first(over, values, style)
        if title:
            text = replace(text, title=title)
            kind = "over"
        else:
            kind = "closed"
        framed = _first(FRAMES[kind], values | {"title": text.title}, style)
        return Text(framed or text.title, "")
    frames = FRAMES.get(str(notice.kind), ())
    title = _first(frames, values | {"title": text.title}, style) or text.title
    if notice.kind is NoticeKind.ACKNOWLEDGED:
        return Text(title, "")
    body = text.body
    if notice.kind in {NoticeKind.REMINDER, NoticeKind.ESCALATED}:
        body = " ".join(filter(None, (body, _first(FRAMES["ack"], values, style))))
    return Text(title, body)


def incident_title(incident: Incident, style: Style) -> str:
    """Return one line saying what is wrong, for the command line and the status page."""
    values = _values(incident.params, style, incident.opened_at)
    values.setdefault("subject", _clean(incident.subject))
    values.setdefault("name", values["subject"])
    return _describe(incident.kind, values, style).title


def severity(value: Severity, language: str) -> str:
    """Return the word for how much it matters."""
    return translate(SEVERITIES[str(value)], language)


def translate(message: str, language: str, /, **values: object) -> str:
    """Return a phrase of `phrases` in `language`, its placeholders filled in."""
    known = {name: _clean(str(value)) for name, value in values.items()}
    return _fill(_catalog(language).gettext(message), known) or message


@lru_cache(maxsize=8)
def _catalog(language: str) -> gettext.NullTranslations:
    return gettext.translation("aion", LOCALE, [language], fallback=True)


def _describe(kind: str, values: Mapping[str, str], style: Style) -> Text:
    phrases = KINDS.get(kind, Phrases())
    title = _first(phrases.titles, values, style)
    if not title:
        return _plainly(kind, values)
    sentences = (_sentence(each, values, style) for each in phrases.body)
    return Text(title, " ".join(filter(None, sentences)))


def _sentence(message: str, values: Mapping[str, str], style: Style) -> str:
    text = _fill(_catalog(style.language).gettext(message), values)
    if message.startswith(("{reason}", "{detail}")):  # these are clauses; names keep their case
        text = text[:1].upper() + text[1:]
    return text.replace("..", ".") if text.endswith("..") else text


def _plainly(kind: str, values: Mapping[str, str]) -> Text:
    """Say what is not in our phrases: the kind, the subject, and whatever came with it."""
    head = _clean(kind).replace("_", " ")
    title = f"{head}: {values['subject']}" if values.get("subject") else head
    shown = {name: value for name, value in values.items() if value and name not in _OURS}
    return Text(title, "; ".join(f"{name}: {value}" for name, value in shown.items()))


def _first(messages: Iterable[str], values: Mapping[str, str], style: Style) -> str:
    for message in messages:
        filled = _fill(_catalog(style.language).gettext(message), values)
        if filled:
            return filled
    return ""


def _fill(message: str, values: Mapping[str, str]) -> str:
    """Return `message` filled in, or nothing when a placeholder has no value.

    Values are put in, never read as templates: a backend may be called `{title}`.
    """
    parts: list[str] = []
    for literal, name, _, _ in string.Formatter().parse(message):
        parts.append(literal)
        if name is not None:
            if not values.get(name):
                return ""
            parts.append(values[name])
    return "".join(parts)


def _values(params: Mapping[str, str], style: Style, now: float) -> dict[str, str]:
    values = {name: _clean(str(value)) for name, value in params.items()}
    opened = _number(values.get("since", ""))
    if opened is not None and "lasted" not in values and "lasted_s" not in values:
        values["lasted"] = f"{now - opened:.3f}"
    for name in tuple(values):
        number = _number(values[name])
        base = name.removesuffix("_s")
        if number is None:
            continue
        if base in _DURATIONS:
            values[base] = spoken(number)
        elif name in _MOMENTS:
            values[name] = style.moment(number, now)
    return values


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _clean(text: str) -> str:
    """Make a value harmless: one line, printable, bounded."""
    seen = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_VALUE])
    line = " ".join(seen.split())
    return line if len(line) <= MAX_VALUE else line[: MAX_VALUE - 1] + "…"
