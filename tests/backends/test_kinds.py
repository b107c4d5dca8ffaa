"""What the kinds static, api and fake do beyond what every kind promises."""

import asyncio
import itertools

import pytest
from pydantic import ValidationError

from backends.api import RateLimits, rate_limits
from backends.engines.answers import retry_after_s
from backends.fake import Driver, Moment, parse
from orchestrator.core.durations import seconds
from orchestrator.core.model import Verdict
from orchestrator.core.specs import HealthPolicy
from tests.backends.worlds import HandClock, TableHttp, driver, plan, ports, reply

LIST = {"object": "list", "data": [{"id": "theirs"}]}
NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC


def run(coroutine):
    return asyncio.run(coroutine)


def probe(answers, made):
    http = TableHttp(answers)
    return run(driver(http, made).probe()), http


# ── static ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_end_in_v1_or_not(url):
    seen, http = probe({"/v1/models": reply(200, LIST)}, plan(url=url))
    assert seen.verdict is Verdict.OK
    assert http.asked == [("GET", "/v1/models")]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("10.0.0.5:8080", "starts with http://"),
        ("ftp://h", "starts with http://"),
        ("http://", "starts with http://"),
        ("http://me:secret@h", "no user or password"),
        ("http://h/?a=b", "no query"),
        ("http://h/a b", "spaces"),
        ("http://h:99999", "not an address"),
        ("tcp://h", "needs a port"),
    ],
)
def test_an_unusable_address_is_refused_in_words_and_its_secret_not_repeated(url, why):
    with pytest.raises(ValidationError, match=why) as refused:
        plan(url=url)
    assert "secret" not in str(refused.value)


def test_a_literal_key_is_refused():
    with pytest.raises(ValidationError, match="a secret is not written in the file"):
        plan(key="sk-123")


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"": "x"}, {"a:b": "c"}])
def test_headers_that_would_break_a_request_are_refused(headers):
    with pytest.raises(ValidationError):
        plan(headers=headers)


def test_extra_headers_go_with_each_request_credentials_filled_in():
    made = plan(
        headers={"X-Team": "lab", "X-Key": {"credential": "x"}}, secrets={"headers.X-Key": "s3cret"}
    )
    _, http = probe({"/v1/models": reply(200, LIST)}, made)
    assert http.sent[0][1] == {"X-Team": "lab", "X-Key": "s3cret"}


def test_ngroks_warning_page_is_asked_away_on_its_hosts_only():
    for url, asked in (
        ("https://a.ngrok-free.app", True),
        ("https://ngrok-free.app.evil.org", False),
    ):
        _, http = probe({}, plan(url=url))
        assert ("ngrok-skip-browser-warning" in http.sent[0][1]) is asked


def test_tcp_only_connects():
    made = plan(engine="tcp", url="tcp://10.0.0.5:6379")
    assert run(driver(TableHttp({"10.0.0.5:6379": reply(200)}), made).probe()).verdict is Verdict.OK
    seen, http = probe({}, made)
    assert (seen.verdict, seen.detail, http.asked) == (Verdict.FAILED, "connection refused", [])
    assert run(driver(TableHttp({}), made).canary()) is None


GOOD = reply(200, {"data": [{"state": "ready", "n": 1, "on": True}]})


@pytest.mark.parametrize(
    ("check", "answer", "verdict", "detail"),
    [
        ({}, reply(200, "fine"), "ok", ""),
        ({}, reply(204), "ok", ""),
        ({}, reply(500), "failed", "HTTP 500"),
        ({}, reply(401), "denied", "HTTP 401: it refuses our key"),
        (
            {},
            reply(302, "", {"location": "/login"}),
            "failed",
            "HTTP 302: redirects to /login; write the final address as `url`",
        ),
        (
            {},
            reply(200, "<html><title>Parked</title>"),
            "failed",
            "HTTP 200 with a web page “Parked” instead of the engine's answer",
        ),
        ({"contains": "Parked"}, reply(200, "<html><title>Parked</title>"), "ok", ""),
        (
            {"contains": "Welcome"},
            reply(200, "<html>Error code 1033 Cloudflare"),
            "failed",
            "Cloudflare: no tunnel is connected for this name (error 1033)",
        ),
        (
            {"contains": "ok"},
            reply(200, "no"),
            "failed",
            "HTTP 200, but the text “ok” is not there",
        ),
        ({"status": 404}, reply(404), "ok", ""),
        ({"status": 404}, reply(200), "failed", "HTTP 200, not 404"),
        ({"status": 200}, reply(429), "busy", "HTTP 429, again in 60 s"),
        ({"json": {"data.0.state": "ready"}}, GOOD, "ok", ""),
        (
            {"json": {"data.0.state": "loading"}},
            GOOD,
            "failed",
            "`data.0.state` is ready, not loading",
        ),
        ({"json": {"data.1.state": "ready"}}, GOOD, "failed", "`data.1.state` is not in its JSON"),
        ({"json": {"data.0.n": 1, "data.0.on": True}}, GOOD, "ok", ""),
        ({"json": {"data.0.n": True}}, GOOD, "failed", "`data.0.n` is 1, not True"),
        ({"json": {"a": 1}}, reply(200, "text"), "failed", "HTTP 200, but not JSON"),
    ],
)
def test_the_engine_http_holds_an_answer_against_what_was_configured(
    check, answer, verdict, detail
):
    made = plan(engine="http", url="http://h", check={"path": "/ping", **check})
    seen, http = probe({"/ping": answer}, made)
    assert (seen.verdict.value, seen.detail) == (verdict, detail)
    assert http.asked == [("GET", "/ping")]
    assert run(driver(http, made).canary()) is None


# ── api ─────────────────────────────────────────────────────────────────────────────────────────


def api(base_url="https://api.groq.com/openai/v1", **keys):
    keys.setdefault("key", {"credential": "k"})
    return plan(
        "api", models={"ours": "theirs"}, secrets={"key": "s3cret"}, base_url=base_url, **keys
    )


def test_an_api_is_asked_for_its_models_with_the_key_and_nothing_else():
    seen, http = probe({"/openai/v1/models": reply(200, LIST)}, api())
    assert seen.verdict is Verdict.OK
    assert http.asked == [("GET", "/openai/v1/models")]
    assert http.sent[0][1]["Authorization"] == "Bearer s3cret"


def test_openrouters_public_list_does_not_stand_for_the_key():
    lists, key = "/api/v1/models", "/api/v1/key"
    made = api("https://openrouter.ai/api/v1")
    good = {"data": {"label": "k", "limit": 5, "limit_remaining": 4.9, "is_free_tier": False}}
    seen, http = probe({lists: reply(200, LIST), key: reply(200, good)}, made)
    assert seen.verdict is Verdict.OK
    assert http.asked == [("GET", key), ("GET", lists)]
    seen, http = probe({lists: reply(200, LIST), key: reply(401)}, made)
    assert (seen.verdict, http.asked) == (Verdict.DENIED, [("GET", key)])
    for left, verdict in ((0, Verdict.BUSY), (-0.2, Verdict.BUSY), (None, Verdict.OK)):
        spent = {"data": {**good["data"], "limit_remaining": left}}
        seen, _ = probe({lists: reply(200, LIST), key: reply(200, spent)}, made)
        assert seen.verdict is verdict


def test_hugging_faces_token_is_asked_of_hugging_face_itself():
    answers = {
        "/api/whoami-v2": reply(200, {"type": "user", "name": "me"}),
        "/v1/models": reply(200, LIST),
    }
    seen, http = probe(answers, api("https://router.huggingface.co/v1"))
    assert seen.verdict is Verdict.OK
    assert [url for url, *_ in http.sent] == [
        "https://huggingface.co/api/whoami-v2",
        "https://router.huggingface.co/v1/models",
    ]


@pytest.mark.parametrize(
    "url", ["https://elsewhere.org/key", "http://api.groq.com/key", "https://api.groq.com:444/key"]
)
def test_the_key_goes_to_no_other_origin(url):
    with pytest.raises(ValidationError, match="origin of `base_url` only"):
        api(key_check=url)


def test_a_lookalike_host_gets_no_special_treatment():
    _, http = probe({}, api("https://router.huggingface.co.evil.org/v1"))
    assert http.asked == [("GET", "/v1/models")]


def test_no_credit_is_a_cool_down_and_not_a_death():
    seen, _ = probe(
        {"/openai/v1/models": reply(402, {"error": {"message": "Insufficient credits"}})}, api()
    )
    assert (seen.verdict, seen.retry_after_s) == (Verdict.BUSY, 3600.0)
    assert "Insufficient credits" in seen.detail


def test_an_apis_canary_that_is_throttled_is_a_cool_down():
    http = TableHttp({"/openai/v1/chat/completions": reply(429, "", {"retry-after": "5"})})
    seen = run(driver(http, api()).canary())
    assert (seen.verdict, seen.retry_after_s) == (Verdict.BUSY, 5.0)


def test_geminis_prefix_does_not_make_a_model_missing():
    body = {"data": [{"id": "models/theirs"}]}
    seen, _ = probe(
        {"/v1beta/openai/models": reply(200, body)}, api("https://g.example.org/v1beta/openai")
    )
    assert (seen.verdict, seen.missing) == (Verdict.OK, ())


def test_rate_limit_headers_are_read_where_they_are_numbers():
    groq = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-requests": "2m59.56s",
    }
    assert rate_limits(reply(200, "", groq)) == RateLimits(14400, 14370, 18000, 17997)
    router = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0"}
    assert rate_limits(reply(429, "", router)) == RateLimits(20, 0, None, None)
    assert rate_limits(reply(200, "", {"x-ratelimit-limit": "²"})) == RateLimits()


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("120", 120), ("0", 1), ("-5", 1), ("1.5", 1.5), (None, 60), ("", 60), ("soon", 60), ("nan", 60),
        ("1e99", 86400), ("inf", 86400),
        ("Fri, 15 Jan 2027 08:01:30 GMT", 90), ("Fri, 15 Jan 2027 07:00:00 GMT", 1),
        ("Fri, 99 Jan 2027 07:00:00 GMT", 60),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value, wait_s):
    assert retry_after_s(value, NOW) == wait_s


# ── fake ────────────────────────────────────────────────────────────────────────────────────────


def test_a_script_is_played_by_the_clock():
    clock = HandClock()
    one = driver(TableHttp({}), plan("fake", script="up 30s, down 20s, loading 5s, up"), clock)
    start, said = clock.now, []
    for second in range(60):
        clock.now = start + second
        said.append(run(one.probe()).verdict.value)
    runs = [(verdict, len(list(group))) for verdict, group in itertools.groupby(said)]
    assert runs == [("ok", 30), ("failed", 20), ("loading", 5), ("ok", 5)]


@pytest.mark.parametrize(
    "text", ["", "up 3s", "up, down", "sideways", "up 3, down", "up 3s,, down", "up 3s down"]
)
def test_a_script_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValidationError):
        plan("fake", script=text)


def test_a_gray_backend_answers_probes_and_fails_canaries():
    one = driver(TableHttp({}), plan("fake", script="gray"))
    assert run(one.probe()).verdict is Verdict.OK
    assert run(one.canary()).verdict is Verdict.FAILED


def test_a_hanging_backend_takes_its_whole_timeout():
    policy = HealthPolicy(timeout_s=0.05)
    one = driver(TableHttp({}), plan("fake", script="hang", policy=policy))

    async def main():
        loop = asyncio.get_running_loop()
        started = loop.time()
        seen = await one.probe()
        return seen, loop.time() - started

    seen, took_s = run(main())
    assert (seen.verdict, seen.detail) == (Verdict.FAILED, "timed out after 0.05 s")
    assert took_s >= 0.05


def test_a_world_may_be_a_function():
    def world(name, now):
        return Moment(Verdict.FAILED, f"{name} at {now:.0f}")

    one = Driver(plan("fake"), ports(TableHttp({})), world)
    assert run(one.probe()).detail == "lab at 1800000000"


def test_scripts_and_durations_are_read():
    assert [ends for ends, _ in parse("up 1m, down")] == [60.0, float("inf")]
    assert [seconds(text) for text in ("250ms", "1.5s", "2m", "1h", "1d")] == [
        0.25,
        1.5,
        120,
        3600,
        86400,
    ]
    for text in ("", "5", "s", "5 s", "-1s", "1e3s"):
        with pytest.raises(ValueError, match="duration"):
            seconds(text)
