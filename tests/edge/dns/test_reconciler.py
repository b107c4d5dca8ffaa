"""From a decision to the name that the world resolves: real SDK, strict stand-in, real queries."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from orchestrator.core.events import DnsAttempting, DnsConfirmed, DnsTroubled
from orchestrator.core.model import DnsTrouble
from orchestrator.core.specs import Drift, Target
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.reconciler import Pace
from tests.edge.dns.world import (
    A1,
    A2,
    ALIAS,
    NAME,
    Clock,
    Holder,
    cloudflare_settings,
    reconciler,
    resolved,
    running,
    until,
)
from tests.standins.cloudflare import PROXY, CloudflareStandin, Faults


def scenario(
    check, *wanted, setup=None, pace=None, would=None, frozen=False, settle=None, **settings
):
    """Run `check(standin, holder, made)` beside a reconciler that wants `wanted`."""

    async def run():
        async with CloudflareStandin() as standin:
            holder = Holder(*wanted)
            holder.frozen = frozen
            if setup:
                setup(standin, holder)
            more = {"pace": pace} if pace else {}
            chosen = cloudflare_settings(standin, **settings)
            provider = open_provider(chosen)
            if settle is not None:
                provider.settle_s = settle
            made = running(chosen, holder, provider=provider, would=would, **more)
            async with made as at_work:
                await check(standin, holder, at_work)

    asyncio.run(run())


def contents(standin):
    return sorted(r["content"] for r in standin.held(NAME))


def test_a_failover_moves_what_the_world_resolves():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        assert await resolved(standin) == ["192.0.2.1"]
        for target, answer in ((A2, "192.0.2.2"), (ALIAS, "one.example.net"), (A1, "192.0.2.1")):
            holder.want(target)
            made.poke()
            await until(lambda: holder.in_place)
            assert await resolved(standin) == [answer]
        assert holder.pub.confirmed_epoch == 4

    scenario(check, A1)


def test_a_proxied_name_resolves_to_cloudflare_while_its_record_moves():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        holder.want(Target("CNAME", "11-22.cfargotunnel.com"))
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["11-22.cfargotunnel.com"]
        assert sorted(await resolved(standin)) == sorted(PROXY.values())

    scenario(check, A1, proxied=True)


def test_a_decision_is_on_its_way_to_cloudflare_within_200_ms():
    taken = []

    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        for n in range(20):
            loop = asyncio.get_running_loop()
            before, at = len(standin.journal), loop.time()
            holder.want(Target("A", f"192.0.2.{n + 10}"))
            made.poke()
            await until(lambda before=before: len(standin.journal) > before)
            taken.append(standin.journal[before]["at"] - at)
            await until(lambda: holder.in_place)

    scenario(check, A1, pace=Pace())
    print("decision to write, ms:", sorted(round(t * 1000, 1) for t in taken))
    assert sorted(taken)[-2] < 0.2


def test_nothing_is_written_before_the_attempt_is_committed():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        seen = []
        holder.on_attempt = lambda: seen.append(len(standin.journal))
        holder.want(A2)
        made.poke()
        await until(lambda: holder.in_place)
        assert seen == [1]
        kinds = [type(e) for e in holder.events]
        assert kinds == [DnsAttempting, DnsConfirmed] * 2

    scenario(check, A1)


def test_what_is_in_place_is_confirmed_once_after_a_start_and_never_rewritten():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        async with running(cloudflare_settings(standin), holder):
            await until(lambda: len(holder.events) == 3)
            reads = len(standin.requests)
            await until(lambda: len(standin.requests) > reads + 4)
        assert [type(e) for e in holder.events] == [DnsAttempting, DnsConfirmed, DnsConfirmed]
        assert len(standin.journal) == 1

    scenario(check, A1)


FAULTS = [
    Faults("throttle", times=1, retry_after="1"),
    Faults("unsuccessful", times=3),
    Faults("html", times=3),
    Faults("error", times=3),
    Faults("reset", times=3),
    Faults("slow", times=3, seconds=0.2),
    Faults("stale", on="read", times=4),
]


FAULTS_ON = [(fault, on) for fault in FAULTS for on in ("read", "write")]
FAULTS_ON.remove((FAULTS[-1], "write"))  # only a read is stale


@pytest.mark.parametrize(("fault", "on"), FAULTS_ON, ids=lambda v: getattr(v, "kind", v))
def test_it_converges_after_every_fault_and_says_so_meanwhile(fault, on):
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        standin.faults = replace(fault, on=on)
        holder.want(A2)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["192.0.2.2"]
        said = [e.trouble for e in holder.events if isinstance(e, DnsTroubled)]
        assert set(said) <= {DnsTrouble.UNREACHABLE}
        assert bool(said) == (fault.kind not in ("slow", "stale"))

    scenario(check, A1)


@pytest.mark.parametrize("first", [(), (A1,)])
def test_a_write_whose_answer_never_comes_is_recognised_and_not_repeated(first):
    async def check(standin, holder, made):
        if first:
            await until(lambda: holder.in_place)
        else:
            await until(lambda: standin.requests)
        before = len(standin.journal)
        standin.faults = Faults("lost", on="write", times=1)
        holder.want(ALIAS)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["one.example.net"]
        assert len(standin.journal) == before + 1

    scenario(check, *first)


def test_a_write_that_never_arrives_is_repeated():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        standin.faults = Faults("hang", on="write", times=1)
        holder.want(A2)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["192.0.2.2"]

    scenario(check, A1)


def test_failures_back_off_to_half_a_minute_and_begin_anew_after_a_success():
    async def run():
        async with CloudflareStandin() as standin:
            holder, settings = Holder(A1), cloudflare_settings(standin)
            provider = open_provider(settings)
            made = reconciler(settings, provider, holder, pace=Pace())
            standin.faults = Faults("error")
            waits = [await made.turn() for _ in range(9)]
            standin.faults = Faults()
            while not holder.in_place:
                await made.turn()
            standin.faults = Faults("error")
            waits.append(await made.turn())
            await provider.close()
            return waits

    limits = [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5]
    assert asyncio.run(run()) == [0.75 * limit for limit in limits]  # jitter: here in its middle


def test_retry_after_is_honoured_even_when_something_newer_is_wanted():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        standin.faults = Faults("throttle", retry_after="7200")
        holder.want(A2)
        made.poke()
        await until(lambda: holder.pub.trouble)
        asked = len(standin.requests)
        assert 7190 < holder.pub.retry_at - Clock().steady() <= 7200
        standin.faults = Faults()
        holder.want(ALIAS)
        made.poke()
        await asyncio.sleep(0.2)
        assert len(standin.requests) == asked
        async with running(cloudflare_settings(standin), holder):  # nor after a restart
            await asyncio.sleep(0.2)
        assert len(standin.requests) == asked

    scenario(check, A1)


def test_something_newer_wanted_midway_is_what_gets_written():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)

        def overtake():
            holder.on_attempt = None
            holder.want(ALIAS)

        holder.on_attempt = overtake
        holder.want(A2)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["one.example.net"]
        written = [row[2] for line in standin.journal for row in line["after"]]
        assert "192.0.2.2" not in written

    scenario(check, A1)


def test_while_frozen_nothing_is_read_or_written_and_afterwards_it_catches_up():
    async def check(standin, holder, made):
        await asyncio.sleep(0.1)
        assert standin.requests == []
        holder.frozen = False
        made.poke()
        await until(lambda: holder.in_place)
        holder.on_attempt = lambda: setattr(holder, "frozen", True)
        holder.want(A2)
        made.poke()
        await until(lambda: holder.frozen)
        await asyncio.sleep(0.1)
        assert contents(standin) == ["192.0.2.1"]  # frozen between the intent and the write
        holder.on_attempt, holder.frozen = None, False
        made.poke()
        await until(lambda: holder.in_place)

    scenario(check, A1, frozen=True)


def test_the_shadow_says_once_what_it_would_do_and_does_nothing():
    told = []

    async def check(standin, holder, made):
        await until(lambda: told)
        reads = len(standin.requests)
        await until(lambda: len(standin.requests) > reads + 2)
        assert told == [f"set {NAME} to A 192.0.2.1, epoch 1"]
        assert standin.journal == []
        assert holder.events == []

    scenario(check, A1, frozen=True, would=told.append)


# ── what is not ours ────────────────────────────────────────────────────────────────────────────


def test_a_record_made_by_hand_is_left_alone_until_the_operator_adopts_it():
    def setup(standin, holder):
        standin.by_hand(NAME, "CNAME", "blog.example.net")
        standin.by_hand(NAME, "TXT", '"keep me"')

    async def check(standin, holder, made):
        await until(lambda: holder.pub.trouble is DnsTrouble.FOREIGN)
        assert "CNAME blog.example.net" in holder.pub.detail
        assert standin.journal == []
        holder.pub = replace(holder.pub, adopt=True)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ['"keep me"', "192.0.2.1"]

    scenario(check, A1, setup=setup)


def edit(standin, **more):
    (record,) = standin.held(NAME)
    record.update(more)


@pytest.mark.parametrize("drift", list(Drift))
def test_one_read_that_says_otherwise_is_nobodys_change(drift):
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        holder.want(A2)
        made.poke()
        await until(lambda: holder.in_place)
        standin.faults = Faults("stale", on="read", times=1)
        await until(lambda: not standin.faults.times)
        read = len(standin.requests)
        await until(lambda: len(standin.requests) > read + 3)
        assert not [event for event in holder.events if isinstance(event, DnsTroubled)]
        assert len(standin.journal) == 2

    scenario(check, A1, settle=0.0, drift=drift)


def test_what_somebody_changed_is_respected_until_the_operator_adopts_it():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        edit(standin, content="198.51.100.9")
        await until(lambda: holder.pub.trouble is DnsTrouble.DRIFT)
        holder.want(A2)
        made.poke()
        asked = len(standin.requests)
        await until(lambda: len(standin.requests) > asked + 1)
        assert contents(standin) == ["198.51.100.9"]
        holder.pub = replace(holder.pub, adopt=True)
        made.poke()
        await until(lambda: holder.in_place)
        assert contents(standin) == ["192.0.2.2"]

    scenario(check, A1, settle=0.0)


def test_what_somebody_changed_is_put_back_three_times_a_day_at_most():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        for n in range(3):
            edit(standin, content=f"198.51.100.{n + 1}")
            await until(lambda: contents(standin) == ["192.0.2.1"])
            assert len(holder.pub.corrections) == n + 1
        edit(standin, content="198.51.100.9")
        await until(lambda: holder.pub.trouble is DnsTrouble.DRIFT)
        assert contents(standin) == ["198.51.100.9"]

    scenario(check, A1, drift=Drift.CORRECT, settle=0.0)


def test_another_instance_with_a_newer_epoch_is_respected():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        edit(standin, content="198.51.100.9", comment="aion away epoch=40")
        await until(lambda: holder.pub.trouble is DnsTrouble.NEWER)
        assert "away" in holder.pub.detail
        assert len(standin.journal) == 1
        holder.pub = replace(holder.pub, adopt=True)
        made.poke()
        await until(lambda: holder.in_place)
        assert holder.pub.confirmed_epoch == 41

    scenario(check, A1, settle=0.0, drift=Drift.CORRECT)


def test_after_a_restore_the_epoch_goes_above_the_records():
    def setup(standin, holder):
        standin.by_hand(NAME, "A", "192.0.2.50", comment="aion home epoch=17")

    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        assert holder.pub.confirmed_epoch == 18
        assert contents(standin) == ["192.0.2.1"]

    scenario(check, A1, setup=setup)


def test_an_unsafe_target_is_refused_aloud():
    async def check(standin, holder, made):
        await until(lambda: holder.pub.trouble is DnsTrouble.REFUSED)
        assert "10.0.0.5" in holder.pub.detail
        assert standin.journal == []

    scenario(check, Target("A", "10.0.0.5"))


def test_a_refused_token_is_trouble_that_ends_when_it_works_again():
    async def check(standin, holder, made):
        await until(lambda: holder.pub.trouble is DnsTrouble.REFUSED)
        standin.status = "active"
        await until(lambda: holder.in_place)

    scenario(check, A1, setup=lambda standin, _: setattr(standin, "status", "expired"))


# ── killed at any moment ────────────────────────────────────────────────────────────────────────


def test_killed_at_any_await_it_heals_at_the_next_start():
    """Cancel after every number of steps of the event loop; a fresh one must converge, cleanly."""

    async def run(steps):
        async with CloudflareStandin() as standin:
            settings = cloudflare_settings(standin)
            holder = Holder(A1)
            provider = open_provider(settings)
            first = reconciler(settings, provider, holder)
            for _ in range(8):  # in place, and warm
                if holder.in_place:
                    break
                await first.turn()
            holder.want(ALIAS)
            task = asyncio.create_task(first.run())
            for _ in range(steps):
                await asyncio.sleep(0)
            done = holder.in_place
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await provider.close()
            async with running(settings, holder):
                await until(lambda: holder.in_place)
            assert contents(standin) == ["one.example.net"]
            assert not [e for e in holder.events if isinstance(e, DnsTroubled)]
            assert len(standin.journal) <= 3
            return done

    ended = False
    steps = 1
    while not ended:
        ended = asyncio.run(run(steps))
        steps += max(1, steps // 6)
