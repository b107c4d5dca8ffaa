"""Small fleets on a stage, and what they did."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time
from dataclasses import dataclass, replace

from orchestrator.core.configuring import resumed
from orchestrator.core.events import Turn
from orchestrator.core.model import Now
from orchestrator.core.specs import FleetConfig
from orchestrator.outlook.scene import Watcher
from orchestrator.outlook.stage import Stage

START = 1_763_700_000.0
CALM_S = 3700.0  # the preferred serves by then, and no move of the start limits the others


@dataclass(frozen=True)
class Move:
    service: str
    old: str
    new: str
    at: float


class Moves(Watcher):
    """Notes who took over from whom, and when."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seen: list[Move] = []

    def turned(self, turn: Turn) -> None:
        for entry in turn.entries:
            if entry.action == "assigned":
                data = entry.data
                self.seen.append(Move(entry.subject, data["old"], data["new"], self.stage.at))

    @property
    def order(self) -> list[tuple[str, str, str]]:
        return [(move.service, move.old, move.new) for move in self.seen]


def staged(
    config: FleetConfig,
    *,
    seed: int = 1,
    dense: bool = False,
    names: bool = False,
    calm_s: float = CALM_S,
) -> Stage:
    """A stage on which everything is up and decided; without DNS names unless `names`."""
    if not names:
        services = {k: replace(s, dns=None) for k, s in config.services.items()}
        config = replace(config, services=services)
    fleet = resumed(config, Now(START, START))
    stage = Stage(fleet, at=START, wall=START, chance=random.Random(seed), dense=dense)
    stage.begin()
    stage.advance(stage.at + calm_s)
    return stage


def played(config: FleetConfig, script, *, seconds: float, seed: int = 1, dense: bool) -> Moves:
    """Play a script of (seconds, name, way or None) and return the moves."""
    stage = staged(config, seed=seed, dense=dense)
    moves = Moves(stage)
    stage.watchers.append(moves)
    began = stage.at
    for after, name, way in script:
        stage.schedule(
            began + after,
            (lambda n=name, w=way: stage.kill(n, w)) if way else (lambda n=name: stage.revive(n)),
        )
    stage.advance(began + seconds)
    return moves
