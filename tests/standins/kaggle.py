"""Kaggle's interface for kernels, on loopback: strict about what is sent, and it holds the truth.

Paths, fields and enumerations are those of kagglesdk 0.1.37. What it refuses with is worded as
Kaggle words it:

- "Maximum weekly GPU quota of 30.00 hours reached." and "Maximum batch GPU session count of 2
  reached." come as `error` in a good answer, and no version is made (Kaggle/kaggle-cli issues 185
  and 345; logs of many users' pushes).
- Of a kernel that is not there it says 403 "Permission 'kernels.get' was denied".
- {"code": 401, "message": "Unauthorized"} (Kaggle/kaggle-cli issue 46).
- It names no session of a run that was pushed, so that none can be cancelled: "A session ID is like
  a *nix PID, and is not currently exposed outside the server" (Kaggle/kaggle-cli pull request 1174).
  `exposes`: as if it came to.

With `--run` what is pushed is really run, as a process of its own with the environment that is
given, once its turn has come.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time  # noqa: TID251 - its own clock
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

USER, KEY, TOKEN = "ann", "s3cret-0123456789", "KGAT_0123456789abcdef0123456789abcdef"
SERVICE = "/v1/kernels.KernelsApiService/"
LONGEST_S = 12 * 3600
AT_ONCE = 2
SLOW_S = 20.0
QUOTA = "Maximum weekly GPU quota of {:.2f} hours reached."
SESSIONS = "Maximum batch GPU session count of {} reached."
DENIED = "Permission 'kernels.get' was denied"
ACTIVE = ("QUEUED", "RUNNING", "CANCEL_REQUESTED")
SHAPES = {"NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaL4", "TpuV5E8", "TpuV6E8"}
FIELDS = {
    "GetKernel": {"userName", "kernelSlug", "versionLabel"},
    "GetKernelSessionStatus": {"userName", "kernelSlug", "versionLabel"},
    "DeleteKernel": {"userName", "kernelSlug"},
    "CancelKernelSession": {"kernelSessionId"},
    "GetAcceleratorQuotaStatistics": set(),
    "ListKernels": {"group", "search", "pageSize", "user", "sortBy", "page", "pageToken"},
    "SaveKernel": {
        *("slug", "newTitle", "text", "language", "kernelType", "datasetDataSources"),
        *("kernelDataSources", "modelDataSources", "isPrivate", "enableGpu", "enableTpu"),
        *("enableInternet", "sessionTimeoutSeconds", "kernelExecutionType", "machineShape"),
        *("competitionDataSources", "categoryIds", "dockerImagePinningType", "dockerImage", "id"),
    },
}


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Run:
    """One run of one version. `began_at`: when it left the queue."""

    ident: int
    version: int
    label: str
    accelerated: bool
    status: str = "QUEUED"
    failure: str = ""
    session_s: int | None = None
    began_at: float | None = None
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Kernel:
    ident: int
    slug: str
    sources: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


class Kaggle:
    """One account. `fates`: what happens to the next requests of that name, instead of going well:
    "lost" (done, and no answer), "slow" (done, and no answer for a while), "half" (done, and the
    answer is cut short), "page" (HTML), "moved" (a redirect), a
    status, a text (the refusal of a push), a whole answer, a status with its body and headers, or
    seconds to be late by."""

    def __init__(self, folder: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.lock = threading.RLock()
        self.kernels: dict[str, Kernel] = {}
        self.fates: dict[str, list[Any]] = {}
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.used_h, self.limit_h = 0.0, 30.0
        self.refresh = datetime(2027, 1, 18, tzinfo=UTC)
        self.made = 0  # runs, ever
        self.queues = folder is None  # until `settle`; what is really run begins at once
        self.exposes = False
        self.known_sources = {"ann/weights"}
        self.folder, self.env = folder, dict(env or {})
        self._number = 341475000
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.back()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def back(self) -> None:
        bound = type("Bound", (Handler,), {"kaggle": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), bound)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def away(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        self.away()
        for run in self.runs():
            self._end(run, "CANCEL_ACKNOWLEDGED")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── the truth ───────────────────────────────────────────────────────────────────────────────

    def runs(self) -> list[Run]:
        with self.lock:
            for kernel in self.kernels.values():
                for run in kernel.runs:
                    self._look(run)
            return [one for kernel in self.kernels.values() for one in kernel.runs]

    def active(self) -> list[Run]:
        return [run for run in self.runs() if run.status in ACTIVE]

    def settle(self) -> None:
        """Give everybody in the queue a machine, and let what is being cancelled end."""
        for run in self.active():
            if run.status == "QUEUED":
                self._begin(run)
            elif run.status == "CANCEL_REQUESTED":
                self._end(run, "CANCEL_ACKNOWLEDGED")

    def put(self, name: str, source: str, status: str = "RUNNING") -> Run:
        """Have a kernel of that name run this."""
        with self.lock:
            kernel = self.kernels.setdefault(name, Kernel(self._next(), name))
            kernel.sources.append(source)
            kernel.requests.append({})
            run = Run(self._next(), len(kernel.sources), label_of(source), True, status)
            kernel.runs.append(run)
            self.made += 1
            return run

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _begin(self, run: Run) -> None:
        run.status, run.began_at = "RUNNING", time.monotonic()
        if self.folder is None:
            return
        source = next(
            kernel.sources[run.version - 1]
            for kernel in self.kernels.values()
            if run in kernel.runs
        )
        folder = self.folder / f"run-{run.ident}"
        folder.mkdir(parents=True)
        cells = json.loads(source)["cells"]
        code = "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "code")
        (folder / "script.py").write_text(code)
        env = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "HOME": str(folder), **self.env}
        env.setdefault("AION_STATE", str(folder / "agent"))
        with (folder / "log").open("wb") as log:
            run.process = subprocess.Popen(
                [sys.executable, "-c", f"exec(open({str(folder / 'script.py')!r}).read())"],
                env={"PATH": os.environ["PATH"], **env}, cwd=folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _look(self, run: Run) -> None:
        """See whether a run came to its end, or to the limit it was given."""
        if run.status not in ("RUNNING", "CANCEL_REQUESTED"):
            return
        if run.process is not None and (code := run.process.poll()) is not None:
            self._end(run, "ERROR" if code else "COMPLETE")
        elif run.session_s and run.began_at and time.monotonic() - run.began_at > run.session_s:
            self._end(run, "ERROR", "Your notebook was stopped because it exceeded its time limit")

    def _end(self, run: Run, status: str, failure: str = "") -> None:
        if run.process is not None and run.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
        if run.status in ACTIVE:
            run.status, run.failure = status, failure

    # ── what is asked ───────────────────────────────────────────────────────────────────────────

    def answer(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if name not in FIELDS:
                self.wrong.append(name)
                raise Refusal(404, f"no such method: {name}")
            if extra := set(body) - FIELDS[name]:
                self.wrong.append(f"{name}: {sorted(extra)}")
                raise Refusal(400, f"unknown fields: {sorted(extra)}")
            method = "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            found: dict[str, Any] = getattr(self, method)(body)
            return found

    def _kernel(self, body: Mapping[str, Any]) -> Kernel:
        name = f"{body.get('userName')}/{body.get('kernelSlug')}"
        if name not in self.kernels:
            raise Refusal(403, DENIED)
        return self.kernels[name]

    def _get_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernel(body)
        return {
            "metadata": {
                "id": kernel.ident,
                "ref": kernel.slug,
                "title": kernel.slug.partition("/")[2],
                "isPrivate": True,
                "currentVersionNumber": len(kernel.sources),
            },
            "blob": {"source": kernel.sources[-1], "language": "python", "kernelType": "notebook"},
        }

    def _get_kernel_session_status(self, body: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernel(body)
        if not kernel.runs:
            return {"status": "NEW_SCRIPT"}
        run = kernel.runs[-1]
        self._look(run)
        # A field that has its first value is left out, as everywhere in this form of JSON.
        found: dict[str, Any] = {} if run.status == "QUEUED" else {"status": run.status}
        if run.failure:
            found |= {"failureMessage": run.failure, "hasFailureMessage": True}
        if self.exposes:
            found["kernelSessionId"] = run.ident
        return found

    def _list_kernels(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("group") != "PROFILE":
            self.wrong.append(f"ListKernels: {body}")
        wanted = body.get("search", "")
        found = [one for name, one in self.kernels.items() if wanted in name]
        return {"kernels": [{"id": one.ident, "ref": one.slug} for one in found]}

    def _get_accelerator_quota_statistics(self, _: dict[str, Any]) -> dict[str, Any]:
        quota = {"timeUsed": f"{self.used_h * 3600:.0f}s", "totalTimeAllowed": "108000s"}
        quota["totalTimeAllowed"] = f"{self.limit_h * 3600:.0f}s"
        refresh = self.refresh.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        return {"quotaRefreshTime": refresh, "gpuQuota": quota, "tpuQuota": quota}

    def _save_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        self._hold(body)
        refused: dict[str, Any] = {
            "ref": "",
            "url": "",
            "versionNumber": 0,
            "hasVersionNumber": False,
        }
        accelerated = bool(body.get("enableGpu") or body.get("enableTpu"))
        busy = sum(run.accelerated for run in self.active())
        if accelerated and self.used_h >= self.limit_h:
            text = QUOTA.format(self.limit_h)
            return {**refused, "error": text, "errorNullable": text, "hasError": True}
        if accelerated and busy >= AT_ONCE:
            text = SESSIONS.format(AT_ONCE)
            return {**refused, "error": text, "errorNullable": text, "hasError": True}
        run = self.put(body["slug"], body["text"], "QUEUED")
        run.accelerated, run.session_s = accelerated, body.get("sessionTimeoutSeconds")
        kernel = self.kernels[body["slug"]]
        kernel.requests[-1] = body
        if not self.queues:
            self._begin(run)
        return {
            "ref": f"/code/{body['slug']}",
            "url": f"https://www.kaggle.com/code/{body['slug']}",
            "versionNumber": run.version,
            "kernelId": kernel.ident,
            "invalidDatasetSources": [
                one for one in body.get("datasetDataSources", []) if one not in self.known_sources
            ],
        }

    def _hold(self, body: dict[str, Any]) -> None:
        """Hold a push against what Kaggle takes, and against what this product promises."""
        slug, title = body.get("slug", ""), body.get("newTitle", "")
        if slug.partition("/")[0] != USER:
            raise Refusal(403, "Permission 'kernels.update' was denied")
        if len(title) < 5 or re.sub(r"[^a-z0-9]+", "-", title.lower()) != slug.partition("/")[2]:
            self.wrong.append(f"the title {title!r} makes another address than {slug}")
        if body.get("isPrivate") is not True:
            self.wrong.append("it would be public")
        if body.get("enableInternet") is not True:
            self.wrong.append("it would have no internet")
        if body.get("kernelExecutionType") != "SAVE_AND_RUN_ALL":
            self.wrong.append("it would not run")
        if not 0 < (body.get("sessionTimeoutSeconds") or 1) < LONGEST_S:
            raise Refusal(400, "sessionTimeoutSeconds must be lower than the global maximum")
        if body.get("machineShape") and body["machineShape"] not in SHAPES:
            raise Refusal(400, f"unknown machine shape {body['machineShape']}")
        if body.get("language") != "python" or body.get("kernelType") != "notebook":
            self.wrong.append("it is no notebook in Python")
        if json.loads(body["text"])["nbformat"] != 4:
            self.wrong.append("it is no notebook")

    def _delete_kernel(self, body: dict[str, Any]) -> dict[str, Any]:
        kernel = self._kernel(body)
        for run in kernel.runs:
            self._end(run, "CANCEL_ACKNOWLEDGED")
        del self.kernels[kernel.slug]
        return {}

    def _cancel_kernel_session(self, body: dict[str, Any]) -> dict[str, Any]:
        for run in self.active():
            if run.ident == body.get("kernelSessionId"):
                run.status = "CANCEL_REQUESTED"
                return {}
        return {"errorMessage": "Session is not active", "hasErrorMessage": True}

    # ── control from another process ────────────────────────────────────────────────────────────

    def seen(self) -> dict[str, Any]:
        runs = [
            {"id": one.ident, "version": one.version, "label": one.label, "status": one.status,
             "session_s": one.session_s, "pid": one.process.pid if one.process else None}
            for one in self.runs()
        ]  # fmt: skip
        last = [kernel.sources[-1] for kernel in self.kernels.values()]
        return {"runs": runs, "asked": self.asked, "wrong": self.wrong, "sources": last}

    def told(self, wish: Mapping[str, Any]) -> dict[str, Any]:
        with self.lock:
            for key in ("used_h", "limit_h", "queues", "exposes", "env"):
                if key in wish:
                    setattr(self, key, wish[key])
            for name, fates in wish.get("fates", {}).items():
                self.fates[name] = list(fates)
            if wish.get("settle"):
                self.settle()
            for run in self.active() if wish.get("kill") else ():
                self._end(run, "ERROR", wish["kill"])
        return self.seen()


def label_of(source: str) -> str:
    found = re.search(r"# aion launch: ([a-z0-9-]+)", source)
    return found[1] if found else ""


class Handler(BaseHTTPRequestHandler):
    """One request to the account that is bound to it."""

    kaggle: Kaggle
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200 if self.path == "/_control" else 405, self.kaggle.seen())

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(raw or b"{}")
        if self.path == "/_control":
            self._send(200, self.kaggle.told(body))
            return
        name = self.path.removeprefix(SERVICE)
        self.kaggle.asked.append(name)
        fates = self.kaggle.fates.get(name, [])
        fate = fates.pop(0) if fates else None
        if isinstance(fate, tuple):
            self._send(fate[0], fate[1], headers=fate[2] if len(fate) > 2 else {})
            return
        try:
            status, found = self._answered(name, body, fate)
        except Refusal as refusal:
            status, found = refusal.status, {"code": refusal.status, "message": str(refusal)}
        if fate == "slow":
            time.sleep(SLOW_S)
        if fate == "lost":
            self.close_connection = True
        elif fate == "moved":
            self._send(307, {}, location="/elsewhere")
        elif fate == "page":
            self._send(200, "<!doctype html><title>Just a moment…</title>")
        elif fate == "half":
            self._send(200, json.dumps(found)[:9], length=4096)
            self.close_connection = True
        else:
            self._send(status, found)

    def _answered(self, name: str, body: dict[str, Any], fate: Any) -> tuple[int, dict[str, Any]]:
        if not self.path.startswith(SERVICE):
            self.kaggle.wrong.append(self.path)
            raise Refusal(404, "not found")
        if not self._known():
            raise Refusal(401, "Unauthorized")
        if isinstance(fate, int):
            raise Refusal(fate, "Too many requests" if fate == 429 else "not just now")
        if isinstance(fate, float):
            time.sleep(fate)
        if isinstance(fate, dict):
            return 200, fate
        if isinstance(fate, str) and " " in fate:
            return 200, {"error": fate, "hasError": True, "versionNumber": 0}
        return 200, self.kaggle.answer(name, body)

    def _known(self) -> bool:
        basic = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in (f"Basic {basic}", f"Bearer {TOKEN}")

    def _send(
        self,
        status: int,
        body: Any,
        length: int | None = None,
        location: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        content = body if isinstance(body, str) else json.dumps(body)
        page = content.startswith("<")
        data = content.encode()
        with contextlib.suppress(OSError):
            self.send_response_only(status)
            for header, value in (headers or {}).items():
                self.send_header(header, value)
            self.send_header("Content-Type", "text/html" if page else "application/json")
            self.send_header("Content-Length", str(len(data) if length is None else length))
            if location:
                self.send_header("Location", location)
            if status == 429 and not headers:
                self.send_header("Retry-After", "17")
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


# ── what the contract of all kinds that can be started stands on ────────────────────────────────


@dataclass
class Account:
    """The truth, as `tests.contract.test_powered_kinds` asks for it."""

    kaggle: Kaggle
    kernel: str

    async def runs(self) -> list[str]:
        return [run.label for run in self.kaggle.active()]

    async def began(self) -> int:
        return self.kaggle.made

    async def settle(self) -> None:
        self.kaggle.settle()

    async def put(self, label: str) -> None:
        self.kaggle.put(self.kernel, f"# aion launch: {label}\n")

    async def longest_s(self) -> float | None:
        return self.kaggle.active()[-1].session_s


@asynccontextmanager
async def contract(folder: Path, case: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Make one that is off, and ends what it has to by deleting its kernel."""
    import backends
    from orchestrator.core.powering import Ask, Snag
    from orchestrator.edge.child import run_child
    from tests.backends.worlds import TableHttp, plan, ports

    asks = {Ask.START: "SaveKernel", Ask.STATUS: "GetKernelSessionStatus", Ask.STOP: "DeleteKernel"}
    fates: dict[Any, Any] = {
        Snag.LOST: "lost",
        Snag.DENIED: 403 if case.ask is not Ask.STATUS else 401,
        Snag.TRANSIENT: 429,
        Snag.QUOTA: QUOTA.format(30),
        Snag.STOCKOUT: SESSIONS.format(AT_ONCE),
    }
    with Kaggle() as kaggle:
        if case.fate is not Snag.NONE:
            kaggle.fates[asks[case.ask]] = [fates[case.fate]]
        made = plan(
            "kaggle",
            secrets={"key": json.dumps({"username": USER, "key": KEY})},
            kernel=f"{USER}/aion-gpu",
            key={"credential": "k"},
            stop="delete",
            api=kaggle.url,
        )
        yield (
            backends.driver(made, ports(TableHttp({}), None, None, run_child)),
            Account(kaggle, f"{USER}/aion-gpu"),
        )
        assert kaggle.wrong == []


def main() -> None:
    """Run as a process: a line of JSON on stdout says where; it ends with its stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--run", type=Path, help="really run what is pushed, in this folder")
    given = parser.parse_args()
    kaggle = Kaggle(given.run)
    if given.port:
        kaggle.away()
        kaggle.port = given.port
        kaggle.back()
    sys.stdout.write(json.dumps({"api": kaggle.url, "username": USER, "key": KEY, "token": TOKEN}))
    sys.stdout.write("\n")
    sys.stdout.flush()
    try:
        asyncio.run(_stdin_ends())
    finally:
        kaggle.close()


async def _stdin_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    main()
