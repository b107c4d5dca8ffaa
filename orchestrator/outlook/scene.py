"""What the parts of a stage share: how backends die, who listens, and the stage as they see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from orchestrator.core.events import Event, Turn
from orchestrator.core.model import Fleet, Notice, Observation


class Chance(Protocol):
    """The one source of randomness; `random.Random` is one."""

    def random(self) -> float: ...

    def uniform(self, a: float, b: float) -> float: ...


class Way(StrEnum):
    """How a backend is dead: connections are refused, or nothing answers until the time-out."""

    REFUSES = "refuses"
    HANGS = "hangs"


class Watcher:
    """Hears what happens on a stage; a subclass says what of it matters to it."""

    def turned(self, turn: Turn) -> None:
        """Hear of a turn that was applied."""

    def probed(self, seen: Observation) -> None:
        """Hear what a look at a backend saw."""

    def told(self, notices: Sequence[Notice]) -> None:
        """Hear which messages reached the operator."""

    def held(self, notices: Sequence[Notice], until: float) -> None:
        """Hear which messages wait for the end of the quiet hours, at wall time `until`."""

    def did(self, subject: str, text: str) -> None:
        """Hear what was done or tried in the world around."""


class Scene(Protocol):
    """The stage as the world around the rules sees it; `stage.Stage` is one."""

    @property
    def fleet(self) -> Fleet: ...

    @property
    def at(self) -> float: ...

    @property
    def wall(self) -> float: ...

    @property
    def chance(self) -> Chance: ...

    @property
    def dense(self) -> bool: ...

    @property
    def dead(self) -> Mapping[str, Way]: ...

    @property
    def cut_off(self) -> bool: ...

    @property
    def dns_down(self) -> bool: ...

    @property
    def watchers(self) -> Sequence[Watcher]: ...

    def schedule(self, at: float, do: Callable[[], None]) -> None: ...

    def give(self, event: Event) -> None: ...

    def observe(self, seen: Observation, began_at: float) -> None: ...
