"""What agents say and are told, and which of them are told to go."""

import asyncio
import json
from dataclasses import replace

import pytest
from notebooks import CLIENTS, TOKENS, Agent, bearer, begin, fleet, refused
from webkit import MemoryStore, Site, Stand

from orchestrator.core.events import Reconfigured
from orchestrator.core.fleet import resumed
from orchestrator.core.lives import Do
from orchestrator.core.registry import Heartbeat, RevokeTokens, Tell
from orchestrator.errors import StoreError, StoreFull
from orchestrator.loop import INBOX
from orchestrator.web.live import Live


def test_a_heartbeat_reaches_the_core_and_is_answered_from_the_snapshot():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        site.stand.pass_time(10)
        answer = await agent.beats(busy=3, state="ready")
        assert answer.status_code == 200
        assert answer.json() == {
            "ends_at": "2026-09-22T02:03:21Z",
            "access": "clients",
            "client_keys": list(CLIENTS.values()),
            "commands": [],
        }
        session = site.stand.fleet.backends["colab"].session
        assert (session.beat_at, session.seq, session.busy) == (site.stand.at, 1, 3)
        assert (session.ready, session.state) == (True, "ready")

    begin(test)


@pytest.mark.parametrize(
    ("said", "ready", "loading", "word"),
    [
        ({}, True, False, ""),
        ({"engine_ready": False}, False, False, "engine does not answer"),
        ({"tunnel_ready": False}, False, False, "tunnel"),
        ({"state": "loading", "engine_ready": False}, False, True, "loading"),
        ({"state": "starting", "engine_ready": False}, False, True, "starting"),
        ({"state": "draining"}, False, False, "draining"),
        ({"state": "failed", "engine_ready": False, "detail": "no GPU"}, False, False, "no GPU"),
    ],
)
def test_ready_is_who_has_an_engine_and_a_tunnel_and_says_so(said, ready, loading, word):
    async def test(site: Site) -> None:
        heard = []
        site.stand.report = heard.append
        agent = await Agent.of(site)
        assert (await agent.beats(**said)).status_code == 200
        (beat,) = heard
        assert isinstance(beat, Heartbeat)
        assert (beat.backend, beat.session, beat.seq) == ("colab", agent.id, 1)
        assert (beat.ready, beat.loading) == (ready, loading)
        assert word in beat.detail

    begin(test)


def test_orders_are_repeated_until_they_are_done_and_no_longer():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        site.stand.feed(Tell("colab", Do.SAVE))
        site.stand.feed(Tell("colab", Do.STOP))
        both = [{"id": 1, "do": "save"}, {"id": 2, "do": "stop"}]
        for _ in range(3):
            assert (await agent.beats()).json()["commands"] == both
        done = await agent.beats(done=[{"id": "1", "ok": True}])
        assert done.json()["commands"] == both[1:], "acknowledged in this very beat"
        assert (await agent.beats()).json()["commands"] == both[1:]
        assert (await agent.beats(done=[{"id": 2, "ok": False}])).json()["commands"] == []
        texts = [row.text for row in site.stand.store.rows if row.action == "agent_did"]
        assert texts == ["colab: its agent did save", "colab: its agent could not stop"]
        site.stand.feed(Tell("colab", Do.SAVE))
        assert (await agent.beats()).json()["commands"] == [{"id": 3, "do": "save"}]

    begin(test)


def test_a_superseded_agent_is_told_to_go_once_the_new_one_serves_and_not_before():
    async def test(site: Site) -> None:
        old = await Agent.of(site)
        old.proves()
        new = await Agent.of(site, url="https://new.trycloudflare.com")
        assert (await old.beats()).status_code == 200, (
            "it serves until the new one has proved itself"
        )
        assert (await new.beats()).status_code == 200
        new.proves()
        refused(await old.beats(), 410, "took over")
        refused(await old.leaves(), 410)
        assert (await new.beats()).status_code == 200

    begin(test)


def test_a_revoked_token_ends_its_sessions_at_once():
    async def test(site: Site) -> None:
        serving = await Agent.of(site)
        serving.proves()
        pending = await Agent.of(site)
        site.stand.feed(RevokeTokens(backend="colab"))
        for agent in (serving, pending):
            refused(await agent.beats(), 410, "revoked")

    begin(test)


def test_only_its_own_token_opens_a_session_that_lives_or_is_over():
    async def test(site: Site) -> None:
        site.web._front["sessions"].longest_s = 0.01
        agent = await Agent.of(site)
        other = await Agent.of(site, TOKENS["kaggle"], backend="kaggle")
        right = agent.headers
        for headers in ({}, bearer(TOKENS["colab"]), other.headers, bearer("x")):
            agent.headers = headers
            refused(await agent.beats(), 401)
            refused(await agent.leaves(), 401)
        site.stand.feed(RevokeTokens(backend="colab"))
        for headers in ({}, bearer(TOKENS["colab"]), other.headers):
            agent.headers = headers
            refused(await agent.beats(), 401)
        agent.headers = right
        refused(await agent.beats(), 410)

    begin(test)


def test_a_session_nobody_knows_is_told_to_register_anew():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.id = "0" * 32
        refused(await agent.beats(), 404, "register anew")
        refused(await agent.leaves(), 404)
        for path in ("/sessions", "/sessions/", "/sessions/x/heartbeat"):
            answer = await site.client.post(path, headers=agent.headers)
            assert answer.status_code in (401, 404), path

    begin(test)


def test_an_agent_that_leaves_ends_its_session_in_good_order():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        site.stand.failing = StoreFull("full")
        refused(await agent.leaves(), 507)
        site.stand.failing = None
        answer = await agent.leaves()
        assert (answer.status_code, answer.content) == (204, b"")
        assert site.stand.fleet.backends["colab"].session is None
        refused(await agent.beats(), 410, "its agent left")

    begin(test)


BAD = [
    {"seq": ...},
    {"seq": 0},
    {"seq": "1"},
    {"seq": 1.5},
    {"seq": 2**60},
    {"state": "happy"},
    {"engine_ready": 1},
    {"tunnel_ready": ...},
    {"busy": -1},
    {"busy": True},
    {"done": [{"id": "one", "ok": True}]},
    {"done": [{"id": 1}]},
    {"done": [{"id": 1, "ok": True}] * 101},
    {"detail": None},
]


@pytest.mark.parametrize("changes", BAD, ids=[json.dumps(one, default=repr)[:40] for one in BAD])
def test_a_heartbeat_that_is_not_as_it_should_be_changes_nothing(changes):
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        before = site.stand.fleet.backends["colab"]
        refused(await agent.beats(**changes), 422)
        assert site.stand.fleet.backends["colab"] is before

    begin(test)


def test_what_a_newer_agent_adds_is_not_read_and_what_it_says_becomes_a_line():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        said = {"engine_ready": False, "more": {"x": 1}, "detail": "out\nof\x1b memory" + "!" * 900}
        assert (await agent.beats(**said)).status_code == 200
        session = site.stand.fleet.backends["colab"].session
        assert session.detail.startswith("out of memory!")
        assert len(session.detail) == 200

    begin(test)


def test_a_large_heartbeat_is_refused():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        refused(await agent.beats(detail="x" * 20_000), 413)

    begin(test)


def test_a_full_inbox_says_so_and_takes_no_more():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        site.stand.waiting = INBOX
        answer = await agent.beats()
        refused(answer, 503)
        assert answer.headers["retry-after"]
        assert site.stand.fleet.backends["colab"].pending.seq == 0

    begin(test)


def test_searches_for_sessions_that_are_over_are_bounded_and_a_failing_disk_is_no_verdict():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.id = "1" * 32
        gate, found = asyncio.Event(), site.stand.store.past_session

        async def slowly(ident: str):
            await gate.wait()
            return await found(ident)

        site.stand.store.past_session = slowly
        asked = [asyncio.create_task(agent.beats()) for _ in range(12)]
        await site.until(lambda: sum(one.done() for one in asked) == 4)
        assert {one.result().status_code for one in asked if one.done()} == {503}
        gate.set()
        assert {(await one).status_code for one in asked} == {404, 503}

        async def broken(_: str):
            raise StoreError("the disk is gone")

        site.stand.store.past_session = broken
        refused(await agent.beats(), 503)

    begin(test)


def test_a_session_that_was_stored_is_known_after_a_restart_and_one_that_went_is_not():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        newer = await Agent.of(site)
        again = Stand(site.stand.fleet.config, MemoryStore())
        again.fleet = resumed(again.fleet.config, again.now(), backends=site.stand.fleet.backends)
        live = Live(again)
        for ident in (agent.id, newer.id):
            found = live.session(ident)
            assert found is not None
            assert (found[0], found[1].id) == ("colab", ident)
        again.feed(Reconfigured(replace(fleet(), backends={}, services={})))
        assert live.session(agent.id) is None
        assert live.session(newer.id) is None

    begin(test)
