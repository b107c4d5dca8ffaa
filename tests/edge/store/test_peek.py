"""Reading a database that a daemon has open: no lock taken, nothing written."""

from __future__ import annotations

import pytest

from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import BackendState, Health, Now, Observation, Source, Verdict
from orchestrator.edge.peek import peek
from orchestrator.errors import StoreError, StoreTooNew

START = 1_763_700_000.0
HOUR = 3600.0


def health(new: str, name: str = "colab") -> Turn:
    entry = Entry("health", name, f"{name} is {new}", {"old": "", "new": new})
    return Turn(entries=(entry,), durable=True)


async def week(store, _saved) -> None:
    """Up, down for ten minutes a day later, warming on the way, and down again at the end."""
    happened = [
        (0.0, "up"),
        (24 * HOUR, "down"),
        (24 * HOUR + 500, "warming"),
        (24 * HOUR + 600, "up"),
        (40 * HOUR, "degraded"),
        (48 * HOUR, "down"),
    ]
    for after_s, new in happened:
        await store.commit(health(new), Now(START + after_s, START + after_s))
    for hour in range(49):
        at = START + hour * HOUR
        store.observe(Observation("colab", Source.PROBE, Verdict.OK), at)
        await store.flush(everything=True)
    state = BackendState("colab", health=Health.DOWN, falls=(START + 48 * HOUR,))
    turn = Turn(backends={"colab": state}, durable=True)
    await store.commit(turn, Now(START + 48 * HOUR, START + 48 * HOUR))


def test_there_is_nothing_to_see_where_no_daemon_ever_ran(database):
    assert peek(f"sqlite:///{database}") is None
    assert not database.parent.exists()


def test_outages_are_read_while_the_daemon_holds_its_lock(database, using):
    async def work(store, saved):
        await week(store, saved)
        return peek(f"sqlite:///{database}")

    seen = using(database, work)
    outages = seen.outages["colab"]
    assert outages.hours == 49
    day = START + 24 * HOUR
    assert outages.falls == [(day, day + 600), (START + 48 * HOUR, None)]
    assert seen.saved.backends["colab"].health is Health.DOWN


def test_one_that_was_never_seen_up_has_not_fallen(database, using):
    async def work(store, _saved):
        for after_s, new in ((0, "down"), (60, "up"), (70, "warming"), (80, "down"), (90, "down")):
            await store.commit(health(new, "lab"), Now(START + after_s, START + after_s))
        return peek(f"sqlite:///{database}")

    assert using(database, work).outages["lab"].falls == [(START + 80, None)]


def test_a_peek_changes_nothing_and_the_daemon_goes_on(database, using):
    using(database, week)
    before = {path.name: path.read_bytes() for path in database.parent.iterdir() if path.is_file()}
    assert peek(f"sqlite:///{database}").saved.written_at == START + 48 * HOUR
    after = {path.name: path.read_bytes() for path in database.parent.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before
    assert {path.removeprefix(database.name) for path in after.keys() - before.keys()} <= {
        "-wal",
        "-shm",
    }
    assert using(database, lambda _store, saved: _given(saved)).written_at == START + 48 * HOUR


async def _given(value):
    return value


def test_a_strangers_or_a_newer_database_is_refused_in_one_line(database, using):
    database.parent.mkdir()
    database.write_text("this is no database, and long enough to be read as a header of one" * 20)
    with pytest.raises(StoreError, match="is not a SQLite database"):
        peek(f"sqlite:///{database}")
    database.unlink()

    async def newer(store, _saved):
        from sqlalchemy import text

        await store._do(lambda c: c.execute(text("update alembic_version set version_num='9999'")))

    using(database, newer)
    with pytest.raises(StoreTooNew):
        peek(f"sqlite:///{database}")
