"""Meters: what runs out, how much of it is left, and when it will be gone.

Nothing is spent that was not reserved before: whoever is on, or sends requests, does so inside an
open block that already counts as used. A crash forfeits that block, so the books never show less
than was spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.windows import EVER, Window


class Unit(StrEnum):
    """What a meter counts."""

    HOURS = "hours"
    USD = "usd"
    REQUESTS = "requests"
    TOKENS = "tokens"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """Something that runs out.

    `limit` None: it is counted and never spent. `backend` None: it is nobody's but ours (egress).
    `rate_per_hour`: what an hour of being on costs, in `unit`; None for what is counted one by one.
    `block`: how much is reserved ahead, in `unit`; 0: chosen by the limit.
    """

    key: str
    unit: Unit
    limit: float | None
    window: Window = EVER
    backend: str | None = None
    rate_per_hour: float | None = None
    block: float = 0.0


@dataclass(frozen=True, slots=True)
class Slot:
    """An amount that counts as used until that time by the wall clock."""

    until: float
    amount: float


@dataclass(frozen=True, slots=True)
class Block:
    """What is reserved and not settled.

    `used` of `amount` is known to be spent. `opened_at`: steady seconds. `paid_until`: time that
    this block, or a forfeited one before it, has paid for. `until`: when whatever spends it ends by
    itself at the latest, if that is known.
    """

    amount: float
    used: float = 0.0
    opened_at: float = 0.0
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A provider's figure that is lower than ours, and since when (wall) it has said so."""

    figure: float
    at: float


@dataclass(frozen=True, slots=True)
class MeterState:
    """What is known of one meter; `slots` by their end, the last one is spent into.

    `paid_until`: steady time up to which a forfeited block has paid. `low`: the provider says less
    than we counted; believed when it still does so an hour later with no use since. `told_at`: when
    the provider last gave a figure (wall). `pace`: amounts spent in the last hours, as slots, for
    the forecast.
    """

    key: str
    slots: tuple[Slot, ...] = ()
    block: Block | None = None
    paid_until: float = 0.0
    low: Reading | None = None
    told_at: float | None = None
    told_reset: float | None = None
    pace: tuple[Slot, ...] = ()
