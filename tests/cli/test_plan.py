"""`aion plan`: the picture, the tables, and what it is given."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from standin import AT, NOW, Standin
from terminal import OnTerminal, aion

from orchestrator.cli.plan import lanes
from orchestrator.core.lives import Session
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import BackendState, Fleet, Health, World
from orchestrator.core.specs import Backend, FleetConfig, Service
from orchestrator.web.planning import plan_view

HOUR = 3600.0


def world(hours: tuple[int, int] = (8 * 60, 23 * 60)) -> Fleet:
    """Colab serves for two hours more and Kaggle has ten; it is 04:40 UTC on a Friday."""
    colab = Backend(
        "colab", "notebook", "ollama", 10, registers=True, session_s=12 * HOUR,
        restart_url="https://colab.example/nb",
    )  # fmt: skip
    kaggle = Backend(
        "kaggle", "kaggle", "ollama", 20, registers=True, session_s=9 * HOUR,
        powered=True, auto_start=True,
    )  # fmt: skip
    meter = MeterSpec("kaggle:hours", Unit.HOURS, 10.0, backend="kaggle", rate_per_hour=1.0)
    config = FleetConfig(
        {"colab": colab, "kaggle": kaggle},
        {"chat": Service("chat", ("colab", "kaggle"))},
        meters={meter.key: meter},
        operator_hours=hours,
    )
    session = Session("s", AT - HOUR, AT, ends_at=AT + 2 * HOUR)
    return Fleet(
        config,
        World(started_at=AT - HOUR, settled=True),
        {
            "colab": BackendState("colab", Health.UP, session=session),
            "kaggle": BackendState("kaggle", Health.DOWN, reason="off"),
        },
    )


@pytest.fixture
def to(token_file):
    with Standin(world()) as standin:
        yield ("--url", standin.url, "--token-file", str(token_file), "plan")


def test_it_shows_lanes_what_to_start_by_when_and_what_nobody_covers(to):
    ran = aion(*to, "--hours", "24", TZ="UTC")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("uncovered: 5 min  until Sat 22 Nov 04:40, in 24 h")
    colab, kaggle, nobody, axis, legend = lines[3:8]
    assert colab.startswith("colab   ####")
    assert "A" in kaggle
    assert "HHH" in colab
    assert nobody.count("!") == 1
    assert "06h" in axis
    assert "Sat" in axis
    assert legend.strip().startswith("# serves")
    text = ran.out
    assert "TO START BY HAND" in text
    assert "to start colab, open https://colab.example/nb" in text
    assert "15:26 and 16:11" in text
    assert "06:28 by itself" in text  # Kaggle, twelve minutes before Colab ends at 06:40
    assert "kaggle: it is starting and is up at Fri 15:33" in text


def test_the_picture_is_as_wide_as_the_terminal_and_left_out_where_there_is_no_room(to):
    escapes = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
    for columns in (60, 80, 200):
        ran = OnTerminal(*to, columns=columns, lines=100, TZ="UTC", NO_COLOR="1").end()
        text = escapes.sub("", ran.out)
        assert ran.code == 0
        assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
        assert "###..." in text
    text = OnTerminal(*to, columns=30, lines=200, TZ="UTC", NO_COLOR="1").end().out
    assert "###..." not in text
    assert "colab" in text


def test_json_is_the_api_s_own_answer(to):
    ran = aion(*to, "--json", "--hours", "7d")
    assert json.loads(ran.out) == plan_view(world(), NOW, 168.0).model_dump(mode="json")


def test_seven_days_are_as_many_hours(to):
    week, hours = (aion(*to, "--json", "--hours", text).out for text in ("7d", "168"))
    assert week == hours


@pytest.mark.parametrize("text", ["0", "-3", "soon", "15d", "nan", "inf"])
def test_what_is_no_horizon_is_a_usage_error(to, text):
    ran = aion(*to, f"--hours={text}")
    assert ran.code == 2
    assert ran.err.startswith("error: ")


def test_a_service_that_is_not_there_is_an_error(to):
    ran = aion(*to, "--service", "nope")
    assert (ran.code, ran.out) == (1, "")


def test_without_a_daemon_it_says_so(token_file):
    ran = aion("--url", "http://127.0.0.1:9", "--token-file", str(token_file), "plan")
    assert ran.code == 6
    assert "no daemon answers" in ran.err


def test_everything_fine_is_one_lane_and_no_table(token_file):
    fine = world()
    state = fine.backends["colab"]
    assert state.session is not None
    fine.backends["colab"] = replace(state, session=replace(state.session, ends_at=None))
    with Standin(fine) as standin:
        ran = aion("--url", standin.url, "--token-file", str(token_file), "plan", TZ="UTC")
    lines = ran.out.splitlines()
    assert lines[0].startswith("every hour is covered")
    assert [line.split()[0] for line in lines[3:]][:1] == ["colab"]
    assert len(lines) == 6


def test_a_minute_is_seen_in_a_picture_of_a_week():
    begins = datetime.fromisoformat("2026-11-16T09:00:00+00:00")
    ends = begins + timedelta(days=7)

    def part(backend, since, until, how):
        span = {"begins_at": since.isoformat(), "ends_at": until.isoformat()}
        return {"backend": backend, "how": how, **span}

    hole = begins + timedelta(hours=50)
    back = hole + timedelta(minutes=1)
    line = [
        part("a", begins, hole, "serving"),
        part(None, hole, back, "uncovered"),
        part("a", back, ends, "auto"),
    ]
    drawn = list(lanes({"backends": ["a"], "line": line, "beside": []}, begins, ends, 100))
    lane, nobody = ("".join(cell.text for cell in cells) for cells in drawn[:2])
    assert lane[8:].count("#") + lane[8:].count("A") == len(lane) - 8
    assert nobody.count("!") == 1
