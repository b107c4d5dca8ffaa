"""The fault proxy does to a connection what its toxics say."""

from __future__ import annotations

import contextlib
import errno
import socket
import socketserver
import threading
import time  # noqa: TID251 - what is measured is real time

import pytest

from tests.e2e.kit import until
from tests.e2e.toxics import (
    Bandwidth,
    BlackHole,
    Latency,
    LimitData,
    Proxy,
    ResetPeer,
    Slicer,
    Timeout,
)


class Echo(socketserver.BaseRequestHandler):
    """Gives back what it gets, and counts it."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.server.heard += len(data)
                self.request.sendall(data)


@pytest.fixture(scope="module")
def echo():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.heard = 0
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo):
    with Proxy(echo.server_address[1]) as made:
        yield made


@pytest.fixture
def dial(proxy):
    """Connect through the proxy."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(
            socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
        )


def back(sock, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := sock.recv(size - len(got))):
        got += data
    return got


def asked(sock, data: bytes) -> float:
    """Send, wait for the echo, and give the seconds it took."""
    began = time.monotonic()
    sock.sendall(data)
    assert back(sock, len(data)) == data
    return time.monotonic() - began


def silent(sock, seconds: float) -> bool:
    """Whether nothing comes, not even an end."""
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        sock.settimeout(10)


def test_with_no_toxic_everything_passes_both_ways_and_so_does_an_end(dial, proxy):
    one, other = dial(), dial()
    asked(one, b"x" * 300_000)
    asked(other, b"hello")
    one.shutdown(socket.SHUT_WR)
    assert one.recv(1) == b""
    asked(other, b"still there")
    assert proxy.accepted == 2


def test_latency_delays_one_way_or_both_and_jitter_spreads_it(dial, proxy):
    sock = dial()
    proxy.set(Latency(0.15, stream="upstream"))
    assert asked(sock, b"a") >= 0.14
    proxy.set(Latency(0.15))
    assert asked(sock, b"b") >= 0.29
    proxy.set(Latency(0.1, jitter_s=0.1, stream="downstream"))
    took = [asked(sock, b"c") for _ in range(6)]
    assert max(took) - min(took) >= 0.02
    proxy.clear()
    assert min(asked(sock, b"d") for _ in range(20)) < 0.1


def test_latency_is_paid_once_even_in_small_pieces(dial, proxy):
    sock = dial()
    proxy.set(Latency(0.2, stream="upstream"), Slicer(2, stream="upstream"))
    assert min(asked(sock, b"x" * 40) for _ in range(3)) < 2.0  # twenty pieces of 0.2 s are 4 s


def test_bandwidth_is_a_bound_on_bytes_a_second(dial, proxy):
    sock = dial()
    proxy.set(Bandwidth(10_000, stream="downstream"))
    assert asked(sock, b"x" * 5_000) >= 0.45


def test_a_narrow_band_is_over_when_it_is_cleared(dial, proxy):
    sock = dial()
    proxy.set(Bandwidth(10, stream="downstream"))
    sock.sendall(b"x" * 50_000)  # would take 5,000 s
    assert back(sock, 1)
    proxy.clear()
    assert len(back(sock, 49_999)) == 49_999


def test_a_slicer_makes_small_pieces_with_pauses(dial, proxy):
    sock = dial()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    proxy.set(Slicer(4, 0.05, stream="downstream"))
    began = time.monotonic()
    sock.sendall(b"0123456789abcdef")
    assert back(sock, 4) == b"0123"
    assert back(sock, 12) == b"456789abcdef"
    assert time.monotonic() - began >= 0.19


def test_limit_data_closes_after_so_many_bytes_of_the_answer(dial, proxy, echo):
    before = echo.heard
    proxy.set(LimitData(100, stream="downstream"))
    sock = dial()
    sock.sendall(b"x" * 1000)
    with contextlib.suppress(ConnectionResetError):  # what we sent may be unread
        assert len(back(sock, 1000)) == 100
    assert echo.heard - before == 1000, "the server had all of it"


def test_limit_data_holds_for_what_passed_before_it_was_set(dial, proxy):
    sock = dial()
    asked(sock, b"x" * 200)
    proxy.set(LimitData(100, stream="downstream"))
    sock.sendall(b"y")
    assert back(sock, 1) == b""


def test_reset_peer_sends_a_reset_to_open_and_to_new_connections(dial, proxy):
    sock = dial()
    asked(sock, b"well")
    proxy.set(ResetPeer())
    for one in (sock, None):
        with pytest.raises(ConnectionResetError):
            (one or dial()).recv(1)
    proxy.set(ResetPeer(0.2))
    began = time.monotonic()
    late = dial()
    asked(late, b"in time")
    with pytest.raises(ConnectionResetError):
        late.recv(1)
    assert time.monotonic() - began >= 0.19


def test_a_reset_in_the_middle_of_an_answer_cuts_it(dial, proxy):
    sock = dial()
    proxy.set(Slicer(10, 0.05, stream="downstream"))
    sock.sendall(b"x" * 1000)
    got = back(sock, 10)
    proxy.set(ResetPeer())
    with pytest.raises(ConnectionResetError):
        while data := sock.recv(1000):
            got += data
    assert 10 <= len(got) < 1000


def test_timeout_swallows_and_closes_after_its_time_or_never(dial, proxy, echo):
    sock, before = dial(), echo.heard
    asked(sock, b"before")
    proxy.set(Timeout(0.3))
    began = time.monotonic()
    sock.sendall(b"nobody hears this")
    assert sock.recv(1) == b""
    assert time.monotonic() - began >= 0.25
    proxy.set(Timeout())
    sock = dial()
    sock.sendall(b"nor this")
    assert silent(sock, 0.3)
    proxy.clear()
    asked(sock, b"after")
    assert echo.heard - before == len(b"before") + len(b"after")


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_a_black_hole_loses_one_way_and_gives_back_what_waited(dial, proxy, echo, stream):
    sock, before = dial(), echo.heard
    proxy.set(BlackHole(stream=stream))
    sock.sendall(b"held")
    if stream == "downstream":
        until(lambda: echo.heard - before == 4, "the server had it")
    assert silent(sock, 0.3)
    assert echo.heard - before == (4 if stream == "downstream" else 0)
    proxy.clear()
    assert back(sock, 4) == b"held"


def test_a_black_hole_swallows_an_end_too(dial, proxy):
    sock = dial()
    asked(sock, b"x")
    proxy.set(BlackHole())
    sock.shutdown(socket.SHUT_WR)
    assert silent(sock, 0.3)
    proxy.clear()
    assert sock.recv(1) == b""


def test_down_refuses_closes_what_is_open_and_comes_back_on_the_same_port(dial, proxy):
    sock = dial()
    asked(sock, b"x")
    proxy.down()
    assert sock.recv(1) == b""
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            dial()
    others = [socket.create_server(("127.0.0.1", 0)) for _ in range(50)]
    assert proxy.port not in {other.getsockname()[1] for other in others}
    for other in others:
        other.close()
    proxy.clear()
    asked(dial(), b"again")


def test_behind_a_dead_server_a_connection_is_closed(proxy, dial):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        proxy.upstream = gone.getsockname()[1]
    sock = dial()
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""


def test_a_proxy_that_was_ended_refuses(echo):
    with Proxy(echo.server_address[1]) as made:
        sock = socket.create_connection(("127.0.0.1", made.port))
        asked(sock, b"x")
    assert sock.recv(1) == b""
    sock.close()
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", made.port)) == errno.ECONNREFUSED
