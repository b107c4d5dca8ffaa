import asyncio
import sqlite3
import threading
from dataclasses import replace

import pytest

from orchestrator.core.events import Answer, Entry, Turn
from orchestrator.core.model import (
    BackendState,
    Health,
    Incident,
    Notice,
    NoticeKind,
    Now,
    Observation,
    Publication,
    ServiceState,
    Severity,
    Source,
    Verdict,
    World,
)
from orchestrator.core.specs import Target
from orchestrator.edge.clock import Anchor
from orchestrator.edge.store import Audit, Store, in_thread, inline
from orchestrator.errors import StoreError

NOW = Now(at=1_800_000_000.0, wall=1_800_000_001.5)
TARGET = Target("CNAME", "lab.example.org")


def incident(number: int, **changes) -> Incident:
    key = f"backend_down:lab{number}"
    return replace(
        Incident(f"i{number}", key, "backend_down", f"lab{number}", Severity.WARNING, NOW.at),
        **changes,
    )


def notice(number: int, **changes) -> Notice:
    made = Notice(
        f"n{number}", NoticeKind.OPENED, "backend_down", "lab", Severity.CRITICAL, NOW.at + number
    )
    return replace(made, **changes)


def test_a_new_database_holds_nothing_and_names_itself_once(database, using, runner):
    async def empty(store, saved):
        assert (saved.backends, saved.services, saved.incidents, saved.outbox) == ({}, {}, {}, {})
        assert saved.world == World()
        return saved.instance

    first = using(database, empty, run=runner)
    assert first
    assert using(database, empty, run=runner, instance="another") == first


def test_what_a_turn_changed_is_there_after_a_restart(database, using, runner):
    service = ServiceState(
        "chat", active="lab", since=NOW.at, epoch=7, reason="lab is first",
        publication=Publication(wanted=(TARGET,), wanted_epoch=7),
    )  # fmt: skip
    backend = BackendState("lab", health=Health.DOWN, falls=(1.0, 2.0), drained=True, fails=3)
    turn = Turn(
        backends={"lab": backend},
        services={"chat": service},
        incidents={"backend_down:lab1": incident(1, params={"why": "é"})},
        notices={"n1": notice(1, params={"a": "b"})},
        world=World(paused_until=NOW.at + 60, paused_by="ann", incident_seq=4),
        durable=True,
    )

    async def write(store, _saved):
        await store.commit(turn, NOW)

    async def read(_store, saved):
        assert saved.services == {"chat": service}
        assert saved.backends == {"lab": replace(backend, fails=0)}
        assert saved.incidents == turn.incidents
        assert saved.outbox == turn.notices
        assert saved.world == turn.world
        assert saved.written_at == NOW.at

    using(database, write, run=runner)
    using(database, read, run=runner)


def test_what_is_over_or_gone_is_not_loaded_again(database, using):
    async def work(store, _saved):
        await store.commit(
            Turn(
                backends={"a": BackendState("a"), "b": BackendState("b")},
                services={"s": ServiceState("s"), "t": ServiceState("t")},
                incidents={"k": incident(1), "l": incident(2)},
                notices={"n1": notice(1), "n2": notice(2)},
            ),
            NOW,
        )
        later = Turn(
            backends={"a": None},
            services={"s": None},
            incidents={"k": incident(1, closed_at=NOW.at)},
            notices={"n1": notice(1, sent_at=NOW.at, channel="mail")},
        )
        await store.commit(later, NOW)
        assert [one.id for one in await store.closed_incidents()] == ["i1"]
        assert await store.incident("i1") == incident(1, closed_at=NOW.at)
        assert await store.incident("nobody") is None

    async def read(_store, saved):
        assert set(saved.backends) == {"b"}
        assert set(saved.services) == {"t"}
        assert list(saved.incidents) == ["backend_down:lab2"]
        assert list(saved.outbox) == ["n2"]

    using(database, work)
    using(database, read)


def test_the_outbox_comes_back_oldest_first(database, using):
    async def write(store, _saved):
        for number in (3, 1, 2):
            await store.commit(Turn(notices={f"n{number}": notice(number)}), NOW)

    async def read(_store, saved):
        assert list(saved.outbox) == ["n1", "n2", "n3"]

    using(database, write)
    using(database, read)


def test_a_command_is_answered_again_by_its_key(database, using):
    async def write(store, _saved):
        assert await store.answered("k1") is None
        turn = Turn(answer=Answer("moved to lab"), entries=(Entry("moved", "chat", "chat: lab"),))
        await store.commit(turn, NOW, Audit("k1", "ann", "192.0.2.1"))
        await store.commit(Turn(answer=Answer("no", "conflict")), NOW, Audit(None, "ann", ""))
        await store.commit(Turn(answer=Answer("no", "conflict")), NOW, Audit(None, "ann", ""))

    async def read(store, _saved):
        assert await store.answered("k1") == Answer("moved to lab")
        assert (await store.events())[0].who == "ann"

    using(database, write)
    using(database, read)


def test_a_turn_that_cannot_be_written_whole_is_not_written_at_all(database, using):
    async def work(store, _saved):
        await store.commit(Turn(), NOW, Audit("k1", "ann", ""))
        again = Turn(backends={"lab": BackendState("lab")}, entries=(Entry("a", "b", "c"),))
        with pytest.raises(StoreError) as caught:
            await store.commit(again, NOW, Audit("k1", "ann", ""))
        assert "\n" not in str(caught.value)
        assert await store.events() == []
        await store.commit(Turn(entries=(Entry("after", "b", "c"),)), NOW)

    async def read(store, saved):
        assert saved.backends == {}
        assert [event.action for event in await store.events()] == ["after"]

    using(database, work)
    using(database, read)


def test_the_event_log_is_read_from_its_end_or_onwards(database, using):
    async def work(store, _saved):
        for number in range(10):
            subject = "chat" if number % 2 else "lab"
            entry = Entry(f"a{number}", subject, f"line {number}", {"n": str(number)})
            await store.commit(Turn(entries=(entry,)), Now(NOW.at + number, NOW.wall))
        assert [e.action for e in await store.events(limit=3)] == ["a7", "a8", "a9"]
        assert [e.seq for e in await store.events(after=4, limit=3)] == [5, 6, 7]
        assert [e.action for e in await store.events(limit=2, subject="chat")] == ["a7", "a9"]
        last = (await store.events(limit=1))[0]
        assert (last.text, dict(last.data), last.at) == ("line 9", {"n": "9"}, NOW.at + 9)
        assert await store.events(after=last.seq) == []

    using(database, work)


def test_others_can_read_the_log_while_the_daemon_writes(database, using):
    async def work(store, _saved):
        await store.commit(Turn(entries=(Entry("one", "s", "t"),)), NOW)
        reader = sqlite3.connect(database, isolation_level=None, timeout=0)
        reader.execute("begin")
        count = "select count(*) from event"
        assert reader.execute(count).fetchone() == (1,)
        await store.commit(Turn(entries=(Entry("two", "s", "t"),)), NOW)
        assert reader.execute(count).fetchone() == (1,)  # its own snapshot, in nobody's way
        reader.execute("commit")
        assert reader.execute(count).fetchone() == (2,)
        reader.close()

    using(database, work)


def test_runs_of_jobs_are_known_from_before_they_start(database, using):
    async def start(store, _saved):
        run = await store.job_started("backup", NOW)
        await store.job_finished(run, Now(NOW.at + 5, NOW.wall), "no room")
        await store.job_started("backup", Now(NOW.at + 9, NOW.wall))
        await store.job_started("export", Now(NOW.at + 9, NOW.wall))

    async def read(store, _saved):
        crashed, failed = await store.job_runs("backup")
        assert crashed.finished_at is None
        assert (failed.finished_at, failed.problem) == (NOW.at + 5, "no room")
        assert [run.name for run in await store.job_runs(limit=1)] == ["export"]

    using(database, start)
    using(database, read)


def test_what_is_open_or_unsent_is_kept_however_old_it_is(database, using):
    day = 86400.0

    async def work(store, _saved):
        ended = incident(2, closed_at=NOW.at + day)
        told = notice(2, sent_at=NOW.at + day)
        turn = Turn(
            incidents={one.key: one for one in (incident(1), ended)},
            notices={one.id: one for one in (notice(1), told)},
        )
        await store.commit(turn, NOW)
        await store.prune(Now(NOW.at + 2 * day, NOW.wall))
        assert await store.incident("i2") == ended, "what is over is kept for a while"
        await store.prune(Now(NOW.at + 3650 * day, NOW.wall))
        assert await store.incident("i2") is None

    async def read(_store, saved):
        assert list(saved.incidents.values()) == [incident(1)]
        assert saved.outbox == {"n1": notice(1)}

    using(database, work)
    using(database, read)
    with sqlite3.connect(database) as db:
        assert db.execute("select id from notice").fetchall() == [("n1",)]
    db.close()


def test_a_transition_is_on_the_disk_before_its_commit_returns(database, using, runner):
    """SQLite's FULL (2): a power cut right after it costs nothing. Statistics may be written as
    NORMAL (1), and leave the transitions after them as they were."""

    async def synchronous(store):
        return await store._do(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar())

    async def work(store, _saved):
        assert await synchronous(store) == 2
        store.observe(Observation("lab", Source.PROBE, Verdict.OK), NOW.at)
        await store.flush(everything=True)
        assert await synchronous(store) == 2

    using(database, work, runner)


def test_written_at_only_grows(database, using):
    async def work(store, _saved):
        await store.commit(Turn(), NOW)
        await store.commit(Turn(), Now(NOW.at - 500, NOW.wall))

    async def read(_store, saved):
        assert saved.written_at == NOW.at

    using(database, work)
    using(database, read)


def anchor_of(using, database):
    async def read(_store, saved):
        return saved.anchor

    return using(database, read)


async def committed(store):
    await store.commit(Turn(), NOW)


async def flushed(store):
    store.observe(Observation("lab", Source.PROBE, Verdict.OK), NOW.at)
    await store.flush()


async def ran_a_job(store):
    await store.job_started("backup", NOW)


@pytest.mark.parametrize("write", [committed, flushed, ran_a_job])
def test_the_anchor_is_written_with_whatever_is_written_next(database, using, runner, write):
    async def first(store, saved):
        assert saved.anchor is None
        store.anchor = Anchor("monday", 1.7e9)
        await write(store)

    async def second(store, saved):
        assert saved.anchor == Anchor("monday", 1.7e9)
        await write(store)  # told nothing new, it keeps what it has

    async def third(store, saved):
        assert saved.anchor == Anchor("monday", 1.7e9)
        store.anchor = Anchor("tuesday", 1.6e9)
        await write(store)
        store.anchor = Anchor("", 1.5e9)
        await write(store)

    using(database, first, runner)
    using(database, second, runner)
    using(database, third, runner)
    assert anchor_of(using, database) == Anchor("", 1.5e9)


def test_an_anchor_alone_writes_nothing(database, using):
    async def told(store, _saved):
        store.anchor = Anchor("monday", 1.7e9)

    using(database, told)
    assert anchor_of(using, database) is None


def test_an_anchor_that_could_not_be_written_comes_with_the_next_write(database, using):
    async def work(store, _saved):
        await store.commit(Turn(), NOW, Audit("k1", "ann", ""))
        store.anchor = Anchor("monday", 1.7e9)
        with pytest.raises(StoreError):
            await store.commit(Turn(), NOW, Audit("k1", "ann", ""))  # the key is taken
        await store.commit(Turn(), NOW)

    using(database, work)
    assert anchor_of(using, database) == Anchor("monday", 1.7e9)


def test_inline_makes_no_thread_and_in_thread_makes_one(database, tmp_path):
    async def threads(path, run) -> int:
        before = threading.active_count()
        store = Store(f"sqlite:///{path}", run, create=True)
        await store.load()
        await store.commit(Turn(), NOW)
        extra = threading.active_count() - before
        await store.close()
        assert threading.active_count() == before
        return extra

    assert asyncio.run(threads(database, inline())) == 0
    assert asyncio.run(threads(tmp_path / "b.db", in_thread())) == 1


def test_a_cancelled_commit_is_over_when_its_caller_is(database):
    async def go():
        store = Store(f"sqlite:///{database}", in_thread(), create=True)
        await store.load()
        task = asyncio.create_task(store.commit(Turn(entries=(Entry("a", "b", "c"),)), NOW))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found = len(sqlite3.connect(database).execute("select * from event").fetchall())
        assert found == len(await store.events()) == 1
        await store.close()

    asyncio.run(go())


def test_a_copy_of_the_live_database_is_a_whole_one(database, using, tmp_path):
    target = tmp_path / "copy.db"

    async def work(store, _saved):
        await store.commit(Turn(backends={"lab": BackendState("lab")}), NOW)
        await store.copy_to(target)
        assert target.stat().st_mode & 0o777 == 0o600
        with pytest.raises(StoreError):
            await store.copy_to(tmp_path / "no such folder" / "copy.db")

    async def read(_store, saved):
        assert set(saved.backends) == {"lab"}

    using(database, work)
    using(target, read)
    assert list(tmp_path.glob("*.part")) == []


def test_a_database_in_memory_works_too(using):
    async def go():
        store = Store("sqlite://", inline(), create=True, instance="sim")
        assert (await store.load()).instance == "sim"
        await store.commit(Turn(backends={"lab": BackendState("lab")}), NOW)
        assert not store.full
        await store.close()

    asyncio.run(go())


def test_nobody_else_can_read_the_database(database, using):
    async def work(store, _saved):
        await store.commit(Turn(), NOW)
        assert {p.stat().st_mode & 0o077 for p in database.parent.iterdir()} == {0}

    using(database, work)


def test_a_store_that_is_not_open_says_so(database):
    store = Store(f"sqlite:///{database}", inline(), create=True)
    with pytest.raises(StoreError, match="is not open"):
        asyncio.run(store.commit(Turn(), NOW))
