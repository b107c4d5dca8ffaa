"""Ollama's models: pulled where they are missing, loaded before anybody waits for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import aiohttp

PULL_SILENCE_S = 300.0
LOAD_S = 1800.0
PERCENT = 100


class NotPrepared(Exception):
    """A model could not be had; its text says which and why."""


def tagged(model: str) -> str:
    """Give a model's full name: no tag means `latest`."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def progress(line: Any) -> str:
    """Say how far a pull is."""
    done, total = line.get("completed"), line.get("total")
    if isinstance(done, int) and isinstance(total, int) and total:
        return f"{done * PERCENT // total} % of {total / 1e9:.1f} GB"
    return str(line.get("status", ""))[:80]


async def missing(http: aiohttp.ClientSession, root: str, models: tuple[str, ...]) -> list[str]:
    """Give those models that Ollama does not have."""
    async with http.get(f"{root}/api/tags") as reply:
        body = await reply.json(content_type=None)
    found = body.get("models") if isinstance(body, dict) else None
    have = {tagged(str(one.get("name", ""))) for one in found or [] if isinstance(one, dict)}
    return [model for model in models if tagged(model) not in have]


async def pull(
    http: aiohttp.ClientSession, root: str, model: str, tell: Callable[[str], None]
) -> None:
    """Have Ollama fetch a model; `tell` hears how far it is. Raises NotPrepared."""
    limits = aiohttp.ClientTimeout(sock_read=PULL_SILENCE_S)
    asked = {"model": model, "stream": True}
    async with http.post(f"{root}/api/pull", json=asked, timeout=limits) as reply:
        ended = ""
        async for raw in reply.content:
            line = json.loads(raw) if raw.strip() else {}
            if not isinstance(line, dict):
                continue
            if line.get("error"):
                raise NotPrepared(f"{model} cannot be pulled: {line['error']}")
            ended = str(line.get("status", ""))
            tell(f"pulling {model}: {progress(line)}")
    if ended != "success":
        raise NotPrepared(f"the pull of {model} broke off")


async def load(http: aiohttp.ClientSession, root: str, model: str, keep_alive: str) -> None:
    """Have Ollama load a model, so that the first request need not wait. Raises NotPrepared.

    A model for embeddings alone cannot generate: that it says so means that it is there.
    """
    keep: int | str = int(keep_alive) if keep_alive.lstrip("-").isdigit() else keep_alive
    limits = aiohttp.ClientTimeout(total=LOAD_S)
    asked = {"model": model, "keep_alive": keep, "stream": False}
    async with http.post(f"{root}/api/generate", json=asked, timeout=limits) as reply:
        text = await reply.text()
        if reply.status >= 300 and "does not support generate" not in text:
            raise NotPrepared(f"{model} cannot be loaded: {text[:150]}")
