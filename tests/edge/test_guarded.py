"""The client for addresses that came with a registration: it reaches nothing but the public internet.

127.0.0.2 plays a public address here; 127.0.0.1 and ::1 are what they are.
"""

import asyncio
import socket

import pytest

from orchestrator.edge.http import AioHttp, no_metadata, public_only
from orchestrator.errors import Unreachable
from tests.edge.test_http import OK, Origin, answering, once

PUBLIC = "127.0.0.2"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
DISGUISES = (
    "127.0.0.1",
    "localhost",
    "127.1",
    "0x7f.1",
    "0177.0.0.1",
    "2130706433",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::1]",
    "metadata.google.internal",
    "rebound.example.org",
)


def allow(host, address):
    return address == PUBLIC or public_only(host, address)


class Lying(asyncio.SelectorEventLoop):
    """Looks names up in a table: what one answers the first time, the second time, and so on."""

    def __init__(self, names):
        super().__init__()
        self.names = {name: list(answers) for name, answers in names.items()}
        self.asked = []

    async def getaddrinfo(self, host, port, **keys):
        if host not in self.names:
            return await super().getaddrinfo(host, port, **keys)
        self.asked.append(host)
        answers = self.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        places = {a: (a, port, 0, 0) if ":" in a else (a, port) for a in found}
        return [(kinds[":" in a], socket.SOCK_STREAM, 6, "", places[a]) for a in found]


def run(coroutine, **names):
    looked_up = {name.replace("_", "."): answers for name, answers in names.items()}
    with asyncio.Runner(loop_factory=lambda: Lying(looked_up)) as runner:
        return runner.run(coroutine)


def forget_names(http):
    """Do what a minute does to the client's memory of names."""
    for session in (http._session, http._fresh):
        session.connector.clear_dns_cache()


def test_a_metadata_server_on_this_machine_sees_no_connection_in_any_disguise():
    async def main():
        async with (
            Origin(answering(OK)) as metadata,
            Origin(answering(OK), "::1") as other,
            AioHttp(allow=public_only) as http,
        ):
            for host in DISGUISES:
                for origin in (metadata, other):
                    with pytest.raises(Unreachable):
                        await http.request("GET", f"http://{host}:{origin.port}/", timeout_s=5)
                    with pytest.raises(Unreachable):
                        await http.connect(host.strip("[]"), origin.port, timeout_s=5)
            async with AioHttp() as plain:  # a connection that was made before this one would show
                for origin in (metadata, other):
                    assert (await plain.request("GET", origin.url, timeout_s=5)).body == b"ok"
            return metadata.connections, other.connections

    names = {"metadata_google_internal": [["127.0.0.1"]], "rebound_example_org": [["127.0.0.1"]]}
    assert run(main(), **names) == (1, 1)


def test_a_name_that_turns_to_this_machine_is_not_followed_there():
    async def main():
        async with Origin(answering(CLOSING), PUBLIC) as good, AioHttp(allow=allow) as http:
            url = f"http://rebound.example.org:{good.port}/"
            assert (await http.request("GET", url, timeout_s=5)).body == b"ok"
            forget_names(http)
            with pytest.raises(Unreachable, match=r"address 127\.0\.0\.1 is not allowed"):
                await http.request("GET", url, timeout_s=5)
            return good.connections, asyncio.get_running_loop().asked

    connections, asked = run(main(), rebound_example_org=[[PUBLIC], ["127.0.0.1"]])
    assert connections == 1
    assert len(asked) == 2  # it was looked up anew, and the new answer was looked at


def test_a_tcp_check_follows_no_such_name_either():
    async def main():
        async with Origin(answering(OK), PUBLIC) as good, AioHttp(allow=allow) as http:
            await http.connect("rebound.example.org", good.port, timeout_s=5)
            with pytest.raises(Unreachable, match="not allowed"):
                await http.connect("rebound.example.org", good.port, timeout_s=5)

    run(main(), rebound_example_org=[[PUBLIC], ["127.0.0.1"]])


def test_each_new_connection_is_asked_about_and_an_open_one_is_not():
    seen = []

    def watched(host, address):
        seen.append((host, address))
        return allow(host, address)

    async def main(raw):
        async with Origin(answering(raw), PUBLIC) as origin, AioHttp(allow=watched) as http:
            for _ in range(3):
                await http.request("GET", f"http://a.example.org:{origin.port}/", timeout_s=5)

    for raw, connections in ((OK, 1), (CLOSING, 3)):
        seen.clear()
        run(main(raw), a_example_org=[[PUBLIC]])
        assert seen == [("a.example.org", PUBLIC)] * connections


def test_the_retry_after_a_stale_connection_is_asked_about_too():
    async def main():
        async with Origin(once(OK), PUBLIC) as good, AioHttp(allow=allow) as http:
            url = f"http://rebound.example.org:{good.port}/"
            assert (await http.request("GET", url, timeout_s=5)).body == b"ok"
            forget_names(http)
            with pytest.raises(Unreachable, match="not allowed"):
                await http.request("GET", url, timeout_s=5)

    run(main(), rebound_example_org=[[PUBLIC], ["127.0.0.1"]])


def test_of_several_addresses_only_those_that_are_public_are_tried():
    async def main():
        async with Origin(answering(OK), PUBLIC) as good, AioHttp(allow=allow) as http:
            url = f"http://a.example.org:{good.port}/"
            return (await http.request("GET", url, timeout_s=5)).body

    assert run(main(), a_example_org=[["127.0.0.1", "::1", PUBLIC]]) == b"ok"


def test_a_redirect_to_this_machine_is_an_answer_and_not_a_way():
    async def main():
        async with Origin(answering(OK)) as metadata:
            raw = f"HTTP/1.1 302 Go\r\nLocation: {metadata.url}\r\nContent-Length: 0\r\n\r\n"
            async with (
                Origin(answering(raw.encode()), PUBLIC) as good,
                AioHttp(allow=allow) as http,
            ):
                got = await http.request("GET", good.url, timeout_s=5)
            return got.status, metadata.connections

    assert run(main()) == (302, 0)


def test_no_proxy_gets_between(monkeypatch):
    async def main():
        async with Origin(answering(OK)) as proxy:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            async with Origin(answering(OK), PUBLIC) as good, AioHttp(allow=allow) as http:
                assert (await http.request("GET", good.url, timeout_s=5)).body == b"ok"
                assert good.requests[0].startswith(b"GET /health ")
            return proxy.connections

    assert run(main()) == 0


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "64:ff9b::a9fe:a9fe"]
)
def test_a_backend_of_ones_own_network_is_reached_and_a_metadata_server_is_not(address):
    async def main():
        async with Origin(answering(OK)) as own, AioHttp(allow=no_metadata) as http:
            assert (await http.request("GET", own.url, timeout_s=5)).body == b"ok"
            with pytest.raises(Unreachable, match="is not allowed"):
                await http.request("GET", "http://rebound.example.org:80/", timeout_s=5)
            with pytest.raises(Unreachable, match="is not allowed"):
                await http.connect("rebound.example.org", 80, timeout_s=5)

    run(main(), rebound_example_org=[[address]])
