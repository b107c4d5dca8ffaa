"""`/metrics` for Prometheus.

What is hot (probes, turns) is counted in plain integers; everything else is read from the fleet
when it is asked for.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from orchestrator.core.events import Turn
from orchestrator.core.model import Health, Observation
from orchestrator.web import backing, metering, powering, standing
from orchestrator.web.ports import BackupRow, Backups, LoopPort, Receive, Scope, Send
from orchestrator.web.problems import NOSNIFF, method_not_allowed, not_found, respond, send_problem

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
PROBE_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TURN_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class Buckets:
    """A histogram in plain integers."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one value, in seconds."""
        self.counts[bisect_left(self.bounds, value_s)] += 1
        self.total_s += value_s

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """Return it as Prometheus wants it."""
        sums = list(accumulate(self.counts))
        names = [*(str(bound) for bound in self.bounds), "+Inf"]
        return HistogramMetricFamily(
            name, text, buckets=list(zip(names, sums, strict=True)), sum_value=self.total_s
        )


class Metrics(Collector):
    """Counts what the loop tells it, and reads the fleet when asked."""

    def __init__(self, loop: LoopPort, version: str, backups: Backups | None = None) -> None:
        self._backups = backups
        self._backup_rows: Sequence[BackupRow] = ()
        self._loop = loop
        self._version = version
        self._probes: Counter[tuple[str, str, str]] = Counter()
        self._latency: dict[str, list[float]] = {}
        self._probe_s = Buckets(PROBE_BOUNDS_S)
        self._turn_s = Buckets(TURN_BOUNDS_S)
        self._commit_s = Buckets(TURN_BOUNDS_S)
        self._moves: Counter[str] = Counter()
        self._active = {name: one.active for name, one in loop.fleet.services.items()}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        loop.subscribe(self._turned)

    # ── told by the loop ────────────────────────────────────────────────────────────────────────

    def observe_probe(self, seen: Observation) -> None:
        """Count one observation."""
        self._probes[seen.backend, seen.source, seen.verdict] += 1
        if seen.latency_s is not None:
            self._probe_s.add(seen.latency_s)
            sums = self._latency.get(seen.backend)
            if sums is None:
                sums = self._latency[seen.backend] = [0.0, 0.0]
            sums[0] += 1.0
            sums[1] += seen.latency_s

    def turn(self, seconds: float) -> None:
        """Count one turn of the loop and what it took."""
        self._turn_s.add(seconds)

    def committed(self, seconds: float) -> None:
        """Count one commit and what it took."""
        self._commit_s.add(seconds)

    def _turned(self, turn: Turn) -> None:
        for name, state in turn.services.items():
            active = state.active if state is not None else None
            if state is not None and active != self._active.get(name):
                self._moves[name] += 1
            self._active[name] = active
        if turn.config is not None:
            self._forget()

    def _forget(self) -> None:
        known = self._loop.fleet.config.backends
        for key in [key for key in self._probes if key[0] not in known]:
            del self._probes[key]
        for name in set(self._latency) - set(known):
            del self._latency[name]

    # ── asked by Prometheus ─────────────────────────────────────────────────────────────────────

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield InfoMetricFamily("aion_build", "The daemon's version", {"version": self._version})
        yield from self._of_backends()
        yield from self._of_services()
        yield from metering.families(self._loop.fleet, self._loop.now())
        yield from powering.families(self._loop.fleet)
        yield from backing.families(self._backup_rows)
        yield from self._of_loop()

    def _of_backends(self) -> Iterator[Metric]:
        fleet = self._loop.fleet
        health = GaugeMetricFamily(
            "aion_backend_health", "1 for what is believed of it", labels=["backend", "health"]
        )
        drained = GaugeMetricFamily("aion_backend_drained", "1: drained", labels=["backend"])
        for name in fleet.config.backends:
            state = fleet.backends.get(name)
            for one in Health:
                value = state is not None and state.health is one
                health.add_metric([name, one.value], float(value))
            drained.add_metric([name], float(state is not None and state.drained))
        yield health
        yield drained
        probes = CounterMetricFamily(
            "aion_observations", "What was seen", labels=["backend", "source", "verdict"]
        )
        for (backend, source, verdict), count in self._probes.items():
            probes.add_metric([backend, source, verdict], count)
        yield probes
        latency = SummaryMetricFamily(
            "aion_backend_latency_seconds", "Time until its answer", labels=["backend"]
        )
        for backend, (number, total_s) in self._latency.items():
            latency.add_metric([backend], int(number), total_s)
        yield latency
        yield self._probe_s.family("aion_probe_seconds", "Time until an answer, all backends")

    def _of_services(self) -> Iterator[Metric]:
        fleet, now = self._loop.fleet, self._loop.now()
        epoch = GaugeMetricFamily(
            "aion_service_epoch", "Its assignment's number", labels=["service"]
        )
        active = GaugeMetricFamily(
            "aion_service_active", "1: serves", labels=["service", "backend"]
        )
        states = GaugeMetricFamily(
            "aion_service_state", "1 for how it stands", labels=["service", "state"]
        )
        moves = CounterMetricFamily("aion_service_moves", "New assignments", labels=["service"])
        for name, service in fleet.config.services.items():
            state = fleet.services.get(name)
            epoch.add_metric([name], state.epoch if state else 0)
            for backend in service.backends:
                active.add_metric(
                    [name, backend], float(state is not None and state.active == backend)
                )
            stands = standing.service_state(fleet, name, now)
            for one in standing.State:
                states.add_metric([name, one.value], float(one is stands))
            moves.add_metric([name], self._moves[name])
        yield from (epoch, active, states, moves)

    def _of_loop(self) -> Iterator[Metric]:
        fleet, now = self._loop.fleet, self._loop.now()
        incidents = GaugeMetricFamily("aion_incidents", "Open ones", labels=["severity"])
        counts = Counter(one.severity.value for one in fleet.incidents.values())
        for severity in ("info", "warning", "critical"):
            incidents.add_metric([severity], counts[severity])
        yield incidents
        waiting = len(fleet.outbox)
        isolated = fleet.world.isolated_since is not None
        since_turn = max(0.0, now.at - self._loop.turned_at)
        yield GaugeMetricFamily("aion_notices_waiting", "Not sent yet", value=waiting)
        yield GaugeMetricFamily("aion_isolated", "1: lost its own network", value=float(isolated))
        observing = float(standing.paused(fleet, now.at))
        yield GaugeMetricFamily("aion_observing", "1: paused or in the shadow", value=observing)
        yield GaugeMetricFamily("aion_last_turn_seconds", "Since the last turn", value=since_turn)
        waiting = self._loop.waiting
        yield GaugeMetricFamily("aion_inbox_depth", "Events waiting", value=waiting)
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("aion_tasks", "Tasks on the event loop", value=tasks)
        yield self._turn_s.family("aion_turn_seconds", "Time a turn of the loop took")
        yield self._commit_s.family("aion_commit_seconds", "Time a commit took")

    # ── the route ───────────────────────────────────────────────────────────────────────────────

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer `/metrics` (ASGI)."""
        if scope["path"] != "/metrics":
            await send_problem(send, not_found(scope["path"]))
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, method_not_allowed("GET, HEAD"))
        else:
            self._backup_rows = await self._backups() if self._backups is not None else ()
            headers = [(b"content-type", MEDIA_TYPE), (b"cache-control", b"no-store"), NOSNIFF]
            await respond(send, 200, headers, generate_latest(self.registry))
