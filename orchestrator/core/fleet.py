"""`step(fleet, event, now) -> Turn`: the only place where the rules meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.core import (
    commands,
    evidence,
    lookahead,
    metering,
    notices,
    orders,
    provider,
    publishing,
    sessions,
    switching,
    tokens,
    upkeep,
)
from orchestrator.core.assignment import FRESH_S
from orchestrator.core.configuring import reconfigured, resumed
from orchestrator.core.draft import NOTHING, Draft, apply
from orchestrator.core.events import (
    Acknowledge,
    AskControls,
    Called,
    Check,
    ControlsAnswered,
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    Drain,
    Event,
    Failover,
    Flagged,
    Mute,
    NameChecked,
    NoticesSent,
    Observed,
    Pause,
    PinTo,
    Reconfigured,
    Resume,
    Switchover,
    SyncDns,
    Tick,
    Traffic,
    Turn,
    Unpin,
)
from orchestrator.core.meters import ProviderSaid, Spent
from orchestrator.core.model import (
    BackendState,
    Clocks,
    Fleet,
    Health,
    Incident,
    Now,
    ServiceState,
)
from orchestrator.core.powering import Halt, PowerReported, Start
from orchestrator.core.refusal import Refused
from orchestrator.core.registry import (
    Challenged,
    Heartbeat,
    Left,
    MintLaunchToken,
    MintToken,
    Proved,
    Register,
    RevokeTokens,
    Tell,
)
from orchestrator.core.review import START_S, review
from orchestrator.core.rotation import rewind

__all__ = ["apply", "resumed", "step"]

GAP_S = 5.0  # not having run for longer than this is doubt about everything
ASK_AGAIN_S = 2.0  # while isolated
LOST_ANSWER_S = 10.0  # the controls answer well before; then the question itself was lost
BOOT = 2  # in a tick's clocks
SLOWLY_S = 5  # seconds between looks at what changes by time alone, in minutes or hours
ROUNDS = 6  # how often one turn may look at a choice again; each look follows a change


def step(fleet: Fleet, event: Event, now: Now) -> Turn:
    """Say what one event changes, and what to do about it. Pure: `fleet` is only read.

    A good answer of a healthy backend costs O(1) and gives the empty turn.
    """
    slept = _slept(fleet, now)
    if isinstance(event, Observed) and not slept and evidence.unchanged(fleet, event, now.at):
        return NOTHING
    draft = Draft.of(fleet, now)
    if slept:
        _doubt(draft, f"did not run for {slept:.0f} s")
    try:
        HANDLERS[type(event)](draft, event)
    except Refused as refusal:
        return replace(NOTHING, answer=refusal.answer)
    _follow_up(draft)
    return draft.turn()


def _follow_up(draft: Draft) -> None:
    """Look again at the choices that may have changed, then at what the operator should hear."""
    for _ in range(ROUNDS):
        if not draft.stale:
            break
        names, draft.stale = draft.stale, {}
        for name in names:
            if name in draft.config.services:
                review(draft, name)
    if draft.stirred or draft.flags:
        notices.update(draft)


# ── time ────────────────────────────────────────────────────────────────────────────────────────


def _slept(fleet: Fleet, now: Now) -> float:
    """Seconds for which nothing ran, if that is long enough to matter; else 0."""
    tick = fleet.tick
    if tick is None or now.at - tick[0] <= GAP_S:
        return 0.0
    return now.at - tick[0]


def _doubt(draft: Draft, why: str) -> None:
    tick = draft.tick
    gap_s = draft.at - tick[0] if tick is not None else 0.0
    # `tick` moves on so that this is said once; boot time went on as well.
    boot = tick[2] + gap_s if tick else 0.0
    draft.tick = (draft.at, draft.now.wall, boot)
    draft.change_world(gap_at=draft.at)
    draft.note("gap", "", f"{why}; everything is looked at again")
    evidence.unheard(draft, gap_s)
    evidence.doubt_all(draft)
    for name in draft.fleet.services:
        rewind(draft, name)


def _tick(draft: Draft, event: Tick) -> None:
    before = draft.tick
    draft.tick = clocks = (draft.at, draft.now.wall, event.boot)
    elapsed_s = 0.0
    if before is not None and draft.world.gap_at != draft.at:
        elapsed_s = draft.at - before[0]
        _compare_clocks(draft, before, clocks)
    _settle(draft)
    _watch_isolation(draft)
    evidence.watch_leases(draft, elapsed_s)
    sessions.watch(draft)
    paused_until = draft.world.paused_until
    if paused_until is not None and draft.at >= paused_until:
        commands.end_pause(draft, "the pause is over")
    upkeep.watch(draft)
    for name, state in draft.fleet.services.items():
        _watch_service(draft, name, state)
    if int(draft.at) % lookahead.EVERY_S == 0:
        lookahead.watch(draft)
    if int(draft.at) % SLOWLY_S == 0:
        metering.watch(draft)
        notices.remind(draft)
        _watch_incidents(draft)


def _compare_clocks(draft: Draft, before: Clocks, after: Clocks) -> None:
    """Notice a suspend (boot time ran on) and a step of the wall clock."""
    ran_s = after[0] - before[0]
    for clock, name in ((BOOT, "boot time"), (1, "the wall clock")):
        jump_s = after[clock] - before[clock] - ran_s
        if abs(jump_s) > GAP_S:
            _doubt(draft, f"{name} moved {jump_s:+.0f} s on its own")
            if clock == BOOT and jump_s > 0:
                metering.slept(draft, jump_s)
                sessions.slept(draft, jump_s)
            draft.tick = after
            return


def _settle(draft: Draft) -> None:
    """Note that everybody is decided, or that we waited long enough for it."""
    if draft.world.settled:
        return
    waited = draft.at - draft.world.started_at >= START_S
    if not waited and (draft.fleet.unseen or any(map(_undecided, draft.fleet.backends.values()))):
        return
    draft.change_world(settled=True)
    for name in draft.config.services:
        draft.stale[name] = None
    for subject in ("", *draft.config.backends):
        draft.stirred[subject] = None


def _undecided(state: BackendState) -> bool:
    return state.health is Health.UNKNOWN and not state.denied and state.cooldown_until is None


def _watch_isolation(draft: Draft) -> None:
    since, asked_at = draft.world.isolated_since, draft.world.asked_at
    if asked_at is not None and draft.at - asked_at > LOST_ANSWER_S:
        draft.change_world(asked_at=None)
        asked_at = None
    if since is not None and asked_at is None and draft.at - since >= ASK_AGAIN_S:
        draft.change_world(asked_at=draft.at)
        draft.do(AskControls())


def _watch_service(draft: Draft, name: str, state: ServiceState) -> None:
    if state.review_at is not None and draft.at >= state.review_at:
        draft.stale[name] = None
    if not state.settled and draft.at - draft.world.started_at >= FRESH_S:
        draft.stale[name] = None
    if state.planned is not None or state.rotation is not None:
        commands.planned(draft, name)
    if state.publication.trouble is not None:
        draft.stirred[name] = None


def _watch_incidents(draft: Draft) -> None:
    """Look again at what ends or changes by time alone."""
    for key, incident in draft.fleet.incidents.items():
        if incident.kind in ("flapping", "session_ending"):
            draft.stirred[incident.subject] = None
        elif incident.kind in notices.FLAGS and draft.world.settled:
            flag = (incident.kind, incident.subject)
            if flag not in draft.flags and not draft.flag(*flag):
                draft.flags[flag] = ""
        if key not in draft.incidents and _orphan(draft, incident):
            draft.stirred[incident.subject] = None
    for name, backend in draft.fleet.backends.items():
        if backend.session is not None and backend.session.ends_at is not None:
            draft.stirred[name] = None
        if backend.power is not None and (backend.power.detail or backend.power.stop_at):
            draft.stirred[name] = None


def _orphan(draft: Draft, incident: Incident) -> bool:
    """Say whether an incident's subject is gone from the configuration."""
    known = (*notices.OF_BACKEND, *notices.OF_SERVICE, *notices.OF_METER)
    names = (draft.config.backends, draft.config.services, draft.config.meters)
    return incident.kind in known and not any(incident.subject in table for table in names)


# ── small ones ──────────────────────────────────────────────────────────────────────────────────


def _sent(draft: Draft, event: NoticesSent) -> None:
    for ident in event.ids:
        notice = draft.fleet.outbox.get(ident)
        if notice is not None:
            draft.notices[ident] = replace(notice, sent_at=draft.at, channel=event.channel)
            draft.durable = True


def _flagged(draft: Draft, event: Flagged) -> None:
    before = draft.flag(event.kind, event.subject)
    if event.kind == publishing.REPLACED and event.detail and not (before or draft.observing()):
        publishing.step_back(draft)
    if before != event.detail:
        draft.flags[event.kind, event.subject] = event.detail
        draft.durable = True


def _for_service(handler: Callable[[Draft, Any], None]) -> Callable[[Draft, Any], None]:
    """Drop what speaks of a service that is gone."""

    def guarded(draft: Draft, event: Any) -> None:
        if event.service in draft.fleet.services:
            handler(draft, event)

    return guarded


def _proved(draft: Draft, event: Proved) -> None:
    sessions.proved(draft, event)
    metering.proved(draft, event.backend)


HANDLERS: dict[type, Callable[[Draft, Any], None]] = {
    Observed: evidence.observed,
    Traffic: evidence.traffic,
    Heartbeat: evidence.heartbeat,
    Challenged: evidence.challenged,
    Proved: _proved,
    Left: sessions.left,
    ControlsAnswered: evidence.controls_answered,
    Tick: _tick,
    NameChecked: _for_service(publishing.name_checked),
    DnsAttempting: _for_service(publishing.attempting),
    DnsConfirmed: _for_service(publishing.confirmed),
    DnsTroubled: _for_service(publishing.troubled),
    NoticesSent: _sent,
    Flagged: _flagged,
    Spent: metering.spent,
    ProviderSaid: metering.provider_said,
    Reconfigured: reconfigured,
    Failover: commands.failover,
    Switchover: commands.switchover,
    PinTo: commands.pin,
    Unpin: commands.unpin,
    Pause: commands.pause,
    Resume: commands.resume,
    Drain: commands.drain,
    Check: commands.check,
    SyncDns: commands.sync_dns,
    Acknowledge: commands.acknowledge,
    Mute: commands.mute,
    Called: commands.called,
    Register: sessions.register,
    Tell: orders.tell,
    MintToken: sessions.mint,
    MintLaunchToken: tokens.mint,
    RevokeTokens: sessions.revoke,
    PowerReported: provider.reported,
    Start: switching.start,
    Halt: switching.halt,
}
