"""Keep one service's DNS name as it is wanted.

read → plan → refuse if unsafe → remember the attempt → write → read back → confirm → watch. It
compares levels, not edges: whatever it was doing when it was killed, the next read tells where
things stand. Nothing is written before the attempt is committed, so a write whose answer is lost is
recognised as ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from backends.base import Clock, Random
from orchestrator.core import records
from orchestrator.core.events import DnsAttempting, DnsConfirmed, DnsTroubled
from orchestrator.core.model import DnsTrouble, Publication, ServiceState
from orchestrator.core.records import Plan, Record, Verdict
from orchestrator.core.specs import Target
from orchestrator.edge.dns.base import ATTEMPT_S, DnsSettings, NotSent, Provider, place_of
from orchestrator.errors import AionError, BadReply, NotAllowed, Throttled, Unreachable

log = structlog.get_logger("dns")

T = TypeVar("T")
DnsEvent = DnsAttempting | DnsConfirmed | DnsTroubled
State = Callable[[], tuple[ServiceState | None, bool]]
Report = Callable[[DnsEvent], Awaitable[object]]

_TROUBLES = {
    Verdict.FOREIGN: DnsTrouble.FOREIGN,
    Verdict.DRIFT: DnsTrouble.DRIFT,
    Verdict.NEWER: DnsTrouble.NEWER,
    Verdict.REFUSED: DnsTrouble.REFUSED,
}
_CLIENT_ERRORS = range(400, 500)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often it looks, in seconds. A change by others is looked at twice, `recheck_s` apart."""

    watch_s: float = 60.0
    recheck_s: float = 2.0
    echo_s: float = 0.2  # first wait for a write to show; doubles
    echo_max_s: float = 5.0
    retry_s: float = 0.5  # first wait after a failure; doubles
    retry_max_s: float = 30.0
    attempt_s: float = ATTEMPT_S


@dataclass(frozen=True, slots=True)
class _Want:
    targets: tuple[Target, ...]
    epoch: int
    adopt: bool
    frozen: bool


class Reconciler:
    """One service's DNS name; `run` it as one task and `poke` it when the fleet has changed.

    `state` returns the service (None: not configured any more) and whether writing is frozen
    (isolated, paused, shadow). `report` returns once the loop has committed and applied the event.
    `would` is told what would be done while frozen; without it nothing is read then either.
    """

    def __init__(
        self,
        settings: DnsSettings,
        provider: Provider,
        *,
        state: State,
        report: Report,
        clock: Clock,
        random: Random,
        would: Callable[[str], None] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._name = settings.name
        self._service = settings.service
        self._place = place_of(settings, marks=provider.marks)
        self._provider = provider
        self._state = state
        self._report = report
        self._clock = clock
        self._random = random
        self._would = would
        self._pace = pace or Pace()
        self._poked = asyncio.Event()
        self._seen: _Want | None = None  # what was wanted when the last turn began
        self._not_before: float | None = None  # steady; the provider told us to wait
        self._failures = 0
        self._echoes = 0
        self._suspected = ""
        self._told = ""
        self._confirmed = False  # at least once since this start
        self._wrote: tuple[tuple[Target, ...], int] | None = None
        self._wrote_at = 0.0

    def poke(self) -> None:
        """Look whether something else is wanted now; cheap, call it at every change."""
        self._poked.set()

    async def run(self) -> None:
        """Reconcile until cancelled. It may be cancelled at any moment."""
        delay = 0.0
        while True:
            await self._wait(delay)
            try:
                delay = await self.turn()
            except Exception:  # a defect here must cost one name its updates, not the daemon
                log.exception("reconciler_failed", service=self._service)
                delay = self._pace.retry_max_s

    async def turn(self) -> float:
        """Read once, and write once if that is needed; return the seconds until the next turn."""
        service, frozen = self._state()
        if service is None:
            return self._pace.watch_s
        self._seen = _want(service.publication, frozen)
        held = self._held(service.publication)
        if held > 0:
            return held
        if frozen and self._would is None:
            return self._pace.watch_s
        try:
            found = await self._in_time(self._provider.read(self._name))
            delay = await self._act(found)
        except AionError as error:
            return await self._failed(error)
        self._failures = 0
        return delay

    # ── one turn ────────────────────────────────────────────────────────────────────────────────

    async def _act(self, found: Sequence[Record]) -> float:
        service, frozen = self._state()  # the read took time: what is wanted may have moved on
        if service is None:
            return self._pace.watch_s
        pub = service.publication
        plan = records.plan(found, pub, self._place, self._clock.steady())
        if frozen:
            self._tell(plan)
            return self._pace.watch_s
        if plan.verdict is Verdict.IN_PLACE:
            return await self._confirm(plan, pub)
        if self._stale(plan, pub):
            return self._echo()
        theirs = plan.correction or plan.verdict in (Verdict.DRIFT, Verdict.FOREIGN)
        if theirs and self._suspected != plan.reason:
            self._suspected = plan.reason  # one read may be wrong: look twice
            return self._pace.recheck_s
        if plan.verdict is Verdict.CHANGE:
            return await self._change(plan, pub)
        return await self._object(plan, pub)

    async def _confirm(self, plan: Plan, pub: Publication) -> float:
        self._suspected = ""
        self._echoes = 0
        held = (pub.confirmed, pub.confirmed_epoch, pub.record_ids)
        right = (pub.wanted, pub.wanted_epoch, plan.ids)
        if pub.wanted and (held != right or pub.trouble or pub.adopt or not self._confirmed):
            await self._report(DnsConfirmed(self._service, pub.wanted, pub.wanted_epoch, plan.ids))
            self._confirmed = True
        return self._pace.watch_s

    async def _change(self, plan: Plan, pub: Publication) -> float:
        await self._report(
            DnsAttempting(self._service, pub.wanted, pub.wanted_epoch, correction=plan.correction)
        )
        service, frozen = self._state()
        if service is None or frozen:
            return 0.0
        now = service.publication
        if (now.wanted, now.wanted_epoch) != (pub.wanted, pub.wanted_epoch):
            return 0.0
        self._wrote = (pub.wanted, pub.wanted_epoch)
        self._wrote_at = asyncio.get_running_loop().time()
        self._echoes = 0
        try:
            await self._in_time(self._provider.apply(self._name, plan))
        except AionError as error:
            if self._provider.rewrites or isinstance(error, NotSent | Throttled | NotAllowed):
                self._wrote = None  # the next read says whether to send it again
            raise
        return 0.0  # read it back

    async def _object(self, plan: Plan, pub: Publication) -> float:
        """Report what stands in the way."""
        trouble = _TROUBLES[plan.verdict]
        if plan.outbid or (pub.trouble, pub.detail) != (trouble, plan.reason):
            await self._report(
                DnsTroubled(
                    self._service,
                    trouble,
                    plan.reason,
                    epoch=plan.epoch,
                    outbid=plan.outbid,
                    replaced=plan.replaced,
                )
            )
        service, _ = self._state()
        raised = service is not None and service.publication.wanted_epoch != pub.wanted_epoch
        return 0.0 if raised else self._pace.watch_s

    async def _failed(self, error: AionError) -> float:
        """Report a failure and say when to try again."""
        delay = self._backoff()
        now = self._clock.steady()
        if isinstance(error, Throttled):
            delay = error.retry_after_s
            self._not_before = now + delay
        if isinstance(error, Unreachable | BadReply | NotAllowed):
            service, frozen = self._state()
            pub = service.publication if service and not frozen else None
            event = DnsTroubled(self._service, _trouble(error), str(error), now + delay)
            if pub and (pub.trouble, pub.detail) != (event.trouble, event.detail):
                try:
                    await self._report(event)
                except AionError:
                    return delay  # the loop cannot store it; the next failure says it again
        return delay

    async def _in_time(self, work: Awaitable[T]) -> T:
        limit_s = self._pace.attempt_s
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError as error:
            raise Unreachable(f"the DNS provider did not answer within {limit_s} s") from error

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────

    async def _wait(self, delay: float) -> None:
        """Sleep, unless something else is wanted; what the provider told us is slept out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + delay
        while (left := until - loop.time()) > 0:
            self._poked.clear()
            if self._news():
                return
            try:
                async with asyncio.timeout(left):
                    await self._poked.wait()
            except TimeoutError:
                return

    def _news(self) -> bool:
        service, frozen = self._state()
        if service is None or self._seen is None:
            return False
        if self._not_before is not None and self._clock.steady() < self._not_before:
            return False
        now, seen = _want(service.publication, frozen), self._seen
        moved = (now.targets, now.epoch, now.frozen) != (seen.targets, seen.epoch, seen.frozen)
        return moved or (now.adopt and not seen.adopt)

    def _held(self, pub: Publication) -> float:
        """Say for how long the provider told us to wait, before a restart too."""
        now = self._clock.steady()
        if self._not_before is None:
            stored = pub.retry_at or 0.0
            self._not_before = stored if stored - now > self._pace.retry_max_s else 0.0
            sent = (pub.attempted, pub.attempted_epoch)
            if not self._provider.rewrites and pub.attempted and sent != _told(pub):
                # it may have arrived before we were killed: give the DNS time to show it
                self._wrote, self._wrote_at = sent, asyncio.get_running_loop().time()
        return self._not_before - now

    def _stale(self, plan: Plan, pub: Publication) -> bool:
        """Say whether this read may still show what stood there before our own last write."""
        if self._wrote is None:
            return False
        since = asyncio.get_running_loop().time() - self._wrote_at
        if since >= self._provider.settle_s:
            return False
        same = self._wrote == (pub.wanted, pub.wanted_epoch)
        return plan.verdict is Verdict.DRIFT or (plan.verdict is Verdict.CHANGE and same)

    def _echo(self) -> float:
        delay = self._pace.echo_s * 2.0 ** min(self._echoes, 20)
        self._echoes += 1
        return min(delay, self._pace.echo_max_s)

    def _backoff(self) -> float:
        delay = self._pace.retry_s * 2.0 ** min(self._failures, 20)
        self._failures += 1
        return min(delay, self._pace.retry_max_s) * self._random.uniform(0.5, 1.0)

    def _tell(self, plan: Plan) -> None:
        if self._would and plan.verdict is not Verdict.IN_PLACE and plan.reason != self._told:
            self._told = plan.reason
            self._would(plan.reason)


def _want(pub: Publication, frozen: bool) -> _Want:
    return _Want(pub.wanted, pub.wanted_epoch, pub.adopt, frozen)


def _told(pub: Publication) -> tuple[tuple[Target, ...], int]:
    return pub.confirmed, pub.confirmed_epoch


def _trouble(error: AionError) -> DnsTrouble:
    refused = isinstance(error, NotAllowed) or (
        isinstance(error, BadReply)
        and not isinstance(error, Throttled)
        and error.status in _CLIENT_ERRORS
    )
    return DnsTrouble.REFUSED if refused else DnsTrouble.UNREACHABLE
