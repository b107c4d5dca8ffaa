"""Meters in the fleet: who is on, what is counted, whose quota is spent.

Looked at every few seconds; written only when a block is opened or closed, minutes apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from orchestrator.core import ledger, months
from orchestrator.core.draft import Draft
from orchestrator.core.durations import spoken
from orchestrator.core.lives import Do, PowerPhase
from orchestrator.core.meters import (
    LOW,
    MeterSpec,
    MeterState,
    ProviderSaid,
    Spent,
    Unit,
    exhausted_until,
    level,
    short,
    starts_again,
    usable,
    used,
)
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.core.orders import order
from orchestrator.core.specs import FleetConfig
from orchestrator.core.windows import Per

LONG_S = 60.0  # a changed end of a quota is worth a line if it changed by more than this
HALF = 0.5  # a forecast is worth a warning when this share is used
CALM = 1.25  # and is over when it would last this much longer
SPENT = 100
KILO = 1000
FOR_GOOD_S = 10 * 366 * 86400.0  # what comes back later than this does not come back
KINDS = ("meter_low", "meter_spent")
BRIEF = (Per.MINUTE, Per.HOUR)  # these start again before anybody has read of it


def watch(draft: Draft) -> None:
    """Let every meter run on; say whose quota is spent, and what is low."""
    specs = draft.config.meters.values()
    for spec in specs:
        state = _of(draft, spec.key)
        timed = ledger.timed(state, draft.at, draft.now.wall)
        wall = ledger.believed(timed, draft.at, draft.now.wall)
        since = _since(draft, spec, state)
        _put(draft, spec, ledger.ran(timed, spec, since, draft.at, wall))
    _bar_all(draft, specs)


def _bar_owners(draft: Draft, keys: Iterable[str]) -> None:
    specs = draft.config.meters
    owners = {specs[key].backend for key in keys if key in specs and not specs[key].advisory}
    if owners:
        _bar_all(draft, [spec for spec in specs.values() if spec.backend in owners])


def _bar_all(draft: Draft, specs: Iterable[MeterSpec]) -> None:
    owned: dict[str, list[MeterSpec]] = {}
    for spec in specs:
        if spec.backend is not None:
            owned.setdefault(spec.backend, []).append(spec)
    for name, mine in owned.items():
        _bar(draft, name, mine)


def spent(draft: Draft, event: Spent) -> None:
    """Take into account what the edge counted."""
    for key, amount in event.amounts:
        spec = draft.config.meters.get(key)
        if spec is None or amount <= 0:
            continue
        state = _of(draft, key)
        wall = ledger.believed(state, draft.at, draft.now.wall)
        _put(draft, spec, ledger.count(state, spec, amount, draft.at, wall))
    _bar_owners(draft, [key for key, _ in event.amounts])


def provider_said(draft: Draft, event: ProviderSaid) -> None:
    """Take a provider's figure of what is used into account."""
    spec = draft.config.meters.get(event.key)
    if spec is None:
        return
    state = _of(draft, event.key)
    wall = ledger.believed(state, draft.at, draft.now.wall)
    _put(draft, spec, ledger.told(state, spec, event.figure, draft.at, wall))
    _bar_owners(draft, [event.key])


def slept(draft: Draft, seconds: float) -> None:
    """Note that the machine was suspended while others went on."""
    for key, state in draft.fleet.meters.items():
        draft.meters[key] = ledger.slept(draft.meters.get(key) or state, seconds)
        draft.durable = True


def reconfigured(draft: Draft) -> None:
    """Close the books of meters that are gone, and lift what they barred; open those that are new.

    The books are kept: what is written back into the file has used what it had used, and a month's
    receipt stays whole.
    """
    old, new = draft.fleet.config.meters, draft.config.meters
    for key in draft.fleet.meters.keys() - new.keys():
        state = _closed(draft, old[key]) if key in old else _of(draft, key)
        draft.meters[key] = state if months.lately(state.months, draft.now.wall) else None
        draft.durable = True
    for key in (new.keys() - old.keys()) & draft.fleet.meters.keys():
        draft.meters[key] = _reopened(draft, new[key])
    for key in {**draft.fleet.meters, **new}:
        draft.stirred[key] = None
    _bar_all(draft, new.values())
    for name in _owners(draft.fleet.config) - _owners(draft.config):
        if draft.backends.get(name, draft.fleet.backends.get(name)) is not None:
            _bar(draft, name, ())


def _closed(draft: Draft, spec: MeterSpec) -> MeterState:
    """Spend what is reserved of a meter that is paid by time: what is on is only being stopped."""
    state = _of(draft, spec.key)
    wall = ledger.believed(state, draft.at, draft.now.wall)
    if spec.rate_per_hour is None:
        return ledger.settle(state, spec, wall)
    return ledger.forfeit(state, spec, wall, at=draft.at)


def _reopened(draft: Draft, spec: MeterSpec) -> MeterState:
    """Take up books of long ago; what was left open when the daemon last ended is forfeited."""
    state = replace(_of(draft, spec.key), offset=None, strange=None)
    state = ledger.timed(state, draft.at, draft.now.wall)
    return ledger.forfeit(state, spec, draft.now.wall, at=draft.at)


def resumed(fleet: Fleet, now: Now) -> None:
    """At a start: what the last life left open is forfeited, what was on meanwhile is paid for."""
    for key, spec in fleet.config.meters.items():
        state = ledger.timed(fleet.meters.get(key) or MeterState(key), now.at, now.wall)
        backend = fleet.backends.get(spec.backend or "")
        since, until = None, now.at
        if backend is not None and key in fleet.meters:
            since = on_since(fleet.config, backend, state, now.at)
            if backend.session is not None and backend.session.ends_at is not None:
                until = min(now.at, max(backend.session.ends_at, state.paid_until))
        wall = ledger.believed(state, now.at, now.wall)
        state = ledger.forfeit(state, spec, wall, at=until, on_since=since)
        fleet.meters[key] = replace(state, unsaved=True)
    for name in fleet.backends.keys() - _owners(fleet.config):
        if fleet.backends[name].exhausted_until is not None:
            fleet.backends[name] = replace(fleet.backends[name], exhausted_until=None)


def _owners(config: FleetConfig) -> set[str]:
    return {spec.backend for spec in config.meters.values() if spec.backend is not None}


# ── before a start ──────────────────────────────────────────────────────────────────────────────


def lacking(fleet: Fleet, name: str, now: Now) -> str:
    """Name the meter of this backend of which too little is left for a start; "" for none."""
    meters = fleet.meters
    return _lacking(fleet.config, lambda key: meters.get(key) or MeterState(key), name, now)


def _lacking(config: FleetConfig, of: Callable[[str], MeterState], name: str, now: Now) -> str:
    for spec in _timed(config.meters.values(), name):
        state = of(spec.key)
        wall = ledger.believed(state, now.at, now.wall)
        if ledger.first_block(state, spec, now.at, wall) is None:
            return spec.key
    return ""


def short_of(draft: Draft, name: str) -> str:
    """Name the meter of which too little is left for a start of this backend; "" for none."""
    return _lacking(draft.config, lambda key: _of(draft, key), name, draft.now)


def reserve_start(draft: Draft, name: str) -> float | None:
    """Set aside the first block of a start: it is stored with the start itself.

    Returns how long (seconds) what is left then lasts, that block included; None: no meter says.
    Where it does not fit nothing is set aside: ask `short_of` before.
    """
    lasts: list[float] = []
    for spec in _timed(draft.config.meters.values(), name):
        state = _of(draft, spec.key)
        wall = ledger.believed(state, draft.at, draft.now.wall)
        opened = ledger.first_block(state, spec, draft.at, wall)
        if opened is None:
            continue
        _put(draft, spec, opened)
        rest = usable(opened, spec, wall)
        if rest is not None and spec.rate_per_hour:
            lasts.append(rest / spec.rate_per_hour * 3600.0)
    return min(lasts, default=None)


def _timed(specs: Iterable[MeterSpec], name: str) -> Iterator[MeterSpec]:
    mine = (spec for spec in specs if spec.backend == name)
    return (spec for spec in mine if spec.rate_per_hour and not spec.advisory)


# ── whose quota is spent ────────────────────────────────────────────────────────────────────────


def _of(draft: Draft, key: str) -> MeterState:
    state = draft.meters.get(key) or draft.fleet.meters.get(key)
    return state or MeterState(key)


def _put(draft: Draft, spec: MeterSpec, state: MeterState) -> None:
    before = draft.fleet.meters.get(spec.key)
    state = replace(state, unsaved=False) if state.unsaved else state
    if state is not before:
        draft.meters[spec.key] = state
        draft.durable |= before is None or ledger.worth_storing(before, state)
    if _stirs(draft, spec.key):
        draft.stirred[spec.key] = None


def _since(draft: Draft, spec: MeterSpec, state: MeterState) -> float | None:
    known = spec.backend is not None and spec.backend in draft.fleet.backends
    if not known or spec.backend is None or spec.rate_per_hour is None:
        return None
    return on_since(draft.config, draft.backend(spec.backend), state, draft.at)


def on_since(
    config: FleetConfig, backend: BackendState, state: MeterState, at: float
) -> float | None:
    """Say since when (steady) a backend is on, None if it is off."""
    spec, power = config.backends[backend.name], backend.power
    if spec.powered and power is not None:
        if power.phase is PowerPhase.OFF:
            return None
        if power.phase is PowerPhase.UNKNOWN and state.block is None:
            return None
        return power.since
    session = backend.session or backend.pending
    if session is not None:
        return session.started_at
    return None if spec.registers or spec.powered else state.paid_until or at


def _bar(draft: Draft, name: str, specs: Collection[MeterSpec]) -> None:
    """Bar a backend while one of its meters is spent."""
    if name not in draft.fleet.backends:
        return
    ends = [_spent_until(draft, spec) for spec in specs if not spec.advisory]
    until = max((end for end in ends if end is not None), default=None)
    state = draft.backend(name)
    known = state.exhausted_until
    if until is None and known is None:
        return
    if until is not None and known is not None and abs(until - known) <= LONG_S:
        return
    draft.put_backend(replace(state, exhausted_until=until), durable=True)
    draft.touch(name)
    if until is None:
        draft.note("meter_back", name, f"{name} has something left to use again")
    elif known is None or known <= draft.at:
        left_s = until - draft.at
        back = "for good" if left_s > FOR_GOOD_S else f"for {spoken(left_s)}"
        draft.note("meter_spent", name, f"{name} has used up its quota, {back}")
        _end_spent(draft, name, specs)


def proved(draft: Draft, name: str) -> None:
    """Tell one that was started although its hours are used up, and serves since now, to stop."""
    session = draft.backend(name).session if name in draft.fleet.backends else None
    if session is not None and session.promoted_at == draft.at and session.ordered == 0:
        mine = [spec for spec in draft.config.meters.values() if spec.backend == name]
        _end_spent(draft, name, [spec for spec in mine if not spec.advisory])


def _end_spent(draft: Draft, name: str, specs: Iterable[MeterSpec]) -> None:
    if any(spec.rate_per_hour and _spent_until(draft, spec) is not None for spec in specs):
        _end(draft, name)


def _end(draft: Draft, name: str) -> None:
    """Have the agent of a backend that uses up its quota by being on save and stop it.

    What aion powers is stopped at its provider (`power.py`); nobody else can stop a notebook.
    """
    if not draft.config.backends[name].powered:
        for do in (Do.SAVE, Do.STOP):
            order(draft, name, do)


def _spent_until(draft: Draft, spec: MeterSpec) -> float | None:
    """Say until when (steady) a meter is spent, None if it is not."""
    state = _of(draft, spec.key)
    wall = ledger.believed(state, draft.at, draft.now.wall)
    until = exhausted_until(state, spec, wall)
    return None if until is None else draft.at + until - wall


# ── what the operator hears ─────────────────────────────────────────────────────────────────────


def wrongs(draft: Draft, key: str) -> dict[str, dict[str, str]]:
    """Say what is wrong with a meter: kinds of incident with their parameters."""
    spec = draft.config.meters.get(key)
    if spec is None or spec.limit is None or spec.window.per in BRIEF:
        return {}
    state = _of(draft, key)
    wall = ledger.believed(state, draft.at, draft.now.wall)
    percent = level(state, spec, wall)
    params = {"meter": key, "backend": spec.backend or "", "limit": shown(spec.unit, spec.limit)}
    if percent >= SPENT:
        until = _spent_until(draft, spec) if state.out else None
        moment = _moment(draft, f"meter_spent:{key}", until)
        return {"meter_spent": {**params, **moment}}
    if percent < LOW and used(state, wall) < HALF * spec.limit:
        return {}
    again = starts_again(spec, wall)
    at = None if again is None or spec.window.rolling else draft.at + again - wall
    params |= _moment(draft, f"meter_low:{key}", at)
    if percent >= LOW:
        return {"meter_low": {**params, "percent": str(percent)}}
    told = draft.incident(f"meter_low:{key}") is not None
    if short(state, spec, wall, CALM if told else 1.0) is None:
        return {}
    return {"meter_low": params}


def shown(unit: Unit, amount: float) -> str:
    """Write an amount as any language would."""
    if unit is Unit.HOURS:
        return f"{amount:.4g} h"
    if unit is Unit.USD:
        return f"${amount:.2f}".removesuffix(".00")
    if unit is Unit.BYTES:
        size, step = amount, iter(("B", "kB", "MB", "GB"))
        name = next(step)
        while size >= KILO and name != "GB":
            size, name = size / KILO, next(step)
        return f"{size:.3g} {name}" if size < KILO else f"{size:.0f} {name}"
    return f"{amount:.0f}"


def _moment(draft: Draft, incident: str, at: float | None) -> dict[str, str]:
    """Give a time as it was given before, if it is about the same: it is not told anew."""
    if at is None or at - draft.at > FOR_GOOD_S:
        return {}
    before = draft.incident(incident)
    said = before.params.get("until", "") if before is not None else ""
    if said and abs(float(said) - at) <= LONG_S:
        return {"until": said}
    return {"until": f"{at:.0f}"}


def _stirs(draft: Draft, key: str) -> bool:
    wanted = wrongs(draft, key)
    for kind in KINDS:
        found = draft.incident(f"{kind}:{key}")
        if wanted.get(kind) != (None if found is None else dict(found.params)):
            return True
    return False
