"""The kind `kaggle`: a notebook that aion has run on Kaggle, and that registers itself.

One kernel of the account is this backend's own: each start writes it anew, with a token that is
good for that launch alone, for what is kept in Kaggle's secrets is lost with a push. The launch's
label stands in its first line, so whoever reads the kernel knows what runs. All of it is asked by
Kaggle's own client library, in a process of its own (`backends.kaggle_child`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from backends import ipynb, notebook, rest
from backends.agent.settings import NAMES
from backends.base import Check, Credential, Launch, Plan, Ports
from backends.engines.answers import plain
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag, Usage
from orchestrator.errors import ChildFailed

API: Final = "https://api.kaggle.com"
CHILD: Final = "backends.kaggle_child"
START_S, STOP_S, STATUS_S, CHECKS_S = 240.0, 150.0, 80.0, 55.0
LONGEST_S: Final = 12 * 3600 - 60  # Kaggle ends a run after 12 h, and refuses a limit beyond that
SHORTEST_S: Final = 60
WEEK_S: Final = 7 * 86400.0
SAID_MOST: Final = 300

# Kaggle's own names of what may be asked for (documentation of its command line, 2026-09), and the
# short ones; which of them an account may use is Kaggle's to say.
SHAPES: Final = {
    "t4": "NvidiaTeslaT4",
    "t4x2": "NvidiaTeslaT4Highmem",
    "l4": "NvidiaL4",
    "l4x1": "NvidiaL4X1",
    "a100": "NvidiaTeslaA100",
    "h100": "NvidiaH100",
    "rtx-pro-6000": "NvidiaRtxPro6000",
    "tpu-v5e-8": "TpuV5E8",
    "tpu-v6e-8": "TpuV6E8",
    "none": "",
}
RETIRED: Final = {
    "p100": "t4",
    "nvidiateslap100": "t4",
    "tpuv38": "tpu-v5e-8",
    "tpu1vmv38": "tpu-v5e-8",
}
_KERNEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}/[a-z0-9]+(?:-[a-z0-9]+)*")
NAME_LENGTHS: Final = range(5, 51)
_SOURCE: Final = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9._-]+){1,4}")
NO_KEY: Final = "the credential holds neither an API token of Kaggle nor a kaggle.json"
OURS: Final = ("aion", "backend", "engine", "models", "token_file")
SECRET: Final = ("ngrok",)
Scalar = str | int | float | bool


class Options(notebook.Options):
    """The keys of a `kaggle` backend besides those that every backend has."""

    kernel: str
    """The kernel it runs as, `user/name`; it is made with the first start, and is its alone."""
    key: Credential
    """An API token of Kaggle, or the content of a `kaggle.json`; never sent to the engine."""
    accelerator: str = "NvidiaTeslaT4"
    """What computes there: a short name such as `t4x2`, or Kaggle's own; `none`: no accelerator."""
    internet: bool = True
    """It has to be on: without it the agent reaches nobody."""
    datasets: tuple[str, ...] = ()
    """Datasets to have under `/kaggle/input`: `owner/name`."""
    model_sources: tuple[str, ...] = ()
    """Models of Kaggle to have there: `owner/model/framework/variation` and a version or none."""
    kernel_sources: tuple[str, ...] = ()
    """Kernels whose output to have there: `owner/name`."""
    agent: dict[str, Scalar | list[str]] = Field(default={})
    """More options for the agent, as `start(…)` takes them."""
    stop: Literal["agent", "delete"] = "agent"
    """How it is ended: by its agent alone, or, where that fails, by deleting the kernel."""
    api: str = API
    """Address of Kaggle's interface, for proxies."""
    platform: Literal["kaggle"] = "kaggle"
    """It runs on Kaggle."""

    @field_validator("kernel")
    @classmethod
    def _is_a_kernel(cls, text: str) -> str:
        if not _KERNEL.fullmatch(text) or len(text.partition("/")[2]) not in NAME_LENGTHS:
            raise ValueError(
                "`user/name` as in the kernel's address; the name has 5 to 50 small letters,"
                " digits and single dashes"
            )
        return text

    @field_validator("accelerator")
    @classmethod
    def _is_known(cls, text: str) -> str:
        return shape(text)

    @field_validator("internet")
    @classmethod
    def _is_on(cls, on: bool) -> bool:
        if not on:
            raise ValueError("without internet its agent can neither register nor serve")
        return on

    @field_validator("datasets", "model_sources", "kernel_sources")
    @classmethod
    def _are_sources(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _SOURCE.fullmatch(name):
                raise ValueError(f"`{plain(name, 80)}` is not `owner/name`")
        return names

    @field_validator("agent")
    @classmethod
    def _are_the_agent_s(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name in OURS or name == "token":
                raise ValueError(f"`{name}` is told to the agent already")
            if name not in NAMES:
                raise ValueError(f"the agent has no option `{plain(name, 40)}`; see docs/agent.md")
        return given

    @field_validator("api")
    @classmethod
    def _is_private(cls, url: str) -> str:
        return rest.api_address(url)

    @model_validator(mode="after")
    def _needs_no_secret_there(self) -> Options:
        tunnel, url, _ = self.way_in()
        if tunnel in SECRET or (tunnel == "cloudflared" and url):
            raise ValueError(
                "secrets kept at Kaggle are lost with each push, so only quick tunnels need none:"
                ' set allow_hosts = ["*.trycloudflare.com"]'
            )
        return self

    @staticmethod
    def why_not_key(text: str) -> str:
        """Say in one line why this is no key; "" if it is one. The key is not repeated."""
        return "" if credential(text) else NO_KEY

    def way_in(self) -> tuple[str, str, str]:
        """Say how the world gets to it: tunnel, url and listen."""
        if "tunnel" in self.agent or "url" in self.agent:
            return str(self.agent.get("tunnel", "")), str(self.agent.get("url", "")), ""
        return ipynb.way_in(self.allow_hosts, self.platform)

    @property
    def family(self) -> str:
        """Whose quota it uses: `gpu`, `tpu`, or none."""
        if not self.accelerator:
            return ""
        return "tpu" if self.accelerator.startswith("Tpu") else "gpu"


def shape(text: str) -> str:
    """Give Kaggle's name of an accelerator, "" for none; raises ValueError in the user's words."""
    name = text.strip().lower()
    if name in RETIRED:
        raise ValueError(f"Kaggle has retired `{text}`; use `{RETIRED[name]}`")
    known = {**SHAPES, **{one.lower(): one for one in SHAPES.values() if one}}
    if name not in known:
        raise ValueError(f"unknown accelerator `{plain(text, 40)}`; known are {', '.join(SHAPES)}")
    return known[name]


def credential(text: str) -> dict[str, str] | None:
    """Read a key: an API token as it is, or `{"username": …, "key": …}`; None for neither."""
    text = text.strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
            username, key = found["username"], found["key"]
        except (ValueError, KeyError, TypeError):
            return None
        both = isinstance(username, str) and isinstance(key, str) and username and key
        return {"username": username, "key": key} if both else None
    whole = text.isascii() and text.isprintable() and not set(text) & set(' "\\')
    return {"token": text} if text and whole else None


class Driver(notebook.Driver):
    """Looks at a `kaggle` backend where its session says that it is, and has Kaggle run it."""

    carries_token = True

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports)
        self._ports = ports
        self._options: Options = plan.options

    async def start(self, launch: Launch) -> PowerReport:
        """Push the kernel, which queues its run."""
        longest_s = launch.max_run_s
        session_s = None if longest_s is None else min(max(SHORTEST_S, int(longest_s)), LONGEST_S)
        document = ipynb.document(told(self._plan, launch), self._options.platform)
        return await self._ask(
            "start",
            START_S,
            Snag.LOST,
            launch=launch.label,
            text=json.dumps(document, ensure_ascii=False),
            shape=self._options.accelerator,
            session_s=session_s,
            datasets=list(self._options.datasets),
            kernels=list(self._options.kernel_sources),
            models=list(self._options.model_sources),
        )

    async def stop(self, launch: str) -> PowerReport:
        """Have its run ended, as far as Kaggle lets us."""
        deletes = self._options.stop == "delete"
        return await self._ask("stop", STOP_S, Snag.LOST, launch=launch, deletes=deletes)

    async def status(self) -> PowerReport:
        """Read its last run, the label in its source, and the quota."""
        return await self._ask("status", STATUS_S, Snag.TRANSIENT)

    async def _ask(self, do: str, within_s: float, unknown: Snag, **more: Any) -> PowerReport:
        payload = payload_of(self._plan, do)
        if payload is None:
            return PowerReport(snag=Snag.DENIED, detail=NO_KEY)
        try:
            said = await self._ports.children(CHILD, {**payload, **more}, timeout_s=within_s)
        except ChildFailed as error:
            return PowerReport(snag=unknown, detail=plain(str(error), SAID_MOST))
        return read(said, self._ports.clock.wall())


def payload_of(plan: Plan, do: str) -> dict[str, Any] | None:
    """Say what the child is told in any case; None where the key is none."""
    auth = credential(plan.secrets.get("key", ""))
    if auth is None:
        return None
    owner, _, slug = plan.options.kernel.partition("/")
    given = {"do": do, "api": plan.options.api, "auth": auth}
    return {**given, "owner": owner, "slug": slug, "family": plan.options.family}


def told(plan: Plan, launch: Launch) -> ipynb.Told:
    """Say what the agent of a launch is told."""
    tunnel, url, listen = plan.options.way_in()
    more = dict(plan.options.agent)
    return ipynb.Told(
        aion=plan.aion.rstrip("/"),
        backend=plan.backend.name,
        engine=plan.backend.engine,
        models=tuple(plan.models.values()),
        tunnel=tunnel or ("none" if url else "cloudflared"),
        url="" if "url" in more else url,
        listen="" if "listen" in more else listen,
        insecure=plan.aion.startswith("http:"),
        launch=launch.label,
        token=launch.token,
        more=more,
    )


def read(said: Mapping[str, Any], wall: float) -> PowerReport:
    """Make a report of what the child said. `wall`: Unix time."""
    snag = Snag(said.get("snag") or "")
    retry_after_s = said.get("retry_after_s")
    if (refresh := _unix(said.get("refresh"))) is not None and refresh > wall:
        retry_after_s = min(
            refresh - wall, WEEK_S
        )  # a clock of ours that is wrong bars it no longer
    quota = said.get("quota")
    usage = () if quota is None else (Usage("hours", quota["used_h"], quota["limit_h"]),)
    return PowerReport(
        PowerPhase(said.get("phase") or PowerPhase.UNKNOWN),
        said.get("launch") or "",
        detail=plain(said.get("detail") or "", SAID_MOST),
        snag=snag,
        retry_after_s=retry_after_s,
        usage=usage,
        queued=bool(said.get("queued")),
    )


def _unix(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except ValueError:
        return None


# ── aion doctor ─────────────────────────────────────────────────────────────────────────────────


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Look whether the key works, whose the kernel is, and what is left of the week."""
    payload = payload_of(plan, "checks")
    if payload is None:
        return [Check(False, NO_KEY, "https://www.kaggle.com/settings/api; aion secret set NAME")]
    try:
        said = await ports.children(CHILD, payload, timeout_s=CHECKS_S)
    except ChildFailed as error:
        return [Check(False, str(error))]
    if said.get("snag"):
        remedy = "make a new token at https://www.kaggle.com/settings/api"
        denied = said["snag"] == Snag.DENIED.value
        return [Check(False, str(said.get("detail")), remedy if denied else "try again later")]
    found = [Check(True, "Kaggle takes the key"), _whose(plan, said)]
    if said.get("quota") is not None:
        found.append(_left(said["quota"]))
    return found


def _whose(plan: Plan, said: Mapping[str, Any]) -> Check:
    kernel = plan.options.kernel
    user = (credential(plan.secrets.get("key", "")) or {}).get("username", "")
    if user and user.lower() != kernel.partition("/")[0].lower():
        text = f"the key is {plain(user, 40)}'s, but the kernel is {kernel}"
        return Check(False, text, "`kernel` begins with the name of the key's account")
    if not said["is_there"]:
        return Check(True, f"{kernel} is made with the first start")
    if not said["is_ours"]:
        text = f"{kernel} holds a notebook that aion did not write, so it is not written over"
        return Check(False, text, "give `kernel` a name of its own")
    return Check(True, f"{kernel} is this backend's")


def _left(quota: Mapping[str, Any]) -> Check:
    left_h = max(0.0, quota["limit_h"] - quota["used_h"])
    anew = f", given anew {quota['refresh'][:16].replace('T', ' ')} UTC" if quota["refresh"] else ""
    text = f"{left_h:.1f} of {quota['limit_h']:g} h are left this week{anew}"
    return Check(True if left_h > 0 else None, text, "" if left_h > 0 else "until then it is off")
