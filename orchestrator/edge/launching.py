"""The token that each launch carries, for what is started with its code in a provider's hands."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from backends.base import Random
from orchestrator.core.events import Event, Turn
from orchestrator.core.registry import MintLaunchToken
from orchestrator.errors import AionError

BITS = 256


class NotMinted(AionError):
    """A launch got no token, so it is not made."""


class Minter:
    """Makes tokens; `committed` stores an event's turn before it is believed."""

    def __init__(self, committed: Callable[[Event], Awaitable[Turn]], random: Random) -> None:
        self._committed, self._random = committed, random

    async def __call__(self, backend: str, launch: str) -> str:
        """Return a new token for this launch; only its hash is kept.

        Raises `NotMinted` where that launch is not to be made any more, `StoreError` where it
        cannot be stored.
        """
        token = f"{self._random.getrandbits(BITS):0{BITS // 4}x}"
        kept = hashlib.sha256(token.encode()).hexdigest()
        turn = await self._committed(MintLaunchToken(kept[:12], backend, kept, launch))
        if turn.answer is not None and turn.answer.problem is not None:
            raise NotMinted(turn.answer.text)
        return token
