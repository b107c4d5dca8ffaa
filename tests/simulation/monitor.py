"""The promises, checked at every step against the truth. Numbers as in SEMANTICS.md."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.events import Answer, Command, Turn
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import DnsTrouble, Health, Notice, ServiceState
from orchestrator.core.records import Plan, signature
from orchestrator.core.specs import Tier
from orchestrator.edge.store import Saved
from tests.simulation.machine import Machine
from tests.simulation.notebooks import Call
from tests.simulation.orders import Orders
from tests.simulation.registry import Registry, barred
from tests.simulation.spending import Spending
from tests.simulation.zone import Ill

LEAVE_S = 45.0  # I1
STABLE_S = 105.0  # a live candidate has had the time to be found up: 33 s, two looks, and 45 s
BUSY_S = 210.0  # … and to be asked again after it told us to wait
READY_S = 30.0
DNS_WELL_S = 80.0  # 45 s, and the longest back-off from before the API was well
MOVES_AN_HOUR, APART_S, HOUR_S = 2, 60.0, 3600.0  # I2
ROUNDING_S = 1.0
FLAPS = 3
ONLY_US_S = 60.0  # one that was itself well for so long was not what failed
NOTIFIED_S = 300.0  # I3
CONVERGED_S = 120.0  # I8
OVER_S = 5.0  # a pin or pause ends by itself, give or take a tick
ALIVE = (Health.UP, Health.DEGRADED)
HELD = (DnsTrouble.DRIFT, DnsTrouble.FOREIGN, DnsTrouble.NEWER)


@dataclass(frozen=True)
class Breach:
    """A promise that was not kept. `at` is true time."""

    invariant: str
    at: float
    what: str


@dataclass
class _Service:
    """What was seen of one service."""

    epoch: int = 0
    active: str | None = None
    hard_until: float = 0.0  # when it was last seen pinned hard
    voluntary: list[float] = field(default_factory=list)
    told: set[tuple[str, float]] = field(default_factory=set)


class Monitor:
    """Watches one machine. `breaches` is what it found."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine
        machine.onlooker = self
        self.breaches: list[Breach] = []
        self.checks = 0
        self.moves = {"forced": 0, "voluntary": 0, "planned": 0}
        self._services: dict[str, _Service] = defaultdict(_Service)
        self._falls: dict[str, list[float]] = defaultdict(list)
        self._believed: dict[str, Health] = {}
        self._pending: dict[str, float] = {}  # notice → true time of its commit
        self._awaited: dict[str, str] = {}
        self._isolated = False
        self._paused = False
        self._settled_since: float | None = None
        self._undisturbed_since = 0.0
        self._isolated_until = 0.0
        self._paused_until = 0.0
        self._lost_until = 0.0
        self._full_until = 0.0
        self._kept: tuple[Any, ...] | None = None
        self._read: dict[str, tuple[bytes, Any]] = {}
        self._orders = Orders()
        self.registry = Registry(machine, self.breach)
        self.spending = Spending(machine, self)

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def breach(self, invariant: str, what: str) -> None:
        """Note that a promise was broken."""
        self._m.trace.tell("BREACH", f"{invariant}: {what}")
        self.breaches.append(Breach(invariant, self._m.time.true, what))

    def failed(self, what: str) -> None:
        """Note a defect that the daemon survived, or did not."""
        self.breach("internal", what)

    def started(self, saved: Saved) -> None:
        """Compare what a new life begins with to what the one before had committed."""
        fleet = self._fleet()
        self._believed = {name: state.health for name, state in fleet.backends.items()}
        self._isolated, self._settled_since = False, None
        self._undisturbed_since = self._m.time.true
        for name, state in fleet.services.items():
            seen = self._services[name]
            if state.epoch < seen.epoch:
                self.breach("I9", f"{name}: epoch {seen.epoch} before, {state.epoch} after a start")
            if state.epoch == seen.epoch and state.active != seen.active:
                self.breach("intent", f"{name}: {seen.active} was committed, found {state.active}")
            seen.epoch, seen.active = state.epoch, state.active
        kept, self._kept = self._kept, self._lasting()
        if kept is not None:  # what ended by itself meanwhile need not be there
            still = {name: pin for name, pin in kept[0].items() if pin.until > self._at()}
            kept = (still, *kept[1:])
        if kept is not None and kept != self._kept and not self._m.in_doubt:
            self.breach("I4", f"committed {kept}, found {self._kept} after a start")
        self._paused = fleet.world.paused_since is not None
        self.registry.started(fleet, in_doubt=self._m.in_doubt)
        for id_ in saved.outbox:
            self._pending.setdefault(id_, self._m.time.true)

    def answered(self, command: Command, answer: Answer | None) -> None:
        """Remember what the operator was told."""
        self._orders.answered(command, answer, 0.0 if answer is None else self._at())
        self.registry.answered(command, answer)

    def replied(self, call: Call, sent_at: float, status: int, said: Mapping[str, Any]) -> None:
        """Judge what an agent was told."""
        self.registry.replied(call, sent_at, status, said)

    def turned(self, turn: Turn) -> None:
        """Judge one turn, just applied."""
        self.checks += 1
        fleet, now = self._fleet(), self._m.time.true
        isolated = fleet.world.isolated_since is not None
        paused = fleet.world.paused_since is not None
        for notice in turn.notices.values():
            self._noticed(notice, now)
        self.registry.turned(turn, fleet)
        ended = {past.backend for past in turn.past}  # its end is no verdict on its health
        for entry in turn.entries:
            if entry.action == "health" and entry.subject not in ended:
                self._verdict(entry.subject, entry.data["new"], frozen=isolated and self._isolated)
            elif entry.action == "assigned":
                self._awaited_notice(turn, entry.subject, entry.data)
            self.spending.spent += entry.action == "meter_spent"
        for name, state in turn.services.items():
            if state is not None:
                self._moved(name, state, turn, paused=paused and self._paused)
        self._remember(turn, isolated=isolated, paused=paused)

    def _remember(self, turn: Turn, *, isolated: bool, paused: bool) -> None:
        """Keep what the next turn is compared with."""
        fleet, now = self._fleet(), self._m.time.true
        if self._isolated and not isolated:
            self._isolated_until = now
        if self._paused and not paused:
            self._paused_until = now
        if turn.world is not None and turn.world.settled and self._settled_since is None:
            self._settled_since = now
        for name in turn.backends:
            self._believed[name] = fleet.backends[name].health
        self._isolated, self._paused = isolated, paused
        if turn.durable:
            self._kept = self._lasting()

    def _lasting(self) -> tuple[Any, ...]:
        """Gather what an operator said, which must survive a kill once committed."""
        fleet = self._fleet()
        held = ((name, state.pin) for name, state in fleet.services.items())
        pins = {name: pin for name, pin in held if pin is not None and pin.until > self._at()}
        drained = {name for name, state in fleet.backends.items() if state.drained}
        return (pins, drained, fleet.world.paused_since, fleet.world.paused_until)

    # ── I2, I4, I7, I9: at each turn ────────────────────────────────────────────────────────────

    def _verdict(self, name: str, health: str, *, frozen: bool) -> None:
        spec = self._fleet().config.backends[name]
        place, now = self.registry.place(name), self._m.time.true
        if health != Health.DOWN:
            return
        power = self._fleet().backends[name].power
        resting = power is not None and power.phase in (PowerPhase.OFF, PowerPhase.STOPPING)
        if self._believed.get(name) in ALIVE and not resting:
            self._falls[name].append(now)
        if spec.remote and frozen:
            self.breach("I7", f"{name} is called down while isolated")
        if spec.remote and place.fit and now - place.fit_since > ONLY_US_S:
            self.breach("I7", f"{name} is called down, and the fault was ours")

    def _moved(self, name: str, state: ServiceState, turn: Turn, *, paused: bool) -> None:
        seen = self._services[name]
        if state.epoch < seen.epoch:
            self.breach("I9", f"{name}: epoch went from {seen.epoch} to {state.epoch}")
        if state.active != seen.active:
            if state.epoch <= seen.epoch:
                self.breach("I9", f"{name}: moved to {state.active} without a new epoch")
            if paused:
                self.breach("I4", f"{name}: moved to {state.active} while paused")
            if seen.active is not None and state.active is not None:
                self._judge_move(name, seen, state, turn)
        pin = state.pin
        if pin is not None and pin.hard and state.active != pin.backend and not paused:
            self.breach("I4", f"{name}: pinned hard to {pin.backend}, served by {state.active}")
        seen.epoch, seen.active = state.epoch, state.active

    def _judge_move(self, name: str, seen: _Service, state: ServiceState, turn: Turn) -> None:
        """Tell a voluntary move from the others, and hold it to its limits."""
        fleet, now = self._fleet(), self._m.time.true
        assert seen.active is not None
        assert state.active is not None
        old, spec = fleet.backends[seen.active], fleet.config.backends
        well = old.health is Health.UP and self._believed.get(seen.active) is Health.UP
        out = old.denied or (old.cooldown_until or 0) > self._at() or old.drained
        out = out or barred(old, self._at()) or self.registry.unprovable(seen.active)
        pinned = state.pin is not None and state.pin.hard and state.pin.backend == state.active
        if turn.answer is not None or state.rotation is not None or pinned:
            self.moves["planned"] += 1
            return
        if not well or out:
            self.moves["forced"] += 1
            return
        self.moves["voluntary"] += 1
        pool, pin = fleet.config.services[name].backends, state.pin
        wanted = pin is not None and pin.backend == state.active
        if not wanted and pool.index(state.active) > pool.index(seen.active):
            self.breach("I2", f"{name}: to {state.active}, which is worse than {seen.active}")
        lately = [at for at in seen.voluntary if now - at < HOUR_S - ROUNDING_S]
        free = spec[seen.active].tier is Tier.PAID and spec[state.active].tier is Tier.FREE
        if lately and now - lately[-1] < APART_S - ROUNDING_S:
            self.breach("I2", f"{name}: two voluntary moves within {now - lately[-1]:.1f} s")
        if len(lately) >= MOVES_AN_HOUR and not free:
            self.breach("I2", f"{name}: {len(lately) + 1} voluntary moves within an hour")
        flaps = sum(now - at < HOUR_S for at in self._falls[state.active]) >= FLAPS
        wait_s = fleet.config.services[name].failback_after_s * (2 if flaps else 1)
        well_s = now - self.registry.place(state.active).bad_seen
        if well_s < wait_s - ROUNDING_S:
            self.breach("I2", f"{name}: to {state.active}, well for only {well_s:.0f} s")
        seen.voluntary = [*lately, now]

    # ── I3: notices ─────────────────────────────────────────────────────────────────────────────

    def _awaited_notice(self, turn: Turn, service: str, data: Any) -> None:
        if data["new"] and f"moved:{service}:{data['epoch']}" not in turn.notices:
            self.breach("I3", f"{service}: a move to {data['new']} without a notice")

    def _noticed(self, notice: Notice, now: float) -> None:
        if notice.sent_at is None:
            self._pending.setdefault(notice.id, now)
            known = self._awaited.setdefault(notice.id, f"{notice.kind} {notice.topic}")
            if known != f"{notice.kind} {notice.topic}":
                self.breach("I3", f"the id {notice.id} means {known} and {notice.kind}")
        elif notice.id not in self._m.phone.arrived:
            self.breach("I3", f"{notice.id} counts as sent and never arrived")

    def _check_notices(self, now: float) -> None:
        phone, up = self._m.phone, self._m.up_since
        for id_ in [id_ for id_ in self._pending if id_ in phone.arrived]:
            del self._pending[id_]
        if up is None or phone.works_since is None or self._m.world.network_lost:
            return
        since = max(up, phone.works_since, self._lost_until, self._isolated_until)
        since = max(since, self._m.asleep_until, self._full_until)
        if self._isolated or self._m.disk.full:
            return
        for id_, at in list(self._pending.items()):
            if now - max(at, since) > NOTIFIED_S:
                self.breach("I3", f"{id_} did not arrive for {now - max(at, since):.0f} s")
                del self._pending[id_]

    def _check_duplicates(self) -> None:
        """At most one repeat for each kill between the first and the last arrival."""
        for id_, arrivals in self._m.phone.arrived.items():
            kills = arrivals[-1].lives - arrivals[0].lives
            everywhere = len({arrival.channel for arrival in arrivals}) - 1
            allowed = 1 + kills + self._m.phone.unsaid[id_] + everywhere
            if len(arrivals) > allowed:
                self.breach("I3", f"{id_} arrived {len(arrivals)} times, with {kills} kills")

    # ── I5, I4: at each write ───────────────────────────────────────────────────────────────────

    def asking(self, plan: Plan) -> None:
        """Judge what is about to be written to the zone."""
        fleet = self._fleet()
        state = fleet.services["chat"]
        service = fleet.config.services["chat"]
        assert service.dns is not None
        if fleet.world.paused_since is not None or fleet.world.isolated_since is not None:
            self.breach("I4", "a write while paused or isolated")
        active = fleet.backends.get(state.active or "")
        theirs = fleet.config.backends[active.name].targets if active is not None else ()
        possible = {t.content for t in (theirs or service.dns.gateway)}
        for change in plan.changes:
            if change.after is not None and change.after.content not in possible:
                self.breach("I5", f"{change.after.content} is written, active is {state.active}")
            if change.before is not None:
                self._judge_overwritten(change.before.id, state)
            self._judge_epoch(change.after)
        hard = state.pin is not None and state.pin.hard
        shown = active is not None and theirs and not hard
        if shown and active.health not in (*ALIVE, Health.UNKNOWN):
            self.breach("I5", f"{active.name} is published and {active.health}")

    def _judge_overwritten(self, id_: str, state: ServiceState) -> None:
        record = self._m.zone.records.get(id_)
        if record is None or state.publication.adopt:
            return
        signed = signature(record.comment)
        if signed is not None and signed[0] != "sim":
            self.breach("I5", f"the record of {signed[0]} is overwritten")
        elif signed is None and id_ not in state.publication.record_ids:
            self.breach("I5", f"a foreign record is overwritten: {record.content}")

    def _judge_epoch(self, record: Any) -> None:
        signed = signature(record.comment) if record is not None else None
        for standing in self._m.zone.standing():
            before = signature(standing.comment)
            if signed and before and before[0] == "sim" and signed[1] < before[1]:
                self.breach("I9", f"epoch {signed[1]} is written over {before[1]}")

    # ── every few seconds ───────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Judge what can be seen from outside now."""
        m, now = self._m, self._m.time.true
        if m.world.network_lost:
            self._lost_until = now
        if m.disk.full:
            self._full_until = now
        self.spending.look()
        if now < m.asleep_until:
            return
        self._check_notices(now)
        if m.up_since is None:
            return
        if self._settled_since is None and now - m.up_since > READY_S:
            self._settled_since = m.up_since + READY_S
        for name in self._fleet().config.services:
            self._look_at(name, now)
        self._check_endings()
        woke_at = max(m.asleep_until, self._undisturbed_since, self._full_until)
        self.registry.look(calm_since=woke_at)
        self.spending.awake()

    def _look_at(self, name: str, now: float) -> None:
        shown = self._shown(name)
        state = self._fleet().services[name]
        active = (shown.get("active") or {}).get("backend")
        if shown["epoch"] != state.epoch or active != state.active:
            self.breach("I5", f"{name}: discovery says {active}, decided is {state.active}")
        if state.active is None:
            return
        if self._fleet().config.backends[state.active].registers:
            self.registry.shown(state.active, shown["active"]["url"])
        dead_for = self._dead_for(name, state.active, now)
        if dead_for > LEAVE_S:
            self._once(name, "I1", f"{name}: {state.active} is dead and shown, {dead_for:.0f} s")
        if name == "chat" and self._dns_well(state, now):
            self._look_at_record(now)

    def _shown(self, service: str) -> Any:
        """Give what discovery says; most of the time it is what it said before."""
        body = self._m.ask(f"/discovery/{service}")
        assert body is not None
        before = self._read.get(service)
        if before is None or before[0] != body:
            before = self._read[service] = (body, json.loads(body))
        return before[1]

    def _dead_for(self, service: str, name: str, now: float) -> float:
        """Say for how long a dead one should have been left already; 0 if it need not be."""
        place = self.registry.place(name)
        state = self._fleet().services[service]
        if state.pin is not None and state.pin.hard:
            self._services[service].hard_until = now
        calm = self.calm_since(now)
        if place.dead_since is None or calm is None:
            return 0.0
        if not any(self.stably_live(one) for one in self.others(service, name)):
            return 0.0
        since = max(place.dead_since, calm, self._services[service].hard_until)
        return now - since - self.registry.seen_later_s(name)

    def calm_since(self, now: float) -> float | None:
        """Say since when nothing excuses us; None: something does now."""
        fleet, m = self._fleet(), self._m
        excused = fleet.world.isolated_since is not None and m.world.controls_lost() >= 2
        if self._settled_since is None or m.disk.full or excused or m.world.network_lost:
            return None
        if fleet.world.paused_since is not None:
            return None
        return max(
            self._settled_since,
            m.asleep_until,
            self._lost_until,
            self._full_until,
            self._isolated_until,
            self._paused_until,
        )

    def others(self, service: str, name: str) -> Iterator[str]:
        """List who else is there for a service."""
        fleet = self._fleet()
        for one in fleet.config.services[service].backends:
            if one != name and not fleet.backends[one].drained:
                yield one

    def stably_live(self, name: str) -> bool:
        """Say whether a backend could serve, and the daemon had the time to see it."""
        if barred(self._fleet().backends[name], self._at()):
            return False
        now, since = self._m.time.true, self.registry.well_since(name)
        good = since is not None and now - since > STABLE_S
        return good and now - self.registry.place(name).busy_seen > BUSY_S

    def _dns_well(self, state: ServiceState, now: float) -> bool:
        z = self._m.zone
        meddled = z.others_at is not None and state.publication.trouble in HELD
        well = z.ill is Ill.WELL and now - z.well_since > DNS_WELL_S
        return well and self._m.time.monotonic() - z.held_until > LEAVE_S and not meddled

    def _look_at_record(self, now: float) -> None:
        standing = {record.content for record in self._m.zone.standing()}
        for name, spec in self._fleet().config.backends.items():
            if {target.content for target in spec.targets} & standing:
                dead_for = self._dead_for("chat", name, now)
                if dead_for > LEAVE_S:
                    what = f"{name} is dead and the name points at it, {dead_for:.0f} s"
                    self._once("chat", "I1", what)

    def _once(self, service: str, invariant: str, what: str) -> None:
        """Tell of one trouble once: not again until that service has moved on."""
        key = (what.partition(",")[0], float(self._services[service].epoch))
        if key not in self._services[service].told:
            self._services[service].told.add(key)
            self.breach(invariant, what)

    def _check_endings(self) -> None:
        fleet, at = self._fleet(), self._at()
        for service, what in self._orders.dropped(fleet, at):
            self._once(service or next(iter(fleet.services)), "I4", what)
        if self._m.disk.full or self._full_until > self._m.time.true - 2 * OVER_S:
            return
        awake = self._m.time.true - max(self._m.asleep_until, self._undisturbed_since) > 2 * OVER_S
        until = fleet.world.paused_until
        if until is not None and at > until + OVER_S and awake:
            self._once(next(iter(fleet.services)), "I4", "a pause is over and stands")
        for name, state in fleet.services.items():
            if state.pin is not None and at > state.pin.until + OVER_S and awake:
                self._once(name, "I4", f"{name}: a pin is over and stands")

    # ── I8, and the end ─────────────────────────────────────────────────────────────────────────

    def converged(self) -> None:
        """Judge that all is well again; called when it must be."""
        m, now = self._m, self._m.time.true
        if m.up_since is None:
            self.breach("I8", "the daemon is not up")
            return
        fleet = self._fleet()
        if fleet.world.isolated_since is not None:
            self.breach("I8", "it still thinks that its network is lost")
        for name, state in fleet.backends.items():
            place = self.registry.place(name)
            run = self.registry.awaited(name)
            if run is not None:
                self.breach("I8", f"{run} lives with a good token and does not serve")
            if self.registry.comes_and_goes(name):
                continue
            waits = (state.cooldown_until or 0.0) > self._at() or now - place.busy_seen < BUSY_S
            if state.health not in ALIVE and not waits:
                self.breach("I8", f"{name} is well and called {state.health}: {state.reason}")
        for name, state in fleet.services.items():
            if state.active is None or fleet.backends[state.active].health not in ALIVE:
                self.breach("I8", f"{name} is served by {state.active}: {state.reason}")
        if m.time.monotonic() - m.zone.held_until > CONVERGED_S:
            self._check_record(fleet.services["chat"])

    def _check_record(self, state: ServiceState) -> None:
        fleet = self._fleet()
        dns = fleet.config.services["chat"].dns
        assert dns is not None
        theirs = fleet.config.backends[state.active].targets if state.active else ()
        wanted = {(t.type, t.content) for t in (theirs or dns.gateway)}
        standing = {(record.type, record.content) for record in self._m.zone.standing()}
        if standing != wanted:
            trouble = state.publication.trouble
            self.breach("I8", f"the record is {standing}, not {wanted}; trouble: {trouble}")

    def best_serve(self) -> None:
        """Judge that after a long calm everybody's favourite serves, and no incident is open."""
        fleet = self._fleet()
        for name, state in fleet.services.items():
            pool = fleet.config.services[name].backends
            lasting = (one for one in pool if self.registry.lasting(one))
            best = next(one for one in lasting if not self.registry.waits(one))
            if state.active not in pool[: pool.index(best) + 1]:
                self.breach("I8", f"{name}: after hours of calm {state.active}, not {best}")
        for incident in fleet.incidents.values():
            if incident.kind == "flapping":
                continue  # remembered for as many hours as it has doublings
            if self.registry.excused(incident.kind, incident.subject):
                continue
            self.breach("I8", f"after hours of calm the incident {incident.key} is open")

    def finished(self) -> None:
        """Judge the whole, at the end."""
        self._check_notices(self._m.time.true)
        self._check_duplicates()
        bystander = self._m.zone.records.get("r-txt")
        if bystander is None or bystander.type != "TXT":
            self.breach("I5", "a record that is not ours was touched")

    # ── small ───────────────────────────────────────────────────────────────────────────────────

    def _fleet(self) -> Any:
        assert self._m.assembly is not None
        return self._m.assembly.loop.fleet

    def _at(self) -> float:
        assert self._m.assembly is not None
        return self._m.assembly.loop.now().at
