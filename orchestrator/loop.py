r"""The page to read first: event in → core → commit → effects out.

One task turns the loop and nobody else changes the fleet, so there are no locks. What must survive
is committed before it is applied, published or carried out. Results of effects come back as events.

    probes  heartbeats  gateway results  commands  clock
        \       |              |            |       /
                     inbox (bounded)
                            |
             step(fleet, event, now)  →  Turn            pure
                            |
             store.commit(turn)                          if it is durable
                            |
             apply → subscribers → effects
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from backends.base import Clock
from orchestrator.core.events import (
    Answer,
    Command,
    DnsConfirmed,
    DnsTroubled,
    Event,
    Flagged,
    NoticesSent,
    Observed,
    Tick,
    Turn,
)
from orchestrator.core.fleet import apply, step
from orchestrator.core.meters import Spent
from orchestrator.core.model import Fleet, Now, Observation, Source
from orchestrator.core.powering import PowerReported
from orchestrator.edge.queries import Audit
from orchestrator.errors import Overloaded, StoreError

INBOX = 4096
TICK_S = 1.0
BREATHE_EVERY = 64  # events handled before others on the event loop get a chance
RETRY_S = 1.0
RESULTS = (DnsConfirmed, DnsTroubled, NoticesSent, Flagged, Spent, PowerReported)  # never dropped

log = structlog.get_logger()


class StorePort(Protocol):
    """What the loop needs of the store."""

    @property
    def full(self) -> bool:
        """Whether the disk is full."""
        ...

    async def commit(self, turn: Turn, now: Now, audit: Audit | None = None) -> None:
        """Write a turn in one transaction; raises `StoreError`, and then nothing of it stands."""
        ...

    async def answered(self, key: str) -> Answer | None:
        """Give what the command with this key was answered before."""
        ...

    def observe(self, observation: Observation, at: float) -> None:
        """Count an observation; it is written later, in a batch."""
        ...


@dataclass(slots=True)
class _Envelope:
    """An event on its way, who gave it, and who waits for it."""

    event: Event
    audit: Audit | None = None
    waiter: asyncio.Future[Turn] | None = None
    done: Callable[[], None] | None = None


class Loop:
    """Turns events into committed state and effects.

    `fleet` may be read at any time, by anyone, without waiting; nobody but the loop changes it.
    `turned_at`: steady time at which the last turn was completed.
    """

    def __init__(self, fleet: Fleet, *, clock: Clock, store: StorePort) -> None:
        self.fleet = fleet
        self.turned_at = clock.steady()
        self._clock, self._store = clock, store
        self._inbox: deque[_Envelope] = deque()
        self._queued: dict[tuple[str, Source], _Envelope] = {}
        self._later: list[_Envelope] = []
        self._arrived = asyncio.Event()
        self._subscribers: list[Callable[[Turn], None]] = []
        self._watchers: list[Callable[[Observation], None]] = []
        self._handlers: dict[type, Callable[[Any], None]] = {}
        self._turn_took: Callable[[float], None] = _ignore
        self._commit_took: Callable[[float], None] = _ignore
        self._store_failed = ""
        self._was_full = False
        self._under_way: _Envelope | None = None

    # ── what others call ────────────────────────────────────────────────────────────────────────

    def now(self) -> Now:
        """Read the clock."""
        return Now(self._clock.steady(), self._clock.wall())

    @property
    def waiting(self) -> int:
        """Events in the inbox."""
        return len(self._inbox)

    def on(self, effect: type, handler: Callable[[Any], None]) -> None:
        """Have effects of this type carried out by `handler`, which must not block."""
        self._handlers[effect] = handler

    def subscribe(self, callback: Callable[[Turn], None]) -> None:
        """Have `callback` called after each applied turn that changed something."""
        self._subscribers.append(callback)

    def watch(self, callback: Callable[[Observation], None]) -> None:
        """Have `callback` called with every observation taken into account."""
        self._watchers.append(callback)

    def time(self, turn: Callable[[float], None], commit: Callable[[float], None]) -> None:
        """Have every durable turn's seconds, and those of its commit, told."""
        self._turn_took, self._commit_took = turn, commit

    def report(self, event: Event, done: Callable[[], None] | None = None) -> None:
        """Hand in what was seen or done; `done` is called once it was taken into account.

        When the inbox is full, a newer probe of a backend takes the place of the waiting one.
        """
        envelope = _Envelope(event, done=done)
        if isinstance(event, Observed):
            key = (event.observation.backend, event.observation.source)
            waiting = self._queued.get(key)
            if waiting is not None and len(self._inbox) >= INBOX:
                waiting.event, waiting.done = event, _both(waiting.done, done)
                return
            self._queued[key] = envelope
        self._put(envelope)

    async def committed(self, event: Event) -> Turn:
        """Hand in an event and wait until its turn is committed and applied.

        Raises `StoreError` if it cannot be stored.
        """
        envelope = _Envelope(event, waiter=asyncio.get_running_loop().create_future())
        self._put(envelope)
        assert envelope.waiter is not None
        return await envelope.waiter

    async def command(self, command: Command, audit: Audit | None) -> Answer:
        """Carry out an operator's command; returns its answer once it is committed.

        A command whose `audit.key` was answered before gets the same answer and changes nothing.
        Raises `Overloaded` when too much waits, `StoreError` when it cannot be stored.
        """
        if len(self._inbox) >= INBOX:
            raise Overloaded("too much is waiting to be decided; try again in a few seconds")
        waiter: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._put(_Envelope(command, audit, waiter))
        turn = await waiter
        return turn.answer if turn.answer is not None else Answer("done")

    def _put(self, envelope: _Envelope) -> None:
        self._inbox.append(envelope)
        self._arrived.set()

    # ── turning ─────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Turn until cancelled; whoever waits for an event then is told that nobody will come."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                await self._drain()
        finally:
            last = [self._under_way] if self._under_way is not None else []
            for envelope in (*last, *self._inbox, *self._later):
                if envelope.waiter is not None and not envelope.waiter.done():
                    envelope.waiter.cancel()

    async def tick(self) -> None:
        """Say once a second that time passes, until cancelled."""
        while True:
            self._put(_Envelope(Tick(self._clock.boot())))
            again, self._later = self._later, []
            for envelope in again:
                self._put(envelope)
            self._note_full()
            await asyncio.sleep(TICK_S)

    async def _drain(self) -> None:
        handled = 0
        while self._inbox:
            envelope = self._inbox.popleft()
            if isinstance(envelope.event, Observed):
                seen = envelope.event.observation
                self._queued.pop((seen.backend, seen.source), None)
            self._under_way = envelope
            await self._turn(envelope)
            self._under_way = None
            handled += 1
            if handled % BREATHE_EVERY == 0:
                await asyncio.sleep(0)

    async def _turn(self, envelope: _Envelope) -> None:
        now = self.now()
        event = envelope.event
        try:
            if await self._repeated(envelope):
                return
            turn = step(self.fleet, event, now)
        except StoreError as error:
            self._unstored(envelope, error)
            return
        except Exception as error:  # a bug in a rule must not stop the loop: the event is dropped
            log.exception("step_failed", happened=type(event).__name__)
            self._fail(envelope, StoreError(f"internal error: {type(error).__name__}"))
            return
        if turn.durable or (envelope.audit is not None and turn.answer is not None):
            try:
                await self._store.commit(turn, now, envelope.audit)
            except StoreError as error:
                self._unstored(envelope, error)
                return
            self._commit_took(self._clock.steady() - now.at)
            self._note_store()
            self._applied(envelope, turn, now)
            self._turn_took(self._clock.steady() - now.at)
        else:
            self._applied(envelope, turn, now)

    async def _repeated(self, envelope: _Envelope) -> bool:
        """Answer a command that was answered before; asked here, two at once are told apart."""
        if envelope.audit is None or envelope.audit.key is None:
            return False
        before = await self._store.answered(envelope.audit.key)
        if before is not None and envelope.waiter is not None and not envelope.waiter.done():
            envelope.waiter.set_result(Turn(answer=before))
        return before is not None

    def _applied(self, envelope: _Envelope, turn: Turn, now: Now) -> None:
        event = envelope.event
        apply(self.fleet, turn)
        self.turned_at = now.at
        if isinstance(event, Observed):
            self._store.observe(event.observation, now.at)
            for watcher in self._watchers:
                self._call(watcher, event.observation)
        for entry in turn.entries:
            log.info(entry.action, subject=entry.subject, text=entry.text)
        if turn.tick or turn.world or turn.durable or turn.backends or turn.services:
            for callback in self._subscribers:
                self._call(callback, turn)
        for effect in turn.effects:
            handler = self._handlers.get(type(effect))
            if handler is not None:
                self._call(handler, effect)
        if envelope.waiter is not None and not envelope.waiter.done():
            envelope.waiter.set_result(turn)
        if envelope.done is not None:
            envelope.done()

    def _call(self, other: Callable[[Any], None], what: object) -> None:
        """Tell somebody. Their bug must not stop the loop: what they missed is committed."""
        try:
            other(what)
        except Exception:
            log.exception("callback_failed", about=type(what).__name__)

    # ── when the disk says no ───────────────────────────────────────────────────────────────────

    def _unstored(self, envelope: _Envelope, error: StoreError) -> None:
        """Leave the state as it was. What is seen will be seen again; results are kept."""
        if str(error) != self._store_failed:
            self._store_failed = str(error)
            log.error("store_failed", problem=str(error))
        if isinstance(envelope.event, RESULTS):
            self._later.append(envelope)
            return
        if isinstance(envelope.event, Tick):
            self._pass_time(envelope.event)
        self.turned_at = self._clock.steady()
        self._fail(envelope, error)

    def _pass_time(self, tick: Tick) -> None:
        """Let time pass even if nothing can be written: else we would seem to have slept."""
        now = self.now()
        apply(self.fleet, Turn(tick=(now.at, now.wall, tick.boot)))

    def _fail(self, envelope: _Envelope, error: StoreError) -> None:
        if envelope.waiter is not None and not envelope.waiter.done():
            envelope.waiter.set_exception(error)
        if envelope.done is not None:
            envelope.done()

    def _note_store(self) -> None:
        if self._store_failed:
            self._store_failed = ""
            log.info("store_works", text="the database can be written again")

    def _note_full(self) -> None:
        full = self._store.full
        if full != self._was_full:
            self._was_full = full
            detail = "only what is decided is still stored; make room" if full else ""
            self.report(Flagged("disk_full", "database", detail))


def _ignore(_seconds: float) -> None:
    pass


def _both(
    one: Callable[[], None] | None, other: Callable[[], None] | None
) -> Callable[[], None] | None:
    if one is None or other is None or one is other:
        return one or other

    def call() -> None:
        one()
        other()

    return call
