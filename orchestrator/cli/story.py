"""The demo's story: kill, failover, recovery, failback, each step observed or missed.

It advances on what discovery tells (who serves, under which epoch), never by waiting a while. The
reason of each move is read from the daemon's own event log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.cli.narrator import Narrator
from orchestrator.cli.watch import Sight, Watch, active, standing_by
from orchestrator.cli.where import find
from orchestrator.cli.world import FAILBACK_AFTER, MODEL, World
from orchestrator.errors import AionError

SERVICE = "chat"
ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step waits for: `true` of a discovery answer, within `deadline_s`."""

    step: str
    text: str
    true: Callable[[Sight], bool]
    deadline_s: float


class Missed(AionError):
    """A step of the story was not observed."""


class Story:
    """Plays once over a running `World`; `patience` stretches every deadline."""

    def __init__(
        self, world: World, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        self._world = world
        self._watch = watch
        self._tell = narrator
        self._patience = patience
        self._seen = 0
        self._epoch = 0

    async def play(self) -> int:
        """Return 0 if each step was observed, else 1; the narration says which was not."""
        try:
            async for step in self._steps():
                await self._observe(step)
        except Missed as missed:
            self._tell.missed(str(missed))
            self._tell.note(f"the daemon's last words: {self._world.log('daemon', 2)}")
            return Missed.exit_code
        self._tell.seen(f"each of the {self._seen} steps was observed", steps=self._seen, ok=True)
        return 0

    async def _steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""
        yield Expected("ready", "all three are up and alpha serves", _all_up, 30.0)
        await self._ask()
        moved = self._newly("beta")
        await self._kill("alpha")
        yield Expected("failover", "beta serves", moved, 10.0)
        await self._ask()
        moved = self._newly("slow")
        await self._kill("beta")
        yield Expected("fallback", "the slow fallback serves", moved, 10.0)
        await self._ask()
        moved = self._newly("alpha")
        await self._start("alpha")
        yield Expected("recovery", "alpha is up again", _alpha_up, 15.0)
        self._tell.note(f"it must stay well for {FAILBACK_AFTER} before it is trusted again")
        await self._start("beta")
        yield Expected("failback", "alpha serves again", moved, 30.0)
        await self._ask()

    async def _observe(self, step: Expected) -> None:
        loop = asyncio.get_running_loop()
        began, deadline_s = loop.time(), step.deadline_s * self._patience
        sight = await self._watch.until(step.true, deadline_s)
        if sight is None:
            last = f"{active(self._watch.now) or 'nobody'} serves" if self._watch.now else "nothing"
            text = f"{step.step} was not observed within {deadline_s:g} s: {step.text}"
            raise Missed(f"{text} (last seen: {last})")
        self._seen += 1
        took, epoch = loop.time() - began, sight["epoch"]
        self._tell.seen(
            f"{step.text}, {took:.1f} s later (epoch {epoch})" if self._seen > 1 else step.text,
            step=step.step,
            epoch=epoch,
            active=active(sight),
            took_s=round(took, 3),
        )
        if epoch > self._epoch and (reason := await self._reason()):
            self._tell.note(f"why: {reason}")
        self._epoch = epoch

    def _newly(self, name: str) -> Callable[[Sight], bool]:
        """Return what tells that `name` serves by a newer assignment than the present one."""
        before = self._watch.now.get("epoch", 0)
        return lambda sight: active(sight) == name and sight["epoch"] > before

    async def _kill(self, name: str) -> None:
        pid = self._world.pid(name)
        await self._world.kill(name)
        self._tell.did(f"kill -9 {pid}: {name} is dead", step=f"kill {name}", pid=pid)

    async def _start(self, name: str) -> None:
        await self._world.start(name)
        self._tell.did(f"{name} is started again", step=f"start {name}", pid=self._world.pid(name))

    async def _ask(self) -> None:
        """Send a chat request to whom discovery names, as a client would."""
        loop, address = asyncio.get_running_loop(), self._watch.now["active"]["url"].rstrip("/")
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        began = loop.time()
        url = f"{address.removesuffix('/v1')}/v1/chat/completions"
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=ASK_S) as client:
                answer = (await client.post(url, json=body)).raise_for_status().json()
            said = str(answer["choices"][0]["message"]["content"])[:60]
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise Missed(f"a client's request to {url} was not answered: {error}") from error
        took = loop.time() - began
        self._tell.note(f"a client asks for the model and gets “{said}” in {took:.2f} s")

    async def _reason(self) -> str:
        """Return the daemon's own sentence on the present assignment; "" if it can't be had."""
        token = find(self._world.config, None, None).token
        headers = {"authorization": f"Bearer {token}"}
        url = f"{self._world.url}/api/services/{SERVICE}"
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=ASK_S) as client:
                answer: dict[str, Any] = (await client.get(url, headers=headers)).json()
        except (httpx.HTTPError, ValueError):
            return ""
        return str(answer.get("reason", ""))


def _all_up(sight: Sight) -> bool:
    up = standing_by(sight)
    return sight["state"] == "serving" and active(sight) == "alpha" and {"beta", "slow"} <= up


def _alpha_up(sight: Sight) -> bool:
    return "alpha" in standing_by(sight) | {active(sight)}
