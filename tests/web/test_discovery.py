import asyncio
import json
import time  # noqa: TID251 - measures real time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webkit import Site, backend, run, serving, world

from orchestrator.core.events import Observed, Pause, Reconfigured
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.specs import FleetConfig, Service
from orchestrator.web.discovery import matches

TAGS = st.text(alphabet=st.characters(min_codepoint=0x23, max_codepoint=0x7E), max_size=8)


def test_the_answer_is_what_the_contract_says():
    async def test(site: Site) -> None:
        answer = await site.client.get("/discovery/chat")
        assert answer.status_code == 200
        shown = answer.json()
        assert shown.pop("as_of").endswith("Z")
        assert shown["active"].pop("since").endswith("Z")
        assert shown == {
            "service": "chat",
            "epoch": 1,
            "state": "serving",
            "active": {
                "backend": "colab",
                "url": "http://colab.example:8000",
                "models": ["qwen3:8b"],
                "ends_at": None,
            },
            "gateway": None,
            "fallbacks": [
                {"backend": "kaggle", "url": "http://kaggle.example:8000"},
                {"backend": "lab", "url": "http://lab.example:8000"},
            ],
            "retry_at": None,
        }
        assert answer.headers["cache-control"] == "max-age=2"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "etag" in answer.headers["access-control-expose-headers"].lower()
        assert "server" not in answer.headers

    run(test)


def test_one_address_tells_of_all_services_and_of_the_first_in_the_same_shape():
    async def test(site: Site) -> None:
        shown = (await site.client.get("/discovery")).json()
        assert (shown["service"], shown["active"]["backend"]) == ("chat", "colab")
        assert list(shown["services"]) == ["chat", "embed"]
        assert shown["services"]["embed"]["active"]["backend"] == "kaggle"
        assert (await site.client.get("/discovery/")).json() == shown

    run(test)


def test_the_list_of_all_services_says_at_any_time_what_each_of_them_says():
    async def test(site: Site) -> None:
        for name in ("colab", "kaggle", "lab"):
            listed = (await site.client.get("/discovery")).json()["services"]
            for service, told in listed.items():
                alone = (await site.client.get(f"/discovery/{service}")).json()
                assert told == {key: value for key, value in alone.items() if key != "as_of"}
            site.stand.seen(name, Verdict.FAILED, times=3)
        listed = (await site.client.get("/discovery")).json()["services"]
        assert {told["state"] for told in listed.values()} == {"down"}

    run(test)


def test_a_cool_down_shows_and_so_does_its_end_which_comes_by_time_alone():
    async def test(site: Site) -> None:
        async def fallbacks() -> list[str]:
            told = (await site.client.get("/discovery/chat")).json()
            return [one["backend"] for one in told["fallbacks"]]

        assert await fallbacks() == ["kaggle", "lab"]
        busy = Observation("kaggle", Source.PROBE, Verdict.BUSY, retry_after_s=30.0)
        site.stand.feed(Observed(busy, site.stand.at))
        site.stand.pass_time(29)
        assert await fallbacks() == ["lab"]
        site.stand.pass_time(2)
        assert await fallbacks() == ["kaggle", "lab"]

    run(test)


def test_an_unchanged_answer_is_told_by_304_and_the_time_alone_changes_nothing():
    async def test(site: Site) -> None:
        first = await site.client.get("/discovery/chat")
        tag = first.headers["etag"]
        site.stand.pass_time(120)
        for value in (tag, f"W/{tag}", f'"other", {tag}', "*", f'W/"x",W/{tag}'):
            again = await site.client.get("/discovery/chat", headers={"if-none-match": value})
            assert (again.status_code, again.content) == (304, b""), value
            assert again.headers["etag"] == tag
            assert again.headers["access-control-allow-origin"] == "*"
        site.stand.seen("colab", Verdict.FAILED, times=3)
        moved = await site.client.get("/discovery/chat", headers={"if-none-match": tag})
        assert (moved.status_code, moved.json()["active"]["backend"]) == (200, "kaggle")
        assert moved.headers["etag"] != tag

    run(test)


def test_a_change_shows_in_the_very_next_answer():
    async def test(site: Site) -> None:
        for name, epoch in (("colab", 1), ("kaggle", 2), ("lab", 3)):
            shown = (await site.client.get("/discovery/chat")).json()
            assert (shown["active"]["backend"], shown["epoch"]) == (name, epoch)
            site.stand.seen(name, Verdict.FAILED, times=3)
        shown = (await site.client.get("/discovery/chat")).json()
        assert (shown["state"], shown["active"], shown["fallbacks"]) == ("down", None, [])
        assert shown["retry_at"] is not None

    run(test)


def test_before_anything_was_looked_at_the_state_is_starting():
    async def test(site: Site) -> None:
        shown = (await site.client.get("/discovery/chat")).json()
        assert (shown["state"], shown["active"]) == ("starting", None)

    run(test, settled=False)


def test_a_suspect_backend_and_a_pause_are_told():
    async def test(site: Site) -> None:
        async def state() -> str:
            return (await site.client.get("/discovery/chat")).json()["state"]

        site.stand.seen("colab", Verdict.FAILED)
        assert await state() == "degraded"
        site.stand.seen("colab")
        assert await state() == "serving"
        site.stand.feed(Pause(5.0))
        assert await state() == "paused"
        site.stand.pass_time(6)
        assert await state() == "serving"

    run(test)


def test_the_shadow_is_told_as_a_pause():
    async def test(site: Site) -> None:
        assert (await site.client.get("/discovery/chat")).json()["state"] == "paused"

    run(test, config=world(shadow=True))


def test_the_address_of_an_api_is_never_shown():
    async def test(site: Site) -> None:
        for path in ("/discovery", "/discovery/chat", "/status"):
            assert "groq.example" not in (await site.client.get(path)).text
        assert "groq" not in (await site.client.get("/discovery/chat")).text

    run(test)


def test_other_methods_and_names_are_refused_in_words():
    async def test(site: Site) -> None:
        wrong = await site.client.get("/discovery/chatt")
        assert (wrong.status_code, wrong.json()["nearest"]) == (404, "chat")
        assert wrong.headers["access-control-allow-origin"] == "*"
        assert (await site.client.get("/discovery/chat/x/y")).status_code == 404
        assert (await site.client.get("/discoveryx")).status_code == 404
        posted = await site.client.post("/discovery/chat")
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        head = await site.client.head("/discovery/chat")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 100
        preflight = await site.client.options("/discovery/chat")
        assert preflight.status_code == 204
        assert "If-None-Match" in preflight.headers["access-control-allow-headers"]

    run(test)


def test_a_new_configuration_brings_and_takes_services():
    async def test(site: Site) -> None:
        config = world()
        lab = FleetConfig(
            backends={"lab": config.backends["lab"]}, services={"only": Service("only", ("lab",))}
        )
        site.stand.feed(Reconfigured(lab))
        assert (await site.client.get("/discovery/chat")).status_code == 404
        assert (await site.client.get("/discovery/only")).json()["active"]["backend"] == "lab"
        assert list((await site.client.get("/discovery")).json()["services"]) == ["only"]

    run(test)


def test_probes_that_show_nothing_new_prepare_nothing():
    async def test(site: Site) -> None:
        prepared = site.web.discovery._prepared["chat"]
        site.stand.seen("colab", times=50)
        await site.client.get("/discovery/chat")
        assert site.web.discovery._prepared["chat"] is prepared

    run(test)


async def lines(client: httpx.AsyncClient, path: str, found: list[dict]) -> None:
    async with client.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))  # noqa: PERF401 - read as it grows


def test_listeners_are_told_at_once_and_at_each_change():
    async def test(site: Site) -> None:
        found: list[dict] = []
        task = asyncio.create_task(lines(site.client, "/discovery/chat/events", found))
        await site.until(lambda: len(found) == 1)
        assert found[0]["active"]["backend"] == "colab"
        site.stand.seen("colab", Verdict.FAILED, times=3)
        await site.until(lambda: found[-1]["active"]["backend"] == "kaggle")
        plain = (await site.client.get("/discovery/chat")).json()
        assert found[-1] == plain
        task.cancel()
        await asyncio.wait([task])
        await site.until(lambda: site.web.streams.open == 0)

    run(test)


def test_streams_end_at_once_when_the_daemon_stops():
    async def whole() -> float:
        found: list[dict] = []
        async with serving() as site:
            client = httpx.AsyncClient(base_url=site.url)
            task = asyncio.create_task(lines(client, "/discovery/chat/events", found))
            await site.until(lambda: len(found) == 1)
            begun = time.perf_counter()
        took_s = time.perf_counter() - begun
        await asyncio.wait([task], timeout=60)
        assert task.done()
        assert task.exception() is None, "the stream ended in good order"
        await client.aclose()
        return took_s

    assert any(asyncio.run(whole()) < 2.0 for _ in range(5))  # a busy machine is slow at times


def test_quiet_streams_are_kept_alive_and_too_many_are_refused():
    async def test(site: Site) -> None:
        site.web.streams.keep_alive_s = 0.05
        site.web.streams.limit = 1
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /discovery/chat/events HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(60):
            await reader.readuntil(b": still here")
            await reader.readuntil(b": still here")
        refused = await site.client.get("/discovery/chat/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        writer.transport.abort()
        await site.until(lambda: site.web.streams.open == 0)

    run(test)


def test_one_far_client_cannot_take_all_streams():
    async def test(site: Site) -> None:
        site.web.streams.each = 1
        far = (
            b"GET /discovery/chat/events HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
        )
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(far)
        await site.until(lambda: site.web.streams.open == 1)
        headers = {"x-forwarded-for": "198.51.100.1, 192.0.2.7"}
        answer = await site.client.get("/discovery/chat/events", headers=headers)
        assert answer.status_code == 503
        writer.transport.abort()

    run(test)


def test_a_thousand_backends_coming_up_are_prepared_in_one_go():
    names = [f"b{number:04}" for number in range(300)]
    config = FleetConfig(
        backends={name: backend(name) for name in names},
        services={"chat": Service("chat", tuple(names))},
    )

    async def test(site: Site) -> None:
        begun = time.process_time()
        site.stand.settle()
        shown = (await site.client.get("/discovery/chat")).json()
        names = [one["backend"] for one in shown["fallbacks"]]
        assert len(names) == 10, "the next ones, not all of them"
        assert time.process_time() - begun < 3.0

    run(test, config=config, settled=False)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), TAGS), max_size=6), TAGS, st.sampled_from([",", ", ", " ,"])
)
def test_if_none_match_finds_the_tag_wherever_it_stands(others, mine, comma):
    etag = b'"%s"' % mine.encode()
    listed = [("W/" if weak else "") + f'"{tag}"' for weak, tag in others]
    header = comma.join(listed).encode()
    assert matches(header, etag) == any(tag == mine for _, tag in others)
    assert matches(comma.join([*listed, f'W/"{mine}"']).encode(), etag)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_hostile_if_none_match_never_breaks_anything(header):
    assert matches(header, b'"0123456789"') in (True, False)


@pytest.mark.parametrize("header", [b'"a', b"a", b"W/", b",,,", b'""', b'"a""b"', b"* , x"])
def test_what_is_not_a_tag_matches_nothing(header):
    assert not matches(header, b'"a1"')
