"""The public status page: names and states, nothing else. Plain HTML, no script."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.health import ALIVE
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.web import standing
from orchestrator.web.ports import LoopPort, Receive, Scope, Send
from orchestrator.web.problems import (
    NOSNIFF,
    Headers,
    method_not_allowed,
    not_found,
    respond,
    send_problem,
)
from orchestrator.web.standing import State
from orchestrator.web.words import WORDS, ago

if TYPE_CHECKING:
    from jinja2 import Environment, Template

HERE = Path(__file__).parent
KEPT_S = 1.0  # a rendered page is shown again for this long
TONE = {
    State.SERVING: "good",
    State.DEGRADED: "fair",
    State.STARTING: "calm",
    State.PAUSED: "calm",
    State.ISOLATED: "fair",
    State.DOWN: "bad",
}
SECURE: Headers = [
    (
        b"content-security-policy",
        (
            b"default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
            b"form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    NOSNIFF,
]
HTML: Headers = [(b"content-type", b"text/html; charset=utf-8"), *SECURE]


def environment() -> Environment:
    """Return the templates of this package; everything put into them is escaped."""
    # Two megabytes, which a daemon whose pages nobody opens can do without.
    from jinja2 import Environment, FileSystemLoader  # noqa: PLC0415

    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Pages:
    """Serves `/`, `/status` and the style sheet (ASGI)."""

    def __init__(self, loop: LoopPort, language: str = "en") -> None:
        self._loop = loop
        self._language = language if language in WORDS else "en"
        self._template: Template | None = None
        self._page: tuple[float, bytes] = (float("-inf"), b"")
        self._style = (HERE / "static" / "aion.css").read_bytes()
        self._etag = b'"%s"' % hashlib.sha256(self._style).hexdigest()[:16].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer one request."""
        path = scope["path"]
        if path not in ("/", "/status", "/static/aion.css"):
            await send_problem(send, not_found(path))
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, method_not_allowed("GET, HEAD"))
        elif path == "/static/aion.css":
            await self._send_style(scope, send)
        else:
            kept = (b"cache-control", b"max-age=2")
            if self._template is None:
                self._template = await asyncio.to_thread(_template)
            await respond(send, 200, [*HTML, kept], self._rendered(self._template))

    async def _send_style(self, scope: Scope, send: Send) -> None:
        kept: Headers = [(b"cache-control", b"max-age=300"), (b"etag", self._etag), NOSNIFF]
        if (b"if-none-match", self._etag) in scope["headers"]:
            await send({"type": "http.response.start", "status": 304, "headers": kept})
            await send({"type": "http.response.body", "body": b""})
            return
        kept.append((b"content-type", b"text/css; charset=utf-8"))
        await respond(send, 200, kept, self._style)

    def _rendered(self, template: Template) -> bytes:
        """Return the page as of now."""
        now = self._loop.now()
        rendered_at, page = self._page
        if not 0 <= now.at - rendered_at < KEPT_S:
            words = WORDS[self._language]
            shown = describe(self._loop.fleet, now, words)
            page = template.render(words=words, language=self._language, **shown).encode()
            self._page = (now.at, page)
        return page


def _template() -> Template:
    return environment().get_template("status.html")


def describe(fleet: Fleet, now: Now, words: dict[str, str]) -> dict[str, object]:
    """Return what the page shows, in words."""
    worst = standing.worst(fleet, now)
    services = []
    for name in fleet.config.services:
        state, assignment = standing.service_state(fleet, name, now), fleet.services.get(name)
        active = assignment.active if assignment is not None else None
        since = assignment.since if assignment is not None and active else None
        services.append(
            {
                "name": name,
                "tone": TONE[state],
                "state": words[f"service_{state.value}"],
                "by": active,
                "ago": ago(now.at - since, words) if since else "",
            }
        )
    backends = []
    for name in fleet.config.backends:
        believed = fleet.backends.get(name) or BackendState(name)
        health = "drained" if believed.drained and believed.health in ALIVE else believed.health
        backends.append(
            {
                "name": name,
                "tone": _tone(believed),
                "state": words[f"backend_{health}"],
                "ago": ago(now.at - believed.since, words) if believed.since else "",
                "serves": any(one.active == name for one in fleet.services.values()),
            }
        )
    return {
        "tone": TONE[worst],
        "headline": words[f"all_{worst.value}"],
        "services": services,
        "backends": backends,
        "as_of": standing.rfc3339(now.at, now),
    }


def _tone(state: BackendState) -> str:
    if state.drained:
        return "calm"
    tones = {"up": "good", "degraded": "fair", "down": "bad"}
    return tones.get(state.health.value, "calm")
