"""What `aion doctor` looks at on the network: controls, clock, name, backends, DNS, egress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from backends.base import Ports, Reply
from orchestrator.cli.finding import ADVICE, FAILED, PASSED, Finding
from orchestrator.core.model import Verdict
from orchestrator.errors import AionError, Unreachable

if TYPE_CHECKING:
    from backends.base import Http
    from orchestrator.settings import Config

TIMEOUT_S = 5.0
CHECKS_S = 90.0
SKEW_S = 5.0
MONTH_S = 30 * 86400.0
# Sent for one probe on a connection kept alive, headers and acknowledgements included: ten
# backends every 10 s come to about 1 GB in a month.
PROBE_BYTES = 390
CANARY_BYTES = 1_200
DNS_READ_BYTES = 1_500
DNS_EVERY_S = 60.0
FREE_BYTES = 1_000_000_000  # a month, on Google's free e2-micro


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Yield what a look at the network finds."""
    from orchestrator.edge.child import run_child
    from orchestrator.edge.clock import SystemClock, SystemRandom
    from orchestrator.edge.http import AioHttp
    from orchestrator.edge.programs import run_program

    async with AioHttp() as http:
        ports = Ports(http, http, SystemClock(), SystemRandom(), run_program, run_child)
        async for finding in _controls(config, ports):
            yield finding
        yield await _public_name(config, http)
        looks = [_backend(config, name, ports) for name in config.plans]
        for look in asyncio.as_completed(looks):
            yield await look
        for name in config.plans:  # one after the other: each may need a process of 200 MB
            for finding in await of_its_kind(config, name, ports):
                yield finding
    async for finding in _dns(config):
        yield finding
    yield egress(config)


async def _controls(config: Config, ports: Ports) -> AsyncIterator[Finding]:
    if not config.controls:
        text = "none are configured, so losing our own network looks like every backend dying"
        yield Finding(ADVICE, "controls", text, "leave health.controls out, to have the usual four")
        return
    answers = await asyncio.gather(*(_ask(ports.http, control) for control in config.controls))
    silent = [u for u, a in zip(config.controls, answers, strict=True) if a is None]
    text = f"{len(answers) - len(silent)} of {len(answers)} answer"
    if len(silent) > 1 or len(silent) == len(answers):
        remedy = "check this machine's network, or name reachable ones in health.controls"
        yield Finding(FAILED, "controls", f"{text}; silent: {', '.join(silent)}", remedy)
    else:
        yield Finding(PASSED, "controls", text)
    yield _clock([answer for answer in answers if answer], ports.clock.wall())


async def _ask(http: Http, url: str) -> Reply | None:
    try:
        return await http.request("GET", url, timeout_s=TIMEOUT_S, max_bytes=4096)
    except Unreachable:
        return None


def _clock(answers: list[Reply], wall: float) -> Finding:
    """Compare our clock with the Date of several strangers' answers; the middle one is believed."""
    said = sorted(filter(None, (_date(answer) for answer in answers)))
    if not said:
        text = "nobody could be asked the time"
        return Finding(ADVICE, "clock", text, "timedatectl shows whether it is synchronized")
    off_s = wall - said[len(said) // 2]
    if abs(off_s) > SKEW_S:
        text = f"it is {abs(off_s):.0f} s {'fast' if off_s > 0 else 'slow'}"
        return Finding(FAILED, "clock", text, "timedatectl set-ntp true")
    return Finding(PASSED, "clock", f"right to within {SKEW_S:g} s, as {len(said)} others say")


def _date(answer: Reply) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


async def _public_name(config: Config, http: Http) -> Finding:
    if not config.web.public_url:
        text = "server.public_url is not set: nothing is checked from the outside in"
        return Finding(ADVICE, "public name", text, "set it to where clients reach this daemon")
    url = f"{config.web.public_url.rstrip('/')}/discovery"
    try:
        answer = await http.request("GET", url, timeout_s=TIMEOUT_S)
    except Unreachable as error:
        remedy = "is the daemon running, and do the name and its proxy lead here?"
        return Finding(FAILED, "public name", f"{url}: {error}", remedy)
    if answer.status != 200 or b'"epoch"' not in answer.body:  # noqa: PLR2004
        text = f"{url} answered {answer.status}, not as aion does"
        return Finding(FAILED, "public name", text, "does the name's proxy lead to this daemon?")
    return Finding(PASSED, "public name", f"{config.web.public_url} leads to a daemon of aion")


async def _backend(config: Config, name: str, ports: Ports) -> Finding:
    """Look at one backend as the daemon would."""
    from backends import driver

    subject = f"backend {name}"
    if config.fleet.backends[name].registers:
        text = "its address comes with its sessions, which the daemon knows"
        return Finding(PASSED, subject, f"{text}: aion session list")
    try:
        seen = await driver(config.plans[name], ports).probe()
    except AionError as error:
        return Finding(FAILED, subject, str(error))
    if seen.missing:
        text = f"it lacks the configured model {', '.join(seen.missing)}"
        return Finding(FAILED, subject, text, "load it there, or correct `models`")
    if seen.verdict is Verdict.OK:
        took = f" in {seen.latency_s * 1000:.0f} ms" if seen.latency_s is not None else ""
        return Finding(PASSED, subject, f"{seen.detail or 'it answers'}{took}")
    if seen.verdict is Verdict.DENIED:
        return Finding(FAILED, subject, seen.detail, "check its `key`: aion secret set")
    if seen.verdict is Verdict.FAILED and config.fleet.backends[name].powered:
        text = f"off, or not there: {seen.detail}"
        return Finding(ADVICE, subject, text, f"is it to be on now? aion backend start {name}")
    if seen.verdict is Verdict.FAILED:
        return Finding(FAILED, subject, seen.detail, "start it, or correct its address")
    return Finding(ADVICE, subject, seen.detail or str(seen.verdict), "it needs time")


async def of_its_kind(
    config: Config, name: str, ports: Ports, within_s: float = CHECKS_S
) -> list[Finding]:
    """Make the checks that a backend's kind brings; none of them can spoil the others."""
    from backends import checks

    plan = config.plans[name]
    look = checks(plan.backend.kind)
    if look is None:
        return []
    subject = f"{plan.backend.kind} {name}"
    try:
        async with asyncio.timeout(within_s):
            found = await look(plan, ports)
    except TimeoutError:
        return [Finding(FAILED, subject, f"its provider said nothing within {within_s:g} s")]
    except AionError as error:
        return [Finding(FAILED, subject, str(error))]
    outcomes = {True: PASSED, False: FAILED, None: ADVICE}
    return [Finding(outcomes[one.ok], subject, one.what, one.remedy) for one in found]


async def _dns(config: Config) -> AsyncIterator[Finding]:
    from orchestrator.edge.dns import open_provider

    for settings in config.dns:
        provider = open_provider(settings)
        try:
            found = await provider.check_token()
        except AionError as error:
            yield Finding(FAILED, f"dns {settings.name}", str(error))
            continue
        finally:
            await provider.close()
        for one in found:
            outcome = PASSED if one.ok else FAILED
            yield Finding(outcome, f"dns {settings.name}", one.what, one.remedy)


def egress(config: Config) -> Finding:
    """Estimate what probes and reads of DNS will send in a month, in bytes."""
    month = sum(_monthly(config)) + len(config.dns) * MONTH_S / DNS_EVERY_S * DNS_READ_BYTES
    text = f"looking at remote backends and DNS sends about {month / 1e9:.2f} GB a month"
    if month > FREE_BYTES:
        remedy = "a free e2-micro has 1 GB: raise health.interval there, or let backends push"
        return Finding(ADVICE, "egress", text, remedy)
    return Finding(PASSED, "egress", text)


def _monthly(config: Config) -> Iterator[float]:
    for backend in config.fleet.backends.values():
        if backend.remote:
            policy = backend.health
            yield MONTH_S / policy.interval_s * PROBE_BYTES
            yield MONTH_S / policy.canary_s * CANARY_BYTES if policy.canary_s else 0.0
