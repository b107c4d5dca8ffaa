"""A stand-in for RunPod's REST interface v1, as strict as its OpenAPI document.

The paths, fields and statuses are those of `api-reference/openapi.json` in runpod/docs (GetPod,
ListPods, StartPod, StopPod, UpdatePod, CreatePod, DeletePod); an unknown field is refused. How it
words what it refuses:
- a start on a host without a free GPU: HTTP 500 with `{"error": "start pod: There are not enough
  free GPUs on the host machine to start this pod.", "status": 500}`; the sentence is the one of
  runpod/runpod-python #168;
- nothing to make a pod on: HTTP 500 with "create pod: There are no instances currently available",
  or 400 with "There are no longer any instances available with the requested specifications.
  Please refresh and try again." (runpod/runpod-python #21, runpod/runpodctl #189);
- `POST /pods` may answer 500 after the pod was made (transformerlab/transformerlab-app #2305);
- no money: GraphQL's code INSUFFICIENT_BALANCE; the REST interface's own words are not documented.
  Pods are stopped when the balance ends (docs.runpod.io/accounts-billing/billing).

Run it: `python tests/standins/runpod.py --port 0`.
"""

import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.standins.rest import Fault, Refused, RestStandin, given, run  # noqa: E402

KEY = "rpa_0123456789ABCDEFGHIJ"
POD = "xedezhzb9la3ye"
STOCKOUT = {
    "error": "start pod: There are not enough free GPUs on the host machine to start this pod.",
    "status": 500,
}
NO_INSTANCES = {"error": "create pod: There are no instances currently available", "status": 500}
NO_LONGER = {
    "error": "There are no longer any instances available with the requested specifications."
    " Please refresh and try again."
}
NO_MONEY = {"error": "create pod: INSUFFICIENT_BALANCE", "status": 500}
READ_BACK = {"error": "create pod: something went wrong. Please try again later.", "status": 500}
TEXTS, NUMBERS = (str,), (int,)
CREATE = {
    "name": str,
    "cloudType": str,
    "computeType": str,
    "gpuTypeIds": list,
    "gpuTypePriority": str,
    "gpuCount": int,
    "templateId": str,
    "imageName": str,
    "containerDiskInGb": int,
    "volumeInGb": int,
    "volumeMountPath": str,
    "networkVolumeId": str,
    "env": dict,
    "ports": list,
    "interruptible": bool,
    "locked": bool,
    "supportPublicIp": bool,
    "dockerStartCmd": list,
}
UPDATE = {name: CREATE[name] for name in ("name", "locked", "env", "imageName", "ports")}


class RunpodStandin(RestStandin):
    """Holds pods by id. `stock`: the GPU types that are free; None: all."""

    def __init__(self, key: str = KEY, pods=(POD,)) -> None:
        super().__init__(key)
        self.pods = {name: self._pod(name, "my pod") for name in pods}
        self.stock: set[str] | None = None
        self.mapped: dict[str, int] = {}  # container port → port on 127.0.0.1
        self._made = 0

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    @staticmethod
    def _pod(name: str, called: str, **more) -> dict:
        return {
            "id": name,
            "name": called,
            "desiredStatus": "EXITED",
            "costPerHr": "0.74",
            "adjustedCostPerHr": 0.69,
            "lastStatusChange": "Exited by user: Fri Jul 12 2024 15:14:40 GMT-0400",
            "publicIp": None,
            "portMappings": None,
            **more,
        }

    def routes(self, add) -> None:
        add("GET", "/v1/pods", self._list)
        add("POST", "/v1/pods", self._create)
        add("GET", "/v1/pods/{pod}", self._get)
        add("PATCH", "/v1/pods/{pod}", self._update)
        add("DELETE", "/v1/pods/{pod}", self._delete)
        add("POST", "/v1/pods/{pod}/start", self._start)
        add("POST", "/v1/pods/{pod}/stop", self._stop)

    def truth(self) -> dict:
        return {"pods": list(self.pods.values())}

    def control(self, given: dict) -> None:
        super().control(given)
        self.mapped.update(given.get("mapped", {}))
        if "remove" in given:
            del self.pods[given["remove"]]

    def run(self, pod: dict) -> None:
        pod["desiredStatus"] = "RUNNING"
        pod["lastStatusChange"] = "Rented by User: Fri Jul 12 2024 15:14:40 GMT-0400"
        if self.mapped:
            pod |= {"publicIp": "127.0.0.1", "portMappings": dict(self.mapped)}
        self.began.append(pod["name"])

    def running(self) -> list[dict]:
        return [pod for pod in self.pods.values() if pod["desiredStatus"] == "RUNNING"]

    def _one(self, request) -> dict:
        pod = self.pods.get(request.match_info["pod"])
        if pod is None:
            raise Refused(404, {"error": "pod not found", "status": 404})
        return pod

    async def _list(self, request):
        if request.query:
            raise Refused(400, {"error": "unknown query"})
        return 200, list(self.pods.values())

    async def _get(self, request):
        return 200, self._one(request)

    async def _update(self, request):
        pod, body = self._one(request), await given(request, UPDATE)
        if len(body.get("name", "")) > 191:
            raise Refused(400, {"error": "name is too long"})
        if pod["desiredStatus"] == "RUNNING":  # it may be reset: nothing of ours may risk that
            raise Refused(400, {"error": "a running pod was about to be reset"})
        pod |= body
        return 200, pod

    async def _start(self, request):
        pod = self._one(request)
        if await request.read():
            raise Refused(400, {"error": "no body is known here"})
        if pod["desiredStatus"] != "RUNNING":
            self.run(pod)
        return 200, {}

    async def _stop(self, request):
        pod = self._one(request)
        pod |= {"desiredStatus": "EXITED", "publicIp": None, "portMappings": None}
        return 200, {}

    async def _create(self, request):
        body = await given(request, CREATE)
        if "gpuTypeIds" not in body or not ({"templateId", "imageName"} & body.keys()):
            raise Refused(400, {"error": "invalid input"})
        if body["cloudType"] not in ("SECURE", "COMMUNITY"):
            raise Refused(400, {"error": "invalid input: cloudType"})
        free = [gpu for gpu in body["gpuTypeIds"] if self.stock is None or gpu in self.stock]
        if not free:
            raise Refused(500, NO_INSTANCES)
        self._made += 1
        name = f"made{self._made:08d}"
        pod = self._pod(name, body["name"], gpu=free[0], cloud=body["cloudType"], asked=body)
        self.pods[name] = pod
        self.run(pod)
        return 201, pod

    async def _delete(self, request):
        self._one(request)
        del self.pods[request.match_info["pod"]]
        return 204, None


class Truth:
    """What the contract asks of the truth, for one pod of the operator's."""

    def __init__(self, standin: RunpodStandin) -> None:
        self.standin = standin

    async def runs(self) -> list[str]:
        return [pod["name"].split()[-1] for pod in self.standin.running()]

    async def began(self) -> int:
        return len(self.standin.began)

    async def settle(self) -> None:
        return

    async def put(self, label: str) -> None:
        pod = self.standin.pods[POD]
        pod["name"] = f"my pod {label}"
        self.standin.run(pod)

    async def longest_s(self) -> float | None:
        return None


PATHS = {"start": f"POST /v1/pods/{POD}/start", "stop": f"POST /v1/pods/{POD}/stop"}
ANSWERS = {
    "lost": {"done": True},
    "stockout": {"status": 500, "body": STOCKOUT},
    "quota": {"status": 500, "body": NO_MONEY},
    "denied": {"status": 403, "body": {"error": "forbidden", "status": 403}},
    "transient": {"status": 429, "body": {"error": "too many requests"}, "retry_after": "7"},
}


@asynccontextmanager
async def contract(_folder, case):
    """One that is off, for `tests/contract/test_powered_kinds.py`."""
    import backends
    from orchestrator.edge.http import AioHttp
    from tests.backends.worlds import plan, ports
    from tests.contract.test_powered_kinds import SECRET

    async with RunpodStandin(SECRET) as standin, AioHttp() as http:
        if case.fate.value:
            # A question that is lost is asked once more by itself.
            times = 2 if case.ask.value == "status" and case.fate.value == "lost" else 1
            on = PATHS.get(case.ask.value, f"GET /v1/pods/{POD}$")
            standin.faults.append(Fault(on, times=times, **ANSWERS[case.fate.value]))
        keys = {"api_key": {"credential": "k"}, "api": standin.api, "pod": POD, "port": 8000}
        made = plan("runpod", secrets={"api_key": SECRET}, **keys)
        made = replace(made, label="aion-home-lab-")
        yield backends.driver(made, ports(http)), Truth(standin)


if __name__ == "__main__":
    run(RunpodStandin())
