"""The child process that sends one message: `python -m orchestrator.edge.notify`.

In: `{"mode": "first" | "every", "channels": [{"name", "url", "api"?}], "title", "body"}`.
Out: `{"results": [{"name", "ok", "detail"}]}`, one for each channel tried. "first" stops at the
first channel that takes the message. Apprise lives here and nowhere else.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.childside import pieces, redact, serve

CONNECT_S = 5.0
READ_S = 10.0
MAX_DETAIL = 200


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Send the message; see the module's docstring."""
    results = []
    for channel in payload["channels"]:
        result = send(channel, payload["title"], payload["body"])
        results.append(result)
        if result["ok"] and payload.get("mode") != "every":
            break
    return {"results": results}


def send(channel: dict[str, str], title: str, body: str) -> dict[str, Any]:
    """Send one message through one channel; `detail` says why not, without any secret."""
    apprise: Any = importlib.import_module("apprise")  # only here: importing this module is free

    name, url = channel["name"], channel["url"]
    asset = apprise.AppriseAsset(app_id="aion", app_desc="aion", async_mode=False)
    with _listening() as heard:
        service = apprise.Apprise.instantiate(url, asset=asset)
        if service is None:
            return {"name": name, "ok": False, "detail": "Apprise cannot use this channel's URL"}
        _tune(service, channel)
        sender = apprise.Apprise(asset=asset)
        sender.add(service)
        # Texts hold what backends say of themselves: as TEXT they are escaped, never markup.
        result = sender.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
    ok = bool(result)  # an AppriseResult is true only for SUCCESS; it is never `True` itself
    secrets = pieces(url, public=service.url(privacy=True))
    said = redact("; ".join(dict.fromkeys(heard)), secrets)
    detail = "" if ok else said[:MAX_DETAIL] or "it was not accepted"
    return {"name": name, "ok": ok, "detail": " ".join(detail.split())}


def _tune(service: Any, channel: dict[str, str]) -> None:
    """Bound the waits, unless the URL does (`cto`, `rto`), and apply an `api` of one's own."""
    if "cto=" not in channel["url"]:
        service.socket_connect_timeout = CONNECT_S
    if "rto=" not in channel["url"]:
        service.socket_read_timeout = READ_S
    api = channel.get("api", "").rstrip("/")
    if api:
        # Apprise has no key for another Bot API server; its Telegram class reads this attribute.
        service.notify_url = f"{api}/bot"


class _Ears(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect what Apprise logs: it is the only place where it says why a message failed."""
    logger = logging.getLogger("apprise")
    ears = _Ears()
    logger.addHandler(ears)
    logger.propagate = False
    try:
        yield ears.heard
    finally:
        logger.removeHandler(ears)


if __name__ == "__main__":
    serve(main)
