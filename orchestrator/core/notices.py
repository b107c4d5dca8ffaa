"""What the operator hears: incidents derived from the state, and a notice for each of their turns.

An incident is level-triggered: what is wrong now is compared with what is open. So nothing is told
twice, and nothing that stands is forgotten. What a bigger incident explains is not told at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core import demand, metering
from orchestrator.core.boots import resting
from orchestrator.core.draft import Draft
from orchestrator.core.events import Deliver
from orchestrator.core.health import ALIVE, flap_level
from orchestrator.core.lives import PowerPhase
from orchestrator.core.model import (
    BackendState,
    DnsTrouble,
    Health,
    Incident,
    Notice,
    NoticeKind,
    ServiceState,
    Severity,
)
from orchestrator.core.purses import hours_left
from orchestrator.core.specs import Tier

REFUSED_S = 20.0  # a provider that does not let us for so long
UNREAD_S = 900.0  # a provider that does not say for so long how a backend is
STOPPING_S = 600.0  # what is stopped is off by then
PATIENCE_S = 300.0  # a DNS API out of reach is told after this long: discovery and gateway go on
ASKED_EARLY = "start_soon"  # opened and closed by `lookahead`
TIERS = list(Tier)
FLAGS: Mapping[str, Severity] = {
    "alerts_down": Severity.WARNING,
    "disk_full": Severity.CRITICAL,
    "job_quarantined": Severity.WARNING,
    "name_unreachable": Severity.CRITICAL,
    "backup_failed": Severity.WARNING,
    "backup_stale": Severity.CRITICAL,
    "backup_filling": Severity.WARNING,
    "config_refused": Severity.WARNING,
    "replaced": Severity.CRITICAL,
}
OF_BACKEND = (
    "backend_down",
    "denied",
    "canary_failing",
    "models_missing",
    "flapping",
    "session_ending",
    "start_failed",
    "went_off",
    "stop_failed",
)
OF_SERVICE = (
    "service_down",
    "hard_pin_dead",
    "paused_dead",
    "restart_needed",
    *(f"dns_{trouble.value}" for trouble in DnsTrouble),
)
OF_METER = metering.KINDS
OF_WORLD = ("isolated", "inbound_lost", "paused")


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that is wrong now. `quiet`: a bigger incident explains it, so it is not opened."""

    kind: str
    subject: str
    severity: Severity
    params: Mapping[str, str] = field(default_factory=dict)
    quiet: bool = False

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.subject}"


def update(draft: Draft) -> None:
    """Compare what is wrong with what is open, for every subject that this turn stirred.

    Nothing is over before everything was looked at once since the start.
    """
    if "" in draft.stirred:
        _compare(draft, OF_WORLD, "", list(_of_world(draft)))
    for subject in draft.stirred:
        if subject in draft.config.backends:
            _compare(draft, OF_BACKEND, subject, list(_of_backend(draft, subject)))
        elif subject:
            _compare(draft, OF_BACKEND, subject, [])
        if subject in draft.config.services:
            _compare(draft, OF_SERVICE, subject, list(_of_service(draft, subject)))
        elif subject:
            _compare(draft, OF_SERVICE, subject, [])
        _compare(draft, OF_METER, subject, list(_of_meter(draft, subject)))
    for (kind, subject), detail in draft.flags.items():
        _compare_flag(draft, kind, subject, detail)


def _compare(draft: Draft, kinds: tuple[str, ...], subject: str, wrongs: list[Wrong]) -> None:
    wanted = {wrong.key: wrong for wrong in wrongs}
    for kind in kinds:
        key = f"{kind}:{subject}"
        wrong, found = wanted.get(key), draft.incident(key)
        if wrong is not None and found is None and not wrong.quiet:
            open_incident(draft, wrong)
        elif wrong is None and found is not None and draft.world.settled:
            close_incident(draft, found)
        elif wrong is not None and found is not None and wrong.params != found.params:
            draft.incidents[key] = replace(found, params=wrong.params)
            draft.durable |= _told_of(wrong.params) != _told_of(found.params)


def _told_of(params: Mapping[str, str]) -> dict[str, str]:
    """Give what of an incident is worth a write: not how its looks fail, which changes with each.

    Where an agent and a probe complain of different things, that is every second.
    """
    return {name: value for name, value in params.items() if name != "reason"}


def _compare_flag(draft: Draft, kind: str, subject: str, detail: str) -> None:
    severity = FLAGS.get(kind, Severity.WARNING)
    params = {"subject": subject, "detail": detail}
    wrongs = [Wrong(kind, subject, severity, params)] if detail else []
    _compare(draft, (kind,), subject, wrongs)


# ── what is wrong ───────────────────────────────────────────────────────────────────────────────


def _of_world(draft: Draft) -> Iterator[Wrong]:
    world = draft.world
    if world.isolated_since is not None:
        params = {"failed": str(world.controls_failed), "total": str(draft.config.controls)}
        yield Wrong("isolated", "", Severity.CRITICAL, params)
    if world.inbound_lost_since is not None:
        sessions = sum(1 for state in draft.fleet.backends.values() if state.session is not None)
        yield Wrong("inbound_lost", "", Severity.CRITICAL, {"sessions": str(sessions)})
    if world.paused_since is not None:
        until = "" if world.paused_until is None else f"{world.paused_until:.0f}"
        yield Wrong("paused", "", Severity.INFO, {"until": until, "by": world.paused_by})


def _of_backend(draft: Draft, name: str) -> Iterator[Wrong]:
    state, spec = draft.backend(name), draft.config.backends[name]
    params = {"backend": name, "reason": state.reason}
    quiet = _explained(draft, name) or not draft.world.settled
    was_open = draft.incident(f"backend_down:{name}") is not None
    # What registers and was not lost is not broken: nobody has started it.
    absent = spec.registers and state.session is None and not was_open
    away = absent or resting(spec, state)
    if not away and (state.health is Health.DOWN or (was_open and state.health not in ALIVE)):
        yield Wrong("backend_down", name, Severity.WARNING, params, quiet=quiet)
    if state.denied:
        denied = {"backend": name, "reason": state.denied}
        yield Wrong("denied", name, Severity.WARNING, denied, quiet=quiet)
    was_failing = draft.incident(f"canary_failing:{name}") is not None
    untried = spec.health.canary_s is not None and state.canary_at is None
    if state.health is Health.DEGRADED or (was_failing and untried):
        yield Wrong("canary_failing", name, Severity.WARNING, params, quiet=quiet)
    if state.missing and state.health in ALIVE:
        missing = {"backend": name, "models": ", ".join(state.missing)}
        yield Wrong("models_missing", name, Severity.WARNING, missing)
    level = flap_level(state, draft.at)
    if level:
        yield _flapping(state, level)
    session = state.session
    if session is not None and session.ends_at is not None:
        left_s = session.ends_at - draft.at
        if 0 < left_s <= spec.warn_before_s:
            ending = {"backend": name, "ends_at": f"{session.ends_at:.0f}"}
            if spec.restart_url is not None:
                ending["url"] = spec.restart_url
            told = _asked_early(draft, name)
            yield Wrong("session_ending", name, Severity.WARNING, ending, quiet=told)
    if spec.powered:
        yield from _of_power(draft, state)


def _of_power(draft: Draft, state: BackendState) -> Iterator[Wrong]:
    """Say what is wrong with starting and stopping it."""
    power = state.power
    if power is None or draft.isolated_from(draft.config.backends[state.name]):
        return
    up = power.phase is PowerPhase.ON and power.booted and state.health in ALIVE
    read_at = power.confirmed_at if power.confirmed_at is not None else draft.world.started_at
    unread = bool(power.detail) and draft.at - read_at >= UNREAD_S
    # A key that it does not take is no matter of waiting: said twice, it is so.
    unread |= power.refused_at is not None and draft.at - power.refused_at >= REFUSED_S
    if (power.failures and not up) or unread:
        retry = "" if power.retry_at is None else f"{power.retry_at:.0f}"
        failed = {"backend": state.name, "reason": power.detail, "retry_at": retry}
        failed |= {"unread" if unread else "failed": state.name}
        kind = "went_off" if power.lost and not unread else "start_failed"
        yield Wrong(kind, state.name, Severity.WARNING, failed)
    if power.phase is PowerPhase.STOPPING and draft.at - power.since >= STOPPING_S:
        lasting = {"backend": state.name, "reason": power.detail or power.why}
        free = draft.config.backends[state.name].tier is Tier.FREE  # it costs hours, not money
        severity = Severity.WARNING if free else Severity.CRITICAL
        yield Wrong("stop_failed", state.name, severity, lasting)


def _of_meter(draft: Draft, key: str) -> Iterator[Wrong]:
    for kind, params in metering.wrongs(draft, key).items():
        yield Wrong(kind, key, Severity.WARNING, params)


def _asked_early(draft: Draft, name: str) -> bool:
    """Say whether a human was asked already to start this one again."""
    early = (one for one in draft.open_incidents() if one.kind == ASKED_EARLY)
    return any(one.params.get("backend") == name for one in early)


def _flapping(state: BackendState, level: int) -> Wrong:
    params = {"backend": state.name, "falls": str(len(state.falls)), "wait": f"x{2**level}"}
    return Wrong("flapping", state.name, Severity.WARNING, params)


def _explained(draft: Draft, name: str) -> bool:
    """Say whether isolation, or every service of this backend being down, says it already."""
    if draft.isolated_from(draft.config.backends[name]):
        return True
    services = [draft.service(service) for service in draft.pools.get(name, ())]
    return bool(services) and all(_down(service) for service in services)


def _down(state: ServiceState) -> bool:
    return state.active is None and state.settled


def _of_service(draft: Draft, name: str) -> Iterator[Wrong]:
    state = draft.service(name)
    params = {"service": name, "reason": state.reason}
    if _down(state):
        retry = "" if state.retry_at is None else f"{state.retry_at:.0f}"
        quiet = draft.world.isolated_since is not None
        down = {**params, "retry_at": retry}
        yield Wrong("service_down", name, Severity.CRITICAL, down, quiet=quiet)
    active = state.active
    if active is not None and active in draft.config.backends:
        backend = draft.backend(active)
        dead = {"service": name, "backend": active, "reason": backend.reason}
        if backend.health is Health.DOWN and state.pin is not None and state.pin.hard:
            yield Wrong("hard_pin_dead", name, Severity.CRITICAL, dead)
        elif backend.health is Health.DOWN and draft.world.paused_since is not None:
            yield Wrong("paused_dead", name, Severity.CRITICAL, dead)
    yield from _restart(draft, state)
    yield from _dns(draft, state)


def _restart(draft: Draft, state: ServiceState) -> Iterator[Wrong]:
    """Ask the human for the best backend only a human can start, if nothing as cheap serves.

    Of those of the cheapest tier it is the one that may be on for longest, else the preferred one.
    """
    if not state.settled:
        return
    specs = draft.config.backends
    serving = specs.get(state.active or "")
    reached = len(TIERS) if serving is None else TIERS.index(serving.tier)
    if _comes_by_itself(draft, state.name, reached):
        return
    able = [name for name in draft.config.services[state.name].backends if _off(draft, name, state)]
    able = [name for name in able if TIERS.index(specs[name].tier) < reached]
    if able:
        name = min(able, key=lambda one: _worth(draft, one))
        url, reason = specs[name].restart_url or "", draft.backend(name).reason
        severity = Severity.CRITICAL if serving is None else Severity.WARNING
        params = {"backend": name, "url": url, "reason": reason}
        yield Wrong("restart_needed", state.name, severity, params)


def _off(draft: Draft, name: str, state: ServiceState) -> bool:
    """Say whether a human could start this one, and it would be of use."""
    spec, backend = draft.config.backends[name], draft.backend(name)
    was = draft.incident(f"restart_needed:{state.name}")
    asked = name == was.params.get("backend") if was is not None else False
    coming = backend.health is Health.STARTING and spec.registers and asked
    off = backend.health is Health.DOWN or coming  # what registered has not proved itself yet
    usable = not backend.drained and not demand.exhausted(backend, draft.at)
    return spec.restart_url is not None and usable and off


def _worth(draft: Draft, name: str) -> tuple[int, float]:
    """Order those that could be asked for: the cheapest tier, then most hours left."""
    config = draft.config
    left = hours_left(config.meters, draft.fleet.meters, name, draft.now.wall)
    return TIERS.index(config.backends[name].tier), -left


def _comes_by_itself(draft: Draft, service: str, reached: int) -> bool:
    """Say whether something cheaper than what serves comes without a human."""
    specs = draft.config.backends
    able = (one for one in draft.config.services[service].backends if specs[one].powered)
    return any(TIERS.index(specs[n].tier) < reached and demand.hopeful(draft, n) for n in able)


def _dns(draft: Draft, state: ServiceState) -> Iterator[Wrong]:
    record, dns = state.publication, draft.config.services[state.name].dns
    if record.trouble is None or dns is None:
        return
    if record.trouble is DnsTrouble.UNREACHABLE:
        since = record.trouble_since if record.trouble_since is not None else draft.at
        if draft.at - since < PATIENCE_S or draft.world.isolated_since is not None:
            return
    params = {"service": state.name, "name": dns.name, "detail": record.detail}
    yield Wrong(f"dns_{record.trouble.value}", state.name, Severity.WARNING, params)


# ── incidents and their notices ─────────────────────────────────────────────────────────────────


def open_incident(draft: Draft, wrong: Wrong) -> None:
    """Open an incident and tell of it."""
    number = draft.world.incident_seq + 1
    draft.change_world(incident_seq=number, durable=True)
    incident = Incident(
        id=str(number),
        key=wrong.key,
        kind=wrong.kind,
        subject=wrong.subject,
        severity=wrong.severity,
        opened_at=draft.at,
        params=wrong.params,
    )
    _tell(draft, incident, NoticeKind.OPENED, "opened")
    what = f"{wrong.kind} {wrong.subject}".rstrip()
    draft.note("incident_opened", wrong.subject, f"incident {number} opened: {what}")


def close_incident(draft: Draft, incident: Incident) -> None:
    """Close an incident and tell of it."""
    _tell(draft, replace(incident, closed_at=draft.at), NoticeKind.CLOSED, "closed")
    draft.note("incident_closed", incident.subject, f"incident {incident.id} closed")


def remind(draft: Draft) -> None:
    """Say again what stands unacknowledged; escalate what is critical."""
    policy = draft.config.alerts
    if not draft.fleet.world.settled:  # some of them are over, and closed by this very turn
        return
    for incident in list(draft.open_incidents()):
        if incident.acked_at is not None or _muted(draft, incident):
            continue
        if _explained_now(draft, incident):
            continue
        critical = incident.severity is Severity.CRITICAL
        waited_s = draft.at - incident.opened_at
        if critical and incident.escalated_at is None and waited_s >= policy.escalate_s:
            louder = replace(incident, escalated_at=draft.at)
            _tell(draft, louder, NoticeKind.ESCALATED, "escalated", everywhere=True)
        elif draft.at - incident.noticed_at >= policy.remind_s:
            again = replace(incident, reminders=incident.reminders + 1)
            _tell(draft, again, NoticeKind.REMINDER, f"reminder-{again.reminders}")


def _explained_now(draft: Draft, incident: Incident) -> bool:
    """Say whether a bigger incident explains this one, which was open before."""
    if incident.kind in OF_SERVICE:
        return draft.world.isolated_since is not None
    if incident.kind == ASKED_EARLY:
        return draft.incident(f"restart_needed:{incident.subject}") is not None
    known = incident.kind in OF_BACKEND and incident.subject in draft.config.backends
    return known and _explained(draft, incident.subject)


def acknowledge(draft: Draft, incident: Incident, by: str) -> None:
    """Note that the operator knows."""
    known = replace(incident, acked_at=draft.at, acked_by=by)
    _tell(draft, known, NoticeKind.ACKNOWLEDGED, "acknowledged")


def _muted(draft: Draft, incident: Incident) -> bool:
    return incident.muted_until is not None and draft.at < incident.muted_until


def _tell(
    draft: Draft, incident: Incident, kind: NoticeKind, turn: str, *, everywhere: bool = False
) -> None:
    draft.incidents[incident.key] = replace(incident, noticed_at=draft.at)
    draft.durable = True
    if _muted(draft, incident):
        return
    by = incident.acked_by or incident.params.get("by", "")
    params = {**incident.params, "since": f"{incident.opened_at:.0f}", "by": by}
    notice = Notice(
        id=f"{incident.id}:{turn}",
        kind=kind,
        topic=incident.kind,
        subject=incident.subject,
        severity=incident.severity,
        created_at=draft.at,
        incident=incident.id,
        params=params,
        everywhere=everywhere,
    )
    draft.notices[notice.id] = notice
    draft.do(Deliver())
