"""What a job is, and what it may use.

Nothing heavy is imported here: settings and the command line read these names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import time
from typing import TYPE_CHECKING, Protocol

from orchestrator.core.model import Now

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from backends.base import Http, Random
    from orchestrator.core.model import Fleet


class Shelf(Protocol):
    """What housekeeping needs of the store."""

    async def flush(self) -> None: ...

    async def prune(self, now: Now) -> object: ...


@dataclass(frozen=True, slots=True)
class DeadmanSettings:
    """`ping_url` is a secret: whoever knows it can keep the watcher calm."""

    ping_url: str = field(repr=False)
    every_s: float = 300.0


@dataclass(frozen=True, slots=True)
class KeepaliveSettings:
    """A backend whose host sleeps when nobody asks.

    `url`: what to ask for, where it is not the backend's own address. `between`: only at these
    hours by the operator's clock. `public_only`: its own address is what its session said, so none
    of our network is asked. Its monthly budget is a meter.
    """

    backend: str
    every_s: float
    url: str | None = None
    between: tuple[time, time] | None = None
    public_only: bool = False


@dataclass(frozen=True, slots=True)
class KeepaliveTools:
    """What keeping hosts awake takes.

    `asked`: backend → steady time of its last ping; it outlives a reload. `spent` is told the key
    of a meter and how much of it; the clients count their own traffic.
    """

    backends: tuple[KeepaliveSettings, ...]
    fleet: Callable[[], Fleet]
    http: Http
    guarded: Http
    random: Random
    spent: Callable[[str, float], None]
    asked: dict[str, float]


@dataclass(frozen=True, slots=True)
class Tools:
    """What jobs may use of the daemon.

    `now`: the loop's clock. `name_ok`: asks for us through our own public name and says whether we
    answered. `timezone`: whose clock `cron` means.
    """

    now: Callable[[], Now]
    timezone: str
    store: Shelf
    name_ok: Callable[[], Awaitable[bool]]
    deadman: DeadmanSettings | None = None
    keepalive: KeepaliveTools | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Something done on a schedule.

    `trigger` makes the schedule, None when the configuration has no use for the job. `run` returns
    one line for the record; it raises `AionError` for what it could not do, and anything else it
    raises is a crash. `heavy`: never two of these at once. `misfire_grace_s`: how late it may still
    start. `catch_up`: made up for, once, when it was missed while the daemon was down.
    """

    name: str
    trigger: Callable[[Tools], BaseTrigger | None]
    run: Callable[[Tools], Awaitable[str]]
    heavy: bool
    misfire_grace_s: int
    catch_up: bool
