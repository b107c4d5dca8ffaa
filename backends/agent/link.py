"""The wire to the daemon: register, heartbeat, leave. One request each; nothing is repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from .clock import parsed, wall
from .errors import Away, Gone, Refused, Unknown

LIMITS = aiohttp.ClientTimeout(total=20, sock_connect=8)
BODY = 262_144
PATIENCE_S = 900.0  # no daemon is believed that says to come back later than this
REFUSALS = (401, 403, 409, 422)


@dataclass(frozen=True, slots=True)
class Registered:
    """What the daemon answered to a registration. `ends_in_s`: by its own clock; None: never."""

    session: str
    token: str = field(repr=False)
    heartbeat_s: float
    ends_in_s: float | None
    access: str
    client_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beaten:
    """What the daemon answered to a heartbeat: the end, who may come in, and orders as (id, do).

    `access`, `client_keys`: None where it did not say.
    """

    ends_in_s: float | None
    access: str | None
    client_keys: tuple[str, ...] | None
    orders: tuple[tuple[str, str], ...]


class Link:
    """Speaks with the daemon at `aion`. Follows no redirects: the token is not for others."""

    def __init__(self, http: aiohttp.ClientSession, aion: str) -> None:
        self._http = http
        self._aion = aion

    async def register(self, token: str, body: Mapping[str, Any]) -> Registered:
        """Register. Raises Refused, or Away."""
        status, said, date = await self._post("/register", token, body)
        if status in REFUSALS:
            raise Refused(f"the daemon refuses: {_told(status, said)}")
        if status != 201:
            raise Away(f"the daemon answers {_told(status, said)}", _after(said))
        try:
            return Registered(
                session=str(said["session"]),
                token=str(said["token"]),
                heartbeat_s=max(0.05, float(said["heartbeat_s"])),
                ends_in_s=_left(said.get("ends_at"), date),
                access=str(said["access"]),
                client_keys=tuple(map(str, said.get("client_keys") or ())),
            )
        except (KeyError, TypeError, ValueError):
            raise Away("the daemon's answer makes no sense") from None

    async def beat(self, session: str, token: str, body: Mapping[str, Any]) -> Beaten:
        """Send a heartbeat. Raises Gone, Unknown or Away."""
        status, said, date = await self._post(f"/sessions/{session}/heartbeat", token, body)
        if status == 410:
            raise Gone(_told(status, said))
        if status in (401, 404):
            raise Unknown(_told(status, said))
        if status != 200:
            raise Away(f"the daemon answers {_told(status, said)}", _after(said))
        keys, access = said.get("client_keys"), said.get("access")
        try:
            return Beaten(
                ends_in_s=_left(said.get("ends_at"), date),
                access=None if access is None else str(access),
                client_keys=None if keys is None else tuple(map(str, keys)),
                orders=tuple(
                    (str(one["id"]), str(one["do"])) for one in said.get("commands") or ()
                ),
            )
        except (KeyError, TypeError, ValueError):
            raise Away("the daemon's answer makes no sense") from None

    async def leave(self, session: str, token: str) -> None:
        """End the session in good order. Raises Away."""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._http.delete(
                f"{self._aion}/sessions/{session}",
                headers=headers,
                timeout=LIMITS,
                allow_redirects=False,
            ):
                return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Away(f"the daemon cannot be reached ({type(error).__name__})") from None

    async def _post(
        self, path: str, token: str, body: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any], float]:
        """Post JSON; returns status, body, and what time it is there."""
        headers = {"Authorization": f"Bearer {token}"}
        address = self._aion + path
        try:
            async with self._http.post(
                address, json=body, headers=headers, timeout=LIMITS, allow_redirects=False
            ) as reply:
                raw = await reply.content.read(BODY)
                date = _date(reply.headers.get("Date", ""))
                after = reply.headers.get("Retry-After", "")
                where = reply.headers.get("Location", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Away(f"the daemon cannot be reached ({type(error).__name__})") from None
        try:
            said = json.loads(raw)
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        if after:
            said["retry_after"] = after
        if where and 300 <= reply.status < 400:
            said["detail"] = f"which points to {where}; is that the daemon's address?"
        return reply.status, said, date


def _told(status: int, said: Mapping[str, Any]) -> str:
    """Say what an error says of itself, in one line."""
    texts = [str(said[key]) for key in ("title", "detail") if said.get(key)]
    return f"{status} {': '.join(texts)}".strip()


def _after(said: Mapping[str, Any]) -> float:
    try:
        return min(max(0.0, float(said.get("retry_after", 0))), PATIENCE_S)
    except ValueError:
        return 0.0


def _date(header: str) -> float:
    """Read the daemon's clock; ours may be wrong. Its own end is by its own time."""
    try:
        return parsedate_to_datetime(header).timestamp()
    except (TypeError, ValueError):
        return wall()


def _left(ends_at: Any, now: float) -> float | None:
    return None if ends_at is None else parsed(str(ends_at)) - now
