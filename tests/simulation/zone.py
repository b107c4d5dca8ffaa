"""The DNS zone as it truly stands, and a provider that shows and changes it as badly as some do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backends.base import Random
from orchestrator.core.records import Action, Plan, Record, signature
from orchestrator.edge.dns.base import ATTEMPT_S, DnsSettings, Finding
from orchestrator.errors import BadReply, Throttled, Unreachable
from tests.simulation import plans
from tests.simulation.trace import Trace
from tests.simulation.virtual import Time


class Ill(StrEnum):
    """What the provider's API suffers from."""

    WELL = "well"
    DOWN = "down"
    HANG = "hang"
    ERRORS = "errors"
    LOSES_ANSWERS = "loses answers"  # applied, but timed out
    LOSES_REQUESTS = "loses requests"
    STALE = "stale"  # reads show what stood a while ago
    THROTTLED = "throttled"


BYSTANDER = Record("r-txt", "TXT", '"v=spf1 -all"')
STALE_S = 6.0  # within the 10 s that the provider says its reads may lag


@dataclass(frozen=True)
class Write:
    """One change that reached the zone: when, by whom, what stands there since."""

    at: float
    by: str
    records: tuple[Record, ...]


class Zone:
    """What stands at the one name that we keep."""

    def __init__(self, time: Time, random: Random, trace: Trace) -> None:
        self.time, self.random, self.trace = time, random, trace
        self.records: dict[str, Record] = {BYSTANDER.id: BYSTANDER}
        self.ill = Ill.WELL
        self.well_since = 0.0
        self.retry_after_s = 0
        self.held_until = 0.0  # until when we were told to wait, by our monotonic clock
        self.others_at: float | None = None  # when somebody else last wrote there
        self.writes: list[Write] = []
        self._before: list[tuple[float, tuple[Record, ...]]] = []
        self._made = 0

    def suffer(self, ill: Ill, retry_after_s: int = 0) -> None:
        """Change what the API suffers from."""
        self.trace.tell("world", f"the DNS API is {ill}")
        self.ill, self.retry_after_s = ill, retry_after_s
        if ill is Ill.WELL:
            self.well_since = self.time.true

    def standing(self) -> tuple[Record, ...]:
        """Give what truly stands there, but for the bystander."""
        return tuple(r for r in self.records.values() if r.id != BYSTANDER.id)

    def seen(self) -> tuple[Record, ...]:
        """Give what a read shows now."""
        if self.ill is Ill.STALE:
            then = self.time.true - STALE_S
            old = [records for at, records in self._before if at > then]
            if old:
                return old[0]
        return tuple(self.records.values())

    def change(self, by: str, plan: Plan) -> None:
        """Carry out a plan as a strict provider does: all of it or nothing."""
        now = dict(self.records)
        for change in plan.changes:
            if change.before is not None:
                standing = now.get(change.before.id)
                if standing is None or standing.type not in ("A", "AAAA", "CNAME"):
                    raise BadReply("record does not exist (81044)", 400)
            if change.action is Action.DELETE:
                assert change.before is not None
                del now[change.before.id]
                continue
            assert change.after is not None
            record = change.after
            if change.action is Action.CREATE:
                self._made += 1
                record = replace(record, id=f"r{self._made}")
            now[record.id] = record
        written = [(r.type, r.content) for r in now.values()]
        if len(written) != len(set(written)):
            raise BadReply("an identical record already exists (81058)", 400)
        self._put(by, now)

    def meddle(self, comment: str | None) -> None:
        """Have somebody else change our record, or make one of their own."""
        now, content = dict(self.records), f"203.0.113.{100 + self._made % 100}"
        ours = next((r for r in now.values() if signature(r.comment)), None)
        if ours is not None:
            said = ours.comment if comment is None else comment
            now[ours.id] = replace(ours, content=content, comment=said)
        else:
            self._made += 1
            id_ = f"x{self._made}"
            now[id_] = Record(id_, "A", content, comment or "")
        self.others_at = self.time.true
        self._put("somebody", now)

    def _put(self, by: str, now: dict[str, Record]) -> None:
        at = self.time.true
        self._before = [(t, r) for t, r in self._before if t > at - 60]
        self._before.append((at, tuple(self.records.values())))
        self.records = now
        self.writes.append(Write(at, by, self.standing()))
        shown = ", ".join(f"{r.type} {r.content} ({r.comment})" for r in self.standing())
        self.trace.tell("zone", f"{by} wrote: {shown or 'nothing'}")


class Provider:
    """The DNS port of one life. `wrote` is told of each change that arrives."""

    marks = True
    settle_s = 10.0
    rewrites = True

    def __init__(
        self,
        zone: Zone,
        cut_off: Callable[[], bool],
        boundary: Callable[[str], None],
        asking: Callable[[Plan], None],
    ) -> None:
        self._zone, self._cut_off = zone, cut_off
        self._boundary, self._asking = boundary, asking

    async def read(self, name: str) -> Sequence[Record]:
        assert name == plans.NAME
        self._boundary("dns read")
        await self._reach()
        if self._zone.ill is Ill.LOSES_REQUESTS and self._zone.random.random() < 0.5:
            await self._lost()
        await self._refuse()
        found = self._zone.seen()
        self._boundary("dns was read")
        return found

    async def apply(self, name: str, plan: Plan) -> None:
        assert name == plans.NAME
        self._asking(plan)
        self._boundary("dns write")
        await self._reach()
        if self._zone.ill is Ill.LOSES_REQUESTS:
            await self._lost()
        await self._refuse()
        self._zone.change("aion", plan)
        if self._zone.ill is Ill.LOSES_ANSWERS:
            await self._lost()
        self._boundary("dns was written")

    async def check_token(self) -> list[Finding]:
        return []

    async def close(self) -> None:
        pass

    async def _reach(self) -> None:
        await asyncio.sleep(0.05 + 0.1 * self._zone.random.random())
        if self._cut_off() or self._zone.ill is Ill.HANG:
            await self._lost()
        if self._zone.ill is Ill.DOWN:
            raise Unreachable("connection refused")

    async def _lost(self) -> None:
        await asyncio.sleep(ATTEMPT_S)
        raise Unreachable("timed out")

    async def _refuse(self) -> None:
        zone = self._zone
        if zone.ill is Ill.ERRORS:
            raise BadReply("HTTP 502", 502)
        if zone.ill is Ill.THROTTLED:
            zone.held_until = zone.time.monotonic() + zone.retry_after_s
            raise Throttled("asked to wait", zone.retry_after_s)


def opener(
    zone: Zone,
    cut_off: Callable[[], bool],
    boundary: Callable[[str], None],
    asking: Callable[[Plan], None],
) -> Callable[[DnsSettings], Provider]:
    """Make what opens a provider from its settings."""
    return lambda _settings: Provider(zone, cut_off, boundary, asking)
