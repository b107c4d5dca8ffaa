"""What is used at the edge is counted, and told to the loop in batches."""

import asyncio
from dataclasses import replace

from backends.api import _tokens
from backends.base import Reply
from orchestrator.core.fleet import resumed
from orchestrator.core.lives import Session
from orchestrator.core.meters import EGRESS, MeterSpec, ProviderSaid, Spent, Unit
from orchestrator.core.model import Now, Observation, Source, Verdict
from orchestrator.core.specs import Backend, FleetConfig, Service
from orchestrator.core.windows import Per, Window
from orchestrator.edge.counting import EGRESS_EVERY, REQUEST_BYTES, Counts

DAY = Window(Per.DAY)
SPECS = (
    MeterSpec("groq:requests", Unit.REQUESTS, 1000.0, DAY, "groq"),
    MeterSpec("groq:tokens", Unit.TOKENS, 500_000.0, DAY, "groq"),
    MeterSpec("colab:tunnel", Unit.REQUESTS, 20_000.0, Window(Per.MONTH), "colab", advisory=True),
    MeterSpec(EGRESS, Unit.BYTES, None, Window(Per.MONTH), advisory=True),
)
TUNNEL_URL = "https://abc.ngrok-free.app"


class QuietHttp:
    """Answers everything with nothing."""

    async def request(self, method, url, **_):
        return Reply(200, {}, b"", 0.0)

    async def connect(self, host, port, *, timeout_s):
        return 0.0


def counts():
    names = ("groq", "colab")
    config = FleetConfig(
        backends={name: Backend(name, "x", "openai", registers=True) for name in names},
        services={"chat": Service("chat", names)},
        meters={spec.key: spec for spec in SPECS},
    )
    fleet = resumed(config, Now(1.0, 1.0))
    life = Session("s", 0.0, 0.0, url=TUNNEL_URL)
    fleet.backends["colab"] = replace(fleet.backends["colab"], session=life)
    said = []
    return Counts(lambda: fleet, said.append), said


def canary(**more):
    return Observation("groq", Source.CANARY, Verdict.OK, **more)


def test_a_canary_costs_a_request_and_its_tokens():
    counting, said = counts()
    counting.seen(canary(tokens=31))
    counting.seen(canary(tokens=9))
    counting.flush()
    counting.flush()
    assert said == [Spent((("groq:requests", 2.0), ("groq:tokens", 40.0)))]


def test_a_probe_costs_nothing():
    counting, said = counts()
    counting.seen(Observation("groq", Source.PROBE, Verdict.OK))
    counting.flush()
    assert said == []


def test_what_a_provider_says_of_the_same_limit_is_handed_on():
    counting, said = counts()
    counting.seen(canary(budget=(("requests", 1000.0, 400.0), ("tokens", 18_000.0, 5.0))))
    assert said == [ProviderSaid("groq:requests", 600.0)]


def test_every_request_through_a_metered_tunnel_counts():
    counting, said = counts()
    http = counting.over(QuietHttp())

    async def ask():
        for path in ("/api/version", "/.aion/identity?nonce=1"):
            await http.request("GET", TUNNEL_URL + path, timeout_s=1.0)
        await http.request("GET", "https://abc.example.org/x", timeout_s=1.0)

    asyncio.run(ask())
    counting.flush()
    assert said == [Spent((("colab:tunnel", 2.0),))]


def test_what_we_send_is_told_now_and_then():
    counting, said = counts()
    http = counting.over(QuietHttp())
    asyncio.run(http.request("POST", "https://a.example.org/", body=b"x" * 100, timeout_s=1.0))
    counting.sent(5000)
    for _ in range(EGRESS_EVERY):
        counting.flush()
    assert said == [Spent(((EGRESS, 5100.0 + REQUEST_BYTES),))]


def test_the_tokens_of_a_completion_are_read_where_they_are_a_number():
    assert _tokens({"usage": {"total_tokens": 17}}) == 17
    for odd in (None, [], {}, {"usage": None}, {"usage": {"total_tokens": "9"}}):
        assert _tokens(odd) == 0
