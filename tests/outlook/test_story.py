"""One mishap, second by second."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so the same each time
from datetime import UTC, time
from functools import partial

import pytest

from orchestrator.core.configuring import resumed
from orchestrator.core.model import Now, Pin, ServiceState
from orchestrator.core.quiet import quiet_until
from orchestrator.core.specs import HealthPolicy, Target
from orchestrator.outlook.story import Part, Setting, tell
from orchestrator.outlook.whatif import parse
from tests.core.worlds import DNS, backend, config
from tests.outlook.worlds import START

NAMES = ("colab", "kaggle", "lab")


def fleet():
    found = [
        backend(
            name,
            remote=name != "lab",
            health=HealthPolicy(),
            targets=(Target("CNAME", f"{name}.example"),),
            restart_url="https://colab.example" if name == "colab" else None,
        )
        for name in NAMES
    ]
    return config(*found, controls=4, dns=DNS)


CONFIG = fleet()


def whole(at: float):
    return resumed(CONFIG, Now(at, at))


def story(text: str, *, seed: int = 1, dense: bool = True, **more):
    setting = Setting(**{"fleet": whole, "at": START, "wall": START, **more})
    return tell(setting, parse(text, NAMES), random.Random(seed), dense=dense)


def texts(told, *parts: Part) -> list[str]:
    return [line.text for line in told.lines if not parts or line.part in parts]


def test_each_step_from_the_death_to_the_message_is_told_in_order():
    told = story("colab dies")
    looks = texts(told, Part.LOOK)
    assert looks == [
        f"a probe of colab fails: connection refused ({count} of 3)" for count in (1, 2, 3)
    ]
    steps = [
        "colab is dead: connections are refused",
        "is it us?",
        "(3 of 3)",
        "colab is down: connection refused",
        "chat: colab → kaggle",
        "ai.example.org is written: CNAME kaggle.example",
        "ai.example.org points at kaggle.example, read back",
    ]
    whole_text = texts(told)
    places = [next(i for i, text in enumerate(whole_text) if step in text) for step in steps]
    assert places == sorted(places)
    told_of = [line.notice.topic for line in told.lines if line.part is Part.TOLD]
    assert sorted(told_of) == ["backend_down", "moved"]
    (ending,) = told.endings
    assert (ending.began_with, ending.ended_with) == ("colab", "kaggle")
    assert 4.0 < ending.uncovered_s < 16.5
    moved = next(line for line in told.lines if line.part is Part.MOVE)
    assert moved.t == pytest.approx(ending.uncovered_s)


def test_the_same_seed_tells_the_same_story():
    assert story("colab hangs for 10m").lines == story("colab hangs for 10m").lines


def test_it_goes_back_once_the_better_one_was_well_for_as_long_as_configured():
    told = story("colab dies for 10m")
    up = next(line.t for line in told.lines if line.text.startswith("colab is up"))
    back = next(line.t for line in told.lines if "kaggle → colab" in line.text)
    assert 300.0 <= back - up <= 302.0
    assert told.endings[0].ended_with == "colab"
    assert told.lasted_s > back


def test_while_our_own_network_is_lost_nobody_is_judged_and_nothing_is_sent():
    told = story("the network is lost for 5m")
    assert texts(told, Part.MOVE) == []
    assert "4 of 4 controls do not answer: it is us" in texts(told, Part.VERDICT)
    assert "the network is back; everything remote is looked at again" in texts(told)
    sent = [line.t for line in told.lines if line.part is Part.TOLD]
    assert sent
    assert min(sent) > 300.0
    assert len(told.lines) < 40  # and the same is not said over and over


def test_a_dns_provider_out_of_reach_is_told_after_patience_and_written_when_it_is_back():
    told = story("cloudflare is down for 20m and colab dies")
    written = next(line.t for line in told.lines if "is written" in line.text)
    assert 1200.0 < written < 1240.0
    assert any(line.notice and line.notice.topic == "dns_unreachable" for line in told.lines)
    assert told.endings[0].uncovered_s < 17.0  # discovery goes on without it


def test_what_flaps_waits_longer_each_time():
    told = story("colab flaps")
    back = [line.t for line in told.lines if "→ colab" in line.text]
    ups = [line.t for line in told.lines if line.text.startswith("colab is up")]
    assert back[0] - ups[0] == pytest.approx(300.0, abs=2)
    assert back[-1] - ups[-1] > 600.0
    assert any(line.notice and line.notice.topic == "flapping" for line in told.lines)


def test_when_everybody_is_dead_the_human_is_asked_and_nobody_serves():
    told = story("everything dies")
    assert told.endings[0].ended_with is None
    topics = {line.notice.topic for line in told.lines if line.notice}
    assert {"service_down", "restart_needed"} <= topics
    assert told.endings[0].uncovered_s == pytest.approx(told.lasted_s)


def test_in_quiet_hours_only_what_is_critical_rings():
    night = partial(quiet_until, window=(time(0), time(23, 59)), zone=UTC)
    told = story("colab dies", quiet_until=night)
    held = [line for line in told.lines if line.notice and line.held_until]
    assert {line.notice.topic for line in held} == {"moved", "backend_down"}
    everything = story("everything dies", quiet_until=night)
    rung = {line.notice.topic for line in everything.lines if line.notice and not line.held_until}
    assert "service_down" in rung


def test_it_begins_with_what_the_daemon_last_wrote():
    pinned = ServiceState("chat", "lab", START - 100, 7, pin=Pin("lab", START + 7200))

    def stored(at: float):
        return resumed(CONFIG, Now(at, at), services={"chat": pinned})

    told = story("kaggle dies", fleet=stored, down=("colab",), calm_s=0.0)
    assert told.endings[0].began_with == told.endings[0].ended_with == "lab"
    assert texts(told, Part.MOVE) == []
    again = story("colab dies", fleet=stored, down=("colab",), calm_s=0.0)
    assert "colab is dead already" in again.lines[0].text


def test_jumping_ends_as_telling_every_second_does():
    for text in ("colab dies", "colab and kaggle hang for 10m", "everything dies for 5m"):
        every, jumped = story(text), story(text, seed=2, dense=False)
        for here, there in zip(every.endings, jumped.endings, strict=True):
            assert (here.began_with, here.ended_with) == (there.began_with, there.ended_with)
            assert there.uncovered_s == pytest.approx(here.uncovered_s, abs=34 + 16)
