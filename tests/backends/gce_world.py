"""A `gce` backend with the real client library, in front of a stand-in that holds the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import backends
from orchestrator.core.powering import Ask, Snag
from tests.backends.worlds import TableHttp, plan, ports
from tests.standins.gce import Fault, Google, account

ZONE, OTHER_ZONE = "europe-west4-a", "europe-west4-b"
PREFIX = "aion-home-lab-"


async def in_a_thread(module: str, payload: Any, *, timeout_s: float) -> dict[str, Any]:
    """Run a child's `main` here: importing Google's library once instead of once each time."""
    task = asyncio.ensure_future(asyncio.to_thread(import_module(module).main, payload))
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task  # a thread cannot be killed; it comes to its end before anybody goes on
        raise


def backend(google: Google, children: Any = in_a_thread, label: str = PREFIX, **keys: Any) -> Any:
    """Make the driver; on one instance in ZONE unless told otherwise."""
    given: dict[str, Any] = {"url": None, "port": 8000, "api": google.url}
    given |= {"account": {"credential": "gcp"}}
    if "template" in keys:
        given |= {"instance": ()}
    made = plan("gce", secrets={"account": account()}, **{**given, **keys})
    made = replace(made, label=label)
    return backends.driver(made, ports(TableHttp({}), None, None, children))


@dataclass
class Truth:
    """What is at Google."""

    google: Google

    async def runs(self) -> list[str]:
        return [one["labels"].get("aion-launch", "") for one in self.google.alive()]

    async def began(self) -> int:
        return self.google.launches

    async def settle(self) -> None:
        self.google.settle()

    async def put(self, label: str) -> None:
        self.google.machine(ZONE, "gpu-1", status="RUNNING", labels={"aion-launch": label})

    async def longest_s(self) -> float | None:
        scheduling = self.google.alive()[0]["scheduling"]
        return float(scheduling["maxRunDuration"]["seconds"])


CALLS = {Ask.START: "start", Ask.STOP: "stop", Ask.STATUS: "get"}
WHATS = {
    Snag.LOST: "lost",
    Snag.DENIED: "denied",
    Snag.TRANSIENT: "busy",
    Snag.QUOTA: "quota",
    Snag.STOCKOUT: "stockout",
}


@asynccontextmanager
async def powered(folder: Path, case: Any) -> AsyncIterator[tuple[Any, Truth]]:
    """Make one that is off, on an instance that is there."""
    async with Google() as google:
        google.machine(ZONE, "gpu-1")
        if case.fate is not Snag.NONE:
            google.faults.append(Fault(CALLS[case.ask], WHATS[case.fate]))
        yield backend(google), Truth(google)
