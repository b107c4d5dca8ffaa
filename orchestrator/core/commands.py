"""What the operator asks for. Each command is answered; one that cannot be done changes nothing."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core import notices
from orchestrator.core.assignment import assign, candidate, failed, pool_of
from orchestrator.core.choice import Candidate, Rank, trouble
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import (
    Acknowledge,
    Answer,
    Called,
    CanarySoon,
    Check,
    Drain,
    Failover,
    Mute,
    Pause,
    PinTo,
    ProbeSoon,
    Reconcile,
    Resume,
    Switchover,
    SyncDns,
    Unpin,
)
from orchestrator.core.model import Health, Incident, Phase, Pin, Planned, Rotation
from orchestrator.core.refusal import Refused, known
from orchestrator.core.review import PLANNED, review
from orchestrator.core.rotation import advance, rewind, rotate
from orchestrator.core.specs import Service

HOLD_S = 3600.0  # a manual failover stands this long before failback may undo it


def _member(draft: Draft, service: str, backend: str) -> None:
    known(draft, service, "service")
    known(draft, backend, "backend")
    if backend not in draft.config.services[service].backends:
        raise Refused(f"backend `{backend}` is not in the pool of `{service}`")
    if not draft.config.backends[backend].assignable:
        raise Refused(f"`{backend}` is an API: requests to it go through the gateway")


def _able(draft: Draft, service: Service, to: Candidate, refusal: str) -> None:
    """Refuse a move that would be undone at once, because somebody else serves better."""
    best = max(one.rank for one in pool_of(draft, service))
    if to.rank < Rank.LAST or (to.rank < Rank.READY and to.rank < best):
        raise Refused(refusal)


def _not_observing(draft: Draft) -> None:
    if draft.config.shadow:
        raise Refused("this daemon only observes (--shadow)")
    if draft.world.paused_since is not None:
        raise Refused("aion is paused; `aion resume` first")


def failover(draft: Draft, command: Failover) -> None:
    """Move now. It stands for an hour before failback may undo it."""
    known(draft, command.service, "service")
    _not_observing(draft)
    state = draft.service(command.service)
    service = draft.config.services[command.service]
    if command.to is not None:
        _member(draft, command.service, command.to)
        to = candidate(draft, draft.config.backends[command.to], service)
        if to.name == state.active:
            draft.answer = Answer(f"{command.service} is served by {to.name} already")
            return
        _able(draft, service, to, f"{trouble(to)}; `aion pin --hard` would move there all the same")
    else:
        able = [one for one in pool_of(draft, service) if one.name != state.active]
        able = sorted((one for one in able if one.rank >= Rank.LAST), key=lambda one: -one.rank)
        if not able:
            raise Refused(f"nobody else can serve {command.service}")
        to = able[0]
    held = replace(state, hold_until=draft.at + HOLD_S, pin=_unless(state.pin, to.name))
    assign(draft, command.service, to.name, "the operator moved it", state=held)
    draft.stale[command.service] = None
    draft.answer = Answer(
        f"{command.service} is served by {to.name} now; it is not moved back within the hour"
    )


def _unless(pin: Pin | None, to: str) -> Pin | None:
    """Keep a pin only if it does not contradict the newer command."""
    return pin if pin is not None and pin.backend == to else None


def switchover(draft: Draft, command: Switchover) -> None:
    """Plan a make-before-break move, or begin it when its time has come."""
    _member(draft, command.service, command.to)
    _not_observing(draft)
    state = draft.service(command.service)
    if command.at > draft.at:
        planned = Planned(command.to, command.at)
        draft.put_service(replace(state, planned=planned), durable=True)
        text = f"{command.service} moves to {command.to} in {spoken(command.at - draft.at)}"
        draft.note("switchover_planned", command.service, text)
        draft.answer = Answer(text)
        return
    service = draft.config.services[command.service]
    to = candidate(draft, draft.config.backends[command.to], service)
    if to.name == state.active:
        draft.answer = Answer(f"{command.service} is served by {to.name} already")
        return
    _able(draft, service, to, trouble(to))
    begin_switchover(draft, command.service, command.to)
    draft.answer = Answer(f"{command.to} is made ready to follow {state.active or 'nobody'}")


def begin_switchover(draft: Draft, name: str, to: str) -> None:
    """Begin a planned move that the operator asked for."""
    state = draft.service(name)
    turn = state.rotation if state.rotation is not None and state.rotation.new == to else None
    state = replace(state, planned=None, pin=_unless(state.pin, to), rotation=turn)
    draft.put_service(replace(state, rotation_failed_at=None), durable=True)
    hold_until = draft.at + HOLD_S
    if state.active is None:
        held = replace(draft.service(name), hold_until=hold_until)
        assign(draft, name, to, PLANNED, state=held)
        return
    rotate(draft, name, to, PLANNED, hold_until=hold_until)


def pin(draft: Draft, command: PinTo) -> None:
    """Prefer a backend; if it can serve, it does so at once."""
    _member(draft, command.service, command.backend)
    state = draft.service(command.service)
    wanted = Pin(command.backend, draft.at + command.for_s, command.hard)
    plan = state.planned
    if plan is not None and plan.to != command.backend and plan.at < wanted.until:
        text = f"{command.service}: the move to {plan.to} is off, as the pin is newer"
        draft.note("switchover_off", command.service, text)
        plan = None
    draft.put_service(replace(state, pin=wanted, hold_until=None, planned=plan), durable=True)
    how = "hard " if command.hard else ""
    draft.note("pinned", command.service, f"{command.service} is pinned {how}to {command.backend}")
    service = draft.config.services[command.service]
    one = candidate(draft, draft.config.backends[command.backend], service)
    able = command.hard or one.rank is Rank.READY
    if able and not draft.observing() and state.active != command.backend:
        assign(draft, command.service, command.backend, f"pinned {how}by the operator")
    draft.stale[command.service] = None
    text = f"{command.service} is pinned {how}to {command.backend}"
    later = "" if able else f"; {trouble(one)}, so it serves once it can"
    draft.answer = Answer(f"{text} for {spoken(command.for_s)}{later}")


def unpin(draft: Draft, command: Unpin) -> None:
    """End a pin."""
    known(draft, command.service, "service")
    state = draft.service(command.service)
    if state.pin is None:
        draft.answer = Answer(f"{command.service} is not pinned")
        return
    draft.put_service(replace(state, pin=None), durable=True)
    draft.note("unpinned", command.service, f"{command.service} is no longer pinned")
    draft.stale[command.service] = None
    draft.answer = Answer(f"{command.service} is no longer pinned")


def pause(draft: Draft, command: Pause) -> None:
    """Observe only."""
    until = None if command.for_s is None else draft.at + command.for_s
    draft.change_world(
        paused_since=draft.at, paused_until=until, paused_by=command.by, durable=True
    )
    draft.stirred[""] = None
    for name in draft.config.services:
        draft.stale[name] = None
    draft.note("paused", "", "paused: aion observes and publishes nothing")
    ends = "until `aion resume`" if command.for_s is None else f"for {spoken(command.for_s)}"
    draft.answer = Answer(f"paused {ends}; nothing is published meanwhile")


def resume(draft: Draft, _command: Resume) -> None:
    """End a pause."""
    if draft.world.paused_since is None:
        draft.answer = Answer("aion is not paused")
        return
    end_pause(draft, "resumed by the operator")
    draft.answer = Answer("resumed")


def end_pause(draft: Draft, why: str) -> None:
    """End a pause; everything is looked at again."""
    draft.change_world(paused_since=None, paused_until=None, paused_by="", durable=True)
    draft.stirred[""] = None
    for name in draft.config.services:
        draft.stale[name] = None
        rewind(draft, name)
        draft.do(Reconcile(name))
    draft.note("resumed", "", why)


def drain(draft: Draft, command: Drain) -> None:
    """Take a backend out of rotation, once a successor is published; or put it back."""
    known(draft, command.backend, "backend")
    state = draft.backend(command.backend)
    word = "drained" if command.drained else "back in rotation"
    if state.drained == command.drained:
        draft.answer = Answer(f"{command.backend} is {word} already")
        return
    draft.put_backend(replace(state, drained=command.drained), durable=True)
    action = "drained" if command.drained else "undrained"
    draft.note(action, command.backend, f"{command.backend} is {word}")
    draft.touch(command.backend)
    for name in draft.pools.get(command.backend, ()):
        review(draft, name)
    last = [
        name
        for name in draft.pools.get(command.backend, ())
        if draft.service(name).active == command.backend and command.drained
    ]
    still = f"; it serves {', '.join(last)} until a successor is published" if last else ""
    draft.answer = Answer(f"{command.backend} is {word}{still}")


def check(draft: Draft, command: Check) -> None:
    """Look at a backend now."""
    known(draft, command.backend, "backend")
    draft.do(ProbeSoon(command.backend))
    if draft.config.backends[command.backend].health.canary_s is not None:
        draft.do(CanarySoon(command.backend))
    draft.answer = Answer(f"{command.backend} is being looked at")


def sync_dns(draft: Draft, command: SyncDns) -> None:
    """Take over whatever stands at the service's name."""
    known(draft, command.service, "service")
    _not_observing(draft)
    if draft.config.services[command.service].dns is None:
        raise Refused(f"{command.service} has no DNS name")
    state = draft.service(command.service)
    record = replace(state.publication, adopt=True, retry_at=None)
    draft.put_service(replace(state, publication=record), durable=True)
    draft.note("dns_adopt", command.service, f"{command.service}: take over what stands there")
    draft.do(Reconcile(command.service))
    draft.answer = Answer(f"the record of {command.service} is being put right")


def acknowledge(draft: Draft, command: Acknowledge) -> None:
    """Stop the reminders of an incident."""
    incident = _incident(draft, command.incident)
    if incident.acked_at is not None:
        draft.answer = Answer(f"incident {incident.id} is acknowledged already")
        return
    notices.acknowledge(draft, incident, command.by)
    draft.note("incident_acked", incident.subject, f"incident {incident.id} acknowledged")
    draft.answer = Answer(f"incident {incident.id} is acknowledged: no more reminders")


def mute(draft: Draft, command: Mute) -> None:
    """Say nothing more of an incident for a while."""
    incident = _incident(draft, command.incident)
    until = draft.at + command.for_s
    draft.incidents[incident.key] = replace(incident, muted_until=until)
    draft.note("incident_muted", incident.subject, f"incident {incident.id} muted")
    draft.answer = Answer(f"incident {incident.id} is muted for {spoken(command.for_s)}")


def called(draft: Draft, command: Called) -> None:
    """Write down what a hook had done."""
    draft.note("hook_called", command.hook, command.text)
    draft.answer = Answer(command.text)


def _incident(draft: Draft, ident: str) -> Incident:
    for incident in draft.open_incidents():
        if incident.id == ident:
            return incident
    raise Refused(f"there is no open incident {ident!r}", "unknown")


def planned(draft: Draft, name: str) -> None:
    """Begin a planned switchover whose time has come, and take a rotation one phase on."""
    plan = draft.service(name).planned
    due = plan is not None and draft.at >= plan.at
    if plan is not None and due and draft.world.settled and not draft.observing():
        _begin_planned(draft, name, plan)
    advance(draft, name)


def _begin_planned(draft: Draft, name: str, plan: Planned) -> None:
    """Begin it, or say why it is not begun."""
    state, service = draft.service(name), draft.config.services[name]
    to = candidate(draft, draft.config.backends[plan.to], service)
    refusal = ""
    if plan.to == state.active:
        draft.note("switchover_done", name, f"{name} is served by {plan.to} already")
    elif draft.at - plan.at > HOLD_S:
        refusal = "its time passed while nothing could be moved"
    elif to.rank < Rank.LAST and (state.active is None or to.health is Health.DOWN or to.barred):
        refusal = trouble(to)
    else:
        begin_switchover(draft, name, plan.to)
        return
    draft.put_service(replace(state, planned=None), durable=True)
    if refusal:
        turn = Rotation(state.active or "", plan.to, Phase.CANARY, draft.at, PLANNED)
        failed(draft, name, turn, refusal)
