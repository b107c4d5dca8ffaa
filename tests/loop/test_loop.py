"""The loop's promises: committed before anyone hears of it, nothing lost, nothing stops it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from orchestrator import loop as looping
from orchestrator.core.events import (
    Deliver,
    DnsConfirmed,
    DnsTroubled,
    Failover,
    Flagged,
    NoticesSent,
    Observed,
    Pause,
    Reconfigured,
    Tick,
)
from orchestrator.core.fleet import resumed
from orchestrator.core.model import DnsTrouble, Health, Now, Verdict
from orchestrator.core.specs import Target
from orchestrator.edge.queries import Audit
from orchestrator.edge.store import Store, inline
from orchestrator.errors import Overloaded, StoreError
from orchestrator.loop import Loop
from tests.loop.kit import Clock, config, opened, seen, turning, until


def served_by(loop):
    return loop.fleet.services["chat"].active


async def bring_up(loop):
    for name in loop.fleet.backends:
        await loop.committed(Observed(seen(name)))
    assert served_by(loop) == "a"


def test_a_turn_is_stored_before_anybody_hears_of_it(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            heard = []
            loop.on(Deliver, lambda effect: heard.append(("effect", store.commits)))
            loop.subscribe(lambda turn: heard.append(("turn", store.commits)))
            store.slow = asyncio.Event()
            first = asyncio.create_task(loop.committed(Observed(seen("a"))))
            await asyncio.sleep(0.05)
            assert (heard, served_by(loop), first.done()) == ([], None, False)
            store.slow.set()
            await first
            assert served_by(loop) == "a"
            assert ("turn", 1) in heard
            assert ("effect", 1) in heard
            assert all(commits == 1 for _, commits in heard)
            log = await store.events()
            assert "assigned" in [row.action for row in log]

    asyncio.run(go())


def test_when_it_cannot_be_stored_nothing_changes_and_nothing_is_done(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            done = []
            loop.on(Deliver, done.append)
            loop.subscribe(done.append)
            store.broken = True
            digested = asyncio.Event()
            loop.report(Observed(seen("a", Verdict.FAILED)), digested.set)
            await asyncio.wait_for(digested.wait(), 25)  # so the next probe is planned
            with pytest.raises(StoreError, match="went away"):
                await loop.command(Failover("chat"), Audit("k", "admin", "here"))
            assert (served_by(loop), loop.fleet.backends["a"].health, done) == ("a", Health.UP, [])
            store.broken = False
            # What is seen is seen again, and the command may be given again.
            loop.report(Observed(seen("a", Verdict.FAILED)))
            await until(lambda: served_by(loop) == "b")
            answer = await loop.command(Pause(), Audit("k", "admin", "here"))
            assert answer.problem is None

    asyncio.run(go())


def ticked(loop):
    return asyncio.create_task(loop.tick())


def test_results_are_kept_until_they_can_be_stored(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            ids = tuple(loop.fleet.outbox)
            assert ids
            store.broken = True
            loop.report(NoticesSent(ids, "hook"))
            loop.report(Flagged("alerts_down", "mail", "refused"))
            target = (Target("A", "192.0.2.1"),)
            confirmed = asyncio.create_task(loop.committed(DnsConfirmed("chat", target, 1, ("x",))))
            trouble = DnsTroubled("chat", DnsTrouble.UNREACHABLE, "timed out")
            troubled = asyncio.create_task(loop.committed(trouble))
            await until(lambda: not loop.waiting)
            ticks = ticked(loop)
            await asyncio.sleep(0.1)
            assert tuple(loop.fleet.outbox) == ids
            assert not confirmed.done()
            store.broken = False
            await until(lambda: not set(ids) & set(loop.fleet.outbox))
            assert (await confirmed).services["chat"].publication.confirmed == target
            await troubled
            assert loop.fleet.services["chat"].publication.trouble is DnsTrouble.UNREACHABLE
            assert loop.fleet.flags == {("alerts_down", "mail"): "refused"}
            ticks.cancel()
        assert not set(ids) & set(await stored_outbox(tmp_path / "aion.db"))

    asyncio.run(go())


async def stored_outbox(path):
    store = Store(f"sqlite:///{path}", inline())
    try:
        return (await store.load()).outbox
    finally:
        await store.close()


def test_time_passes_while_nothing_can_be_stored_so_nobody_seems_to_have_slept(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            clock = loop._clock
            await loop.committed(Tick(clock.boot()))
            store.broken = True
            turned_at = loop.turned_at
            for _ in range(5):
                clock.ahead_s += 4.0
                # a pause that ends must be stored, so these ticks fail
                loop.fleet.world = replace(
                    loop.fleet.world, paused_since=1.0, paused_until=clock.steady()
                )
                with pytest.raises(StoreError):
                    await loop.committed(Tick(clock.boot()))
            assert loop.turned_at > turned_at, "the watchdog is petted all the same"
            store.broken = False
            turn = await loop.committed(Tick(clock.boot()))
            assert "gap" not in [entry.action for entry in turn.entries]
            assert loop.fleet.world.gap_at is None
            assert loop.fleet.world.paused_since is None

    asyncio.run(go())


def test_a_command_is_answered_after_it_is_stored_and_applied(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            before = store.commits
            answer = await loop.command(Failover("chat"), Audit(None, "admin", "here"))
            assert "b" in answer.text
            assert served_by(loop) == "b"
            assert store.commits == before + 1
            refused = await loop.command(Failover("nobody"), Audit(None, "admin", "here"))
            assert refused.problem == "unknown"
            assert served_by(loop) == "b"

    asyncio.run(go())


@pytest.mark.parametrize("at_once", [False, True])
def test_the_same_key_gets_the_same_answer_and_is_done_once(tmp_path, at_once):
    async def go():
        async with turning(tmp_path) as (loop, _):
            await bring_up(loop)

            def give():
                return loop.command(Failover("chat"), Audit("key-1", "admin", "here"))

            if at_once:
                answers = await asyncio.gather(*(give() for _ in range(5)))
            else:
                answers = [await give() for _ in range(5)]
            assert len(set(answers)) == 1
            assert (served_by(loop), loop.fleet.services["chat"].epoch) == ("b", 2)
            refused = [
                await loop.command(Failover("x"), Audit("key-2", "admin", "here")) for _ in range(2)
            ]
            assert refused[0] == refused[1]

    asyncio.run(go())


def test_when_too_much_waits_commands_are_refused_probes_coalesce_and_results_are_taken(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            watched, digested = [], []
            loop.watch(watched.append)
            store.slow = asyncio.Event()
            loop.report(Flagged("alerts_down", "mail", "refused"))  # its commit waits
            await until(lambda: not loop.waiting)
            ids = tuple(loop.fleet.outbox)
            while loop.waiting < looping.INBOX - 1:
                loop.report(NoticesSent((), "hook"))
            loop.report(Observed(seen("a")), lambda: digested.append(1))
            assert loop.waiting == looping.INBOX
            with pytest.raises(Overloaded):
                await loop.command(Pause(), None)
            for number in range(2, 50):
                verdict = Verdict.FAILED if number == 49 else Verdict.OK
                loop.report(Observed(seen("a", verdict)), lambda n=number: digested.append(n))
            assert loop.waiting == looping.INBOX
            for _ in range(10):
                loop.report(NoticesSent(ids, "hook"))
            assert loop.waiting == looping.INBOX + 10
            store.slow.set()
            await until(lambda: not loop.waiting and served_by(loop) == "b")
            assert [(one.backend, one.verdict) for one in watched] == [("a", Verdict.FAILED)]
            assert digested == list(range(1, 50)), "everybody may plan the next look"
            assert not set(ids) & set(loop.fleet.outbox)
            assert (await loop.command(Pause(), None)).problem is None

    asyncio.run(go())


def test_a_defect_in_a_rule_or_a_callback_does_not_stop_the_loop(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, _):
            await bring_up(loop)
            digested = []
            loop.report("not an event", lambda: digested.append(1))
            with pytest.raises(StoreError, match="internal error"):
                await loop.committed("not an event")
            assert digested == [1]

            def broken(_):
                raise RuntimeError("a bug of somebody's")

            heard = []
            loop.subscribe(broken)
            loop.watch(broken)
            loop.on(Deliver, broken)
            loop.subscribe(heard.append)
            await loop.committed(Observed(seen("a", Verdict.FAILED)))
            assert served_by(loop) == "b"
            assert heard

    asyncio.run(go())


def test_whoever_waits_when_it_stops_is_told_so(tmp_path):
    async def go():
        async with opened(tmp_path / "aion.db") as store:
            clock = Clock()
            loop = Loop(resumed(config(), Now(1.0, 1.0)), clock=clock, store=store)
            running = asyncio.create_task(loop.run())
            store.broken = True
            kept = asyncio.create_task(loop.committed(DnsConfirmed("chat", (), 1)))
            await until(lambda: loop._later)
            store.broken, store.slow = False, asyncio.Event()
            under_way = asyncio.create_task(loop.command(Pause(), None))
            await until(lambda: loop._under_way is not None)
            queued = asyncio.create_task(loop.command(Pause(), None))
            await until(lambda: loop.waiting)
            running.cancel()
            for task in (kept, under_way, queued):
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, 25)
            await asyncio.wait([running])

    asyncio.run(go())


def test_what_is_seen_of_a_backend_that_is_gone_is_nobodys_business(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, _):
            await bring_up(loop)
            await loop.committed(Reconfigured(config("b")))
            assert served_by(loop) == "b"
            await loop.committed(Observed(seen("a", Verdict.FAILED)))
            assert "a" not in loop.fleet.backends

    asyncio.run(go())


def test_a_full_disk_is_an_incident_until_there_is_room_again(tmp_path):
    async def go():
        async with turning(tmp_path) as (loop, store):
            await bring_up(loop)
            await loop.committed(Tick(loop._clock.boot()))
            store._full = True
            ticks = ticked(loop)
            await until(lambda: "disk_full:database" in loop.fleet.incidents)
            store._full = False  # as `flush` finds out, with nothing committed
            await until(lambda: "disk_full:database" not in loop.fleet.incidents)
            ticks.cancel()

    asyncio.run(go())
