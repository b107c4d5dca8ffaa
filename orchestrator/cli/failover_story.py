"""The demo's first story: kill, failover, recovery, failback."""

from __future__ import annotations

from collections.abc import AsyncIterator

from orchestrator.cli.narrator import Narrator
from orchestrator.cli.story import Expected, Story
from orchestrator.cli.watch import Sight, Watch, active, standing_by
from orchestrator.cli.world import FAILBACK_AFTER, World


class Failover(Story):
    """Backends die and come back; traffic goes where somebody lives."""

    def __init__(
        self, world: World, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        super().__init__(world, watch, narrator, patience=patience)
        self._parts = world

    async def steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""
        yield Expected("ready", "all three are up and alpha serves", _all_up, 30.0)
        await self.ask()
        moved = self.newly("beta")
        await self._kill("alpha")
        yield Expected("failover", "beta serves", moved, 10.0)
        await self.ask()
        moved = self.newly("slow")
        await self._kill("beta")
        yield Expected("fallback", "the slow fallback serves", moved, 10.0)
        await self.ask()
        moved = self.newly("alpha")
        await self._start("alpha")
        yield Expected("recovery", "alpha is up again", _alpha_up, 15.0)
        self.tell.note(f"it must stay well for {FAILBACK_AFTER} before it is trusted again")
        await self._start("beta")
        yield Expected("failback", "alpha serves again", moved, 30.0)
        await self.ask()

    async def _kill(self, name: str) -> None:
        pid = self._parts.pid(name)
        await self._parts.kill(name)
        self.tell.did(f"kill -9 {pid}: {name} is dead", step=f"kill {name}", pid=pid)

    async def _start(self, name: str) -> None:
        await self._parts.start(name)
        self.tell.did(f"{name} is started again", step=f"start {name}", pid=self._parts.pid(name))


def _all_up(sight: Sight) -> bool:
    up = standing_by(sight)
    return sight["state"] == "serving" and active(sight) == "alpha" and {"beta", "slow"} <= up


def _alpha_up(sight: Sight) -> bool:
    return "alpha" in standing_by(sight) | {active(sight)}
