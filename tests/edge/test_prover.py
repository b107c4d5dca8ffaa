"""What registered proves itself over the network, or does not: a real agent's answers, and others'."""

import asyncio
import itertools

import pytest

import backends
from backends import identity
from backends.base import Ports, SessionPlan
from orchestrator.core.registry import Challenged, Proved
from orchestrator.core.specs import HealthPolicy
from orchestrator.edge.clock import SystemClock, SystemRandom
from orchestrator.edge.http import AioHttp, public_only
from orchestrator.edge.prover import Prover
from tests.backends.worlds import plan
from tests.standins.agent import HANG, Agent

WHO = identity.PATH
HEALTH, LISTS, CHAT = "/health", "/v1/models", "/v1/chat/completions"
POLICY = HealthPolicy(timeout_s=5.0, canary_timeout_s=5.0)
SHORT = HealthPolicy(timeout_s=0.3, canary_timeout_s=0.3)
PATIENCE_S = 20.0


class World:
    """A prover with real HTTP, and what it reported."""

    def __init__(self, policy=POLICY, engine="openai", **keys):
        self.heard = []
        self.come = asyncio.Event()
        usual = {"allow_private": True, "models": {"ours": "theirs"}}
        self.keys = {**usual, "policy": policy, "engine": engine, **keys}

    async def __aenter__(self):
        self.http = await AioHttp().__aenter__()
        self.guarded = await AioHttp(allow=public_only).__aenter__()
        self.prover = Prover(self.driver, report=self.report, random=SystemRandom())
        return self

    async def __aexit__(self, *_):
        await self.prover.close()
        await self.guarded.__aexit__()
        await self.http.__aexit__()

    def driver(self, name, session):
        assert name == "lab"
        made = plan("notebook", session=session, **self.keys)
        ports = Ports(self.http, self.guarded, SystemClock(), SystemRandom())
        return backends.registered(made, ports)

    def report(self, event):
        self.heard.append(event)
        self.come.set()

    async def reported(self):
        async with asyncio.timeout(PATIENCE_S):
            await self.come.wait()
        self.come.clear()
        return self.heard[-1]

    async def prove(self, session):
        self.prover.prove("lab", session)
        return await self.reported()

    async def challenge(self, session):
        self.prover.challenge("lab", session)
        return await self.reported()


def proving(agent=None, *, answers=None, world=None):
    """Have an agent prove itself once; returns what was reported, and the agent."""

    async def main():
        async with agent or Agent() as one, World(**(world or {})) as there:
            one.answers |= answers or {}
            return await there.prove(one.session), one

    return asyncio.run(main())


def test_a_healthy_agent_proves_itself_fast():
    clock = SystemClock()
    began = clock.boot()
    event, agent = proving()
    assert event == Proved("lab", "s-1", ok=True, models=("theirs",), missing=(), canary=True)
    assert agent.asked == [WHO, LISTS, CHAT]
    assert agent.keys == []  # who it is was asked without telling a key
    assert clock.boot() - began < 2.0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, {"version": 1, "session": "s-1", "proof": "0" * 64}), "cannot prove"),
        ((200, {"version": 1, "session": "s-0", "proof": "0" * 64}), "has another session"),
        ((200, {"hello": "world"}), "not as an agent"),
        ((200, "<!doctype html><title>Parked</title>"), "a web page “Parked”"),
        ((503, {"title": "no session"}), "no session yet"),
        ((404, {"detail": "Not Found"}), "no agent of aion"),
        ((500, {"detail": "oops"}), "HTTP 500"),
        ((530, "<title>Argo Tunnel error</title>error code: 1033"), "no tunnel is connected"),
    ],
)
def test_who_is_not_the_agent_is_asked_nothing_more(answer, why):
    event, agent = proving(answers={WHO: answer})
    assert (event.ok, event.canary, event.models) == (False, False, None)
    assert why in event.detail
    assert agent.asked == [WHO]  # so no key of ours went there


def test_a_proof_for_another_host_is_none():
    event, agent = proving(Agent(host="fox.trycloudflare.com"))
    assert (event.ok, agent.asked) == (False, [WHO])
    assert "cannot prove" in event.detail


def test_an_old_proof_is_none():
    async def main():
        async with Agent() as agent, World() as there:
            assert (await there.prove(agent.session)).ok
            agent.replayed = agent.nonces[0]
            return await there.prove(agent.session), agent

    event, agent = asyncio.run(main())
    assert not event.ok
    assert "cannot prove" in event.detail
    assert len(set(agent.nonces)) == 2
    assert all(len(nonce) == 64 and int(nonce, 16) for nonce in agent.nonces)


@pytest.mark.parametrize("path", [WHO, LISTS, CHAT])
def test_an_agent_that_hangs_is_given_up(path):
    event, agent = proving(answers={path: HANG}, world={"policy": SHORT})
    assert not event.ok
    assert "timed out after 0.3 s" in event.detail
    assert agent.asked[-1] == path


def test_an_agent_that_is_gone_says_so():
    async def main():
        async with World() as there:
            async with Agent() as agent:
                session = agent.session
            return await there.prove(session)

    event = asyncio.run(main())
    assert (event.ok, event.detail) == (False, "connection refused")


@pytest.mark.parametrize(
    ("engine", "answers", "why"),
    [
        ("openai", {LISTS: (200, {"data": [{"id": "other"}]})}, "`theirs` is not there"),
        ("openai", {LISTS: (200, {"data": []})}, "`theirs` is not there"),
        ("openai", {LISTS: (200, "<html>")}, "a web page"),
        ("openai", {LISTS: (200, [1])}, "200"),
        ("openai", {LISTS: (401, {"error": {"message": "no"}})}, "it refuses our key"),
        ("openai", {LISTS: (429, {})}, "HTTP 429"),
        ("llamacpp", {HEALTH: (503, {"error": {"message": "Loading model", "code": 503}})}, "oading"),
        ("llamacpp", {HEALTH: (200, {"status": "ok"}), LISTS: (200, {"data": [{"id": "x"}]})}, "not there"),
        ("openai", {CHAT: (500, {"error": {"message": "out of memory"}})}, "no completion: HTTP 500"),
        ("openai", {CHAT: (200, {"ok": True})}, "with no completion"),
        ("openai", {CHAT: (403, {})}, "no completion: HTTP 403"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_serve_is_no_proof(engine, answers, why):
    event, _ = proving(answers=answers, world={"engine": engine})
    assert not event.ok
    assert why in event.detail


def test_what_is_loading_may_prove_itself_later():
    async def main():
        async with Agent() as agent, World(engine="llamacpp") as there:
            agent.answers[HEALTH] = (503, {"error": {"message": "Loading model", "code": 503}})
            early = await there.prove(agent.session)
            agent.answers[HEALTH] = (200, {"status": "ok"})
            return early, await there.prove(agent.session)

    early, late = asyncio.run(main())
    assert (early.ok, late.ok) == (False, True)


def test_a_missing_model_is_told_of_and_no_hindrance():
    event, _ = proving(world={"models": {"ours": "theirs", "more": "theirs-too"}})
    assert (event.ok, event.missing) == (True, ("more",))


def test_a_busy_engine_is_one_that_works():
    event, _ = proving(answers={CHAT: (429, {"error": {"message": "queue is full"}})})
    assert (event.ok, event.canary) == (True, True)


def test_without_canaries_no_completion_is_asked_for():
    event, agent = proving(world={"policy": HealthPolicy(canary_s=None)})
    assert (event.ok, event.canary) == (True, False)
    assert agent.asked == [WHO, LISTS]


def test_an_agent_on_this_machine_is_out_of_reach_unless_it_may_be_private():
    event, agent = proving(world={"allow_private": False})
    assert (event.ok, event.detail) == (False, "address 127.0.0.1 is not allowed")
    assert agent.asked == []


def test_a_newer_session_ends_the_proof_of_the_one_before():
    async def main():
        async with Agent("s-1") as old, Agent("s-2", "other") as new, World() as there:
            old.answers[LISTS] = HANG
            there.prover.prove("lab", old.session)
            async with asyncio.timeout(PATIENCE_S):
                while LISTS not in old.asked:  # noqa: ASYNC110 - until it hangs there
                    await asyncio.sleep(0.005)
            event = await there.prove(new.session)
            return event, there.heard

    event, heard = asyncio.run(main())
    assert (event.session, event.ok) == ("s-2", True)
    assert heard == [event]


def test_a_proof_under_way_is_not_begun_again():
    async def main():
        async with Agent() as agent, World(SHORT) as there:
            agent.answers[LISTS] = HANG
            there.prover.prove("lab", agent.session)
            async with asyncio.timeout(PATIENCE_S):
                while LISTS not in agent.asked:  # noqa: ASYNC110 - until it hangs there
                    await asyncio.sleep(0.005)
            there.prover.prove("lab", agent.session)
            await there.reported()
            asked = agent.asked.count(WHO)
            agent.answers.pop(LISTS)
            await there.prove(agent.session)
            return asked, agent.asked.count(WHO), there.heard

    first, both, heard = asyncio.run(main())
    assert (first, both, len(heard)) == (1, 2, 2)


@pytest.mark.parametrize(
    ("agent", "ok"),
    [({}, True), ({"host": "owl.trycloudflare.com"}, False), ({"token": "x"}, True)],
)
def test_a_challenge_asks_for_the_identity_alone(agent, ok):
    async def main():
        async with Agent(**agent) as one, World() as there:
            one.answers[LISTS] = HANG
            return await there.challenge(one.session), one

    event, one = asyncio.run(main())
    assert event == Challenged("lab", "s-1", ok=ok)
    assert one.asked == [WHO] * (1 if ok else 2)


def test_one_answer_that_is_lost_ends_no_session():
    async def main():
        async with Agent() as agent, World(SHORT) as there:
            agent.answers[WHO] = HANG
            there.prover.challenge("lab", agent.session)
            async with asyncio.timeout(PATIENCE_S):
                while not agent.asked:  # noqa: ASYNC110 - until it hangs there
                    await asyncio.sleep(0.005)
            agent.answers.pop(WHO)
            return await there.reported(), agent.nonces

    event, nonces = asyncio.run(main())
    assert event == Challenged("lab", "s-1", ok=True)
    assert len(set(nonces)) == 2


def test_a_challenge_that_another_session_answers_is_not_met():
    async def main():
        async with Agent("s-2") as newer, World() as there:
            return await there.challenge(SessionPlan("s-1", newer.url, newer.session.secret))

    assert asyncio.run(main()) == Challenged("lab", "s-1", ok=False)


def test_a_challenge_without_an_answer_is_not_met():
    async def main():
        async with Agent() as agent, World(SHORT) as there:
            agent.answers[WHO] = HANG
            return await there.challenge(agent.session)

    assert asyncio.run(main()) == Challenged("lab", "s-1", ok=False)


SOMEWHERE = SessionPlan("s-1", "https://fox.trycloudflare.com", "00")


def reported_by(drivers):
    async def main():
        come, heard = asyncio.Semaphore(0), []

        def report(event):
            heard.append(event)
            come.release()

        prover = Prover(drivers, report=report, random=SystemRandom())
        prover.prove("lab", SOMEWHERE)
        prover.challenge("lab", SOMEWHERE)
        async with asyncio.timeout(PATIENCE_S):
            await come.acquire()
            await come.acquire()
        return sorted(heard, key=repr)

    return asyncio.run(main())


def test_what_is_not_configured_any_more_proves_nothing():
    assert reported_by(lambda *_: None) == [
        Challenged("lab", "s-1", ok=False),
        Proved("lab", "s-1", ok=False, detail="it is not configured any more"),
    ]


def test_a_bug_in_a_driver_costs_its_backend_and_nothing_else():
    assert reported_by(lambda *_: 1 / 0) == [
        Challenged("lab", "s-1", ok=False),
        Proved("lab", "s-1", ok=False, detail="internal error: ZeroDivisionError"),
    ]


def test_many_prove_themselves_at_once():
    names = [f"b{n}" for n in range(40)]

    async def main():
        async with Agent() as agent, World() as there:
            there.driver = lambda _, session: World.driver(there, "lab", session)
            prover = Prover(there.driver, report=there.report, random=SystemRandom())
            for name, _ in itertools.product(names, range(2)):
                prover.prove(name, agent.session)
            async with asyncio.timeout(PATIENCE_S):
                while len(there.heard) < len(names):
                    await there.reported()
            return there.heard

    heard = asyncio.run(main())
    assert sorted(event.backend for event in heard) == sorted(names)
    assert all(event.ok for event in heard)


def test_nothing_is_reported_after_the_end():
    async def main():
        async with Agent() as agent, World() as there:
            agent.answers[WHO] = HANG
            there.prover.prove("lab", agent.session)
            there.prover.challenge("lab", agent.session)
            async with asyncio.timeout(PATIENCE_S):
                while agent.asked.count(WHO) < 2:  # noqa: ASYNC110 - until both hang there
                    await asyncio.sleep(0.005)
            await there.prover.close()
            return there.heard

    assert asyncio.run(main()) == []
