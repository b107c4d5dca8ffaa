"""What the reconciler found and did at a service's DNS name."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.draft import Draft
from orchestrator.core.events import (
    DnsAttempting,
    DnsConfirmed,
    DnsTroubled,
    NameChecked,
    Reconcile,
)
from orchestrator.core.model import DnsTrouble, Phase, Publication
from orchestrator.core.records import above

DAY_S = 86400.0
REPLACED = "replaced"
"""The flag that says that this instance goes on elsewhere."""
SUCCESSOR = "its successor"
"""Who paused it then; no operator's name has a blank in it."""


def _put(draft: Draft, name: str, record: Publication, *, durable: bool) -> None:
    draft.put_service(replace(draft.service(name), publication=record), durable=durable)
    draft.stirred[name] = None


def attempting(draft: Draft, event: DnsAttempting) -> None:
    """Remember what is about to be written, so that a lost answer leaves it recognisable."""
    record = draft.service(event.service).publication
    corrections = tuple(t for t in record.corrections if draft.at - t < DAY_S)
    if event.correction:
        corrections = (*corrections, draft.at)
    tried = replace(
        record, attempted=event.targets, attempted_epoch=event.epoch, corrections=corrections
    )
    _put(draft, event.service, tried, durable=True)


def confirmed(draft: Draft, event: DnsConfirmed) -> None:
    """Note that the name was read and holds what we wrote."""
    state = draft.service(event.service)
    record = state.publication
    news = (
        event.targets != record.confirmed
        or event.epoch != record.confirmed_epoch
        or event.ids != record.record_ids
        or record.trouble is not None
        or record.adopt
    )
    done = replace(
        record,
        confirmed=event.targets,
        confirmed_epoch=event.epoch,
        confirmed_at=draft.at,
        record_ids=event.ids,
        trouble=None,
        trouble_since=None,
        detail="",
        retry_at=None,
        adopt=False,
    )
    _put(draft, event.service, done, durable=news)
    if news:
        there = ", ".join(target.content for target in event.targets) or "nothing"
        name = draft.config.services[event.service].dns
        text = f"{name.name if name else event.service} points at {there}, read back"
        draft.note("published", event.service, text, epoch=str(event.epoch))
    if not state.settled:
        draft.stale[event.service] = None


def troubled(draft: Draft, event: DnsTroubled) -> None:
    """Note why the name is not as wanted; go above a higher epoch of our own."""
    state = draft.service(event.service)
    record = state.publication
    news = event.trouble is not record.trouble or event.detail != record.detail
    since = record.trouble_since if event.trouble is record.trouble else draft.at
    adopt = record.adopt and (event.outbid or event.trouble is DnsTrouble.UNREACHABLE)
    record = replace(
        record,
        trouble=event.trouble,
        trouble_since=since,
        detail=event.detail,
        retry_at=event.retry_at,
        adopt=adopt,
    )
    _put(draft, event.service, record, durable=news)
    if event.outbid and event.epoch is not None and not draft.observing():
        epoch = above(state.epoch, event.epoch)
        record = replace(record, wanted_epoch=epoch, trouble=None, trouble_since=None, detail="")
        draft.put_service(
            replace(draft.service(event.service), epoch=epoch, publication=record), durable=True
        )
        text = f"{event.service}: the record's epoch was {event.epoch}; going on with {epoch}"
        draft.note("epoch_raised", event.service, text)
        draft.do(Reconcile(event.service))
        return
    if news:
        text = f"{event.service}: DNS {event.trouble.value}: {event.detail}"
        draft.note("dns_trouble", event.service, text)
    if event.replaced and not draft.observing():
        step_back(draft)
    if not state.settled:
        draft.stale[event.service] = None


def step_back(draft: Draft) -> None:
    """Pause: this instance goes on elsewhere, and two would start and stop the same machines."""
    held = {"paused_since": draft.at, "paused_until": None, "paused_by": SUCCESSOR}
    draft.change_world(**held, durable=True)
    draft.stirred[""] = None
    for name in draft.config.services:
        draft.stale[name] = None
    text = "paused: this instance was rebuilt elsewhere and goes on there; `aion resume` if not"
    draft.note("paused", "", text)


def name_checked(draft: Draft, event: NameChecked) -> None:
    """Take a look through the public name into account, while a planned move is being verified."""
    state = draft.service(event.service)
    turn = state.rotation
    if turn is None or turn.phase is not Phase.VERIFY:
        return
    since = (turn.good_since if turn.good_since is not None else draft.at) if event.ok else None
    if since != turn.good_since:
        draft.put_service(replace(state, rotation=replace(turn, good_since=since)))
