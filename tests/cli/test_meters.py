"""`aion meters`: what is left, and when it runs out."""

import json
from dataclasses import replace

import pytest

from orchestrator.cli.meters import amount, drawn
from orchestrator.core.ledger import count, ran
from orchestrator.core.meters import EGRESS, MeterSpec, MeterState, Unit
from orchestrator.core.months import Month
from orchestrator.core.windows import Per, Window
from tests.cli.standin import AT
from tests.cli.terminal import aion

GPU = MeterSpec("colab:hours", Unit.HOURS, 30.0, Window(Per.WEEK), "colab", rate_per_hour=1.0)
CALLS = MeterSpec("groq:requests", Unit.REQUESTS, 1000.0, Window(Per.DAY), "groq")
SENT = MeterSpec(EGRESS, Unit.BYTES, None, Window(Per.MONTH), advisory=True)


@pytest.fixture
def metered(daemon):
    fleet = daemon.fleet
    specs = {spec.key: spec for spec in (GPU, CALLS, SENT)}
    fleet.config = type(fleet.config)(fleet.config.backends, fleet.config.services, meters=specs)
    fleet.meters = {
        GPU.key: ran(MeterState(GPU.key), GPU, AT - 7200, AT, AT),
        CALLS.key: ran(count(MeterState(CALLS.key), CALLS, 1000, AT, AT), CALLS, None, AT, AT),
        SENT.key: count(MeterState(SENT.key), SENT, 420_000_000, AT, AT),
    }
    return daemon


def test_every_meter_says_what_is_used_and_left_and_until_when(metered, at):
    lines = aion("meters", *at).out.splitlines()
    gpu, calls, sent = lines[1:]
    assert "2.0 h of 30.0 h" in gpu
    assert "in use" in gpu
    assert "1,000 of 1,000" in calls
    assert "spent until" in calls
    assert "420 MB" in sent


def test_json_is_what_the_daemon_says(metered, at):
    found = {one["key"]: one for one in json.loads(aion("meters", "--json", *at).out)}
    assert found["colab:hours"]["used"] == pytest.approx(2)
    assert found["colab:hours"]["on"]
    assert found["groq:requests"]["level"] == 100
    assert found["groq:requests"]["left"] == 0
    assert found[EGRESS]["limit"] is None


@pytest.fixture
def billed(metered):
    """A month in which the provider of colab counted less than we did, and groq's said nothing."""
    month = Month("2025-11", counted=20.0, corrected=-0.5, said=3.5, ours=4.0, said_at=AT - 3600)
    gpu = metered.fleet.meters[GPU.key]
    older = Month("2025-09", counted=11.0)
    metered.fleet.meters[GPU.key] = replace(gpu, months=(older, month))
    return metered


def test_a_month_shows_our_books_against_the_providers_figures(billed, at):
    lines = aion("meters", "--month", *at).out.splitlines()
    assert lines[0] == "2025-11 by UTC, so far"
    on = next(line.split() for line in lines if line.startswith("colab  "))
    assert on == ["colab", "20.0", "h"]
    gpu = next(line for line in lines if line.startswith("colab:hours"))
    for text in ("20.0 h", "-0.5 h", "19.5 h", "3.5 h", "4.0 h", "-0.5 h"):
        assert text in gpu
        gpu = gpu.split(text, 1)[1]
    assert "2025-09" in lines[-1]


def test_a_month_that_is_over_has_no_forecast(billed, at):
    found = json.loads(aion("meters", "--month", "2025-09", "--json", *at).out)
    assert (found["month"], found["over"], found["usd_forecast"]) == ("2025-09", True, None)
    (gpu,) = next(one for one in found["backends"] if one["backend"] == "colab")["meters"]
    assert (gpu["total"], gpu["forecast"], gpu["said"], gpu["differs"]) == (11.0, None, None, None)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("hours", 28.46, "28.5 h"),
        ("usd", 1234.5, "$1,234.50"),
        ("requests", 12300.0, "12,300"),
        ("bytes", 999.0, "999 B"),
        ("bytes", 1234567890.0, "1.23 GB"),
        ("bytes", 5e12, "5,000 GB"),
    ],
)
def test_amounts_are_written_as_people_write_them(unit, value, text):
    assert amount(unit, value) == text


@pytest.mark.parametrize(
    ("used", "reserved", "bar"),
    [
        (0, 0, "░░░░░░░░░░"),
        (50, 10, "█████▒░░░░"),
        (100, 0, "██████████"),
        (130, 0, "██████████"),
        (95, 5, "██████████"),
    ],
)
def test_a_bar_shows_what_is_used_and_set_aside(used, reserved, bar):
    assert drawn(used, reserved, 100) == bar
