"""All names that are kept: one reconciler each, opened and closed as the configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from backends.base import Clock, Random
from orchestrator.core.model import Fleet, ServiceState
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.base import DnsSettings, Provider
from orchestrator.edge.dns.reconciler import DnsEvent, Reconciler, State

log = structlog.get_logger("dns")


class Publisher:
    """Keeps services' DNS names.

    `fleet` gives the state; in the shadow it never writes. `report` returns once the loop has
    committed an event. `provider` opens what a service's settings name.
    """

    def __init__(
        self,
        *,
        fleet: Callable[[], Fleet],
        report: Callable[[DnsEvent], Awaitable[object]],
        clock: Clock,
        random: Random,
        provider: Callable[[DnsSettings], Provider] = open_provider,
    ) -> None:
        self._fleet, self._report = fleet, report
        self._clock, self._random, self._provider = clock, random, provider
        self._settings: dict[str, DnsSettings] = {}
        self._reconcilers: dict[str, Reconciler] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def configure(self, settings: Iterable[DnsSettings]) -> None:
        """Keep these names from now on; those whose settings stay go on undisturbed."""
        wanted = {one.service: one for one in settings}
        for name, before in list(self._settings.items()):
            if wanted.get(name) != before:
                self._close(name)
        for name, one in wanted.items():
            if name not in self._settings:
                self._open(one)

    def poke(self, service: str | None = None) -> None:
        """Look whether something else is wanted now: at one service's name, or at all."""
        for name, reconciler in self._reconcilers.items():
            if service in (None, name):
                reconciler.poke()

    def address_of(self, service: str) -> str | None:
        """Give the URL of a service's public name."""
        settings = self._settings.get(service)
        return None if settings is None else f"https://{settings.name}/"

    async def close(self) -> None:
        """Stop; what is under way is cut off, which it survives."""
        tasks = list(self._tasks.values())
        for name in list(self._settings):
            self._close(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _open(self, settings: DnsSettings) -> None:
        name = settings.service
        provider = self._provider(settings)
        reconciler = Reconciler(
            settings,
            provider,
            state=self._state_of(name),
            report=self._report,
            clock=self._clock,
            random=self._random,
            would=lambda text: log.info("would_publish", service=name, text=text),
        )
        self._settings[name], self._reconcilers[name] = settings, reconciler
        self._tasks[name] = asyncio.create_task(_keep(reconciler, provider), name=f"dns:{name}")

    def _close(self, name: str) -> None:
        del self._settings[name], self._reconcilers[name]
        self._tasks.pop(name).cancel()

    def _state_of(self, name: str) -> State:
        def state() -> tuple[ServiceState | None, bool]:
            fleet = self._fleet()
            world = fleet.world
            frozen = fleet.config.shadow or world.paused_since is not None
            return fleet.services.get(name), frozen or world.isolated_since is not None

        return state


async def _keep(reconciler: Reconciler, provider: Provider) -> None:
    """Reconcile until cancelled, and let go of the provider then."""
    try:
        await reconciler.run()
    finally:
        await provider.close()
