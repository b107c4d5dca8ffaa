"""DNS: what has to change at a name so that it says what is wanted, or why nothing may change.

`plan` reads like the rule: what is wanted must be safe; what stands at the name is sorted into
ours, edited by somebody, another instance's, made by hand; anything that is not ours stops the
plan until the operator adopts it; what remains is a small diff. Records at other names and of
other types are never in a change, and a plan never leaves the name without a record.

A record is ours if we know its id and its comment, `aion <instance> epoch=N`. A write whose answer
was lost is recognised by its epoch and content, which are remembered before it is sent. A provider
without comments and ids (`marks` False) is told by content only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.model import Publication
from orchestrator.core.specs import Drift, Target
from orchestrator.core.targets import (
    ADDRESS_TYPES,
    distinct,
    host,
    is_host,
    said,
    same,
    unsafe_target,
)

MAX_CHANGES = 10
MAX_CORRECTIONS = 3
CORRECTION_WINDOW_S = 86400.0
ERA = 1_000_000
TTL_AUTOMATIC = 1
TTL_MIN_S, TTL_MAX_S = 60, 86400

_MARK = re.compile(r"aion (\S{1,60}) epoch=(\d{1,18})")


class Verdict(StrEnum):
    """What a plan comes to."""

    IN_PLACE = "in_place"
    CHANGE = "change"
    FOREIGN = "foreign"
    DRIFT = "drift"
    NEWER = "newer"
    REFUSED = "refused"


class Action(StrEnum):
    """One kind of change; a provider carries them out in this order."""

    DELETE = "delete"
    PATCH = "patch"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Record:
    """A record as its provider shows it. `ttl` in seconds, 1 is automatic."""

    id: str
    type: str
    content: str
    comment: str = ""
    ttl: int = 1
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change: `before` is what it changes or deletes, `after` what stands there then."""

    action: Action
    before: Record | None = None
    after: Record | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The name, who signs there, how to write it, and what its provider can do.

    `zone` may be empty where the provider knows none.
    `marks`: the provider keeps ids and comments; without, it holds at most one A and one AAAA and
    deletes nothing. `private`: addresses that are not global may be published.
    """

    name: str
    zone: str
    instance: str = "aion"
    proxied: bool = False
    ttl: int = 1
    drift: Drift = Drift.RESPECT
    marks: bool = True
    private: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a name, and why in one sentence.

    `ids`: the standing records that are ours. `epoch`, `outbid`, `replaced`: see
    `events.DnsTroubled`.
    `correction`: the changes put back what somebody else changed. `firm`: so they do, or the
    operator told us to, so they are sent even if the same was sent before.
    """

    verdict: Verdict
    reason: str
    changes: tuple[Change, ...] = ()
    ids: tuple[str, ...] = ()
    epoch: int | None = None
    outbid: bool = False
    correction: bool = False
    firm: bool = False
    replaced: bool = False


def era(epoch: int) -> int:
    """Say in which era an epoch is. A rebuild of the instance elsewhere begins a new one.

    Within an era a higher epoch of our own is a future that a restored database forgot; one of a
    later era is a successor's, to whom we give way.
    """
    return epoch // ERA


def above(own: int, found: int) -> int:
    """Return the epoch that outbids the one `found` in a record."""
    return max(own, found) + 1 if era(found) <= era(own) else (era(found) + 1) * ERA


def mark(instance: str, epoch: int) -> str:
    """Sign a record: the comment that makes it ours."""
    return f"aion {instance} epoch={epoch}"


def signature(comment: str) -> tuple[str, int] | None:
    """Read who signed a record, and its epoch; None if nobody did."""
    found = _MARK.fullmatch(comment.strip())
    return (found[1], int(found[2])) if found else None


def plan(found: Sequence[Record], publication: Publication, place: Place, now: float) -> Plan:
    """Say what has to change at `place` so that it holds `publication.wanted`.

    `found` is everything that stands at exactly that name; a failed read must never come here as
    an empty one. `now` in steady seconds, against `publication.corrections`.
    """
    wanted = distinct(publication.wanted)
    if not wanted:
        return Plan(Verdict.IN_PLACE, "nothing is to be published yet")
    standing = [r for r in found if r.type in ADDRESS_TYPES]
    problem = unsafe(wanted, place) or _clash(wanted, place, found)
    if problem:
        return Plan(Verdict.REFUSED, problem)
    sorted_ = _sort(standing, publication, place)
    blocked = _blocked(sorted_, publication, place, now)
    if blocked and blocked.verdict is not Verdict.CHANGE:
        return blocked
    changes = _diff(standing, wanted, publication, place)
    ids = tuple(sorted(r.id for r in standing if r.id))
    correction = bool(blocked and blocked.correction)
    return _judged(changes, ids, wanted, publication, correction=correction, place=place)


def unsafe(wanted: Sequence[Target], place: Place) -> str:
    """Say why these targets must not be published at that name; empty if they may."""
    name, zone = host(place.name), host(place.zone)
    if zone and name != zone and not name.endswith("." + zone):
        return f"{name} is not inside the zone {zone}"
    if not is_host(name):
        return f"{name} is not a host name"
    if place.marks and not _MARK.fullmatch(mark(place.instance, 0)):
        return "the instance's name must be 1 to 60 characters without spaces"
    if place.ttl != TTL_AUTOMATIC and not TTL_MIN_S <= place.ttl <= TTL_MAX_S:
        return f"a ttl of {place.ttl} s is neither automatic (1) nor between 60 and 86400"
    types = [t.type for t in wanted]
    if "CNAME" in types and len(types) > 1:
        return "a CNAME cannot stand beside another target"
    if not place.marks and (len(set(types)) < len(types) or "CNAME" in types):
        return "this provider holds one A and one AAAA, nothing else"
    how = {"proxied": place.proxied, "private": place.private}
    return next(filter(None, (unsafe_target(t, name, **how) for t in wanted)), "")


def _clash(wanted: Sequence[Target], place: Place, found: Sequence[Record]) -> str:
    """Say which record of another type makes it impossible; those are never touched."""
    beside = [r for r in found if r.type not in ADDRESS_TYPES]
    flattened = place.proxied or host(place.name) == host(place.zone)
    if wanted[0].type != "CNAME" or flattened:  # flattened: answered as addresses
        beside = [r for r in beside if r.type == "NS" and host(place.name) != host(place.zone)]
    if not beside:
        return ""
    return (
        f"{wanted[0].type} cannot stand beside {_listed(beside)}; remove that or use another name"
    )


# ── whose it is ─────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Sorted:
    ours: list[Record]
    edited: list[Record]
    others: list[tuple[Record, str, int]]  # with the instance and its epoch
    foreign: list[Record]
    ahead: int = 0  # our own highest epoch that this database has never heard of


def _sort(standing: Sequence[Record], pub: Publication, place: Place) -> _Sorted:
    result = _Sorted([], [], [], [])
    for record in standing:
        signed = signature(record.comment)
        if not place.marks:
            known = pub.confirmed + pub.attempted
            matches = any(same(record, t) for t in known)
            side = result.ours if matches else result.edited if known else result.foreign
            side.append(record)
        elif signed and signed[0] != place.instance:
            result.others.append((record, *signed))
        elif signed and _ours(record, signed[1], pub):
            result.ours.append(record)
            if signed[1] > max(pub.attempted_epoch, pub.confirmed_epoch):
                result.ahead = max(result.ahead, signed[1])
        elif record.id in pub.record_ids:
            result.edited.append(record)
        else:
            result.foreign.append(record)
    return result


def _ours(record: Record, epoch: int, pub: Publication) -> bool:
    """Say whether we wrote this record, given that our own instance signed it with `epoch`."""
    if epoch == pub.confirmed_epoch and any(same(record, t) for t in pub.confirmed):
        return True
    if epoch == pub.attempted_epoch:
        return any(same(record, t) for t in pub.attempted)
    # An attempt older than the last one, or a future lost with a restored database: its content is
    # no longer known, but nobody else signs so.
    return epoch > pub.confirmed_epoch


def _missing(ours: Sequence[Record], pub: Publication, place: Place) -> bool:
    """Say whether a record that was confirmed is gone, and not by a write of ours."""
    if not pub.confirmed:
        return False
    for epoch, targets in (
        (pub.confirmed_epoch, pub.confirmed),
        (pub.attempted_epoch, pub.attempted),
    ):
        sign = (place.instance, epoch)
        held = [r for r in ours if not place.marks or signature(r.comment) == sign]
        if targets and all(any(same(r, t) for r in held) for t in targets):
            return False
    return all((signature(r.comment) or ("", 0))[1] <= pub.confirmed_epoch for r in ours)


def _blocked(got: _Sorted, pub: Publication, place: Place, now: float) -> Plan | None:
    """Say what stands in the way; a CHANGE only says that this is a correction."""
    theirs = max((epoch for _, _, epoch in got.others), default=0)
    if got.others and not pub.adopt:
        newer = theirs > pub.wanted_epoch
        return Plan(
            Verdict.NEWER if newer else Verdict.FOREIGN,
            f"instance {got.others[0][1]} holds {_listed([r for r, _, _ in got.others])}"
            f" with epoch {theirs}{_ADVICE}",
            epoch=theirs,
        )
    if got.foreign and not pub.adopt:
        return Plan(Verdict.FOREIGN, f"{_listed(got.foreign)} was not made by aion{_ADVICE}")
    if era(got.ahead) > era(pub.wanted_epoch) and not pub.adopt:
        why = f"the record carries epoch {got.ahead}: {place.instance} was rebuilt elsewhere"
        text = f"{why}, and that one has taken over{_ADVICE}"
        return Plan(Verdict.NEWER, text, epoch=got.ahead, replaced=True)
    ahead = max(got.ahead, theirs)
    if ahead and ahead >= pub.wanted_epoch:
        why = f"the record carries epoch {ahead}, not below our {pub.wanted_epoch}"
        return Plan(Verdict.NEWER, f"{why}; taking the next one", epoch=ahead, outbid=True)
    if pub.adopt or not (got.edited or _missing(got.ours, pub, place)):
        return None
    what = f"now {_listed(got.edited)}" if got.edited else "removed"
    detail = f"the record of {place.name} was changed by somebody else: {what}"
    recent = [at for at in pub.corrections if now - at < CORRECTION_WINDOW_S]
    if place.drift is Drift.CORRECT and len(recent) < MAX_CORRECTIONS:
        return Plan(Verdict.CHANGE, detail, correction=True)
    if place.drift is Drift.CORRECT:
        detail += f"; put back {len(recent)} times within a day already"
    return Plan(Verdict.DRIFT, detail + _ADVICE)


_ADVICE = "; `aion dns sync --apply` takes it over"


# ── what to change ──────────────────────────────────────────────────────────────────────────────


def _diff(
    standing: Sequence[Record], wanted: Sequence[Target], pub: Publication, place: Place
) -> tuple[Change, ...]:
    """Pair what stands with what is wanted: same content first, then same type, then the rest."""
    comment = mark(place.instance, pub.wanted_epoch) if place.marks else ""
    left, todo = list(standing), list(wanted)
    pairs: list[tuple[Record, Target]] = []
    for fits in (same, lambda r, t: r.type == t.type):
        for target in tuple(todo):
            # among equals, one that is already as it should be
            near = sorted(left, key=lambda r: r.comment != comment)
            record = next((r for r in near if fits(r, target)), None)
            if record:
                pairs.append((record, target))
                left.remove(record)
                todo.remove(target)
    changes = [Change(Action.DELETE, before=r) for r in left]
    for record, target in pairs:
        after = _written(target, comment, place, record.id)
        moved = not same(record, target) or (place.marks and record.comment.strip() != comment)
        # proxied and ttl follow the next write: somebody's tick in a dashboard is no reason to
        # fight, except where we were told to put things back.
        dressed = (record.ttl, record.proxied) == (after.ttl, after.proxied)
        firm = place.marks and (pub.adopt or place.drift is Drift.CORRECT)
        if moved or (firm and not dressed):
            changes.append(Change(Action.PATCH, before=record, after=after))
    changes += [Change(Action.CREATE, after=_written(t, comment, place)) for t in todo]
    return tuple(changes)


def _written(target: Target, comment: str, place: Place, record_id: str = "") -> Record:
    ttl = 1 if place.proxied else place.ttl  # a proxied record's ttl is always automatic
    content = said(target)[1]
    return Record(record_id, target.type, content, comment, ttl, place.proxied)


def _judged(
    changes: tuple[Change, ...],
    ids: tuple[str, ...],
    wanted: Sequence[Target],
    pub: Publication,
    *,
    correction: bool,
    place: Place,
) -> Plan:
    said = ", ".join(f"{t.type} {t.content}" for t in wanted)
    if not changes:
        return Plan(Verdict.IN_PLACE, f"{place.name} is {said}, epoch {pub.wanted_epoch}", ids=ids)
    if len(changes) > MAX_CHANGES:
        return Plan(Verdict.REFUSED, f"{len(changes)} changes at one name; at most {MAX_CHANGES}")
    if not place.marks and any(c.action is Action.DELETE for c in changes):
        gone = _listed([c.before for c in changes if c.before and c.action is Action.DELETE])
        return Plan(Verdict.REFUSED, f"this provider cannot remove {gone}")
    verb = "put back" if correction else "set"
    reason = f"{verb} {place.name} to {said}, epoch {pub.wanted_epoch}"
    firm = correction or pub.adopt
    return Plan(Verdict.CHANGE, reason, changes, ids, correction=correction, firm=firm)


def _listed(records: Sequence[Record]) -> str:
    return ", ".join(f"{r.type} {_plain(r.content)}" for r in records[:5])


def _plain(text: str) -> str:
    """Keep what a stranger wrote on one line, printable and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:80])
