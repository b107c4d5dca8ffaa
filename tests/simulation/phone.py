"""The operator's phone: the channels that alerts go through, and what arrived by them."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.edge.alerts import NOTIFY
from orchestrator.errors import ChildFailed
from tests.simulation.trace import Trace
from tests.simulation.virtual import Time

IDS = re.compile(r" · (\S+)$", re.MULTILINE)


class Line(StrEnum):
    """How a channel is."""

    WORKS = "works"
    REFUSES = "refuses"
    HANGS = "hangs"
    LOSES_ANSWERS = "loses answers"  # delivered, but nobody says so


@dataclass(frozen=True)
class Arrival:
    """One notice in one message."""

    at: float
    channel: str
    lives: int  # how often the daemon had been started by then


class Phone:
    """Two channels. `arrived`: every arrival, by the notice's id."""

    def __init__(self, time: Time, trace: Trace) -> None:
        self.time, self.trace = time, trace
        self.lines = {"first": Line.WORKS, "second": Line.WORKS}
        self.works_since: float | None = 0.0
        self.arrived: dict[str, list[Arrival]] = defaultdict(list)
        self.unsaid: dict[str, int] = defaultdict(int)  # arrivals whose answer was lost
        self.lives = 0
        self.read: Callable[[str], None] = lambda _: None  # what whoever reads a message does

    def set(self, channel: str, line: Line) -> None:
        """Change how a channel is."""
        self.trace.tell("world", f"the {channel} channel {line}")
        self.lines[channel] = line
        if Line.WORKS not in self.lines.values():
            self.works_since = None
        elif self.works_since is None:
            self.works_since = self.time.true

    def deliver(self, channel: str, body: str) -> list[str]:
        """Take a message in."""
        ids = IDS.findall(body)
        for id_ in ids:
            self.arrived[id_].append(Arrival(self.time.true, channel, self.lives))
        self.trace.tell("phone", f"by {channel}: {' '.join(ids)}")
        self.read(body)
        return ids


class Children:
    """The port that starts child processes, of one life of the daemon: only messages are sent."""

    def __init__(
        self, phone: Phone, cut_off: Callable[[], bool], boundary: Callable[[str], None]
    ) -> None:
        self._phone, self._cut_off, self._boundary = phone, cut_off, boundary

    async def __call__(
        self, module: str, payload: Mapping[str, Any], *, timeout_s: float
    ) -> dict[str, Any]:
        assert module == NOTIFY, module
        self._boundary("send")
        await asyncio.sleep(0.4)  # the child starts
        results = []
        for channel in payload["channels"]:
            name = channel["name"]
            line = self._phone.lines[name]
            if self._cut_off() or line is Line.HANGS:
                await asyncio.sleep(15.0)
                results.append({"name": name, "ok": False, "detail": "timed out"})
                continue
            await asyncio.sleep(0.3)
            if line is Line.REFUSES:
                results.append({"name": name, "ok": False, "detail": "HTTP 500"})
                continue
            ids = self._phone.deliver(name, payload["body"])
            if line is Line.LOSES_ANSWERS:
                for id_ in ids:
                    self._phone.unsaid[id_] += 1
                raise ChildFailed("it ended without an answer")
            results.append({"name": name, "ok": True, "detail": ""})
            if payload["mode"] != "every":
                break
        self._boundary("sent")
        return {"results": results}
