"""What a name says, by real queries: UDP first, TCP when it is cut short, never a guess."""

import asyncio

import pytest

from orchestrator.core.specs import Target
from orchestrator.edge.dns.lookup import lookup
from orchestrator.errors import Unreachable
from tests.standins.nameserver import NameServer

ROWS = {
    "two.example.net": [("A", "192.0.2.1", 60), ("AAAA", "2001:db8::1", 60)],
    "alias.example.net": [("CNAME", "two.example.net", 60)],
    "empty.example.net": [("TXT", "hello", 60)],
    "many.example.net": [("A", f"192.0.2.{n}", 60) for n in range(1, 60)],
}


def asked(check):
    async def run():
        server = NameServer(ROWS.get)
        await server.start()
        try:
            await check(server)
        finally:
            await server.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("two.example.net", {Target("A", "192.0.2.1"), Target("AAAA", "2001:db8::1")}),
        ("alias.example.net", {Target("CNAME", "two.example.net")}),
        ("empty.example.net", set()),
        ("nobody.example.net", set()),
        ("TWO.example.net.", {Target("A", "192.0.2.1"), Target("AAAA", "2001:db8::1")}),
    ],
)
def test_a_name_says_what_it_holds(name, said):
    async def check(server):
        assert set(await lookup(name, resolver=server.address)) == said

    asked(check)


def test_an_answer_cut_short_is_asked_again_by_tcp():
    async def check(server):
        found = await lookup("many.example.net", resolver=server.address)
        assert len(found) == 59
        assert {how for how, _, _ in server.asked} == {"udp", "tcp"}

    asked(check)


@pytest.mark.parametrize("fault", ["failing", "silent"])
def test_a_server_that_fails_is_never_an_empty_name(fault):
    async def check(server):
        setattr(server, fault, True)
        with pytest.raises(Unreachable) as caught:
            await lookup("two.example.net", resolver=server.address, timeout_s=0.4)
        assert str(caught.value).isprintable()

    asked(check)


@pytest.mark.parametrize("resolver", ["nowhere.invalid", "127.0.0.1:x", "not an address:53"])
def test_a_resolver_that_is_no_address_is_said_so(resolver):
    with pytest.raises(Unreachable):
        asyncio.run(lookup("two.example.net", resolver=resolver, timeout_s=0.5))


@pytest.mark.parametrize("name", ["a..b", "x" * 70 + ".example.net"])
def test_a_name_that_cannot_be_asked_for_is_an_error_of_ours(name):
    async def check(server):
        with pytest.raises(Unreachable):
            await lookup(name, resolver=server.address)

    asked(check)
