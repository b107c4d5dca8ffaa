"""The HTTP client against real servers on loopback that do all the wrong things."""

import asyncio
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import zlib

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.edge.clock import SystemClock
from orchestrator.edge.http import AioHttp, _words
from orchestrator.errors import Unreachable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Origin:
    """A server whose connections are handled by `behave(number of the connection, reader, writer)`."""

    def __init__(self, behave, host="127.0.0.1", tls=None):
        self.behave, self.host, self.tls = behave, host, tls
        self.connections = 0
        self.requests = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.handle, self.host, 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{'https' if self.tls else 'http'}://{shown}:{self.port}/health"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def handle(self, reader, writer):
        self.connections += 1
        try:
            await self.behave(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def request(self, reader):
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        length = [
            int(line[15:])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        return await reader.readexactly(length[0]) if length else b""


def answering(raw):
    async def behave(origin, reader, writer):
        while True:
            await origin.request(reader)
            writer.write(raw)
            await writer.drain()

    return behave


def once(raw, hang=False):
    async def behave(origin, reader, writer):
        await origin.request(reader)
        writer.write(raw)
        await writer.drain()
        if hang:
            await reader.read()

    return behave


def asking(
    behave,
    *,
    host="127.0.0.1",
    tls=None,
    client=None,
    timeout_s=20.0,
    max_bytes=65536,
    url=None,
    **keys,
):
    """Ask a server that behaves so, once; returns what came, the reply or the words of the failure."""

    async def main():
        async with Origin(behave, host, tls) as origin, AioHttp(**(client or {})) as http:
            try:
                return await http.request(
                    keys.pop("method", "GET"),
                    url or origin.url,
                    timeout_s=timeout_s,
                    max_bytes=max_bytes,
                    **keys,
                )
            except Unreachable as error:
                return str(error)

    return asyncio.run(main())


def test_an_answer_comes_back_whole_with_its_headers_in_lower_case():
    raw = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nX-Two: a\r\nContent-Length: 3\r\n\r\nabc"
    got = asking(answering(raw))
    assert (got.status, got.body, got.headers["retry-after"]) == (503, b"abc", "7")
    assert all(name == name.lower() for name in got.headers)
    assert 0 < got.latency_s < 20


def test_what_is_sent_is_little_and_remembers_nothing():
    async def main():
        raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\nok"
        async with Origin(answering(raw)) as origin, AioHttp() as http:
            for _ in range(2):
                await http.request(
                    "GET", origin.url, headers={"Authorization": "Bearer k"}, timeout_s=2
                )
            await http.request("POST", origin.url, body=b"{}", timeout_s=20)
            return origin.requests

    first, second, posted = asyncio.run(main())
    assert first == second
    names = sorted(line.split(b":")[0].lower() for line in first.split(b"\r\n")[1:-2])
    assert names == [b"accept", b"accept-encoding", b"authorization", b"host", b"user-agent"]
    assert b"identity" in first
    assert b"cookie" not in posted.lower()


def test_one_connection_serves_many_requests():
    async def main():
        async with Origin(answering(OK)) as origin, AioHttp() as http:
            for _ in range(20):
                await http.request("GET", origin.url, timeout_s=20)
            return origin.connections

    assert asyncio.run(main()) == 1


def test_a_refused_connection_says_so():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"
        assert asking(answering(OK), url=url) == "connection refused"


def test_a_server_that_hangs_is_given_up_after_the_timeout():
    async def hang(origin, reader, writer):
        await reader.read()

    assert asking(hang, timeout_s=0.2) == "timed out after 0.2 s"


def test_a_server_that_drips_its_answer_is_given_up_after_the_timeout_in_all():
    async def drip(origin, reader, writer):
        await origin.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    got = asking(drip, timeout_s=2.0)  # the answer has begun by then, on a busy machine too
    assert got.startswith("timed out after 2 s, ")
    assert got.endswith("bytes into the answer")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde", "answer cut short after 5 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
            "answer cut short after 5 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100", "closed the connection without answering"),
        (b"", "closed the connection without answering"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"\x00\xff\x00\xff garbage\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "does not speak HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
            "the answer's compression is broken",
        ),
    ],
)
def test_a_broken_answer_is_one_clear_line(raw, words):
    got = asking(once(raw))
    assert isinstance(got, str), got
    assert got.startswith(words)
    assert got.isprintable()
    assert len(got) < 250


def test_a_reset_in_the_middle_is_a_failure_and_not_a_short_answer():
    async def reset(origin, reader, writer):
        await origin.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabcde")
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    assert asking(reset) in (
        "answer cut short after 5 bytes",
        "connection reset",
        "answer cut short after 0 bytes",
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_closed_while_idle_is_retried_once_on_a_new_one(method):
    async def once_each(origin, reader, writer):
        await origin.request(reader)
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # reads the next request, and goes without a word

    async def main():
        async with Origin(once_each) as origin, AioHttp() as http:
            for _ in range(3):
                got = await http.request(
                    method, origin.url, body=b"{}" if method == "POST" else None, timeout_s=2
                )
                assert got.body == b"ok"
            return origin.connections

    assert asyncio.run(main()) <= 4


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_is_to_be_done_once_is_sent_once_whatever_becomes_of_it(method):
    async def answers_the_first(origin, reader, writer):
        await origin.request(reader)
        if len(origin.requests) > 1:
            return  # took it, and goes without a word
        writer.write(OK)
        await writer.drain()
        await origin.request(reader)

    async def main():
        async with Origin(answers_the_first) as origin, AioHttp() as http:
            await http.request("GET", origin.url, timeout_s=20)
            with pytest.raises(Unreachable):
                await http.request(method, origin.url, body=b"{}", timeout_s=20, once=True)
            return [head.split()[0].decode() for head in origin.requests]

    assert asyncio.run(main()) == ["GET", method]


def test_several_stale_connections_do_not_add_up_to_a_failure():
    async def main():
        together = asyncio.Event()

        async def behave(origin, reader, writer):
            await origin.request(reader)
            if origin.connections >= 4:
                together.set()
            await together.wait()
            writer.write(OK)
            await writer.drain()
            if origin.connections <= 4:
                await reader.readuntil(b"\r\n\r\n")
                return
            await reader.read()

        async with Origin(behave) as origin, AioHttp() as http:
            await asyncio.gather(*(http.request("GET", origin.url, timeout_s=20) for _ in range(4)))
            return await http.request("GET", origin.url, timeout_s=20)

    assert asyncio.run(main()).body == b"ok"


def test_a_server_that_died_since_is_not_asked_for_ever():
    async def main():
        async def behave(origin, reader, writer):
            await origin.request(reader)
            if origin.connections == 1:
                writer.write(OK)
                await writer.drain()
                await origin.request(reader)

        async with Origin(behave) as origin, AioHttp() as http:
            await http.request("GET", origin.url, timeout_s=20)
            with pytest.raises(Unreachable, match="closed the connection without answering"):
                await http.request("GET", origin.url, timeout_s=20)
            return origin.connections

    assert asyncio.run(main()) <= 4


def test_a_giant_body_is_cut_and_its_connection_given_up():
    async def endless(origin, reader, writer):
        await origin.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        while True:
            writer.write(block)
            await writer.drain()

    got = asking(endless, max_bytes=100_000)
    assert len(got.body) == 100_000


def test_a_body_of_exactly_the_limit_is_whole():
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    assert len(asking(answering(raw), max_bytes=1000).body) == 1000
    assert len(asking(answering(raw), max_bytes=999).body) == 999


def test_a_compression_bomb_costs_no_more_than_the_limit():
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    )
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = asking(answering(head + bomb), max_bytes=50_000)
    assert got.body == bytes(50_000)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
    )  # kB; unpacked it has 300 MB


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_compressed_unasked_is_unpacked(encoding):
    packed = (
        gzip.compress(b'{"status":"ok"}')
        if encoding == "gzip"
        else zlib.compress(b'{"status":"ok"}')
    )
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    assert asking(answering(head + packed)).body == b'{"status":"ok"}'


def test_a_redirect_is_not_followed():
    raw = (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n"
    )
    got = asking(answering(raw))
    assert (got.status, got.headers["location"]) == (302, "http://127.0.0.1:1/elsewhere")


def test_proxy_variables_are_not_heeded(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert asking(answering(OK)).body == b"ok"


def test_ipv6_works():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert asking(answering(OK), host="::1").body == b"ok"


@pytest.mark.parametrize(
    "url", ["http://no-such-name.invalid/", "http://" + "a" * 300 + ".invalid/"]
)
def test_an_unknown_name_says_so(url):
    got = asking(answering(OK), url=url)
    assert got.startswith(("name not found", "name lookup failed", "not a usable address")), got


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/", "http://", "nonsense", "http://127.0.0.1:99999/", "http://[::1/"]
)
def test_an_unusable_address_says_so(url):
    assert asking(answering(OK), url=url) == "not a usable address"


# ── TLS ─────────────────────────────────────────────────────────────────────────────────────────


def certificate(tmp_path, *, names=("127.0.0.1",), days=(-1, 1)):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.fromtimestamp(SystemClock().wall(), dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + dt.timedelta(days=days[0]))
        .not_valid_after(now + dt.timedelta(days=days[1]))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(n)) for n in names]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "cert.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


@pytest.mark.parametrize(
    ("made", "trusted", "words"),
    [
        ({}, False, "TLS: self-signed certificate"),
        ({"days": (-3, -1)}, True, "TLS: certificate has expired"),
        ({"names": ("127.0.0.2",)}, True, "TLS: IP address mismatch"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_and_says_why(tmp_path, made, trusted, words):
    server, client = certificate(tmp_path, **made)
    got = asking(answering(OK), tls=server, client={"tls": client} if trusted else {})
    assert got.startswith(words)


def test_a_good_certificate_is_fine(tmp_path):
    server, client = certificate(tmp_path)
    assert asking(answering(OK), tls=server, client={"tls": client}).body == b"ok"


def test_a_server_without_tls_says_so():
    async def plain(origin, reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async def main():
        async with Origin(plain) as origin, AioHttp() as http:
            with pytest.raises(Unreachable) as failure:
                await http.request("GET", origin.url.replace("http:", "https:"), timeout_s=20)
            return str(failure.value)

    assert asyncio.run(main()) == "TLS: the server does not speak TLS there"


# ── addresses ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_may_be_refused_when_connecting(host):
    asked = []

    def allow(name, address):
        asked.append((name, address))
        return False

    async def main():
        async with Origin(answering(OK)) as origin, AioHttp(allow=allow) as http:
            url = origin.url.replace("127.0.0.1", host)
            with pytest.raises(Unreachable) as failure:
                await http.request("GET", url, timeout_s=20)
            with pytest.raises(Unreachable, match="is not allowed"):
                await http.connect(host, origin.port, timeout_s=20)
            return str(failure.value), origin.connections

    words, connections = asyncio.run(main())
    assert "not allowed" in words
    assert connections == 0
    assert (host, "127.0.0.1") in asked


def test_an_allowed_address_is_reached():
    assert (
        asking(answering(OK), client={"allow": lambda _host, address: address == "127.0.0.1"}).body
        == b"ok"
    )


def test_a_connection_lost_before_anything_was_written_is_one_that_was_reset():
    lost = aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    assert _words(lost, 1.0) == "connection reset"


# ── TCP ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_tcp_check_connects_and_closes():
    async def main():
        closed = asyncio.Event()

        async def wait(origin, reader, writer):
            assert await reader.read() == b""
            closed.set()

        async with Origin(wait) as origin, AioHttp() as http:
            took = await http.connect("127.0.0.1", origin.port, timeout_s=20)
            await asyncio.wait_for(closed.wait(), 60)
            return took

    assert 0 <= asyncio.run(main()) < 20


def test_a_tcp_check_says_how_it_failed():
    async def main():
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            async with AioHttp() as http:
                with pytest.raises(Unreachable, match="connection refused"):
                    await http.connect("127.0.0.1", held.getsockname()[1], timeout_s=20)
                with pytest.raises(Unreachable, match="name"):
                    await http.connect("no-such-name.invalid", 80, timeout_s=20)

    asyncio.run(main())


def test_a_closed_client_says_so():
    async def main():
        http = AioHttp()
        with pytest.raises(Unreachable, match="closed"):
            await http.request("GET", "http://127.0.0.1/", timeout_s=1)

    asyncio.run(main())
