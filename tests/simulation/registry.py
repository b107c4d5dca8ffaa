"""The promises about backends that register, checked against how their notebooks truly are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends import identity, tunnels
from orchestrator.core.events import Answer, Command, Turn
from orchestrator.core.health import LONGEST_WAIT_S
from orchestrator.core.lives import PowerPhase, Session
from orchestrator.core.model import BackendState, Fleet
from orchestrator.core.registry import RevokeTokens
from tests.simulation import plans
from tests.simulation.human import Human, digest
from tests.simulation.machine import Machine
from tests.simulation.notebooks import Call, Notebook
from tests.simulation.world import LEASE_S, Mode, Place, Sent, Tunnel

OVER_S = 2.0  # a session that is over, or whose token was revoked, is left within this
AWAKE_S = 4.0  # … by a daemon that is up and awake for so long
PENDING_S, SLACK_S = 900.0, 10.0
BACK_S = 120.0  # after faults a live notebook serves again
ASKED_AGAIN_S = 120.0  # after a pause it is asked once more
METERED_S = 315.0  # how much later a silent death is seen where every request is counted
LASTING_S = 3600.0
LEAST_S = 60.0  # of a run that is over sooner, nobody wants to hear
JUST_S = 5.0  # one that came back so lately may be left: nobody can have asked it yet
LATER = (429, 500, 503, 507)
KEPT = 100  # heartbeats of a session whose words are remembered


@dataclass
class _Seen:
    """What was seen of one backend."""

    generation: int = 0
    promoted: int = 0  # the generation of the last one promoted
    session: str | None = None
    pending: str | None = None
    since: float = 0.0  # when that session was promoted, or the last one was over
    pending_at: float = 0.0  # the daemon's time
    told: set[tuple[str, str]] = field(default_factory=set)


def barred(state: BackendState, at: float) -> bool:
    """Say whether a backend is known to be of no use although it may live."""
    spent = state.exhausted_until is not None and state.exhausted_until > at
    return spent or (state.power is not None and state.power.phase is PowerPhase.STOPPING)


class Registry:
    """Watches the sessions of one machine; `breach` notes a promise that was not kept."""

    def __init__(self, machine: Machine, breach: Callable[[str, str], None]) -> None:
        self._m, self.breach = machine, breach
        self.human: Human | None = None
        self.promoted = 0
        self._seen: dict[str, _Seen] = defaultdict(_Seen)
        self._over: dict[str, float] = {}  # sessions that are over, and since when
        self._runs: dict[str, tuple[Notebook, str]] = {}  # session → whose, and its host
        self._keys: dict[str, tuple[str, str]] = {}  # what the daemon may come with → session, host
        self._tokens: set[str] = set()  # no request of the daemon may hold one
        self._said: dict[str, dict[int, bool]] = {}
        self._seqs: dict[str, int] = {}
        self._loading: dict[str, float] = {}  # when its agent last said so, by the daemon's time
        self._revoked: dict[str, float] = {}  # tokens that the operator was told are revoked
        self._unheard: dict[Notebook, float] = {}
        self._paused_at = float("-inf")
        machine.world.sent = self.sent

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def started(self, fleet: Fleet, *, in_doubt: bool) -> None:
        """Compare the sessions that a new life begins with to those that were committed."""
        now = self._m.time.true
        for name, seen in self._seen.items():
            state = fleet.backends[name]
            if state.generation < seen.generation:
                self.breach("S3", f"{name}: generation {state.generation} after a start")
            here = {one.id for one in (state.session, state.pending) if one is not None}
            for known in (seen.session, seen.pending):
                if known is None or known in here:
                    continue
                if not in_doubt:
                    self.breach("intent", f"{name}: a session was forgotten over a start")
                self._over.setdefault(known, now)
        for name, state in fleet.backends.items():
            if fleet.config.backends[name].registers:
                self._note(name, state)
                self._seen[name].pending_at = self._m.steady()  # it has all its time again
        both = (one for state in fleet.backends.values() for one in (state.session, state.pending))
        self._seqs = {one.id: one.seq for one in both if one is not None}

    def answered(self, command: Command, answer: Answer | None) -> None:
        """Remember which tokens the operator was told are revoked."""
        if not isinstance(command, RevokeTokens) or answer is None or answer.problem is not None:
            return
        for ident in command.ids:
            self._revoked.setdefault(ident, self._m.time.true)

    def turned(self, turn: Turn, fleet: Fleet) -> None:
        """Judge one turn, just applied."""
        now = self._m.time.true
        for past in turn.past:
            self._over.setdefault(past.id, now)
        for name in turn.backends:
            state = fleet.backends.get(name)
            if state is not None and fleet.config.backends[name].registers:
                self._judge(name, state)
                self._note(name, state)

    def _judge(self, name: str, state: BackendState) -> None:
        seen = self._seen[name]
        if state.generation < seen.generation:
            self.breach("S3", f"{name}: from generation {seen.generation} to {state.generation}")
        here = {one.id for one in (state.session, state.pending) if one is not None}
        for known in (seen.session, seen.pending):
            if known is not None and known not in here and known not in self._over:
                self.breach("S2", f"{name}: a session is gone and counts as live")
        session, pending = state.session, state.pending
        for one in (session, pending):
            if one is not None:
                self._judge_session(name, one)
        if session is not None and session.id != seen.session:
            self._judge_promotion(name, session, seen)

    def _judge_session(self, name: str, session: Session) -> None:
        if session.id in self._over:
            self.breach("S2", f"{name}: a session that was over is back")
        last = self._seqs.get(session.id, 0)
        if session.seq < last:
            self.breach("S5", f"{name}: heartbeat {session.seq} after {last}")
        self._seqs[session.id] = session.seq
        said = self._said.get(session.id, {}).get(session.seq)
        if said is not None and said is not session.ready:
            self.breach("S5", f"{name}: ready is {session.ready}, not what heartbeat said")

    def _judge_promotion(self, name: str, session: Session, seen: _Seen) -> None:
        self.promoted += 1
        if (session.id, identity.host_of(session.url)) not in self._m.world.proofs:
            self.breach("S1", f"{name}: promoted and never met the challenge at {session.url}")
        if session.generation <= seen.promoted:
            self.breach("S3", f"{name}: generation {session.generation} took over from a later one")

    def _note(self, name: str, state: BackendState) -> None:
        seen, now = self._seen[name], self._m.time.true
        session = state.session.id if state.session is not None else None
        if session != seen.session:
            seen.session, seen.since = session, now
        if state.session is not None:
            seen.promoted = max(seen.promoted, state.session.generation)
        pending = state.pending.id if state.pending is not None else None
        if pending != seen.pending:
            seen.pending, seen.pending_at = pending, self._m.steady()
        seen.generation = state.generation

    # ── what agents are told ────────────────────────────────────────────────────────────────────

    def replied(self, call: Call, sent_at: float, status: int, said: Mapping[str, Any]) -> None:
        """Judge what the daemon answered to an agent."""
        if call.path == "/register":
            self._judge_registration(call, sent_at, status, said)
        elif call.method == "POST":
            self._judge_beat(call, sent_at, status, said)

    def _judge_registration(
        self, call: Call, sent_at: float, status: int, said: Mapping[str, Any]
    ) -> None:
        ident, run = digest(call.token)[:12], call.notebook
        if status == 201:
            if self._revoked.get(ident, sent_at) < sent_at:
                self.breach("S6", f"{run} registered with a revoked token")
            host = identity.host_of(call.body["url"])
            self._runs[said["session"]] = run, host
            key = identity.gateway_key(identity.secret_of(said["token"]), said["session"])
            self._keys[key] = said["session"], host
            self._tokens |= {said["token"], call.token}
            return
        token = self._fleet().tokens.get(ident)
        valid = token is not None and token.revoked_at is None and token.created_at < self._at()
        left_s = run.ends_at - self._m.time.true
        if status not in LATER and valid and left_s > LEAST_S + OVER_S:
            self.breach("S6", f"{run} has a good token and is told {status}: {said.get('detail')}")

    def _judge_beat(self, call: Call, sent_at: float, status: int, said: Mapping[str, Any]) -> None:
        ident = call.path.split("/")[2]
        over_at = self._over.get(ident)
        if over_at is not None and over_at < sent_at:
            if status != 410 and status not in LATER:
                self.breach("S2", f"{call.notebook} is over and its agent is told {status}")
            return
        live = {
            one.id
            for state in self._fleet().backends.values()
            for one in (state.session, state.pending)
            if one is not None
        }
        if ident in live and status != 200 and status not in LATER:
            detail = said.get("detail")
            self.breach("S6", f"{call.notebook} is live and its agent is told {status}: {detail}")
        if status == 200:
            body, words = call.body, self._said.setdefault(ident, {})
            ready = body["state"] == "ready" and body["engine_ready"] and body["tunnel_ready"]
            words[body["seq"]] = ready
            words.pop(body["seq"] - KEPT, None)
            if body["state"] == "loading":
                self._loading[ident] = self._at()

    # ── I10: what we send ───────────────────────────────────────────────────────────────────────

    def sent(self, sent: Sent) -> None:
        """Judge whether a request holds a secret that is not for its host."""
        key = sent.headers.get("Authorization", "").removeprefix("Bearer ")
        ours = sent.host == plans.host_of(plans.KEYED)
        if key and not (ours and key == plans.key_of(plans.KEYED)):
            session, host = self._keys.get(key, ("", ""))
            if host != sent.host:
                self.breach("I10", f"a key goes to {sent.host}, which is not its own host")
            elif (session, host) not in self._m.world.proofs:
                self.breach("I10", f"a key goes to {sent.host} before it met the challenge")
        if ours and not key:
            self.breach("I10", f"{sent.host} is asked without its key")
        guarded = sent.host in self._m.world.tunnels
        if guarded is not sent.guarded:
            self.breach("I10", f"{sent.host} is reached by the wrong client")
        held = "\n".join((*sent.headers.values(), sent.url, (sent.body or b"").decode()))
        if any(token in held for token in self._tokens):
            self.breach("I10", f"a token goes to {sent.host}")

    # ── every few seconds ───────────────────────────────────────────────────────────────────────

    def look(self, *, calm_since: float) -> None:
        """Judge what stands now. `calm_since`: from when the daemon could do what it must."""
        now = self._m.time.true
        self._note_unheard(now)
        if now - calm_since < AWAKE_S:
            return
        fleet = self._fleet()
        for ident in self._revoked:
            token = fleet.tokens.get(ident)
            if token is not None and token.revoked_at is None:
                self._once("", "S6", "a revoked token is good again")
        for name, state in fleet.backends.items():
            for one in (state.session, state.pending):
                if one is not None:
                    self._look_at(name, one, now)
            if fleet.world.paused_since is not None:
                self._paused_at = now
            if state.pending is not None and now - self._paused_at > ASKED_AGAIN_S:
                loaded_at = self._loading.get(state.pending.id, 0.0)
                waits_s = self._at() - max(self._seen[name].pending_at, loaded_at)
                if waits_s > PENDING_S + SLACK_S:
                    self._once(name, "S4", f"{name}: pending for {waits_s:.0f} s")

    def _note_unheard(self, now: float) -> None:
        deaf = self._m.world.deaf
        for run in self.human.runs if self.human is not None else ():
            if run.ended is None and (run.lost or deaf or run.agent_died_at is not None):
                self._unheard[run] = now

    def _look_at(self, name: str, session: Session, now: float) -> None:
        known = self._runs.get(session.id)
        if known is not None and now - known[0].ends_at > OVER_S:
            over_s = now - known[0].ends_at
            self._once(name, "S2", f"{name}: its session is over and stands, {over_s:.0f} s")
        if now - self._revoked.get(session.token, now) > OVER_S:
            self._once(name, "S2", f"{name}: its token is revoked and its session stands")

    def shown(self, name: str, url: str | None) -> None:
        """Judge the address that discovery gives of a backend that registers."""
        session = self._fleet().backends[name].session
        if url is None and session is None:
            return
        here = {host for ident, host in self._m.world.proofs if session and ident == session.id}
        if url is None or identity.host_of(url) not in here:
            self._once(name, "S1", f"{name} is shown at {url}, where nobody met the challenge")

    def _once(self, name: str, promise: str, what: str) -> None:
        seen = self._seen[name]
        key = promise, (seen.session or "") + what.partition(",")[0][:40]
        if key not in seen.told:
            seen.told.add(key)
            self.breach(promise, what)

    # ── how a backend truly is ──────────────────────────────────────────────────────────────────

    def place(self, name: str) -> Place:
        """Give the truth of a backend: of one that registers, where its session says it is."""
        place = self._m.world.places.get(name)
        if place is not None:
            return place
        session = self._fleet().backends[name].session
        tunnel = self._m.world.tunnels.get(identity.host_of(session.url)) if session else None
        if tunnel is not None:
            return tunnel
        since = self._seen[name].since
        return Place(name, good_since=None, dead_since=since, fit=False, fit_since=since)

    def well_since(self, name: str) -> float | None:
        """Say since when a backend is well and can be known to be; None: it is not."""
        place = self.place(name)
        if place.good_since is None or not isinstance(place, Tunnel):
            return place.good_since
        return max(place.good_since, self._seen[name].since)

    def seen_later_s(self, name: str) -> float:
        """Say how much later than others its death can be seen."""
        place, now = self.place(name), self._m.time.true
        if place.dead_since is None:
            return 0.0
        listed_s = self._m.asleep_until + place.hidden_s - place.dead_since
        later_s = max(0.0, listed_s) if place.mode is Mode.WRONG else 0.0  # no minute runs asleep
        if not isinstance(place, Tunnel):
            return later_s
        if place.agent is None:  # a start renews the lease
            renewed = self._m.up_since or now
            later_s = max(later_s, renewed + LEASE_S - place.dead_since)
        if tunnels.metered(f"https://{place.host}"):
            session = self._fleet().backends[name].session
            run = self._runs[session.id][0] if session and session.id in self._runs else None
            told = run is not None and place.tells and not place.gone and place.agent is not None
            told = told and place.mode is not Mode.WRONG  # which its agent does not see
            unheard = self._unheard.get(run, 0.0) if run is not None else now
            by_word = max(0.0, unheard - place.dead_since) if told else METERED_S
            later_s = max(later_s, min(METERED_S, by_word))
        return later_s

    def unprovable(self, name: str) -> bool:
        """Whether a backend may be left although it believed to be up: nobody speaks for it."""
        state, place = self._fleet().backends[name], self.place(name)
        if not isinstance(place, Tunnel):
            return False
        session = state.session
        ending_s = self._fleet().config.backends[name].drain_margin_s + OVER_S
        if session is None or (session.ends_at or 0.0) - self._at() < ending_s:
            return True
        if place.agent is None or place.agent.session != session.id or place.good_since is None:
            return True
        return self._m.time.true - place.good_since < JUST_S

    def lasting(self, name: str) -> bool:
        """Whether a backend was well for an hour, and nothing is about to end it."""
        state, spec = self._fleet().backends[name], self._fleet().config.backends[name]
        if spec.powered or barred(state, self._at()):
            return False  # it may be stopped at any time
        if not spec.registers:
            return True
        session = state.session
        ends_at = 0.0 if session is None else session.ends_at or 0.0
        long = self._m.time.true - self._seen[name].since > LASTING_S
        return long and ends_at - self._at() > spec.drain_margin_s + LASTING_S

    def waits(self, name: str) -> bool:
        """Whether one that flaps has not been well for the longest wait since it proved itself."""
        well_s = self._m.time.true - (self.well_since(name) or 0.0)
        return self._fleet().backends[name].flap_level > 0 and well_s < LONGEST_WAIT_S

    def excused(self, kind: str, name: str) -> bool:
        """Whether an incident may be open although all is calm: its notebook ends, or is over.

        What is spent is another promise.
        """
        if kind in ("session_ending", "start_soon", "meter_low", "meter_spent"):
            return True
        human = self.human
        return human is not None and any(
            not [
                run
                for run in human.running(one)
                if run.lives and run.began < self._m.time.true - BACK_S
            ]
            for one in human.plans
            if one == name or kind == "restart_needed"
        )

    def comes_and_goes(self, name: str) -> bool:
        """Whether a backend is not there, or was just started, as its kind does."""
        spec, place = self._fleet().config.backends[name], self.place(name)
        if spec.powered and self._m.time.true - (place.good_since or 0.0) < BACK_S:
            return True
        return (spec.registers or spec.powered) and place.dead_since is not None

    def serving(self, name: str) -> Notebook | None:
        """Give the run whose session a backend's is, if it has one."""
        session = self._fleet().backends[name].session
        return self._runs.get(session.id, (None, ""))[0] if session is not None else None

    def awaited(self, name: str) -> Notebook | None:
        """Give a run that must be serving by now, if there is one and nobody else's is."""
        if self.human is None or name not in self.human.plans:
            return None
        now, fleet = self._m.time.true, self._fleet()
        good = {t.secret for t in fleet.tokens.values() if t.revoked_at is None}
        runs = [
            run
            for run in self.human.running(name)
            if run.lives and digest(run.token) in good and run.ends_at - now > LEAST_S + SLACK_S
        ]
        if not runs or self.serving(name) in runs:
            return None
        ready = [run for run in runs if now - run.began > BACK_S]
        return ready[-1] if ready and ready[-1] is runs[-1] else None

    # ── small ───────────────────────────────────────────────────────────────────────────────────

    def _fleet(self) -> Fleet:
        assert self._m.assembly is not None
        return self._m.assembly.loop.fleet

    def _at(self) -> float:
        return self._m.steady()
