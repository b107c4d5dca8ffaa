"""How a backup stands: what its last run came to, kept in its spool, read by whoever shows it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from jobs.backup.codec import Coded
from jobs.backup.stores.landing import landing

FILE: Final = "status.json"
MOST: Final = 1_000_000
SHOWN: Final = 5
LINE: Final = 300
REHASH_S: Final = 7 * 86_400.0
SAMPLES: Final = 40
APART_S: Final = 6 * 3600.0
TREND_S: Final = 2 * 86_400.0
"""A trend is not read from less time than that."""
FILLS_S: Final = 14 * 86_400.0
FORESEEN_S: Final = 2 * 366 * 86_400.0
EARLY_S: Final = 6 * 3600.0
"""A weekly look may come so much before its week is over: runs are not to the second."""


@dataclass(frozen=True, slots=True)
class CopyStatus(Coded):
    """One place of the last dump. `free`: bytes that the store says are left, -1 unknown."""

    store: str
    ok: bool
    detail: str = ""
    free: int = -1


@dataclass(frozen=True, slots=True)
class MoreStatus(Coded):
    """An export or a sync (`kind`) in the last run. `detail`: what is wrong, "" if nothing."""

    kind: str
    name: str
    detail: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Sample(Coded):
    """How many bytes a store said were free, and when (Unix seconds)."""

    store: str
    at: float
    free: int


@dataclass(frozen=True, slots=True)
class Status(Coded):
    """Times are Unix seconds, 0 for never. `first_at`: since when the backup is known here.

    `size`: of the last good dump as stored, in bytes. `problem`: "" if the last run was well.
    `samples`: the room of each store over the last runs, the oldest first.
    """

    first_at: float = 0.0
    run_at: float = 0.0
    success_at: float = 0.0
    dump: str = ""
    size: int = 0
    copies: tuple[CopyStatus, ...] = ()
    problem: str = ""
    rehashed_at: float = 0.0
    drilled_at: float = 0.0
    looked: str = ""
    samples: tuple[Sample, ...] = ()
    more: tuple[MoreStatus, ...] = ()

    @classmethod
    def load(cls, spool: Path) -> Self:
        """Read what was kept; nothing is known where that cannot be read."""
        with contextlib.suppress(OSError, ValueError), (spool / FILE).open("rb") as file:
            return cls.from_json(json.loads(file.read(MOST)), strict=False)
        return cls()

    def save(self, spool: Path) -> None:
        """Keep it. Raises OSError."""
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        with landing(spool / FILE) as file:
            file.write(json.dumps(self.to_json()).encode())

    def after(self, report: Mapping[str, Any], wall: float) -> Self:
        """Return how it stands after a run that answered `report` (see `run.Report`)."""
        problem = told(report)
        made = report.get("dump") or {}
        free = {room["store"]: room["free"] for room in report.get("rooms", ())}
        dump = str(made.get("id", ""))
        copies = tuple(
            CopyStatus(
                one["store"],
                one["ok"],
                one["detail"],
                -1 if free.get(one["store"]) is None else int(free[one["store"]]),
            )
            for one in report.get("copies", ())
            if one["dump"] == dump
        )
        more = tuple(
            MoreStatus(one["kind"], one["name"], one["detail"], one["said"])
            for one in report.get("more", ())
        )
        good = bool(dump or (more and "failure" in report)) and not problem
        new = [Sample(url, wall, int(room)) for url, room in free.items() if room is not None]
        return replace(
            self,
            run_at=wall,
            success_at=wall if good else self.success_at,
            dump=dump or self.dump,
            size=int(made.get("size", 0)) if dump else self.size,
            copies=copies or self.copies,
            problem=problem,
            samples=_sampled(self.samples, new),
            more=more or self.more,
        )

    def full_at(self, store: str, wall: float) -> float | None:
        """Say when (Unix seconds) a store is full, at the rate of late; None: not foreseen.

        The rate is between the first and the last of the samples kept: what expires meanwhile is
        in it, and so is what others put there.
        """
        mine = [one for one in self.samples if one.store == store]
        if len(mine) < 2 or mine[-1].at - mine[0].at < TREND_S:  # noqa: PLR2004 - a first, a last
            return None
        rate = (mine[0].free - mine[-1].free) / (mine[-1].at - mine[0].at)
        left_s = mine[-1].free / rate if rate > 0 else FORESEEN_S
        return mine[-1].at + left_s if mine[-1].at + left_s - wall < FORESEEN_S else None

    def filling(self, wall: float) -> str:
        """Say which stores will be full before long; "" if none will."""
        found = []
        for store in dict.fromkeys(one.store for one in self.samples):
            at = self.full_at(store, wall)
            if at is not None and at - wall < FILLS_S:
                found.append(f"{store} is full in {max(0.0, at - wall) / 86_400:.0f} days")
        return "; ".join(found)

    @property
    def line(self) -> str:
        """What the last run came to, in one line."""
        made = [f"{self.dump}, {self.size} bytes"] if self.dump else []
        return "; ".join([*made, *(f"{one.kind} {one.name}: {one.said}" for one in self.more)])

    def stale(self, wall: float, after_s: float) -> bool:
        """Say whether the last success is too long ago, or never came."""
        return wall - (self.success_at or self.first_at or wall) > after_s


def _sampled(kept: tuple[Sample, ...], new: Sequence[Sample]) -> tuple[Sample, ...]:
    """Add samples, thinned where they follow each other quickly; the newest one always stays."""
    found: list[Sample] = []
    for store in dict.fromkeys(one.store for one in (*kept, *new)):
        mine: list[Sample] = []
        for one in (*kept, *new):
            if one.store != store:
                continue
            if len(mine) > 1 and one.at - mine[-2].at < APART_S:
                mine[-1] = one
            else:
                mine.append(one)
        found += mine[-SAMPLES:]
    return tuple(found)


def told(answer: Mapping[str, Any]) -> str:
    """Say in one line what is wrong by an answer of `jobs.backup.child`; "" if nothing is."""
    lines = [str(answer.get(key, "")) for key in ("failure", "detail")]
    made = answer.get("dump")
    if isinstance(made, Mapping) and (why := made.get("suspicious")):
        lines.append(f"{made.get('id')} is in quarantine, for {why}: see aion backup accept")
    lines += [
        f"{one['dump']} to {one['store']}: {one['detail']}"
        for one in answer.get("copies", ())
        if not one["ok"]
    ]
    lines += [
        f"{one['dump']} in {one['store']}: {one['detail']}"
        for one in (*answer.get("checks", ()), *answer.get("found", ()))
        if not one.get("ok", True) and one.get("finished", True)
    ]
    lines += [
        f"{one['kind']} {one['name']}: {one['detail']}"
        for one in answer.get("more", ())
        if not one["ok"]
    ]
    lines += [
        one if isinstance(one, str) else f"{one['store']}: {one['detail']}"
        for one in answer.get("problems", ())
    ]
    found = list(dict.fromkeys(line[:LINE] for line in lines if line))
    if not found and not answer.get("ok", False):
        return "it failed and does not say why"
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return "; ".join([*found[:SHOWN], *more])
