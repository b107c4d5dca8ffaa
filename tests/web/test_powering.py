"""What starting and stopping has to do with how a backend stands, in words."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from orchestrator.core.lives import Power, PowerPhase
from orchestrator.core.meters import MeterSpec, MeterState, Slot, Unit
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.core.onhours import OnHours
from orchestrator.core.windows import FOREVER
from orchestrator.web.powering import power_view, words
from tests.core.clouds import vm
from tests.core.worlds import config

LISBON = "Europe/Lisbon"
DAY = OnHours(8 * 60, 19 * 60)


def at(text):
    wall = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(LISBON)).timestamp()
    return Now(wall, wall)


def fleet(power, hours=DAY, meters=()):
    found = config(
        vm("v", on_hours=hours), timezone=LISBON, meters={one.key: one for one in meters}
    )
    return Fleet(found, backends={"v": BackendState("v", power=power)})


OFF = Power(PowerPhase.OFF, confirmed_at=1.0)
ON = replace(OFF, phase=PowerPhase.ON, launch="aion-aion-v-1", booted=True)


@pytest.mark.parametrize(
    ("power", "now", "says"),
    [
        (ON, "2026-11-23T12:00", "on until Mon 19:00 by its hours"),
        (ON, "2026-11-23T20:00", ""),
        (OFF, "2026-11-23T12:00", "off in its hours, which end Mon 19:00"),
        (
            OFF,
            "2026-11-23T20:00",
            "off; it is started when nobody cheaper can serve, and Tue 08:00 by its hours",
        ),
    ],
)
def test_the_hours_are_said_where_they_matter(power, now, says):
    assert words(fleet(power), "v", at(now)) == says


def test_one_that_too_little_is_left_for_says_of_what():
    spec = MeterSpec("v:usd", Unit.USD, 5.0, backend="v", rate_per_hour=2.0)
    found = fleet(OFF, None, [spec])
    found.meters["v:usd"] = MeterState("v:usd", slots=(Slot(FOREVER, 4.7),))
    said = words(found, "v", at("2026-11-23T12:00"))
    assert said == "off; too little is left of v:usd for a start"


def test_programs_see_until_when_it_should_be_on_and_from_when_next():
    found, now = fleet(ON), at("2026-11-23T12:00")
    view = power_view(found.backends["v"], found.config.backends["v"], now, LISBON)
    assert (view.on_until, view.on_from) == ("2026-11-23T19:00:00Z", "2026-11-24T08:00:00Z")
