"""The demo's story of sessions: registered, warned, followed by another before the end.

A client asks all the while whom discovery names; that none of its requests is refused is the last
thing observed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from orchestrator.cli.narrator import Narrator
from orchestrator.cli.sandbox import MODEL
from orchestrator.cli.sessions_world import MACHINE, NOTEBOOK, SessionsWorld
from orchestrator.cli.story import Expected, Missed, Story
from orchestrator.cli.watch import Watch, active

ASK_EVERY_S = 0.1


class Sessions(Story):
    """Nobody serves, so aion starts one; a notebook takes over, ends, and is followed."""

    def __init__(
        self, world: SessionsWorld, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        super().__init__(world, watch, narrator, patience=patience)
        self._boxes = world
        self._client = httpx.AsyncClient(trust_env=False, timeout=10.0)
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0
        self._refused: list[str] = []

    async def play(self) -> int:
        """Return 0 if each step was observed, else 1."""
        async with self._client:
            try:
                return await super().play()
            finally:
                if self._asking is not None:
                    self._asking.cancel()

    async def steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""
        text = f"nobody serves, so aion starts {MACHINE}; it registers and serves"
        yield Expected("started", text, lambda sight: active(sight) == MACHINE, 60.0)
        await self.ask()
        self._asking = asyncio.create_task(self._keep_asking())
        await self._boxes.run(NOTEBOOK)
        self.tell.did(f"the cell of {NOTEBOOK} is run", step="run", pid=self._boxes.pid(NOTEBOOK))
        moved = self.newly(NOTEBOOK)
        yield Expected("promoted", f"{NOTEBOOK} proved itself, is preferred and serves", moved, 30)
        await self.until("idle", f"{MACHINE}, idle now, is stopped", self._is_off, 40.0)
        await self._steal()
        await self.until(
            "warned", f"the operator is warned that {NOTEBOOK} ends", self._is_warned, 60.0
        )
        moved = self.newly(MACHINE)
        text = f"before that end aion starts {MACHINE} again, and traffic moves"
        yield Expected("followed", text, moved, 60.0)
        await self.until("drained", f"{NOTEBOOK} is drained and over", self._is_over, 60.0)
        self._asking.cancel()
        if self._refused:
            raise Missed(
                f"{len(self._refused)} of {self._asked} requests failed: {self._refused[0]}"
            )
        text = f"of {self._asked} requests in all that time none was refused"
        self.observed(text, "unrefused")
        await self._revoke()

    # ── a client ────────────────────────────────────────────────────────────────────────────────

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            sight = self.watch.now
            url = f"{(sight.get('active') or {}).get('url', '')}/v1/chat/completions"
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
            self._asked += 1
            try:
                (await self._client.post(url, json=body)).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                who = active(sight) or "nobody"
                self._refused.append(f"{who}: {error or type(error).__name__}")

    # ── a thief ─────────────────────────────────────────────────────────────────────────────────

    async def _steal(self) -> None:
        """Try what somebody could who found the notebook's token."""
        elsewhere = await self._register("https://thief.example.org")
        self._refusal(elsewhere, httpx.codes.UNPROCESSABLE_ENTITY)
        text = f"a stolen token does not get elsewhere: “{elsewhere.json()['detail']}”"
        self.observed(text, "stolen elsewhere")
        here = await self._register(self._boxes.url)
        self._refusal(here, httpx.codes.CREATED)
        await self.until(
            "stolen here", "the thief's host is asked to prove itself", self._is_told, 20
        )
        if active(self.watch.now) != NOTEBOOK:
            raise Missed("a host that cannot prove itself took the traffic")
        self.tell.note(f"why: {await self._is_told()}; {NOTEBOOK} serves on")

    async def _is_told(self) -> str:
        """Say why what waits to be promoted is not; "" while that is not known."""
        pending = (await self._backend(NOTEBOOK)).get("pending") or {}
        return str(pending.get("problem", ""))

    async def _revoke(self) -> None:
        await self._post("tokens/revoke", {"backend": NOTEBOOK})
        self.tell.did(f"the token of {NOTEBOOK} is revoked", step="revoke")
        late = await self._register(self._boxes.url)
        self._refusal(late, httpx.codes.UNAUTHORIZED)
        self.observed(f"the stolen one opens nothing now: “{late.json()['detail']}”", "revoked")

    async def _register(self, url: str) -> httpx.Response:
        when = self.watch.now["as_of"]
        body: dict[str, Any] = {"backend": NOTEBOOK, "url": url, "engine": "openai", "gpu": None}
        body |= {"models": [MODEL], "started_at": when, "now": when, "agent": "0"}
        bearer = {"Authorization": f"Bearer {self._boxes.secret(f'{NOTEBOOK}_token')}"}
        return await self._client.post(f"{self._boxes.url}/register", json=body, headers=bearer)

    def _refusal(self, reply: httpx.Response, wanted: int) -> None:
        if reply.status_code != wanted:
            raise Missed(f"the thief was answered {reply.status_code}, not {wanted}: {reply.text}")

    # ── what the daemon knows ───────────────────────────────────────────────────────────────────

    async def _is_off(self) -> bool:
        power = (await self._backend(MACHINE)).get("power") or {}
        return power.get("phase") == "off"

    async def _is_warned(self) -> bool:
        incidents = await self._get("incidents")
        return any(one["kind"] == "session_ending" for one in incidents)

    async def _is_over(self) -> bool:
        return (await self._backend(NOTEBOOK)).get("session") is None

    async def _backend(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._get(f"backends/{name}")
        return found

    async def _get(self, path: str) -> Any:
        return await self._ask_daemon("GET", path, None)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._ask_daemon("POST", path, body)

    async def _ask_daemon(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        bearer = {"Authorization": f"Bearer {self._boxes.secret('admin_token')}"}
        url = f"{self._boxes.url}/api/{path}"
        try:
            reply = await self._client.request(method, url, headers=bearer, json=body)
            return reply.raise_for_status().json()
        except httpx.HTTPError as error:
            raise Missed(f"the daemon does not answer: {error}") from error
