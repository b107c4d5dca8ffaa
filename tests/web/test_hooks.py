"""What outside schedulers may have done, and what they may not."""

import asyncio
import hashlib

import httpx
from webkit import Row, Site, run

from jobs.runner import JobView
from orchestrator.core.events import Answer
from orchestrator.errors import ConfigError, StoreFull
from orchestrator.web.carrier import HookSettings

TOKEN = "hook-token-0123456789abcdefghijklmnop"
OTHER = "other-token-0123456789abcdefghijklmno"


def hook(token: str = TOKEN, **more) -> HookSettings:
    return HookSettings(hashlib.sha256(token.encode()).digest(), **more)


class Jobs:
    """A runner's stand-in that says what it is told to say."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [Answer("housekeeping is started")]
        self.started: list[str] = []

    def view(self) -> tuple[JobView, ...]:
        return ()

    async def run_now(self, name: str) -> Answer:
        raise AssertionError("a hook waits for nothing")

    def start_now(self, name: str, *, operator: bool = False) -> Answer:
        self.started.append(name)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def bearer(token: str = TOKEN, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", **more}


def called(answer: httpx.Response) -> tuple[int, str]:
    shown = answer.json()
    return answer.status_code, shown["text"] if answer.is_success else shown["code"]


def test_a_hook_gives_its_command_and_the_log_says_who():
    hooks = {
        "out": hook(do="drain", target="lab"),
        "in": hook(do="undrain", target="lab"),
        "look": hook(do="check", target="lab"),
        "move": hook(do="failover", target="chat", to="kaggle"),
        "night": hook(do="pause", for_s=3600.0),
        "day": hook(do="resume"),
    }

    async def test(site: Site) -> None:
        async def call(name: str) -> str:
            answer = await site.client.post(f"/hooks/{name}", headers=bearer(), content=b"{}")
            assert answer.status_code == 200, answer.text
            assert site.stand.audits[-1].who == f"hook:{name}"
            return answer.json()["text"]

        fleet = site.stand.fleet
        await call("out")
        assert fleet.backends["lab"].drained
        await call("in")
        assert not fleet.backends["lab"].drained
        assert "lab" in await call("look")
        await call("move")
        assert fleet.services["chat"].active == "kaggle"
        assert "already" in await call("move")
        await call("night")
        assert fleet.world.paused_by == "hook:night"
        assert fleet.world.paused_until == site.stand.at + 3600.0
        await call("day")
        assert fleet.world.paused_since is None

    run(test, hooks=hooks)


def test_a_hooks_token_is_for_that_hook_alone():
    hooks = {"mine": hook(do="resume"), "other": hook(OTHER, do="resume")}

    async def test(site: Site) -> None:
        site.web._front["hooks"].longest_s = 0.01
        for path in ("/hooks/other", "/hooks/none", "/hooks", "/hooks/", "/hooks/mine/more"):
            answer = await site.client.post(path, headers=bearer())
            assert called(answer) == (401, "not_allowed"), path
        assert called(await site.client.post("/hooks/mine")) == (401, "not_allowed")
        for path in ("/api/status", "/metrics"):
            assert (await site.client.get(path, headers=bearer())).status_code == 401
        assert (await site.admin.post("/hooks/mine")).status_code == 401
        assert (await site.client.post("/hooks/mine", headers=bearer())).status_code == 200

    run(test, hooks=hooks)


def test_a_header_of_our_own_leaves_authorization_to_the_scheduler():
    hooks = {"mine": hook(do="resume")}

    async def test(site: Site) -> None:
        async def status(headers) -> int:
            return (await site.client.post("/hooks/mine", headers=headers)).status_code

        site.web._front["hooks"].longest_s = 0.01
        assert await status({"x-aion-token": TOKEN}) == 200
        assert await status({"x-aion-token": TOKEN, "authorization": "Bearer signed"}) == 200
        assert await status({"x-aion-token": "wrong", **bearer()}) == 401
        assert await status([("x-aion-token", TOKEN)] * 2) == 401
        assert await status([("authorization", f"Bearer {TOKEN}")] * 2) == 401

    run(test, hooks=hooks)


def test_a_token_in_the_address_counts_only_where_the_hook_allows_it():
    hooks = {"closed": hook(do="resume"), "open": hook(do="resume", in_url=True)}

    async def test(site: Site) -> None:
        async def status(query: str, name: str = "open", **headers: str) -> int:
            return (await site.client.post(f"/hooks/{name}?{query}", headers=headers)).status_code

        site.web._front["hooks"].longest_s = 0.01
        assert await status(f"token={TOKEN}") == 200
        assert await status(f"a=b&token={TOKEN}") == 200
        assert await status(f"token={TOKEN}", "closed") == 401
        assert await status(f"token={TOKEN}&token={TOKEN}") == 401
        assert await status(f"token={TOKEN}x") == 401
        assert await status(f"token={TOKEN}", authorization="Bearer wrong") == 401

    run(test, hooks=hooks)


def test_get_does_it_only_where_the_hook_allows_it():
    hooks = {"post": hook(do="resume"), "any": hook(do="resume", get=True)}

    async def test(site: Site) -> None:
        for method in ("GET", "HEAD"):
            refused = await site.client.request(method, "/hooks/post", headers=bearer())
            assert refused.status_code == 405
            assert refused.headers["allow"] == "POST"
            answer = await site.client.request(method, "/hooks/any", headers=bearer())
            assert answer.status_code == 200
            assert bool(answer.content) == (method == "GET")
        assert [audit.who for audit in site.stand.audits] == ["hook:any"] * 2
        for method in ("PUT", "DELETE"):
            answer = await site.client.request(method, "/hooks/any", headers=bearer())
            assert answer.status_code == 405

    run(test, hooks=hooks)


def test_wrong_guesses_are_slowed_down_and_the_right_token_is_not():
    async def test(site: Site) -> None:
        async def guess() -> int:
            return (await site.client.post("/hooks/mine", headers=bearer("wrong"))).status_code

        gate = site.web._front["hooks"]
        gate.longest_s = 0.5
        guesses = [asyncio.create_task(guess()) for _ in range(40)]
        await site.until(lambda: gate._waiting == 20)
        answer = await site.client.post("/hooks/mine", headers=bearer())
        assert answer.status_code == 200
        await site.until(lambda: sum(one.done() for one in guesses) >= 20)
        assert {one.result() for one in guesses if one.done()} == {401, 429}
        for one in guesses:
            one.cancel()
        await asyncio.wait(guesses)

    run(test, hooks={"mine": hook(do="resume")})


def test_a_job_is_started_and_noted_and_one_that_runs_already_is_no_failure():
    jobs = Jobs(
        Answer("housekeeping is started"), Answer("housekeeping is running already", "running")
    )

    async def test(site: Site) -> None:
        def noted() -> list[Row]:
            return [row for row in site.stand.store.rows if row.action == "hook_called"]

        first = await site.client.post("/hooks/clean", headers=bearer())
        assert called(first) == (202, "housekeeping is started")
        assert [(row.subject, row.text) for row in noted()] == [
            ("clean", "housekeeping is started")
        ]
        assert site.stand.audits[-1].who == "hook:clean"
        again = await site.client.post("/hooks/clean", headers=bearer())
        assert called(again) == (200, "housekeeping is running already")
        assert len(noted()) == 1
        assert jobs.started == ["housekeeping"] * 2

    run(test, hooks={"clean": hook(job="housekeeping")}, parts={"jobs": jobs})


def test_a_job_that_cannot_be_started_says_why():
    async def test(site: Site) -> None:
        jobs.answers = [Answer("no job is called power", "unknown")]
        assert called(await site.client.post("/hooks/on", headers=bearer())) == (404, "unknown")
        jobs.answers = [Answer("it is in quarantine", "conflict")]
        assert called(await site.client.post("/hooks/on", headers=bearer())) == (409, "conflict")
        assert site.stand.audits == []

    jobs = Jobs()
    run(test, hooks={"on": hook(job="power")}, parts={"jobs": jobs})


def test_a_repeated_key_does_nothing_twice_and_is_no_other_hooks_business():
    jobs = Jobs()
    hooks = {"clean": hook(job="housekeeping"), "move": hook(do="failover", target="chat")}

    async def test(site: Site) -> None:
        key = {"idempotency-key": "2027-01-31"}
        answers = [await site.client.post("/hooks/clean", headers=bearer(**key)) for _ in range(3)]
        assert {called(one) for one in answers} == {(202, "housekeeping is started")}
        assert len(jobs.started) == 1
        both = [site.client.post("/hooks/move", headers=bearer(**key)) for _ in range(2)]
        first, second = await asyncio.gather(*both)
        assert called(first) == called(second)
        assert first.status_code == 200
        assert site.stand.fleet.services["chat"].active == "kaggle", "moved on once, not twice"

    run(test, hooks=hooks, parts={"jobs": jobs})


def test_a_reload_says_how_much_changed_and_keeps_the_files_text_to_itself():
    said: list[list[str] | ConfigError] = [
        ["backend `secret-place` is added"],
        ConfigError("1 problem in /etc/aion/aion.toml"),
    ]

    async def reload() -> list[str]:
        result = said.pop(0)
        if isinstance(result, ConfigError):
            raise result
        return result

    async def test(site: Site) -> None:
        first = await site.client.post("/hooks/again", headers=bearer())
        assert called(first) == (200, "the configuration was read again; changes: 1")
        refused = await site.client.post("/hooks/again", headers=bearer())
        assert called(refused) == (409, "conflict")
        assert "/etc" not in refused.text

    run(test, hooks={"again": hook(do="reload")}, parts={"reload": reload})


def test_what_cannot_be_done_is_a_problem_and_not_a_crash():
    hooks = {"up": hook(do="start", target="lab"), "move": hook(do="failover", target="chat")}

    async def test(site: Site) -> None:
        refused = await site.client.post("/hooks/up", headers=bearer())
        assert called(refused) == (409, "conflict")
        assert "static" in refused.json()["detail"]
        site.stand.failing = StoreFull("the disk is full")
        full = await site.client.post("/hooks/move", headers=bearer())
        assert called(full) == (507, "disk_full")

    run(test, hooks=hooks)


def test_a_body_is_ignored_and_bounded():
    async def test(site: Site) -> None:
        async def post(size: int) -> int:
            content = b"\xff" * size
            return (
                await site.client.post("/hooks/mine", headers=bearer(), content=content)
            ).status_code

        assert await post(100_000) == 200
        assert await post(300_000) == 413
        assert await post(10) == 200

    run(test, hooks={"mine": hook(do="resume")}, body_limit=200_000)


def test_other_hooks_take_the_place_of_the_old_ones_after_a_reload():
    async def test(site: Site) -> None:
        site.web._front["hooks"].longest_s = 0.01
        site.web.change_hooks({"new": hook(OTHER, do="resume")})
        assert (await site.client.post("/hooks/old", headers=bearer())).status_code == 401
        answer = await site.client.post("/hooks/new", headers=bearer(OTHER))
        assert answer.status_code == 200

    run(test, hooks={"old": hook(do="resume")})


def test_the_api_document_names_the_hooks():
    async def test(site: Site) -> None:
        document = (await site.client.get("/openapi.json")).json()
        shown = document["paths"]["/hooks/{name}"]
        assert set(shown) == {"post", "get"}
        assert {"200", "202"} <= set(shown["post"]["responses"])

    run(test)
