"""The name at Cloudflare: how soon a decision is on its way, what the SDK costs in memory.

The real provider and SDK against the stand-in of Cloudflare's API, over HTTP. Decisions are timed
by the daemon's own event table, writes by the stand-in's journal, both on this machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import time  # noqa: TID251
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.baseline import beside
from benchmarks.world import (
    PYTHON,
    ROOT,
    Daemon,
    Listener,
    Row,
    backend,
    daemon,
    fakes,
    limited,
    pin,
    rss_mb,
    say,
    wait,
)

FAST = (
    '[health]\ncontrols = []\ncanary = "off"\n'
    'interval = "1s"\nfast_interval = "250ms"\ndown_interval = "1s"\n'
)
SLOW = "[health]\ncontrols = []\n"
SERVICES = 4
ROUNDS = 5


class Cloudflare:
    """The stand-in as a child, on the backends' core."""

    def __init__(self) -> None:
        argv = [PYTHON, str(ROOT / "tests/standins/cloudflare.py")]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        pin(self._process.pid, 1)
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.api, self.token = said["api"], said["token"]
        self._control = f"http://127.0.0.1:{said['port']}/_control"

    def tell(self, **wish: Any) -> None:
        body = json.dumps(wish).encode()
        request = urllib.request.Request(
            self._control, body, headers={"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(self._control, timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def holds(self, name: str, address: str) -> bool:
        rows = self.seen()["records"]
        return [row["content"] for row in rows if row["name"] == name] == [address]

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def cloudflare() -> Iterator[Cloudflare]:
    one = Cloudflare()
    try:
        yield one
    finally:
        one.end()


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    with beside("echo", "start") as base:
        late_s = asyncio.run(_decisions())
        base.more()
        memory, recovered = _used()
    last, middle = late_s[-1] * 1e3, late_s[len(late_s) // 2] * 1e3
    figures = {"worst_ms": last, "count": len(late_s)}
    row = limited("decision → Cloudflare write, worst", last, 200.0, "ms", figures)
    row.value += f" (median {middle:.0f} ms, {len(late_s)} times)"
    row.against(middle, base.wall("echo"))
    return [
        row,
        limited("memory, ten backends, Cloudflare used", memory, 111.0, "MB"),
        limited(
            "SIGKILL during a write: name reconciled", recovered, 30.0, "s", base=base.wall("start")
        ),
    ]


def _service(name: str, members: list[str], api: str) -> str:
    return (
        f'[services.{name}]\nfailback_after = "1h"\nbackends = {members!r}\n'
        f'[services.{name}.dns]\nprovider = "cloudflare"\nzone = "example.org"\n'
        f'name = "{name}.example.org"\nproxied = false\napi = "{api}"\n'
        'token = { credential = "cloudflare" }\n'
    )


def _address(number: int) -> str:
    return f"93.184.216.{number + 1}"


def _target(number: int) -> str:
    return f'dns = {{ a = "{_address(number)}" }}'


# ── decision → write ────────────────────────────────────────────────────────────────────────────


async def _decisions() -> list[float]:
    """Seconds from each failover's decision to the arrival of its write, in order."""
    names = [f"{side}{number}" for number in range(SERVICES) for side in "ab"]
    services = {f"s{number}": [f"a{number}", f"b{number}"] for number in range(SERVICES)}
    with fakes(*names) as found, cloudflare() as cf:
        toml = FAST + "".join(
            backend(name, found[name].port, 10 + at, _target(at)) for at, name in enumerate(names)
        )
        toml += "".join(_service(name, pair, cf.api) for name, pair in services.items())
        with daemon(toml, cloudflare=cf.token) as one:
            async with Listener(one.url, list(services)) as listener:
                await listener.until({name: pair[0] for name, pair in services.items()}, 60)
                for _ in range(ROUNDS):
                    await asyncio.sleep(4)
                    for pair in services.values():
                        await _fail_over(listener, found, services, pair)
            wait(lambda: len(cf.seen()["journal"]) >= SERVICES * (ROUNDS + 1), 20)
            late = _matched(one, cf, {name: _address(at) for at, name in enumerate(names)})
    say(f"decision → write: {[round(one * 1e3) for one in late]} ms")
    assert len(late) == SERVICES * ROUNDS, late
    return sorted(late)


async def _fail_over(
    listener: Listener, found: dict[str, Any], services: dict[str, list[str]], pair: list[str]
) -> None:
    """Kill whoever serves this service, and bring it back once the other one does."""
    name = next(name for name, members in services.items() if members == pair)
    old, new = sorted(pair, key=lambda one: one != listener.active[name])
    found[old].send(signal.SIGKILL)
    await listener.until({name: new}, 60)
    found[old].end()
    await asyncio.to_thread(found[old].start)


def _matched(one: Daemon, cf: Cloudflare, addresses: dict[str, str]) -> list[float]:
    """For each failover the seconds until a write to its new address was in the journal."""
    ahead_s = time.time() - time.monotonic()
    found = []
    for wall, service, new in _moves(one):
        if service and new in addresses:
            wanted = [f"{service}.example.org", addresses[new]]
            writes = [
                entry["at"] + ahead_s
                for entry in cf.seen()["journal"]
                if any([row[0], row[2]] == wanted for row in entry["after"])
                and entry["at"] + ahead_s >= wall
            ]
            found.append(min(writes) - wall)
    return found


def _moves(one: Daemon) -> list[tuple[float, str, str]]:
    """Unix time, service and new backend of every failover, from the daemon's database."""
    base = sqlite3.connect(f"file:{one.folder}/var/aion.db?mode=ro", uri=True)
    try:
        rows = base.execute("SELECT wall, subject, data FROM event WHERE action = 'assigned'")
        moves = [(wall, subject, json.loads(data)) for wall, subject, data in rows]
    finally:
        base.close()
    return [(wall, subject, data["new"]) for wall, subject, data in moves if data["old"]]


# ── memory, and a crash in the middle ───────────────────────────────────────────────────────────


def _used() -> tuple[float, float]:
    """Memory after a published failover; seconds from a start to a write a crash prevented."""
    name, members = "chat.example.org", [f"b{at}" for at in range(10)]
    with fakes("b0", "b1", "rest") as found, cloudflare() as cf:
        ports = [found[one if one in found else "rest"].port for one in members]
        toml = SLOW + "".join(
            backend(one, ports[at], 10 + at, _target(at)) for at, one in enumerate(members)
        )
        with daemon(toml + _service("chat", members, cf.api), cloudflare=cf.token) as one:
            wait(lambda: cf.holds(name, _address(0)), 60)
            found["b0"].send(signal.SIGKILL)
            wait(lambda: cf.holds(name, _address(1)), 60)
            time.sleep(15)
            memory = rss_mb(one.pid)
            recovered = _crash(one, cf, lambda: found["b1"].send(signal.SIGKILL), name)
    return memory, recovered


def _crash(one: Daemon, cf: Cloudflare, fail: Any, name: str) -> float:
    cf.tell(fault={"kind": "hang", "on": "write"})
    fail()
    wait(lambda: one.get("/discovery/chat").body["active"]["backend"] == "b2", 60)
    one.kill()
    cf.tell(fault={})
    began = time.perf_counter()
    one.start()
    wait(lambda: cf.holds(name, _address(2)), 60, 0.02)
    return time.perf_counter() - began
