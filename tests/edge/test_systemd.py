"""What systemd is told, over a real datagram socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.edge.systemd import Notifier, watchdog_interval_s


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket like PID 1's, and its address as $NOTIFY_SOCKET would have it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        if request.param == "path":
            address = str(tmp_path / "notify")
            receiver.bind(address)
        else:
            receiver.bind("")  # the kernel picks a free abstract name
            address = "@" + receiver.getsockname()[1:].decode()
        yield address, receiver


def said(receiver: socket.socket) -> list[str]:
    return receiver.recv(4096).decode().split("\n")


def test_each_message_is_what_sd_notify_3_says(manager):
    address, receiver = manager
    notifier = Notifier(address)

    assert notifier.ready("serving on 127.0.0.1:8765")
    assert said(receiver) == ["READY=1", "STATUS=serving on 127.0.0.1:8765"]
    assert notifier.watchdog()
    assert said(receiver) == ["WATCHDOG=1"]
    assert notifier.status("2 backends up")
    assert said(receiver) == ["STATUS=2 backends up"]
    assert notifier.stopping()
    assert said(receiver) == ["STOPPING=1"]


def test_a_status_cannot_smuggle_in_another_field(manager):
    address, receiver = manager
    assert Notifier(address).status("down: boom\nMAINPID=1\r\x00\x85\udcff" + "x" * 5000)
    (line,) = said(receiver)
    assert line.startswith("STATUS=down: boom MAINPID=1 x")
    assert len(line) <= len("STATUS=") + 200


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nowhere/notify", "@aion-nobody"])
def test_without_a_listener_nothing_happens_and_nothing_is_raised(address):
    notifier = Notifier(address)
    assert not notifier.ready("up")
    assert not notifier.watchdog()
    assert not notifier.stopping()


def test_a_manager_that_does_not_read_cannot_hold_the_daemon(manager):
    address, _ = manager
    notifier = Notifier(address)
    sent = 0
    while notifier.watchdog():
        sent += 1
        assert sent < 100_000, "the kernel bounds a datagram queue"


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("30000000", None, 15.0),
        ("30000000", "42", 15.0),
        ("30000000", "43", None),
        ("0", None, None),
        ("-5", None, None),
        ("30s", None, None),
        ("", None, None),
        (None, None, None),
        (None, "42", None),
    ],
)
def test_the_watchdog_is_petted_twice_in_its_patience(usec, pid, interval):
    assert watchdog_interval_s(usec, pid, 42) == interval
