"""dyndns2 against a stand-in that blocks whoever repeats himself, confirmed by real DNS queries."""

import asyncio
from dataclasses import replace

import pytest

from orchestrator.core.events import DnsConfirmed
from orchestrator.core.model import DnsTrouble, Publication
from orchestrator.core.records import Place, plan
from orchestrator.core.specs import Target
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.base import DnsSettings, NotSent
from orchestrator.edge.dns.dyndns2 import STOPS, update_url
from orchestrator.errors import BadReply, NotAllowed, Throttled, Unreachable
from tests.edge.dns.world import A1, A2, Clock, Holder, resolved, running, until
from tests.standins.dyndns import PASSWORD, USER, DynDnsStandin

HOST = "home.example.net"
SIX = Target("AAAA", "2001:db8::1")
PLACE = Place(name=HOST, zone="example.net", marks=False)


def settings_for(standin, **more):
    base = DnsSettings(
        service="chat",
        provider="dyndns2",
        zone="example.net",
        name=HOST,
        token=PASSWORD,
        username=USER,
        api=standin.api,
        resolver=standin.dns,
    )
    return replace(base, **more)


def scenario(check, *wanted, **settings):
    async def run():
        async with DynDnsStandin() as standin:
            holder = Holder(*wanted)
            async with running(settings_for(standin, **settings), holder) as made:
                await check(standin, holder, made)

    asyncio.run(run())


def alone(check, **settings):
    """Only the provider, no reconciler."""

    async def run():
        async with DynDnsStandin() as standin:
            provider = open_provider(settings_for(standin, **settings))
            try:
                await check(standin, provider)
            finally:
                await provider.close()

    asyncio.run(run())


def planned(*targets, found=()):
    pub = Publication(wanted=targets, wanted_epoch=1, adopt=True)
    return replace(plan(list(found), pub, PLACE, 0.0), firm=False)


def test_an_address_is_set_once_and_confirmed_by_the_dns():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        assert await resolved(standin, HOST) == ["192.0.2.1"]
        holder.want(A2, SIX)
        made.poke()
        await until(lambda: holder.in_place)
        assert [u[1:] for u in standin.updates] == [
            ("192.0.2.1", "good 192.0.2.1"),
            ("192.0.2.2", "good 192.0.2.2"),
            ("2001:db8::1", "good 2001:db8::1"),
        ]

    scenario(check, A1)


def test_a_new_epoch_with_the_same_address_sends_nothing():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        holder.want(A1)
        made.poke()
        await until(lambda: holder.in_place and holder.pub.confirmed_epoch == 2)
        assert len(standin.updates) == 1

    scenario(check, A1)


def test_a_slow_dns_is_waited_for_and_nothing_is_sent_again():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        await resolved(standin, HOST)
        standin.lagging = True
        holder.want(A2)
        made.poke()
        await until(lambda: len(standin.updates) == 2)
        asked = len(standin.nameserver.asked)
        await until(lambda: len(standin.nameserver.asked) > asked + 6)
        assert holder.pub.confirmed == (A1,)
        standin.lagging = False
        await until(lambda: holder.in_place)
        assert len(standin.updates) == 2

    scenario(check, A1)


def test_a_lost_answer_is_not_repeated_not_even_after_a_restart():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        await resolved(standin, HOST)
        standin.lagging = standin.lost = True
        holder.want(A2)
        made.poke()
        await until(lambda: len(standin.updates) == 2)
        standin.lost = False
        async with running(settings_for(standin), holder):
            asked = len(standin.nameserver.asked)
            await until(lambda: len(standin.nameserver.asked) > asked + 6)
            standin.lagging = False
            await until(lambda: holder.in_place)
        assert [u[1] for u in standin.updates] == ["192.0.2.1", "192.0.2.2"]

    scenario(check, A1)


def test_a_lost_answer_is_not_repeated_while_the_dns_may_still_show_it():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        await resolved(standin, HOST)
        standin.lagging = standin.lost = True
        holder.want(A2)
        made.poke()
        await until(lambda: holder.pub.trouble is DnsTrouble.UNREACHABLE)
        standin.lost = False
        asked = len(standin.nameserver.asked)
        await until(lambda: len(standin.nameserver.asked) > asked + 6)
        standin.lagging = False
        await until(lambda: holder.in_place)
        assert [u[1] for u in standin.updates] == ["192.0.2.1", "192.0.2.2"]

    scenario(check, A1)


def test_after_a_restart_what_is_in_place_is_only_looked_at():
    async def check(standin, holder, made):
        await until(lambda: holder.in_place)
        seen = len(holder.events)
        async with running(settings_for(standin), holder):
            await until(lambda: len(holder.events) > seen)
        assert isinstance(holder.events[-1], DnsConfirmed)
        assert len(standin.updates) == 1

    scenario(check, A1)


@pytest.mark.parametrize("code", sorted(STOPS))
def test_an_answer_for_a_human_stops_it_until_it_is_reconfigured(code):
    async def check(standin, holder, made):
        standin.answer = code
        await until(lambda: holder.pub.trouble is DnsTrouble.REFUSED)
        assert code in holder.pub.detail
        standin.answer = ""
        asked = len(standin.nameserver.asked)
        await until(lambda: len(standin.nameserver.asked) > asked + 4)
        assert len(standin.updates) == 1

    scenario(check, A1)


@pytest.mark.parametrize("code", ["911", "dnserr"])
def test_a_broken_provider_is_left_alone_for_half_an_hour(code):
    async def check(standin, holder, made):
        standin.answer = code
        await until(lambda: holder.pub.trouble is DnsTrouble.UNREACHABLE)
        assert holder.pub.retry_at - Clock().steady() > 1790
        standin.answer = ""
        holder.want(A2)
        made.poke()
        await asyncio.sleep(0.2)
        assert len(standin.updates) == 1

    scenario(check, A1)


def test_what_stands_there_already_needs_adopting():
    async def check(standin, holder, made):
        await until(lambda: holder.pub.trouble is DnsTrouble.FOREIGN)
        assert standin.updates == []
        holder.pub = replace(holder.pub, adopt=True)
        made.poke()
        await until(lambda: holder.in_place)
        assert len(standin.updates) == 1

    async def run():
        async with DynDnsStandin() as standin:
            standin.hosts[HOST]["A"] = "198.51.100.7"
            holder = Holder(A1)
            async with running(settings_for(standin), holder) as made:
                await check(standin, holder, made)

    asyncio.run(run())


def test_an_alias_is_refused_before_anything_is_sent():
    async def check(standin, holder, made):
        await until(lambda: holder.pub.trouble is DnsTrouble.REFUSED)
        assert standin.updates == []

    scenario(check, Target("CNAME", "one.example.net"))


def test_the_provider_sends_nothing_twice_while_the_dns_lags():
    async def check(standin, provider):
        for _ in range(3):
            await provider.apply(HOST, planned(A1))
        assert len(standin.updates) == 1
        await provider.read(HOST)  # the DNS shows it: from here on somebody may change it
        await provider.apply(HOST, planned(A1))
        assert standin.updates[-1][2] == "nochg 192.0.2.1"

    alone(check)


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ("badauth", 200, NotAllowed),
        ("", 401, NotAllowed),
        ("911", 200, Throttled),
        ("", 429, Throttled),
        ("<html>login</html>", 200, BadReply),
        ("good 192.0.2.1", 500, BadReply),
        ("what", 200, BadReply),
        ("good 127.0.0.1", 200, NotAllowed),
    ],
)
def test_every_other_answer_is_an_error(answer, status, error):
    async def check(standin, provider):
        standin.answer, standin.status = answer or "x", status
        with pytest.raises(error) as caught:
            await provider.apply(HOST, planned(A1))
        assert PASSWORD not in str(caught.value)
        assert str(caught.value).isprintable()

    alone(check)


def test_a_provider_that_is_not_there_certainly_got_nothing():
    async def check(standin, provider):
        await standin._runner.cleanup()
        with pytest.raises(NotSent):
            await provider.apply(HOST, planned(A1))

    alone(check)


def test_a_connection_cut_midway_may_have_done_it():
    async def check(standin, provider):
        standin.down = True
        with pytest.raises(Unreachable) as caught:
            await provider.apply(HOST, planned(A1))
        assert not isinstance(caught.value, NotSent)

    alone(check)


def test_the_doctor_says_when_the_password_travels_in_the_clear():
    async def check(standin, provider):
        (finding,) = await provider.check_token()
        assert not finding.ok
        assert standin.updates == []

    alone(check)


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("https://members.dyndns.org", "https://members.dyndns.org/nic/update"),
        ("https://members.dyndns.org/", "https://members.dyndns.org/nic/update"),
        ("https://dyn.example.net/v3/update", "https://dyn.example.net/v3/update"),
    ],
)
def test_the_usual_path_is_added_where_none_is_given(api, url):
    assert update_url(api) == url
