"""What the web needs of the rest of the daemon: the loop, the store, the jobs, a reload.

Protocols only, so that each page of the web can be tested with a small stand-in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from orchestrator.core.events import Answer, Command, Event, Turn
from orchestrator.core.lives import PastSession
from orchestrator.core.model import Fleet, Now
from orchestrator.edge.queries import Audit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LoopPort(Protocol):
    """What the web sees of the loop: it reads the fleet and never writes it."""

    @property
    def fleet(self) -> Fleet:
        """The state as of the last applied turn."""
        ...

    @property
    def turned_at(self) -> float:
        """Steady time of the last completed turn."""
        ...

    @property
    def waiting(self) -> int:
        """Events in the inbox."""
        ...

    def now(self) -> Now:
        """Read the clock."""
        ...

    def subscribe(self, callback: Callable[[Turn], None]) -> None:
        """Have `callback` called after each applied turn."""
        ...

    async def command(self, command: Command, audit: Audit | None) -> Answer:
        """Give an operator's command; returns once it is committed.

        Raises `Overloaded` when the inbox is full, `StoreError` when it cannot be stored.
        """
        ...

    def report(self, event: Event) -> None:
        """Hand in what somebody said; nobody waits for its turn."""
        ...

    async def committed(self, event: Event) -> Turn:
        """Hand in an event; returns once its turn is committed. Raises `StoreError`."""
        ...


class EventRow(Protocol):
    """One stored line of the event log; `wall` is when, in Unix seconds."""

    @property
    def seq(self) -> int: ...
    @property
    def wall(self) -> float: ...
    @property
    def action(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def data(self) -> Mapping[str, str]: ...
    @property
    def who(self) -> str: ...


class StorePort(Protocol):
    """What the web reads from the store."""

    async def answered(self, key: str) -> Answer | None:
        """Return what the command with this key was answered, if it was given before."""
        ...

    async def events(
        self, after: int = 0, limit: int = 100, subject: str | None = None
    ) -> Sequence[EventRow]:
        """Return stored events whose `seq` is greater than `after`, oldest first."""
        ...

    async def past_session(self, ident: str) -> PastSession | None:
        """Find a session that is over, by its id."""
        ...

    async def past_sessions(
        self, backend: str | None = None, limit: int = 100
    ) -> Sequence[PastSession]:
        """Return sessions that are over, of one backend or of all, latest first."""
        ...


class JobRow(Protocol):
    """One scheduled job; times in Unix seconds. `problem` is "" if its last run was well.

    `said`: what that run came to, where it is known.
    """

    @property
    def name(self) -> str: ...
    @property
    def next_at(self) -> float | None: ...
    @property
    def last_at(self) -> float | None: ...
    @property
    def problem(self) -> str: ...
    @property
    def running(self) -> bool: ...
    @property
    def quarantined(self) -> bool: ...
    @property
    def said(self) -> str: ...


class CopyRow(Protocol):
    """One place of a backup's last dump; `free`: bytes left there, -1 unknown."""

    @property
    def store(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...
    @property
    def free(self) -> int: ...


class MoreRow(Protocol):
    """An export or a sync in a backup's last run; `detail`: what is wrong, "" if nothing."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def said(self) -> str: ...


class BackupStatus(Protocol):
    """What a backup's runs came to; times in Unix seconds, 0 for never."""

    @property
    def first_at(self) -> float: ...
    @property
    def run_at(self) -> float: ...
    @property
    def success_at(self) -> float: ...
    @property
    def dump(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def copies(self) -> Sequence[CopyRow]: ...
    @property
    def more(self) -> Sequence[MoreRow]: ...
    @property
    def rehashed_at(self) -> float: ...
    @property
    def drilled_at(self) -> float: ...
    def full_at(self, store: str, wall: float) -> float | None: ...


class BackupRow(Protocol):
    """One backup, its schedule and how it stands; `next_at` in Unix seconds."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> BackupStatus: ...
    @property
    def stale_after_s(self) -> float: ...
    @property
    def next_at(self) -> float | None: ...
    @property
    def running(self) -> bool: ...
    @property
    def quarantined(self) -> bool: ...
    @property
    def problem(self) -> str: ...
    @property
    def progress(self) -> Mapping[str, Any] | None: ...


Backups = Callable[[], Awaitable[Sequence[BackupRow]]]
"""Gives every backup as it stands."""


class JobsPort(Protocol):
    """What the web sees of the job runner."""

    def view(self) -> Sequence[JobRow]:
        """Return every job as it stands."""
        ...

    async def run_now(self, name: str) -> Answer:
        """Run a job; `Answer.problem` is "unknown" or "conflict" (it is running, or failed)."""
        ...

    def start_now(self, name: str, *, operator: bool = False) -> Answer:
        """Start a job and wait for nothing; of those in quarantine only for the `operator`.

        `Answer.problem` is "unknown", "conflict" (in quarantine) or "running".
        """
        ...


Reload = Callable[[], Awaitable[Sequence[str]]]
"""Reads the configuration again; returns one line per change. Raises `ConfigError`."""
