"""What every kind of backend promises, whatever happens at the other end.

A new kind adds itself to KINDS below: how to make one, and what it stands on in each situation.
"""

import asyncio

import pytest
from pydantic import ValidationError

import backends
from backends.base import Options
from orchestrator.core.model import Observation, Source, Verdict
from orchestrator.core.specs import HealthPolicy
from tests.backends.worlds import SESSION, HandClock, TableHttp, driver, plan, reply

LIST = {"object": "list", "data": [{"id": "theirs"}]}
DONE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}]}
POLICY = HealthPolicy(timeout_s=0.05, canary_timeout_s=0.05)
RENTED = ("gce", "libcloud", "runpod", "vast")
SITUATIONS = ("well", "refused", "denied", "throttled", "broken", "strange", "page")
VERDICTS = {
    "well": Verdict.OK,
    "refused": Verdict.FAILED,
    "denied": Verdict.DENIED,
    "throttled": Verdict.BUSY,
    "broken": Verdict.FAILED,
    "strange": Verdict.FAILED,
    "page": Verdict.FAILED,
}
ANSWERS = {
    "refused": "connection refused",
    "denied": reply(401, {"error": {"message": "no"}}),
    "throttled": reply(429, "", {"retry-after": "17"}),
    "broken": reply(500),
    "strange": reply(200, "42"),
    "page": reply(200, "<!doctype html><title>Hello</title>"),
}
SCRIPTS = {"well": "up", "refused": "down", "denied": "denied", "throttled": "busy"}


def static(situation, prefix=""):
    well = {f"{prefix}/models": reply(200, LIST), f"{prefix}/chat/completions": reply(200, DONE)}
    odd = ANSWERS.get(situation)
    return TableHttp(well if odd is None else dict.fromkeys(well, odd))


def made(kind, situation):
    """Make a backend of that kind whose other end is in that situation."""
    secrets = {"key": "s3cret"}
    models = {"ours": "theirs"}
    if kind == "static":
        key = {"credential": "k"}
        one = plan("static", "openai", models=models, secrets=secrets, policy=POLICY, key=key)
        return driver(static(situation, "/v1"), one)
    if kind == "api":
        one = plan("api", models=models, secrets=secrets, policy=POLICY, key={"credential": "k"})
        return driver(static(situation, "/v1"), one)
    if kind in ("notebook", "kaggle", "colab"):
        one = plan(kind, models=models, secrets=secrets, policy=POLICY, session=SESSION)
        return driver(static(situation, "/v1"), one)
    if kind == "command":
        one = plan(
            "command", models=models, secrets=secrets, policy=POLICY, key={"credential": "k"}
        )
        return driver(static(situation, "/v1"), one)
    if kind in RENTED:
        one = plan(kind, models=models, secrets=secrets, policy=POLICY, key={"credential": "k"})
        return driver(static(situation, "/v1"), one)
    script = SCRIPTS.get(situation, "error")
    return driver(TableHttp({}), plan("fake", models=models, policy=POLICY, script=script))


KINDS = ("static", "api", "notebook", "kaggle", "colab", "command", "fake", *RENTED)
everywhere = pytest.mark.parametrize("kind", KINDS)
whatever = pytest.mark.parametrize("situation", SITUATIONS)


def test_every_kind_is_held_to_this():
    assert set(KINDS) == set(backends.KINDS)


@everywhere
def test_a_kinds_options_are_frozen_and_refuse_unknown_keys(kind):
    options = backends.options(kind)
    assert issubclass(options, Options)
    assert options.model_config["frozen"]
    with pytest.raises(ValidationError):
        plan(kind, colour="red")


@everywhere
@whatever
def test_a_probe_reports_and_never_raises(kind, situation):
    seen = asyncio.run(made(kind, situation).probe())
    assert isinstance(seen, Observation)
    assert (seen.backend, seen.source) == ("lab", Source.PROBE)
    assert seen.verdict is VERDICTS[situation], seen
    assert seen.detail.isprintable()
    assert seen.verdict is Verdict.OK or seen.detail
    assert (seen.retry_after_s is not None) == (seen.verdict is Verdict.BUSY)
    assert "s3cret" not in repr(seen)


@everywhere
@whatever
def test_a_canary_reports_and_never_raises(kind, situation):
    seen = asyncio.run(made(kind, situation).canary())
    assert seen is None or isinstance(seen, Observation)
    if seen is not None:
        assert (seen.backend, seen.source) == ("lab", Source.CANARY)
        assert seen.detail.isprintable()
        if situation == "well":
            assert seen.verdict is Verdict.OK
        if situation in {"refused", "broken", "strange", "page"}:
            assert seen.verdict is Verdict.FAILED


@everywhere
def test_a_well_backend_says_how_long_it_took_and_which_models_it_has(kind):
    seen = asyncio.run(made(kind, "well").probe())
    assert seen.latency_s is not None
    assert seen.latency_s >= 0
    assert seen.models == ("theirs",)
    assert seen.missing == ()


@everywhere
@whatever
def test_probes_may_overlap_and_be_cancelled(kind, situation):
    async def main():
        one = made(kind, situation)
        await asyncio.gather(one.probe(), one.canary(), one.probe())
        task = asyncio.ensure_future(one.probe())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await one.probe()

    assert asyncio.run(main()).verdict is VERDICTS[situation]


@everywhere
def test_a_kind_recovers_by_itself(kind):
    if kind == "fake":
        clock = HandClock()
        one = driver(TableHttp({}), plan("fake", script="down 10s, up"), clock)
        assert asyncio.run(one.probe()).verdict is Verdict.FAILED
        clock.now += 10
        assert asyncio.run(one.probe()).verdict is Verdict.OK
        return
    state = {"answer": reply(502)}
    http = TableHttp({"/v1/models": lambda: state["answer"]})
    one = driver(http, plan(kind, models={"ours": "theirs"}, session=SESSION))
    assert asyncio.run(one.probe()).verdict is Verdict.FAILED
    state["answer"] = reply(200, LIST)
    assert asyncio.run(one.probe()).verdict is Verdict.OK
