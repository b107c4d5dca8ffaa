"""What the operator hears: each incident from opened to closed, once."""

from collections import Counter

import pytest

from orchestrator.core.events import (
    Acknowledge,
    Deliver,
    Failover,
    Flagged,
    Mute,
    NoticesSent,
    Pause,
    Reconfigured,
)
from orchestrator.core.model import NoticeKind, Severity, Verdict
from orchestrator.core.specs import AlertPolicy
from tests.core.worlds import World, backend, config

BAD = Verdict.FAILED


@pytest.fixture
def world():
    found = World(config(alerts=AlertPolicy(remind_s=600, escalate_s=300)))
    found.up("a", "b", "c")
    found.forget()
    return found


def told(world, kind):
    return [notice for notice in world.notices if notice.kind is kind]


def test_an_incident_is_opened_once_reminded_and_closed(world):
    world.down("a")
    world.lives(1300, up="bc", down="a")
    world.lives(5, up="abc")
    kinds = [notice.kind for notice in world.notices if notice.topic == "backend_down"]
    assert kinds == [
        NoticeKind.OPENED,
        NoticeKind.REMINDER,
        NoticeKind.REMINDER,
        NoticeKind.CLOSED,
    ]


def test_every_notice_has_an_id_of_its_own(world):
    for _ in range(3):
        world.down("a")
        world.lives(1300, up="bc", down="a")
        world.lives(310, up="abc")
    ids = Counter(notice.id for notice in world.notices)
    assert set(ids.values()) == {1}


def test_ids_are_not_used_again_after_a_restart(world):
    world.down("a")
    first = {notice.id for notice in world.notices}
    fleet = world.fleet
    again = World(
        fleet.config,
        world.at + 5,
        world=fleet.world,
        backends=fleet.backends,
        services=fleet.services,
        incidents=fleet.incidents,
    )
    again.up("a", "b", "c")
    again.down("b")
    again.down("a")
    assert not first & {notice.id for notice in again.notices}


def test_an_incident_that_stands_is_not_opened_again_after_a_restart(world):
    world.down("a")
    fleet = world.fleet
    again = World(
        fleet.config,
        world.at + 5,
        world=fleet.world,
        backends=fleet.backends,
        services=fleet.services,
        incidents=fleet.incidents,
    )
    again.up("b", "c")
    again.lives(40, up="bc", down="a")
    assert not told(again, NoticeKind.OPENED)
    assert "backend_down:a" in again.fleet.incidents


def test_a_notice_is_written_with_its_transition_and_asks_for_delivery(world):
    world.sees("a", BAD)
    world.sees("a", BAD)
    turn = world.sees("a", BAD)
    assert turn.durable
    assert {notice.topic for notice in turn.notices.values()} == {"moved", "backend_down"}
    assert Deliver() in turn.effects


def test_a_sent_notice_leaves_the_outbox_and_only_then(world):
    world.down("a")
    waiting = set(world.fleet.outbox)
    assert waiting
    first = min(waiting)
    turn = world.give(NoticesSent((first, "no such notice"), "telegram"))
    assert turn.durable
    assert set(world.fleet.outbox) == waiting - {first}


def test_an_acknowledged_incident_is_not_reminded_of(world):
    world.down("a")
    [incident] = world.fleet.incidents.values()
    world.give(Acknowledge(incident.id, by="me"))
    world.lives(2000, up="bc", down="a")
    assert len(told(world, NoticeKind.ACKNOWLEDGED)) == 1
    assert not told(world, NoticeKind.REMINDER)


def test_a_muted_incident_is_silent_until_the_mute_ends(world):
    world.down("a")
    [incident] = world.fleet.incidents.values()
    world.give(Mute(incident.id, for_s=1000))
    world.forget()
    world.lives(990, up="bc", down="a")
    assert not world.notices
    world.lives(20, up="bc", down="a")
    assert told(world, NoticeKind.REMINDER)


@pytest.mark.parametrize("command", [Acknowledge("99"), Mute("99")])
def test_an_incident_that_is_not_there_is_said_to_be_unknown(world, command):
    answer = world.give(command).answer
    assert answer is not None
    assert answer.problem == "unknown"


def test_a_critical_incident_nobody_acknowledges_goes_to_every_channel_once(world):
    world.down("a", "b", "c")
    world.lives(590, down="abc")
    [louder] = told(world, NoticeKind.ESCALATED)
    assert louder.everywhere
    assert louder.severity is Severity.CRITICAL


def test_a_bigger_incident_explains_the_smaller_ones(world):
    world.down("a", "b")
    world.forget()
    world.down("c")
    assert "service_down:chat" in world.fleet.incidents
    assert "backend_down:c" not in world.fleet.incidents
    world.lives(1000, down="abc")
    reminded = {notice.topic for notice in told(world, NoticeKind.REMINDER)}
    assert reminded == {"service_down"}


def test_what_the_bigger_one_hid_is_told_when_it_is_over(world):
    world.down("a", "b", "c")
    world.lives(3, up="a", down="bc")
    assert "service_down:chat" not in world.fleet.incidents
    assert "backend_down:c" in world.fleet.incidents


def test_restart_needed_names_the_best_that_only_a_human_can_start():
    url = "https://colab.example/notebook"
    world = World(config(backend("a", restart_url=url), backend("b", tier="paid")))
    world.up("a", "b")
    assert not world.fleet.incidents
    world.down("a")
    incident = world.fleet.incidents["restart_needed:chat"]
    assert incident.params["url"] == url


def test_no_restart_is_asked_for_while_something_as_cheap_serves():
    url = "https://colab.example/notebook"
    world = World(config(backend("a", restart_url=url), backend("b")))
    world.up("a", "b")
    world.down("a")
    assert "restart_needed:chat" not in world.fleet.incidents


@pytest.mark.parametrize("kind", ["disk_full", "alerts_down", "job_quarantined"])
def test_what_a_part_of_the_daemon_reports_is_an_incident_until_it_says_otherwise(world, kind):
    world.give(Flagged(kind, "database", "no room"))
    assert f"{kind}:database" in world.fleet.incidents
    again = world.give(Flagged(kind, "database", "no room"))
    assert not again.durable, "saying it again is no news"
    world.tick(5)
    assert f"{kind}:database" in world.fleet.incidents
    world.give(Flagged(kind, "database", ""))
    assert f"{kind}:database" not in world.fleet.incidents


def test_a_flag_nobody_raises_again_after_a_restart_is_over(world):
    world.give(Flagged("disk_full", "database", "no room"))
    again = World(
        world.fleet.config,
        world.at + 5,
        world=world.fleet.world,
        backends=world.fleet.backends,
        incidents=world.fleet.incidents,
    )
    again.up("a", "b", "c")
    again.tick(35)
    assert not again.fleet.incidents


def test_models_that_are_missing_are_told_of(world):
    world.sees("a", models=("x",), missing=("qwen3:8b",))
    assert world.fleet.incidents["models_missing:a"].params["models"] == "qwen3:8b"
    world.sees("a")
    assert "models_missing:a" in world.fleet.incidents, "a probe that did not ask says nothing"
    world.sees("a", models=("x", "qwen3:8b"))
    assert "models_missing:a" not in world.fleet.incidents


def test_a_pause_is_an_incident_so_that_nobody_forgets_it(world):
    world.give(Pause(by="me"))
    assert "paused:" in world.fleet.incidents


def test_incidents_of_a_backend_that_is_gone_are_closed(world):
    world.down("a")
    world.give(Reconfigured(config(backend("b"), backend("c"))))
    assert not world.fleet.incidents


def test_the_first_assignment_is_good_news_a_later_one_a_warning():
    world = World(config())
    world.up("a", "b", "c")
    world.give(Failover("chat"))
    severities = [notice.severity for notice in world.notices if notice.topic == "moved"]
    assert severities == [Severity.INFO, Severity.WARNING]
