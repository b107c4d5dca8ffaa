"""The kind `libcloud`: one machine of yours on any provider that Apache Libcloud knows.

It is started and stopped, never made or deleted. Apache Libcloud is a library that you install
(`aion-orchestrator[libcloud]`); it runs in a child process (`backends.libcloud_child`).

Where its driver has tags (EC2 and what speaks like it, Azure), the label of a start is the tag
`aion`, set before the start and taken off after the stop; `tag = false` where that is not allowed.
Elsewhere there is no label, so what runs is taken for ours as long as the database remembers that
we started it. Starting one fixed machine twice starts it once, so nothing lost makes two. None of
these providers ends a machine by itself: what a dead daemon cannot stop runs on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from backends import placed, rest
from backends.base import Check, Credential, Launch, Plan, Ports
from backends.engines.answers import plain
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Ask, PowerReport, Snag
from orchestrator.errors import ChildFailed

CHILD: Final = "backends.libcloud_child"
NOWHERE: Final = "it is off, or its provider gives it no address yet"
LIMITS_S: Final = {Ask.START: 150.0, Ask.STOP: 150.0, Ask.STATUS: 60.0}


class Options(placed.Options):
    """The keys of a `libcloud` backend besides those that every backend has."""

    provider: str = Field(pattern=r"^[a-z0-9_]{1,40}$")
    """Apache Libcloud's name of it: "ec2", "azure_arm", "linode", "digitalocean", "vultr" …"""
    node: str = Field(min_length=1, max_length=200)
    """The machine's id, or its name if only one is called so."""
    region: str | None = Field(default=None, min_length=1, max_length=60)
    """Where it is, for drivers that ask for it."""
    account: Credential
    """The driver's secret arguments as a JSON object, {"key": "…", "secret": "…"}; a text that is
    none is its `key`, for providers that take a token."""
    arguments: dict[str, str | int | bool] = Field(default={})
    """More of the driver's arguments, nothing secret: a tenant, a project."""
    tag: bool = True
    """Tag the machine with the label of a start, where its driver can."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where the engine listens; needed unless it `registers` or has a `url`."""
    private: bool = False
    """It is reached by its private address rather than its public one."""
    api: str | None = None
    """The provider's interface, if not the one that its driver knows."""

    @field_validator("api")
    @classmethod
    def _is_https(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).path:
            raise ValueError("host and port only; the driver knows the rest")
        return None if url is None else rest.api_address(url)

    @model_validator(mode="after")
    def _is_somewhere(self) -> Options:
        if self.port is None and self.url is None and not self.registers:
            raise ValueError("it needs `port`, where the engine listens")
        return self


class Driver(placed.Placed):
    """Looks at a `libcloud` backend, starts and stops its machine."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports, NOWHERE)
        self._plan, self._ports = plan, ports
        self._options: Options = plan.options

    async def start(self, launch: Launch) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        return await self._ask(Ask.START, launch.label)

    async def stop(self, launch: str) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        return await self._ask(Ask.STOP, launch)

    async def status(self) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        return await self._ask(Ask.STATUS, "")

    async def _ask(self, ask: Ask, label: str) -> PowerReport:
        given = payload(self._plan, ask.value, label)
        try:
            said = await self._ports.children(CHILD, given, timeout_s=LIMITS_S[ask])
        except ChildFailed as error:
            lost = Snag.TRANSIENT if ask is Ask.STATUS else Snag.LOST
            return PowerReport(detail=str(error), snag=lost)
        return read(said, self._options)


def payload(plan: Plan, ask: str, label: str) -> dict[str, Any]:
    """Write what the child is handed: the secrets in it go nowhere else."""
    options: Options = plan.options
    parts = urlsplit(options.api or "")
    return {
        "ask": ask,
        "label": label,
        "provider": options.provider,
        "node": options.node,
        "region": options.region,
        "account": plan.secrets.get("account", ""),
        "arguments": dict(options.arguments),
        "tag": options.tag,
        "host": parts.hostname,
        "port": parts.port or (None if options.api is None else 443),
        "secure": parts.scheme != "http",
    }


def read(said: Mapping[str, Any], options: Options) -> PowerReport:
    """Read the child's answer."""
    phases = {one.value for one in PowerPhase}
    phase, snag = said.get("phase"), said.get("snag")
    wait_s = said.get("retry_after_s")
    return PowerReport(
        PowerPhase(phase) if phase in phases else PowerPhase.UNKNOWN,
        plain(said.get("launch") or "", rest.SAID_MOST),
        _address(said, options),
        plain(said.get("detail") or "", rest.SAID_MOST),
        Snag(snag) if snag in {one.value for one in Snag} else Snag.LOST,
        float(wait_s) if isinstance(wait_s, int | float) and wait_s > 0 else None,
    )


def _address(said: Mapping[str, Any], options: Options) -> str:
    if options.port is None or options.registers or options.url is not None:
        return ""
    host = said.get("private" if options.private else "public")
    if not isinstance(host, str) or not host:
        return ""
    shown = f"[{host}]" if ":" in host else host
    return placed.address(f"http://{shown}:{options.port}")


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Do as `backends.base.Checks` says."""
    options: Options = plan.options
    report = await Driver(plan, ports).status()
    if report.snag is not Snag.NONE:
        what = f"{options.provider}: {report.detail}"
        return [Check(False, what, f"aion secret set {options.account.credential}")]
    if report.phase is PowerPhase.OFF and report.detail:
        return [Check(False, report.detail, "correct `node` or `region`")]
    found = [Check(True, f"{options.provider} takes the account; {options.node} is {report.phase}")]
    text = "it ends no machine by itself: one that a dead daemon left runs on"
    found.append(Check(None, text, "set an alarm on what it costs at the provider"))
    return found
