"""Looks at a backend that its provider places: where a start put it, or where its session is.

For kinds that are started and stopped; the driver of each holds one of these and does its own
powering.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import Field, field_validator, model_validator

from backends import notebook, static
from backends.base import Credential, Plan, Ports
from orchestrator.core.model import Observation, Source, Verdict

SCHEMES: Final = ("http", "https", "tcp")


class Options(notebook.Options):
    """Where the engine is found, and what opens it: nothing of this is the provider's.

    The keys of a notebook count where it `registers`, those of a static backend elsewhere.
    """

    registers: bool = False
    """It carries the agent and registers itself; its address comes with its session."""
    url: str | None = None
    """Its address; absent: it registers, or its provider gives one."""
    key: Credential | None = None
    """Sent to the engine as `Authorization: Bearer …` with each request."""
    headers: dict[str, str | Credential] = Field(default={})
    """More headers, each a text or a credential."""
    check: static.Check = static.Check()
    """For the engine `http`."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        return None if url is None else static.address(url, SCHEMES)

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Options:
        if self.registers and self.url is not None:
            raise ValueError("its address comes with its session or from `url`, not from both")
        return self


class Placed:
    """Does what `backends.base.Registered` says, for a plan whose options are of `Options`.

    `plan.address`, which the provider gave, goes before the configured one. `nowhere`: what a probe
    says while there is no address.
    """

    def __init__(self, plan: Plan, ports: Ports, nowhere: str) -> None:
        self._name, self._nowhere = plan.backend.name, nowhere
        self._looks: static.Driver | notebook.Driver | None = None
        url = plan.address or plan.options.url
        if plan.options.registers:
            self._looks = notebook.Driver(plan, ports)
        elif url:
            options = plan.options.model_copy(update={"url": url})
            self._looks = static.Driver(replace(plan, options=options), ports)

    async def probe(self) -> Observation:
        if self._looks is None:
            return Observation(self._name, Source.PROBE, Verdict.FAILED, self._nowhere)
        return await self._looks.probe()

    async def canary(self) -> Observation | None:
        return None if self._looks is None else await self._looks.canary()

    async def identify(self, nonce: str) -> str:
        """Do as `backends.base.Registered` says."""
        if isinstance(self._looks, notebook.Driver):
            return await self._looks.identify(nonce)
        return "it does not register"


def address(value: object) -> str:
    """Read an address that a provider gave; "" for what is none."""
    if not isinstance(value, str):
        return ""
    try:
        return static.address(value, SCHEMES)
    except ValueError:
        return ""
