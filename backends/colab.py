"""The kind `colab`, by choice only: a session started through Google's own command line tool.

The tool is `colab` of googlecolab/google-colab-cli, which you install and sign in with; aion runs
no other sub-commands of it than `sessions`, `new`, `exec` and `stop`, as its README and source have
them (version 0.7.5). A session bears the label of the start as its name, from the same command that
asks for it. What is executed there is the cell that `aion notebook` writes, by stdin, in the
background of the session's kernel; its agent then registers like any notebook.

Google's terms are in the way of much of this (`backends.terms`), so nothing is done without
`accept_terms = true`. The tool writes what it executes into its own history; the token in that is
good for one launch only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from backends import ipynb, kaggle, notebook, rest, terms
from backends.agent.settings import NAMES
from backends.base import Check, Ended, Launch, Plan, Ports
from backends.engines.answers import plain
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag
from orchestrator.errors import ChildFailed, ChildTimedOut

LIST_S, NEW_S, EXEC_S, STOP_S = 40.0, 110.0, 100.0, 45.0
NONE_ACTIVE: Final = "[colab] No active sessions found on server."
READY: Final = "[colab] Session READY."
ENDED: Final = "[colab] Session terminated."
RUNS: Final = "<aion agent: running>"
"""What the cell's last expression is shown as, once the agent runs."""
# As the tool's `_format_session_line` writes it.
_SESSION: Final = re.compile(r"^\[([^\]]+)\] (\S+) \| Hardware: ", re.MULTILINE)
QUOTA: Final = re.compile(
    r"TooManyAssignmentsError|Precondition Failed|may not have quota or entitlement"
)
DENIED: Final = re.compile(
    r"OAuth scope|DefaultCredentialsError|RefreshError|: Unauthorized|: Forbidden|No such option"
)
TRANSIENT: Final = re.compile(r"Too Many Requests")
SECRETS_NEEDED: Final = (
    "a session that is started this way has no secrets, so only quick tunnels need none:"
    ' set allow_hosts = ["*.trycloudflare.com"]'
)


class Options(notebook.Options):
    """The keys of a `colab` backend besides those that every backend has."""

    accept_terms: bool = False
    """You have read Google's terms and decided that they allow what you do."""
    gpu: tuple[Literal["T4", "L4", "G4", "A100", "H100"], ...] = ("T4",)
    """What computes there, tried in this order; an empty list: no GPU."""
    cli: str = Field(default="colab", pattern=r"^[A-Za-z0-9_./-]+$")
    """Google's tool: a name on the PATH, or where it is."""
    auth: Literal["adc", "oauth2"] = "adc"
    """How the tool signs in."""
    env: dict[str, str] = Field(default={})
    """Added to its environment, such as a HOME where its sign-in is kept; nothing secret."""
    agent: dict[str, kaggle.Scalar | list[str]] = Field(default={})
    """More options for the agent, as `start(…)` takes them."""
    platform: Literal["colab"] = "colab"
    """It runs on Colab."""

    @field_validator("agent")
    @classmethod
    def _are_the_agent_s(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in kaggle.OURS or name in ("token", "wait"):
                raise ValueError(f"`{name}` is told to the agent already")
            if name not in NAMES:
                raise ValueError(f"the agent has no option `{plain(name, 40)}`; see docs/agent.md")
        return given

    @model_validator(mode="after")
    def _is_accepted(self) -> Options:
        if not self.accept_terms:
            rules = terms.of(terms.COLAB)
            said = f"{rules.text} ({rules.link}); " if rules else ""
            raise ValueError(f"{said}if you have read them and decided: accept_terms = true")
        tunnel, url, _ = self.way_in()
        if tunnel in kaggle.SECRET or (tunnel == "cloudflared" and url):
            raise ValueError(SECRETS_NEEDED)
        return self

    def way_in(self) -> tuple[str, str, str]:
        """Say how the world gets to it: tunnel, url and listen."""
        if "tunnel" in self.agent or "url" in self.agent:
            return str(self.agent.get("tunnel", "")), str(self.agent.get("url", "")), ""
        return ipynb.way_in(self.allow_hosts, self.platform)


class Driver(notebook.Driver):
    """Looks at a `colab` backend where its session says that it is, and has Colab run it."""

    carries_token = True

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports)
        self._ports, self._label = ports, plan.label
        self._options: Options = plan.options

    async def start(self, launch: Launch) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        now, names = await self._sessions()
        if now is not None:
            return now
        if launch.label in names:
            return PowerReport(PowerPhase.ON, launch.label)
        if other := self._ours(names):
            return PowerReport(detail=f"it runs already, as {other}", snag=Snag.TRANSIENT)
        report = PowerReport(detail="no `gpu` to ask for", snag=Snag.STOCKOUT)
        for gpu in self._options.gpu or (None,):
            report = await self._new(launch.label, gpu)
            if report.snag is not Snag.QUOTA or "entitlement" not in report.detail:
                break
        if report.snag is not Snag.NONE:
            return report
        return await self._begun(launch)

    async def stop(self, launch: str) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        now, names = await self._sessions()
        if now is not None:
            return now
        name = launch if launch in names else "" if launch else self._ours(names)
        return await self._end(name) if name else PowerReport(PowerPhase.OFF)

    async def status(self) -> PowerReport:
        """Do as `backends.base.Powered` says; sessions that bear no label are somebody's own."""
        now, names = await self._sessions()
        if now is not None:
            return now
        name = self._ours(names) or self._others(names)
        return PowerReport(PowerPhase.ON, name) if name else PowerReport(PowerPhase.OFF)

    def _ours(self, names: Sequence[str]) -> str:
        ours = [n for n in names if self._label and n.startswith(self._label)]
        return min((n for n in ours if n.removeprefix(self._label).isdigit()), default="")

    def _others(self, names: Sequence[str]) -> str:
        """Find a session of this backend that another orchestrator of the account has."""
        mark = f"-{self._plan.backend.name}-"
        return next((n for n in names if rest.LABEL.fullmatch(n) and mark in n), "")

    async def _sessions(self) -> tuple[PowerReport | None, list[str]]:
        """List the names of what runs, as Google's servers say; or say why that is not known."""
        ended = await self._run(["sessions"], LIST_S)
        if isinstance(ended, PowerReport):
            return (
                PowerReport(detail=ended.detail, snag=Snag.TRANSIENT)
                if ended.snag is Snag.LOST
                else ended
            ), []
        names = [found[1] for found in _SESSION.finditer(ended.stdout)]
        if ended.status == 0 and (names or NONE_ACTIVE in ended.stdout):
            return None, names
        return _refused(ended, otherwise=Snag.TRANSIENT), []

    async def _new(self, label: str, gpu: str | None) -> PowerReport:
        argv = ["new", "-s", label, *(() if gpu is None else ("--gpu", gpu))]
        ended = await self._run(argv, NEW_S)
        if isinstance(ended, PowerReport):
            return ended
        if ended.status == 0 and READY in ended.stdout:
            return PowerReport(PowerPhase.STARTING, label)
        return _refused(ended, otherwise=Snag.LOST)

    async def _begun(self, launch: Launch) -> PowerReport:
        """Have the agent begin there; a session without one is given back at once."""
        code = cell(self._plan, launch)
        argv = ["exec", "-s", launch.label, "--timeout", f"{EXEC_S - 10:.0f}"]
        ended = await self._run(argv, EXEC_S, stdin=code, secret=launch.token)
        if isinstance(ended, Ended):
            if ended.status == 0 and RUNS in ended.stdout:
                return PowerReport(PowerPhase.STARTING, launch.label)
            ended = _refused(ended, otherwise=Snag.TRANSIENT, secret=launch.token)
        back = await self._end(launch.label)
        if back.snag is not Snag.NONE:
            return PowerReport(detail=f"{ended.detail}; {back.detail}", snag=Snag.LOST)
        return PowerReport(detail=f"its agent did not begin: {ended.detail}", snag=Snag.TRANSIENT)

    async def _end(self, name: str) -> PowerReport:
        ended = await self._run(["stop", "-s", name], STOP_S)
        if isinstance(ended, PowerReport):
            return ended
        if ended.status == 0 and ENDED in ended.stdout:
            return PowerReport(PowerPhase.OFF)
        return _refused(ended, otherwise=Snag.LOST)

    async def _run(
        self, argv: Sequence[str], within_s: float, stdin: str = "", secret: str = ""
    ) -> Ended | PowerReport:
        whole = [self._options.cli, f"--auth={self._options.auth}", *argv]
        env: Mapping[str, str] = self._options.env
        try:
            return await self._ports.programs(whole, env=env, stdin=stdin, timeout_s=within_s)
        except ChildTimedOut as error:
            return PowerReport(snag=Snag.LOST, detail=_blotted(str(error), secret))
        except ChildFailed as error:  # it did not even begin
            return PowerReport(snag=Snag.TRANSIENT, detail=_blotted(str(error), secret))


def cell(plan: Plan, launch: Launch) -> str:
    """Write what is executed there: the notebook's cell, which does not wait for its agent."""
    made = kaggle.told(plan, launch)
    waits = {**made.more, "wait": False}
    told = ipynb.Told(
        **{name: getattr(made, name) for name in made.__slots__ if name != "more"}, more=waits
    )
    return ipynb.code(told, terms.COLAB) + "\n"


def _refused(ended: Ended, *, otherwise: Snag, secret: str = "") -> PowerReport:
    """Read what the tool said when it did not do what it was to."""
    said = _end_of(ended.stderr)
    pairs = ((QUOTA, Snag.QUOTA), (DENIED, Snag.DENIED), (TRANSIENT, Snag.TRANSIENT))
    snag = next((snag for pattern, snag in pairs if pattern.search(said)), otherwise)
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    shown = said or (lines[-1] if lines else f"exit status {ended.status}")
    return PowerReport(detail=_blotted(shown, secret), snag=snag)


def _end_of(stderr: str) -> str:
    """Give what the tool says at last: what it raised, and not the code that a traceback shows."""
    lines = stderr.splitlines()
    inside = [n for n, line in enumerate(lines) if line.startswith(("  ", "│", "╰"))]
    framed = "Traceback" in stderr and inside
    return " ".join(" ".join(lines[inside[-1] + 1 :] if framed else lines).split())


def _blotted(text: str, secret: str) -> str:
    shown = text.replace(secret, "…") if secret else text
    return plain(shown, rest.SAID_MOST)


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Do as `backends.base.Checks` says."""
    options: Options = plan.options
    report = await Driver(plan, ports).status()
    if report.snag is Snag.NONE:
        return [Check(True, f"`{options.cli}` is signed in with Colab")]
    remedy = "install googlecolab/google-colab-cli (Python 3.12 or newer), then: colab sessions"
    return [Check(False, f"`{options.cli}`: {report.detail}", remedy)]
