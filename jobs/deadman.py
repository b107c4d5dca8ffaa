"""Tells an outside watcher that we are alive: it raises the alarm when we fall silent.

The ping goes out only if we were reached through our own public name first: a daemon that runs but
that nobody can reach is as good as dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import BadReply, Unreachable

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

    from jobs.base import Tools

TIMEOUT_S = 10.0


def trigger(tools: Tools) -> BaseTrigger | None:
    """Return when to ping; None without a `ping_url`."""
    from jobs.triggers import every  # noqa: PLC0415 - the command line imports this module

    return every(tools.deadman.every_s) if tools.deadman else None


async def run(tools: Tools) -> str:
    """Check ourselves from outside, then ping. Raises `Unreachable`, `BadReply`."""
    assert tools.deadman is not None
    if not await tools.name_ok():
        raise Unreachable("not pinged, for we were not reached through the public name")
    return await ping(tools.deadman.ping_url)


async def ping(url: str) -> str:
    """Send one ping; what is raised names neither the URL nor its parts."""
    import httpx  # noqa: PLC0415 - the command line imports this module

    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            reply = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # `from None`: the cause's text and its request hold the URL.
        raise Unreachable(f"the dead-man's watcher: {type(error).__name__}") from None
    if not reply.is_success:
        raise BadReply(
            f"the dead-man's watcher answered {reply.status_code}", status=reply.status_code
        )
    return "pinged"
