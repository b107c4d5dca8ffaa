"""A stand-in for vast.ai's interface to one account's instances, as strict as its documents.

Sources: vast-ai/docs `api-reference/openapi`, "Update Instance" and "Get Instance": PUT and GET
/api/v0/instances/{id}/, fields `state` and `label` and no others, and what each refusal says:
`{"success": false, "error": "resources_unavailable", "msg": "Required resources are currently
unavailable, state change queued."}` with HTTP 200; 400 `missing_billing`, "You lack credit, see the
billing page."; 404 `no_such_instance`. GET answers `{"instances": {…}}`, null for one that is gone.
The states: "show instance" there. `ports` in Docker's form, `public_ipaddr` with blanks about it,
as seen in clients of it.

Run it: `python tests/standins/vast.py --port 0`.
"""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from tests.standins.rest import Fault, Refused, RestStandin, given, run  # noqa: E402

KEY = "0123456789abcdef0123456789abcdef0123456789abcdef"
INSTANCE = 329838
QUEUED = {
    "success": False,
    "error": "resources_unavailable",
    "msg": "Required resources are currently unavailable, state change queued.",
}
NO_CREDIT = {
    "success": False,
    "error": "missing_billing",
    "msg": "You lack credit, see the billing page.",
}


class VastStandin(RestStandin):
    """Holds instances by number. `full`: their machines have no free GPU."""

    def __init__(self, key: str = KEY, instances=(INSTANCE,)) -> None:
        super().__init__(key)
        self.instances = {number: self._instance(number) for number in instances}
        self.full = False
        self.quick = False  # nothing takes any time
        self.mapped: dict[str, int] = {}

    @property
    def api(self) -> str:
        return self.url

    @staticmethod
    def _instance(number: int) -> dict:
        return {
            "id": number,
            "label": "my box",
            "cur_state": "stopped",
            "next_state": "stopped",
            "intended_status": "stopped",
            "actual_status": "exited",
            "status_msg": None,
            "public_ipaddr": " 127.0.0.1 ",
            "ports": {},
            "dph_total": 0.36,
            "is_bid": False,
        }

    def routes(self, add) -> None:
        add("GET", "/api/v0/instances/{number}/", self._get)
        add("PUT", "/api/v0/instances/{number}/", self._put)

    def unauthorized(self) -> Refused:
        return Refused(401, {"success": False, "error": "auth_error", "msg": "Invalid user key"})

    def truth(self) -> dict:
        return {"instances": list(self.instances.values())}

    def control(self, given: dict) -> None:
        super().control(given)
        self.full = given.get("full", self.full)
        self.quick = given.get("quick", self.quick)
        self.mapped.update(given.get("mapped", {}))
        if given.get("free"):  # a GPU got free: whatever was queued comes
            self.full = False
            for one in self.instances.values():
                if one["next_state"] == "running" and one["cur_state"] != "running":
                    self.run(one)

    def run(self, one: dict) -> None:
        one |= dict.fromkeys(("cur_state", "next_state", "intended_status"), "running")
        one["actual_status"] = "loading"
        self.began.append(one["label"])

    def settle(self) -> None:
        """Let what loads run and what goes off be off."""
        for one in self.instances.values():
            if one["cur_state"] == "running" and one["intended_status"] == "stopped":
                one |= {"cur_state": "stopped", "actual_status": "exited", "ports": {}}
            elif one["cur_state"] == "running":
                ports = {
                    f"{inside}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(outside)}]
                    for inside, outside in self.mapped.items()
                }
                one |= {"actual_status": "running", "ports": ports}

    def running(self) -> list[dict]:
        return [one for one in self.instances.values() if one["cur_state"] == "running"]

    async def _get(self, request):
        number = request.match_info["number"]
        if not number.isdigit():
            raise Refused(400, {"success": False, "error": "invalid_args"})
        one = self.instances.get(int(number))
        if self.quick:
            self.settle()
        said = dict(one) if one else None
        self.settle()  # so that it is seen once as it was
        return 200, {"instances": said}

    async def _put(self, request):
        body = await given(request, {"state": str, "label": str})
        number = int(request.match_info["number"])
        one = self.instances.get(number)
        if one is None:
            text = f"Instance {number} not found."
            raise Refused(404, {"success": False, "error": "no_such_instance", "msg": text})
        if body.get("state", "running") not in ("running", "stopped"):
            raise Refused(400, {"success": False, "msg": "Invalid target state"})
        one["label"] = body.get("label", one["label"])
        if body.get("state") == "running":
            if one["cur_state"] == "running":
                one["intended_status"] = "running"
            elif self.full:
                one["next_state"] = "running"
                return 200, QUEUED
            else:
                self.run(one)
        elif body.get("state") == "stopped":
            one |= {"intended_status": "stopped", "next_state": "stopped"}
        return 200, {"success": True}


class Truth:
    """What the contract asks of the truth."""

    def __init__(self, standin: VastStandin) -> None:
        self.standin = standin

    async def runs(self) -> list[str]:
        return [one["label"].split()[-1] for one in self.standin.running()]

    async def began(self) -> int:
        return len(self.standin.began)

    async def settle(self) -> None:
        self.standin.settle()

    async def put(self, label: str) -> None:
        one = self.standin.instances[INSTANCE]
        one["label"] = f"my box {label}"
        self.standin.run(one)

    async def longest_s(self) -> float | None:
        return None


ANSWERS = {
    "lost": {"done": True},
    "stockout": {"status": 200, "body": QUEUED},
    "quota": {"status": 400, "body": NO_CREDIT},
    "denied": {"status": 401, "body": {"success": False, "error": "auth_error"}},
    "transient": {"status": 429, "body": {"error": "too_many_requests"}, "retry_after": "2"},
}


@asynccontextmanager
async def contract(_folder, case):
    """One that is off, for `tests/contract/test_powered_kinds.py`."""
    import backends
    from orchestrator.edge.http import AioHttp
    from tests.backends.worlds import plan, ports
    from tests.contract.test_powered_kinds import SECRET

    async with VastStandin(SECRET) as standin, AioHttp() as http:
        if case.fate.value:
            # A question that is lost is asked once more by itself.
            times = 2 if case.ask.value == "status" and case.fate.value == "lost" else 1
            method = "GET" if case.ask.value == "status" else "PUT"
            # A stop comes after the start's own change.
            skip = 1 if case.ask.value == "stop" else 0
            fault = Fault(
                f"{method} /api/v0/instances", skip=skip, times=times, **ANSWERS[case.fate.value]
            )
            standin.faults.append(fault)
        keys = {"api_key": {"credential": "k"}, "api": standin.api, "instance": INSTANCE}
        made = plan("vast", secrets={"api_key": SECRET}, port=8000, **keys)
        yield backends.driver(made, ports(http)), Truth(standin)


if __name__ == "__main__":
    run(VastStandin())
