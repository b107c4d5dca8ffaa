"""The working parts and how they hang together, wherever they run.

Everything here takes its world as ports: the daemon hands in the machine's (`main`), the simulator
one in virtual time. So what is simulated is what runs, wiring included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Coroutine as Work
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

import backends
from backends.base import (
    Children,
    Http,
    Plan,
    Ports,
    Programs,
    Random,
    Registered,
    SessionPlan,
    no_programs,
)
from backends.tunnels import spared
from orchestrator.core.addresses import why_not_url
from orchestrator.core.demand import label_start
from orchestrator.core.events import (
    AskControls,
    CanarySoon,
    Challenge,
    CheckName,
    Deliver,
    ProbeSoon,
    Prove,
    Reconcile,
    Reconfigured,
    Rewire,
    Turn,
)
from orchestrator.core.fleet import resumed
from orchestrator.core.health import ALIVE, next_canary_s, next_probe_s
from orchestrator.core.lives import Session
from orchestrator.core.model import Health, Now, Source
from orchestrator.core.powering import AskPower, StartBackend, StopBackend
from orchestrator.core.registry import Left
from orchestrator.core.specs import FleetConfig
from orchestrator.edge.alerts import AlertSettings, Courier
from orchestrator.edge.clock import CarriedClock
from orchestrator.edge.controls import Controls
from orchestrator.edge.counting import Counts
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.base import DnsSettings, Provider
from orchestrator.edge.dns.publisher import Publisher
from orchestrator.edge.launching import Minter
from orchestrator.edge.names import Names
from orchestrator.edge.pacer import Pacer
from orchestrator.edge.power import Powers, powered
from orchestrator.edge.prover import Prover
from orchestrator.edge.store import Saved, Store
from orchestrator.errors import AionError
from orchestrator.loop import Loop

FLUSH_S = 1.5

log = structlog.get_logger()


class Wanted(Protocol):
    """What of the configuration the working parts need."""

    @property
    def fleet(self) -> FleetConfig: ...

    @property
    def plans(self) -> Mapping[str, Plan]: ...

    @property
    def dns(self) -> Sequence[DnsSettings]: ...

    @property
    def alerts(self) -> AlertSettings: ...

    @property
    def controls(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Outside:
    """The world as the working parts touch it; `guarded` reaches public addresses only."""

    http: Http
    guarded: Http
    clock: CarriedClock
    random: Random
    children: Children
    provider: Callable[[DnsSettings], Provider] = open_provider
    programs: Programs = no_programs


class Assembly:
    """The loop and everything that feeds it and carries out what it decides.

    `saved` is what `store` held when it was opened. `works` are the tasks to run; `settled` is set
    once everything was looked at since the start.
    """

    def __init__(self, wanted: Wanted, saved: Saved, store: Store, outside: Outside) -> None:
        clock, random = outside.clock, outside.random
        fleet = resumed(
            wanted.fleet,
            Now(clock.steady(), clock.wall()),
            world=saved.world,
            backends=saved.backends,
            services=saved.services,
            incidents=saved.incidents,
            outbox=saved.outbox,
            tokens=saved.tokens,
            meters=saved.meters,
        )
        self.settled = asyncio.Event()
        self.loop = loop = Loop(fleet, clock=clock, store=store)
        self.counts = Counts(lambda: loop.fleet, loop.report)
        http, guarded = self.counts.over(outside.http), self.counts.over(outside.guarded)
        self._wanted, self._store, self._clock = wanted, store, clock
        self._ports = Ports(http, guarded, clock, random, outside.programs, outside.children)
        self.pacer = Pacer(
            interval_s=self._interval_s,
            limit_s=self._limit_s,
            report=loop.report,
            clock=clock,
            random=random,
        )
        mint = Minter(loop.committed, random)
        self.powers = Powers(clock=clock, report=loop.report, mint=mint)
        self.prover = Prover(self._driver_at, report=loop.report, random=random)
        self._controls = Controls(wanted.controls, http=http, clock=clock, report=loop.report)
        self.publisher = Publisher(
            fleet=lambda: loop.fleet,
            report=loop.committed,
            clock=clock,
            random=random,
            provider=outside.provider,
        )
        self.names = Names(http=http, address_of=self.publisher.address_of, report=loop.report)
        self._courier = Courier(
            wanted.alerts,
            outbox=lambda: loop.fleet.outbox,
            held=lambda: loop.fleet.world.isolated_since is not None,
            report=loop.report,
            children=outside.children,
            clock=clock,
            random=random,
            told=[one.subject for one in fleet.incidents.values() if one.kind == "alerts_down"],
        )
        self._wire(loop)

    def _wire(self, loop: Loop) -> None:
        """Say who carries out which effect."""
        loop.on(ProbeSoon, lambda effect: self.pacer.soon(effect.backend))
        loop.on(Rewire, lambda effect: self._rewire(effect.backend))
        for wish in (StartBackend, StopBackend, AskPower):
            loop.on(wish, self.powers.carry)
        loop.on(Prove, lambda effect: self._prove(effect.backend))
        loop.on(Challenge, lambda effect: self._challenge(effect.backend))
        loop.on(CanarySoon, lambda effect: self._canary(effect.backend))
        loop.on(AskControls, lambda _: self._controls.ask())
        loop.on(CheckName, lambda effect: self.names.check(effect.service))
        loop.on(Deliver, lambda _: self._courier.poke())
        loop.on(Reconcile, lambda effect: self.publisher.poke(effect.service))
        loop.subscribe(self._turned)
        loop.watch(self.counts.seen)

    def works(self) -> Iterator[tuple[str, Work[Any, Any, None]]]:
        """Give what must run, by name, until it is cancelled; none of it ends by itself."""
        yield "loop", self.loop.run()
        yield "tick", self.loop.tick()
        yield "pacer", self.pacer.run()
        yield "courier", self._courier.run()
        yield "flush", self._flush()

    def begin(self) -> None:
        """Look at every backend and keep every name from now on."""
        for name in self._wanted.plans:
            self._hold_to_hosts(name)
            self._rewire(name)
        self.publisher.configure(self._wanted.dns)

    async def adopt(self, new: Wanted) -> None:
        """Put a new configuration in force; what did not change goes on undisturbed.

        Raises `StoreError` if it cannot be stored; then the old one stays in force.
        """
        old = self._wanted
        await self.loop.committed(Reconfigured(new.fleet))
        self._wanted = new
        for name, plan in new.plans.items():
            if old.plans.get(name) != plan:
                self._hold_to_hosts(name)
                self._rewire(name)
                if self.loop.fleet.backends[name].health in ALIVE:
                    self._first_canary(name)
        for name in old.plans.keys() - new.plans.keys():
            self.pacer.remove(name)
            self.powers.remove(name)
        self.publisher.configure(new.dns)
        self._controls.configure(new.controls)
        self._courier.configure(new.alerts)

    def _hold_to_hosts(self, name: str) -> None:
        """End what registered where the configuration lets it no more."""
        plan, state = self._wanted.plans[name], self.loop.fleet.backends.get(name)
        if state is None or not plan.backend.registers:
            return
        hosts, private = plan.options.allow_hosts, plan.options.allow_private
        for session in filter(None, (state.session, state.pending)):
            if why := why_not_url(session.url, hosts, allow_private=private):
                self.loop.report(Left(name, session.id, f"its address may not be used: {why}"))

    def _rewire(self, name: str) -> None:
        """Look at a backend where it is now; one that registers and has no session is nowhere."""
        plan, state = self._wanted.plans.get(name), self.loop.fleet.backends.get(name)
        if plan is None or state is None:
            return
        session, power = state.session, state.power
        plan = replace(plan, label=label_start(self._wanted.fleet.instance, name))
        if power is not None and power.address:
            plan = replace(plan, address=power.address)
        if session is not None and plan.backend.registers:
            plan = replace(plan, session=_planned(session))
        driver = backends.driver(plan, self._ports)
        able = powered(driver) if plan.backend.powered else None
        if able is not None:
            self.powers.add(name, able)
        if plan.backend.registers:
            self.pacer.remove(name)  # what a look at the old address finds is of no use
            if session is None:
                return
        self.pacer.add(name, driver)

    def _prove(self, name: str) -> None:
        state = self.loop.fleet.backends.get(name)
        if state is not None and state.pending is not None:
            self.prover.prove(name, _planned(state.pending))

    def _challenge(self, name: str) -> None:
        state = self.loop.fleet.backends.get(name)
        if state is not None and state.session is not None:
            self.prover.challenge(name, _planned(state.session))

    def _driver_at(self, name: str, session: SessionPlan) -> Registered | None:
        plan = self._wanted.plans.get(name)
        if plan is None or not plan.backend.registers:
            return None
        return backends.registered(replace(plan, session=session), self._ports)

    async def close(self) -> None:
        """Give up what is under way outside of `works`."""
        await self.powers.close()
        await self._controls.close()
        await self.prover.close()
        await self.names.close()
        await self.publisher.close()

    # ── while it runs ───────────────────────────────────────────────────────────────────────────

    def _interval_s(self, name: str, source: Source) -> float | None:
        fleet = self.loop.fleet
        state, spec = fleet.backends.get(name), fleet.config.backends.get(name)
        if state is None or spec is None:
            return None
        at = self._clock.steady()
        if source is Source.CANARY:
            return None if self._spent(name) else next_canary_s(state, spec.health, at)
        isolated = spec.remote and fleet.world.isolated_since is not None
        policy = spec.health if state.session is None else spared(spec.health, state.session.url)
        return next_probe_s(state, policy, at, isolated=isolated)

    def _limit_s(self, name: str, source: Source) -> float:
        spec = self.loop.fleet.config.backends.get(name)
        if spec is None:
            return 1.0
        canary = source is Source.CANARY
        return spec.health.canary_timeout_s if canary else spec.health.timeout_s

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.counts.flush()
            try:
                await self._store.flush()
            except AionError as error:  # statistics wait in memory; what is decided is told of
                log.warning("flush_failed", problem=str(error))

    def _turned(self, turn: Turn) -> None:
        if turn.world is not None and turn.world.settled:
            self.settled.set()
        for entry in turn.entries:
            if entry.action == "health" and entry.data.get("new") == Health.UP:
                self._first_canary(entry.subject)
            elif entry.action == "gap":  # steady seconds stood still while the machine slept
                self._store.anchor = self._clock.anchor()
            elif entry.action in ("paused", "resumed", "isolated", "reconnected"):
                self._courier.poke()
                self.publisher.poke()

    def _first_canary(self, name: str) -> None:
        spec = self.loop.fleet.config.backends.get(name)
        if spec is not None and spec.health.canary_s is not None:
            self._canary(name)

    def _canary(self, name: str) -> None:
        """Ask for a completion, unless what it would cost is used up."""
        if not self._spent(name):
            self.pacer.soon(name, Source.CANARY)

    def _spent(self, name: str) -> bool:
        state = self.loop.fleet.backends.get(name)
        until = None if state is None else state.exhausted_until
        return until is not None and until > self._clock.steady()


def _planned(session: Session) -> SessionPlan:
    return SessionPlan(session.id, session.url, session.secret)
