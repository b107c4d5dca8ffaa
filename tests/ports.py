"""Ports for servers that are started later, on a port that is written down before."""

from __future__ import annotations

import random  # noqa: TID251 - two runs of the tests at once should not begin at the same port
import socket
from pathlib import Path

LOWEST = 12_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback on which nobody listens, and that nobody else is given meanwhile.

    Not one that the kernel hands out: whoever binds port 0 between our asking and our server's
    start has one chance in 14,000 to be given ours, and a run of all tests does so a thousand times.
    """
    end = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32_768
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(LOWEST, end)
        with socket.socket() as probe:
            if port not in _given and not _taken(probe, port):
                _given.add(port)
                return port
    raise AssertionError(f"no port from {LOWEST} to {end} is free")


def _taken(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        return True
    return False
