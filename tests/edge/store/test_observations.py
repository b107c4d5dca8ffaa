import asyncio
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.events import Entry, Turn
from orchestrator.core.model import Now, Observation, Source, Verdict
from orchestrator.edge import pruning
from orchestrator.edge.rolling import CHANGES, LATEST, Rolling, Tally
from orchestrator.edge.runners import in_thread
from orchestrator.errors import StoreError

HOUR = 3600.0
START = 500_000 * HOUR


def seen(backend="lab", verdict=Verdict.OK, detail="", latency_s=0.02, source=Source.PROBE):
    return Observation(backend, source, verdict, detail, latency_s)


def test_an_hour_of_probes_is_one_row_and_repeats_are_no_change(database, using):
    async def work(store, _saved):
        for number in range(360):
            store.observe(seen(latency_s=number / 1000), START + 10 * number)
            if number % 10 == 0:
                await store.flush()
        await store.flush(everything=True)
        history = await store.history("lab")
        (hour,) = history.hours
        assert (hour.ok, hour.timed, sum(hour.buckets)) == (360, 360, 360)
        assert (hour.latency_min_s, hour.latency_max_s) == (0.0, 0.359)
        assert hour.mean_s() == pytest.approx(0.1795)
        assert hour.quantile_s(0.5) == 0.25
        assert hour.quantile_s(1.0) == 0.359
        assert len(history.changes) == 1
        assert len(history.latest) == LATEST

    using(database, work)
    db = sqlite3.connect(database)
    assert db.execute("select count(*), sum(ok) from tally").fetchone() == (1, 360)
    assert db.execute("select count(*) from change").fetchone() == (1,)
    db.close()


def test_an_hour_goes_on_after_a_restart(database, using):
    async def half(store, _saved):
        store.observe(seen(latency_s=0.3), START + 1)
        store.observe(seen("late", Verdict.FAILED, "refused"), START + 1)
        store.observe(seen(verdict=Verdict.FAILED, detail="refused"), START + 2)

    async def rest(store, _saved):
        store.observe(seen(latency_s=0.1), START + 100)
        await store.flush(everything=True)  # "late" is not looked at before the hour was read
        store.observe(seen("late", Verdict.FAILED, "refused"), START + 200)
        await store.flush(everything=True)
        (hour,) = (await store.history("lab")).hours
        assert (hour.ok, hour.failed, hour.timed) == (2, 1, 2)
        assert (hour.latency_min_s, hour.latency_max_s) == (0.1, 0.3)
        (hour,) = (await store.history("late")).hours
        assert hour.failed == 2
        verdicts = [change.verdict for change in (await store.history("lab")).changes]
        assert verdicts == ["ok", "failed", "ok"]

    using(database, half)
    using(database, rest)


def test_flushing_from_two_places_at_once_counts_nothing_twice(database, using):
    async def before(store, _saved):
        store.observe(seen(), START + 1)

    async def at_once(store, _saved):
        store.observe(seen(), START + 2)
        await asyncio.gather(*(store.flush(everything=True) for _ in range(4)))
        (hour,) = (await store.history("lab")).hours
        assert hour.ok == 2

    using(database, before)
    using(database, at_once, run=in_thread)


def test_what_could_not_be_written_is_written_the_next_time(database, using):
    async def work(store, _saved):
        db = sqlite3.connect(database)
        db.execute("create trigger no before insert on tally begin select raise(abort, 'no'); end")
        for hour in range(3):
            store.observe(seen(), START + hour * HOUR)
            with pytest.raises(StoreError):
                await store.flush(everything=True)
        db.execute("drop trigger no")
        db.close()
        await store.flush(everything=True)

    async def read(store, _saved):
        history = await store.history("lab")
        assert [tally.ok for tally in history.hours] == [1, 1, 1]
        assert len(history.changes) == 1

    using(database, work)
    using(database, read)


def test_changes_are_a_ring_that_goes_on_after_a_restart(database, using):
    def flapping(offset):
        async def work(store, _saved):
            for number in range(CHANGES - 50):
                verdict = Verdict.FAILED if number % 2 else Verdict.OK
                store.observe(seen(verdict=verdict), START + offset + number)

        return work

    async def read(store, _saved):
        changes = (await store.history("lab")).changes
        assert len(changes) == CHANGES
        assert [c.at for c in changes] == sorted(c.at for c in changes)
        assert changes[-1].at == START + 1000 + CHANGES - 51

    using(database, flapping(0))
    using(database, flapping(1000))
    using(database, read)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(list(Verdict)),
            st.floats(0, 20),
            st.sampled_from(["probe", "flush", "fail", "restart"]),
            st.floats(0, 2 * HOUR),
        ),
        max_size=40,
    )
)
def test_tallies_add_up_whatever_is_flushed_fails_or_restarts(story):
    disk: dict[tuple[str, int], dict] = {}
    rolling, at, expected = Rolling(), START, 0

    def absorb():
        for hour in sorted(rolling.unread()):
            rolling.absorb(hour, [Tally.of(row) for (_, h), row in disk.items() if h == hour])

    def write():
        absorb()
        for tally in rolling.take(tallies=True).tallies:
            disk[tally.backend, tally.hour] = tally.row()

    for backend, verdict, latency_s, then, later in story:
        rolling.add(seen(backend, verdict, latency_s=latency_s), at)
        expected += 1
        at += later
        if then == "fail":
            absorb()
            rolling.put_back(rolling.take(tallies=True))
        elif then != "probe":
            write()
        if then == "restart":
            rolling = Rolling()
    write()
    tallies = [Tally.of(row) for row in disk.values()]
    counts = [t.ok + t.loading + t.failed + t.denied + t.busy for t in tallies]
    assert sum(counts) == expected
    assert all(sum(t.buckets) == t.timed <= t.ok for t in tallies)


def test_old_things_go_and_the_disk_gets_its_room_back(database, using):
    async def work(store, _saved):
        day = 86400.0
        for number in range(40):
            long = Entry("a", "s", "x" * 50_000)
            await store.commit(Turn(entries=(long,)), Now(START + number * day, 0.0))
            store.observe(seen(), START + number * day)
            run = await store.job_started(
                "once" if number == 0 else "daily", Now(START + number * day, 0)
            )
            await store.job_finished(run, Now(START + number * day + 1, 0))
        await store.flush(everything=True)
        before = database.stat().st_size
        await store.prune(Now(START + 120 * day, 0.0))
        assert await store.events() == []
        assert len((await store.history("lab")).hours) == 10
        assert {run.name for run in await store.job_runs(limit=100)} == {"once", "daily"}
        return before

    before = using(database, work)
    assert database.stat().st_size < before / 2
    db = sqlite3.connect(database)
    assert db.execute("pragma auto_vacuum").fetchone() == (2,)
    db.close()


def test_pruning_keeps_the_newest_when_there_are_too_many(database, using):
    async def work(store, _saved):
        entries = tuple(Entry("a", "s", str(n)) for n in range(pruning.EVENTS_MOST + 2500))
        await store.commit(Turn(entries=entries), Now(START, 0.0))
        await store.prune(Now(START + 1, 0.0))
        oldest = (await store.events(after=1, limit=1))[0]
        newest = (await store.events(limit=1))[0]
        assert int(newest.text) - int(oldest.text) == pruning.EVENTS_MOST - 1
        # numbers are never given twice, even when everything was let go of
        await store.prune(Now(START + 90 * 86400, 0.0))
        await store.commit(Turn(entries=(Entry("b", "s", "t"),)), Now(START, 0.0))
        assert (await store.events())[0].seq == newest.seq + 1

    using(database, work)
