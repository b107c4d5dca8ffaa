"""What was observed, kept small: hourly tallies, the last changes, the last few answers.

Everything here is memory; the store writes what `take` hands out. A probe that says what the one
before it said costs a few additions and no row of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.edge.rows import clean

HOUR_S = 3600
LATEST = 30  # answers kept in memory for each backend
CHANGES = 200  # changes kept in the database for each backend
READ_HOURS = 2000
WAITING = 5000  # tallies of past hours that may wait for a full disk
DETAIL_CHARS = 200
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # and one beyond


class Seen(NamedTuple):
    """One observation, as history shows it. `at` is steady."""

    at: float
    source: str
    verdict: str
    detail: str
    status: int | None
    latency_s: float | None


@dataclass(slots=True)
class Tally:
    """One backend's hour: how many of each verdict, and how fast successful probes were answered.

    `buckets` counts latencies up to each of BUCKETS_S and, last, those beyond.
    """

    backend: str
    hour: int
    ok: int = 0
    loading: int = 0
    failed: int = 0
    denied: int = 0
    busy: int = 0
    timed: int = 0
    latency_sum_s: float = 0.0
    latency_min_s: float = 0.0
    latency_max_s: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def add(self, observation: Observation) -> None:
        """Count one observation."""
        verdict = observation.verdict
        setattr(self, verdict, getattr(self, verdict) + 1)
        latency_s = observation.latency_s
        if latency_s is None or verdict != Verdict.OK or observation.source != Source.PROBE:
            return
        if not self.timed or latency_s < self.latency_min_s:
            self.latency_min_s = latency_s
        self.latency_max_s = max(self.latency_max_s, latency_s)
        self.timed += 1
        self.latency_sum_s += latency_s
        self.buckets[bisect_left(BUCKETS_S, latency_s)] += 1

    def merge(self, other: Tally) -> None:
        """Add what another tally of the same hour counted."""
        if other.timed:
            lows = [t.latency_min_s for t in (self, other) if t.timed]
            self.latency_min_s = min(lows)
            self.latency_max_s = max(self.latency_max_s, other.latency_max_s)
        for name in ("ok", "loading", "failed", "denied", "busy", "timed", "latency_sum_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]

    def mean_s(self) -> float | None:
        """Mean latency in seconds, None when none was measured."""
        return self.latency_sum_s / self.timed if self.timed else None

    def quantile_s(self, share: float) -> float | None:
        """Say below which latency `share` of the answers came: a bucket's upper edge."""
        left = share * self.timed
        for count, edge_s in zip(self.buckets, BUCKETS_S, strict=False):
            left -= count
            if self.timed and left <= 0:
                return min(edge_s, self.latency_max_s)
        return self.latency_max_s if self.timed else None

    def row(self) -> dict[str, Any]:
        """Write it as columns."""
        row = {name: getattr(self, name) for name in _TALLY_FIELDS}
        row["buckets"] = ",".join(map(str, self.buckets))
        return row

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Tally:
        """Read it from columns."""
        tally = cls(**{name: row[name] for name in _TALLY_FIELDS if name != "buckets"})
        tally.buckets = [int(count) for count in row["buckets"].split(",")]
        return tally


_TALLY_FIELDS = tuple(f.name for f in fields(Tally))


@dataclass(slots=True)
class _Track:
    tally: Tally
    latest: deque[Seen] = field(default_factory=lambda: deque(maxlen=LATEST))
    said: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # source → what it last said
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be written: rows of `tally` and of `change`."""

    tallies: tuple[Tally, ...]
    changes: tuple[dict[str, Any], ...]
    at: float

    def __bool__(self) -> bool:
        return bool(self.tallies or self.changes)


class Rolling:
    """The observations of all backends."""

    def __init__(self) -> None:
        self.at = 0.0  # of the latest observation
        self._tracks: dict[str, _Track] = {}
        self._seqs: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._past: dict[tuple[str, int], Tally] = {}
        self._changes: dict[tuple[str, int], dict[str, Any]] = {}
        self._read: set[int] = set()

    def resume(self, seqs: Mapping[str, int]) -> None:
        """Go on after these numbers of changes, by backend."""
        self._seqs = dict(seqs)

    def add(self, observation: Observation, at: float) -> None:
        """Take one observation in; about 3 µs."""
        name, hour = observation.backend, int(at // HOUR_S)
        track = self._tracks.get(name)
        if track is None:
            track = _Track(Tally(name, hour), seq=self._seqs.get(name, 0))
            self._tracks[name] = track
        if track.tally.hour != hour:
            self._turn_hour(track, hour)
        track.tally.add(observation)
        self._dirty.add(name)
        self.at = max(self.at, at)
        seen = Seen(
            at,
            observation.source,
            observation.verdict,
            observation.detail[:DETAIL_CHARS],
            observation.status,
            observation.latency_s,
        )
        track.latest.append(seen)
        detail = "" if observation.verdict == Verdict.OK else seen.detail
        says = (seen.verdict, seen.status, observation.missing, detail)
        if track.said.get(seen.source) != says:
            track.said[seen.source] = says
            self._change(name, track, seen)

    def _change(self, name: str, track: _Track, seen: Seen) -> None:
        track.seq += 1
        slot = track.seq % CHANGES
        row = {"backend": name, "slot": slot, "seq": track.seq} | seen._asdict()
        row.update(detail=clean(seen.detail), source=str(seen.source), verdict=str(seen.verdict))
        self._changes[name, slot] = row

    def _turn_hour(self, track: _Track, hour: int) -> None:
        name = track.tally.backend
        if name in self._dirty:
            self._past[name, track.tally.hour] = track.tally
            if len(self._past) > WAITING:
                del self._past[next(iter(self._past))]
        track.tally = Tally(name, hour)

    def unread(self) -> set[int]:
        """Name the hours whose stored tallies must be absorbed before `take`."""
        hours = {self._tracks[name].tally.hour for name in self._dirty}
        return (hours | {hour for _, hour in self._past}) - self._read

    def absorb(self, hour: int, stored: Iterable[Tally]) -> None:
        """Add what an earlier life of the daemon counted in this hour."""
        if hour in self._read:
            return
        for tally in stored:
            track = self._tracks.get(tally.backend)
            if track is None:
                seq = self._seqs.get(tally.backend, 0)
                self._tracks[tally.backend] = _Track(tally, seq=seq)
            elif track.tally.hour == hour:
                track.tally.merge(tally)
            elif (tally.backend, hour) in self._past:
                self._past[tally.backend, hour].merge(tally)
        # Long kept: an hour that a full disk held up must not be added a second time.
        self._read = {h for h in self._read if h > hour - READ_HOURS} | {hour}

    @property
    def changed(self) -> bool:
        """Whether there are changes to write."""
        return bool(self._changes)

    def take(self, *, tallies: bool) -> Batch:
        """Hand out what is to be written: changes always, tallies when asked for."""
        changes = tuple(self._changes.values())
        self._changes = {}
        counted: tuple[Tally, ...] = ()
        if tallies:
            counted = (*self._past.values(), *(self._tracks[n].tally for n in self._dirty))
            self._past, self._dirty = {}, set()
        return Batch(counted, changes, self.at)

    def put_back(self, batch: Batch) -> None:
        """Keep what could not be written for the next time; newer values win."""
        for row in batch.changes:
            self._changes.setdefault((row["backend"], row["slot"]), row)
        for tally in batch.tallies:
            track = self._tracks.get(tally.backend)
            if track is not None and track.tally is tally:
                self._dirty.add(tally.backend)
            else:
                self._past.setdefault((tally.backend, tally.hour), tally)

    def current(self, backend: str) -> Tally | None:
        """Give the tally of the present hour."""
        track = self._tracks.get(backend)
        return track.tally if track else None

    def latest(self, backend: str) -> list[Seen]:
        """Give the last few observations since this daemon started, oldest first."""
        track = self._tracks.get(backend)
        return list(track.latest) if track else []
