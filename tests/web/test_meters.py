"""`/api/meters` and the gauges of `/metrics`."""

from dataclasses import replace

import pytest

from orchestrator.core.events import Reconfigured, Spent
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.windows import Per, Window
from tests.web.webkit import run

CALLS = MeterSpec("lab:requests", Unit.REQUESTS, 100.0, Window(Per.DAY), "lab")
CREDIT = MeterSpec("lab:usd", Unit.USD, None, backend="lab", rate_per_hour=0.5)


async def metered(site):
    specs = {spec.key: spec for spec in (CALLS, CREDIT)}
    config = replace(site.stand.fleet.config, meters=specs)
    site.stand.feed(Reconfigured(config))
    site.stand.feed(Spent((("lab:requests", 85.0),)))


def test_meters_are_shown_as_they_stand():
    async def test(site):
        await metered(site)
        calls, credit = (await site.admin.get("/api/meters")).json()
        assert (calls["key"], calls["backend"], calls["unit"]) == (
            "lab:requests",
            "lab",
            "requests",
        )
        assert (calls["used"], calls["reserved"], calls["left"]) == (85, 2, 13)
        assert (calls["level"], calls["limit"], calls["per"]) == (80, 100, "day")
        assert calls["starts_again_at"].endswith("T00:00:00Z")
        assert (credit["limit"], credit["left"], credit["spent_until"]) == (None, None, None)

    run(test)


def test_meters_need_the_admin_token():
    async def test(site):
        assert (await site.client.get("/api/meters")).status_code == 401

    run(test)


def test_a_month_says_what_it_took_and_what_it_comes_to():
    async def test(site):
        await metered(site)
        found = (await site.admin.get("/api/meters?month=")).json()
        assert (found["over"], found["timezone"]) == (False, "UTC")
        assert found["months"] == [found["month"]]
        lab = next(one for one in found["backends"] if one["backend"] == "lab")
        calls = next(one for one in lab["meters"] if one["key"] == "lab:requests")
        assert calls["counted"] == 85
        assert calls["forecast"] >= 85
        assert (calls["said"], calls["differs"]) == (None, None)
        assert (lab["starts"], lab["usd"]) == (None, 0)

    run(test)


def test_what_is_taken_out_of_the_file_stays_in_the_receipt_of_its_month():
    async def test(site):
        await metered(site)
        config, gone = site.stand.fleet.config, MeterSpec("rented:usd", Unit.USD, 9.0)
        rented = replace(gone, backend="rented")
        site.stand.feed(Reconfigured(replace(config, meters={**config.meters, gone.key: rented})))
        site.stand.feed(Spent(((gone.key, 2.5), ("lab:requests", 1.0))))
        site.stand.feed(Reconfigured(replace(config, meters={})))
        found = (await site.admin.get("/api/meters?month=")).json()
        lab, other = found["backends"]
        assert (lab["backend"], [one["total"] for one in lab["meters"]]) == ("lab", [86])
        assert (other["backend"], other["usd"], other["starts"]) == ("rented", 2.5, None)
        assert (found["usd"], found["usd_forecast"]) == (2.5, 2.5)
        assert (await site.admin.get("/api/meters")).json() == []

    run(test)


@pytest.mark.parametrize(
    ("month", "status", "says"),
    [
        ("1999-12", 404, "nothing is known of 1999-12"),
        ("2999-12", 404, "nothing is known of 2999-12"),
        ("november", 422, "expected a month"),
    ],
)
def test_a_month_of_which_nothing_is_known_is_refused(month, status, says):
    async def test(site):
        found = await site.admin.get("/api/meters", params={"month": month})
        assert found.status_code == status
        assert says in found.json()["detail"]

    run(test)


def test_prometheus_sees_them():
    async def test(site):
        await metered(site)
        text = (await site.admin.get("/metrics")).text
        labels = '{backend="lab",meter="lab:requests",unit="requests"}'
        for name, value in (("used", 85), ("reserved", 2), ("limit", 100), ("left", 13)):
            assert f"aion_meter_{name}{labels} {value}.0" in text
        assert 'aion_meter_limit{backend="lab",meter="lab:usd"' not in text

    run(test)
