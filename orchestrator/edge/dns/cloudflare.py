"""Cloudflare, through its SDK.

The SDK's own retries are off and its answers are read raw: with HTTP 200 and `success: false` it
returns None, which for a list would look like "there is nothing"; and its pager knows no bound.
Paths are asked for by the client's own `get` and `post`, for `client.dns.records` would import the
models of every record type there is: 10 MB more in the daemon's memory.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import cloudflare
import httpx

from orchestrator.core.records import Action, Change, Plan, Record
from orchestrator.edge.dns.base import ATTEMPT_S, DnsSettings, Finding
from orchestrator.errors import BadReply, NotAllowed, Throttled, Unreachable

PER_PAGE = 100
ZONES_PER_PAGE = 50
MAX_PAGES = 20
# 1,200 requests in five minutes are allowed, then none for five; without a header we wait that out.
THROTTLED_S = 300.0
KEEP_ALIVE_S = 90.0  # longer than the time between two reads, so that a write pays no handshake
_DENIED = (401, 403)
_TOO_MANY = 429


class Cloudflare:
    """Records of one zone, whose id is learned at the first read."""

    marks = True
    settle_s = 10.0
    rewrites = True  # a patch holds the whole record; creating twice is refused (81057, 81058)

    def __init__(self, settings: DnsSettings) -> None:
        self._zone = settings.zone.rstrip(".").lower()
        self._zone_id = ""
        http = cloudflare.DefaultAsyncHttpxClient(
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_S, max_connections=4),
            follow_redirects=False,
        )
        self._client = cloudflare.AsyncCloudflare(
            api_token=settings.token,
            base_url=settings.api,
            max_retries=0,
            timeout=ATTEMPT_S,
            http_client=http,
        )
        # The SDK prefers a key, e-mail or service key that it finds in the environment.
        self._client.api_key = self._client.api_email = self._client.user_service_key = None

    async def read(self, name: str) -> Sequence[Record]:
        zone = await self._zone_of()
        path = f"/zones/{zone}/dns_records"
        try:
            rows = await self._all_pages(path, PER_PAGE, **{"name.exact": name})
        except (BadReply, NotAllowed):
            self._zone_id = ""  # the zone may have been made anew: ask for its id again
            raise
        wanted = name.rstrip(".").lower()
        return [_record(row) for row in rows if str(row.get("name", "")).lower() == wanted]

    async def apply(self, name: str, plan: Plan) -> None:
        """One request: the change alone, or a batch, which is one transaction at Cloudflare.

        A batch is carried out in the order deletes, patches, posts.
        """
        records = f"/zones/{await self._zone_of()}/dns_records"
        if len(plan.changes) == 1:
            await _envelope(self._alone(records, name, plan.changes[0]))
            return
        batch: dict[str, list[dict[str, Any]]] = {}
        for change in plan.changes:
            if change.action is Action.DELETE and change.before:
                batch.setdefault("deletes", []).append({"id": change.before.id})
            elif change.after:
                kind = "patches" if change.action is Action.PATCH else "posts"
                batch.setdefault(kind, []).append(_body(name, change.after))
        await _envelope(self._client.post(f"{records}/batch", cast_to=httpx.Response, body=batch))

    def _alone(self, records: str, name: str, change: Change) -> Awaitable[httpx.Response]:
        """Make the request for one change. A PATCH with all of the record may be sent twice."""
        if change.action is Action.DELETE:
            assert change.before is not None
            return self._client.delete(f"{records}/{change.before.id}", cast_to=httpx.Response)
        assert change.after is not None
        body = _body(name, change.after)
        if change.action is Action.PATCH:
            one = f"{records}/{body.pop('id')}"
            return self._client.patch(one, cast_to=httpx.Response, body=body)
        return self._client.post(records, cast_to=httpx.Response, body=body)

    async def check_token(self) -> list[Finding]:
        fix = "make a token with Zone.DNS:Edit on this zone only, then `aion secret set`"
        try:
            zones = await self._zones()
            active = await self._is_active()
        except NotAllowed as error:
            return [Finding(False, f"the Cloudflare token is refused: {error}", fix)]
        except (Unreachable, BadReply) as error:
            what = f"the Cloudflare token could not be checked: {error}"
            return [Finding(False, what, "try again when the API answers")]
        if not active:
            return [Finding(False, "the Cloudflare token is disabled or expired", fix)]
        names = sorted(str(zone.get("name")) for zone in zones)
        findings = [Finding(True, "the Cloudflare token is active")]
        if self._zone not in names:
            return [*findings, Finding(False, f"the token does not see {self._zone}", fix)]
        others = [name for name in names if name != self._zone]
        if others:
            what = f"the token also sees {', '.join(others[:3])}" + (" …" if others[3:] else "")
            return [*findings, Finding(False, what, fix)]
        return [*findings, Finding(True, f"the token sees {self._zone} and no other zone")]

    async def close(self) -> None:
        await self._client.close()

    async def _is_active(self) -> bool:
        try:
            token = (await self._get("/user/tokens/verify")).get("result")
        except NotAllowed:
            return True  # a token owned by an account has no user to ask; it listed the zones
        return isinstance(token, dict) and token.get("status") == "active"

    async def _zone_of(self) -> str:
        if not self._zone_id:
            zones = await self._zones(name=self._zone)
            ids = [str(zone["id"]) for zone in zones if zone.get("name") == self._zone]
            if not ids:
                raise NotAllowed(f"the Cloudflare token does not see the zone {self._zone}")
            self._zone_id = ids[0]
        return self._zone_id

    async def _zones(self, **query: str) -> list[dict[str, Any]]:
        return await self._all_pages("/zones", ZONES_PER_PAGE, **query)

    async def _all_pages(self, path: str, size: int, **query: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for page in range(1, MAX_PAGES + 1):
            envelope = await self._get(path, **query, page=str(page), per_page=str(size))
            result = envelope.get("result")
            if not isinstance(result, list) or not all(isinstance(row, dict) for row in result):
                raise BadReply("Cloudflare answered a list request without a list")
            rows += result
            info = envelope.get("result_info")
            pages = info.get("total_pages") if isinstance(info, dict) else None
            if not result or (isinstance(pages, int) and page >= pages):
                return rows
        raise BadReply(f"Cloudflare's list does not end after {MAX_PAGES} pages")

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        asked = self._client.get(path, cast_to=httpx.Response, options={"params": query})
        return await _envelope(asked)


def _record(row: Mapping[str, Any]) -> Record:
    try:
        return Record(
            id=str(row["id"]),
            type=str(row["type"]),
            content=str(row.get("content") or ""),
            comment=str(row.get("comment") or ""),
            ttl=int(row.get("ttl") or 1),
            proxied=bool(row.get("proxied")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadReply(f"Cloudflare answered with a record that lacks {error}") from error


def _body(name: str, record: Record) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": name,
        "type": record.type,
        "content": record.content,
        "ttl": record.ttl,
        "proxied": record.proxied,
        "comment": record.comment,
    }
    return {"id": record.id, **body} if record.id else body


async def _envelope(asked: Awaitable[httpx.Response]) -> dict[str, Any]:
    """Send one request and open its envelope; everything that can go wrong becomes ours."""
    try:
        response = await asked
        status, envelope = response.status_code, json.loads(response.content)
    except cloudflare.APIStatusError as error:
        raise _refusal(error) from error
    except cloudflare.APITimeoutError as error:
        raise Unreachable(f"Cloudflare did not answer within {ATTEMPT_S} s") from error
    except (cloudflare.APIConnectionError, httpx.HTTPError) as error:
        cause = error.__cause__ or error
        raise Unreachable(f"Cloudflare could not be reached: {_line(cause)}") from error
    except (ValueError, cloudflare.CloudflareError) as error:
        raise BadReply("Cloudflare answered something that is not its JSON", 200) from error
    if not isinstance(envelope, dict) or envelope.get("success") is not True:
        errors = envelope.get("errors") if isinstance(envelope, dict) else None
        raise BadReply(f"Cloudflare did not do it: {_said(errors)}", status)
    return envelope


def _refusal(error: cloudflare.APIStatusError) -> BadReply | NotAllowed:
    body = error.body if isinstance(error.body, dict) else {}
    what = f"HTTP {error.status_code}, {_said(body.get('errors'))}"
    if error.status_code == _TOO_MANY:
        wait = _seconds(error.response.headers.get("retry-after", ""))
        return Throttled(f"Cloudflare asks to wait {wait:.0f} s", wait, error.status_code)
    if error.status_code in _DENIED:
        return NotAllowed(f"Cloudflare refuses the token: {what}")
    return BadReply(f"Cloudflare refused: {what}", error.status_code)


def _said(errors: object) -> str:
    if not isinstance(errors, list) or not errors:
        return "no reason given"
    parts = [
        f"{e.get('message', '')} ({e.get('code', '?')})" for e in errors[:3] if isinstance(e, dict)
    ]
    return "".join(c if c.isprintable() else " " for c in "; ".join(parts))[:300]


def _line(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]


def _seconds(header: str) -> float:
    """Read `retry-after`, however long; anything but plain seconds means the usual ban."""
    return max(1.0, float(header)) if header.isascii() and header.isdigit() else THROTTLED_S
