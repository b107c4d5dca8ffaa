"""The kind `command`: three programs of yours start it, stop it, and say how it is.

Each is an argument list, run without a shell. `{launch}` in it becomes the label of the start that
is to be made or stopped, `{max_run_s}` the seconds after which it has to end by itself (0: none).
What `stdin` names is handed to each on its stdin.

Exit status of `status`: 0 on, 3 off, 4 starting, 5 stopping; any other: it could not be read. Of
`start` and `stop`: 0 done, or under way; 69 nothing free there, 73 the quota is used up, 75 not
just now, 77 not allowed: with these four nothing was done. Any other, and a time-out: nobody knows.
The last line of stdout may be a JSON object and say more: `state` ("on", "off", "starting",
"stopping"), `url`, `launch`, `problem` ("quota", "stockout", "denied", "transient", "lost"),
`retry_after_s`, `detail`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import Field, field_validator

from backends import base, placed
from backends.base import Credential, Ended, Launch, Plan, Ports
from backends.engines.answers import plain
from orchestrator.core.durations import seconds
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag
from orchestrator.errors import ChildFailed, ChildTimedOut

LONGEST_S: Final = 300.0
NOWHERE: Final = "it is off, or its `status` gives no address"
STATES: Final = {
    0: PowerPhase.ON,
    3: PowerPhase.OFF,
    4: PowerPhase.STARTING,
    5: PowerPhase.STOPPING,
}
SNAGS: Final = {69: Snag.STOCKOUT, 73: Snag.QUOTA, 75: Snag.TRANSIENT, 77: Snag.DENIED}
SAID_MOST: Final = 300


class Commands(base.Options):
    """How to start and stop it, and how to learn whether it is on."""

    start: tuple[str, ...]
    """Program and arguments; what it leaves running has to detach itself, output included."""
    stop: tuple[str, ...]
    """The same; where there is nothing to stop it does nothing and ends with 0."""
    status: tuple[str, ...]
    """The same; ends with 0 for on, 3 off, 4 starting, 5 stopping."""
    env: dict[str, str] = Field(default={})
    """Added to their environment; nothing secret."""
    stdin: Credential | None = None
    """What each reads from its stdin: the place for a key."""
    timeout: str = "60s"
    """How long `start` and `stop` may take, at most 5m; `status` a fourth of it."""

    @field_validator("start", "stop", "status")
    @classmethod
    def _is_a_program(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if not argv or not argv[0].strip():
            raise ValueError("a list of a program and its arguments")
        if any("\x00" in word for word in argv):
            raise ValueError("there is a NUL in it")
        if " " in argv[0] and "/" not in argv[0]:
            raise ValueError("no shell reads it: each argument is a text of its own")
        return argv

    @field_validator("timeout")
    @classmethod
    def _is_short(cls, text: str) -> str:
        if not 0 < seconds(text) <= LONGEST_S:
            raise ValueError("more than nothing and at most 5m")
        return text


class Options(placed.Options):
    """The keys of a `command` backend besides those that every backend has."""

    commands: Commands
    """How it is started and stopped."""


class Driver(placed.Placed):
    """Looks at a `command` backend, and runs its programs."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports, NOWHERE)
        self._plan, self._ports = plan, ports
        self._commands: Commands = plan.options.commands

    async def start(self, launch: Launch) -> PowerReport:
        """Run the program that starts it."""
        report = await self._run(self._commands.start, launch.label, launch.max_run_s)
        return _done(report, PowerPhase.STARTING)

    async def stop(self, launch: str) -> PowerReport:
        """Run the program that stops it."""
        return _done(await self._run(self._commands.stop, launch), PowerPhase.STOPPING)

    async def status(self) -> PowerReport:
        """Run the program that says how it is."""
        return await self._run(self._commands.status, "", share=0.25, reads=True)

    async def _run(
        self,
        argv: Sequence[str],
        launch: str,
        max_run_s: float | None = None,
        *,
        share: float = 1.0,
        reads: bool = False,
    ) -> PowerReport:
        words = {"{launch}": launch, "{max_run_s}": f"{max_run_s or 0:.0f}"}
        secret = self._plan.secrets.get("commands.stdin", "")
        try:
            ended = await self._ports.programs(
                [_filled(word, words) for word in argv],
                env=self._commands.env,
                stdin=secret,
                timeout_s=seconds(self._commands.timeout) * share,
            )
        except ChildTimedOut as error:
            return PowerReport(snag=Snag.LOST, detail=str(error))
        except ChildFailed as error:  # it did not even begin
            return PowerReport(snag=Snag.TRANSIENT, detail=str(error))
        return read(ended, secret, reads=reads)


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word


def _done(report: PowerReport, otherwise: PowerPhase) -> PowerReport:
    """Say how it is after a good end that did not say."""
    if report.snag is not Snag.NONE or report.phase is not PowerPhase.UNKNOWN:
        return report
    return replace(report, phase=otherwise)


def read(ended: Ended, secret: str = "", *, reads: bool = False) -> PowerReport:
    """Read how a program ended. `reads`: it is the one whose exit status is the state.

    What it says is shown to the operator, so `secret` is blotted out of it.
    """
    said = _object(ended.stdout)
    snag, phase = _snag(said, ended.status, reads=reads), PowerPhase.UNKNOWN
    if snag is Snag.NONE:
        known = {state.value for state in STATES.values()}
        phase = STATES.get(ended.status, phase) if reads else phase
        phase = PowerPhase(said["state"]) if said.get("state") in known else phase
    detail = _text(said.get("detail")) or ("" if snag is Snag.NONE else _last(ended.stderr))
    if snag is not Snag.NONE and not said.get("problem"):
        how = f"signal {-ended.status}" if ended.status < 0 else f"exit status {ended.status}"
        detail = f"{how}: {detail}" if detail else how
    return PowerReport(
        phase,
        _text(said.get("launch")),
        placed.address(said.get("url")),
        detail.replace(secret, "…") if secret else detail,
        snag,
        _seconds(said.get("retry_after_s")),
    )


def _snag(said: Mapping[str, Any], status: int, *, reads: bool) -> Snag:
    given = said.get("problem")
    if given in {one.value for one in Snag if one.value}:
        return Snag(given)
    if status == 0 or (reads and status in STATES):
        return Snag.NONE
    return SNAGS.get(status, Snag.LOST)


def _object(text: str) -> Mapping[str, Any]:
    last = text.strip().rpartition("\n")[2]
    try:
        found = json.loads(last) if last.startswith("{") else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return plain(value, SAID_MOST) if isinstance(value, str) else ""


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return plain(lines[-1], SAID_MOST) if lines else ""


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(max(0.0, float(value)), 31 * 86400.0)
