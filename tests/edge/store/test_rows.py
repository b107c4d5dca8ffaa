import dataclasses
import math
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from orchestrator.core import model
from orchestrator.edge import queries, rows, tables

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12)
times = st.floats(allow_nan=False)
for plain, strategy in {
    str: texts,
    float: times,
    int: st.integers(-(2**31), 2**31 - 1),
}.items():
    st.register_type_strategy(plain, strategy)

SHAPES = {
    model.World: rows.WORLD,
    model.BackendState: rows.BACKEND,
    model.ServiceState: rows.SERVICE,
    model.Publication: rows.PUBLICATION,
    model.Incident: rows.INCIDENT,
    model.Notice: rows.NOTICE,
}
# What a restart finds anew: streaks and doubts are counted again, plans of the moment made again.
NOT_STORED = {
    model.World: {
        "started_at", "settled", "isolated_since", "online_at", "remote_ok_at", "gap_at",
        "asked_at", "controls_failed", "inbound_lost_since", "tick",
        "suspected_at", "cleared_at", "proofs",
    },
    model.BackendState: {
        "oks", "fails", "denials", "doubt", "doubt_since", "failed_at", "canary_fails",
        "canary_at", "canary_ok_at", "traffic_fail_at", "asked_at", "shown_at",
    },
    model.ServiceState: {"settled", "would", "review_at", "publication"},
    model.Publication: set(),
    model.Incident: set(),
    model.Notice: set(),
}  # fmt: skip
BESIDE = {
    "world": {"id", "instance", "written_at", "boot_id", "boot_offset"},
    "publication": {"service"},
}


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_every_value_comes_back_as_it_was_but_for_what_is_not_stored(kind):
    shape = SHAPES[kind]

    @settings(max_examples=60, deadline=None)
    @given(st.builds(kind, **{f.name: _strategy(kind, f.name) for f in dataclasses.fields(kind)}))
    def check(value):
        fresh = {
            f.name: getattr(shape.value(shape.row(value)), f.name)
            for f in dataclasses.fields(kind)
            if f.name not in shape.stored
        }
        assert shape.value(shape.row(value)) == dataclasses.replace(value, **fresh)
        for column, stored in shape.row(value).items():
            assert isinstance(stored, str | float | int | bool | None), column

    check()


def _strategy(kind, field):
    if field == "params":
        return st.dictionaries(texts, texts, max_size=3)
    return st.from_type(get_type_hints(kind)[field])


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)
def test_every_field_is_stored_or_known_not_to_be(kind):
    names = {f.name for f in dataclasses.fields(kind)}
    assert names - SHAPES[kind].stored <= NOT_STORED[kind]
    columns = {column.name for column in SHAPES[kind].table.c}
    assert columns - SHAPES[kind].stored == BESIDE.get(SHAPES[kind].table.name, set())


def test_text_that_no_database_can_hold_is_replaced_not_refused():
    state = model.BackendState("lab", reason="a\x00b\ud800c", missing=("\udfff", "é"))
    back = rows.BACKEND.value(rows.BACKEND.row(state))
    assert back.reason == "a?b?c"
    assert back.missing == ("?", "é")


def test_a_time_without_end_survives():
    pin = model.Pin("lab", until=math.inf, hard=True)
    state = model.ServiceState("chat", pin=pin, hold_until=math.inf)
    back = rows.SERVICE.value(rows.SERVICE.row(state))
    assert back == state


def test_a_row_that_makes_no_sense_is_a_value_error():
    row = rows.BACKEND.row(model.BackendState("lab"))
    for wrong in ({"health": "purple"}, {"falls": "[1,"}, {"session": '{"id": 3}'}):
        with pytest.raises(ValueError, match=r".+"):
            rows.BACKEND.value(row | wrong)


def test_no_table_is_without_a_primary_key():
    assert all(t.primary_key.columns for t in tables.Row.metadata.tables.values())


@pytest.mark.parametrize("name", sorted(tables.Row.metadata.tables))
def test_every_table_and_its_upsert_can_be_said_to_postgresql(name):
    dialect = postgresql.dialect()
    table = rows.table(name)
    assert f"CREATE TABLE {name}" in str(CreateTable(table).compile(dialect=dialect))
    said = str(queries.upserting("postgresql", table).compile(dialect=dialect))
    assert "ON CONFLICT" in said
