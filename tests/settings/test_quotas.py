"""Quotas, costs and budgets of the file become meters, or problems that say where and what."""

from datetime import datetime

import pytest

from orchestrator.core.meters import EGRESS, Unit
from orchestrator.core.windows import Per, Window
from orchestrator.errors import ConfigError
from orchestrator.settings import load

LAB = '[backends.lab]\nkind = "static"\nurl = "http://127.0.0.1:9"\n'


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "aion.toml"
        path.write_text(text)
        return load(path, environ={"STATE_DIRECTORY": str(tmp_path)})

    return read


def meters(config):
    return {key: spec for key, spec in config.fleet.meters.items() if key != EGRESS}


def test_hours_a_week_begin_when_the_provider_says_so(read):
    quota = 'quota = { limit = "30h", per = "week", resets = "saturday 07:00" }\n'
    spec = meters(read(LAB + quota))["lab:hours"]
    assert (spec.unit, spec.limit, spec.rate_per_hour, spec.backend) == (Unit.HOURS, 30, 1, "lab")
    assert spec.window == Window(Per.WEEK, weekday=5, hour=7)


def test_a_quota_may_limit_several_things_at_once(read):
    quota = (
        "quota = { requests = 1000, tokens = 500000, per = 'day', timezone = 'America/New_York' }\n"
    )
    found = meters(read(LAB + quota))
    assert {key: spec.limit for key, spec in found.items()} == {
        "lab:requests": 1000,
        "lab:tokens": 500000,
    }
    assert found["lab:tokens"].window == Window(Per.DAY, "America/New_York")
    assert found["lab:tokens"].rate_per_hour is None


def test_credit_ends_where_its_last_day_begins_by_the_operators_clock(read):
    text = 'timezone = "Europe/Lisbon"\n' + LAB
    text += "cost = { per_hour = 0.35, limit = 300, expires = 2027-02-18 }\n"
    spec = meters(read(text))["lab:usd"]
    assert (spec.limit, spec.rate_per_hour) == (300, 0.35)
    assert spec.window.expires_at == datetime.fromisoformat("2027-02-18T00:00+00:00").timestamp()
    assert spec.window.per is Per.EVER


def test_a_rolling_quota_rolls(read):
    found = meters(read(LAB + 'quota = { limit = "2h", per = "day", rolling = true }\n'))
    assert found["lab:hours"].window.rolling


def test_a_free_tunnel_has_a_budget_that_bars_nobody(read):
    text = '[backends.lab]\nkind = "static"\nurl = "https://x.ngrok-free.app"\n'
    text += '[backends.own]\nkind = "static"\nurl = "https://x.example.org"\n'
    found = meters(read(text))
    assert list(found) == ["lab:tunnel"]
    assert (found["lab:tunnel"].limit, found["lab:tunnel"].advisory) == (20_000, True)


def test_what_we_send_is_counted_with_a_limit_or_without(read):
    assert read(LAB).fleet.meters[EGRESS].limit is None
    limited = read("[server]\negress_limit = 1000000000\n" + LAB)
    assert limited.fleet.meters[EGRESS].limit == 1e9


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        ("per = 'day'", "nothing is limited"),
        ("limit = '25h', per = 'day'", "more than a day has"),
        ("requests = 9, per = 'week', resets = 'someday'", "expected a day, an hour or both"),
        ("requests = 9, per = 'week', resets = ''", "expected a day, an hour or both"),
        ("requests = 9, per = 'day', resets = 'sunday'", "does not begin on a day of the week"),
        ("requests = 9, per = 'minute', resets = '07:00'", "begins when the clock says so"),
        (
            "requests = 9, per = 'week', resets = 'sunday', rolling = true",
            "does not begin anew at any time",
        ),
        ("requests = 9, per = 'week', timezone = 'Mars'", "no such time zone"),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(read, quota, said):
    with pytest.raises(ConfigError, match=said):
        read(f"{LAB}quota = {{ {quota} }}\n")
