"""`/api/plan`: what it answers, to whom, and that the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from orchestrator.core.lives import Session
from orchestrator.core.meters import MeterSpec, Unit
from orchestrator.core.model import BackendState, Health
from orchestrator.core.specs import Backend, FleetConfig, HealthPolicy, Service, Tier
from orchestrator.web.planning import still
from tests.web.webkit import START, run

HOUR = 3600.0
CALM = HealthPolicy(canary_s=None)


def config() -> FleetConfig:
    """A notebook, and a machine on credit."""
    colab = Backend(
        "colab", "notebook", "ollama", 10, registers=True, session_s=12 * HOUR,
        restart_url="https://colab.example/nb", health=CALM,
    )  # fmt: skip
    vm = Backend(
        "vm", "gce", "vllm", 30, Tier.CREDIT, url="http://vm.example", powered=True,
        auto_start=True, health=CALM,
    )  # fmt: skip
    meter = MeterSpec("vm:usd", Unit.USD, 300.0, backend="vm", rate_per_hour=0.5)
    return FleetConfig(
        {"colab": colab, "vm": vm},
        {"chat": Service("chat", ("colab", "vm")), "embed": Service("embed", ("vm",))},
        meters={meter.key: meter},
    )


def _colab_serves(site, left_h: float) -> None:
    session = Session("s", START, START, ends_at=START + left_h * HOUR)
    site.stand.fleet.backends["colab"] = BackendState("colab", Health.UP, session=session)
    down = BackendState("vm", Health.DOWN, reason="off")
    site.stand.fleet.backends["vm"] = down


def test_it_shows_who_serves_what_to_start_and_what_it_costs():
    async def go(site):
        _colab_serves(site, 3.0)
        answer = await site.admin.get("/api/plan", params={"hours": 6})
        assert answer.status_code == 200
        seen = answer.json()
        assert [one["service"] for one in seen["services"]] == ["chat", "embed"]
        chat, embed = seen["services"]
        assert [(p["backend"], p["how"]) for p in chat["line"]] == [
            ("colab", "serving"),
            ("colab", "hand"),
        ]
        (ask,) = chat["asks"]
        assert (ask["backend"], ask["url"]) == ("colab", "https://colab.example/nb")
        assert ask["at"] < ask["by"] < ask["needed_at"]
        assert [p["how"] for p in embed["line"]] == ["uncovered", "auto"]
        assert embed["line"][1]["usd"] == round(0.5 * (6 - 300 / 3600), 4)
        assert seen["usd"] == 3.0
        (gap,) = embed["gaps"]
        assert gap["others"][0]["backend"] == "vm"

    run(go, config())


def test_one_service_alone_is_planned_with_all_and_shown_alone():
    async def go(site):
        _colab_serves(site, 3.0)
        both = (await site.admin.get("/api/plan")).json()
        one = (await site.admin.get("/api/plan", params={"service": "embed"})).json()
        assert one["services"] == both["services"][1:]

    run(go, config())


def test_what_is_no_horizon_or_no_service_is_refused():
    async def go(site):
        for hours in ("0", "-1", "337", "nan", "soon"):
            answer = await site.admin.get("/api/plan", params={"hours": hours})
            assert answer.status_code == 422, hours
        answer = await site.admin.get("/api/plan", params={"service": "chatt"})
        assert answer.status_code == 404
        assert "chat" in answer.json()["detail"]
        assert (await site.client.get("/api/plan")).status_code == 401

    run(go, config())


def test_the_loop_goes_on_changing_the_fleet_while_it_is_planned():
    """A plan is made of the fleet as it was: backends come and go meanwhile."""

    async def go(site):
        _colab_serves(site, 3.0)
        asked = [
            asyncio.create_task(site.admin.get("/api/plan", params={"hours": 300}))
            for _ in range(5)
        ]
        fleet = site.stand.fleet
        while not all(one.done() for one in asked):
            fleet.backends["extra"] = BackendState("extra")
            await asyncio.sleep(0)
            fleet.backends.pop("extra")
            await asyncio.sleep(0)
        assert [one.result().status_code for one in asked] == [200] * 5

    run(go, config())


def test_a_still_of_the_fleet_does_not_move_with_it():
    async def go(site):
        fleet = site.stand.fleet
        kept = still(fleet)
        fleet.backends["vm"] = replace(fleet.backends["vm"], drained=True)
        fleet.services.clear()
        assert not kept.backends["vm"].drained
        assert set(kept.services) == {"chat", "embed"}

    run(go, config())


def test_how_long_a_human_takes_is_shown_with_the_backend():
    async def go(site):
        _colab_serves(site, 3.0)
        answer = (await site.admin.get("/api/backends/colab")).json()
        assert answer["hand_start_s"] is None
        fleet = site.stand.fleet
        slow = (60.0, 90.0, 600.0)
        fleet.backends["colab"] = replace(fleet.backends["colab"], hand_starts=slow)
        answer = (await site.admin.get("/api/backends/colab")).json()
        assert answer["hand_start_s"] == 600.0

    run(go, config())
