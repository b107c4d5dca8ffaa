"""What each engine's answers mean, against answers that come from its own documentation or code."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backends
from backends.engines import ENGINES
from backends.engines.asking import LIST_EVERY_S, read_canary, read_health, read_list
from orchestrator.core.model import Source, Verdict
from tests.backends.worlds import HandClock, TableHttp, driver, plan, reply

FIXTURES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "fixtures").glob("*.json"))
}
CASES = [
    pytest.param(name, case, id=f"{name}-{case['ask']}-{case['says']}")
    for name, file in FIXTURES.items()
    for case in file["cases"]
]
GOOD_LIST = {"object": "list", "data": [{"id": "m"}]}


def good_health(engine):
    return next(
        c for c in FIXTURES[engine]["cases"] if c["ask"] == "health" and c["verdict"] == "ok"
    )


def answer(case):
    body = case["text"] if "text" in case else case["body"]
    return reply(case["status"], body, case.get("headers", {}))


def run(coroutine):
    return asyncio.run(coroutine)


def observe(engine, case):
    made = plan(engine=engine, models=case.get("models"))
    spec = ENGINES[engine]
    if case["ask"] == "canary":
        http = TableHttp({spec.canary("m").path: answer(case)})
        return run(driver(http, made).canary())
    if case["ask"] == "models" and spec.models is not None:
        http = TableHttp({spec.health: answer(good_health(engine)), spec.models: answer(case)})
    else:
        http = TableHttp({spec.health: answer(case)})
    return run(driver(http, made).probe())


@pytest.mark.parametrize(("name", "case"), CASES)
def test_an_engine_is_read_as_its_source_says(name, case):
    engine = FIXTURES[name].get("engine_used", name)
    seen = observe(engine, case)
    assert (seen.verdict.value, seen.detail) == (case["verdict"], case["detail"]), case["source"]
    assert seen.source is (Source.CANARY if case["ask"] == "canary" else Source.PROBE)
    if case["ask"] == "models":
        assert list(seen.missing) == case["missing"]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_fixture_names_its_source_or_says_why_it_has_none(name, case):
    assert case["source"] or case.get("why")


def test_every_engine_has_fixtures_and_a_name_in_the_registry():
    assert set(ENGINES) | {"http", "tcp"} == set(backends.ENGINES)
    assert set(ENGINES) <= set(FIXTURES)
    for name in ENGINES:
        assert {"health", "models", "canary"} <= {case["ask"] for case in FIXTURES[name]["cases"]}


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_tunnels_page_is_never_taken_for_the_engine(engine):
    for case in FIXTURES["tunnels"]["cases"]:
        seen = observe(engine, case)
        assert (seen.verdict.value, seen.detail) == (case["verdict"], case["detail"])


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize(
    "body", ["", "null", "[]", "42", '"text"', "{", "\x00", '{"status": {"a": []}}', "[" * 5000]
)
@pytest.mark.parametrize("status", [200, 204, 401, 404, 418, 429, 500, 503])
def test_no_body_makes_a_driver_raise(engine, body, status):
    spec = ENGINES[engine]
    odd = reply(status, body)
    paths = {spec.health, spec.models or "", spec.canary("m").path}
    made = driver(TableHttp(dict.fromkeys(paths, odd)), plan(engine=engine, models={"m": "m"}))
    probed = run(made.probe())
    canaried = run(made.canary())
    if status >= 400:
        assert probed.verdict is not Verdict.OK
    if status in {401, 429}:
        assert probed.verdict is {401: Verdict.DENIED, 429: Verdict.BUSY}[status]
    if status in {404, 418, 500}:
        assert canaried.verdict is Verdict.FAILED


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_an_engine_that_does_not_answer_has_failed_in_the_networks_words(engine):
    spec = ENGINES[engine]
    made = driver(TableHttp({spec.health: "connection refused"}), plan(engine=engine))
    seen = run(made.probe())
    assert (seen.verdict, seen.detail) == (Verdict.FAILED, "connection refused")


def test_litellms_health_is_never_asked_because_it_calls_every_model():
    spec = ENGINES["litellm"]
    assert FIXTURES["litellm"]["never_ask"] == ["/health"]
    http = TableHttp(
        {spec.health: answer(good_health("litellm")), "/v1/models": reply(200, GOOD_LIST)}
    )
    made = driver(http, plan(engine="litellm", models={"m": "m"}))

    async def some():
        for _ in range(3):
            await made.probe()
        await made.canary()

    run(some())
    assert {path for _, path in http.asked} == {
        "/health/readiness",
        "/v1/models",
        "/v1/chat/completions",
    }


def test_the_model_list_is_asked_at_first_then_once_a_minute_and_after_a_failure():
    clock = HandClock()
    state = {"health": reply(200, {"status": "ok"})}
    http = TableHttp({"/health": lambda: state["health"], "/v1/models": reply(200, GOOD_LIST)})
    made = driver(http, plan(engine="llamacpp", models={"m": "m"}), clock)

    def lists():
        http.asked.clear()
        seen = run(made.probe())
        assert (seen.models is None) == (("GET", "/v1/models") not in http.asked)
        return seen.models is not None

    assert lists()
    clock.now += LIST_EVERY_S - 1
    assert not lists()
    clock.now += 1
    assert lists()
    state["health"] = reply(500)
    assert not lists()
    state["health"] = reply(200, {"status": "ok"})
    assert lists()


def test_a_server_without_our_model_stays_failed_until_it_has_it():
    state = {"list": reply(200, {"data": [{"id": "other"}]})}
    http = TableHttp({"/health": reply(200), "/v1/models": lambda: state["list"]})
    made = driver(http, plan(engine="vllm", models={"ours": "theirs"}))
    for _ in range(3):
        seen = run(made.probe())
        assert (seen.verdict, seen.missing) == (Verdict.FAILED, ("ours",))
        assert seen.detail == "model `theirs` is not there; it has: other"
    state["list"] = reply(200, {"data": [{"id": "theirs"}]})
    assert run(made.probe()).verdict is Verdict.OK


@pytest.mark.parametrize(
    "listing", [reply(404), reply(500), reply(429), reply(200, "nonsense"), "timed out after 4 s"]
)
def test_a_list_that_cannot_be_had_is_no_fault_of_a_healthy_engine(listing):
    http = TableHttp({"/health": reply(200), "/v1/models": listing})
    seen = run(driver(http, plan(engine="vllm", models={"m": "m"})).probe())
    assert (seen.verdict, seen.models, seen.missing) == (Verdict.OK, None, ())


def test_lm_studios_older_list_is_enough_where_the_newer_one_is_missing():
    http = TableHttp(
        {"/v1/models": reply(200, {"data": [{"id": "there"}]}), "/api/v0/models": reply(404)}
    )
    seen = run(driver(http, plan(engine="lmstudio", models={"a": "there", "b": "gone"})).probe())
    assert (seen.verdict, seen.models, seen.missing) == (Verdict.OK, ("there",), ("b",))


def test_hostile_model_names_come_out_short_and_harmless():
    names = ["\x1b[31mred\x1b[0m", "new\nline", "\u202ereversed", "x" * 10_000, "zwj\u200d\u200b"]
    listed = {
        "data": [{"id": n} for n in names]
        + [{"id": f"m{i}"} for i in range(5000)]
        + [{"id": 7}, 7, None]
    }
    http = TableHttp({"/v1/models": reply(200, listed)})
    seen = run(driver(http, plan(models={"a\nb": "our\x07s"})).probe())
    assert seen.verdict is Verdict.FAILED
    assert len(seen.detail) < 700
    assert len(seen.models) <= 500
    for text in (seen.detail, *seen.models):
        assert text.isprintable()
        assert len(text) < 700
    assert "our\\x07s" in seen.detail


def test_the_canary_asks_one_token_of_the_first_configured_model_with_the_key():
    http = TableHttp(
        {"/v1/chat/completions": reply(200, {"choices": [{"message": {"content": ""}}]})}
    )
    made = plan(
        engine="vllm",
        models={"ours": "theirs", "more": "more"},
        key={"credential": "k"},
        secrets={"key": "s3cret"},
    )
    seen = run(driver(http, made).canary())
    assert seen.verdict is Verdict.OK
    [(_, headers, body)] = http.sent
    asked = json.loads(body)
    assert (asked["model"], asked["max_tokens"], asked["stream"]) == ("theirs", 1, False)
    assert headers["Authorization"] == "Bearer s3cret"


def test_no_observation_and_no_repr_holds_the_key():
    http = TableHttp({"/v1/models": reply(401, {"error": "no"})})
    made = plan(key={"credential": "k"}, secrets={"key": "s3cret"})
    seen = run(driver(http, made).probe())
    assert "s3cret" not in repr(seen) + repr(made)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["ok", "None", "loading"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "id",
                    "models",
                    "name",
                    "model",
                    "status",
                    "value",
                    "failed",
                    "aliases",
                    "error",
                    "message",
                    "result",
                    "llm",
                    "version",
                    "model_name",
                    "lora_names",
                    "model_id",
                    "base_model",
                    "state",
                    "choices",
                    "results",
                    "generated_text",
                    "detail",
                    "msg",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    engine=st.sampled_from(sorted(ENGINES)),
    body=JSON,
    status=st.sampled_from([200, 401, 429, 500, 503]),
    headers=st.dictionaries(
        st.sampled_from(
            ["retry-after", "content-type", "location", "ngrok-error-code", "cf-mitigated"]
        ),
        st.text(max_size=12),
    ),
)
def test_whatever_json_a_server_answers_makes_one_printable_line(engine, body, status, headers):
    spec = ENGINES[engine]
    odd = reply(status, body, headers)
    for found in (
        read_health(spec, odd, 0.0),
        read_list(spec, odd, 0.0, {"m": "m"}).finding,
        read_canary(spec, odd, 0.0, spec.canary("m").done(body)),
    ):
        assert found.detail.isprintable()
        assert len(found.detail) <= 700


@pytest.mark.parametrize("engine", ["openai", "lmstudio", "vllm"])
def test_a_model_deep_in_a_very_long_list_is_found(engine):
    listed = {"data": [{"id": f"maker/model-{n}", "description": "x" * 500} for n in range(3000)]}
    sizes = []

    class Whole(TableHttp):
        async def request(self, method, url, *, max_bytes=65536, **keys):
            got = await super().request(method, url, max_bytes=max_bytes, **keys)
            sizes.append(len(got.body))
            assert len(got.body) <= max_bytes
            return got

    http = Whole(
        {"/health": reply(200), "/v1/models": reply(200, listed), "/api/v0/models": reply(404)}
    )
    seen = run(driver(http, plan(engine=engine, models={"ours": "maker/model-2999"})).probe())
    assert (seen.verdict, seen.missing) == (Verdict.OK, ())
    assert len(seen.models) == 500
    assert max(sizes) > 1_000_000


def test_names_that_are_no_text_at_all_do_no_harm():
    broken = reply(200, '{"data": [{"id": "\\ud800"}, {"id": "' + "9" * 100 + '"}]}')
    made = driver(TableHttp({"/v1/models": broken}), plan(models={"a": "b"}))
    seen = run(made.probe())
    assert seen.verdict is Verdict.FAILED
    assert all(name.isprintable() for name in seen.models)
    seen.detail.encode()


def test_engines_without_canaries_are_known_without_asking():
    for name in backends.ENGINES:
        url = "tcp://h:1" if name == "tcp" else "http://h:1"
        made = driver(TableHttp({}), plan(engine=name, url=url))
        assert (run(made.canary()) is None) == (name in backends.CANARYLESS)
