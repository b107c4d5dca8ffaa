"""`/v1/*` until the gateway exists: 503 in OpenAI's error form, so that clients retry elsewhere."""

from __future__ import annotations

import json

from orchestrator.web.ports import Receive, Scope, Send
from orchestrator.web.problems import NOSNIFF, Headers, respond

RETRY_AFTER_S = 30
BODY = json.dumps(
    {
        "error": {
            "message": "aion has no gateway yet; ask /discovery who serves and go there",
            "type": "service_unavailable",
            "param": None,
            "code": "gateway_missing",
        }
    }
).encode()
CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"Retry-After"),
]
PREFLIGHT: Headers = [
    *CORS,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type"),
    (b"access-control-max-age", b"600"),
]


async def openai_gap(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI
    """Answer any request below `/v1`."""
    if scope["method"] == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": PREFLIGHT})
        await send({"type": "http.response.body", "body": b""})
        return
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
        NOSNIFF,
        *CORS,
    ]
    await respond(send, 503, headers, BODY)
