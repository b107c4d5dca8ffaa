"""`aion alert`: try the alert channels."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from orchestrator.edge.alerts import AlertSettings

app = typer.Typer(no_args_is_help=True)

REMEDIES = {
    "Unauthorized": "the token is wrong or was revoked: aion secret set telegram",
    "chat not found": "write to the bot first, then check `chat` in [alerts]",
    "connection error": "is the server's address right, and does it answer from this machine?",
    "cannot use": "check the URL's form: https://github.com/caronc/apprise/wiki",
}


@app.callback()
def alert() -> None:
    """Try the alert channels."""


@app.command()
def test(ctx: typer.Context) -> int | None:
    """Send a test message through each configured channel; needs no running daemon."""
    from orchestrator.cli.where import find_config
    from orchestrator.settings import load

    out = ctx.obj.output()
    settings = load(find_config(ctx.obj.config), environ=os.environ).alerts
    if not settings.channels:
        out.say("No channel is configured: notices go to the log. Add some under [alerts].")
    results = asyncio.run(try_channels(settings)) if settings.channels else []
    if out.json:
        out.data(results)
    else:
        for row in results:
            out.line(*_verdict(row))
    return None if results and all(row["ok"] for row in results) else 1


async def try_channels(settings: AlertSettings) -> list[dict[str, Any]]:
    """Send the test message through every channel by the daemon's own child process.

    Returns `{"name", "ok", "detail"}` for each. Raises `ChildFailed`.
    """
    from orchestrator.edge.alerts import CHANNEL_S, CHILD_S, NOTIFY, channel_row
    from orchestrator.edge.child import run_child
    from orchestrator.edge.phrases import TEST_BODY, TEST_TITLE
    from orchestrator.edge.texts import translate

    payload = {
        "mode": "every",
        "channels": [channel_row(channel) for channel in settings.channels],
        "title": translate(TEST_TITLE, settings.language),
        "body": translate(TEST_BODY, settings.language),
    }
    timeout_s = CHILD_S + CHANNEL_S * len(settings.channels)
    answer = await run_child(NOTIFY, payload, timeout_s=timeout_s)
    return [dict(row) for row in answer["results"]]


def _verdict(row: Mapping[str, Any]) -> list[Any]:
    from orchestrator.cli.output import Cell

    if row["ok"]:
        return [Cell("PASSED", "good"), f"  {row['name']}"]
    remedy = next((text for mark, text in REMEDIES.items() if mark in row["detail"]), "")
    tail = f"; {remedy}" if remedy else ""
    return [Cell("FAILED", "bad"), f"  {row['name']}: {row['detail']}{tail}"]
