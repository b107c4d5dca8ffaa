"""The demo's story of power: started when needed, never twice, adopted, stopped, within budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import httpx

from orchestrator.cli.meters import amount
from orchestrator.cli.narrator import Narrator
from orchestrator.cli.power_world import HOME, LIMIT, RENTED, RESERVE, SPOT, PowerWorld
from orchestrator.cli.story import Expected, Missed, Story
from orchestrator.cli.watch import Watch, active

USD = f"{RENTED.name}:usd"


class Powering(Story):
    """Nobody serves: machines are started and stopped as they are needed and may be paid for."""

    def __init__(
        self, world: PowerWorld, watch: Watch, narrator: Narrator, *, patience: float = 1.0
    ) -> None:
        super().__init__(world, watch, narrator, patience=patience)
        self._cloud = world
        self._client = httpx.AsyncClient(trust_env=False, timeout=10.0)

    async def play(self) -> int:
        """Return 0 if each step was observed, else 1."""
        async with self._client:
            return await super().play()

    async def steps(self) -> AsyncIterator[Expected]:
        """Yield what is expected next, having done what should bring it about."""
        text = f"nobody serves, so the cheapest that may be started is: {SPOT.name}"
        await self.until("cheapest", text, self._logged("power_start", SPOT.name), 30.0)
        text = f"none is free there; {RESERVE.name}, the next of its tier, is started"
        await self.until("stockout", text, self._logged("power_start", RESERVE.name), 30.0)
        text = f"the answer of that start is lost: nobody knows whether {RESERVE.name} runs"
        await self.until("lost", text, self._logged("power_unknown", RESERVE.name), 30.0)
        text = f"its provider is asked first: it does, so it is not repeated; {RESERVE.name} serves"
        yield Expected("found", text, lambda sight: active(sight) == RESERVE.name, 40.0)
        self._once(RESERVE.name)
        await self.ask()
        await self._survive()
        moved = self.newly(HOME)
        await self._cloud.switch_on_home()
        self.tell.did(f"{HOME} is switched on, which costs nothing", step="switch on")
        yield Expected("home", f"{HOME} is preferred, and serves", moved, 40.0)
        text = f"{RESERVE.name}, idle now, is stopped"
        await self.until("idle", text, self._off(RESERVE.name), 40.0)
        moved = self.newly(RENTED.name)
        await self._cloud.kill(HOME)
        self.tell.did(f"{HOME} is dead, and nothing on credit is free", step="kill home")
        text = f"so money is spent: {RENTED.name} is started, and serves"
        yield Expected("paid", text, moved, 40.0)
        await self.ask()
        text = f"its budget is spent: {RENTED.name} is stopped though nobody else serves"
        await self.until("spent", text, self._off(RENTED.name), 60.0)
        await self.until("told", "the operator is told", self._is_told, 20.0)
        self._once(RENTED.name)
        await self._show_receipt()

    async def _survive(self) -> None:
        """Kill the daemon, start it again, and see that it takes over what runs."""
        before = await self._power(RESERVE.name)
        pid = self._cloud.process(RESERVE.name)
        await self._cloud.kill_daemon()
        self.tell.did(f"the daemon is killed; {RESERVE.name} runs on", step="kill daemon")
        await self._cloud.revive_daemon()

        async def adopted() -> bool:
            power = await self._power(RESERVE.name)
            same = power.get("launch") == before["launch"] and power.get("phase") == "on"
            return same and bool(power.get("confirmed_at"))

        text = f"started again, it asks how things are and goes on with {before['launch']}"
        await self.until("adopted", text, adopted, 40.0)
        self._once(RESERVE.name)
        if self._cloud.process(RESERVE.name) != pid:
            raise Missed(f"{RESERVE.name} is another machine than before")

    def _once(self, name: str) -> None:
        """Hold the provider's own list of starts against what we saw."""
        asked = self._cloud.starts(name)
        if len(asked) != 1:
            raise Missed(f"{name} was started {len(asked)} times for one need: {asked}")

    async def _show_receipt(self) -> None:
        receipt = await self._get("meters?month=")
        by_name = {one["backend"]: one for one in receipt["backends"]}
        rented, reserve = by_name[RENTED.name], by_name[RESERVE.name]
        spent = rented["usd"]
        if not 0.0 < spent <= LIMIT:
            raise Missed(f"{amount('usd', spent)} of {amount('usd', LIMIT)} is on the receipt")
        if reserve["starts"] < 1 or not reserve["hours_on"]:
            raise Missed(f"{RESERVE.name} is not on the receipt")
        self.observed(f"the month's receipt: {amount('usd', spent)} in all", "receipt")
        for name, one in by_name.items():
            if one["starts"] is not None:
                seconds = (one["hours_on"] or 0.0) * 3600
                money = amount("usd", one["usd"] or 0.0)
                failed = f", {one['failed_starts']} failed" if one["failed_starts"] else ""
                starts = "1 start" if one["starts"] == 1 else f"{one['starts']} starts"
                text = f"{name}: {starts}{failed}, on for {seconds:.0f} s, {money}"
                self.tell.note(text)

    # ── what the daemon knows ───────────────────────────────────────────────────────────────────

    def _logged(self, action: str, name: str) -> Callable[[], Awaitable[bool]]:
        async def true() -> bool:
            lines = await self._get(f"events?subject={name}")
            return any(line["action"] == action for line in lines)

        return true

    def _off(self, name: str) -> Callable[[], Awaitable[bool]]:
        async def true() -> bool:
            return (await self._power(name)).get("phase") == "off"

        return true

    async def _is_told(self) -> bool:
        incidents = await self._get("incidents")
        kinds = {(one["kind"], one["subject"]) for one in incidents}
        return {("meter_spent", USD), ("service_down", "chat")} <= kinds

    async def _power(self, name: str) -> Mapping[str, Any]:
        found = (await self._get(f"backends/{name}")).get("power")
        return found if isinstance(found, Mapping) else {}

    async def _get(self, path: str) -> Any:
        """Ask the daemon; nothing while it is not there."""
        bearer = {"Authorization": f"Bearer {self._cloud.secret('admin_token')}"}
        try:
            reply = await self._client.get(f"{self._cloud.url}/api/{path}", headers=bearer)
            return reply.raise_for_status().json()
        except httpx.HTTPError:
            return {} if path.startswith("backends") else []
