"""Nights of backups by luck: stores that fail, lose, corrupt and fill up, clocks, crashes anywhere.

The run is the real one, on real folders; only what pg_dump would make is made up, and what a store
answers goes through `Ill`. The world may destroy anything but the last good dump there is: that one
is aion's to keep. So after each step, once there was one, a dump that counts must be whole somewhere.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.backup import dump
from jobs.backup.errors import (
    BadManifest,
    SourceFailed,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.form import MANIFEST, DumpId, Keep, Limits, Manifest, Plan
from jobs.backup.ports import Clock, Tell, nobody
from jobs.backup.run import Ports, run
from jobs.backup.stores import open_store
from jobs.backup.stores.landing import landing
from jobs.backup.targets import Target
from orchestrator.edge.clock import SeededRandom
from tests.backup.plans import DAY_S, HandClock, plan

STORES = ("s1", "s2", "s3")
FLOOR = 3
CLOCKS_S = (400 * DAY_S, -400 * DAY_S)


class Crash(BaseException):
    """As if the machine had lost its power just here."""


class Lost(AssertionError):
    """A promise was not kept."""


def whole(folder: Path) -> Manifest | None:
    """Read a dump's folder: what is there and may be restored from without a second thought."""
    try:
        manifest = _read((folder / MANIFEST).read_bytes(), folder.name)
        sound = hashlib.sha256((folder / manifest.archive).read_bytes()).hexdigest()
    except (OSError, BadManifest):
        return None
    return manifest if sound == manifest.sha256 and not manifest.suspicious else None


@lru_cache(maxsize=2000)
def _read(data: bytes, name: str) -> Manifest:
    return Manifest.load(data, name)


class Ill:
    """A real store as its luck has it: each call may be refused, unheard, or spoil what it does."""

    def __init__(self, nights: Nights, inner: Any, name: str) -> None:
        self._nights, self._inner, self._name = nights, inner, name
        self.url = inner.url

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        real, nights = getattr(self._inner, verb), self._nights

        def call(*args: Any, **more: Any) -> Any:
            if verb == "close":
                return real()
            temper = nights.tempers[self._name]
            nights.step(f"{self._name} {verb}")
            nights.refuse(self._name, temper, verb)
            before = nights.good_in(self._name) if verb == "delete" else 0
            result = real(*args, **more)
            if verb == "delete":
                nights.freed.add(self._name)
                nights.judge_deleted(self._name, before)
            if verb == "put" and temper == "spoils" and nights.chance(0.5):
                nights.spoil(Path("/" + self._inner._base.as_posix().lstrip("/")) / args[1])
            nights.step(f"{self._name} {verb} done", changed=verb in ("put", "delete"))
            if temper == "unheard" and nights.chance(0.3):
                nights.seen["an answer was lost"] += 1
                raise StoreUnreachable("no answer")
            return result

        return call


class Nights:
    """The nights of one seed, in one folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = SeededRandom(seed)
        self.clock = HandClock()
        self.plan = plan(
            "made up",
            folder / "spool",
            *(folder / name for name in STORES[: 2 + seed % 2]),
            keep=Keep(daily=3 + seed % 3, weekly=0, monthly=0),
            limits=Limits(min_free_bytes=1 << 20, attempts=2),
        )
        self.stores = STORES[: len(self.plan.copies)]
        self.tempers = dict.fromkeys(self.stores, "well")
        self.freed: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.crash_in: int | None = None
        self.existed = False
        self.rows = 400.0
        self.log: list[str] = []

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    # ── the truth ───────────────────────────────────────────────────────────────────────────────

    def folders(self) -> list[Path]:
        """List every dump's folder, in a store or the spool."""
        places = [self.folder / name for name in self.stores] + [self.folder / "spool" / "dumps"]
        return [one for place in places for one in place.glob("main-*")]

    def good(self) -> list[Path]:
        """List those that hold a dump that counts."""
        return [one for one in self.folders() if whole(one) is not None]

    def good_in(self, name: str) -> int:
        return sum(whole(one) is not None for one in (self.folder / name).glob("main-*"))

    def step(self, what: str, *, changed: bool = False) -> None:
        """Pass a place at which the machine may lose its power; judge what is left."""
        self.log.append(what)
        if changed:
            self.judge(what)
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                self.seen["a crash"] += 1
                raise Crash

    def judge(self, what: str) -> None:
        found = any(whole(one) is not None for one in self.folders())
        if self.existed and not found:
            raise Lost(f"I11: no good dump is left after {what}; {self.log[-12:]}")
        self.existed |= found

    def judge_deleted(self, name: str, before: int) -> None:
        left = self.good_in(name)
        if left < before and left < FLOOR:
            raise Lost(f"I11: {name} had {before} good dumps and one was removed; {self.log[-8:]}")

    # ── bad luck ────────────────────────────────────────────────────────────────────────────────

    def refuse(self, name: str, temper: str, verb: str) -> None:
        """Fail as a store of that temper does."""
        if temper == "down" or (temper == "flaky" and self.chance(0.15)):
            self.seen[f"a store was {temper}"] += 1
            raise StoreUnreachable("no answer")
        if temper == "full" and verb == "put" and name not in self.freed:
            self.seen["a store was full"] += 1
            raise StoreFullError("no room")

    def spoil(self, path: Path) -> None:
        """Change one byte of a file, cut it short, or take it away."""
        kind = int(3 * self.random.random())
        if kind == 0:
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data) if kind == 1 else bytes(data[: len(data) // 2]))
        self.seen[("a file was lost", "a byte was wrong", "a file was cut short")[kind]] += 1

    def damage(self) -> None:
        """Destroy something of what there is, but for the last good dump."""
        good = self.good()
        places = [self.folder / name for name in self.stores]
        if self.chance(0.06):
            gone = places[int(self.random.random() * len(places))]
            if any(gone not in one.parents for one in good):
                shutil.rmtree(gone, ignore_errors=True)
                self.seen["a store was lost"] += 1
        if self.chance(0.06) and any(self.folder / "spool" not in one.parents for one in good):
            shutil.rmtree(self.folder / "spool", ignore_errors=True)
            (self.folder / "spool").mkdir()
            self.seen["the machine was lost"] += 1
        for place in places:
            while self.chance(0.35):
                files = sorted(file for file in place.glob("main-*/*") if file.is_file())
                if not files:
                    break
                file = files[int(self.random.random() * len(files))]
                if any(one != file.parent for one in self.good()):
                    self.spoil(file)

    # ── nights ──────────────────────────────────────────────────────────────────────────────────

    def made(
        self,
        given: Plan,
        new: DumpId,
        previous: Manifest | None,
        *,
        clock: Clock,
        tell: Tell = nobody,
    ) -> Manifest:
        """Make a dump up, as `dump.make` would; it may fail, and be far too small."""
        self.step("dump")
        if self.chance(0.1):
            self.seen["the database was away"] += 1
            raise SourceFailed("it does not answer")
        size = int(self.rows * (0.9 + 0.2 * self.random.random()))
        data = bytes(int(256 * self.random.random()) for _ in range(size))
        work = Path(given.spool) / "work" / str(new)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        sha256 = hashlib.sha256(data).hexdigest()
        manifest = Manifest(
            name=new.name,
            id=str(new),
            sequence=new.sequence,
            created_at=datetime.fromtimestamp(clock.wall(), UTC),
            server_version="16.1",
            client_version="16.1",
            database="main",
            size=size,
            sha256=sha256,
            plain_sha256=sha256,
        )
        if previous is not None and size < given.limits.shrink * previous.size:
            self.seen["a dump was suspicious"] += 1
            manifest = replace(manifest, suspicious="it is small")
        with landing(work / manifest.archive) as file:
            file.write(data)
        self.step("dump written")
        dump.publish(work, Path(given.spool) / "dumps" / str(new), manifest)
        self.step("dump done", changed=True)
        return manifest

    def night(self) -> None:
        """Live through one run, its crash perhaps, and what is destroyed until the next."""
        tempers = ("well", "well", "well", "down", "flaky", "full", "unheard", "spoils")
        self.tempers = {one: tempers[int(8 * self.random.random())] for one in self.stores}
        self.freed.clear()
        self.crash_in = int(120 * self.random.random()) if self.chance(0.4) else None
        self.clock.jump = CLOCKS_S[int(2 * self.random.random())] if self.chance(0.15) else 0.0
        self.seen["the clock was wrong"] += self.clock.jump != 0.0
        if self.chance(0.06):
            self.rows = 400.0 if self.rows < 100.0 else 20.0  # emptied by mistake, or filled again
        self.log = [f"{self.tempers}"]
        with self._ports() as ports, suppress(Crash):
            run(self.plan, ports)
            self.seen["a run went to its end"] += 1
        self.judge("the run")
        self.damage()
        self.clock.at += DAY_S * (0.02 if self.chance(0.2) else 1.0)

    @contextmanager
    def _ports(self) -> Iterator[Ports]:
        def take(target: Target, access: Any, private: Path) -> Any:
            return Ill(self, open_store(target, access, private), Path(target.path).name)

        real = dump.make
        dump.make = self.made
        try:
            yield Ports(self.clock, self.random, self.clock.pause, open_store=take)
        finally:
            dump.make = real
