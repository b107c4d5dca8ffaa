"""Writing into meters: reserve before spending, settle after.

Nothing is spent that was not reserved before: whoever is on, or sends requests, does so inside an
open block that already counts. A crash forfeits that block, so that the books never show less than
was spent. `at` is in steady seconds and measures how long something was on; `wall` is in Unix
seconds and says which period it belongs to.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.meters import (
    SAME,
    Block,
    MeterSpec,
    MeterState,
    Reading,
    Slot,
    Unit,
    block_of,
    exhausted_until,
    horizon_s,
    left,
    limit_at,
    reserved,
    used,
)
from orchestrator.core.months import said, took
from orchestrator.core.windows import FOREVER, begins, counts_until

KEPT_S = 3600.0  # what ended is remembered this long, should the wall clock go back
BOOKED_S = 26 * 3600.0  # what is said of money is up to a day old
BELIEVED_S = 3600.0  # what may be a mistake is believed when it stands this long
STEP_S = 30.0  # the wall clock was put forward or back if it moved by more than this
DRIFT_S = 1.0
START_SHARE = 0.25  # of a limit that is smaller than four blocks
PACES = 12  # the learned rate is kept in this many parts


def rolled(state: MeterState, spec: MeterSpec, wall: float) -> MeterState:
    """Forget what no longer counts, an hour late: a clock that goes back must find it again."""
    slots = tuple(slot for slot in state.slots if slot.until + KEPT_S > wall)
    oldest = wall - horizon_s(spec) * (1 + 1 / PACES)
    paces = tuple(part for part in state.paces if part.until > oldest)
    if len(slots) == len(state.slots) and len(paces) == len(state.paces):
        return state
    return replace(state, slots=slots, paces=paces)


def timed(state: MeterState, at: float, wall: float) -> MeterState:
    """Look at the clocks. A step of the wall clock is believed when it stands for an hour.

    Until then it may be put right again; and a period that ended too early would have given
    everything twice.
    """
    offset = wall - at
    known = offset if state.offset is None else state.offset
    if abs(offset - known) <= STEP_S:
        if state.strange is None and state.offset is not None and abs(offset - known) < DRIFT_S:
            return state
        return replace(state, offset=offset, strange=None)
    strange = state.strange
    if strange is None or abs(offset - strange.figure) > STEP_S or at < strange.at:
        return replace(state, strange=Reading(offset, at))
    if at - strange.at < BELIEVED_S:
        return state
    return replace(state, offset=offset, strange=None)


def believed(state: MeterState, at: float, wall: float) -> float:
    """Say what the wall clock shows as far as it is believed."""
    if state.offset is None or abs(wall - at - state.offset) <= STEP_S:
        return wall
    return at + state.offset


def slept(state: MeterState, seconds: float) -> MeterState:
    """Note that steady time stood still for so long while others went on."""
    block = state.block
    if block is not None:
        block = replace(block, opened_at=block.opened_at - seconds)
    offset = None if state.offset is None else state.offset + seconds
    paid_until = max(0.0, state.paid_until - seconds)
    return replace(state, block=block, paid_until=paid_until, offset=offset)


def _spend(
    state: MeterState, spec: MeterSpec, amount: float, wall: float, until: float | None = None
) -> MeterState:
    """Settle an amount in the period around `wall`, or in the one that ends at `until`.

    Never in an older one than was spent into before: then the clock went back, and what is spent
    while it is wrong must still count when it is right again.
    """
    if amount <= 0:
        return state
    ends = counts_until(spec.window, wall) if until is None else until
    if until is None and state.slots:
        ends = max(ends, state.slots[-1].until)
    totals = {slot.until: slot.amount for slot in state.slots}
    totals[ends] = totals.get(ends, 0.0) + amount
    slots = tuple(Slot(end, totals[end]) for end in sorted(totals))
    return replace(state, slots=slots, paces=_paced(state, spec, amount, wall), low=None)


def _noted(state: MeterState, spec: MeterSpec, amount: float, wall: float) -> MeterState:
    """Note for the month's receipt what we counted until then."""
    if amount <= 0:
        return state
    over_s = amount * 3600 / spec.rate_per_hour if spec.rate_per_hour else 0.0
    months = took(state.months, spec.zone, wall, counted=amount, over_s=over_s)
    return replace(state, months=months)


def _corrected(state: MeterState, spec: MeterSpec, by: float, wall: float) -> MeterState:
    """Note for the month's receipt what a provider's figure changed."""
    return replace(state, months=took(state.months, spec.zone, wall, corrected=by))


def _paced(state: MeterState, spec: MeterSpec, amount: float, wall: float) -> tuple[Slot, ...]:
    part_s = horizon_s(spec) / PACES
    start = wall // part_s * part_s
    if state.paces and state.paces[-1].until >= start:
        last = state.paces[-1]
        return (*state.paces[:-1], Slot(last.until, last.amount + amount))
    return (*state.paces, Slot(start, amount))


def reserve(
    state: MeterState, spec: MeterSpec, amount: float, at: float, wall: float
) -> MeterState | None:
    """Open a block; None when one is open, or it does not fit."""
    if state.block is not None or amount <= 0:
        return None
    rest = left(state, spec, wall)
    if rest is not None and amount > rest:
        return None
    ends = counts_until(spec.window, wall)
    block = Block(amount, opened_at=at, until=FOREVER if spec.window.rolling else ends)
    return replace(state, block=block, low=None)


def first_block(state: MeterState, spec: MeterSpec, at: float, wall: float) -> MeterState | None:
    """Reserve what a start needs before anybody is asked for it; None: so much is not left.

    A block that is still open is closed, and paid for until now. Of a small limit a quarter does.
    """
    limit = limit_at(spec, wall)
    size = block_of(spec) if limit is None else min(block_of(spec), limit * START_SHARE)
    return reserve(ran(state, spec, None, at, wall), spec, size, at, wall)


def settle(state: MeterState, spec: MeterSpec, wall: float) -> MeterState:
    """Close the open block: what was used of it is spent, the rest is free again."""
    block = state.block
    if block is None:
        return state
    before_reset = block.until if block.until <= wall else None
    closed = _spend(_noted(state, spec, block.used, wall), spec, block.used, wall, before_reset)
    return replace(closed, block=None, paid_until=max(state.paid_until, _accounted(spec, block)))


def forfeit(
    state: MeterState,
    spec: MeterSpec,
    wall: float,
    *,
    at: float,
    on_since: float | None = None,
) -> MeterState:
    """Close the block that a crash left open: all of it is spent.

    What is paid by time and was on until `at` has cost at least that, block or no block. A low
    figure of the provider must stand for an hour in which we were there.
    """
    block, state = state.block, replace(state, low=None, block=None)
    amount, since = 0.0, state.paid_until
    if block is not None:
        amount, since = max(block.amount, block.used), block.opened_at
    if on_since is not None and spec.rate_per_hour is not None:
        if block is None:
            since = max(since, on_since)
        amount = max(amount, spec.rate_per_hour * max(0.0, at - since) / 3600)
    if amount <= 0:
        return state
    accounted = _accounted(spec, Block(amount, used=amount, opened_at=since))
    closed = _spread(state, spec, amount, wall, max(0.0, accounted - at))
    return replace(closed, paid_until=max(state.paid_until, accounted))


def _spread(
    state: MeterState, spec: MeterSpec, amount: float, wall: float, ahead_s: float = 0.0
) -> MeterState:
    """Settle what was used until now; this period cannot have seen more than its own time's.

    `ahead_s`: of which so much time is still to come.
    """
    state, began = _noted(state, spec, amount, wall), begins(spec.window, wall)
    if spec.rate_per_hour is None or began is None or spec.window.rolling:
        return _spend(state, spec, amount, wall)
    recent = min(amount, spec.rate_per_hour * (wall - began + ahead_s) / 3600)
    state = _spend(state, spec, amount - recent, wall, began)
    return _spend(state, spec, recent, wall)


def _accounted(spec: MeterSpec, block: Block) -> float:
    """Say up to when (steady) this block pays for being on."""
    if not spec.rate_per_hour:
        return block.opened_at
    return block.opened_at + block.used * 3600 / spec.rate_per_hour


def count(state: MeterState, spec: MeterSpec, amount: float, at: float, wall: float) -> MeterState:
    """Take use that was counted one by one into account, and reserve anew where that is due."""
    state = _renewed(state, spec, at, wall)
    block = state.block
    if block is not None and block.used + amount <= block.amount:
        used_more = replace(block, used=block.used + amount)
        return replace(state, block=used_more, low=None)
    state = _noted(settle(state, spec, wall), spec, amount, wall)
    return _renewed(_spend(state, spec, amount, wall), spec, at, wall)


def _renewed(state: MeterState, spec: MeterSpec, at: float, wall: float) -> MeterState:
    """Have a block open if anything is left, and none that belongs to a period that is over."""
    if state.block is not None and (state.block.until <= wall or reserved(state) <= 0):
        state = settle(state, spec, wall)
    if state.block is not None:
        return state
    rest = left(state, spec, wall)
    amount = block_of(spec) if rest is None else min(block_of(spec), rest)
    return reserve(state, spec, amount, at, wall) or state


def ran(
    state: MeterState, spec: MeterSpec, on_since: float | None, at: float, wall: float
) -> MeterState:
    """Let time pass: pay for being on, block by block; `on_since` None: it is off.

    What is counted one by one has a block open all the time. Time that nobody accounted for, while
    the daemon was away, is paid when it is known that it was on all along.
    """
    state = rolled(state, spec, wall)
    if spec.rate_per_hour is None:
        state = _renewed(state, spec, at, wall)
    elif spec.rate_per_hour > 0:
        state = _paid(state, spec, on_since, at, wall)
    return _judged(state, spec, wall)


def _paid(
    state: MeterState, spec: MeterSpec, on_since: float | None, at: float, wall: float
) -> MeterState:
    rate = spec.rate_per_hour or 0.0
    block = state.block
    if block is not None:
        if block.until <= wall:  # the period ended: what it paid for before belongs there
            state = settle(state, spec, wall)
            if on_since is None:
                owed = rate * max(0.0, at - state.paid_until) / 3600
                return replace(_spread(state, spec, owed, wall), paid_until=at)
        else:
            so_far = max(block.used, rate * (at - block.opened_at) / 3600)
            state = replace(state, block=replace(block, used=so_far))
            if on_since is not None and so_far < block.amount:
                return state
            state = settle(state, spec, wall)
    if on_since is None:
        return state
    since = max(on_since, state.paid_until)
    if since >= at and state.paid_until > at:
        return state  # a forfeited block has paid for this
    return _ahead(state, spec, min(since, at), at, wall)


def _ahead(state: MeterState, spec: MeterSpec, since: float, at: float, wall: float) -> MeterState:
    """Pay for what was on since then, and reserve for what comes; or only pay, if none is left."""
    rate, size = spec.rate_per_hour or 0.0, block_of(spec)
    owed = rate * (at - since) / 3600
    if owed >= size:
        state = replace(_spread(state, spec, owed, wall), paid_until=at)
        since, owed = at, 0.0
    rest = left(state, spec, wall)
    amount = size if rest is None else min(size, rest)
    if amount <= owed:
        return state  # it is on without anything left: paid for once it is worth a line
    opened = reserve(state, spec, amount, since, wall)
    if opened is None or opened.block is None:
        return state
    return replace(opened, block=replace(opened.block, used=owed))


def told(state: MeterState, spec: MeterSpec, figure: float, at: float, wall: float) -> MeterState:
    """Take the provider's figure of what is used.

    More than we know of is believed at once. Less is believed only when it stands for an hour, of
    money for a day, in which nothing was used: figures lag, and jump back.
    """
    state = replace(rolled(state, spec, wall), told_at=wall)
    known = used(state, wall)
    state = replace(state, months=said(state.months, spec.zone, wall, figure, known))
    slack = SAME * max(1.0, spec.limit or 1.0)
    if figure >= known - slack:
        if figure > known + slack:
            state = _corrected(state, spec, figure - known, wall)
        return _judged(_spend(replace(state, low=None), spec, figure - known, wall), spec, wall)
    if state.block is not None and spec.rate_per_hour is not None:
        return replace(state, low=None)  # it is in use
    low = state.low
    if low is None or figure > low.figure + slack or at < low.at:
        return replace(state, low=Reading(figure, at))
    if at - low.at < (BOOKED_S if spec.unit is Unit.USD else BELIEVED_S):
        return state
    state = _corrected(settle(state, spec, wall), spec, low.figure - known, wall)
    return _judged(_lowered(state, known - low.figure, wall), spec, wall)


def _lowered(state: MeterState, by: float, wall: float) -> MeterState:
    """Take back so much, first what would be forgotten first."""
    slots: list[Slot] = []
    for slot in state.slots:
        taken = min(slot.amount, by) if slot.until > wall else 0.0
        by -= taken
        if slot.amount > taken:
            slots.append(Slot(slot.until, slot.amount - taken))
    return replace(state, slots=tuple(slots), low=None)


def _judged(state: MeterState, spec: MeterSpec, wall: float) -> MeterState:
    out = exhausted_until(state, spec, wall) is not None
    return state if out is state.out else replace(state, out=out)


def worth_storing(before: MeterState, after: MeterState) -> bool:
    """Say whether a change must survive: all but what is used of an open block, and when."""
    if before is after:
        return False
    return _lasting(before) != _lasting(after)


def _lasting(state: MeterState) -> tuple[object, ...]:
    block = state.block
    opened = None if block is None else (block.amount, block.opened_at, block.until)
    believed_not = (state.low, state.strange)
    told = tuple((one.name, one.said) for one in state.months)
    return state.slots, opened, state.paid_until, state.out, state.unsaved, believed_not, told
