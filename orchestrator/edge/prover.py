"""Finds out whether what registered may serve, and whether what fell silent is still who it was.

A proof asks in this order, and stops at the first answer that is not good: who are you (the
identity challenge; before it is met, no key of ours is sent there), does your engine work, has it
our models, and a completion. The core asks again for what was not good enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from backends.base import Random, Registered, SessionPlan
from orchestrator.core.model import Verdict
from orchestrator.core.registry import Challenged, Proved
from orchestrator.core.sessions import PROOF_LIMIT_S

PROOF_S: Final = PROOF_LIMIT_S - 10.0  # so that its answer is there before the core asks again
CHALLENGE_S: Final = 15.0
AT_ONCE: Final = 32  # more wait their turn within their time
NONCE_BITS: Final = 256
GONE: Final = "it is not configured any more"

log = structlog.get_logger()

Drivers = Callable[[str, SessionPlan], Registered | None]
Work = Callable[[str, SessionPlan], Coroutine[Any, Any, Proved | Challenged]]


class Prover:
    """Has sessions prove themselves; each outcome is reported once.

    `drivers(backend, session)` makes a driver for that session's address, None where the backend is
    not configured any more.
    """

    def __init__(
        self, drivers: Drivers, *, report: Callable[[Proved | Challenged], None], random: Random
    ) -> None:
        self._drivers, self._report, self._random = drivers, report, random
        self._room = asyncio.Semaphore(AT_ONCE)
        self._running: dict[tuple[str, str], tuple[str, asyncio.Task[None]]] = {}

    def prove(self, backend: str, session: SessionPlan) -> None:
        """Find out whether this session may serve.

        A proof of it under way is not begun again; one of an earlier session is given up.
        """
        self._start("proof", backend, session, self._prove)

    def challenge(self, backend: str, session: SessionPlan) -> None:
        """Ask for the identity alone, twice if need be: one lost packet must not end a session."""
        self._start("challenge", backend, session, self._challenge)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, what: str, backend: str, session: SessionPlan, work: Work) -> None:
        key = (what, backend)
        if key in self._running:
            ident, running = self._running[key]
            if ident == session.id:
                return
            running.cancel()
        task = asyncio.create_task(self._run(key, session, work), name=f"{what}:{backend}")
        self._running[key] = session.id, task

    async def _run(self, key: tuple[str, str], session: SessionPlan, work: Work) -> None:
        try:
            outcome = await work(key[1], session)
        finally:  # before it is reported, for whoever hears of it may ask again at once
            if self._running.get(key, ("", None))[1] is asyncio.current_task():
                del self._running[key]
        self._report(outcome)

    async def _prove(self, backend: str, session: SessionPlan) -> Proved:
        try:
            async with asyncio.timeout(PROOF_S), self._room:
                return await self._look(backend, session)
        except TimeoutError:
            return _not(backend, session, f"the proof took longer than {PROOF_S:g} s")
        except Exception as error:  # a driver's bug must cost its backend, not the daemon
            log.exception("proof_failed", backend=backend)
            return _not(backend, session, f"internal error: {type(error).__name__}")

    async def _look(self, backend: str, session: SessionPlan) -> Proved:
        driver = self._drivers(backend, session)
        if driver is None:
            return _not(backend, session, GONE)
        if why := await driver.identify(self._nonce()):
            return _not(backend, session, why)
        seen = await driver.probe()
        if seen.verdict is not Verdict.OK:
            return _not(backend, session, seen.detail or seen.verdict.value)
        token = await driver.canary()
        if token is not None and token.verdict is not Verdict.OK:
            return _not(backend, session, f"no completion: {token.detail or token.verdict.value}")
        return Proved(
            backend,
            session.id,
            ok=True,
            models=seen.models,
            missing=seen.missing,
            canary=token is not None,
        )

    async def _challenge(self, backend: str, session: SessionPlan) -> Challenged:
        why = f"no answer within {CHALLENGE_S:g} s"
        try:
            async with asyncio.timeout(CHALLENGE_S), self._room:
                why = await self._unknown(backend, session)
        except TimeoutError:
            pass
        except Exception:  # a driver's bug is no proof, and must not cost the daemon
            log.exception("challenge_failed", backend=backend)
            why = "internal error"
        if why:
            log.info("challenge_not_met", backend=backend, problem=why)
        return Challenged(backend, session.id, ok=not why)

    async def _unknown(self, backend: str, session: SessionPlan) -> str:
        driver = self._drivers(backend, session)
        if driver is None:
            return GONE
        why = await driver.identify(self._nonce())
        return why and await driver.identify(self._nonce())

    def _nonce(self) -> str:
        return f"{self._random.getrandbits(NONCE_BITS):0{NONCE_BITS // 4}x}"


def _not(backend: str, session: SessionPlan, detail: str) -> Proved:
    return Proved(backend, session.id, ok=False, detail=detail)
