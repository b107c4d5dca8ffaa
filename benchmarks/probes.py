"""What a probe costs all in: the real daemon on many backends, each a server on loopback.

The daemon has one core, the backends' one process the other. CPU is the daemon's user and system
time over a window after it settled; every request the backends counted in it is one probe, so the
daemon's own idling is paid for by the probes too. The peer is one shared httpx client, in this run.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time  # noqa: TID251
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.baseline import beside
from benchmarks.crowd import Crowd, crowd
from benchmarks.world import PYTHON, ROOT, Base, Row, cpu_s, daemon, limited, pin, rss_mb, say, wait

SETTINGS = '[health]\ncontrols = []\ncanary = "off"\ninterval = "{interval_s}s"\n'
JITTER = 1.1
POOL = 100  # backends of one service, at every size: choosing among them is not what is measured
LATE_S = 1.0
HTTPX_ORIGINS = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """One daemon in one window, and the CPU of an echo around it."""

    backends: int
    probe_s: float
    share: float
    memory_mb: float
    late_s: float
    probes: int
    echo: Base

    @property
    def ms(self) -> float:
        return self.probe_s * 1e3

    def probe(self, name: str, most: float | None) -> Row:
        return limited(name, self.ms, most, "ms CPU", _of(self), base=self.echo)

    def core(self, name: str, most: float | None) -> Row:
        return limited(name, self.share * 100, most, "%", base=self.echo)

    def late(self, name: str, most: float | None = LATE_S) -> Row:
        """Hold the latest to its bound only: one of thousands varies too much to compare."""
        row = Row(name, f"{self.late_s:.2f} s late", figures={"late_s": self.late_s})
        if most is not None:
            row.bound, row.ok = f"≤ {most:g} s late", self.late_s <= most
        return row


def run() -> list[Row]:
    """Measure, and hold against the bounds."""
    few = measure(10, 10, 20)
    ten = measure(10, 1, 20)
    hundred = measure(100, 1, 25)
    thousand = measure(1000, 10, 30)
    new = measure(1000, 10, 30, closing=True)
    filled = measure(1000, 1, 15, warm_s=25)
    most = measure(5000, 10, 30, warm_s=20)
    kept, fresh = httpx_ms()
    idle = few.share - few.probes / 20 * hundred.probe_s
    more = filled.memory_mb - few.memory_mb
    return [
        thousand.probe("probe, all in, 1,000 backends", 0.6),
        new.probe("probe, new connection each time", 0.6),
        Row("probe, idling of the daemon taken off", f"{_net(thousand, idle):.3f} ms CPU"),
        Row(
            "  peer: shared httpx client, 200 origins",
            f"{kept:.2f} ms CPU kept alive, {fresh:.2f} ms new connections",
            figures={"kept_ms": kept, "new_ms": fresh},
        ),
        ten.probe("a probe, 10 backends every 1 s", None),
        hundred.probe("a probe, 100 every 1 s", None),
        filled.probe("a probe, 1,000 every 1 s", None),
        most.probe("a probe, 5,000 every 10 s", None),
        limited(
            "a probe of 5,000 against one of 100", most.probe_s / hundred.probe_s, 1.6, "times"
        ),
        thousand.core("1,000 backends every 10 s, of a core", 6.0),
        new.core("1,000 backends, new connections, of a core", 6.0),
        filled.core("1,000 backends every 1 s, of a core", None),
        limited("1,000 backends, memory over 10", more, 40.0, "MB", {"of_mb": filled.memory_mb}),
        limited("5,000 backends, memory", most.memory_mb, None, "MB"),
        thousand.late("1,000 backends, latest probe"),
        new.late("1,000 backends, new connections, latest probe"),
        most.late("5,000 backends, latest probe", None),
    ]


def _of(cost: Cost) -> dict[str, float]:
    return {
        "backends": cost.backends,
        "probes": cost.probes,
        "ms": cost.ms,
        "share": cost.share,
        "rss_mb": cost.memory_mb,
        "late_s": cost.late_s,
    }


def _net(cost: Cost, idle: float) -> float:
    return cost.ms * (1 - idle / cost.share)


def measure(
    number: int, interval_s: int, window_s: float, *, warm_s: float = 0, closing: bool = False
) -> Cost:
    """Run a daemon on so many backends; its cost once all are up and `warm_s` passed."""
    with ExitStack() as stack:
        base = stack.enter_context(beside("echo"))
        servers = stack.enter_context(crowd(closing=closing))
        settings = SETTINGS.format(interval_s=interval_s)
        one = stack.enter_context(daemon(settings + tables(servers, number)))
        wait(lambda: servers.say("look")["requests"] >= 2 * number, 120)
        wait(lambda: one.get("/readyz").status == 200, 60)
        time.sleep(warm_s + interval_s / 2)
        servers.say("mark")
        before, began = cpu_s(one.pid), time.perf_counter()
        time.sleep(window_s)
        told = servers.say("look")
        used, took = cpu_s(one.pid) - before, time.perf_counter() - began
        memory = rss_mb(one.pid)
        assert told["backends"] == number
    cost = Cost(
        number,
        used / told["requests"],
        used / took,
        memory,
        max(0.0, told["longest_s"] - interval_s * JITTER),
        int(told["requests"]),
        base.cpu("echo"),
    )
    say(f"{number} backends every {interval_s} s{' anew' if closing else ''}: {cost}")
    return cost


def tables(servers: Crowd, number: int) -> str:
    names = [f"b{at}" for at in range(number)]
    backends = "".join(
        f'[backends.{name}]\nkind = "static"\nengine = "openai"\nurl = "{servers.url(at)}"\n'
        f'priority = 100\nmodels = ["m"]\n'
        for at, name in enumerate(names)
    )
    return backends + "".join(
        f"[services.s{at}]\nbackends = {names[at : at + POOL]}\n" for at in range(0, number, POOL)
    )


def httpx_ms() -> tuple[float, float]:
    """Milliseconds of CPU of a probe by a shared httpx client: kept alive, and connecting anew."""
    with crowd() as servers:
        argv = [PYTHON, "-m", "benchmarks.probes", str(servers.port)]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        pin(child.pid, 0)
        out, _ = child.communicate(timeout=120)
        said = json.loads(out)
    return said["kept"], said["new"]


async def _httpx(port: int) -> None:
    """The child: a model list read from each origin in turn, twice, ten under way at once."""
    import httpx

    urls = [f"http://127.1.0.{at + 1}:{port}/v1/models" for at in range(HTTPX_ORIGINS)]
    found = {}
    for name, kept in (("kept", None), ("new", 0)):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept)
        async with httpx.AsyncClient(limits=limits, timeout=30) as client:
            gate = asyncio.Semaphore(10)

            async def one(url: str, client: httpx.AsyncClient, gate: asyncio.Semaphore) -> None:
                async with gate:
                    assert (await client.get(url)).json()["data"]

            await asyncio.gather(*(one(url, client, gate) for url in urls))
            began = time.process_time()
            await asyncio.gather(*(one(url, client, gate) for url in urls))
            found[name] = (time.process_time() - began) / len(urls) * 1e3
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_httpx(int(sys.argv[1])))
