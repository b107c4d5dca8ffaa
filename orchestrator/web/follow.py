"""The event log as it happens: one JSON object a line."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from orchestrator.errors import AionError
from orchestrator.web.ports import StorePort
from orchestrator.web.streams import Streams
from orchestrator.web.views import event_view

TOPIC = "events"
PAGE = 500


def follow(
    store: StorePort, streams: Streams, after: int, limit: int, subject: str | None
) -> StreamingResponse:
    """Answer with the log from `after` on, and then with each new line.

    The lines come from the store, so a follower that was slow or away misses nothing; the streams
    only say when to look.
    """
    return StreamingResponse(
        _lines(store, streams, after, limit, subject),
        media_type="application/x-ndjson",
        headers={"x-accel-buffering": "no"},
    )


async def _lines(
    store: StorePort, streams: Streams, after: int, limit: int, subject: str | None
) -> AsyncIterator[str]:
    last, page, newest = after, limit, after == 0
    async with streams.listening(TOPIC) as listener:
        while not listener.ended:
            try:
                rows = await store.events(last, page, subject)
            except AionError:
                return  # the client comes back with the last `seq` it saw
            for row in rows:
                last = max(last, row.seq)
                yield event_view(row).model_dump_json() + "\n"
            more = len(rows) == page and not newest
            page, newest = PAGE, False
            if not more and not await listener.heard(streams.keep_alive_s):
                yield "\n"
