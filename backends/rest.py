"""Asks a provider's REST interface, and reads what it refuses: for kinds that start things.

What was read and what was written is told apart, for the two fail differently: a question that got
no answer may be asked again, of a change nobody knows whether it was made.
"""

# ruff: noqa: PLR2004  # HTTP statuses are known by their numbers

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from backends import static
from backends.base import Clock, Http
from backends.engines.answers import is_page, parse, plain, retry_after_s
from orchestrator.core.powering import PowerReport, Snag
from orchestrator.errors import Unreachable

READ_S: Final = 15.0
WRITE_S: Final = 45.0
MOST_BYTES: Final = 2_000_000
"""An account's machines, all of them."""
LABEL: Final = re.compile(r"aion-[a-z0-9-]*-\d+")
SAID_MOST: Final = 200
GONE: Final = (404, 410)
PASSING: Final = (409, 423, 425, 429)
"""It is not done, and may be in a moment."""


def api_address(text: str) -> str:
    """Check where a provider's interface is; raises ValueError in the user's words."""
    url = static.address(text, ("https", "http"))
    host = urlsplit(url).hostname or ""
    if url.startswith("http:") and not _loopback(host):
        raise ValueError("it begins with https://, for the key travels over it")
    return url


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def label_in(name: object) -> str:
    """Find the label of a launch in a name: its last word, "" if that is none."""
    last = name.split()[-1] if isinstance(name, str) and name.split() else ""
    return last if LABEL.fullmatch(last) else ""


def labelled(name: object, label: str) -> str:
    """Write a label behind a name, in place of the one that is there; "" takes it off."""
    text = name.strip() if isinstance(name, str) else ""
    kept = text.removesuffix(label_in(text)).strip()
    return f"{kept} {label}".strip()


@dataclass(frozen=True, slots=True)
class Refusals:
    """How a provider words what it refuses, whatever status it gives that."""

    stockout: re.Pattern[str]
    quota: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Said:
    """What a provider answered. `status`: 0 where nothing came. `words`: one line of what it was.

    `snag`: what is in the way, NONE for a 2xx; 404 has none of its own and is for the caller.
    """

    status: int
    body: Any
    words: str
    snag: Snag = Snag.NONE
    retry_after_s: float | None = None

    @property
    def good(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    @property
    def missing(self) -> bool:
        """Whether the provider itself says that there is no such thing: a page says nothing."""
        return self.status in GONE and isinstance(self.body, dict | list)

    @property
    def vague(self) -> bool:
        """Whether it may mean that there is no such thing: then a list of all of them tells."""
        return self.status in (400, *GONE)

    def report(self, about: str = "") -> PowerReport:
        """Tell it as a report of what could not be done or read."""
        detail = f"{about}: {self.words}" if about else self.words
        snag = self.snag if self.snag is not Snag.NONE else Snag.DENIED
        return PowerReport(detail=detail, snag=snag, retry_after_s=self.retry_after_s)


class Rest:
    """Asks one provider with one key. Nothing is raised for what it does or does not answer."""

    def __init__(self, http: Http, clock: Clock, root: str, key: str, refusals: Refusals) -> None:
        self._http, self._clock, self._root, self._key = http, clock, root.rstrip("/"), key
        self._refusals = refusals

    async def read(self, path: str) -> Said:
        """Ask a question."""
        return await self._ask("GET", path, None, wrote=False)

    async def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        harmless: bool = False,
    ) -> Said:
        """Have something changed, once. `harmless`: it starts and stops nothing if it was done."""
        return await self._ask(method, path, body, wrote=not harmless)

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, wrote: bool
    ) -> Said:
        headers = {"Authorization": f"Bearer {self._key}"}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = await self._http.request(
                method,
                f"{self._root}{path}",
                headers=headers,
                body=content,
                timeout_s=READ_S if method == "GET" else WRITE_S,
                max_bytes=MOST_BYTES,
                once=method != "GET",
            )
        except Unreachable as error:
            return Said(0, None, str(error), Snag.LOST if wrote else Snag.TRANSIENT)
        found = parse(reply)
        said = words_of(found) or ("a web page" if is_page(reply) else "")
        if not said and found is None:
            said = reply.body[: 4 * SAID_MOST].decode(errors="replace")
        words = plain(said.replace(self._key, "…") if self._key else said, SAID_MOST)
        shown = f"HTTP {reply.status}: {words}" if words else f"HTTP {reply.status}"
        snag = self._snag(reply.status, words, wrote=wrote)
        retry_s = None
        if reply.status == 429 or reply.headers.get("retry-after"):
            retry_s = retry_after_s(reply.headers.get("retry-after"), self._clock.wall())
        return Said(reply.status, found, shown, snag, None if snag is Snag.NONE else retry_s)

    def _snag(self, status: int, words: str, *, wrote: bool) -> Snag:
        if 200 <= status < 300:
            return Snag.NONE
        if self._refusals.stockout.search(words):
            return Snag.STOCKOUT
        if status == 402 or self._refusals.quota.search(words):
            return Snag.QUOTA
        if status in PASSING:
            return Snag.TRANSIENT
        if status >= 500 or status < 400 or status == 408:
            return Snag.LOST if wrote else Snag.TRANSIENT
        return Snag.NONE if status == 404 else Snag.DENIED


def refused(report: PowerReport) -> PowerReport:
    """Say of a start that it was not made, where reading said that there is nothing to start."""
    return (
        report
        if report.snag is not Snag.NONE
        else PowerReport(detail=report.detail, snag=Snag.DENIED)
    )


def words_of(body: Any) -> str:
    """Find what an error body says, whatever its form."""
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return ""
    names = ("error", "errors", "code", "title", "msg", "message", "detail")
    given = [body.get(key) for key in names]
    parts = [words_of(one) if isinstance(one, dict | list) else one for one in given]
    texts = [one for one in parts if isinstance(one, str) and one]
    return ": ".join(dict.fromkeys(texts))
