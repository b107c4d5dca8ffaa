"""Who serves, for anyone: `/discovery`, `/discovery/{service}`, `/discovery/{service}/events`.

Raw ASGI in front of the framework. Bytes and ETag are prepared when the state changes, so an
answer costs neither a look at the fleet nor a database. Only names, states, models and public
URLs are told.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.events import Turn
from orchestrator.core.lives import Session
from orchestrator.core.model import BackendState, Fleet, Now
from orchestrator.web import standing
from orchestrator.web.ports import LoopPort, Message, Receive, Scope, Send
from orchestrator.web.problems import (
    NOSNIFF,
    Headers,
    method_not_allowed,
    not_found,
    send_problem,
    unknown,
)
from orchestrator.web.streams import Streams

CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Retry-After"),
]
PREFLIGHT: Headers = [
    *CORS,
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"If-None-Match, Last-Event-ID, Cache-Control"),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]
# An entity tag (RFC 9110 §8.8.3), or something else up to the next comma, which matches nothing.
FALLBACKS = 10  # shown to clients; a pool of thousands would make every answer a book
TAG = re.compile(rb'\s*(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")|[^,]*)\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Prepared:
    """One answer, ready to send. `event`: the same as a server-sent event."""

    content: Mapping[str, Any]
    etag: bytes
    body: bytes
    start: Message
    whole: Message
    unchanged: Message
    event: bytes


GATHER_S = 0.02  # changes this close together are told as one
EMPTY: Message = {"type": "http.response.body", "body": b""}


def matches(header: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match header names `etag`: compared weakly, in a list, or by `*`."""
    if header == etag:
        return True
    header = header.strip()
    if header == b"*":
        return True
    at = 0
    while at < len(header):
        found = TAG.match(header, at)
        if found is None or found.end() == at:
            return False
        if found.group(1) == etag:
            return True
        at = found.end()
    return False


def answer(fleet: Fleet, name: str, now: Now) -> dict[str, Any]:
    """Say what discovery tells of a service, without `as_of`."""
    service, state = fleet.config.services[name], fleet.services.get(name)
    active, others, retry_at = None, [], None
    if state is not None:
        backend = fleet.config.backends.get(state.active or "")
        if backend is not None:
            believed = fleet.backends.get(backend.name)
            session = believed.session if believed is not None else None
            active = {
                "backend": backend.name,
                "url": standing.address(fleet, backend, service),
                "models": list(backend.models),
                "since": standing.rfc3339(state.since, now),
                "ends_at": standing.rfc3339(session.ends_at if session else None, now),
            }
        else:
            retry_at = standing.rfc3339(state.retry_at, now)
        others = [
            {"backend": one.name, "url": standing.address(fleet, one, service)}
            for one in standing.fallbacks(fleet, service, state.active, now, FALLBACKS)
        ]
    return {
        "service": name,
        "epoch": state.epoch if state is not None else 0,
        "state": standing.service_state(fleet, name, now).value,
        "active": active,
        "gateway": service.gateway,
        "fallbacks": others,
        "retry_at": retry_at,
    }


class Discovery:
    """The ASGI application; `max_age_s` is how long an answer may be kept by clients."""

    def __init__(self, loop: LoopPort, max_age_s: float, streams: Streams) -> None:
        self._loop = loop
        self._max_age = b"max-age=%d" % max(1, round(max_age_s))
        self._streams = streams
        self._prepared: dict[str, Prepared] = {}
        self._paths: dict[str, Prepared] = {}
        self._dirty: dict[str, None] = {}
        self._flushing = False
        self._shown: dict[str, object] = {}
        self._pools: dict[str, list[str]] = {}
        self._world: object = None
        self._again_at: dict[str, float] = {}
        self._rebuild()
        self._flush()
        loop.subscribe(self._turned)

    # ── preparing ───────────────────────────────────────────────────────────────────────────────

    def _turned(self, turn: Turn) -> None:
        """Note what this turn touched; nothing is done for a turn that shows nowhere."""
        fleet, at = self._loop.fleet, self._loop.turned_at
        if turn.config is not None or self._world != self._world_shown(fleet, at):
            self._rebuild()
            return
        touched = {name for name in turn.services if name in fleet.config.services}
        for name in turn.backends:
            shown = _shown(fleet.backends.get(name), at)
            if self._shown.get(name) != shown:
                self._shown[name] = shown
                touched.update(self._pools.get(name, ()))
        if self._again_at:
            touched.update(name for name, due in self._again_at.items() if due <= at)
        for name in touched:
            self._touch(name)

    def _touch(self, name: str) -> None:
        """Have an answer prepared anew: at the next request, or for the listeners in a moment.

        At a start a thousand backends come up one by one; only the last of it needs preparing.
        """
        self._dirty[name] = None
        self._paths.pop(f"/discovery/{name}", None)
        self._paths.pop("/discovery", None)
        if not self._flushing:
            try:
                asyncio.get_running_loop().call_later(GATHER_S, self._flush)
            except RuntimeError:  # not running yet: the first request will do it
                return
            self._flushing = True

    def _flush(self) -> None:
        self._flushing = False
        for name in list(self._dirty):
            self._prepare(name)

    @staticmethod
    def _world_shown(fleet: Fleet, at: float) -> object:
        return (fleet.world.isolated_since is not None, standing.paused(fleet, at))

    def _rebuild(self) -> None:
        fleet, at = self._loop.fleet, self._loop.now().at
        self._world = self._world_shown(fleet, at)
        self._shown = {name: _shown(state, at) for name, state in fleet.backends.items()}
        self._pools = {}
        for service in fleet.config.services.values():
            for backend in service.backends:
                self._pools.setdefault(backend, []).append(service.name)
        for name in set(self._prepared) - set(fleet.config.services):
            del self._prepared[name]
            self._dirty.pop(name, None)
            self._again_at.pop(name, None)
            self._paths.pop(f"/discovery/{name}", None)
            self._streams.end(f"service:{name}")
        for name in fleet.config.services:
            self._touch(name)

    def _prepare(self, name: str) -> None:
        self._dirty.pop(name, None)
        fleet, now = self._loop.fleet, self._loop.now()
        if name not in fleet.config.services:
            return
        self._review(fleet, name, now.at)
        content, made = answer(fleet, name, now), self._prepared.get(name)
        if made is None or made.content != content:
            made = _make(content, standing.rfc3339(now.at, now), self._max_age)
            self._prepared[name] = made
            self._streams.publish(f"service:{name}", made.event)
        self._paths[f"/discovery/{name}"] = made

    def _review(self, fleet: Fleet, name: str, at: float) -> None:
        """Remember when the passing of time alone changes the answer."""
        due = [
            until
            for backend in fleet.config.services[name].backends
            if (state := fleet.backends.get(backend)) is not None
            for until in _ends(state)
            if until > at
        ]
        if due:
            self._again_at[name] = min(due)
        else:
            self._again_at.pop(name, None)

    def _prepare_all(self) -> None:
        """Make the answer of `/discovery`: the first service's own fields, and all `services`."""
        self._flush()
        now = self._loop.now()
        known = {
            name: self._prepared[name].content
            for name in self._loop.fleet.config.services
            if name in self._prepared
        }
        content = {**next(iter(known.values()), {}), "services": known}
        self._paths["/discovery"] = _make(content, standing.rfc3339(now.at, now), self._max_age)

    # ── answering ───────────────────────────────────────────────────────────────────────────────

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request whose path begins with `/discovery`."""
        path, method = scope["path"], scope["method"]
        found = self._paths.get(path)
        if found is not None and (method in ("GET", "HEAD")):
            for name, value in scope["headers"]:
                if name == b"if-none-match" and matches(value, found.etag):
                    await send(found.unchanged)
                    await send(EMPTY)
                    return
            await send(found.start)
            await send(found.whole)
            return
        await self._seldom(scope, receive, send)

    async def _seldom(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer everything but a plain request for a prepared answer."""
        method = scope["method"]
        parts = scope["path"].rstrip("/").split("/")[2:]
        if method == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": PREFLIGHT})
            await send(EMPTY)
        elif method not in ("GET", "HEAD"):
            await send_problem(send, method_not_allowed("GET, HEAD, OPTIONS"), CORS)
        elif not parts:
            self._prepare_all()
            await self({**scope, "path": "/discovery"}, receive, send)
        elif parts[0] not in self._loop.fleet.config.services and len(parts) <= 2:  # noqa: PLR2004 - name, "events"
            await send_problem(
                send, unknown("service", parts[0], self._loop.fleet.config.services), CORS
            )
        elif parts[1:] == ["events"]:
            await self._follow(parts[0], scope, receive, send)
        elif len(parts) == 1:
            self._prepare(parts[0])
            await self({**scope, "path": f"/discovery/{parts[0]}"}, receive, send)
        else:
            await send_problem(send, not_found(scope["path"]), CORS)

    async def _follow(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            start = {"type": "http.response.start", "status": 200, "headers": Streams.headers(CORS)}
            await send(start)
            await send(EMPTY)
            return
        self._prepare(name)
        first = b"retry: 2000\n" + self._prepared[name].event
        await self._streams.serve(f"service:{name}", first, scope, receive, send, CORS)


def _shown(state: BackendState | None, at: float) -> object:
    """Return what of a backend's state can show in an answer: cheap to compare at each probe."""
    if state is None:
        return None
    return (
        state.health,
        bool(state.fails),
        state.drained,
        bool(state.denied),
        state.cooldown_until is not None and state.cooldown_until > at,
        state.exhausted_until is not None and state.exhausted_until > at,
        _session_shown(state.session),
    )


def _session_shown(session: Session | None) -> object:
    """Leave out what changes with every heartbeat and shows nowhere."""
    if session is None:
        return None
    return session.id, session.ends_at, session.challenge_ok


def _ends(state: BackendState) -> list[float]:
    ends = [state.cooldown_until, state.exhausted_until]
    if state.session is not None:
        lapses = state.session.beat_at + state.session.lease_s
        ends += [lapses, state.session.ends_at]
    return [end for end in ends if end is not None]


def _make(content: Mapping[str, Any], as_of: str | None, max_age: bytes) -> Prepared:
    """Prepare bytes. The ETag covers the content, not the time at which it was prepared."""
    bare = json.dumps(content, separators=(",", ":")).encode()
    etag = b'"%s"' % hashlib.sha256(bare).hexdigest()[:20].encode()
    body = json.dumps({**content, "as_of": as_of}, separators=(",", ":")).encode()
    kept: Headers = [(b"etag", etag), (b"cache-control", max_age), *CORS]
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        NOSNIFF,
        *kept,
    ]
    return Prepared(
        content=content,
        etag=etag,
        body=body,
        start={"type": "http.response.start", "status": 200, "headers": headers},
        whole={"type": "http.response.body", "body": body},
        unchanged={"type": "http.response.start", "status": 304, "headers": kept},
        event=b"id: " + etag.strip(b'"') + b"\ndata: " + body + b"\n\n",
    )
