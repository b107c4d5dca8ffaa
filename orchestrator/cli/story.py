"""How a demo tells a story: each step is brought about, then observed or missed.

It advances on what discovery tells (who serves, under which epoch), never by waiting a while. The
reason of each move is read from the daemon's own event log.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.cli.narrator import Narrator
from orchestrator.cli.sandbox import MODEL, Sandbox
from orchestrator.cli.watch import Sight, Watch, active
from orchestrator.cli.where import find
from orchestrator.errors import AionError

SERVICE = "chat"
ASK_S = 10.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step waits for: `true` of a discovery answer, within `deadline_s`."""

    step: str
    text: str
    true: Callable[[Sight], bool]
    deadline_s: float


class Missed(AionError):
    """A step of the story was not observed."""


class Story(ABC):
    """Plays once over a running `Sandbox`; `patience` stretches every deadline."""

    def __init__(
        self, world: Sandbox, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        self.world = world
        self.watch = watch
        self.tell = narrator
        self._patience = patience
        self._seen = 0
        self._epoch = 0

    async def play(self) -> int:
        """Return 0 if each step was observed, else 1; the narration says which was not."""
        try:
            async for step in self.steps():
                await self._observe(step)
        except Missed as missed:
            self.tell.missed(str(missed))
            self.tell.note(f"the daemon's last words: {self.world.log('daemon', 2)}")
            return Missed.exit_code
        self.tell.seen(f"each of the {self._seen} steps was observed", steps=self._seen, ok=True)
        return 0

    @abstractmethod
    def steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""

    async def _observe(self, step: Expected) -> None:
        loop = asyncio.get_running_loop()
        began, deadline_s = loop.time(), step.deadline_s * self._patience
        sight = await self.watch.until(step.true, deadline_s)
        if sight is None:
            last = f"{active(self.watch.now) or 'nobody'} serves" if self.watch.now else "nothing"
            text = f"{step.step} was not observed within {deadline_s:g} s: {step.text}"
            raise Missed(f"{text} (last seen: {last})")
        self._seen += 1
        took, epoch = loop.time() - began, sight["epoch"]
        self.tell.seen(
            f"{step.text}, {took:.1f} s later (epoch {epoch})" if self._seen > 1 else step.text,
            step=step.step,
            epoch=epoch,
            active=active(sight),
            took_s=round(took, 3),
        )
        if epoch > self._epoch and (reason := await self._reason()):
            self.tell.note(f"why: {reason}")
        self._epoch = epoch

    async def until(
        self, step: str, text: str, true: Callable[[], Awaitable[object]], deadline_s: float
    ) -> None:
        """Wait for what discovery does not tell; `true` asks for it. Raises Missed."""
        deadline_s *= self._patience
        try:
            async with asyncio.timeout(deadline_s):
                while not await true():  # noqa: ASYNC110 - an API has to be asked again
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Missed(f"{step} was not observed within {deadline_s:g} s: {text}") from None
        self.observed(text, step)

    def observed(self, text: str, step: str) -> None:
        """Tell of a step that discovery does not show."""
        self._seen += 1
        self.tell.seen(text, step=step)

    def newly(self, name: str) -> Callable[[Sight], bool]:
        """Return what tells that `name` serves by a newer assignment than the present one."""
        before = self.watch.now.get("epoch", 0)
        return lambda sight: active(sight) == name and sight["epoch"] > before

    async def ask(self) -> None:
        """Send a chat request to whom discovery names, as a client would."""
        loop, address = asyncio.get_running_loop(), self.watch.now["active"]["url"].rstrip("/")
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
        self.tell.note(f"a client asks for the model and gets “{said}” in {took:.2f} s")

    async def _reason(self) -> str:
        """Return the daemon's own sentence on the present assignment; "" if it can't be had."""
        token = find(self.world.config, None, None).token
        headers = {"authorization": f"Bearer {token}"}
        url = f"{self.world.url}/api/services/{SERVICE}"
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=ASK_S) as client:
                answer: dict[str, Any] = (await client.get(url, headers=headers)).json()
        except (httpx.HTTPError, ValueError):
            return ""
        return str(answer.get("reason", ""))
