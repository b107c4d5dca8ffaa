"""What the operator sees of sessions and tokens, and does about them."""

import json
import re

from notebooks import TOKENS, Agent, begin, refused, register, sha
from webkit import Site

from orchestrator.errors import StoreError


def test_sessions_are_shown_live_pending_and_over():
    async def test(site: Site) -> None:
        first = await Agent.of(site)
        first.proves()
        second = await Agent.of(site, url="https://second.trycloudflare.com")
        second.proves()
        await second.beats(busy=2)
        await site.admin.post("/api/backends/colab/save")
        third = await Agent.of(site)
        third.proves(ok=False, detail="connection refused")
        answer = (await site.admin.get("/api/sessions")).json()
        (live,), (pending,) = answer["live"], answer["pending"]
        assert answer["past"] == []
        assert (live["id"], live["backend"], live["generation"]) == (second.id, "colab", 2)
        assert live["url"] == "https://second.trycloudflare.com"
        assert live["gpu"] == {"name": "Tesla T4", "memory_mb": 15360}
        assert (live["state"], live["busy"], live["problem"]) == ("ready", 2, "")
        assert [order["do"] for order in live["orders"]] == ["save"]
        assert live["promoted_at"]
        assert live["ends_at"]
        assert (pending["id"], pending["problem"]) == (third.id, "connection refused")
        assert pending["promoted_at"] is None
        (past,) = (await site.admin.get("/api/sessions?past=5")).json()["past"]
        assert (past["id"], past["why"]) == (first.id, "generation 2 took over")
        backend = (await site.admin.get("/api/backends/colab")).json()
        assert (backend["session"], backend["pending"]) == (live, pending)
        assert backend["url"] == live["url"]

    begin(test)


def test_sessions_of_one_backend():
    async def test(site: Site) -> None:
        await Agent.of(site)
        await Agent.of(site, TOKENS["kaggle"], backend="kaggle")
        answer = (await site.admin.get("/api/sessions?backend=kaggle&past=1")).json()
        assert [one["backend"] for one in answer["pending"]] == ["kaggle"]
        refused(await site.admin.get("/api/sessions?backend=kagle"), 404, "kaggle")
        refused(await site.admin.get("/api/sessions?past=100000"), 422)

        async def broken(*_: object) -> None:
            raise StoreError("the disk is gone")

        site.stand.store.past_sessions = broken
        refused(await site.admin.get("/api/sessions?past=1"), 503)

    begin(test)


def test_a_new_token_is_shown_once_and_lets_its_backend_register():
    async def test(site: Site) -> None:
        answer = await site.admin.post("/api/tokens", json={"backend": "colab"})
        assert answer.status_code == 201
        made = answer.json()
        assert len(made["token"]) >= 43, "256 bits"
        assert (await register(site, made["token"])).status_code == 201
        refused(await register(site, made["token"], backend="kaggle"), 403)
        listed = await site.admin.get("/api/tokens")
        assert made["token"] not in listed.text
        assert sha(made["token"]) not in listed.text
        (own,) = (one for one in listed.json() if one["id"] == made["id"])
        assert (own["backend"], own["by"], own["revoked_at"]) == ("colab", "admin", None)
        assert made["token"] not in repr(site.stand.store.rows) + repr(site.stand.fleet)
        refused(await site.admin.post("/api/tokens", json={"backend": "colap"}), 404, "colab")
        refused(await site.admin.post("/api/tokens", json={"backend": "lab"}), 409, "static")
        refused(await site.admin.post("/api/tokens", json={}), 422)

    begin(test)


def test_a_token_whose_answer_was_lost_is_not_made_twice_nor_shown_again():
    async def test(site: Site) -> None:
        headers = {"idempotency-key": "lost"}
        ask = {"json": {"backend": "colab"}, "headers": headers}
        before = len(site.stand.fleet.tokens)
        assert (await site.admin.post("/api/tokens", **ask)).status_code == 201
        again = await site.admin.post("/api/tokens", **ask)
        refused(again, 409, "make another one")
        assert len(site.stand.fleet.tokens) == before + 1

    begin(test)


def test_revoking_ends_tokens_by_id_or_all_of_a_backend():
    async def test(site: Site) -> None:
        made = (await site.admin.post("/api/tokens", json={"backend": "colab"})).json()
        agent = await Agent.of(site, made["token"])
        agent.proves()
        answer = await site.admin.post("/api/tokens/revoke", json={"ids": [made["id"]]})
        assert answer.status_code == 200
        assert "the session of colab is over" in answer.json()["text"]
        refused(await agent.beats(), 410, "revoked")
        refused(await register(site, made["token"]), 401)
        assert (await register(site)).status_code == 201
        everything = await site.admin.post("/api/tokens/revoke", json={"backend": "colab"})
        assert everything.status_code == 200
        refused(await register(site), 401)
        for body in ({}, {"ids": [], "backend": None}, {"ids": ["x"], "backend": "colab"}):
            refused(await site.admin.post("/api/tokens/revoke", json=body), 422)
        refused(await site.admin.post("/api/tokens/revoke", json={"ids": ["x"]}), 404)
        revoked = {
            one["id"]: one["revoked_at"] for one in (await site.admin.get("/api/tokens")).json()
        }
        assert revoked[made["id"]]

    begin(test)


def test_an_agent_is_told_and_who_has_none_is_not():
    async def test(site: Site) -> None:
        for verb in ("restart", "save"):
            refused(await site.admin.post(f"/api/backends/colab/{verb}"), 409, "no session")
            refused(await site.admin.post(f"/api/backends/lab/{verb}"), 409, "no session")
            refused(await site.admin.post(f"/api/backends/none/{verb}"), 404)
        agent = await Agent.of(site)
        agent.proves()
        for verb in ("restart", "save"):
            answer = await site.admin.post(f"/api/backends/colab/{verb}")
            assert answer.status_code == 200, answer.text
        told = (await agent.beats()).json()["commands"]
        assert [order["do"] for order in told] == ["restart", "save"]

    begin(test)


def test_no_answer_of_the_api_holds_a_secret_or_what_is_kept_of_one():
    async def test(site: Site) -> None:
        agent = await Agent.of(site)
        agent.proves()
        newer = await Agent.of(site)
        document = (await site.client.get("/openapi.json")).json()
        looks = [path for path, verbs in document["paths"].items() if "get" in verbs]
        shown = ""
        for path in looks:
            if path.startswith("/api"):
                shown += (await site.admin.get(re.sub(r"\{\w+\}", "colab", path))).text
        shown += (await site.admin.get("/api/sessions?past=9")).text
        shown += (await site.admin.get("/metrics")).text + json.dumps(document)
        for text in (agent.told["token"], newer.told["token"], *TOKENS.values()):
            assert text not in shown
            assert sha(text) not in shown

    begin(test)
