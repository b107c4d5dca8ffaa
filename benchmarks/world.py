"""A daemon and its backends as child processes: started, pinned, looked at, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time  # noqa: TID251
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Base:
    """A baseline measured beside a figure: milliseconds that this work took."""

    name: str
    ms: float


@dataclass
class Row:
    """One line of the table. `ok` is None where there is no bound to keep.

    Of `figures` those that `against` puts there are compared with an earlier run. `noise`: by how
    much the largest of some runs was above the smallest, 0.1 for a tenth; None: not measured.
    """

    name: str
    value: str
    bound: str = ""
    ok: bool | None = None
    figures: dict[str, float] = field(default_factory=dict)
    part: str = ""
    baseline: str = ""
    noise: float | None = None

    def against(self, value: float, base: Base | None = None) -> Self:
        """Have `value` compared with earlier runs; less is better.

        Times are compared by their ratio to `base`, whatever the units; all else by itself.
        """
        self.figures |= {"value": value}
        if base is not None:
            self.baseline = base.name
            self.figures |= {"baseline_ms": base.ms, "ratio": value / base.ms}
        return self


def limited(
    name: str,
    value: float,
    most: float | None,
    unit: str,
    figures: dict[str, float] | None = None,
    *,
    base: Base | None = None,
) -> Row:
    """Make a row of a figure that may be `most` at most; None: any. It is compared."""
    shown = f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}"
    row = Row(name, shown, figures=dict(figures or {})).against(value, base)
    if most is not None:
        row.bound, row.ok = f"≤ {most:g} {unit}", value <= most
    return row


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` of them are; 0.5 is the median, 1 the largest."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def say(text: str) -> None:
    """Tell whoever waits for the table how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def wait(true: Callable[[], object], limit_s: float, every_s: float = 0.1) -> None:
    """Wait until `true()` is; raises `TimeoutError`."""
    end = time.perf_counter() + limit_s
    while not true():
        if time.perf_counter() > end:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(every_s)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the daemon answered."""

    status: int
    body: Any


def cpu_s(pid: int) -> float:
    """CPU seconds that a process, all its threads and its ended children have used."""
    own = time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): to the nanosecond
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + sum(map(int, fields[13:15])) / TICKS


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def pin(pid: int, core: int) -> None:
    """Put a process on one core of those we have, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[core % len(cores)]})


@dataclass
class Fake:
    """One fake backend, which can be killed and started again on its port."""

    name: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [PYTHON, "-m", "backends.fake_server", "--port", str(self.port), "--name", self.name]
        self.process = subprocess.Popen([*argv, "--model", "m"], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]
        pin(self.process.pid, 1)

    def send(self, number: signal.Signals) -> float:
        """Send a signal; returns when, on the clock the listener reads."""
        assert self.process is not None
        at = time.perf_counter()
        self.process.send_signal(number)
        return at

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


@contextmanager
def fakes(*names: str) -> Iterator[dict[str, Fake]]:
    found = {name: Fake(name) for name in names}
    try:
        for one in found.values():
            one.start()
        yield found
    finally:
        for one in found.values():
            one.end()


class Daemon:
    """`aion serve` on a configuration, as a child pinned to the first core."""

    def __init__(self, folder: Path, toml: str) -> None:
        self.folder = folder
        self.path = folder / "aion.toml"
        listen = '[server]\nlisten = "127.0.0.1:0"\n'
        (folder / "var").mkdir(exist_ok=True)
        self.path.write_text(f'{listen}database = "sqlite:///{folder}/var/aion.db"\n{toml}')
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.log = folder / "log"

    def keep(self, name: str, secret: str) -> None:
        """Put a credential where the daemon looks for it."""
        folder = self.folder / "credentials"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)

    def get(self, path: str) -> Reply:
        """Ask the daemon; status 0 where it does not answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as reply:
                text = reply.read()
                is_json = "json" in reply.headers.get("Content-Type", "")
                return Reply(reply.status, json.loads(text) if is_json else text)
        except urllib.error.HTTPError as error:
            return Reply(error.code, None)
        except OSError:
            return Reply(0, None)

    def said(self, event: str) -> list[dict[str, Any]]:
        """Read from its log what it said of this kind, `at` as Unix seconds."""
        found = []
        for line in self.log.read_text().splitlines():
            if f'"event":"{event}"' in line:
                fields = json.loads(line)
                fields["at"] = datetime.fromisoformat(fields["at"]).timestamp()
                found.append(fields)
        return found

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, limit_s: float = 30.0) -> float:
        """Start; returns the seconds until it listens."""
        began = time.perf_counter()
        env = {**os.environ, "STATE_DIRECTORY": str(self.folder / "var")}
        argv = [PYTHON, "-m", "orchestrator.cli", "--config", str(self.path), "serve"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stderr=log, env=env)
        pin(self.process.pid, 0)
        while time.perf_counter() - began < limit_s:
            for line in self.log.read_text().splitlines():
                if '"event":"listening"' in line:
                    self.port = int(json.loads(line)["address"].rpartition(":")[2])
                    return time.perf_counter() - began
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the daemon did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """Stop in good order; returns the seconds it took."""
        assert self.process is not None
        began = time.perf_counter()
        self.process.terminate()
        self.process.wait(20)
        return time.perf_counter() - began


@contextmanager
def daemon(toml: str, **secrets: str) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as folder:
        one = Daemon(Path(folder), toml)
        for name, secret in secrets.items():
            one.keep(name, secret)
        one.start(60)
        try:
            yield one
        finally:
            assert one.process is not None
            if one.process.poll() is None:
                one.stop()


def backend(name: str, port: int, priority: int = 100, more: str = "") -> str:
    return (
        f'[backends.{name}]\nkind = "static"\nengine = "openai"\n'
        f'url = "http://127.0.0.1:{port}"\npriority = {priority}\nmodels = ["m"]\n{more}\n'
    )


class Listener:
    """Follows services by server-sent events, noting when each answer came."""

    def __init__(self, url: str, services: list[str]) -> None:
        self._url, self._services = url, services
        self.active: dict[str, str | None] = {}
        self.changed_at: dict[str, float] = {}
        self.news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        limits = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout())
        self._tasks = [asyncio.create_task(self._follow(name)) for name in self._services]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def _follow(self, service: str) -> None:
        async with self._session.get(f"{self._url}/discovery/{service}/events") as reply:
            async for line in reply.content:
                if line.startswith(b"data:"):
                    at = time.perf_counter()
                    answer = json.loads(line[5:])
                    who = answer["active"]["backend"] if answer["active"] else None
                    if self.active.get(service, ...) != who:
                        self.active[service], self.changed_at[service] = who, at
                        self.news.set()

    async def until(self, wanted: dict[str, str], limit_s: float) -> None:
        """Wait until these services are served so."""
        async with asyncio.timeout(limit_s):
            while any(self.active.get(name) != who for name, who in wanted.items()):
                self.news.clear()
                await self.news.wait()
