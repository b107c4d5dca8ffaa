"""Runs pytest again and again, each time in a fork of this process, which has imported what is slow.

Started by `net.py` with the interpreter of a copy of the tree, in that copy. Each line on stdin,
`{"words": [...], "cpu_s": 10, "wall_s": 90}`, is answered by one line on stdout. Nothing of the
tree is imported here: the fork imports it anew, as it stands in the copy then.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time  # noqa: TID251 - deadlines of real processes
from pathlib import Path
from typing import Any

import pytest

SLOW = (
    "aiohttp",
    "anyio.pytest_plugin",
    "apscheduler.schedulers.asyncio",
    "cloudflare",
    "dns.asyncresolver",
    "dnslib.server",
    "fastapi",
    "httpx",
    "hypothesis.strategies",
    "prometheus_client",
    "pydantic_settings",
    "pytest_timeout",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
    "sqlmodel",
    "structlog",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
OURS = ("orchestrator", "backends", "jobs", "tests")
NO_VERDICT = (ImportError, SyntaxError, NameError)  # what breaks like this was no test's catch
TAIL_BYTES = 4000


class Watch:
    """Notes which test failed first, and whether all that was tested lies in this folder."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.found: dict[str, Any] = {"test": "", "error": "", "broken": False}
        self.found |= {"passed": 0, "strangers": []}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.found["passed"] += report.when == "call" and report.passed

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        if not self.found["test"]:
            error = call.excinfo
            broken = isinstance(report, pytest.CollectReport) or error.errisinstance(NO_VERDICT)
            self.found |= {"test": node.nodeid, "error": error.exconly()[-500:], "broken": broken}

    def pytest_sessionfinish(self) -> None:
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            ours = name.partition(".")[0] in OURS
            if ours and file and not file.startswith(self.root + os.sep):
                self.found["strangers"].append(file)


def fork_and_test(words: list[str], cpu_s: int, pipe: int) -> None:
    """Run pytest here, in the fork; what it found goes into the pipe. Does not return."""
    status = 3
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if cpu_s:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        watch = Watch(str(Path.cwd()))
        status = int(pytest.main(words, plugins=[watch]))
        os.write(pipe, json.dumps(watch.found).encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def cast(words: list[str], cpu_s: int, wall_s: float) -> dict[str, Any]:
    """Run pytest in a fork; it and its group are gone when this returns."""
    began = time.monotonic()
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as log, Path(os.devnull).open() as nothing:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.dup2(nothing.fileno(), 0)  # the orders are not for the tests' own children
            for output in (1, 2):
                os.dup2(log.fileno(), output)
            fork_and_test(words, cpu_s, writer)
        os.close(writer)
        said = heard(reader, began + wall_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if said is None else 0)
        _, status, used = os.wait4(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
        tail = log.read().decode(errors="replace")
    return {
        "code": os.waitstatus_to_exitcode(status),
        "found": json.loads(said) if said else None,
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - began,
        "tail": tail,
    }


def heard(reader: int, until: float) -> bytes | None:
    """Read what the fork says until it is gone; None if it takes too long."""
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            piece = pipe.read(65536)
            if not piece:
                return said
            said += piece
    return None


def main() -> None:
    # The answers' own descriptor: what a test prints must never be taken for one.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in SLOW:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would lose the other threads"
    gc.freeze()  # the forks' collections need not go through what was imported here
    for line in sys.stdin:
        answers.write(json.dumps(cast(**json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
