"""What a provider says of a backend that aion starts and stops, taken into account.

Unknown is not off: while it cannot be read how a backend is, nothing is concluded and nothing is
started. A reading that was begun before the last thing asked for says nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core import demand, metering, power, queueing
from orchestrator.core.boots import boot_s
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.events import ProbeSoon, Rewire
from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.meters import ProviderSaid
from orchestrator.core.powering import Ask, PowerReport, PowerReported, Snag

LAG_S = 30.0  # a provider may still say "off" for so long after it took a start
SHORT_S = 600.0  # what went off by itself so soon after its start has failed
ASK_AGAIN_S = 30.0  # a provider that could not say how a backend is
LONGEST_S = 900.0


def reported(draft: Draft, event: PowerReported) -> None:
    """Take a provider's answer."""
    name = event.backend
    if name not in draft.fleet.backends or not draft.config.backends[name].powered:
        return
    _used(draft, name, event.report)
    known = power.of(draft.backend(name))
    if known.asked_at is not None and event.began_at < known.asked_at:
        return
    if event.ask is Ask.START:
        _started(draft, name, known, event)
    elif event.ask is Ask.STOP:
        _stopped(draft, name, known, event)
    else:
        _read(draft, name, known, event)


def _used(draft: Draft, name: str, report: PowerReport) -> None:
    """Take its figures into account; where it gives less than we were told, that is used already.

    A figure is true whenever it was asked for, so it counts also where the rest of the report is
    too old to.
    """
    for usage in report.usage:
        spec = draft.config.meters.get(f"{name}:{usage.unit}")
        if spec is None:
            continue
        missing = 0.0
        if spec.limit is not None and usage.limit is not None:
            missing = max(0.0, spec.limit - usage.limit)
        metering.provider_said(draft, ProviderSaid(spec.key, usage.used + missing))


def _started(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    report = event.report
    if known.phase is not PowerPhase.STARTING or known.launch != event.launch:
        return
    if known.unheard and report.snag is not Snag.LOST:
        power.put(draft, name, durable=True, unheard=0)
    if report.snag is Snag.NONE:
        draft.note("power_asked", name, f"{name}: its provider took the start {known.launch}")
        phase = PowerPhase.ON if report.phase is PowerPhase.ON else PowerPhase.STARTING
        power.put(draft, name, durable=True, answered=True, phase=phase, detail=report.detail)
        _at(draft, name, report.address)
        draft.do(ProbeSoon(name))
    elif report.snag is Snag.LOST:
        power.put(draft, name, durable=True, detail=report.detail, look_at=draft.at)
        text = f"{name}: nobody knows whether it was started ({report.detail}); its provider is"
        draft.note("power_unknown", name, f"{text} asked before anything else")
    else:
        power.off(draft, name)
        power.failed(draft, name, _why(report), report.retry_after_s or 0.0)


def _stopped(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    if known.phase is not PowerPhase.STOPPING:
        return
    report = event.report
    if report.snag is not Snag.NONE:
        power.put(draft, name, durable=True, detail=_why(report))
        draft.note("power_stop_failed", name, f"{name} could not be stopped: {_why(report)}")
    elif report.phase is PowerPhase.OFF:
        _is_off(draft, name, known, event)
    else:
        power.put(draft, name, answered=True, detail=report.detail, look_at=draft.at)


def _why(report: PowerReport) -> str:
    words = {
        Snag.QUOTA: "what may be used there is used up",
        Snag.STOCKOUT: "nothing is free there",
        Snag.DENIED: "it does not let us",
        Snag.TRANSIENT: "it could not just now",
        Snag.LOST: "it gave no answer",
    }.get(report.snag, "")
    return f"{words}: {report.detail}" if words and report.detail else report.detail or words


# ── how it is ───────────────────────────────────────────────────────────────────────────────────


def _read(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    report = event.report
    reader = READERS.get(report.phase)
    if report.snag is not Snag.NONE or reader is None:
        _unread(draft, name, known, report)
        return
    power.put(draft, name, confirmed_at=draft.at, refused_at=None)
    reader(draft, name, known, event)
    now = power.of(draft.backend(name))
    power.put(draft, name, look_at=power.next_look(now, draft.at))
    if report.phase is not PowerPhase.OFF:
        _at(draft, name, report.address)


def _unread(draft: Draft, name: str, known: Power, report: PowerReport) -> None:
    why = f"its provider does not say how it is: {_why(report) or 'no answer'}"
    wait_s = max(ASK_AGAIN_S, min(report.retry_after_s or 0.0, LONGEST_S))
    since = draft.at if known.refused_at is None else known.refused_at
    refused_at = since if report.snag is Snag.DENIED else None
    power.put(draft, name, detail=why, look_at=draft.at + wait_s, refused_at=refused_at)
    draft.stirred[name] = None
    if known.detail != why:
        draft.note("power_unread", name, f"{name}: {why}")


def _is_off(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    if known.phase is PowerPhase.OFF:
        return
    launched = known.launched_at if known.launched_at is not None else draft.at
    if known.phase is PowerPhase.STARTING and event.began_at - launched < LAG_S:
        return
    told_to = known.phase is PowerPhase.STOPPING and known.stop_at is not None
    power.off(draft, name)
    if told_to or not known.launch:
        why = f"it is off: {known.why}" if told_to and known.why else "it is off"
        power.put(draft, name, why=known.why if told_to else "")
        draft.note("power_off", name, f"{name}: {why}")
    elif not known.answered:
        _never_began(draft, name, known)
    else:
        going = known.why if known.phase is PowerPhase.STOPPING else ""
        _ended(draft, name, known, event.report.detail or going)


def _never_began(draft: Draft, name: str, known: Power) -> None:
    """Say of a start whose answer was lost that it came to nothing.

    That may be a moment's fault, so it is made once more; then it is a failure as any other.
    """
    text = f"{name}: {known.launch} never began, so another start is no second one"
    draft.note("power_off", name, text)
    if not known.detail:
        return  # nobody was asked: the daemon was killed before
    power.put(draft, name, durable=True, unheard=known.unheard + 1)
    if known.unheard:
        power.failed(draft, name, f"it gave no answer, and nothing began: {known.detail}")


def _ended(draft: Draft, name: str, known: Power, detail: str) -> None:
    """Say of what we had started, and did not stop, that it is off."""
    if not known.booted:
        power.failed(draft, name, detail or "it went off by itself")
        return
    lasted_s = draft.at - (known.launched_at if known.launched_at is not None else draft.at)
    why = f"went off by itself, {spoken(lasted_s)} after it was started"
    why = f"{why}: {detail}" if detail else why
    if lasted_s < SHORT_S:
        power.failed(draft, name, why, lost=True)
    else:
        power.put(draft, name, why=detail)
        draft.note("power_lost", name, f"{name} {why}")


def _is_on(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    seen = event.report.launch
    is_ours = demand.ours(draft.config.instance, name, seen)
    theirs = "" if is_ours else seen
    if known.phase is PowerPhase.STOPPING and seen in ("", known.launch):
        power.put(draft, name, answered=True)
    elif is_ours and seen != known.launch:
        _adopt(draft, name, event)
    elif seen and not is_ours and known.launch:
        # Somebody else's runs there in place of ours; theirs is left alone.
        power.off(draft, name)
        power.put(draft, name, durable=True, phase=PowerPhase.ON)
        draft.note("power_foreign", name, f"{name} runs {seen}, which is not ours")
    elif known.phase is not PowerPhase.ON:
        phase = event.report.phase
        if phase is not known.phase or not known.answered:
            power.put(draft, name, durable=True, phase=phase, answered=True)
        if not known.launch and phase is not known.phase:
            draft.note("power_on", name, f"{name} was started by somebody else: it is left alone")
    if theirs != power.of(draft.backend(name)).theirs:
        power.put(draft, name, durable=True, theirs=theirs)
    _wait_its_turn(draft, name, event.report)


def _wait_its_turn(draft: Draft, name: str, report: PowerReport) -> None:
    """Give a launch that is in its provider's queue, or has just left it, the time it needs."""
    state = draft.backend(name)
    known = power.of(state)
    queued = report.queued and known.phase is PowerPhase.STARTING
    if report.launch != known.launch or known.phase not in power.RUNS:
        return
    if not (queued or known.queued):
        return
    until = queueing.deadline(known, draft.at, boot_s(state), queued=queued)
    until_at = until if known.deadline_at is not None else None
    power.put(draft, name, durable=queued is not known.queued, queued=queued, deadline_at=until_at)
    if queued is not known.queued:
        text = "waits for its turn at its provider" if queued else "has left its provider's queue"
        power.put(draft, name, detail=f"it {text}" if queued else "")
        draft.note("power_queued", name, f"{name}: {known.launch} {text}")


def _adopt(draft: Draft, name: str, event: PowerReported) -> None:
    """Take one of ours that we knew nothing of; it is stopped unless somebody needs it."""
    power.put(
        draft,
        name,
        durable=True,
        phase=event.report.phase,
        since=draft.at,
        launch=event.report.launch,
        answered=True,
        launched_at=draft.at,
        deadline_at=draft.at + power.SLOWEST_S,
        booted=False,
        stray=True,
        idle_since=None,
        why="it ran already",
    )
    text = f"{name} runs {event.report.launch}, which is ours and was not known"
    draft.note("power_found", name, text)


def _is_stopping(draft: Draft, name: str, known: Power, event: PowerReported) -> None:
    if known.phase is PowerPhase.ON and event.began_at - (known.asked_at or 0.0) >= LAG_S:
        why = event.report.detail
        power.put(draft, name, durable=True, phase=PowerPhase.STOPPING, since=draft.at, why=why)
        because = f": {why}" if why else ""
        draft.note("power_going", name, f"{name} is going off by itself{because}")
        draft.touch(name)
    else:
        power.put(draft, name, answered=True)


def _at(draft: Draft, name: str, address: str) -> None:
    if address and address != power.of(draft.backend(name)).address:
        power.put(draft, name, durable=True, address=address)
        draft.note("power_address", name, f"{name} is at {address}")
        draft.do(Rewire(name))
        draft.do(ProbeSoon(name))
        draft.touch(name)


READERS: dict[PowerPhase, Callable[[Draft, str, Power, PowerReported], None]] = {
    PowerPhase.OFF: _is_off,
    PowerPhase.ON: _is_on,
    PowerPhase.STARTING: _is_on,
    PowerPhase.STOPPING: _is_stopping,
}
