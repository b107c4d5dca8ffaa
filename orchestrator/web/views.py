"""What `/api` shows: one pydantic model per noun, each built from the fleet by a function.

Their fields are a public contract: the command line prints them as they are with `--json`. Times
are RFC 3339 in UTC; null means never, not yet, or for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.core.choice import explain
from orchestrator.core.coverage import by_hand_s
from orchestrator.core.metering import FOR_GOOD_S
from orchestrator.core.model import BackendState, Fleet, Incident, Now, Publication, ServiceState
from orchestrator.core.specs import Target
from orchestrator.web import standing, viewing
from orchestrator.web.ports import EventRow, JobRow
from orchestrator.web.powering import PowerView, power_view, words
from orchestrator.web.session_views import SessionView, session_view
from orchestrator.web.standing import rfc3339

Time = viewing.Time
View = viewing.View
Tell = Callable[[Incident], str]
"""Says an incident in one sentence."""


class PinView(View):
    """The operator prefers `backend`; `hard`: whatever happens."""

    backend: str
    until: Time | None
    hard: bool


class PlannedView(View):
    """A switchover the operator scheduled."""

    to: str
    at: Time | None


class RotationView(View):
    """A make-before-break move under way."""

    old: str
    new: str
    phase: str
    since: Time | None
    why: str


class TargetView(View):
    """What a DNS name points at: `type` is A, AAAA or CNAME."""

    type: str
    content: str


class DnsView(View):
    """A service's DNS name: what is wanted, what was read back, what is in the way."""

    name: str
    wanted: list[TargetView]
    wanted_epoch: int
    confirmed: list[TargetView]
    confirmed_epoch: int
    confirmed_at: Time | None
    in_sync: bool
    trouble: str | None
    detail: str
    retry_at: Time | None


class ServiceView(View):
    """A service: who serves it, why, and what holds or plans it.

    `would`: what would be done if aion did not only observe. `backends` is its pool in order of
    preference, `fallbacks` those of it that could serve now. `review_at`: when the choice may
    change without anything happening.
    """

    name: str
    state: standing.State
    active: str | None
    url: str | None
    since: Time | None
    epoch: int
    reason: str
    settled: bool
    backends: list[str]
    fallbacks: list[str]
    would: str
    pin: PinView | None
    hold_until: Time | None
    planned: PlannedView | None
    rotation: RotationView | None
    review_at: Time | None
    retry_at: Time | None
    dns: DnsView | None


class BackendView(View):
    """A backend: what is believed of it and why. `barred`: why it cannot serve though it lives.

    `session`: the one that proved itself; `pending`: the newest that has not yet. `hand_start_s`:
    how soon nine of ten had it up after they were asked to, null before the first.
    """

    name: str
    kind: str
    engine: str
    priority: int
    tier: str
    url: str | None
    models: list[str]
    missing_models: list[str]
    health: str
    suspect: bool
    since: Time | None
    reason: str
    able: bool
    barred: str
    drained: bool
    cooldown_until: Time | None
    exhausted_until: Time | None
    falls_last_hour: int
    canary_at: Time | None
    session: SessionView | None
    pending: SessionView | None
    power: PowerView | None
    restart_url: str | None
    hand_start_s: float | None
    services: list[str]
    serves: list[str]


class IncidentView(View):
    """Something the operator should know or do. `id` is what `ack` and `mute` take."""

    id: str
    key: str
    kind: str
    subject: str
    severity: str
    text: str
    params: Mapping[str, str]
    opened_at: Time | None
    acked_at: Time | None
    acked_by: str
    muted_until: Time | None
    reminders: int
    escalated_at: Time | None


class PauseView(View):
    """aion only observes. `until` null: until it is resumed."""

    since: Time | None
    until: Time | None
    by: str


class StatusView(View):
    """Everything at a glance. `state` is the worst of the services'."""

    version: str
    instance: str
    state: standing.State
    as_of: Time | None
    started_at: Time | None
    settled: bool
    shadow: bool
    paused: PauseView | None
    isolated_since: Time | None
    notices_waiting: int
    services: list[ServiceView]
    backends: list[BackendView]
    incidents: list[IncidentView]


class EventView(View):
    """One line of the event log: `action` is a stable machine name, `who` gave the command."""

    seq: int
    at: Time | None
    action: str
    subject: str
    text: str
    data: Mapping[str, str]
    who: str


class JobView(View):
    """A scheduled job. `problem` is "" if its last run was well; `said` is what that came to."""

    name: str
    next_at: Time | None
    last_at: Time | None
    problem: str
    running: bool
    quarantined: bool
    said: str = ""


class CandidateView(View):
    """How one member of the pool stands. `note` says it in words."""

    backend: str
    health: str
    able: bool
    serves: bool
    note: str


class ExplainView(View):
    """Why this one serves, and why not each of the others."""

    service: str
    state: standing.State
    active: str | None
    epoch: int
    since: Time | None
    reason: str
    would: str
    candidates: list[CandidateView]


def service_view(fleet: Fleet, name: str, now: Now) -> ServiceView:
    """Show one configured service."""
    service = fleet.config.services[name]
    state = fleet.services.get(name) or ServiceState(name)
    active = fleet.config.backends.get(state.active or "")
    pin, planned, rotation = state.pin, state.planned, state.rotation
    return ServiceView(
        name=name,
        state=standing.service_state(fleet, name, now),
        active=state.active,
        url=standing.address(fleet, active, service) if active else None,
        since=rfc3339(state.since or None, now),
        epoch=state.epoch,
        reason=state.reason,
        settled=state.settled,
        backends=list(service.backends),
        fallbacks=[one.name for one in standing.fallbacks(fleet, service, state.active, now)],
        would=state.would,
        pin=PinView(backend=pin.backend, until=rfc3339(pin.until, now), hard=pin.hard)
        if pin
        else None,
        hold_until=rfc3339(state.hold_until, now),
        planned=PlannedView(to=planned.to, at=rfc3339(planned.at, now)) if planned else None,
        rotation=RotationView(
            old=rotation.old,
            new=rotation.new,
            phase=rotation.phase.value,
            since=rfc3339(rotation.since, now),
            why=rotation.why,
        )
        if rotation
        else None,
        review_at=rfc3339(state.review_at, now),
        retry_at=rfc3339(state.retry_at, now),
        dns=_dns(service.dns.name, state.publication, now) if service.dns else None,
    )


def _dns(name: str, publication: Publication, now: Now) -> DnsView:
    same = publication.wanted == publication.confirmed
    return DnsView(
        name=name,
        wanted=[_target(one) for one in publication.wanted],
        wanted_epoch=publication.wanted_epoch,
        confirmed=[_target(one) for one in publication.confirmed],
        confirmed_epoch=publication.confirmed_epoch,
        confirmed_at=rfc3339(publication.confirmed_at, now),
        in_sync=same
        and publication.wanted_epoch == publication.confirmed_epoch
        and publication.trouble is None,
        trouble=publication.trouble.value if publication.trouble else None,
        detail=publication.detail,
        retry_at=rfc3339(publication.retry_at, now),
    )


def _target(target: Target) -> TargetView:
    return TargetView(type=target.type, content=target.content)


def _ends(until: float | None, now: Now) -> float | None:
    """Leave out what does not come back in any time worth a date."""
    return None if until is None or until - now.at > FOR_GOOD_S else until


def backend_view(fleet: Fleet, name: str, now: Now) -> BackendView:
    """Show one configured backend."""
    backend = fleet.config.backends[name]
    state = fleet.backends.get(name) or BackendState(name)
    session = state.session
    one = standing.candidate_of(fleet, name, now)
    services = fleet.config.services.values()
    return BackendView(
        name=name,
        kind=backend.kind,
        engine=backend.engine,
        priority=backend.priority,
        tier=backend.tier.value,
        url=session.url if backend.registers and session else backend.url,
        models=list(backend.models),
        missing_models=list(state.missing),
        health=state.health.value,
        suspect=one is not None and standing.suspect(state, one),
        since=rfc3339(state.since or None, now),
        reason=state.reason,
        able=one is not None and standing.able(one),
        barred=one.barred if one else "",
        drained=state.drained,
        cooldown_until=rfc3339(state.cooldown_until, now),
        exhausted_until=rfc3339(_ends(state.exhausted_until, now), now),
        falls_last_hour=sum(now.at - fall < 3600.0 for fall in state.falls),  # noqa: PLR2004 - an hour
        canary_at=rfc3339(state.canary_at, now),
        session=session_view(name, session, now) if session else None,
        pending=session_view(name, state.pending, now) if state.pending else None,
        power=power_view(state, backend, now, fleet.config.timezone),
        restart_url=backend.restart_url,
        hand_start_s=by_hand_s(state) if state.hand_starts else None,
        services=[one.name for one in services if name in one.backends],
        serves=[one.name for one in fleet.services.values() if one.active == name],
    )


def incident_view(incident: Incident, now: Now, tell: Tell) -> IncidentView:
    """Show one open incident."""
    return IncidentView(
        id=incident.id,
        key=incident.key,
        kind=incident.kind,
        subject=incident.subject,
        severity=incident.severity.value,
        text=tell(incident),
        params=dict(incident.params),
        opened_at=rfc3339(incident.opened_at, now),
        acked_at=rfc3339(incident.acked_at, now),
        acked_by=incident.acked_by,
        muted_until=rfc3339(incident.muted_until, now),
        reminders=incident.reminders,
        escalated_at=rfc3339(incident.escalated_at, now),
    )


def incident_views(fleet: Fleet, now: Now, tell: Tell) -> list[IncidentView]:
    """Show all open incidents, oldest first."""
    ordered = sorted(fleet.incidents.values(), key=lambda one: (one.opened_at, one.id))
    return [incident_view(one, now, tell) for one in ordered]


def pause_view(fleet: Fleet, now: Now) -> PauseView | None:
    """Show the pause in force, if any; the shadow is told apart from it."""
    world = fleet.world
    if world.paused_since is None or not standing.paused(fleet, now.at):
        return None
    return PauseView(
        since=rfc3339(world.paused_since, now),
        until=rfc3339(world.paused_until, now),
        by=world.paused_by,
    )


def status_view(fleet: Fleet, now: Now, tell: Tell, version: str) -> StatusView:
    """Show everything at a glance."""
    world = fleet.world
    return StatusView(
        version=version,
        instance=fleet.config.instance,
        state=standing.worst(fleet, now),
        as_of=rfc3339(now.at, now),
        started_at=rfc3339(world.started_at or None, now),
        settled=world.settled,
        shadow=fleet.config.shadow,
        paused=pause_view(fleet, now),
        isolated_since=rfc3339(world.isolated_since, now),
        notices_waiting=len(fleet.outbox),
        services=[service_view(fleet, name, now) for name in fleet.config.services],
        backends=[backend_view(fleet, name, now) for name in fleet.config.backends],
        incidents=incident_views(fleet, now, tell),
    )


def event_view(row: EventRow) -> EventView:
    """Show one line of the event log."""
    return EventView(
        seq=row.seq,
        at=rfc3339(row.wall, Now(row.wall, row.wall)),
        action=row.action,
        subject=row.subject,
        text=row.text,
        data=dict(row.data),
        who=row.who,
    )


def job_view(job: JobRow, now: Now) -> JobView:
    """Show one job."""
    ahead_s = now.at - now.wall

    def shown(wall: float | None) -> Time | None:
        return rfc3339(None if wall is None else wall + ahead_s, now)

    return JobView(
        name=job.name,
        next_at=shown(job.next_at),
        last_at=shown(job.last_at),
        problem=job.problem,
        running=job.running,
        quarantined=job.quarantined,
        said=job.said,
    )


def explain_view(fleet: Fleet, name: str, now: Now) -> ExplainView:
    """Say why this one serves and why not the others, in the choice's own words."""
    service = fleet.config.services[name]
    state = fleet.services.get(name) or ServiceState(name)
    pool = (standing.candidate_of(fleet, one, now, service) for one in service.backends)
    known = [one for one in pool if one is not None]
    notes = explain(known, state.active, now.at)
    return ExplainView(
        service=name,
        state=standing.service_state(fleet, name, now),
        active=state.active,
        epoch=state.epoch,
        since=rfc3339(state.since or None, now),
        reason=state.reason,
        would=state.would,
        candidates=[
            CandidateView(
                backend=one.name,
                health=one.health.value,
                able=standing.able(one),
                serves=one.name == state.active,
                note="; ".join(filter(None, (notes[one.name], words(fleet, one.name, now)))),
            )
            for one in known
        ],
    )
