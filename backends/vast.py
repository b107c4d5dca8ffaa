"""The kind `vast`: an instance of yours on vast.ai that is started and stopped.

By vast.ai's own interface (docs.vast.ai/api-reference: "Update Instance", "Get Instance"; what the
states mean: "show instance"). State and label are set in one request; the label of a start is the
last word of the instance's label while it runs, and is taken off again afterwards.

A start for which nothing is free is queued there, so it would come whenever it likes: it is taken
back at once and told as a stockout. vast.ai has no run time limit to be set: what a dead daemon
cannot stop, only the agent's own end or the account's credit does. Its prices are those of an hour,
its credit is the whole account's: neither is what this backend has spent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field, field_validator, model_validator

from backends import placed, rest
from backends.base import Check, Credential, Launch, Plan, Ports
from backends.engines.answers import plain
from backends.rest import Rest, Said, label_in, labelled, words_of
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag

API: Final = "https://console.vast.ai"
NOWHERE: Final = "it is off, or vast.ai gives it no address yet"
RUNNING: Final = "running"
CHARGED: Final = frozenset({RUNNING, "frozen", "offline", "unknown"})
"""Container states in which nothing is being brought up any more."""
HELD: Final = CHARGED | {"loading", "created", "rebooting"}
"""Container states which say, where nothing else does, that its GPU is ours."""
HALTED: Final = frozenset({"stopped", "exited", "unloaded", "inactive"})
REFUSALS: Final = rest.Refusals(
    stockout=re.compile(r"(?i)resources_unavailable|resources are currently unavailable"),
    quota=re.compile(r"(?i)missing_billing|lack credit|insufficient[ _]credit|spend rate"),
)


class Options(placed.Options):
    """The keys of a `vast` backend besides those that every backend has."""

    api_key: Credential
    """A key of vast.ai's that may read and write instances (Keys → API Keys)."""
    instance: int = Field(ge=1)
    """The number of the instance."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where the engine listens in the container; needed unless it `registers` or has a `url`."""
    api: str = API
    """vast.ai's interface."""

    @field_validator("api")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return rest.api_address(url)

    @model_validator(mode="after")
    def _is_somewhere(self) -> Options:
        if self.port is None and self.url is None and not self.registers:
            raise ValueError("it needs `port`, where the engine listens in the container")
        return self


class Driver(placed.Placed):
    """Looks at a `vast` backend, starts and stops its instance.

    `pace_s`: it takes about one change a second, so the next one waits for so long.
    """

    pace_s = 1.5

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports, NOWHERE)
        self._options: Options = plan.options
        self._path = f"/api/v0/instances/{plan.options.instance}/"
        self._rest = _rest(plan, ports)

    async def start(self, launch: Launch) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        unread, there = await self._read()
        if unread is not None:
            return rest.refused(unread)
        had, now = there.get("label"), _seen(there, self._options)
        if now.phase is PowerPhase.UNKNOWN:
            return now
        if now.phase is not PowerPhase.OFF:
            return now if now.launch == launch.label else _taken(now)
        label = labelled(had, launch.label)
        said = await self._put(state=RUNNING, label=label)
        if said.good:
            await self._keep(label)
            return PowerReport(PowerPhase.STARTING, launch.label)
        if said.snag is Snag.STOCKOUT:
            return await self._taken_back(said, labelled(had, ""))
        return said.report()

    async def stop(self, launch: str) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        unread, there = await self._read()
        if unread is not None:
            return unread
        now = _seen(there, self._options)
        if now.phase in (PowerPhase.OFF, PowerPhase.STOPPING):
            return PowerReport(now.phase)
        if now.phase is PowerPhase.UNKNOWN:
            now = PowerReport(launch=label_in(there.get("label")))
        if launch and now.launch != launch:
            return PowerReport(PowerPhase.OFF, detail=_others(now))
        said = await self._put(state="stopped")
        if not said.good:
            return said.report()
        if now.launch:
            await self._put(label=labelled(there.get("label"), ""))
        return PowerReport(PowerPhase.STOPPING)

    async def status(self) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        unread, there = await self._read()
        return unread if unread is not None else _seen(there, self._options)

    async def _read(self) -> tuple[PowerReport | None, Mapping[str, Any]]:
        """Read the instance: it, or the report that says why not. One that is gone is off."""
        said = await self._rest.read(self._path)
        there = said.body.get("instances", "") if isinstance(said.body, dict) else ""
        gone = said.missing or (said.good and there is None)
        if gone or (said.vague and await self._is_not_listed()):
            number = self._options.instance
            text = f"there is no instance {number} in this account"
            return PowerReport(PowerPhase.OFF, detail=text), {}
        if not said.good:
            return said.report(), {}
        if not isinstance(there, dict) or not {"cur_state", "actual_status"} & there.keys():
            return PowerReport(detail="an answer that is no instance", snag=Snag.TRANSIENT), {}
        return None, there

    async def _is_not_listed(self) -> bool:
        """Say whether the list of all instances, read well, has it not."""
        said = await self._rest.read("/api/v0/instances/")
        found = said.body.get("instances") if isinstance(said.body, dict) else None
        if not said.good or not isinstance(found, list):
            return False
        number = self._options.instance
        return all(isinstance(one, dict) and one.get("id") != number for one in found)

    async def _keep(self, label: str) -> None:
        """Set the label once more if it was not taken with the start: it is known as ours by it."""
        unread, there = await self._read()
        if unread is None and label_in(there.get("label")) != label_in(label):
            await asyncio.sleep(self.pace_s)
            await self._put(label=label)

    async def _put(self, **change: str) -> Said:
        """Change it; that it could not may also come with HTTP 200."""
        harmless = "state" not in change
        said = await self._rest.write("PUT", self._path, change, harmless=harmless)
        if not said.good:
            return said
        done = said.body.get("success") if isinstance(said.body, dict) else None
        if done is True:
            return said
        words = plain(words_of(said.body), rest.SAID_MOST) or "an answer that says nothing"
        snag = Snag.DENIED if done is False else Snag.LOST
        snag = Snag.STOCKOUT if REFUSALS.stockout.search(words) else snag
        snag = Snag.QUOTA if REFUSALS.quota.search(words) else snag
        return Said(0, said.body, words, snag)

    async def _taken_back(self, refused: Said, label: str) -> PowerReport:
        """Take a queued start back: it would come, and cost, when nobody needs it any more."""
        said = refused
        for _ in range(2):
            await asyncio.sleep(self.pace_s)
            said = await self._put(state="stopped", label=label)
            if said.good:
                return refused.report()
        return PowerReport(detail=f"it is queued there, {said.words}", snag=Snag.LOST)


def _rest(plan: Plan, ports: Ports) -> Rest:
    key = plan.secrets.get("api_key", "")
    return Rest(ports.http, ports.clock, plan.options.api, key, REFUSALS)


def _others(now: PowerReport) -> str:
    return f"it runs as {now.launch}, which is left alone" if now.launch else "somebody started it"


def _taken(now: PowerReport) -> PowerReport:
    return PowerReport(detail=f"it runs already: {_others(now)}", snag=Snag.TRANSIENT)


def _seen(there: Mapping[str, Any], options: Options) -> PowerReport:
    """Say how an instance is: whether its GPU is ours (`cur_state`), is to be, and what runs."""
    actual, wanted = there.get("actual_status"), there.get("intended_status")
    state = there.get("cur_state")
    held = state == RUNNING if state else actual in HELD
    label = label_in(there.get("label"))
    if not held:
        if wanted == RUNNING:  # queued, or outbid: it comes back and costs when there is room
            return PowerReport(PowerPhase.STARTING, label, detail="it waits for its GPU")
        if wanted is None and (state or actual) not in HALTED:
            text = f"its state is {plain(state or actual, 40)}"
            return PowerReport(detail=text, snag=Snag.TRANSIENT)
        return PowerReport(PowerPhase.OFF, detail=_why(there))
    if wanted not in (RUNNING, "frozen", None):
        return PowerReport(PowerPhase.STOPPING, label)
    if actual not in CHARGED:
        return PowerReport(PowerPhase.STARTING, label, detail=_why(there))
    return PowerReport(PowerPhase.ON, label, _address(there, options), _why(there))


def _why(there: Mapping[str, Any]) -> str:
    """Say what vast.ai says of an instance's state."""
    return plain(there.get("status_msg") or "", rest.SAID_MOST)


def _address(there: Mapping[str, Any], options: Options) -> str:
    if options.port is None or options.registers or options.url is not None:
        return ""
    host, mapped = there.get("public_ipaddr"), there.get("ports")
    ways = mapped.get(f"{options.port}/tcp") if isinstance(mapped, dict) else None
    first = ways[0] if isinstance(ways, list) and ways else None
    outside = first.get("HostPort") if isinstance(first, dict) else None
    if not isinstance(host, str) or not outside:
        return ""
    return placed.address(f"http://{host.strip()}:{outside}")


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Do as `backends.base.Checks` says."""
    options: Options = plan.options
    asked = _rest(plan, ports)
    said = await asked.read(f"/api/v0/instances/{options.instance}/")
    kept = options.api_key.credential
    there = said.body.get("instances", "") if isinstance(said.body, dict) else ""
    if said.missing or (said.good and there is None):
        return [Check(False, f"there is no instance {options.instance}", "correct `instance`")]
    if not said.good or not isinstance(there, dict):
        return [Check(False, f"vast.ai: {said.words}", f"aion secret set {kept}")]
    price = plain(there.get("dph_total"), 20)
    text = f"instance {options.instance} is {plain(there.get('cur_state'), 20)}"
    found = [Check(True, f"vast.ai takes the key; {text}; {price} USD an hour while it runs")]
    if there.get("is_bid"):
        found.append(Check(None, "it is interruptible: gone whenever somebody bids more"))
    if not options.registers:
        text = "vast.ai ends no instance by itself: one that a dead daemon left runs on"
        found.append(Check(None, text, "keep little credit there, and no automatic top-up"))
    return found
