"""What a soak holds a daemon to: truth about the backends, a front end's view, vital signs.

All times are `time.monotonic()`; everything may be called from any thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import sys
import threading
import time  # noqa: TID251 - what is bounded is real time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.kit import NAME, TOKEN, Cloudflare, World

POLL_S = 0.1  # as a front end that asks often
SAMPLE_S = 5.0
BREACHES_KEPT = 50


class Truth:
    """Who really lives, and since when."""

    def __init__(self, names) -> None:
        now = time.monotonic()
        self._stands = dict.fromkeys(names, (True, now))

    def say(self, name: str, alive: bool) -> None:
        self._stands = {**self._stands, name: (alive, time.monotonic())}

    def dead_since(self, name: str) -> float | None:
        alive, since = self._stands[name]
        return None if alive else since

    def live_since(self, but: str | None = None) -> float | None:
        """Since when one of the others lives: the one that has longest; None if none does."""
        stands = [one for name, one in self._stands.items() if name != but]
        return min((since for alive, since in stands if alive), default=None)

    def well(self) -> list[str]:
        return [name for name, (alive, _) in self._stands.items() if alive]


@dataclass
class Bounds:
    """In seconds. `answer_s`: from the start of the process to its first answer. `leave_s`: a dead
    one in discovery while another lives. `dns_s`: a record that is not the active one's."""

    answer_s: float
    leave_s: float
    dns_s: float


@dataclass
class Found:
    """What was measured, and what was broken: (seconds into the run, what)."""

    began: float
    answered_s: list[float] = field(default_factory=list)
    start_cpu_s: list[float] = field(default_factory=list)  # what that took of a processor
    left_s: list[float] = field(default_factory=list)
    polls: int = 0
    breaches: list[tuple[float, str]] = field(default_factory=list)

    def breach(self, what: str) -> None:
        at = round(time.monotonic() - self.began, 1)
        if len(self.breaches) < BREACHES_KEPT:
            self.breaches.append((at, what))
            sys.stderr.write(f"BROKEN at {at} s: {what}\n")


class Watch:
    """Asks one daemon's discovery as a front end would, and judges every answer."""

    def __init__(self, world: World, dns: Cloudflare, truth: Truth, bounds: Bounds) -> None:
        self.world, self.dns, self.truth, self.bounds = world, dns, truth, bounds
        self.name = world.folder.name
        tables = (key.split(".") for key in world.tables)
        self._names = [words[1] for words in tables if words[0] == "backends"]
        self.found = Found(time.monotonic())
        self.epoch = 0
        self.active: str | None = None
        self._launched = self.found.began
        self._ready: float | None = None
        self._since = self.found.began  # how long this one is active, as discovery tells
        self._told: set[float] = set()  # each wrong is one breach
        self._wrong: tuple[str, float] | None = None
        self._differs: float | None = None  # since when the record is another one's
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=work)
            for work in ((self._poll, POLL_S), (self._look_at_dns, 5 * POLL_S))
        ]

    def start(self) -> None:
        """Begin; the daemon answers by now."""
        self.found.began = self._launched = self._ready = self._since = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def _run(self, work, every_s: float) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=self.world.url, timeout=3.0, headers=headers) as client:
            while not self._over.wait(every_s):
                try:
                    work(client)
                except Exception as error:  # noqa: BLE001 - a dead watcher would see nothing, and say so
                    self.found.breach(f"{self.name}: the watcher failed: {error!r}")

    # ── the daemon's own deaths ─────────────────────────────────────────────────────────────────

    def kill_and_launch(self) -> None:
        """SIGKILL, and the next one at once."""
        with self._lock:
            if self.world.daemon.child.poll() is not None:
                self.found.breach(f"{self.name}: the daemon ended by itself")
            self._ready, self._launched = None, time.monotonic()
        self.world.crash()
        with self._lock:
            self._launched = time.monotonic()
            self.world.launch()

    def ready(self) -> bool:
        return self._ready is not None

    # ── discovery ───────────────────────────────────────────────────────────────────────────────

    def _poll(self, client: httpx.Client) -> None:
        was_ready, launched = self._ready, self._launched
        try:
            answer = client.get("/discovery/chat").json()
        except (httpx.HTTPError, ValueError) as error:
            with self._lock:
                same = self._ready == was_ready and self._launched == launched
                if same and was_ready is not None:
                    self.found.breach(f"{self.name}: discovery does not answer: {error!r}")
                elif same and time.monotonic() - launched > self.bounds.answer_s:
                    self._once(launched, "no answer in time after its start")
            return
        with self._lock:
            if self._launched != launched or self._ready != was_ready:
                return  # an answer from before the kill
            now = time.monotonic()
            if was_ready is None:
                self._ready = now
                self.found.answered_s.append(now - launched)
                self.found.start_cpu_s.append(_cpu_s(self.world.daemon.pid))
                if now - launched > self.bounds.answer_s:
                    self._once(launched, f"first answer after {now - launched:.1f} s")
            self.found.polls += 1
            self._judge(answer, now)

    def _judge(self, answer: dict, now: float) -> None:
        epoch = answer["epoch"]
        if epoch < self.epoch:
            self.found.breach(f"{self.name}: epoch {epoch} after {self.epoch}")
        self.epoch = max(self.epoch, epoch)
        active = answer["active"]["backend"] if answer["active"] else None
        if active != self.active:
            self._since, self.active = now, active
        wrong_since = self._wrong_since(active)
        if self._wrong is not None and (active, wrong_since) != self._wrong:
            if active != self._wrong[0]:
                self.found.left_s.append(now - self._wrong[1])
            self._wrong = None
        if wrong_since is None:
            return
        self._wrong = (active, wrong_since)
        if now - wrong_since > self.bounds.leave_s:
            self._once(wrong_since, f"{active or 'nobody'} serves though another lives")

    def _wrong_since(self, active: str | None) -> float | None:
        """Since when somebody else should serve; None if this is right, or nobody could."""
        dead = self.truth.dead_since(active) if active else self._since
        live = self.truth.live_since(but=active)
        if dead is None or live is None or self._ready is None:
            return None
        return max(dead, live, self._ready)

    def _once(self, key: float, what: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self.found.breach(f"{self.name}: {what}")

    # ── the record ──────────────────────────────────────────────────────────────────────────────

    def _look_at_dns(self, client: httpx.Client) -> None:
        held = client.get(self.dns.control).json()["records"]
        rows = [record["content"] for record in held if record["name"] == NAME]
        with self._lock:
            wanted = self.active and [f"93.184.216.{self._names.index(self.active) + 1}"]
            if wanted in (None, rows) or self._ready is None:
                self._differs = None
                return
            now = time.monotonic()
            if self._differs is None:  # the record may be ahead of what we last heard
                self._differs = now
            since = max(self._since, self._ready, self._differs)
            if now - since > self.bounds.dns_s:
                self._once(-since, f"{self.active} serves, the record says {rows}")

    def written_epochs(self) -> list[int]:
        """Epochs of the record, in the order in which they were written."""
        rows = [row for line in self.dns.seen()["journal"] for row in line["after"]]
        return [int(row[3].rpartition("=")[2]) for row in rows]


def _cpu_s(pid: int) -> float:
    """Processor time that a process has had, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Vitals:
    """Memory, descriptors, threads and tasks of a daemon that nobody kills."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.samples: list[dict[str, float]] = []

    def sample(self) -> dict[str, float]:
        here = Path(f"/proc/{self._world.daemon.pid}")
        status = (here / "status").read_text()
        text = ""
        with contextlib.suppress(httpx.HTTPError):
            text = self._world.http.get("/metrics", headers=self._world._bearer).text
        tasks = re.search(r"^aion_tasks (\S+)$", text, re.MULTILINE)
        one = {
            "rss_mb": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,
            "fds": len(os.listdir(here / "fd")),  # noqa: PTH208 - counted, not walked
            "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),
            "tasks": float(tasks[1]) if tasks else float("nan"),
        }
        if tasks:
            self.samples.append(one)
        return one

    def thirds(self) -> dict[str, list[float]]:
        """The median of each third of the run."""
        count = len(self.samples) // 3
        parts = [self.samples[:count], self.samples[count : 2 * count], self.samples[2 * count :]]
        return {
            key: [round(statistics.median(one[key] for one in part), 1) for part in parts]
            for key in ("rss_mb", "fds", "threads", "tasks")
        }

    def growth(self) -> list[str]:
        """What is not flat: the last third's median against the middle third's."""
        allowed = {
            "rss_mb": lambda middle: middle * 1.05,
            "fds": lambda middle: middle + 5,
            "threads": lambda middle: middle + 1,
            "tasks": lambda middle: middle + 5,
        }
        return [
            f"{key} grew from {thirds[1]} to {thirds[2]}"
            for key, thirds in self.thirds().items()
            if thirds[2] > allowed[key](thirds[1])
        ]
