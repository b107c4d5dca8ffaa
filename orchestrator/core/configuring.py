"""What a start takes over from the store, and what a reload changes."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import metering, power, stopping
from orchestrator.core.draft import Draft, pools
from orchestrator.core.events import ProbeSoon, Reconfigured
from orchestrator.core.health import ALIVE
from orchestrator.core.lives import Session, Token
from orchestrator.core.meters import MeterState
from orchestrator.core.model import (
    BackendState,
    Fleet,
    Health,
    Incident,
    Notice,
    Now,
    ServiceState,
    World,
)
from orchestrator.core.rotation import rewound
from orchestrator.core.sessions import drop_pending, end, tokens_of, woken
from orchestrator.core.specs import Backend, FleetConfig, Service

REMOVED = "its backend is not configured any more"


def reconfigured(draft: Draft, event: Reconfigured) -> None:
    """Take a new configuration: new ones are looked at, gone ones are left."""
    old, new = draft.config, event.config
    draft.config, draft.pools = new, pools(new)
    for name in old.backends.keys() - new.backends.keys():
        stopping.abandon(draft, name)
        drop_pending(draft, name, REMOVED)
        end(draft, name, REMOVED)
        draft.backends[name] = None
        draft.stirred[name] = None
    for name in new.backends:
        if name not in draft.fleet.backends:
            draft.put_backend(
                woken(BackendState(name, since=draft.at), new.backends[name], draft.at)
            )
            draft.do(ProbeSoon(name))
        elif old.backends[name] != new.backends[name]:
            if _place(old.backends[name]) != _place(new.backends[name]):
                _move(draft, new.backends[name])
            draft.do(ProbeSoon(name))
    for name in old.services.keys() - new.services.keys():
        floor = max(draft.world.epoch_floor, draft.service(name).epoch)
        draft.change_world(epoch_floor=floor, durable=True)  # should it ever come back
        draft.services[name] = None
        draft.stirred[name] = None
    for name in new.services:
        if name not in draft.fleet.services:
            draft.put_service(ServiceState(name, since=draft.at, epoch=draft.world.epoch_floor))
        draft.stale[name] = None
        draft.put_service(_fitting(draft.service(name), new.services[name], new), durable=True)
    seeded = tokens_of(new, draft.fleet.tokens, draft.at)
    draft.tokens.update((key, seeded[key]) for key in seeded.keys() - draft.fleet.tokens.keys())
    metering.reconfigured(draft)
    if old != new:  # only secrets may differ otherwise, which the core never sees
        draft.note("reconfigured", "", "a new configuration is in force")


def _move(draft: Draft, spec: Backend) -> None:
    """Have a backend be somebody else from now on; its session ends if it has none any more."""
    if not spec.registers:
        drop_pending(draft, spec.name, "the configuration changed")
        end(draft, spec.name, "the configuration changed")
    state = _elsewhere(draft.backend(spec.name), draft.at)
    draft.put_backend(woken(state, spec, draft.at), durable=True)


def _place(spec: Backend) -> tuple[object, ...]:
    return spec.kind, spec.engine, spec.url


def _elsewhere(state: BackendState, at: float) -> BackendState:
    """Keep the verdict, in doubt, but nothing that was learned of the server it was before."""
    return BackendState(
        state.name,
        health=state.health,
        since=state.since,
        reason=state.reason,
        doubt_since=at,
        falls=state.falls,
        flap_level=state.flap_level,
        drained=state.drained,
        session=state.session,
        pending=state.pending,
        generation=state.generation,
        power=state.power,
        boots=state.boots,
        hand_starts=state.hand_starts,
    )


def _fitting(state: ServiceState, service: Service, config: FleetConfig) -> ServiceState:
    """Forget what speaks of a backend that cannot be this service's any more."""
    able = {name for name in service.backends if config.backends[name].assignable}
    if state.pin is not None and state.pin.backend not in able:
        state = replace(state, pin=None)
    if state.planned is not None and state.planned.to not in able:
        state = replace(state, planned=None)
    return state


def resumed(
    config: FleetConfig,
    now: Now,
    *,
    world: World | None = None,
    backends: dict[str, BackendState] | None = None,
    services: dict[str, ServiceState] | None = None,
    incidents: dict[str, Incident] | None = None,
    outbox: dict[str, Notice] | None = None,
    tokens: dict[str, Token] | None = None,
    meters: dict[str, MeterState] | None = None,
) -> Fleet:
    """Build the fleet at a start from what was stored.

    Verdicts become evidence: a backend that was up comes up again at its first good answer.
    Leases are renewed once, and everybody is probed at once.
    """
    world = world if world is not None else World()
    fleet = Fleet(
        config=config,
        world=World(
            started_at=now.at,
            paused_since=world.paused_since,
            paused_until=world.paused_until,
            paused_by=world.paused_by,
            incident_seq=world.incident_seq,
            epoch_floor=world.epoch_floor,
        ),
        incidents=dict(incidents or {}),
        outbox=dict(outbox or {}),
        pools=pools(config),
        tokens=tokens_of(config, tokens or {}, now.at),
        meters=dict(meters or {}),
    )
    for name, spec in config.backends.items():
        stored = (backends or {}).get(name, BackendState(name))
        fleet.backends[name] = woken(_woken(stored, spec, now.at), spec, now.at)
        if fleet.backends[name].session is not None or not spec.registers:
            fleet.unseen.add(name)
    for name, service in config.services.items():
        kept = (services or {}).get(name, ServiceState(name, since=now.at, epoch=world.epoch_floor))
        fleet.services[name] = _taken_up(_fitting(kept, service, config), now.at)
    metering.resumed(fleet, now)
    return fleet


def _taken_up(stored: ServiceState, at: float) -> ServiceState:
    turn = stored.rotation
    rotation = rewound(turn, at) if turn is not None else None
    return replace(stored, settled=False, review_at=None, rotation=rotation)


def _woken(stored: BackendState, spec: Backend, at: float) -> BackendState:
    was_up = stored.health in ALIVE
    session = stored.session if spec.registers else None  # its kind may have changed
    return BackendState(
        name=stored.name,
        since=at,
        reason="not looked at yet since the start",
        oks=max(0, spec.health.rise - 1) if was_up else 0,
        cooldown_until=stored.cooldown_until,
        exhausted_until=stored.exhausted_until,
        falls=stored.falls,
        flap_level=stored.flap_level,
        drained=stored.drained,
        missing=stored.missing,
        session=_renewed(session, at) if session else None,
        pending=stored.pending if spec.registers else None,
        generation=stored.generation,
        power=power.woken(stored.power, at),
        boots=stored.boots,
        hand_starts=stored.hand_starts,
        health=Health.UNKNOWN,
    )


def _renewed(session: Session, at: float) -> Session:
    """Grant a stored session one lease."""
    return replace(session, beat_at=at, challenged_at=None, unmet_at=None, unheard=None)
