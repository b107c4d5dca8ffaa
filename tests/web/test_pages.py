import asyncio
import re
import socket
import time  # noqa: TID251 - measures real time

import httpx
import pytest
from webkit import Site, backend, run, serving

from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.specs import FleetConfig, Service
from orchestrator.errors import AionError
from orchestrator.web.server import Server


def test_health_is_that_the_loop_turns_and_readiness_that_all_was_looked_at():
    async def test(site: Site) -> None:
        assert (await site.client.get("/healthz")).text == "ok\n"
        unready = await site.client.get("/readyz")
        assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
        site.stand.settle()
        assert (await site.client.get("/readyz")).status_code == 200
        site.stand.at += 11.0
        for path in ("/healthz", "/readyz"):
            assert (await site.client.get(path)).status_code == 503
        assert (await site.client.post("/healthz")).status_code == 405

    run(test, settled=False)


def test_the_gateway_to_come_answers_as_openai_would():
    async def test(site: Site) -> None:
        answer = await site.client.post("/v1/chat/completions", json={"model": "x"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["access-control-allow-origin"] == "*"
        assert (await site.client.get("/v1/models")).status_code == 503
        assert (await site.client.options("/v1/models")).status_code == 204

    run(test)


def test_the_status_page_says_names_and_states_and_nothing_else():
    async def test(site: Site) -> None:
        site.stand.seen("lab", Verdict.FAILED, times=3)
        for path in ("/", "/status"):
            page = await site.client.get(path)
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "Everything is being served" in page.text
            for hidden in ("example:8000", "qwen3", "seen so", "<script"):
                assert hidden not in page.text
        style = await site.client.get("/static/aion.css")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        headers = {"if-none-match": style.headers["etag"]}
        assert (await site.client.get("/static/aion.css", headers=headers)).status_code == 304
        for path in ("/static/../app.py", "/static/status.html", "/favicon.ico", "/nothing"):
            assert (await site.client.get(path)).status_code == 404

    run(test)


def test_the_status_page_speaks_portuguese_when_told_to():
    async def test(site: Site) -> None:
        page = (await site.client.get("/status")).text
        assert 'lang="pt"' in page
        assert "Tudo está a ser servido" in page

    run(test, language="pt")


def test_a_hostile_name_is_only_text_on_the_page():
    name = "<script>alert(1)</script>"
    config = FleetConfig(backends={name: backend(name)}, services={"<b>": Service("<b>", (name,))})

    async def test(site: Site) -> None:
        page = (await site.client.get("/status")).text
        assert "<script" not in page
        assert "&lt;script&gt;" in page
        assert "<b>&lt;" in page, "the active one's name stands inside our own tag"

    run(test, config=config)


def test_the_documentation_needs_nothing_from_outside():
    async def test(site: Site) -> None:
        page = await site.client.get("/docs")
        assert page.status_code == 200
        assert not re.search(r"(?:src|href)=.(?:https?:)?//", page.text)
        document = (await site.client.get("/openapi.json")).json()
        for path in document["paths"]:
            assert path in page.text
        assert document["components"]["schemas"]["StatusView"]["properties"]["as_of"]
        for path, methods in document["paths"].items():
            for method, one in methods.items():
                good = next(
                    one["responses"][s]
                    for s in ("200", "201", "202", "204")
                    if s in one["responses"]
                )
                content = good.get("content", {"none": {"schema": "204"}})
                assert next(iter(content.values()))["schema"], (path, method)

    run(test)


def test_metrics_need_the_token_or_a_listener_of_their_own():
    async def test(site: Site) -> None:
        seen = Observation("colab", Source.PROBE, Verdict.OK, latency_s=0.02)
        site.web.metrics.observe_probe(seen)
        site.web.metrics.turn(0.0002)
        site.web.metrics.committed(0.003)
        assert (await site.client.get("/metrics")).status_code == 401
        text = (await site.admin.get("/metrics")).text
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.metrics_port}") as other:
            own = await other.get("/metrics")
            assert own.status_code == 200
            assert (await other.get("/api/status")).status_code == 404
        for line in (
            'aion_backend_health{backend="colab",health="up"} 1.0',
            'aion_observations_total{backend="colab",source="probe",verdict="ok"} 1.0',
            'aion_backend_latency_seconds_sum{backend="colab"} 0.02',
            'aion_service_epoch{service="chat"} 1.0',
            'aion_service_active{backend="colab",service="chat"} 1.0',
            'aion_service_state{service="chat",state="serving"} 1.0',
            'aion_service_moves_total{service="chat"} 0.0',
            'aion_incidents{severity="critical"} 0.0',
            'aion_build_info{version="1.2.3"} 1.0',
            'aion_probe_seconds_bucket{le="0.025"} 1.0',
            "aion_turn_seconds_count 1.0",
            "aion_inbox_depth 0.0",
            "process_resident_memory_bytes",
        ):
            assert line in text, line
            assert line.split(" ")[0] in own.text
        site.stand.seen("colab", Verdict.FAILED, times=3)
        moved = (await site.admin.get("/metrics")).text
        assert 'aion_service_moves_total{service="chat"} 1.0' in moved

    run(test, metrics=("127.0.0.1", 0))


def test_metrics_count_the_tasks_on_the_event_loop():
    async def test(site: Site) -> None:
        async def tasks() -> float:
            text = (await site.admin.get("/metrics")).text
            (line,) = [line for line in text.splitlines() if line.startswith("aion_tasks ")]
            return float(line.split(" ")[1])

        before = await tasks()
        made = [asyncio.create_task(asyncio.Event().wait()) for _ in range(50)]
        assert before + 40 <= await tasks() <= before + 60  # some are the requests' own
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)
        assert await tasks() <= before + 10

    run(test)


def test_a_port_in_use_is_one_clear_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AionError, match=f"^127.0.0.1:{port} is in use by another program; "):
            Server(None, "127.0.0.1", port).bind()  # type: ignore[arg-type]
    first = Server(None, "127.0.0.1", 0)  # type: ignore[arg-type]
    first.bind()
    with pytest.raises(AionError, match="in use"):
        Server(None, "127.0.0.1", first.port).bind()  # type: ignore[arg-type]
    asyncio.run(first.stop())
    with pytest.raises(AionError, match="not an address of this machine"):
        Server(None, "203.0.113.1", 8765).bind()  # type: ignore[arg-type]


def test_a_stop_waits_for_nobody_longer_than_five_seconds():
    async def whole() -> float:
        async with serving() as site:

            async def stuck(scope, receive, send):
                await asyncio.Event().wait()

            site.web._rest._app = stuck
            task = asyncio.create_task(site.client.get("/healthz"))
            await site.until(lambda: site.web._rest.at_work == 1)
            begun = time.perf_counter()
            task.add_done_callback(lambda done: done.exception())
        return time.perf_counter() - begun

    assert any(asyncio.run(whole()) < 5.0 for _ in range(5))  # a busy machine is slow at times
