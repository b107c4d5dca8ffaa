"""Meters: what runs out, how much of it is left, and when it will be gone.

`core/ledger.py` changes them. `wall` is in Unix seconds, and says which period something is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.months import Month
from orchestrator.core.windows import (
    EVER,
    FOREVER,
    LENGTHS_S,
    Per,
    Window,
    counts_until,
)

BLOCK_S = 900.0  # how long one block of what is paid by time lasts
SHARE = 50  # one block of what is counted is the limit divided by this
UNLIMITED = {"requests": 100.0, "tokens": 10_000.0, "bytes": 10_000_000.0}
LEAD_S = 300.0  # it is spent this long before its last second: time to leave and to stop it
LEAD_SHARE = 0.05  # … but never more than this much of it
LOOK_S = 10.0  # … nor less than passes until that is noticed and it is off, of a budget of minutes
AGAIN_SHARE = 0.1  # what was spent is of use again when this much of it, or …
AGAIN_S = 3600.0  # … this much time is left
LOW, VERY_LOW = 80, 95
EGRESS = "aion:egress"  # the key of what we send ourselves
TUNNEL = "tunnel"  # the keys of requests through a tunnel whose host counts them end with this
KEEPALIVE = "keepalive"  # … and those of requests that keep a host awake with this
FORESEEN_S = 366 * 86400.0  # nobody knows what will be after that
SAME = 1e-9  # shares of the limit that are no difference


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

    `limit` None: it is counted and never spent. `backend` None: it is nobody's but ours.
    `rate_per_hour`: what an hour of being on costs, in `unit`; None for what is counted one by one.
    `block`: how much is reserved ahead, in `unit`; 0: a quarter of an hour, or a part of the limit.
    `advisory`: being spent is told, but bars nobody. `zone`: of the receipts' months.
    """

    key: str
    unit: Unit
    limit: float | None
    window: Window = EVER
    backend: str | None = None
    rate_per_hour: float | None = None
    block: float = 0.0
    advisory: bool = False
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Slot:
    """An amount that counts as used until that time by the wall clock."""

    until: float
    amount: float


@dataclass(frozen=True, slots=True)
class Block:
    """What is reserved and not settled.

    `used` of `amount` is known to be spent, of what is paid by time: since `opened_at` (steady).
    `until`: the end of the period (wall) in which it was opened.
    """

    amount: float
    used: float = 0.0
    opened_at: float = 0.0
    until: float = FOREVER


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure that is not believed yet, and since when (steady) it has been so."""

    figure: float
    at: float


@dataclass(frozen=True, slots=True)
class MeterState:
    """What is known of one meter; `slots` by their end, the last one is spent into.

    `paid_until`: steady time up to which being on is accounted for. `low`: the provider says less
    than we counted. `told_at`: when the provider last gave a figure (wall). `out`: it is spent, and
    of no use before a good part of it is back. `paces`: what was spent lately, for the forecast;
    there `until` is the start of its part of the time. `offset`: the wall clock
    less the steady one, as believed; `strange`: another one that it shows since then (steady).
    `unsaved`: what a start made of it is not stored yet. `months`: what each of the last ones took.
    """

    key: str
    slots: tuple[Slot, ...] = ()
    block: Block | None = None
    paid_until: float = 0.0
    low: Reading | None = None
    told_at: float | None = None
    out: bool = False
    paces: tuple[Slot, ...] = ()
    offset: float | None = None
    strange: Reading | None = None
    unsaved: bool = False
    months: tuple[Month, ...] = ()


# ── events, as `core.events` knows them ───────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Spent:
    """The edge counted this use since it last said so: meters with their amounts."""

    amounts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class ProviderSaid:
    """A provider said how much of a meter is used."""

    key: str
    figure: float


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


def spent(state: MeterState, wall: float) -> float:
    """Say how much is settled as used."""
    return sum(slot.amount for slot in state.slots if slot.until > wall)


def used(state: MeterState, wall: float) -> float:
    """Say how much is known to be used, the used part of an open block included."""
    return spent(state, wall) + (state.block.used if state.block is not None else 0.0)


def reserved(state: MeterState) -> float:
    """Say how much is reserved and not used."""
    return max(0.0, state.block.amount - state.block.used) if state.block is not None else 0.0


def limit_at(spec: MeterSpec, wall: float) -> float | None:
    """Say how much there is at that time: nothing any more once it has expired."""
    expires_at = spec.window.expires_at
    return 0.0 if expires_at is not None and wall >= expires_at else spec.limit


def left(state: MeterState, spec: MeterSpec, wall: float) -> float | None:
    """Say how much is neither used nor reserved; None without a limit."""
    limit = limit_at(spec, wall)
    return None if limit is None else max(0.0, limit - used(state, wall) - reserved(state))


def usable(state: MeterState, spec: MeterSpec, wall: float) -> float | None:
    """Say how much can still be used, what is reserved included; None without a limit."""
    limit = limit_at(spec, wall)
    return None if limit is None else max(0.0, limit - used(state, wall))


def block_of(spec: MeterSpec) -> float:
    """Say how much is reserved at once."""
    if spec.block > 0:
        return spec.block
    if spec.rate_per_hour is not None:
        return spec.rate_per_hour * BLOCK_S / 3600
    if spec.limit is None:
        return UNLIMITED.get(spec.unit.value, 1.0)
    return max(1.0, float(round(spec.limit / SHARE)))


def _lead(spec: MeterSpec, limit: float) -> float:
    """Say with how little left it counts as spent; of what is counted, one must be left."""
    if spec.rate_per_hour is None:
        return min(1.0, limit) - SAME
    needed = min(spec.rate_per_hour * LOOK_S / 3600, limit / 2)
    return max(needed, min(spec.rate_per_hour * LEAD_S / 3600, limit * LEAD_SHARE))


def _enough(spec: MeterSpec, limit: float) -> float:
    """Say how much must be left before what was spent is of use again."""
    if spec.rate_per_hour is None:
        return max(_lead(spec, limit), limit * AGAIN_SHARE)
    return max(_lead(spec, limit), min(limit * AGAIN_SHARE, spec.rate_per_hour * AGAIN_S / 3600))


def exhausted_until(state: MeterState, spec: MeterSpec, wall: float) -> float | None:
    """Say until when (wall) nothing can be used; None if something can. FOREVER: for good."""
    rest, limit = usable(state, spec, wall), limit_at(spec, wall)
    if rest is None or limit is None:
        return None
    need = _enough(spec, limit) if state.out else _lead(spec, limit)
    if limit > 0 and rest > need:
        return None
    if limit <= 0:
        return FOREVER
    need = _enough(spec, limit)
    over = used(state, wall)
    for slot in sorted(state.slots, key=lambda slot: slot.until):
        if slot.until > wall:
            over -= slot.amount
            if limit - over > need:
                return slot.until
    return counts_until(spec.window, wall)  # what is used of the open block goes there


def level(state: MeterState, spec: MeterSpec, wall: float) -> int:
    """Say how serious it is: 0, 80, 95 or 100 (spent), in percent of the limit."""
    limit = limit_at(spec, wall)
    if limit is None:
        return 0
    if state.out or exhausted_until(state, spec, wall) is not None:
        return 100
    percent = 100 * used(state, wall) / limit
    return VERY_LOW if percent >= VERY_LOW else LOW if percent >= LOW else 0


# ── forecast ────────────────────────────────────────────────────────────────────────────────────


def horizon_s(spec: MeterSpec) -> float:
    """Say how far back the learned rate looks: a day for a week, three days for a month."""
    length_s = LENGTHS_S.get(spec.window.per, LENGTHS_S[Per.MONTH])
    return length_s / 10 if length_s > LENGTHS_S[Per.WEEK] else length_s / 7


def learned_per_hour(state: MeterState, spec: MeterSpec, wall: float) -> float:
    """Say what an hour took lately, on average over on and off."""
    back_s = horizon_s(spec)
    lately = sum(part.amount for part in state.paces if part.until > wall - back_s)
    inside = state.block.used if state.block is not None else 0.0
    return (lately + inside) * 3600 / back_s


def forecast(state: MeterState, spec: MeterSpec, wall: float) -> float | None:
    """Say when (wall) it runs out: if it stays on, or at the rate learned; None: not foreseen."""
    rate = learned_per_hour(state, spec, wall)
    if spec.rate_per_hour is not None and state.block is not None:
        rate = max(rate, spec.rate_per_hour)
    return _gone(state, spec, wall, rate)


def short(state: MeterState, spec: MeterSpec, wall: float, factor: float = 1.0) -> float | None:
    """Say when (wall) it runs out at the learned rate, if that is before more of it comes.

    `factor`: more than 1: say so even if it would last that many times as long.
    """
    gone = _gone(state, spec, wall, learned_per_hour(state, spec, wall))
    ends_at = starts_again(spec, wall)
    if gone is None or ends_at is None:
        return None
    return gone if gone - wall < (ends_at - wall) * factor else None


def starts_again(spec: MeterSpec, wall: float) -> float | None:
    """Say until when (wall) what is left has to last; None: there is no such time."""
    if spec.window.expires_at is not None:
        return spec.window.expires_at
    if spec.window.per is Per.EVER:
        return None
    if spec.window.rolling:
        return wall + LENGTHS_S[spec.window.per]
    return counts_until(spec.window, wall)


def _gone(state: MeterState, spec: MeterSpec, wall: float, rate: float) -> float | None:
    rest = usable(state, spec, wall)
    if rest is None or rate <= 0:
        return None
    left_s = rest / rate * 3600
    return wall + left_s if left_s < FORESEEN_S else None
