"""The kind `runpod`: a pod of yours on RunPod that is started and stopped, or one made each time.

By RunPod's REST interface v1, as its OpenAPI document describes it (docs.runpod.io/api-reference,
`GetPod`, `ListPods`, `StartPod`, `StopPod`, `UpdatePod`, `CreatePod`, `DeletePod`).

With `pod` it is always the same one. `start` takes no label, so the pod is renamed before: the
label is the last word of its name while it runs, and is taken off again afterwards. `rename =
false` leaves its name alone; then what runs is taken for ours as long as the database remembers
that we started it. With `template` or `image` one is made for each start, named by the label in the
same request, and deleted at the stop.

RunPod has no run time limit to be set: what a dead daemon cannot stop, only the pod itself or the
account's balance does. A pod that is made finds the limit in `AION_MAX_RUN_S`, in seconds, for a
start command that ends it (`runpodctl stop pod $RUNPOD_POD_ID`). What RunPod says a pod costs is
the price of an hour, not what was spent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from backends import ipynb, placed, rest
from backends.base import Check, Credential, Launch, Plan, Ports
from backends.engines.answers import plain
from backends.rest import Rest, Said, label_in, labelled
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import PowerReport, Snag

API: Final = "https://rest.runpod.io/v1"
NOWHERE: Final = "it is off, or RunPod gives it no address yet"
RUNNING: Final = "RUNNING"
LONGEST: Final = "AION_MAX_RUN_S"
TERMINATED: Final = "TERMINATED"
# "There are not enough free GPUs on the host machine to start this pod.", "There are no instances
# currently available", "This machine does not have the resources to deploy your pod" and the like
# come with HTTP 500 as well as 400.
REFUSALS: Final = rest.Refusals(
    stockout=re.compile(
        r"(?i)not enough free gpus|no (longer any )?instances? (are )?(currently )?available"
        r"|no available (gpu|instance|machine)|insufficient (gpu )?(capacity|resources)"
        r"|does not have the resources|try a different machine|capacity pool empty"
        r"|no (gpus?|machines?|resources) (are )?(currently )?available|supply_constraint"
    ),
    quota=re.compile(
        r"(?i)insufficient[ _]*(balance|funds|credit)|balance is (too low|insufficient)"
        r"|not (have )?enough (balance|funds|credit)|spend(ing)? limit"
    ),
)


class Options(placed.Options):
    """The keys of a `runpod` backend besides those that every backend has."""

    api_key: Credential
    """A key of RunPod's (Settings → API Keys) that may read and write pods."""
    pod: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The id of a pod of yours; absent: one is made from `template` or `image`."""
    rename: bool = True
    """With `pod`: the label of a start is written behind its name while it runs."""
    template: str | None = Field(default=None, min_length=1, max_length=64)
    """The id of a template of yours to make a pod from."""
    image: str | None = Field(default=None, min_length=1, max_length=255)
    """The container image to make a pod from."""
    gpu: tuple[str, ...] = ()
    """GPU types for the pod that is made, by RunPod's names, tried in this order."""
    cloud: tuple[Literal["secure", "community"], ...] = ("secure",)
    """Where it is made: tried in this order, each with every GPU type."""
    spot: bool = False
    """Make it interruptible: cheaper, and gone whenever somebody pays more."""
    disk: int | None = Field(default=None, ge=1, le=10000)
    """GB of the container's disk of the pod that is made; absent: RunPod's default."""
    volume: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """The id of a network volume that the pod that is made gets: what it holds outlives the pod."""
    env: dict[str, str] = Field(default={})
    """The environment of the pod that is made; nothing secret."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where the engine listens in the pod; needed unless it `registers` or has a `url`."""
    via: Literal["proxy", "ip"] = "proxy"
    """How it is reached: by RunPod's https proxy (which cuts an answer after 100 s), or by the
    pod's public address and port, in the clear."""
    api: str = API
    """RunPod's REST interface."""

    @field_validator("api")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return rest.api_address(url)

    @model_validator(mode="after")
    def _is_one_pod(self) -> Options:
        makes = self.template is not None or self.image is not None
        if (self.pod is not None) == makes:
            raise ValueError("either `pod`, or `template` or `image` to make one from")
        if makes and not self.gpu:
            raise ValueError('to make a pod it needs `gpu`, such as ["NVIDIA L4"]')
        if not self.cloud:
            raise ValueError("`cloud` is an empty list")
        if self.port is None and self.url is None and not self.registers:
            raise ValueError("it needs `port`, where the engine listens in the pod")
        return self


class Driver(placed.Placed):
    """Looks at a `runpod` backend, starts and stops its pod.

    `carries_token`: a pod that is made and registers itself finds its token in its environment.
    `look_s`: for so long a pod may not be listed yet.
    """

    look_s = 5.0

    def __init__(self, plan: Plan, ports: Ports) -> None:
        super().__init__(plan, ports, NOWHERE)
        self._options: Options = plan.options
        self._label = plan.label
        self._rest = _rest(plan, ports)
        self.carries_token = plan.options.registers and plan.options.pod is None

    async def start(self, launch: Launch) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        if self._options.pod is None:
            return await self._make(launch)
        unread, pod = await self._read(self._options.pod)
        if unread is not None:
            return rest.refused(unread)
        if _runs(pod):
            seen = label_in(pod.get("name"))
            if seen == launch.label or not self._options.rename:
                return _seen(pod, self._options)
            return _taken(seen)
        name = pod.get("name")
        unnamed = await self._labelled(name, launch.label)
        if unnamed is not None:
            return unnamed
        said = await self._rest.write("POST", f"/pods/{self._options.pod}/start")
        if said.good:
            return PowerReport(PowerPhase.STARTING, launch.label)
        if said.snag not in (Snag.LOST, Snag.NONE) and self._options.rename:
            await self._rename(labelled(name, ""))
        return said.report()

    async def stop(self, launch: str) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        if self._options.pod is None:
            return await self._delete(launch)
        said, pod = await self._read(self._options.pod)
        if said is not None:
            return said
        seen = label_in(pod.get("name"))
        if not _runs(pod):
            return PowerReport(PowerPhase.OFF)
        if launch and self._options.rename and seen != launch:
            return PowerReport(PowerPhase.OFF, detail=_others(seen))
        done = await self._rest.write("POST", f"/pods/{self._options.pod}/stop")
        if not done.good:
            return done.report()
        _, pod = await self._read(self._options.pod)
        if pod and not _runs(pod):
            if seen and self._options.rename:
                await self._rename(labelled(pod.get("name"), ""))
            return PowerReport(PowerPhase.OFF)
        return PowerReport(PowerPhase.STOPPING)

    async def status(self) -> PowerReport:
        """Do as `backends.base.Powered` says."""
        if self._options.pod is not None:
            said, pod = await self._read(self._options.pod)
            return said if said is not None else _seen(pod, self._options)
        listed, pods = await self._ours()
        if listed is not None:
            return listed
        running = [pod for pod in pods if _runs(pod)]
        if running:
            return _seen(running[0], self._options)
        left = ", ".join(str(pod.get("id")) for pod in pods)
        return PowerReport(
            PowerPhase.OFF,
            detail=f"stopped by RunPod, its disk still costs: {left}" if left else "",
        )

    # ── the same one each time ──────────────────────────────────────────────────────────────────

    async def _read(self, pod: str) -> tuple[PowerReport | None, Mapping[str, Any]]:
        """Read one pod: it, or the report that says why not. One that is gone is off."""
        said = await self._rest.read(f"/pods/{pod}")
        gone = PowerReport(PowerPhase.OFF, detail=f"there is no pod {pod} in this account")
        if said.missing or (said.vague and await self._is_not_listed(pod)):
            return gone, {}
        if not said.good:
            return said.report(), {}
        if not isinstance(said.body, dict) or not isinstance(said.body.get("desiredStatus"), str):
            return PowerReport(detail="an answer that is no pod", snag=Snag.TRANSIENT), {}
        return (gone, {}) if said.body["desiredStatus"] == TERMINATED else (None, said.body)

    async def _is_not_listed(self, pod: str) -> bool:
        """Say whether the list of all pods, read well, has it not."""
        said = await self._rest.read("/pods")
        if not said.good or not isinstance(said.body, list):
            return False
        return all(isinstance(one, dict) and one.get("id") != pod for one in said.body)

    async def _labelled(self, name: object, label: str) -> PowerReport | None:
        """Write the label behind the pod's name; the report of why not, if it could not be."""
        if not self._options.rename:
            return None
        named = await self._rename(labelled(name, label))
        if named.good and _kept(named.body, label):
            return None
        report = named.report("it could not be labelled")
        if report.snag is not Snag.DENIED:
            return report
        why = f"it does not keep the label {label}" if named.good else report.detail
        return PowerReport(
            detail=f"{why}; `rename = false` leaves its name alone", snag=Snag.DENIED
        )

    async def _rename(self, name: str) -> Said:
        """Name the pod; it is off, so the reset that this may bring disturbs nobody."""
        path = f"/pods/{self._options.pod}"
        return await self._rest.write("PATCH", path, {"name": name or "pod"}, harmless=True)

    # ── one that is made ────────────────────────────────────────────────────────────────────────

    async def _ours(self) -> tuple[PowerReport | None, list[Mapping[str, Any]]]:
        """List the pods that bear a label of this backend's launches, the oldest first."""
        said = await self._rest.read("/pods")
        if said.missing:  # as it says of an account that has none
            return None, []
        if not said.good:
            return said.report(), []
        if not isinstance(said.body, list):
            return PowerReport(detail="an answer that lists no pods", snag=Snag.TRANSIENT), []
        found = {
            str(pod.get("name")).removeprefix(self._label): pod
            for pod in said.body
            if isinstance(pod, dict)
            and str(pod.get("name")).startswith(self._label)
            and pod.get("desiredStatus") != TERMINATED
        }
        ours = sorted((int(number), number) for number in found if number.isdigit())
        return None, [found[number] for _, number in ours if self._label]

    async def _make(self, launch: Launch) -> PowerReport:
        listed, pods = await self._ours()
        if listed is not None:
            return listed
        for pod in pods:
            if _runs(pod):
                seen = str(pod.get("name"))
                same = seen == launch.label
                return _seen(pod, self._options) if same else _taken(seen)
        for pod in pods:  # what RunPod stopped keeps its disk, and cannot be had back for sure
            await self._rest.write("DELETE", f"/pods/{pod.get('id')}")
        report = PowerReport(detail="nowhere to make it", snag=Snag.STOCKOUT)
        for cloud in self._options.cloud:
            said = await self._rest.write("POST", "/pods", _wish(self._options, launch, cloud))
            if said.good:
                return PowerReport(PowerPhase.STARTING, launch.label)
            report = said.report()
            if report.snag is not Snag.STOCKOUT:
                break
        return await self._found(launch, report) if report.snag is Snag.LOST else report

    async def _found(self, launch: Launch, lost: PowerReport) -> PowerReport:
        """Look for a pod whose making got no good answer: it may be there, or come in a moment.

        RunPod answers with HTTP 500 at times though the pod was made.
        """
        for wait_s in (0.0, self.look_s, 2 * self.look_s):
            await asyncio.sleep(wait_s)
            _, pods = await self._ours()
            for pod in pods:
                if pod.get("name") == launch.label and _runs(pod):
                    return _seen(pod, self._options)
        return lost

    async def _delete(self, launch: str) -> PowerReport:
        listed, pods = await self._ours()
        if listed is not None:
            return listed
        # Each launch is made after the one before it was given up: what is older is forgotten.
        names = [pod.get("name") for pod in pods]
        last = len(pods) if not launch else names.index(launch) + 1 if launch in names else 0
        doomed = pods[:last]
        for pod in doomed:
            said = await self._rest.write("DELETE", f"/pods/{pod.get('id')}")
            if not (said.good or said.missing):
                return said.report()
        return PowerReport(PowerPhase.STOPPING if doomed else PowerPhase.OFF)


def _rest(plan: Plan, ports: Ports) -> Rest:
    key = plan.secrets.get("api_key", "")
    return Rest(ports.http, ports.clock, plan.options.api, key, REFUSALS)


def _runs(pod: Mapping[str, Any]) -> bool:
    return pod.get("desiredStatus") == RUNNING


def _is_terminated(body: object) -> bool:
    return isinstance(body, dict) and body.get("desiredStatus") == TERMINATED


def _kept(body: object, label: str) -> bool:
    """Say whether a pod that was renamed says that it is; one that says no name is believed."""
    return not isinstance(body, dict) or "name" not in body or label_in(body["name"]) == label


def _others(seen: str) -> str:
    return f"it runs as {seen}, which is left alone" if seen else "somebody else started it"


def _taken(seen: str) -> PowerReport:
    return PowerReport(detail=f"it runs already: {_others(seen)}", snag=Snag.TRANSIENT)


def _seen(pod: Mapping[str, Any], options: Options) -> PowerReport:
    """Say how a pod is. Its address by the proxy is known at once, the one by IP once it has it."""
    if not _runs(pod):
        return PowerReport(PowerPhase.OFF, detail=_why(pod))
    address = _address(pod, options)
    booting = options.port is not None and options.via == "ip" and not address
    phase = PowerPhase.STARTING if booting and options.url is None else PowerPhase.ON
    return PowerReport(phase, label_in(pod.get("name")), address)


def _why(pod: Mapping[str, Any]) -> str:
    """Say what RunPod says of a pod's end."""
    return plain(pod.get("lastStatusChange") or "", rest.SAID_MOST)


def _address(pod: Mapping[str, Any], options: Options) -> str:
    if options.port is None or options.registers or options.url is not None:
        return ""
    if options.via == "proxy":
        ident = pod.get("id") or options.pod
        return placed.address(f"https://{ident}-{options.port}.proxy.runpod.net") if ident else ""
    mapped, host = pod.get("portMappings"), pod.get("publicIp")
    outside = mapped.get(str(options.port)) if isinstance(mapped, dict) else None
    return placed.address(f"http://{host}:{outside}") if host and outside else ""


def _wish(options: Options, launch: Launch, cloud: str) -> dict[str, Any]:
    """Write the request that makes a pod (`PodCreateInput`)."""
    wish: dict[str, Any] = {
        "name": launch.label,
        "cloudType": cloud.upper(),
        "gpuTypeIds": list(options.gpu),
        "gpuTypePriority": "custom",
        "interruptible": options.spot,
    }
    given: dict[str, Any] = {
        "templateId": options.template,
        "imageName": options.image,
        "containerDiskInGb": options.disk,
        "networkVolumeId": options.volume,
        "env": {**options.env, **_told(launch)} or None,
    }
    if options.port is not None:
        way = "http" if options.via == "proxy" else "tcp"
        given["ports"] = [f"{options.port}/{way}"]
    if options.via == "ip" and cloud == "community":
        given["supportPublicIp"] = True
    return wish | {key: value for key, value in given.items() if value is not None}


def _told(launch: Launch) -> dict[str, str]:
    """Say what a pod that is made finds in its environment of the launch that it is for."""
    longest = {} if launch.max_run_s is None else {LONGEST: f"{launch.max_run_s:.0f}"}
    return longest | ({ipynb.TOKEN: launch.token} if launch.token else {})


async def checks(plan: Plan, ports: Ports) -> Sequence[Check]:
    """Do as `backends.base.Checks` says."""
    options: Options = plan.options
    asked = _rest(plan, ports)
    said = await asked.read("/pods" if options.pod is None else f"/pods/{options.pod}")
    kept = options.api_key.credential
    remedy = f"make a key that may read and write pods, then: aion secret set {kept}"
    if options.pod is not None and (said.missing or _is_terminated(said.body)):
        return [Check(False, f"there is no pod {options.pod} in this account", "correct `pod`")]
    if not said.good and not said.missing:
        return [Check(False, f"RunPod: {said.words}", remedy)]
    found = [Check(True, "RunPod takes the key")]
    if options.pod is not None and isinstance(said.body, dict):
        price = said.body.get("adjustedCostPerHr") or said.body.get("costPerHr")
        text = f"pod {options.pod} is {plain(said.body.get('desiredStatus'), 20)}"
        found.append(Check(True, f"{text}; {plain(price, 20)} USD an hour while it runs"))
    if not options.registers:
        text = "RunPod ends no pod by itself: one that a dead daemon left runs on"
        found.append(Check(None, text, "keep little balance there, and no automatic top-up"))
    return found
