"""A service's state as the loop would hold it, for a reconciler to work on."""

import asyncio
import contextlib
from dataclasses import replace

from orchestrator.core.events import DnsAttempting, DnsConfirmed
from orchestrator.core.model import Publication, ServiceState
from orchestrator.core.specs import Target
from orchestrator.edge.dns import open_provider
from orchestrator.edge.dns.base import DnsSettings
from orchestrator.edge.dns.lookup import lookup
from orchestrator.edge.dns.reconciler import Pace, Reconciler

NAME = "ai.example.org"
A1, A2 = Target("A", "192.0.2.1"), Target("A", "192.0.2.2")
ALIAS = Target("CNAME", "one.example.net")
QUICK = Pace(
    watch_s=0.08,
    recheck_s=0.02,
    echo_s=0.02,
    echo_max_s=0.05,
    retry_s=0.02,
    retry_max_s=0.1,
    attempt_s=1.0,
)


class Clock:
    """Steady seconds that follow the event loop's own clock."""

    def steady(self):
        return 1_000_000.0 + asyncio.get_running_loop().time()

    wall = steady
    boot = steady


class Middling:
    """Randomness that is always in the middle."""

    def random(self):
        return 0.5

    def uniform(self, a, b):
        return (a + b) / 2

    def getrandbits(self, k):
        return 0


class Holder:
    """Applies the reconciler's events the way the core's rules say, and remembers them."""

    def __init__(self, *wanted, epoch=1):
        self.pub = Publication(wanted=wanted, wanted_epoch=epoch if wanted else 0)
        self.frozen = False
        self.events = []
        self.on_attempt = None

    def state(self):
        return ServiceState("chat", publication=self.pub), self.frozen

    def want(self, *targets):
        self.pub = replace(self.pub, wanted=targets, wanted_epoch=self.pub.wanted_epoch + 1)

    async def report(self, event):
        await asyncio.sleep(0)  # a commit takes a moment
        self.events.append(event)
        pub = self.pub
        if isinstance(event, DnsAttempting):
            at = Clock().steady()
            pub = replace(
                pub,
                attempted=event.targets,
                attempted_epoch=event.epoch,
                corrections=(*pub.corrections, at) if event.correction else pub.corrections,
            )
            self.pub = pub
            if self.on_attempt:
                self.on_attempt()
            return
        if isinstance(event, DnsConfirmed):
            pub = replace(
                pub,
                confirmed=event.targets,
                confirmed_epoch=event.epoch,
                record_ids=event.ids,
                trouble=None,
                detail="",
                retry_at=None,
                adopt=False,
            )
        else:
            epoch = event.epoch + 1 if event.outbid else pub.wanted_epoch
            pub = replace(
                pub,
                trouble=event.trouble,
                detail=event.detail,
                retry_at=event.retry_at,
                wanted_epoch=epoch,
            )
        self.pub = pub

    @property
    def in_place(self):
        pub = self.pub
        done = (pub.confirmed, pub.confirmed_epoch) == (pub.wanted, pub.wanted_epoch)
        return done and pub.trouble is None and not pub.adopt


def cloudflare_settings(standin, **more):
    base = DnsSettings(
        service="chat",
        provider="cloudflare",
        zone="example.org",
        name=NAME,
        token=standin.token,
        api=standin.api,
        instance="home",
    )
    return replace(base, **more)


def reconciler(settings, provider, holder, *, pace=QUICK, would=None):
    return Reconciler(
        settings,
        provider,
        state=holder.state,
        report=holder.report,
        clock=Clock(),
        random=Middling(),
        would=would,
        pace=pace,
    )


@contextlib.asynccontextmanager
async def running(settings, holder, *, provider=None, pace=QUICK, would=None):
    """A reconciler at work on `holder`, with its provider."""
    own = provider or open_provider(settings)
    made = reconciler(settings, own, holder, pace=pace, would=would)
    task = asyncio.create_task(made.run())
    try:
        yield made
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await own.close()


async def until(condition, within_s=25.0):
    """Wait for a condition; a coroutine function is asked again and again too."""
    async with asyncio.timeout(within_s):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.005)


async def resolved(standin, name=NAME):
    """What a real query answers now."""
    return [t.content for t in await lookup(name, resolver=standin.dns)]
