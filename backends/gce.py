"""The kind `gce`: a machine of Google Compute Engine, started when it is needed and stopped after.

One instance that is there and stopped, or several in different zones of which the first with room
is started; or a template by which one is made with each start and deleted with each stop. All of it
is asked by Google's own client library, in a process of its own (`backends.gce_child`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from backends import placed, rest
from backends.base import Check, Credential, Launch, Plan, Ports
from backends.engines.answers import plain
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag
from orchestrator.errors import ChildFailed

CHILD: Final = "backends.gce_child"
NOWHERE: Final = "it is off, or its machine has no address yet"
API: Final = "https://compute.googleapis.com"
START_S, STOP_S, STATUS_S, CHECKS_S = 280.0, 120.0, 80.0, 60.0
PLACES_MOST: Final = 5
SAID_MOST: Final = 300

_NAME: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_ZONE: Final = re.compile(r"[a-z]+(?:-[a-z]+)+\d+-[a-z]")
_PROJECT: Final = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")


class Options(placed.Options):
    """The keys of a `gce` backend besides those that every backend has."""

    project: str
    """The project's id."""
    zone: str | None = None
    """The zone, such as "europe-west4-a"."""
    zones: tuple[str, ...] = ()
    """Several, tried in this order where one has no room."""
    instance: str | tuple[str, ...] = ()
    """An instance that is there: its name, or "zone/name"; several are tried in this order."""
    template: str | None = None
    """Or an instance template: a machine is made by it, and deleted when it is stopped."""
    spot: bool = False
    """What the template makes is a spot machine: cheap, and it may be taken away at any time."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where the engine listens on that machine."""
    scheme: Literal["http", "https", "tcp"] = "http"
    """How it is spoken to there."""
    address: Literal["external", "internal"] = "external"
    """Which of the machine's addresses is used."""
    account: Credential | None = None
    """JSON key of a service account; absent: what the machine that aion runs on may do itself."""
    api: str = API
    """Address of the Compute Engine API, for proxies."""

    @field_validator("project")
    @classmethod
    def _is_a_project(cls, text: str) -> str:
        if not _PROJECT.fullmatch(text):
            raise ValueError("a project's id, such as `my-project-1234`; not its name or number")
        return text

    @field_validator("zone", "zones")
    @classmethod
    def _are_zones(cls, given: Any) -> Any:
        for zone in [given] if isinstance(given, str) else given or ():
            if not _ZONE.fullmatch(zone):
                raise ValueError(f"`{zone}` is not a zone, such as `europe-west4-a`")
        return given

    @field_validator("instance", "template")
    @classmethod
    def _are_names(cls, given: Any) -> Any:
        for one in [given] if isinstance(given, str) else given or ():
            zone, slash, name = one.rpartition("/")
            if not _NAME.fullmatch(name) or (slash and not _ZONE.fullmatch(zone)):
                raise ValueError(f"`{one}` is not a name, or a zone and a name as `zone/name`")
        return given

    @field_validator("template")
    @classmethod
    def _is_everywhere(cls, name: str | None) -> str | None:
        if name is not None and "/" in name:
            raise ValueError("the name of a template alone; where it is used, `zones` say")
        return name

    @field_validator("api")
    @classmethod
    def _is_private(cls, url: str) -> str:
        return rest.api_address(url)

    @model_validator(mode="after")
    def _is_somewhere(self) -> Options:
        if bool(self.instance) == (self.template is not None):
            raise ValueError("either `instance`, which is there, or `template`, to make one by")
        if self.zone is not None and self.zones:
            raise ValueError("`zone` for one, `zones` for several; not both")
        where = (self.zone,) if self.zone else self.zones
        bare = self.template is not None or any("/" not in name for name in self.names)
        if bare and not where:
            raise ValueError("`zone` is missing")
        if self.template is None and len(where) > 1:
            raise ValueError('several instances are written as `instance = ["zone/name", …]`')
        if len(self.places) > PLACES_MOST:
            raise ValueError(f"at most {PLACES_MOST} places")
        if self.spot and self.template is None:
            raise ValueError("`spot` is for what a `template` makes; an instance is it or not")
        if self.port is None and self.url is None and not self.registers:
            raise ValueError("`port` is missing: where does the engine listen on that machine?")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return (self.instance,) if isinstance(self.instance, str) else self.instance

    @property
    def places(self) -> list[tuple[str, str]]:
        """List where it may run: zones, each with the name of the instance there or ""."""
        if self.template is not None:
            return [(zone, "") for zone in ((self.zone,) if self.zone else self.zones)]
        split = [name.rpartition("/") for name in self.names]
        return [(zone or self.zone or "", name) for zone, _, name in split]


class Driver(placed.Placed):
    """Looks at a `gce` backend, and has Google start and stop its machine."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports, NOWHERE)
        self._plan, self._ports = plan, ports
        self._known_off = False
        self._last = ""

    async def start(self, launch: Launch) -> PowerReport:
        """Have it started, in the first place that has room."""
        self._known_off, self._last = False, launch.label
        more = {"launch": launch.label, "max_run_s": launch.max_run_s}
        more["now"] = self._ports.clock.wall()
        return await self._ask("start", START_S, Snag.LOST, **more)

    async def stop(self, launch: str) -> PowerReport:
        """Have it stopped, or deleted where a template made it."""
        return await self._ask("stop", STOP_S, Snag.LOST, launch=launch)

    async def status(self) -> PowerReport:
        """Ask how it is, and why it is off where that is news."""
        asked = {"curious": not self._known_off, "last": self._last}
        report = await self._ask("status", STATUS_S, Snag.TRANSIENT, **asked)
        if report.snag is Snag.NONE:
            self._known_off = report.phase is PowerPhase.OFF
            self._last = report.launch or self._last
        return report

    async def _ask(self, do: str, within_s: float, otherwise: Snag, **more: Any) -> PowerReport:
        try:
            payload = {**wish(self._plan, do), **more}
            return read(await self._ports.children(CHILD, payload, timeout_s=within_s))
        except ChildFailed as error:
            return PowerReport(snag=otherwise, detail=str(error))


def wish(plan: Plan, do: str) -> dict[str, Any]:
    """Say what the child is to know of a plan."""
    options: Options = plan.options
    return {
        "do": do,
        "project": options.project,
        "places": options.places,
        "template": options.template or "",
        "spot": options.spot,
        "scheme": options.scheme,
        "port": 0 if options.registers or options.url else options.port,
        "address": options.address,
        "prefix": plan.label,
        "account": plan.secrets.get("account", ""),
        "api": options.api,
    }


def read(said: dict[str, Any]) -> PowerReport:
    """Read what the child answers."""
    wait = said.get("retry_after_s")
    return PowerReport(
        PowerPhase(said.get("phase") or PowerPhase.UNKNOWN),
        str(said.get("launch") or ""),
        placed.address(said.get("address")),
        plain(said.get("detail") or "", SAID_MOST),
        Snag(said.get("snag") or ""),
        None if wait is None else max(1.0, float(wait)),
    )


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Have `aion doctor` look at the credential, what it may do, the machine and its quota."""
    try:
        said = await ports.children(CHILD, wish(plan, "checks"), timeout_s=CHECKS_S)
    except ChildFailed as error:
        return [Check(False, str(error))]
    if said.get("snag"):
        text = plain(said.get("detail"), SAID_MOST)
        return [Check(False, text, "see docs/gcp.md; the key is kept with: aion secret set")]
    return [Check(ok, plain(what, SAID_MOST), remedy) for ok, what, remedy in said["found"]]
