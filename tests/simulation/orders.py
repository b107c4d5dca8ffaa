"""What the operator was told would hold: it must, until it ends or he says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.events import (
    Answer,
    Command,
    Failover,
    Pause,
    PinTo,
    Resume,
    Switchover,
    Unpin,
)
from orchestrator.core.model import Fleet

SLACK_S = 1.0


@dataclass(frozen=True)
class _Pin:
    backend: str
    hard: bool
    until: float


class Orders:
    """Remembers orders by their answers. Times are the daemon's steady seconds."""

    def __init__(self) -> None:
        self._paused_until: float | None = None
        self._pins: dict[str, _Pin] = {}

    def answered(self, command: Command, answer: Answer | None, at: float) -> None:
        """Take a command's answer; None: it died with the daemon, and nobody knows what holds."""
        if answer is None:
            self._paused_until = None
            self._pins.clear()
        elif answer.problem is not None:
            return
        elif isinstance(command, Pause):
            self._paused_until = float("inf") if command.for_s is None else at + command.for_s
        elif isinstance(command, Resume):
            self._paused_until = None
        elif isinstance(command, PinTo):
            self._pins[command.service] = _Pin(command.backend, command.hard, at + command.for_s)
        elif isinstance(command, Unpin | Failover | Switchover):
            self._pins.pop(command.service, None)

    def dropped(self, fleet: Fleet, at: float) -> Iterator[tuple[str, str]]:
        """Say what does not hold although it should: the service, or "" for a pause, and what."""
        paused = self._paused_until is not None and at < self._paused_until - SLACK_S
        if paused and fleet.world.paused_since is None:
            yield "", "a pause was dropped"
        for service, pin in self._pins.items():
            held = fleet.services[service].pin
            if at >= pin.until - SLACK_S:
                continue
            if held is None or (held.backend, held.hard) != (pin.backend, pin.hard):
                yield service, f"{service}: the pin to {pin.backend} was dropped"
