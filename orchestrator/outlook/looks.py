"""Probes and canaries on a stage, paced as `edge.pacer` paces them."""

from __future__ import annotations

from orchestrator.core import health as rules
from orchestrator.core.health import JITTER
from orchestrator.core.model import Health, Observation, Source, Verdict
from orchestrator.outlook.scene import Scene, Way

ANSWER_S = 0.05  # of a probe that is answered, or refused
COMPLETION_S = 1.0  # of a canary
CANARIES_APART_S = 10.0  # as edge.pacer has it, and the next
NEEDLESS_S = 1.0

Key = tuple[str, Source]


class Looks:
    """Looks at the backends of `stage` when they are due, and has the rules hear what it saw."""

    def __init__(self, stage: Scene) -> None:
        self._stage = stage
        self._due: dict[Key, float] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._wanted: set[Key] = set()  # asked for, so not put off
        # Looks at these change nothing until the truth does; how long one takes.
        self._asleep: dict[str, float] = {}

    def begin(self) -> None:
        """Look at everybody now."""
        for name in self._stage.fleet.config.backends:
            self.soon(name)

    def soon(self, name: str, source: Source = Source.PROBE) -> None:
        """Look now; once more after the look under way, if there is one."""
        key = (name, source)
        if key in self._running:
            self._again.add(key)
        else:
            self._asleep.pop(name, None)
            self._wanted.add(key)
            self._plan(key, 0.0)

    def first_canary(self, name: str) -> None:
        """Ask one that has just come up for a completion."""
        if self._stage.fleet.config.backends[name].health.canary_s is not None:
            self.soon(name, Source.CANARY)

    def stirred(self, name: str) -> None:
        """Go on looking at one whose truth has changed, from wherever in its interval it was."""
        took_s = self._asleep.pop(name, None)
        if took_s is None:
            return
        chance, wait_s = self._stage.chance, self._interval_s((name, Source.PROBE))
        left_s = chance.uniform(0.0, wait_s + took_s)
        if left_s > wait_s:  # one was under way, and saw the old truth
            left_s += wait_s * chance.uniform(1 - JITTER, 1 + JITTER) - wait_s
        self._plan((name, Source.PROBE), left_s)

    # ── one look ────────────────────────────────────────────────────────────────────────────────

    def _plan(self, key: Key, after_s: float) -> None:
        due = self._stage.at + after_s
        self._due[key] = due
        self._stage.schedule(due, lambda: self._start(key, due))

    def _start(self, key: Key, due: float) -> None:
        if self._due.get(key) != due:
            return  # it was planned anew
        del self._due[key]
        if key not in self._wanted and key[1] is Source.CANARY and not self._called_for(key):
            return
        self._wanted.discard(key)
        self._running.add(key)
        began_at = self._stage.at
        seen, took_s = self._see(*key)
        self._stage.schedule(began_at + took_s, lambda: self._end(key, seen, began_at))

    def _see(self, name: str, source: Source) -> tuple[Observation, float]:
        spec = self._stage.fleet.config.backends[name]
        way = self._stage.dead.get(name)
        if self._stage.cut_off and spec.remote:
            return Observation(name, source, Verdict.FAILED, "network is unreachable"), ANSWER_S
        canary = source is Source.CANARY
        if way is None:
            return Observation(name, source, Verdict.OK), COMPLETION_S if canary else ANSWER_S
        if way is Way.REFUSES:
            return Observation(name, source, Verdict.FAILED, "connection refused"), ANSWER_S
        limit_s = spec.health.canary_timeout_s if canary else spec.health.timeout_s
        return Observation(name, source, Verdict.FAILED, f"timed out after {limit_s:g} s"), limit_s

    def _end(self, key: Key, seen: Observation, began_at: float) -> None:
        name, source = key
        for watcher in self._stage.watchers:
            watcher.probed(seen)
        self._stage.observe(seen, began_at)
        self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._plan(key, 0.0)
        elif source is Source.CANARY:
            self._next_canary(key)
        elif self._needless(name):
            self._asleep[name] = self._stage.at - began_at
        else:
            wait_s = self._interval_s(key)
            self._plan(key, wait_s * self._stage.chance.uniform(1 - JITTER, 1 + JITTER))

    def _interval_s(self, key: Key) -> float:
        stage = self._stage
        spec, state = stage.fleet.config.backends[key[0]], stage.fleet.backends[key[0]]
        isolated = spec.remote and stage.fleet.world.isolated_since is not None
        return rules.next_probe_s(state, spec.health, stage.at, isolated=isolated)

    def _next_canary(self, key: Key) -> None:
        wait_s = self._canary_s(key)
        if wait_s is not None and self._stage.dense:
            wait_s = max(wait_s, CANARIES_APART_S)
            self._plan(key, wait_s * self._stage.chance.uniform(1 - JITTER, 1 + JITTER))

    def _called_for(self, key: Key) -> bool:
        """Put a canary off that something has made needless since it was planned."""
        wait_s = self._canary_s(key)
        if wait_s is not None and wait_s > NEEDLESS_S:
            self._plan(key, wait_s)
        return wait_s is not None and wait_s <= NEEDLESS_S

    def _canary_s(self, key: Key) -> float | None:
        fleet = self._stage.fleet
        spec, state = fleet.config.backends[key[0]], fleet.backends[key[0]]
        return rules.next_canary_s(state, spec.health, self._stage.at)

    def _needless(self, name: str) -> bool:
        """Say whether this backend is what it is believed to be, so that looks change nothing."""
        stage = self._stage
        if stage.dense or not stage.fleet.world.settled or name in stage.fleet.unseen:
            return False
        state, fall = stage.fleet.backends[name], stage.fleet.config.backends[name].health.fall
        if name in stage.dead:
            return state.health is Health.DOWN and state.fails >= fall and not state.oks
        well = state.health is Health.UP and state.ok_since is not None
        return well and not (state.doubt or state.fails or state.denials or state.denied)
