"""Counts the bytes that the web sends, for the meter of our own traffic."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.web.ports import App, Message, Receive, Scope, Send

HEAD_BYTES = 360  # of an answer: status, headers, and what TLS, TCP and IP put around them


def counted(app: App, sent: Callable[[int], None]) -> App:
    """Give the same application, telling `sent` how many bytes each of its messages is."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            body = message.get("body")
            sent(HEAD_BYTES if body is None else len(body))
            await send(message)

        await app(scope, receive, sending)

    return counting
