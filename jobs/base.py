"""What a job is, and what it may use.

Nothing heavy is imported here: settings and the command line read these names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from orchestrator.core.model import Now

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from backends.base import Children, Http, Random
    from jobs.backup.form import Plan as BackupPlan
    from orchestrator.core.events import Flagged
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
class BackupSettings:
    """One `[backups.NAME]`. `schedule`: a cron line. `drills`: whether the plan's drill is wanted.

    `ping_url` is a secret, as the plan's DSN and credentials are.
    """

    plan: BackupPlan = field(repr=False)
    schedule: str
    stale_after_s: float
    ping_url: str = field(default="", repr=False)
    drills: bool = False

    @property
    def name(self) -> str:
        return self.plan.name

    def secrets(self) -> Iterator[str]:
        """Give what no log line may show, whole and in the pieces that messages may repeat."""
        plan = self.plan
        identity = plan.encrypt.identity if plan.encrypt else ""
        for secret in (plan.dsn, plan.drill.dsn, identity, self.ping_url):
            if secret:
                yield secret
        for dsn in filter(None, (plan.dsn, plan.drill.dsn)):
            userinfo = dsn.partition("://")[2].rpartition("@")[0]
            password = userinfo.partition(":")[2]
            yield from {password, unquote(password)} - {""}
        if plan.itself:
            yield from plan.itself.credentials.values()
        places = [copy for one in plan.syncs for copy in (one.source, *one.to)]
        for copy in (*plan.copies, *places):
            for access in filter(None, (copy.access, copy.expire)):
                yield from filter(None, (access.hub_token, access.google, access.rclone_config))


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
class BackupTools:
    """What backing up takes: each runs as a child process; `report` is told what is wrong.

    `board`: how far those under way are, by name, for whoever shows it.
    """

    backups: tuple[BackupSettings, ...]
    children: Children
    report: Callable[[Flagged], None]
    board: dict[str, Mapping[str, Any]] = field(default_factory=dict)


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
    backups: BackupTools | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Something done on a schedule.

    `trigger` makes the schedule, None when the configuration has no use for the job. `run` returns
    one line for the record; it raises `AionError` for what it could not do, and anything else it
    raises is a crash. `heavy`: never two of these at once. `misfire_grace_s`: how late it may still
    start. `catch_up`: made up for, once, when it was missed while the daemon was down. `resume`:
    begun anew at the next start when the daemon ended in the midst of it.
    """

    name: str
    trigger: Callable[[Tools], BaseTrigger | None]
    run: Callable[[Tools], Awaitable[str]]
    heavy: bool
    misfire_grace_s: int
    catch_up: bool
    resume: bool = False
