"""Asks Google Compute Engine, in a process of its own: how it is, start, stop, and for doctor.

In: `{"do": "status" | "start" | "stop" | "checks", "project", "places": [[zone, instance]],
"template", "prefix", "account", "api", …}`. Out: what `backends.gce` makes a report of. It knows
how far it got: LOST is said only where something was sent that may have been done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from backends import gce_past
from backends.gce_client import SETTLE_S, Compute, machine
from backends.gce_words import (
    ENDED,
    LABEL,
    LABEL_MOST,
    TRIAL,
    Machine,
    Trouble,
    gpu_quota,
    is_label,
    limit_s,
    number,
    ours,
    region_of,
    worst,
)
from orchestrator.childside import serve
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Snag

AT_ONCE_S: Final = 40.0
ALL_S: Final = 150.0
"""How long it is waited for a start to fail at once: in one place, and in all together."""
SETTLED: Final = (PowerPhase.ON, PowerPhase.OFF)
Said = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked, as it came."""

    project: str
    places: list[tuple[str, str]]
    template: str
    prefix: str
    launch: str
    max_run_s: float | None
    spot: bool
    scheme: str
    port: int
    address: str
    curious: bool
    last: str
    now: float
    at_once_s: float


def main(payload: dict[str, Any]) -> Said:
    """Carry out one payload."""
    wish = Wish(
        payload["project"],
        [(zone, name) for zone, name in payload["places"]],
        payload.get("template", ""),
        payload.get("prefix", ""),
        payload.get("launch", ""),
        payload.get("max_run_s"),
        payload.get("spot", False),
        payload.get("scheme", "http"),
        payload.get("port", 0),
        payload.get("address", "external"),
        payload.get("curious", True),
        payload.get("last", ""),
        payload.get("now", 0.0),
        payload.get("at_once_s", AT_ONCE_S),
    )
    try:
        account, settle_s = payload.get("account", ""), min(SETTLE_S, wish.at_once_s)
        cloud = Compute(wish.project, account, payload["api"], settle_s)
        return VERBS[payload["do"]](cloud, wish)
    except Trouble as trouble:
        return _trouble(trouble)


def _trouble(trouble: Trouble) -> Said:
    return {
        "snag": trouble.snag.value,
        "detail": trouble.detail,
        "retry_after_s": trouble.retry_after_s,
    }


def _told(wish: Wish, one: Machine, phase: PowerPhase | None = None, detail: str = "") -> Said:
    url = one.url(wish.scheme, wish.port, wish.address) if wish.port else ""
    if wish.port and one.phase is PowerPhase.ON and not url:
        detail = detail or f"{one.zone}/{one.name} has no {wish.address} address"
    return {
        "phase": (phase or one.phase).value,
        "launch": one.launch,
        "address": url,
        "detail": detail or ("" if one.phase in SETTLED else f"its status is {one.status}"),
        "snag": Snag.NONE.value if one.phase is not PowerPhase.UNKNOWN else Snag.TRANSIENT.value,
    }


def _off(detail: str = "") -> Said:
    return {"phase": PowerPhase.OFF.value, "detail": detail}


# ── how it is ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at the configured places. `raw`: as Google describes it, by place."""

    machines: list[Machine]
    raw: dict[tuple[str, str], Any]
    missing: list[tuple[str, str]]
    unread: list[Trouble]

    def running(self, prefix: str, launch: str = "") -> Machine | None:
        """Give the one that costs money: that launch before ours before anybody's."""
        live = [one for one in self.machines if one.phase is not PowerPhase.OFF]
        mine = [one for one in live if launch and one.launch == launch]
        known = sorted(
            (one for one in live if ours(prefix, one.launch)),
            key=lambda one: number(one.launch),
            reverse=True,
        )
        return next(iter((*mine, *known, *live)), None)


def look(cloud: Compute, wish: Wish) -> Seen:
    """Read every place. What cannot be read in one of them is no reason not to look at the next."""
    seen = Seen([], {}, [], [])
    for zone, name in wish.places:
        try:
            if not name:
                found = cloud.labelled(zone)
                seen.machines.extend(one for one in found if ours(wish.prefix, one.launch))
                continue
            raw = cloud.instance(zone, name)
        except Trouble as trouble:
            if trouble.gone and name:
                seen.missing.append((zone, name))
            else:
                seen.unread.append(trouble)
            continue
        seen.raw[zone, name] = raw
        seen.machines.append(machine(zone, raw))
    return seen


def status(cloud: Compute, wish: Wish) -> Said:
    """Say how it is: OFF only if every place could be read."""
    seen = look(cloud, wish)
    one = seen.running(wish.prefix)
    if one is not None and (ours(wish.prefix, one.launch) or not seen.unread):
        others = [other for other in seen.machines if other.phase is PowerPhase.ON]
        also = ", ".join(f"{other.zone}/{other.name}" for other in others if other is not one)
        detail = f"there is another one: {also}" if also else ""
        if one.phase is PowerPhase.STOPPING:
            detail = _why(cloud, wish, one) or detail
        return _told(wish, one, detail=detail)
    if seen.unread:
        raise worst(seen.unread)
    if seen.missing and not seen.raw:
        names = ", ".join(f"{zone}/{name}" for zone, name in seen.missing)
        return _off(f"there is no instance {names} in {wish.project} (was it deleted?)")
    stopped = [one for one in seen.machines if ours(wish.prefix, one.launch)]
    if wish.template and wish.last and not stopped:  # it is gone, and only its operations are left
        stopped = gce_past.gone(wish.places, wish.last)
    reasons = [_let_go(cloud, wish, seen, one) for one in stopped]
    detail = next((reason for reason in reasons if reason), "")
    if any(one.status == "SUSPENDED" for one in seen.machines):
        detail = detail or "it is suspended: its memory and disks cost"
    return _off(detail)


def _why(cloud: Compute, wish: Wish, one: Machine) -> str:
    """Say by what it went off, where that is news."""
    if wish.curious:
        with contextlib.suppress(Trouble):
            done = cloud.last_operations(one.zone, cloud.link(one.zone, one.name))
            return gce_past.why_off(one.zone, done)
    return ""


def _let_go(cloud: Compute, wish: Wish, seen: Seen, one: Machine) -> str:
    """Say by what it went off, and let its label say so: a start by hand is none of ours then."""
    raw = seen.raw.get((one.zone, one.name))
    if raw is None:
        return _why(cloud, wish, one)
    with contextlib.suppress(Trouble):
        done = cloud.last_operations(one.zone, cloud.link(one.zone, one.name))
        if gce_past.is_over(raw, done):
            with contextlib.suppress(Trouble):
                cloud.ended(one.zone, raw)
        return gce_past.why_off(one.zone, done) if wish.curious else ""
    return ""


# ── start ───────────────────────────────────────────────────────────────────────────────────────


def start(cloud: Compute, wish: Wish) -> Said:
    """Start it in the first place that has room for it, unless it runs in one of them."""
    if not is_label(wish.launch):
        text = f"the label {wish.launch} is longer than {LABEL_MOST} characters: use shorter names"
        raise Trouble(Snag.DENIED, text)
    seen = look(cloud, wish)
    one = seen.running(wish.prefix, wish.launch)
    if one is not None:
        return _runs(wish, one)
    if seen.unread:  # it may run in the one that could not be read
        raise worst(seen.unread)
    if wish.template:
        return _create(cloud, wish, seen)
    if not seen.raw:
        names = ", ".join(f"{zone}/{name}" for zone, name in seen.missing)
        raise Trouble(Snag.DENIED, f"there is no instance {names} in {wish.project}")
    places = gce_past.by_room(cloud, wish.prefix, list(seen.raw), seen.raw, wish.now)
    return _first(places, lambda place: _wake(cloud, wish, seen.raw[place], *place))


def _runs(wish: Wish, one: Machine) -> Said:
    """Answer for a machine that runs already: ours is told, and another's is no place for ours."""
    if one.phase is PowerPhase.STOPPING:
        raise Trouble(Snag.TRANSIENT, f"{one.name} is still going off", retry_after_s=30.0)
    if one.launch == wish.launch or ours(wish.prefix, one.launch):
        return _told(wish, one)
    whose = f"under the label {one.launch}" if one.launch else "without a label of ours"
    raise Trouble(Snag.TRANSIENT, f"{one.zone}/{one.name} runs already, {whose}")


def _first(places: list[tuple[str, str]], attempt: Callable[[tuple[str, str]], Said]) -> Said:
    """Try one place after the other, as long as it may go better in the next."""
    troubles: list[Trouble] = []
    for place in places:
        try:
            return attempt(place)
        except Trouble as trouble:
            trouble.detail = f"{place[0]}: {trouble.detail}"
            troubles.append(trouble)
            if not trouble.elsewhere:
                break
    raise worst(troubles) if troubles[-1].snag is not Snag.LOST else troubles[-1]


def _wake(cloud: Compute, wish: Wish, raw: Any, zone: str, name: str) -> Said:
    """Start an instance that is there: first its limit and its label, and only then the start."""
    one = machine(zone, raw)
    seconds = None if wish.max_run_s is None else limit_s(wish.max_run_s)
    if one.status == "SUSPENDED":
        if seconds is not None:
            text = "it is suspended, so its run time cannot be limited: resume and stop it once"
            raise Trouble(Snag.DENIED, text, elsewhere=True)
    elif one.limit_s != seconds and (
        seconds is not None or {LABEL, ENDED} & set(one.labels)
    ):  # a limit that somebody else set stays where we have none
        _prepare(lambda: cloud.limit(zone, raw, seconds))
    if one.launch != wish.launch:
        _prepare(lambda: cloud.label(zone, raw, wish.launch))
    begin = cloud.resume if one.status == "SUSPENDED" else cloud.start
    return _begun(cloud, wish, zone, name, begin(zone, name))


def _prepare(step: Callable[[], None]) -> None:
    try:
        step()
    except Trouble as trouble:
        if trouble.snag is not Snag.LOST:
            raise
        raise Trouble(Snag.TRANSIENT, f"before its start: {trouble.detail}") from None


def _begun(cloud: Compute, wish: Wish, zone: str, name: str, operation: Any) -> Said:
    """Wait a while for a start to fail, or to be over; what takes longer, its status tells."""
    if cloud.over(zone, operation, min(wish.at_once_s, ALL_S / len(wish.places))):
        with contextlib.suppress(Trouble):
            one = machine(zone, cloud.instance(zone, name))
            if one.launch == wish.launch and one.phase is PowerPhase.ON:
                return _told(wish, one)
    return {"phase": PowerPhase.STARTING.value, "launch": wish.launch}


def _create(cloud: Compute, wish: Wish, seen: Seen) -> Said:
    """Make a machine by the template, and remove what is left of earlier ones: disks cost."""
    template = cloud.template(wish.template)
    seconds = None if wish.max_run_s is None else limit_s(wish.max_run_s)

    def attempt(place: tuple[str, str]) -> Said:
        zone = place[0]
        coming = [name for name in cloud.inserting(zone) if ours(wish.prefix, name)]
        if coming:
            text = f"{coming[0]} is being made already"
            raise Trouble(Snag.TRANSIENT, text, retry_after_s=30.0)
        try:
            operation = cloud.create(zone, template, wish.launch, seconds, spot=wish.spot)
        except Trouble as trouble:
            if not trouble.taken:
                raise
            return {"phase": PowerPhase.STARTING.value, "launch": wish.launch}
        return _begun(cloud, wish, zone, wish.launch, operation)

    for one in seen.machines:
        with contextlib.suppress(Trouble):
            cloud.delete(one.zone, one.name)
    return _first(gce_past.by_room(cloud, wish.prefix, wish.places, {}, wish.now), attempt)


# ── stop ────────────────────────────────────────────────────────────────────────────────────────


def stop(cloud: Compute, wish: Wish) -> Said:
    """Stop, or delete what a template made, what runs under that label; "": whatever runs there."""
    seen = look(cloud, wish)
    found = [one for one in seen.machines if _to_stop(wish, one)]
    going = [one for one in found if one.phase is PowerPhase.STOPPING]
    for one in found:
        if one.phase is not PowerPhase.STOPPING:
            try:
                (cloud.delete if wish.template else cloud.stop)(one.zone, one.name)
            except Trouble as trouble:
                if not trouble.gone:
                    raise
                continue
            going.append(one)
            if not wish.template:
                with contextlib.suppress(Trouble):
                    cloud.ended(one.zone, seen.raw[one.zone, one.name])
    if seen.unread:
        raise worst(seen.unread)
    return _told(wish, going[0], PowerPhase.STOPPING) if going else _off()


def _to_stop(wish: Wish, one: Machine) -> bool:
    if one.phase is PowerPhase.OFF and not wish.template:
        return False
    if not wish.launch:
        return True
    if ours(wish.prefix, wish.launch) and ours(wish.prefix, one.launch):
        return number(one.launch) <= number(wish.launch)  # nobody needs an older one of ours
    return one.launch == wish.launch


# ── doctor ──────────────────────────────────────────────────────────────────────────────────────


Found = tuple[bool | None, str, str]
WAKING: Final = (
    "compute.instances.get",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.instances.setLabels",
    "compute.instances.setScheduling",
)
MAKING: Final = ("compute.instanceTemplates.get", "compute.instanceTemplates.useReadOnly")
ROLE: Final = "give the service account the role that docs/gcp.md describes"
ALL_GPUS: Final = "GPUS_ALL_REGIONS"


def checks(cloud: Compute, wish: Wish) -> Said:
    """Look whether a start could succeed, without starting or changing anything."""
    found = _of_template(cloud, wish) if wish.template else _of_instances(cloud, wish)
    return {"found": [list(one) for one in found]}


def _of_instances(cloud: Compute, wish: Wish) -> Iterator[Found]:
    for zone, name in wish.places:
        where = f"{zone}/{name}"
        try:
            raw = cloud.instance(zone, name)
            allowed = cloud.may(zone, name, list(WAKING))
            cloud.last_operations(zone, cloud.link(zone, name))
        except Trouble as trouble:
            text = f"there is no instance {where}" if trouble.gone else trouble.detail
            yield False, text, _remedy(trouble)
            continue
        one = machine(zone, raw)
        yield True, f"{where} is {one.status}", ""
        yield _permitted(where, [name for name in WAKING if name not in allowed])
        if wish.port and wish.address == "external" and not (one.external or raw_has_nat(raw)):
            text = f"{where} has no external address"
            yield False, text, 'give it one, or set address = "internal"'
        yield from _gpus(cloud, zone, raw.guest_accelerators, spot=one.spot)


def raw_has_nat(raw: Any) -> bool:
    """Say whether an instance gets an external address once it runs."""
    return any(network.access_configs for network in raw.network_interfaces)


def _of_template(cloud: Compute, wish: Wish) -> Iterator[Found]:
    try:
        template = cloud.template(wish.template)
        allowed = cloud.may_use(wish.template, list(MAKING))
        for zone, _ in wish.places:
            cloud.labelled(zone)
    except Trouble as trouble:
        text = f"there is no template {wish.template}" if trouble.gone else trouble.detail
        yield False, text, _remedy(trouble)
        return
    yield True, f"the template {wish.template} is there", ""
    yield _permitted(wish.template, [name for name in MAKING if name not in allowed])
    part = template.properties
    spot = wish.spot or part.scheduling.provisioning_model == "SPOT"
    for zone in dict.fromkeys(zone for zone, _ in wish.places):
        yield from _gpus(cloud, zone, part.guest_accelerators, spot=spot)


def _permitted(where: str, lacking: list[str]) -> Found:
    if lacking:
        return False, f"on {where} it may not: {', '.join(lacking)}", ROLE
    return True, f"on {where} the credential may do what is needed", ""


def _remedy(trouble: Trouble) -> str:
    if trouble.gone:
        return "correct `project`, `zone` and `instance` or `template`, or make it again"
    return ROLE if trouble.snag is Snag.DENIED else "try again later"


def _gpus(cloud: Compute, zone: str, accelerators: Any, *, spot: bool) -> Iterator[Found]:
    """Say whether the quotas leave room for its GPUs; a trial account has none at all."""
    for gpu in accelerators:
        name = gpu_quota(gpu.accelerator_type, spot=spot)
        try:
            everywhere, here = cloud.quotas(None), cloud.quotas(region_of(zone))
        except Trouble as trouble:
            yield None, f"its GPU quota could not be read: {trouble.detail}", ""
            return
        used, limit = here.get(name, (0.0, 0.0))
        total = everywhere.get(ALL_GPUS, (0.0, limit))[1]
        text = f"quota {name} in {region_of(zone)}: {limit:g}, {used:g} used; in all {total:g}"
        if total < gpu.accelerator_count:
            yield False, text, TRIAL
        elif limit < gpu.accelerator_count:
            yield False, text, f"ask for {name} in {region_of(zone)}, or use another zone"
        else:
            yield True, text, ""


VERBS: Final[dict[str, Callable[[Compute, Wish], Said]]] = {
    "status": status,
    "start": start,
    "stop": stop,
    "checks": checks,
}

if __name__ == "__main__":
    serve(main)
