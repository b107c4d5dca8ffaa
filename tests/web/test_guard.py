import asyncio
import json
import time  # noqa: TID251 - measures real time

import pytest
from webkit import TOKEN, Site, run

SOON_S = 8.0  # on a busy machine; what is not limited as asked takes 10 s or more
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
AUTH = f"Authorization: Bearer {TOKEN}\r\n".encode()
POST = b"POST /api/pause HTTP/1.1\r\nHost: a\r\n" + AUTH


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def problem(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return json.loads(body)


REFUSED = {
    "both framings": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
    "both, other order": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "a list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "an odd coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n{}", 400),
    "two codings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a space before the colon": (GET + b"Content-Length : 2\r\n\r\n", 400),
    "a folded header": (GET + b"X-A: b\r\n c\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "an absolute address": (b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "an odd method": (b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a large body by its own word": (POST + b"Content-Length: 2000001\r\n\r\n", 413),
    "a long address": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "large headers": (GET + b"X-A: " + b"a" * 40000 + b"\r\n\r\n", 431),
    "many headers": (GET + b"X-A: b\r\n" * 101 + b"\r\n", 431),
    "one endless header": (GET + b"X-A: " + b"a" * 70000, 431),
}


def test_what_can_be_read_in_two_ways_or_is_too_large_is_refused():
    async def test(site: Site) -> None:
        for name, (sent, expected) in REFUSED.items():
            answer = await site.raw(sent)
            assert answer.count(b"HTTP/1.1 ") == 1, name
            assert status(answer) == expected, (name, answer)
            assert problem(answer)["status"] == expected
            assert b"Traceback" not in answer
        assert site.stand.audits == []

    run(test)


def test_a_body_that_grows_too_large_is_cut_though_its_length_was_never_said():
    async def test(site: Site) -> None:
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        answer = await site.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 600)
        assert status(answer) == 413
        sent = await site.admin.post("/api/pause", content=b" " * 2_000_001)
        assert (sent.status_code, sent.json()["code"]) == (413, "too_large")
        just = await site.admin.post(
            "/api/pause",
            content=b"{}".ljust(2_000_000),
            headers={"content-type": "application/json"},
        )
        assert just.status_code == 200

    run(test)


def test_trailers_never_become_headers():
    async def test(site: Site) -> None:
        body = b"Transfer-Encoding: chunked\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n"
        body += b"2\r\n{}\r\n0\r\nIdempotency-Key: from-a-trailer\r\n\r\n"
        assert status(await site.raw(POST + body)) == 200
        assert site.stand.audits[-1].key is None

    run(test)


async def drip(site: Site, first: bytes, byte: bytes, every_s: float) -> tuple[float, bytes]:
    """Send `first`, then a byte now and then until the server has enough; seconds and answer."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    reading = asyncio.create_task(reader.read())
    writer.write(first)
    while not reading.done():
        writer.write(byte)
        await asyncio.wait([reading], timeout=every_s)
        assert time.perf_counter() - begun < SOON_S
    writer.transport.abort()
    return time.perf_counter() - begun, reading.result()


@pytest.mark.parametrize(
    ("first", "word"),
    [
        (GET + b"X-A: ", "head"),
        (b"GET /", "head"),
        (POST + b"Content-Length: 1000\r\n\r\n", "body"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n", "body"),
        (b"POST /discovery HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", "body"),
    ],
)
def test_a_client_that_sends_a_byte_now_and_then_is_cut(first, word):
    async def test(site: Site) -> None:
        took_s, answer = await drip(site, first, b"1", 0.05)
        assert 0.2 < took_s < SOON_S
        assert b"408" in answer or b"405" in answer or b"200" in answer
        await site.until(lambda: site.web._rest.at_work == 0)

    limits = {"header_deadline_s": 0.3, "body_deadline_s": 0.3}
    run(test, **limits)


def test_silence_and_empty_lines_hold_no_connection():
    async def test(site: Site) -> None:
        begun = time.perf_counter()
        assert await site.raw() == b""
        assert time.perf_counter() - begun < SOON_S
        took_s, _ = await drip(site, b"\r\n", b"\r\n", 0.05)
        assert took_s < SOON_S

    run(test, header_deadline_s=0.3)


def test_a_kept_connection_may_idle_for_its_time_only():
    async def test(site: Site) -> None:
        begun = time.perf_counter()
        answer = await site.raw(GET + b"\r\n")
        assert answer.endswith(b"ok\n")
        assert 0.8 < time.perf_counter() - begun < 30.0

    run(test, idle_s=1.0)


def test_pipelined_requests_are_answered_in_order():
    async def test(site: Site) -> None:
        last = GET + b"Connection: close\r\n\r\n"
        answer = await site.raw((GET + b"\r\n") * 20 + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 21

    run(test)


def test_an_upgrade_is_not_taken_and_what_follows_is_not_read_as_a_request():
    async def test(site: Site) -> None:
        asked = GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + GET + b"\r\n"
        answer = await site.raw(asked)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert status(answer) == 200

    run(test)


def test_a_client_that_reads_nothing_is_cut():
    async def test(site: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
        writer.write(b"GET /discovery/chat HTTP/1.1\r\nHost: a\r\n\r\n" * 40_000)
        await site.until(lambda: len(site.connections) == 1)
        await site.until(lambda: not site.connections, within_s=30.0)
        writer.transport.abort()
        del reader

    run(test, idle_s=1.0)


def test_too_many_requests_at_once_are_told_to_come_back():
    async def test(site: Site) -> None:
        held = asyncio.Event()

        async def slow(scope, receive, send):
            await held.wait()
            await site.web.discovery({**scope, "path": "/discovery"}, receive, send)

        site.web._rest._app = slow
        site.web._rest._limit = 3
        waiting = [asyncio.create_task(site.client.get("/healthz")) for _ in range(3)]
        await site.until(lambda: site.web._rest.at_work == 3)
        refused = await site.client.get("/healthz")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await site.client.get("/discovery")).status_code == 200, (
            "discovery is never held up"
        )
        held.set()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3

    run(test)
