"""Who may register, with what, how often, and what is told to whom."""

import asyncio
import hashlib
import json
from dataclasses import replace

import pytest
from notebooks import (
    CLIENTS,
    TOKENS,
    Agent,
    bearer,
    begin,
    fleet,
    refused,
    register,
    saying,
    sha,
    stamp,
)
from webkit import START, TOKEN, Site

from orchestrator.core.events import Reconfigured
from orchestrator.core.lives import PowerPhase
from orchestrator.core.powering import Ask, PowerReport, PowerReported, Start
from orchestrator.core.registry import MintLaunchToken, RevokeTokens
from orchestrator.errors import Overloaded, StoreFull
from orchestrator.web.carrier import RegisterSettings


def test_a_registration_is_answered_with_all_that_the_agent_needs():
    async def test(site: Site) -> None:
        answer = await register(site)
        assert answer.status_code == 201
        told = answer.json()
        pending = site.stand.fleet.backends["colab"].pending
        assert told == {
            "session": pending.id,
            "token": told["token"],
            "lease_s": 60,
            "heartbeat_s": 15,
            "ends_at": "2026-09-22T02:03:21Z",
            "access": "clients",
            "client_keys": list(CLIENTS.values()),
        }
        assert pending.secret == sha(told["token"])
        assert len(told["token"]) >= 43, "256 bits"
        assert pending.started_at == site.stand.at - 600
        assert (pending.url, pending.gpu, pending.gpu_memory_mb) == (
            "https://swift-fox.trycloudflare.com",
            "Tesla T4",
            15360,
        )
        assert (pending.models, pending.agent) == (("qwen3:8b",), "0.3.0")
        assert site.stand.audits[-1].who == "backend:colab"

    begin(test)


def test_the_token_alone_decides_who_may_and_it_is_judged_before_the_body():
    async def test(site: Site) -> None:
        site.web._front["register"].longest_s = 0.01
        for headers in ({}, bearer("x"), bearer(TOKEN), bearer(sha(TOKENS["colab"])), bearer("-")):
            answer = await site.client.post("/register", content=b"\xff" * 100, headers=headers)
            refused(answer, 401)
            assert answer.headers["www-authenticate"]
        twice = [("authorization", f"Bearer {TOKENS['colab']}")] * 2
        refused(await site.client.post("/register", json=saying(), headers=twice), 401)
        refused(await register(site, TOKENS["kaggle"]), 403)
        refused(await register(site, backend="lab"), 403)
        site.stand.feed(RevokeTokens(backend="colab"))
        refused(await register(site), 401)
        assert site.stand.fleet.backends["colab"].pending is None
        assert (await register(site, TOKENS["kaggle"], backend="kaggle")).status_code == 201

    begin(test)


def test_wrong_tokens_are_slowed_down_and_a_right_one_is_not():
    async def test(site: Site) -> None:
        gate = site.web._front["register"]
        gate.longest_s = 30.0
        wrong = [asyncio.create_task(register(site, "wrong")) for _ in range(40)]
        await site.until(lambda: gate._waiting == 20)
        assert (await register(site)).status_code == 201
        await site.until(lambda: sum(one.done() for one in wrong) >= 20)
        assert {one.result().status_code for one in wrong if one.done()} == {401, 429}
        for one in wrong:
            one.cancel()
        await asyncio.wait(wrong)

    begin(test)


URLS = {
    "http://swift-fox.trycloudflare.com": "https",
    "https://metadata.google.internal": "metadata",
    "https://169.254.169.254": "allow_hosts",
    "https://evil.example": "allow_hosts",
    "https://trycloudflare.com.evil.example": "allow_hosts",
    "https://user:pw@a.trycloudflare.com": "user",
    "https://a.trycloudflare.com/path": "path",
    "https://a.trycloudflare.com\\@evil.example": "characters",
    "https://a.trycloudflare.com\r\nHost: evil": "characters",
    "file:///etc/passwd": "https://",
    "": "https://",
}


@pytest.mark.parametrize(("url", "word"), URLS.items())
def test_an_address_that_is_not_allowed_is_refused_with_the_reason(url, word):
    async def test(site: Site) -> None:
        refused(await register(site, url=url), 422, word)
        assert site.stand.fleet.backends["colab"].pending is None

    begin(test)


def test_without_hosts_of_its_own_a_backend_can_register_nowhere():
    async def test(site: Site) -> None:
        refused(await register(site), 422, "allow_hosts")

    begin(test, registering={})


def test_a_private_address_needs_to_be_allowed():
    async def test(site: Site) -> None:
        assert (await register(site, url="http://127.0.0.1:8080")).status_code == 201

    begin(test, registering={"colab": RegisterSettings(("127.0.0.1",), allow_private=True)})


BAD = [
    {"backend": ...},
    {"backend": 1},
    {"backend": ""},
    {"url": None},
    {"url": ["https://a.trycloudflare.com"]},
    {"url": "https://" + "a" * 400 + ".trycloudflare.com"},
    {"models": "qwen3:8b"},
    {"models": ["m"] * 501},
    {"models": [None]},
    {"started_at": ...},
    {"started_at": "yesterday"},
    {"started_at": "2026-01-01T00:00:00"},
    {"started_at": 10**400},
    {"now": "9" * 5000},
    {"gpu": "T4"},
    {"gpu": {"name": "T4", "memory_mb": -1}},
    {"gpu": {"name": "T4", "memory_mb": 1e300}},
    {"agent": {}},
    {"started_at": stamp(START - 400 * 86400)},
    {"started_at": stamp(START + 2 * 86400)},
    {"now": ..., "started_at": stamp(0)},
]


@pytest.mark.parametrize("changes", BAD, ids=[json.dumps(one, default=repr)[:50] for one in BAD])
def test_a_body_that_is_not_as_it_should_be_is_refused_in_one_clear_line(changes):
    async def test(site: Site) -> None:
        refused(await register(site, **changes), 422)
        assert site.stand.fleet.backends["colab"].pending is None

    begin(test)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"a":NaN}']
)
def test_a_body_that_is_no_object_is_refused(body):
    async def test(site: Site) -> None:
        headers = bearer(TOKENS["colab"])
        refused(await site.client.post("/register", content=body, headers=headers), 422)

    begin(test)


def test_a_large_body_is_refused_before_it_is_held():
    async def test(site: Site) -> None:
        async def pieces():
            for _ in range(20):
                yield b" " * 5000

        headers = bearer(TOKENS["colab"])
        for content in (b" " * 70_000, pieces()):
            answer = await site.client.post("/register", content=content, headers=headers)
            refused(answer, 413)

    begin(test)


def test_hostile_words_become_plain_lines_that_end():
    evil = "\x1b[31mred\r\nnext\u202e\x00 " + "a" * 300

    async def test(site: Site) -> None:
        gpu = {"name": evil, "memory_mb": None, "more": evil}
        answer = await register(site, models=[evil], agent=evil, engine=evil, gpu=gpu, extra=evil)
        assert answer.status_code == 201
        pending = site.stand.fleet.backends["colab"].pending
        for text, most in ((pending.models[0], 200), (pending.agent, 40), (pending.gpu, 100)):
            assert text.isprintable()
            assert text.startswith("[31mred next")
            assert len(text) <= most

    begin(test)


@pytest.mark.parametrize(
    ("started_at", "now", "age_s"),
    [
        (START - 600, START, 600),
        (0.0, 1200.0, 1200),  # its clock is decades off, and still tells how long it has run
        (START + 30, START, 0),
        (START - 600, None, 600),
        (START + 600, None, 0),
    ],
)
def test_the_age_of_a_run_is_told_by_its_own_clock(started_at, now, age_s):
    async def test(site: Site) -> None:
        changes = {"started_at": stamp(started_at), "now": stamp(now) if now is not None else ...}
        at = site.stand.at = START
        assert (await register(site, **changes)).status_code == 201
        assert site.stand.fleet.backends["colab"].pending.started_at == at - age_s

    begin(test)


def test_a_run_whose_time_is_over_is_told_to_start_a_new_one():
    async def test(site: Site) -> None:
        answer = await register(site, started_at=stamp(START - 12 * 3600 + 30))
        refused(answer, 409, "start a new one")

    begin(test)


def test_a_backend_registers_at_most_six_times_a_minute():
    async def test(site: Site) -> None:
        for _ in range(6):
            assert (await register(site)).status_code == 201
            site.stand.pass_time(2)
        answer = await register(site)
        refused(answer, 429)
        assert answer.headers["retry-after"] == "48"
        assert (await register(site, TOKENS["kaggle"], backend="kaggle")).status_code == 201
        site.stand.pass_time(48)
        assert (await register(site)).status_code == 201
        refused(await register(site), 429)

    begin(test)


def test_a_daemon_that_cannot_answers_so_that_the_agent_comes_again():
    async def test(site: Site) -> None:
        for error, status in ((Overloaded("too much"), 503), (StoreFull("full"), 507)):
            site.stand.failing = error
            refused(await register(site), status)

    begin(test)


def test_a_backend_that_went_with_a_reload_registers_no_more():
    async def test(site: Site) -> None:
        config = fleet()
        del config.backends["colab"]  # type: ignore[attr-defined]
        config.services.clear()  # type: ignore[attr-defined]
        site.stand.feed(Reconfigured(config))
        refused(await register(site), 403, "not configured")

    begin(test)


@pytest.mark.parametrize("access", ["gateway", "open"])
def test_client_keys_go_only_where_clients_are_let_in(access):
    async def test(site: Site) -> None:
        agent = await Agent.of(site, url="https://box.example.org")
        assert (agent.told["access"], agent.told["client_keys"]) == (access, [])
        assert (await agent.beats()).json()["client_keys"] == []

    begin(test, registering={"colab": RegisterSettings(("box.example.org",), access=access)})


def test_a_reload_changes_hosts_access_and_client_keys_at_once():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        settings = site.web.parts.settings
        new = sha("another-key")
        hosts = {"colab": RegisterSettings(("box.example.org",), access="open")}
        site.web.change_registering(
            replace(settings, registering=hosts, clients={**CLIENTS, "app": new})
        )
        assert (await agent.beats()).json()["access"] == "open"
        hosts = {"colab": RegisterSettings(("box.example.org",))}
        site.web.change_registering(
            replace(settings, registering=hosts, clients={**CLIENTS, "app": new})
        )
        told = (await agent.beats()).json()
        assert told["access"] == "clients"
        assert set(told["client_keys"]) == {new, *CLIENTS.values()}
        refused(await register(site), 422, "allow_hosts")

    begin(test)


def test_other_methods_and_paths_are_problems():
    async def test(site: Site) -> None:
        headers = bearer(TOKENS["colab"])
        get = await site.client.get("/register", headers=headers)
        refused(get, 405)
        assert get.headers["allow"] == "POST"
        refused(await site.client.post("/register/more", json=saying(), headers=headers), 404)
        refused(await site.client.get("/agent.py/more"), 404)
        refused(await site.client.post("/agent.py"), 405)

    begin(test)


def test_no_secret_of_a_token_is_kept_or_logged():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        shown = repr(site.stand.fleet) + repr(site.stand.store.rows)
        for secret in (agent.told["token"], *TOKENS.values()):
            assert secret not in shown
            assert hashlib.sha256(secret.encode()).hexdigest() not in shown

    begin(test)


# ── who holds a session, and launches ───────────────────────────────────────────────────────────


def test_a_session_that_lives_registers_anew_with_its_own_token_and_no_other_does():
    async def test(site: Site) -> None:
        first = await Agent.of(site)
        first.proves()
        moved = {"url": "https://slow-hare.trycloudflare.com"}
        refused(await register(site, first.told["token"], backend="kaggle"), 403, "another")
        again = await register(site, first.told["token"], **moved)
        assert again.status_code == 201
        state = site.stand.fleet.backends["colab"]
        assert (state.session.id, state.pending.id) == (first.id, again.json()["session"])
        assert state.pending.token == state.session.token
        second = Agent(site, again.json())
        second.proves()
        refused(await register(site, first.told["token"], **moved), 401)
        site.stand.feed(RevokeTokens(backend="colab"))
        refused(await register(site, second.told["token"]), 401)

    begin(test)


def test_the_token_of_a_launch_registers_until_its_session_serves():
    config = fleet()
    started = replace(config.backends["kaggle"], powered=True)
    config = replace(config, backends={**config.backends, "kaggle": started})
    token = "launch-token-0123456789abcdef"

    async def test(site: Site) -> None:
        site.stand.feed(PowerReported("kaggle", Ask.STATUS, PowerReport(PowerPhase.OFF)))
        site.stand.feed(Start("kaggle"))
        launch = site.stand.fleet.backends["kaggle"].power.launch
        refused(await register(site, token, backend="kaggle"), 401)
        site.stand.feed(MintLaunchToken("t1", "kaggle", sha(token), launch))
        refused(await register(site, token), 403, "another backend")
        first = await Agent.of(site, token, backend="kaggle")
        second = await Agent.of(site, token, backend="kaggle")
        assert site.stand.fleet.backends["kaggle"].pending.id == second.id != first.id
        second.proves("kaggle")
        refused(await register(site, token, backend="kaggle"), 401)
        assert (await register(site, second.told["token"], backend="kaggle")).status_code == 201
        shown = (await site.client.get("/api/tokens", headers=bearer(TOKEN))).json()
        mine = next(one for one in shown if one["id"] == "t1")
        assert (mine["by"], mine["revoked_at"]) == (f"launch {launch}", None)
        assert (mine["launch"], mine["valid"], bool(mine["spent_at"])) == (launch, False, True)
        assert all(one["valid"] and not one["launch"] for one in shown if one is not mine)

    begin(test, config=config)
