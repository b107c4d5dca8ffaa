import gettext
import string
from dataclasses import replace
from datetime import UTC
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.durations import spoken
from orchestrator.core.model import Incident, Notice, NoticeKind, Severity
from orchestrator.edge import phrases
from orchestrator.edge.phrases import KINDS
from orchestrator.edge.texts import LOCALE, Style, incident_title, render, severity

EN, PT = Style("en", UTC), Style("pt", UTC)
PO = LOCALE / "pt/LC_MESSAGES/aion.po"


def _marked() -> set[str]:
    found = extract_from_file("python", str(Path(phrases.__file__)), keywords={"N_": None})
    return {message for _, message, _, _ in found}


def _names(message: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(message) if name is not None}


def _notice(kind: NoticeKind = NoticeKind.OPENED, topic: str = "backend_down", **params: str):
    return Notice("n1", kind, topic, "colab", Severity.WARNING, 0.0, "i1", params)


def test_every_phrase_is_translated_with_the_same_placeholders():
    catalog = {m.id: m for m in read_po(BytesIO(PO.read_bytes()), locale="pt") if m.id}
    assert set(catalog) == _marked()
    for message in catalog.values():
        assert message.string, message.id
        assert not message.fuzzy
        assert _names(message.string) == _names(message.id), message.id


def test_the_template_catalog_holds_every_phrase():
    pot = read_po(BytesIO((LOCALE / "aion.pot").read_bytes()))
    assert {message.id for message in pot if message.id} == _marked()


def test_the_compiled_catalog_is_compiled_from_its_source():
    fresh = BytesIO()
    write_mo(fresh, read_po(BytesIO(PO.read_bytes()), locale="pt"))
    fresh.seek(0)
    now = gettext.GNUTranslations(fresh)
    with PO.with_suffix(".mo").open("rb") as file:
        stored = gettext.GNUTranslations(file)
    for message in _marked():
        assert stored.gettext(message) == now.gettext(message)


def test_a_fall_is_told_in_english_and_portuguese():
    notice = _notice(backend="colab", reason="connection refused", service="chat")
    text = render(notice, EN)
    assert text.title == "colab is down"
    assert text.body == "Connection refused. It served chat."
    assert render(notice, PT).title == "colab está em baixo"
    assert severity(Severity.CRITICAL, "pt") == "Crítico"


def test_a_sentence_whose_value_is_missing_is_left_out():
    assert render(_notice(backend="colab", reason="timed out"), EN).body == "Timed out."


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (NoticeKind.REMINDER, "Still, for 2 h: colab is down"),
        (NoticeKind.ESCALATED, "Nobody has answered, for 2 h: colab is down"),
        (NoticeKind.ACKNOWLEDGED, "ana is on it: colab is down"),
        (NoticeKind.CLOSED, "colab is up again, after 2 h"),
    ],
)
def test_one_thread_reads_from_opened_to_closed(kind, title):
    told = _notice(kind, backend="colab", reason="timed out", lasted_s="7200", by="ana")
    assert render(told, EN).title == title
    since = _notice(kind, backend="colab", reason="timed out", since="-7200", by="ana")
    assert render(since, EN).title == title


def test_how_long_it_lasted_is_said_in_words_however_odd_the_fraction():
    told = _notice(NoticeKind.CLOSED, backend="colab", reason="x", since="-7200")
    told = replace(told, created_at=0.3148913383484)
    assert render(told, EN).title == "colab is up again, after 2 h"


def test_times_are_said_by_the_operators_clock():
    style = Style("en", ZoneInfo("Europe/Lisbon"), wall_offset_s=1_783_000_000.0)
    notice = _notice(topic="service_down", service="chat", reason="x", retry_at="3600")
    assert "The next hope is at 15:46." in render(notice, style).body


def test_every_kind_of_the_core_has_words():
    for kind in KINDS:
        text = render(replace(_notice(backend="b"), topic=kind), EN)
        assert text.title


def test_a_name_that_fails_from_outside_is_called_by_its_name():
    notice = replace(_notice(topic="name_unreachable", detail="x"), subject="ai.example.org")
    assert render(notice, EN).title == "ai.example.org does not answer from outside"


def test_an_unknown_kind_is_told_plainly():
    text = render(_notice(topic="weird_thing", detail="x is y"), EN)
    assert text.title == "weird thing: colab"
    assert "detail: x is y" in text.body


@settings(deadline=None)
@given(
    topic=st.sampled_from([*KINDS, "nobody_knows", ""]),
    kind=st.sampled_from(NoticeKind),
    params=st.dictionaries(
        st.sampled_from(
            ["backend", "service", "reason", "title", "gap", "until", "retry_at", "lasted_s", "by"]
        ),
        st.one_of(
            st.text(max_size=40),
            st.sampled_from(["{title}", "{0}", "{", "nan", "1e999", "99999999999", "x" * 9000]),
        ),
    ),
    style=st.sampled_from([EN, PT, Style("xx", UTC)]),
)
def test_rendering_never_raises_and_is_one_printable_bounded_line(topic, kind, params, style):
    notice = Notice("n", kind, topic, "s", Severity.INFO, 0.0, None, params)
    text = render(notice, style)
    assert len(text.title) < 1500
    assert text.title.isprintable()
    assert text.body.isprintable()
    incident_title(Incident("i", "k", topic, "s", Severity.INFO, 0.0, params), style)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (720, "12 min"), (7200, "2 h"), (5400, "1 h 30 min"),
     (90000, "25 h"), (259200, "3 d"), (262800, "3 d 1 h"), (-5, "0 s")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds, said):
    assert spoken(seconds) == said
