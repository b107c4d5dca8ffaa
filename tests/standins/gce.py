"""A stand-in for Google Compute Engine's REST API, as strict as it is documented to be.

Run it: `python tests/standins/gce.py --port 0` prints one JSON line with its address; with
`--engine PORT` a fake engine answers there for as long as a machine is RUNNING. It holds the truth: which machines run, since when, under which label. `POST /_control` sets it up and switches
faults (see `Google.control`), `GET /_control` shows what it holds and what was asked of it.

Where the answers come from: an operation that failed by ZONE_RESOURCE_POOL_EXHAUSTED,
CCExtractor/sample-platform #901, with details and HTTP 503, scylladb/scylla-cluster-tests #12477
and GoogleCloudPlatform/ai-on-gke #849; QUOTA_EXCEEDED with HTTP 403 in the operation, ai-on-gke
#849; GPUS_ALL_REGIONS, fastai/course-v3 #165; 403 `forbidden`, GoogleCloudPlatform/java-docs-samples
#6552; 403 `accessNotConfigured`, hashicorp/terraform #19912; billing disabled, java-docs-samples
#276; 403 `rateLimitExceeded`, hashicorp/terraform-provider-google #8360; 412 `conditionNotMet` of a
label's fingerprint, googleapis/google-cloud-go #7802; an accelerator that a zone does not have,
fastai/course-v3 #430 and terraform-provider-google #5860; 404 of an instance,
googleapis/nodejs-compute #377. Preempted machines leave an operation `compute.instances.preempted`
(docs.cloud.google.com/compute/docs/samples/compute-preemptible-history). `setScheduling` works on a
stopped instance only (its reference page), run times are 30 s to 120 days ("Limit the run time of a
VM"). What is given beside a template replaces that whole part ("Create a VM from an instance
template", override behaviour).
"""

import argparse
import asyncio
import contextlib
import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time  # noqa: TID251 - a machine boots in real time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

PROJECT = "my-project"
EMAIL = "aion@my-project.iam.gserviceaccount.com"
METADATA_TOKEN = "ya29.of-this-machine-0123456789"
SCOPES = {
    "https://www.googleapis.com/auth/compute",
    "https://www.googleapis.com/auth/cloud-platform",
}
LINK = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}"
LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
SCHEDULING = {
    "automaticRestart",
    "instanceTerminationAction",
    "maxRunDuration",
    "onHostMaintenance",
    "preemptible",
    "provisioningModel",
}
STOPPED = ("TERMINATED",)

_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE = _KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.NoEncryption(),
).decode()
PUBLIC = _KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def account() -> str:
    """A service account's key, as the console gives it."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "0123456789abcdef",
            "private_key": PRIVATE,
            "client_email": EMAIL,
            "client_id": "123456789012345678901",
            "token_uri": "https://oauth2.googleapis.com/token",
        }
    )


class Refused(Exception):
    """An error answer in Google's form."""

    def __init__(self, status: int, reason: str, message: str, **more) -> None:
        super().__init__(message)
        one = {"message": message, "domain": "global", "reason": reason, **more}
        self.status = status
        self.body = {"error": {"code": status, "message": message, "errors": [one]}}


def stamp(at: float) -> str:
    """A time as Google writes it: of its own zone, in milliseconds."""
    zone = timezone(timedelta(hours=-8))
    return datetime.fromtimestamp(at, zone).isoformat(timespec="milliseconds")


def forbidden(permission: str, what: str) -> Refused:
    return Refused(403, "forbidden", f"Required '{permission}' permission for '{what}'")


REFUSALS = {
    "denied": lambda: forbidden(
        "compute.instances.start", f"projects/{PROJECT}/zones/z/instances/i"
    ),
    "unauthorized": lambda: Refused(401, "authError", "Invalid Credentials"),
    "disabled": lambda: Refused(
        403,
        "accessNotConfigured",
        f"Compute Engine API has not been used in project {PROJECT} before or it is disabled."
        " Enable it by visiting https://console.developers.google.com/apis/api/compute"
        f".googleapis.com/overview?project={PROJECT} then retry.",
    ),
    "billing": lambda: Refused(
        403,
        "forbidden",
        f"Project {PROJECT} (#808448574146) has billing disabled. Please enable it.",
    ),
    "rate": lambda: Refused(
        403,
        "rateLimitExceeded",
        "Quota exceeded for quota group 'ReadGroup' and limit 'Read requests per 100 seconds' of"
        " service 'compute.googleapis.com' for consumer 'project_number:123456'.",
    ),
    "busy": lambda: Refused(429, "rateLimitExceeded", "Too many requests"),
    "quota": lambda: Refused(
        403, "quotaExceeded", "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region europe-west4."
    ),
    "noproject": lambda: Refused(
        404, "notFound", f"The resource 'projects/{PROJECT}' was not found"
    ),
    "gone": lambda: Refused(404, "notFound", "The resource was not found"),
    "unavailable": lambda: Refused(503, "backendError", "Backend Error"),
    "internal": lambda: Refused(500, "internalError", "Internal Error"),
    "gpu": lambda: Refused(
        400,
        "invalid",
        f"The resource 'projects/{PROJECT}/zones/us-west1-b/acceleratorTypes/nvidia-tesla-p4' was"
        " not found",
    ),
}


def stockout(zone: str) -> dict:
    """How an operation fails where there is no room."""
    message = (
        f"The zone 'projects/{PROJECT}/zones/{zone}' does not have enough resources available to"
        " fulfill the request.  '(resource type:compute)'."
    )
    return {
        "error": {
            "errors": [
                {
                    "code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
                    "message": message,
                    "errorDetails": [
                        {
                            "help": {
                                "links": [
                                    {
                                        "description": "Troubleshooting documentation",
                                        "url": "https://cloud.google.com/compute/docs/resource-error",
                                    }
                                ]
                            }
                        },
                        {
                            "errorInfo": {
                                "reason": "resource_availability",
                                "domain": "compute.googleapis.com",
                                "metadatas": {"vmType": "n1-standard-4", "zone": zone},
                            }
                        },
                    ],
                }
            ]
        },
        "httpErrorStatusCode": 503,
        "httpErrorMessage": "SERVICE UNAVAILABLE",
    }


def quota(metric: str = "GPUS_ALL_REGIONS", where: str = "globally") -> dict:
    """How an operation fails for want of quota."""
    message = f"Quota '{metric}' exceeded.  Limit: 0.0 {where}."
    return {
        "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": message}]},
        "httpErrorStatusCode": 403,
        "httpErrorMessage": "FORBIDDEN",
    }


FAILURES = {
    "stockout": stockout,
    "nogpus": lambda _: quota(),
    "regional": lambda zone: quota("NVIDIA_T4_GPUS", f"in region {zone.rpartition('-')[0]}"),
}


@dataclass
class Fault:
    """What happens the next `times` that `call` is asked, in `zone` or anywhere.

    `what`: a name in REFUSALS; in FAILURES, the operation then fails; "lost": it is done and no
    answer comes; "cut": it is not done either; "page": an HTML page with HTTP 502;
    "kill": it is done, and before the answer the process `Google.victim` is killed.
    """

    call: str
    what: str
    times: int = 1
    zone: str = ""


@dataclass
class Google:
    """One project. `boot_s`, `stop_s`: how long that takes; `late_s`: until a failure shows; `small_s`: labels and limits. `hurried`: it waits for no operation ("the request might return before the default deadline is reached", reference of `zoneOperations.wait`). `ignores`: a call that it takes and never carries out. `careless`: it lists all operations, oldest first, whatever is asked for."""

    boot_s: float = 0.02
    stop_s: float = 0.02
    late_s: float = 0.0
    small_s: float = 0.0
    address: str = ""
    skipped_s: float = 0.0
    machines: dict[tuple[str, str], dict] = field(default_factory=dict)
    templates: dict[str, dict] = field(default_factory=dict)
    operations: list[dict] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    asked: list[dict] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)
    quotas: dict[str, float] = field(
        default_factory=lambda: {"GPUS_ALL_REGIONS": 1.0, "NVIDIA_T4_GPUS": 1.0}
    )
    launches: int = 0
    counted: int = 0
    victim: int = 0
    hurried: bool = False
    ignores: str = ""
    careless: bool = False
    switched: Callable[[bool], None] = lambda _: None

    # ── time ────────────────────────────────────────────────────────────────────────────────────

    def now(self) -> float:
        return time.time() + self.skipped_s

    def skip(self, seconds: float) -> None:
        self.skipped_s += seconds
        self.turn()

    def settle(self) -> None:
        """Have everything that is under way come to its end."""
        for operation in self.operations:
            operation["_ends"] = min(operation["_ends"], self.now())
        for one in self.machines.values():
            one["_next_at"] = min(one["_next_at"], self.now())
        self.turn()

    def turn(self) -> None:
        """Bring everything to the present."""
        now = self.now()
        for operation in self.operations:
            if operation["status"] != "DONE" and now >= operation["_ends"]:
                operation["status"], operation["progress"] = "DONE", 100
                operation["endTime"] = stamp(operation["_ends"])
                operation.update(operation.pop("_failure"))
        for key, one in list(self.machines.items()):
            if one["_next"] and now >= one["_next_at"]:
                one["status"], one["_next"] = one["_next"], ""
                if one["status"] == "RUNNING":
                    one["_since"] = one["_next_at"]
                    self._place(one)
                    self.switched(True)
                else:
                    self._release(one)
                    one["lastStopTimestamp"] = stamp(one["_next_at"])
                    if one["status"] == "DELETED":
                        del self.machines[key]
                        continue
            limit = int(one["scheduling"].get("maxRunDuration", {}).get("seconds", 0))
            if limit and one["status"] == "RUNNING" and now >= one["_since"] + limit:
                self._end(one, "compute.instances.scheduledTermination")

    def _place(self, one: dict) -> None:
        self.counted += 1
        given = self.address or f"203.0.113.{self.counted % 250 + 1}"
        for config in one["networkInterfaces"][0].get("accessConfigs", []):
            config["natIP"] = given

    def _release(self, one: dict) -> None:
        for config in one["networkInterfaces"][0].get("accessConfigs", []):
            config.pop("natIP", None)

    def _end(self, one: dict, why: str) -> None:
        """It goes off without being asked to by us."""
        action = one["scheduling"].get("instanceTerminationAction", "STOP")
        self.go(one, "STOPPING", "DELETED" if action == "DELETE" else "TERMINATED", self.stop_s)
        self.operation(one["_zone"], why, one["selfLink"], user="system", ends_s=0.0)

    def preempt(self, zone: str, name: str) -> None:
        self._end(self.machines[zone, name], "compute.instances.preempted")
        self.turn()

    def go(self, one: dict, status: str, then: str, after_s: float) -> None:
        if status == "STOPPING":
            self.switched(False)
        one.update(status=status, _next=then, _next_at=self.now() + after_s)

    # ── what there is ───────────────────────────────────────────────────────────────────────────

    def machine(self, zone: str, name: str, **more) -> dict:
        """Put an instance there: stopped, with a GPU, unless told otherwise."""
        one = {
            "kind": "compute#instance",
            "id": str(1000 + len(self.machines)),
            "name": name,
            "zone": f"{LINK}/zones/{zone}",
            "selfLink": f"{LINK}/zones/{zone}/instances/{name}",
            "status": "TERMINATED",
            "labels": {"team": "ai"},
            "guestAccelerators": [
                {
                    "acceleratorType": f"{LINK}/zones/{zone}/acceleratorTypes/nvidia-tesla-t4",
                    "acceleratorCount": 1,
                }
            ],
            "networkInterfaces": [
                {
                    "name": "nic0",
                    "networkIP": "10.164.0.7",
                    "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}],
                }
            ],
            "scheduling": {
                "onHostMaintenance": "TERMINATE",
                "automaticRestart": True,
                "preemptible": False,
                "provisioningModel": "STANDARD",
            },
            "_zone": zone,
            "_next": "",
            "_next_at": 0.0,
            "_since": 0.0,
            **copy.deepcopy(more),
        }
        self.machines[zone, name] = one
        if one["status"] == "RUNNING":
            one["_since"] = self.now()
            self._place(one)
        return one

    def template(self, name: str, **more) -> dict:
        """Put an instance template there."""
        model = self.machine("x", "x")
        del self.machines["x", "x"]
        parts = ("networkInterfaces", "guestAccelerators", "scheduling", "labels")
        properties = {part: model[part] for part in parts}
        properties["guestAccelerators"] = [
            {"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}
        ]
        one = {
            "kind": "compute#instanceTemplate",
            "name": name,
            "selfLink": f"{LINK}/global/instanceTemplates/{name}",
            "properties": {**properties, "machineType": "n1-standard-4", **more},
        }
        self.templates[name] = one
        return one

    def operation(
        self,
        zone: str,
        kind: str,
        target: str,
        *,
        user: str = EMAIL,
        ends_s: float = 0.0,
        failure=None,
    ) -> dict:
        self.counted += 1
        one = {
            "kind": "compute#operation",
            "id": str(7000 + self.counted),
            "name": f"operation-{1700000000 + self.counted}-{self.counted:04x}",
            "zone": f"{LINK}/zones/{zone}",
            "operationType": kind,
            "targetLink": target,
            "status": "RUNNING",
            "user": user,
            "progress": 0,
            "insertTime": stamp(self.now()),
            "_zone": zone,
            "_ends": self.now() + ends_s,
            "_failure": failure or {},
        }
        self.operations.append(one)
        self.turn()
        return one

    def alive(self) -> list[dict]:
        self.turn()
        return [
            one
            for one in self.machines.values()
            if one["status"] not in ("TERMINATED", "SUSPENDED")
        ]

    # ── being asked ─────────────────────────────────────────────────────────────────────────────

    def app(self) -> web.Application:
        app = web.Application()
        base = f"/compute/v1/projects/{PROJECT}"
        zoned = base + "/zones/{zone}"
        for method, path, name, does in (
            ("GET", base, "project", self._project),
            ("GET", base + "/regions/{region}", "region", self._region),
            ("GET", base + "/global/instanceTemplates/{name}", "template", self._template),
            (
                "POST",
                base + "/global/instanceTemplates/{name}/testIamPermissions",
                "may",
                self._may,
            ),
            ("GET", zoned + "/instances", "list", self._list),
            ("POST", zoned + "/instances", "insert", self._insert),
            ("GET", zoned + "/instances/{name}", "get", self._get),
            ("DELETE", zoned + "/instances/{name}", "delete", self._delete),
            ("POST", zoned + "/instances/{name}/start", "start", self._start),
            ("POST", zoned + "/instances/{name}/resume", "resume", self._resume),
            ("POST", zoned + "/instances/{name}/stop", "stop", self._stop),
            ("POST", zoned + "/instances/{name}/setLabels", "setLabels", self._set_labels),
            (
                "POST",
                zoned + "/instances/{name}/setScheduling",
                "setScheduling",
                self._set_scheduling,
            ),
            (
                "POST",
                zoned + "/instances/{name}/testIamPermissions",
                "may",
                self._may,
            ),
            ("GET", zoned + "/operations", "operations", self._operations),
            ("GET", zoned + "/operations/{name}", "operation", self._operation),
            ("POST", zoned + "/operations/{name}/wait", "wait", self._wait),
        ):
            app.router.add_route(method, path, self._answering(name, does))
        app.router.add_get("/_control", self._show)
        app.router.add_post("/_control", self._steer)
        app.router.add_route("*", "/computeMetadata/{rest:.*}", self._metadata)
        app.router.add_get("/", self._metadata)
        app.router.add_route("*", "/{rest:.*}", self._nothing)
        return app

    def _answering(self, name, does):
        async def answer(request: web.Request) -> web.StreamResponse:
            self.turn()
            zone = request.match_info.get("zone", "")
            body = await request.json() if request.can_read_body else None
            self.asked.append({"call": name, "zone": zone, "body": body, "at": time.monotonic()})
            fault = self._fault(name, zone)
            try:
                self._authorized(request)
                if fault is not None and fault.what in REFUSALS:
                    refused = REFUSALS[fault.what]()
                    raise refused
                if fault is not None and fault.what == "cut":
                    return self._cut(request)
                if fault is not None and fault.what == "page":
                    return web.Response(
                        status=502, text="<html>502</html>", content_type="text/html"
                    )
                failure = FAILURES[fault.what](zone) if fault and fault.what in FAILURES else None
                said = does(request, body, failure)
                said = await said if asyncio.iscoroutine(said) else said
            except Refused as refused:
                return web.json_response(refused.body, status=refused.status)
            if fault is not None and fault.what == "kill":
                os.kill(self.victim, signal.SIGKILL)
            if fault is not None and fault.what in ("lost", "kill"):
                return self._cut(request)
            return web.json_response(shown(said))

        return answer

    def _cut(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _fault(self, name: str, zone: str) -> Fault | None:
        for fault in self.faults:
            if fault.call == name and fault.times > 0 and fault.zone in ("", zone):
                fault.times -= 1
                return fault
        return None

    def _authorized(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and token == METADATA_TOKEN:
            return
        try:
            claims = jwt.decode(token, certs=PUBLIC, verify=True)
            known = (
                claims["iss"] == claims["sub"] == EMAIL and set(claims["scope"].split()) & SCOPES
            )
        except (ValueError, KeyError):
            known = False
        if scheme != "Bearer" or not known:
            raise Refused(
                401,
                "authError",
                "Request had invalid authentication credentials. Expected OAuth 2 access token,"
                " login cookie or other valid authentication credential.",
            )

    async def _nothing(self, request: web.Request) -> web.Response:
        self.asked.append({"call": "unknown", "path": f"{request.method} {request.path}"})
        refused = Refused(404, "notFound", f"no such method here: {request.method} {request.path}")
        return web.json_response(refused.body, status=404)

    async def _metadata(self, request: web.Request) -> web.Response:
        """The metadata server of a machine at Google, which gives a token to whoever asks there."""
        headers = {"Metadata-Flavor": "Google"}
        if request.path != "/" and request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        if request.path.endswith("/token"):
            given = {"access_token": METADATA_TOKEN, "expires_in": 3599, "token_type": "Bearer"}
            return web.json_response(given, headers=headers)
        if request.path.endswith("/project/project-id"):
            return web.Response(text=PROJECT, headers=headers)
        if "/service-accounts/default" in request.path:
            given = {"email": EMAIL, "scopes": sorted(SCOPES), "aliases": ["default"]}
            return web.json_response(given, headers=headers)
        if request.path.endswith("universe-domain") or request.path.endswith("universe_domain"):
            return web.Response(text="googleapis.com", headers=headers)
        return web.Response(text="", headers=headers)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def _query(self, request: web.Request, *allowed: str) -> None:
        unknown = set(request.query) - set(allowed)
        if unknown:
            raise Refused(400, "invalidParameter", f"unknown parameter {sorted(unknown)}")

    def _body(self, body, allowed: set[str], required: set[str] = frozenset()) -> dict:
        if not isinstance(body, dict) or set(body) - allowed or required - set(body):
            raise Refused(400, "invalid", f"Invalid JSON payload: {body!r}")
        return body

    def _found(self, request: web.Request) -> dict:
        zone, name = request.match_info["zone"], request.match_info["name"]
        if not re.fullmatch(r"[a-z]+-[a-z]+\d-[a-z]", zone):
            text = f"Invalid value for field 'zone': '{zone}'. Unknown zone."
            raise Refused(400, "invalid", text)
        if (zone, name) not in self.machines:
            what = f"projects/{PROJECT}/zones/{zone}/instances/{name}"
            raise Refused(404, "notFound", f"The resource '{what}' was not found")
        return self.machines[zone, name]

    def _project(self, request, *_):
        self._query(request)
        quotas = [
            {"metric": "GPUS_ALL_REGIONS", "limit": self.quotas["GPUS_ALL_REGIONS"], "usage": 0.0}
        ]
        return {"kind": "compute#project", "name": PROJECT, "quotas": quotas}

    def _region(self, request, *_):
        self._query(request)
        quotas = [
            {"metric": name, "limit": limit, "usage": 0.0}
            for name, limit in self.quotas.items()
            if name != "GPUS_ALL_REGIONS"
        ]
        return {"kind": "compute#region", "name": request.match_info["region"], "quotas": quotas}

    def _template(self, request, *_):
        self._query(request)
        name = request.match_info["name"]
        if name not in self.templates:
            what = f"projects/{PROJECT}/global/instanceTemplates/{name}"
            raise Refused(404, "notFound", f"The resource '{what}' was not found")
        return self.templates[name]

    def _may(self, request, body, _):
        wanted = self._body(body, {"permissions"}, {"permissions"})["permissions"]
        return {"permissions": [one for one in wanted if one not in self.lacking]}

    def _list(self, request, *_):
        self._query(request, "filter", "maxResults", "pageToken")
        given = request.query.get("filter", "")
        if given not in ("", "labels.aion-launch:*"):
            raise Refused(400, "invalid", f"Invalid value for field 'filter': '{given}'.")
        here = [
            one
            for (zone, _), one in sorted(self.machines.items())
            if zone == request.match_info["zone"] and (not given or "aion-launch" in one["labels"])
        ]
        first = int(request.query.get("pageToken") or 0)
        page = {"kind": "compute#instanceList", "items": here[first : first + 2]}
        return {**page, "nextPageToken": str(first + 2)} if here[first + 2 :] else page

    def _get(self, request, *_):
        self._query(request)
        return self._found(request)

    def _operations(self, request, *_):
        self._query(request, "filter", "maxResults", "orderBy", "pageToken")
        given = request.query.get("filter", "")
        target = re.fullmatch(r'targetLink="([^"]+)"', given)
        inserts = ('(operationType="insert") (status!="DONE")', 'operationType="insert"')
        if not target and given not in inserts:
            raise Refused(400, "invalid", f"Invalid value for field 'filter': '{given}'.")
        here = [one for one in self.operations if one["_zone"] == request.match_info["zone"]]
        if self.careless:
            return {"kind": "compute#operationList", "items": here}
        if target:
            here = [one for one in here if one["targetLink"] == target[1]]
        else:
            here = [one for one in here if one["operationType"] == "insert"]
        if given == inserts[0]:
            here = [one for one in here if one["status"] != "DONE"]
        if request.query.get("orderBy") == "creationTimestamp desc":
            here = here[::-1]
        return {
            "kind": "compute#operationList",
            "items": here[: int(request.query.get("maxResults", 500))],
        }

    def _operation(self, request, *_):
        self._query(request)
        for one in self.operations:
            if one["name"] == request.match_info["name"]:
                return one
        raise Refused(404, "notFound", "The resource was not found")

    async def _wait(self, request, *_):
        one = self._operation(request)
        while one["status"] != "DONE" and not self.hurried:
            await asyncio.sleep(0.005)
            self.turn()
        return one

    # ── doing ───────────────────────────────────────────────────────────────────────────────────

    def _unready(self, one: dict, *states: str) -> None:
        if one["status"] not in states:
            text = f"The resource '{one['selfLink']}' is not ready: it is {one['status']}"
            raise Refused(400, "resourceNotReady", text)

    def _start(self, request, body, failure):
        self._query(request, "requestId")
        one = self._found(request)
        if one["status"] == "RUNNING":
            return self.operation(one["_zone"], "start", one["selfLink"])
        self._unready(one, "TERMINATED")
        if failure is not None:
            return self.operation(
                one["_zone"], "start", one["selfLink"], ends_s=self.late_s, failure=failure
            )
        self.launches += 1
        self.go(one, "STAGING", "RUNNING", self.boot_s)
        return self.operation(one["_zone"], "start", one["selfLink"], ends_s=self.boot_s)

    def _resume(self, request, body, failure):
        self._query(request, "requestId")
        one = self._found(request)
        self._unready(one, "SUSPENDED")
        self.launches += 1
        self.go(one, "STAGING", "RUNNING", self.boot_s)
        return self.operation(one["_zone"], "resume", one["selfLink"], ends_s=self.boot_s)

    def _stop(self, request, *_):
        self._query(request, "requestId")
        one = self._found(request)
        if one["status"] not in ("TERMINATED", "STOPPING"):
            self.go(one, "STOPPING", "TERMINATED", self.stop_s)
        return self.operation(one["_zone"], "stop", one["selfLink"], ends_s=self.stop_s)

    def _delete(self, request, *_):
        self._query(request, "requestId")
        one = self._found(request)
        self.go(one, "STOPPING", "DELETED", self.stop_s)
        return self.operation(one["_zone"], "delete", one["selfLink"], ends_s=self.stop_s)

    def _labels(self, labels) -> dict:
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                text = f"Invalid value for field 'labels': '{key}={value}'."
                raise Refused(400, "invalid", text)
        return labels

    def _set_labels(self, request, body, _):
        self._query(request, "requestId")
        one = self._found(request)
        self._body(body, {"labels", "labelFingerprint"}, {"labels"})
        if body.get("labelFingerprint") != fingerprint(one):
            raise Refused(
                412,
                "conditionNotMet",
                "Labels fingerprint either invalid or resource labels have changed",
                location="If-Match",
                locationType="header",
            )
        given = self._labels(body["labels"])
        one["labels"] = one["labels"] if self.ignores == "setLabels" else given
        link = f"{LINK}/zones/{one['_zone']}/instances/{one['name']}"
        return self.operation(one["_zone"], "setLabels", link, ends_s=self.small_s)

    def _scheduling(self, given: dict) -> dict:
        self._body(given, SCHEDULING)
        if "maxRunDuration" in given:
            seconds = int(given["maxRunDuration"].get("seconds", 0))
            action = given.get("instanceTerminationAction")
            if not 30 <= seconds <= 120 * 86400 or action not in ("STOP", "DELETE"):
                raise Refused(
                    400, "invalid", "Invalid value for field 'scheduling.maxRunDuration'."
                )
        elif "instanceTerminationAction" in given and given.get("provisioningModel") != "SPOT":
            text = "instanceTerminationAction needs maxRunDuration, or the model SPOT"
            raise Refused(400, "invalid", text)
        if given.get("provisioningModel") == "SPOT" and (
            given.get("automaticRestart") or given.get("onHostMaintenance") == "MIGRATE"
        ):
            raise Refused(400, "invalid", "Scheduling must have automatic restart off for SPOT")
        return given

    def _set_scheduling(self, request, body, _):
        self._query(request, "requestId")
        one = self._found(request)
        self._unready(one, *STOPPED)
        given = self._scheduling(body)
        one["scheduling"] = one["scheduling"] if self.ignores == "setScheduling" else given
        return self.operation(one["_zone"], "setScheduling", one["selfLink"], ends_s=self.small_s)

    def _insert(self, request, body, failure):
        self._query(request, "requestId", "sourceInstanceTemplate")
        zone = request.match_info["zone"]
        self._body(body, {"name", "labels", "scheduling"}, {"name"})
        link = request.query.get("sourceInstanceTemplate", "")
        source = next((one for one in self.templates.values() if one["selfLink"] == link), None)
        if source is None:
            raise Refused(404, "notFound", f"The resource '{link}' was not found")
        name = body["name"]
        if not NAME.fullmatch(name):
            raise Refused(400, "invalid", f"Invalid value for field 'resource.name': '{name}'.")
        if (zone, name) in self.machines:
            what = f"projects/{PROJECT}/zones/{zone}/instances/{name}"
            raise Refused(409, "alreadyExists", f"The resource '{what}' already exists")
        properties = copy.deepcopy(source["properties"])
        scheduling = self._scheduling(body.get("scheduling", properties["scheduling"]))
        if properties["guestAccelerators"] and scheduling.get("onHostMaintenance") != "TERMINATE":
            text = "Instances with guest accelerators do not support live migration."
            raise Refused(400, "invalid", text)
        link = f"{LINK}/zones/{zone}/instances/{name}"
        if failure is not None:
            return self.operation(zone, "insert", link, ends_s=self.late_s, failure=failure)
        self.launches += 1
        one = self.machine(
            zone,
            name,
            labels=self._labels(body.get("labels", properties["labels"])),
            scheduling=scheduling,
            networkInterfaces=properties["networkInterfaces"],
            guestAccelerators=properties["guestAccelerators"],
        )
        self.go(one, "PROVISIONING", "RUNNING", self.boot_s)
        return self.operation(zone, "insert", link, ends_s=self.boot_s)

    # ── for tests ───────────────────────────────────────────────────────────────────────────────

    def control(self, given: dict) -> None:
        """Set what is given: attributes, `faults`, a `machine`, a `template`, `preempt`, `skip`."""
        for name in ("boot_s", "stop_s", "late_s", "address", "quotas", "victim"):
            if name in given:
                setattr(self, name, given[name])
        if "lacking" in given:
            self.lacking = set(given["lacking"])
        self.faults += [Fault(**one) for one in given.get("faults", ())]
        for one in given.get("machines", ()):
            self.machine(**one)
        for one in given.get("templates", ()):
            self.template(**one)
        if "preempt" in given:
            self.preempt(*given["preempt"])
        if "remove" in given:
            del self.machines[tuple(given["remove"])]
        if "skip" in given:
            self.skip(given["skip"])

    async def _steer(self, request: web.Request) -> web.Response:
        self.control(await request.json())
        return web.json_response({})

    async def _show(self, _: web.Request) -> web.Response:
        self.turn()
        machines = [shown(one) | {"zone": one["_zone"]} for one in self.machines.values()]
        return web.json_response(
            {"machines": machines, "launches": self.launches, "asked": self.asked}
        )

    async def start(self, port: int = 0) -> str:
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        return self.url

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()


def fingerprint(one: dict) -> str:
    text = json.dumps(one["labels"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shown(one: dict) -> dict:
    """As Google shows it: nothing of our own, and with the fingerprint of its labels."""
    if "items" in one:
        return {**one, "items": [shown(item) for item in one["items"]]}
    found = {key: value for key, value in one.items() if not key.startswith("_")}
    if one.get("kind") == "compute#instance":
        found["labelFingerprint"] = fingerprint(one)
    return found


class Engine:
    """The engine on the machine: it is there while the machine runs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process: subprocess.Popen | None = None

    def switch(self, on: bool) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if on:
            words = ("--port", str(self._port), "--name", "vm", "--with-parent")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backends.fake_server", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
            )


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--engine", type=int, default=0)
    given = parser.parse_args()
    google = Google()
    if given.engine:
        google.switched = Engine(given.engine).switch
    await google.start(given.port)
    print(json.dumps({"url": google.url, "account": account()}), flush=True)
    while True:
        await asyncio.sleep(0.05)
        google.turn()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
