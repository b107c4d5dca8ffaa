import asyncio
import hashlib
import json

import httpx
from webkit import TOKEN, Site, run, world

from jobs.runner import JobView
from orchestrator.core.events import Answer
from orchestrator.core.model import Verdict
from orchestrator.core.specs import DnsPolicy, FleetConfig, Service
from orchestrator.errors import ConfigError, Overloaded, StoreError, StoreFull


def of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    shown = answer.json()
    assert shown["status"] == answer.status_code
    assert {"type", "title", "detail", "code"} <= set(shown)
    return answer.status_code, shown["code"]


def test_everything_that_is_documented_needs_a_token_but_the_agents_file():
    async def test(site: Site) -> None:
        document = (await site.client.get("/openapi.json")).json()
        del document["paths"]["/agent.py"]
        for path, methods in document["paths"].items():
            for method in methods:
                answer = await site.client.request(method, path.replace("{", "").replace("}", ""))
                assert of(answer) == (401, "not_allowed"), path
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in ("/api", "/api/nothing", "/metrics"):
            assert of(await site.client.get(path)) == (401, "not_allowed")

    run(test)


def test_a_wrong_token_does_not_pass():
    wrong = ["", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN]

    async def test(site: Site) -> None:
        site.web._front["api"].longest_s = 0.01
        for value in wrong:
            answer = await site.client.get("/api/status", headers={"authorization": value})
            assert of(answer) == (401, "not_allowed")
        twice = [("authorization", f"Bearer {TOKEN}")] * 2
        assert of(await site.client.get("/api/status", headers=twice)) == (401, "not_allowed")

    run(test)


def test_a_new_token_takes_the_place_of_the_old_one():
    async def test(site: Site) -> None:
        site.web.change_token(hashlib.sha256(b"new").digest())
        assert (await site.admin.get("/api/status")).status_code == 401
        headers = {"authorization": "Bearer new"}
        assert (await site.client.get("/api/status", headers=headers)).status_code == 200

    run(test)


def test_wrong_guesses_are_slowed_down_and_the_right_token_is_not():
    async def test(site: Site) -> None:
        async def guess() -> int:
            headers = {"authorization": "Bearer wrong"}
            return (await site.client.get("/api/status", headers=headers)).status_code

        gate = site.web._front["api"]
        gate.longest_s = 0.5
        guesses = [asyncio.create_task(guess()) for _ in range(40)]
        await site.until(lambda: gate._waiting == 20)
        assert (await site.admin.get("/api/status")).status_code == 200
        await site.until(lambda: sum(one.done() for one in guesses) >= 20)
        assert {one.result() for one in guesses if one.done()} == {401, 429}
        for one in guesses:
            one.cancel()
        await asyncio.wait(guesses)

    run(test)


def test_the_status_shows_everything_at_a_glance():
    async def test(site: Site) -> None:
        shown = (await site.admin.get("/api/status")).json()
        assert (shown["version"], shown["state"], shown["settled"]) == ("1.2.3", "serving", True)
        assert [one["name"] for one in shown["services"]] == ["chat", "embed"]
        assert [one["name"] for one in shown["backends"]] == ["colab", "kaggle", "lab", "groq"]
        assert shown["backends"][0]["serves"] == ["chat"]
        for path, number in (("backends", 4), ("services", 2), ("jobs", 0)):
            assert len((await site.admin.get(f"/api/{path}")).json()) == number
        one = (await site.admin.get("/api/backends/colab")).json()
        assert one == shown["backends"][0]
        assert (await site.admin.get("/api/services/chat")).json() == shown["services"][0]

    run(test)


def test_explain_says_why_not_each_of_the_others():
    async def test(site: Site) -> None:
        site.stand.seen("kaggle", Verdict.FAILED, times=3)
        shown = (await site.admin.get("/api/explain/chat")).json()
        notes = {one["backend"]: one["note"] for one in shown["candidates"]}
        assert shown["active"] == "colab"
        assert notes["colab"] == "serves"
        assert "down" in notes["kaggle"]
        assert "gateway" in notes["groq"]

    run(test)


def test_commands_move_hold_and_release():
    async def test(site: Site) -> None:
        async def post(path: str, body: object = None) -> httpx.Response:
            answer = await site.admin.post(f"/api/{path}", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["text"]
            return answer

        async def service() -> dict:
            return (await site.admin.get("/api/services/chat")).json()

        await post("services/chat/failover", {"to": "lab"})
        assert (await service())["active"] == "lab"
        await post("services/chat/failover")
        assert (await service())["active"] == "colab"
        await post("services/chat/pin", {"backend": "kaggle", "for": "90m", "hard": True})
        assert (await service())["pin"]["hard"] is True
        await post("services/chat/unpin")
        assert (await service())["pin"] is None
        await post("services/chat/switchover", {"to": "lab", "at": "2099-01-01T03:00:00+01:00"})
        assert (await service())["planned"] == {"to": "lab", "at": "2099-01-01T02:00:00Z"}
        await post("backends/lab/drain")
        assert (await site.admin.get("/api/backends/lab")).json()["drained"] is True
        await post("backends/lab/undrain", {})
        await post("backends/lab/check")
        await post("pause", {"for": "1h"})
        assert (await site.admin.get("/api/status")).json()["paused"]["by"] == "admin"
        await post("resume")
        assert (await site.admin.get("/api/status")).json()["paused"] is None

    run(test)


def test_incidents_are_acknowledged_and_muted_by_id_or_key():
    async def test(site: Site) -> None:
        for name in ("colab", "kaggle", "lab"):
            site.stand.seen(name, Verdict.FAILED, times=3)
        shown = (await site.admin.get("/api/incidents")).json()
        one = next(one for one in shown if one["kind"] == "service_down")
        headers = {"aion-user": "maria"}
        path = f"/api/incidents/{one['id']}"
        assert (await site.admin.post(f"{path}/ack", headers=headers)).status_code == 200
        assert (await site.admin.get(path)).json()["acked_by"] == "admin (maria)"
        assert (await site.admin.post(f"{path}/mute", json={"for": "2h"})).status_code == 200
        key = httpx.URL(f"/api/incidents/{one['key']}")
        assert (await site.admin.get(key)).json()["muted_until"] is not None
        assert of(await site.admin.post("/api/incidents/nothing/ack")) == (404, "unknown")

    run(test)


WRONG = [
    ("services/chatt/failover", {}, 404, "unknown"),
    ("services/chat/failover", {"to": "colap"}, 404, "unknown"),
    ("services/chat/failover", {"too": "lab"}, 422, "invalid"),
    ("services/embed/failover", {"to": "colab"}, 409, "conflict"),
    ("services/chat/failover", {"to": "groq"}, 409, "conflict"),
    ("services/chat/pin", {}, 422, "invalid"),
    ("services/chat/pin", {"backend": "lab", "for": "4 hours"}, 422, "invalid"),
    ("services/chat/pin", {"backend": "lab", "for": "0s"}, 422, "invalid"),
    ("services/chat/pin", {"backend": "lab", "for": "999999999d"}, 422, "invalid"),
    ("services/chat/pin", {"backend": "lab", "for": 5}, 422, "invalid"),
    ("services/chat/pin", {"backend": "x" * 101}, 422, "invalid"),
    ("services/chat/switchover", {"to": "lab"}, 422, "invalid"),
    ("services/chat/switchover", {"to": "lab", "at": "tomorrow"}, 422, "invalid"),
    ("services/chat/switchover", {"to": "lab", "at": "2099-01-01T00:00:00"}, 422, "invalid"),
    ("services/chat/switchover", {"to": "lab", "at": "1999-01-01T00:00:00Z"}, 422, "past"),
    ("services/chat/dns/sync", {}, 409, "conflict"),
    ("backends/lab/start", {}, 409, "conflict"),
    ("backends/lab/stop", {}, 409, "conflict"),
    ("backends/labb/drain", {}, 404, "unknown"),
    ("backends/lab/drain", {"force": True}, 422, "invalid"),
    ("backends/lab/dance", {}, 404, "no_route"),
    ("jobs/backup/run", {}, 404, "unknown"),
    ("reload", {}, 409, "conflict"),
    ("status", {}, 405, "method"),
]


def test_what_is_wrong_with_a_command_is_said_and_nothing_is_done():
    async def test(site: Site) -> None:
        for path, body, status, code in WRONG:
            answer = await site.admin.post(f"/api/{path}", json=body)
            assert of(answer) == (status, code), (path, body, answer.text)
        near = (await site.admin.post("/api/services/chatt/failover")).json()
        assert near["nearest"] == "chat"
        assert "did you mean `chat`?" in near["detail"]
        assert [one for one in site.stand.audits if one and one.key] == []
        assert (await site.admin.get("/api/services/chat")).json()["epoch"] == 1

    run(test)


HOSTILE = [
    (b"{", 400),
    (b"", 422),
    (b"[" * 100_000, 400),
    (b'{"backend":' * 50_000, 400),
    (b"\xff\xfe", 400),
    (b'"text"', 422),
    (b"null", 422),
    (b'{"backend": ' + b"9" * 5000 + b"}", 400),
    (b'{"backend": NaN}', 422),
    (b'{"backend": "\\u0000\\n\\u001b[31m"}', 404),
]


def test_hostile_json_is_one_clear_problem():
    async def test(site: Site) -> None:
        headers = {"content-type": "application/json"}
        for body, status in HOSTILE:
            answer = await site.admin.post("/api/services/chat/pin", content=body, headers=headers)
            assert of(answer)[0] == status, answer.text
            assert "\x1b" not in answer.json()["detail"]
            assert "Traceback" not in answer.text
            assert len(answer.content) < 4000

    run(test)


def test_a_repeated_key_is_answered_again_and_done_once():
    async def test(site: Site) -> None:
        headers = {"idempotency-key": "k-1"}

        async def failover(to: str) -> httpx.Response:
            path = "/api/services/chat/failover"
            return await site.admin.post(path, json={"to": to}, headers=headers)

        many = await asyncio.gather(*(failover("lab") for _ in range(5)))
        assert len({answer.text for answer in many}) == 1
        assert many[0].status_code == 200
        assert len(site.stand.audits) == 1
        assert (await site.admin.get("/api/services/chat")).json()["epoch"] == 2
        assert of(await failover("kaggle")) == (422, "key_reused")
        bad = await site.admin.post("/api/pause", headers={"idempotency-key": "a b"})
        assert of(bad) == (400, "key")

    run(test)


def test_a_refusal_is_repeated_by_its_key_too():
    async def test(site: Site) -> None:
        for _ in range(2):
            answer = await site.admin.post(
                "/api/services/embed/failover",
                json={"to": "colab"},
                headers={"idempotency-key": "k"},
            )
            assert of(answer) == (409, "conflict")
        assert len(site.stand.audits) == 1

    run(test)


def test_who_gave_a_command_and_whence_is_noted():
    async def test(site: Site) -> None:
        headers = {"aion-user": "maria", "x-forwarded-for": "203.0.113.9, 192.0.2.4"}
        await site.admin.post("/api/pause", headers=headers)
        assert site.stand.audits[-1].who == "admin (maria)"
        assert site.stand.audits[-1].whence == "192.0.2.4"
        await site.admin.post("/api/resume", headers={"aion-user": "x<b>", "x-forwarded-for": "x"})
        assert (site.stand.audits[-1].who, site.stand.audits[-1].whence) == ("admin", "127.0.0.1")

    run(test)


def test_a_command_that_cannot_be_taken_or_stored_says_so():
    errors = [
        (Overloaded("the inbox is full"), 503),
        (StoreError("the database is locked"), 503),
        (StoreFull("the disk is full"), 507),
    ]

    async def test(site: Site) -> None:
        for error, status in errors:
            site.stand.failing = error
            answer = await site.admin.post("/api/pause")
            assert of(answer)[0] == status
            assert answer.json()["detail"] == str(error)
            assert ("retry-after" in answer.headers) == (status == 503)

    run(test)


def test_a_defect_shows_no_trace():
    async def test(site: Site) -> None:
        site.stand.failing = ZeroDivisionError("secret detail")
        answer = await site.admin.post("/api/pause")
        assert of(answer) == (500, "defect")
        assert "secret" not in answer.text

    run(test)


def test_the_log_is_paged_and_followed():
    async def test(site: Site) -> None:
        all_ = (await site.admin.get("/api/events")).json()
        assert [one["seq"] for one in all_] == list(range(1, len(all_) + 1))
        assert {"seq", "at", "action", "subject", "text", "data", "who"} == set(all_[0])
        two = (await site.admin.get("/api/events", params={"after": 1, "limit": 2})).json()
        assert [one["seq"] for one in two] == [2, 3]
        assert of(await site.admin.get("/api/events", params={"limit": 0})) == (422, "invalid")
        found: list[dict] = []

        async def follow() -> None:
            params = {"follow": "true", "after": str(all_[-1]["seq"])}
            async with site.admin.stream("GET", "/api/events", params=params) as answer:
                assert answer.headers["content-type"] == "application/x-ndjson"
                async for line in answer.aiter_lines():
                    if line:
                        found.append(json.loads(line))  # noqa: PERF401 - read as it grows

        task = asyncio.create_task(follow())
        await site.until(lambda: site.web.streams.open == 1)
        await site.admin.post("/api/backends/lab/drain")
        await site.until(lambda: any(one["action"] == "drained" for one in found))
        task.cancel()
        await asyncio.wait([task])
        await site.until(lambda: site.web.streams.open == 0)

    run(test)


class Jobs:
    def __init__(self) -> None:
        self.ran: list[str] = []

    def view(self) -> list[JobView]:
        return [JobView("housekeeping", 1_790_010_000.0, None, "", False, False)]

    async def run_now(self, name: str) -> Answer:
        if self.ran:
            return Answer("it is running", "conflict")
        self.ran.append(name)
        return Answer(f"{name} has started")

    def start_now(self, name: str, *, operator: bool = False) -> Answer:
        assert operator
        self.ran.append(f"{name}, not waited for")
        return Answer(f"{name} is started")


def test_jobs_are_listed_and_run():
    async def test(site: Site) -> None:
        assert (await site.admin.get("/api/jobs")).json()[0]["name"] == "housekeeping"
        first = await site.admin.post("/api/jobs/housekeeping/run")
        assert (first.status_code, first.json()["text"]) == (200, "housekeeping has started")
        assert of(await site.admin.post("/api/jobs/housekeeping/run")) == (409, "conflict")
        begun = await site.admin.post("/api/jobs/housekeeping/run?wait=false")
        assert (begun.status_code, begun.json()["text"]) == (200, "housekeeping is started")
        assert jobs.ran == ["housekeeping", "housekeeping, not waited for"]

    jobs = Jobs()
    run(test, parts={"jobs": jobs})


def test_a_reload_tells_what_changed_or_what_is_wrong():
    answers = [
        ["backends.lab: new"],
        ConfigError("error: 1 problem in aion.toml\n  1 | x\n    | ^"),
    ]

    async def reload() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def test(site: Site) -> None:
        good = await site.admin.post("/api/reload")
        assert good.json() == {"changes": ["backends.lab: new"]}
        bad = await site.admin.post("/api/reload")
        assert of(bad) == (422, "configuration")
        assert len(bad.json()["problems"]) == 3

    run(test, parts={"reload": reload})


def test_a_dns_name_is_shown_and_synced():
    config = world()
    chat = Service("chat", ("colab", "lab"), dns=DnsPolicy("ai.example.org"))
    named = FleetConfig(backends=config.backends, services={"chat": chat})

    async def test(site: Site) -> None:
        shown = (await site.admin.get("/api/services/chat")).json()["dns"]
        assert (shown["name"], shown["trouble"]) == ("ai.example.org", None)
        assert (await site.admin.post("/api/services/chat/dns/sync")).status_code == 200

    run(test, config=named)
