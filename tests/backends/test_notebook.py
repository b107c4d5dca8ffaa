"""The kind notebook: where its session says it is, by a key of that session, once it is known."""

import asyncio
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends import identity, tunnels
from backends.base import Ports, SessionPlan
from backends.notebook import Driver, headers_of
from orchestrator.core.model import Verdict
from orchestrator.core.specs import HealthPolicy
from tests.backends.worlds import SESSION, HandClock, Middle, TableHttp, driver, plan, reply

NONCE = "00ff"
ASKED = f"/.aion/identity?nonce={NONCE}"
LIST = {"object": "list", "data": [{"id": "theirs"}]}
DONE = {"choices": [{"message": {"content": ""}}]}


def proved(nonce=NONCE, session=SESSION, host="fox.trycloudflare.com", version=1):
    proof = identity.proof(SESSION.secret, nonce, session.id, host)
    return {"version": version, "session": session.id, "proof": proof}


def identify(answer, **keys):
    http = TableHttp({ASKED: answer})
    one = driver(http, plan("notebook", session=SESSION, **keys))
    return asyncio.run(one.identify(NONCE)), http


def test_the_proof_is_what_the_protocol_says():
    key = hashlib.sha256(b"s3cret").digest()
    message = b"aion-identity-1\n00ff\ns-1\nfox.trycloudflare.com"
    wanted = hmac.new(key, message, hashlib.sha256).hexdigest()
    assert identity.secret_of("s3cret") == key.hex()
    assert identity.proof(key.hex(), "00ff", "s-1", "fox.trycloudflare.com") == wanted
    gateway = hmac.new(key, b"aion-gateway-1\ns-1", hashlib.sha256).hexdigest()
    assert identity.gateway_key(key.hex(), "s-1") == gateway


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Fox.TryCloudflare.com", "fox.trycloudflare.com"),
        ("https://fox.trycloudflare.com:8443/", "fox.trycloudflare.com:8443"),
        ("http://10.0.0.5:80", "10.0.0.5:80"),
        ("https://[::1]:1", "[::1]:1"),
    ],
)
def test_a_proof_names_the_host_as_it_was_registered(url, host):
    assert identity.host_of(url) == host


@given(st.text(max_size=80), st.text(max_size=80))
def test_nothing_but_the_proof_proves(given, nonce):
    nonce = nonce.encode("utf-8", "replace").decode()
    assert not identity.proves(given, SESSION.secret, nonce, "s-1", "h")
    right = identity.proof(SESSION.secret, nonce, "s-1", "h")
    assert identity.proves(right, SESSION.secret, nonce, "s-1", "h")
    assert not identity.proves(right, SESSION.secret, nonce + "0", "s-1", "h")
    assert not identity.proves(right, SESSION.secret, nonce, "s-1", "h:443")
    assert not identity.proves(right, SESSION.secret, nonce, "s-2", "h")


def test_the_agent_that_registered_is_known_without_being_sent_a_key():
    said, http = identify(reply(200, proved()))
    assert said == ""
    assert http.sent == [(f"{SESSION.url}{ASKED}", {}, None)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("connection refused", "connection refused"),
        (reply(503, {"title": "no session"}), "the agent there has no session yet"),
        (reply(404, {"detail": "Not Found"}), "no agent of aion answers there (HTTP 404)"),
        (reply(500), "HTTP 500"),
        (reply(401), "HTTP 401: it refuses our key"),
        (
            reply(302, "", {"location": "http://169.254.169.254/"}),
            "HTTP 302: redirects to http://169.254.169.254/; write the final address as `url`",
        ),
        (
            reply(200, "<!doctype html><title>Parked</title>"),
            "HTTP 200 with a web page “Parked” instead of the engine's answer",
        ),
        (
            reply(503, "<html>ERR_NGROK_3200</html>"),
            "ngrok: no tunnel is connected for this name (ERR_NGROK_3200)",
        ),
        (reply(530, "error code: 1033"), "Cloudflare: no tunnel is connected for this name (error 1033)"),
        (reply(200, "42"), "answers 200, but not as an agent of aion does"),
        (reply(200, [proved()]), "answers 200, but not as an agent of aion does"),
        (reply(200, proved(version=2)), "answers 200, but not as an agent of aion does"),
        (reply(200, {**proved(), "session": "s-2"}), "the agent there has another session"),
        (reply(200, {**proved(), "proof": None}), "cannot prove"),
        (reply(200, {**proved(), "proof": "\ud800"}), "cannot prove"),
        (reply(200, {**proved(), "proof": proved()["proof"].upper()}), "cannot prove"),
        (reply(200, proved(nonce="00fe")), "cannot prove"),
        (reply(200, proved(host="owl.trycloudflare.com")), "cannot prove"),
        (reply(200, proved(host="fox.trycloudflare.com:443")), "cannot prove"),
    ],
)  # fmt: skip
def test_anybody_else_is_told_apart_in_one_line(answer, why):
    said, _ = identify(answer)
    assert why in said
    assert said.isprintable()
    assert SESSION.secret not in said


def test_without_a_session_nobody_is_there_and_nobody_is_asked():
    http = TableHttp({})
    one = driver(http, plan("notebook"))
    probe, canary, identity_ = (
        asyncio.run(ask) for ask in (one.probe(), one.canary(), one.identify(NONCE))
    )
    assert (probe.verdict, probe.detail) == (Verdict.FAILED, "nobody has registered")
    assert (canary.verdict, canary.detail) == (Verdict.FAILED, "nobody has registered")
    assert identity_ == "nobody has registered"
    assert http.asked == []


def test_the_engine_is_asked_with_the_key_of_its_session():
    http = TableHttp({"/v1/models": reply(200, LIST), "/v1/chat/completions": reply(200, DONE)})
    one = driver(http, plan("notebook", models={"ours": "theirs"}, session=SESSION))
    assert asyncio.run(one.probe()).verdict is Verdict.OK
    assert asyncio.run(one.canary()).verdict is Verdict.OK
    key = identity.gateway_key(SESSION.secret, SESSION.id)
    assert [headers["Authorization"] for _, headers, _ in http.sent] == [f"Bearer {key}"] * 2
    assert SESSION.secret not in repr(http.sent)
    assert {url.split("/v1")[0] for url, *_ in http.sent} == {SESSION.url}


def test_each_session_has_a_key_of_its_own():
    keys = {headers_of(SessionPlan(i, "https://h", SESSION.secret))["Authorization"] for i in "ab"}
    assert len(keys) == 2
    assert SESSION.secret not in repr(SESSION)


def test_ngroks_warning_page_is_asked_away():
    session = SessionPlan("s-1", "https://fox.ngrok-free.app", SESSION.secret)
    http = TableHttp({"/v1/models": reply(200, LIST)})
    one = driver(http, plan("notebook", session=session))
    asyncio.run(one.probe())
    asyncio.run(one.identify(NONCE))
    assert [h["ngrok-skip-browser-warning"] for _, h, _ in http.sent] == ["1", "1"]


@pytest.mark.parametrize("allow_private", [False, True])
def test_only_what_may_be_private_goes_past_the_guard(allow_private):
    answers = {ASKED: reply(200, proved()), "/v1/models": reply(200, LIST),
               "/v1/chat/completions": reply(200, DONE)}  # fmt: skip
    plain, guarded = TableHttp(answers), TableHttp(answers)
    made = plan("notebook", session=SESSION, allow_private=allow_private)
    one = Driver(made, Ports(plain, guarded, HandClock(), Middle()))
    for ask in (one.identify(NONCE), one.probe(), one.canary()):
        asyncio.run(ask)
    assert (len(plain.sent), len(guarded.sent)) == ((3, 0) if allow_private else (0, 3))


def test_no_completion_is_asked_for_where_canaries_are_off():
    http = TableHttp({"/v1/chat/completions": reply(200, DONE)})
    one = driver(http, plan("notebook", session=SESSION, policy=HealthPolicy(canary_s=None)))
    assert asyncio.run(one.canary()) is None
    assert http.asked == []


@pytest.mark.parametrize(
    "keys",
    [
        {"allow_hosts": []},
        {"allow_hosts": ["*"]},
        {"allow_hosts": ["https://h.example.org"]},
        {"allow_hosts": ["*.lan"]},
        {"access": "all"},
        {"platform": "moon"},
        {"token": "literal"},
        {"url": "https://fox.trycloudflare.com"},
    ],
)
def test_options_that_make_no_sense_are_refused(keys):
    with pytest.raises(ValidationError):
        plan("notebook", **keys)


def test_a_metered_address_is_looked_at_seldom_and_doubt_about_it_is_short():
    policy = HealthPolicy()
    assert tunnels.spared(policy, "https://fox.trycloudflare.com") is policy
    spared = tunnels.spared(policy, "https://fox.ngrok-free.app")
    assert (spared.interval_s, spared.fast_interval_s, spared.down_interval_s) == (300, 10, 300)
    slow = tunnels.spared(HealthPolicy(interval_s=900), "https://fox.ngrok-free.app:443/")
    assert slow.interval_s == 900
    assert not tunnels.metered("https://ngrok-free.app.evil.example")
