"""Asking a human early: once, in time, awake; and learning how long that takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from orchestrator.core.events import Acknowledge
from orchestrator.core.lives import Session, Token
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import BackendState, Health, NoticeKind, Severity
from orchestrator.core.registry import Proved, Register
from orchestrator.core.specs import Tier
from orchestrator.core.windows import EVER
from tests.core.worlds import POLICY, World, backend, config

ZONE = "Europe/Lisbon"
HOUR = 3600.0
DAYTIME = (8 * 60, 23 * 60)
TOKEN = Token("t", "colab", "0" * 64, 0.0)


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()


EVENING = moment("2026-11-16 21:30")


def colab(**more: object):
    given: dict[str, object] = {
        "kind": "notebook",
        "url": None,
        "registers": True,
        "session_s": 12 * HOUR,
        "restart_url": "https://colab.example/nb",
        "health": POLICY,
    }
    return backend("colab", **{**given, **more})


def world(*others, left_h: float = 5.5, at: float = EVENING) -> World:
    """Colab serves, and will for so many hours more; the wall clock is ahead of the steady one."""
    shift = 7_000.0
    steady = at - shift
    fleet = config(colab(), *others, operator_hours=DAYTIME, timezone=ZONE)
    session = Session("s1", steady - HOUR, steady, ends_at=steady + left_h * HOUR, lease_s=1e9)
    stored = {"colab": BackendState("colab", Health.UP, session=replace(session, late_s=1e9))}
    found = World(fleet, at=steady, backends=stored, tokens={"t": TOKEN})
    found.wall_offset = shift
    found.up("colab")
    found.up(*(one.name for one in others))
    return found


def lives(found: World, seconds: int) -> None:
    for _ in range(seconds):
        found.tick()


def open_kinds(found: World) -> list[str]:
    return sorted(one.kind for one in found.fleet.incidents.values())


def comes_back(found: World) -> None:
    """A new run of the notebook registers and proves itself."""
    found.give(Register("colab", "s2", "1" * 64, "t", "https://new.test"))
    proves(found)


def proves(found: World) -> None:
    found.give(Proved("colab", "s2", ok=True))
    state = found.fleet.backends["colab"]
    assert state.session is not None
    heard = replace(state.session, lease_s=1e9, late_s=1e9)  # its agent speaks on
    found.fleet.backends["colab"] = replace(state, session=heard)


def test_a_human_is_asked_before_bed_for_a_session_that_ends_at_night():
    found = world()  # until 03:00; by 22:50 at the latest, and told from 22:05 on
    lives(found, 34 * 60)
    assert open_kinds(found) == []
    lives(found, 3 * 60)
    (incident,) = found.fleet.incidents.values()
    assert (incident.kind, incident.subject, incident.severity) == (
        "start_soon",
        "chat",
        Severity.WARNING,
    )
    shown = {key: incident.params[key] for key in ("backend", "url", "service")}
    assert shown == {"backend": "colab", "url": "https://colab.example/nb", "service": "chat"}
    by = datetime.fromtimestamp(float(incident.params["latest"]) + 7_000.0, ZoneInfo(ZONE))
    needed = datetime.fromtimestamp(float(incident.params["gap_at"]) + 7_000.0, ZoneInfo(ZONE))
    assert (f"{by:%H:%M}", f"{needed:%H:%M}") == ("22:50", "03:00")
    opened = [one for one in found.notices if one.topic == "start_soon"]
    assert [one.kind for one in opened] == [NoticeKind.OPENED]


def test_what_was_asked_for_closes_the_incident_and_is_measured():
    found = world()
    lives(found, 40 * 60)
    (incident,) = found.fleet.incidents.values()
    found.give(Acknowledge(incident.id, "ana"))
    lives(found, 300)
    took_s = found.at - incident.opened_at
    comes_back(found)
    assert "start_soon:chat" not in found.fleet.incidents
    assert found.fleet.backends["colab"].hand_starts == (took_s,)
    (entry,) = [one for one in found.entries if one.action == "restarted_by_hand"]
    assert (entry.data["seconds"], entry.data["acknowledged"]) == (f"{took_s:.0f}", "yes")
    lives(found, 180)
    assert open_kinds(found) == []


def test_the_hours_of_sleep_are_not_counted_as_time_to_a_restart():
    found = world(left_h=0.5, at=moment("2026-11-16 23:30"))
    lives(found, 31 * 60)
    assert "restart_needed" in open_kinds(found)
    lives(found, 509 * 60)  # half past eight
    comes_back(found)
    assert found.fleet.backends["colab"].hand_starts == (
        30 * 60.0 + 2.0,
    )  # two seconds were needed to begin


def test_a_session_that_nobody_asked_for_is_no_measure():
    found = world()
    comes_back(found)
    assert found.fleet.backends["colab"].hand_starts == ()


def test_while_somebody_else_can_serve_nobody_is_asked():
    found = world(backend("lab"))
    lives(found, 90 * 60)
    assert open_kinds(found) == []


def test_the_end_of_the_session_is_not_told_to_whom_was_asked_already():
    found = world(left_h=2.0, at=moment("2026-11-16 09:00"))
    lives(found, 100 * 60)  # asked for at 09:58 already; it warns from 10:15 on
    assert open_kinds(found) == ["start_soon"]


def test_an_early_request_is_not_repeated_by_one_that_is_too_late():
    """The session ends unheeded: `restart_needed` opens, and the early one is not told again."""
    found = world(left_h=0.5, at=moment("2026-11-16 09:00"))
    lives(found, 40 * 60)
    assert "restart_needed" in open_kinds(found)
    told = [one for one in found.notices if one.topic == "start_soon"]
    assert told == []
    comes_back(found)
    lives(found, 120)
    assert open_kinds(found) == []


def test_a_pending_registration_keeps_the_request_open_until_it_serves():
    found = world()
    lives(found, 40 * 60)
    found.give(Register("colab", "s2", "1" * 64, "t", "https://new.test"))
    lives(found, 120)
    assert "start_soon" in open_kinds(found)
    proves(found)
    lives(found, 60)
    assert open_kinds(found) == []


def test_a_service_that_is_gone_leaves_no_request_behind():
    found = world()
    lives(found, 40 * 60)
    assert open_kinds(found) == ["start_soon"]
    services = {"other": replace(found.fleet.config.services["chat"], name="other")}
    found.fleet.config = replace(found.fleet.config, services=services)
    lives(found, 60)
    assert "start_soon:chat" not in found.fleet.incidents


def needed(*backends, meters=(), states=None) -> str | None:
    """Which of these `restart_needed` names, all being down."""
    fleet = config(*backends, meters={one.key: one for one in meters})
    stored = {one.name: BackendState(one.name, Health.DOWN) for one in backends}
    found = World(fleet, backends=stored | (states or {}))
    found.down(*(one.name for one in backends))
    lives(found, 90)
    incident = found.fleet.incidents.get("restart_needed:chat")
    return incident.params["backend"] if incident else None


def test_of_those_that_are_down_the_one_with_most_hours_left_is_named_but_never_a_spent_one():
    a, b, paid = (
        backend(name, restart_url=f"https://{name}.test/run", tier=tier)
        for name, tier in (("a", Tier.FREE), ("b", Tier.FREE), ("p", Tier.PAID))
    )
    few, many = (
        MeterSpec(f"{n}:h", Unit.HOURS, h, EVER, n, 1.0) for n, h in (("a", 3.0), ("b", 9.0))
    )
    assert needed(a, b) == "a"
    assert needed(a, b, meters=(few, many)) == "b"
    assert needed(a, b, meters=(few,)) == "b"
    assert needed(paid, a) == "a"
    spent = MeterSpec("a:h", Unit.HOURS, 0.0, EVER, "a", 1.0)
    assert needed(a, paid, meters=(spent,)) == "p"


def test_where_nobody_serves_already_nobody_is_asked_to_start_something_soon():
    fleet = config(colab(restart_url=None), operator_hours=DAYTIME, timezone=ZONE)
    found = World(fleet, at=moment("2026-11-16 12:00"))
    lives(found, 200)
    assert open_kinds(found) == ["service_down"]
