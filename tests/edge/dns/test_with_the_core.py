"""The reconciler on the core's own rules: what it reports is what `step` makes of it."""

import asyncio

from orchestrator.core.draft import apply, pools
from orchestrator.core.events import Resume, SyncDns
from orchestrator.core.fleet import step
from orchestrator.core.model import (
    BackendState,
    DnsTrouble,
    Fleet,
    Health,
    Now,
    Publication,
    ServiceState,
)
from orchestrator.core.records import ERA
from orchestrator.core.specs import Backend, DnsPolicy, Drift, FleetConfig, Service
from orchestrator.edge.dns import open_provider
from tests.edge.dns.world import A1, NAME, Clock, cloudflare_settings, running, until
from tests.standins.cloudflare import CloudflareStandin


class Core:
    """Stands where the loop stands: events in, turns applied."""

    def __init__(self, drift=Drift.RESPECT):
        lab = Backend("lab", "static", "ollama", targets=(A1,))
        chat = Service("chat", ("lab",), dns=DnsPolicy(NAME, drift=drift))
        config = FleetConfig({"lab": lab}, {"chat": chat}, instance="home")
        self.fleet = Fleet(config, pools=pools(config))
        self.fleet.backends["lab"] = BackendState("lab", Health.UP, doubt=False)
        pub = Publication(wanted=(A1,), wanted_epoch=4)
        self.fleet.services["chat"] = ServiceState("chat", "lab", epoch=4, publication=pub)
        self.entries = []

    def state(self):
        return self.fleet.services["chat"], False

    async def report(self, event):
        at = Clock().steady()
        turn = step(self.fleet, event, Now(at, at))
        apply(self.fleet, turn)
        self.entries += turn.entries
        return turn.answer

    @property
    def pub(self):
        return self.fleet.services["chat"].publication

    @property
    def in_place(self):
        pub = self.pub
        return pub.confirmed_epoch == pub.wanted_epoch and not pub.trouble and not pub.adopt


def scenario(check, drift=Drift.RESPECT, setup=None):
    async def run():
        async with CloudflareStandin() as standin:
            if setup:
                setup(standin)
            core = Core(drift)
            settings = cloudflare_settings(standin, drift=drift)
            provider = open_provider(settings)
            provider.settle_s = 0.0
            async with running(settings, core, provider=provider) as made:
                await check(standin, core, made)

    asyncio.run(run())


async def adopt(core, made):
    answer = await core.report(SyncDns("chat"))
    assert answer.problem is None
    made.poke()


def test_what_is_wanted_is_published_and_confirmed():
    async def check(standin, core, made):
        await until(lambda: core.in_place)
        assert core.pub.confirmed == (A1,)
        assert core.pub.record_ids == (standin.held(NAME)[0]["id"],)
        assert "published" in [entry.action for entry in core.entries]

    scenario(check)


def test_what_was_made_by_hand_is_adopted_when_told():
    async def check(standin, core, made):
        await until(lambda: core.pub.trouble is DnsTrouble.FOREIGN)
        await adopt(core, made)
        await until(lambda: core.in_place)

    scenario(check, setup=lambda s: s.by_hand(NAME, "CNAME", "blog.example.net"))


def test_our_own_future_is_outbid():
    async def check(standin, core, made):
        await until(lambda: core.in_place)
        assert core.pub.confirmed_epoch == 18

    scenario(check, setup=lambda s: s.by_hand(NAME, "A", "192.0.2.9", comment="aion home epoch=17"))


def test_another_instance_with_a_newer_epoch_is_outbid_only_when_told():
    async def check(standin, core, made):
        await until(lambda: core.pub.trouble is DnsTrouble.NEWER)
        assert standin.journal == []
        await adopt(core, made)
        await until(lambda: core.in_place)
        assert core.pub.confirmed_epoch == 18

    scenario(check, setup=lambda s: s.by_hand(NAME, "A", "192.0.2.9", comment="aion away epoch=17"))


def test_who_was_rebuilt_elsewhere_observes_until_it_is_told_to_take_over():
    async def check(standin, core, made):
        await until(lambda: core.pub.trouble is DnsTrouble.NEWER)
        assert standin.journal == []
        assert core.fleet.world.paused_since is not None
        assert "rebuilt elsewhere" in core.pub.detail
        await core.report(Resume())
        await adopt(core, made)
        await until(lambda: core.in_place)
        assert core.pub.confirmed_epoch == 2 * ERA
        assert core.fleet.world.paused_since is None

    comment = f"aion home epoch={ERA + 3}"
    scenario(check, setup=lambda s: s.by_hand(NAME, "A", "192.0.2.9", comment=comment))


def test_corrections_are_counted_by_the_core():
    async def check(standin, core, made):
        await until(lambda: core.in_place)
        for n in range(3):
            standin.held(NAME)[0]["content"] = f"198.51.100.{n + 1}"
            await until(lambda: standin.held(NAME)[0]["content"] == A1.content)
            assert len(core.pub.corrections) == n + 1
        standin.held(NAME)[0]["content"] = "198.51.100.9"
        await until(lambda: core.pub.trouble is DnsTrouble.DRIFT)
        assert standin.held(NAME)[0]["content"] == "198.51.100.9"

    scenario(check, Drift.CORRECT)
