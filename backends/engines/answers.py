"""Reads what a server said, whatever it is: who answered, what it means, in harmless words.

A tunnel whose notebook died still answers, with a page of its own; so who speaks is settled first.
Codes and pages: ngrok.com/docs/errors; developers.cloudflare.com, "Cloudflare 1xxx errors" and
"5xx errors".
"""

# ruff: noqa: PLR2004  # HTTP statuses are known by their numbers

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from backends.base import Reply
from orchestrator.core.model import Verdict

RETRY_S: Final = 60.0  # a 429 that does not say when
LONGEST_RETRY_S: Final = 86400.0
DETAIL: Final = 200
NAME: Final = 80
HEAD: Final = 4096  # of a page: where it says what it is

CLOUDFLARE: Final = {
    520: "the tunnel's end answered something that is not HTTP",
    521: "the tunnel's end refuses connections",
    522: "the tunnel's end did not answer in time",
    523: "the tunnel's end is unreachable",
    524: "the tunnel's end took too long to answer",
    525: "TLS with the tunnel's end failed",
    526: "the tunnel's end has an invalid certificate",
    1016: "the origin's name does not resolve",
    1033: "no tunnel is connected for this name",
}
NGROK: Final = {
    "ERR_NGROK_3004": "what runs behind the tunnel does not speak HTTP",
    "ERR_NGROK_3200": "no tunnel is connected for this name",
    "ERR_NGROK_6024": "its browser warning page came instead of the answer",
    "ERR_NGROK_727": "the account's requests of the month are used up",
    "ERR_NGROK_8012": "nothing listens behind the tunnel",
}
_NGROK_CODE: Final = re.compile(rb"ERR_NGROK_\d{1,6}")
_CLOUDFLARE_CODE: Final = re.compile(rb"(?i)error(?:\s+code)?:?\s*(?:<[^>]*>\s*)*(1\d{3})\b")
_TITLE: Final = re.compile(rb"(?is)<title[^>]*>\s*(.{1,200}?)\s*</title>")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one answer, or several, say of a backend; `retry_after_s` comes with BUSY."""

    verdict: Verdict
    detail: str = ""
    retry_after_s: float | None = None


OK: Final = Finding(Verdict.OK)


def failed(detail: str) -> Finding:
    """Say that it does not work, and why."""
    return Finding(Verdict.FAILED, detail)


def plain(text: object, most: int = DETAIL) -> str:
    """Make foreign text one harmless line: control and odd characters escaped, length capped."""
    shown = " ".join(str(text)[: most * 4].split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def parse(reply: Reply) -> Any:
    """Parse the body as JSON; None where it is not (JSON's own null is no use to anyone here)."""
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def is_page(reply: Reply) -> bool:
    """Say whether this is HTML, by its type or by its look."""
    if "html" in reply.headers.get("content-type", ""):
        return True
    start = reply.body[:64].lstrip().lower()
    return start.startswith((b"<!doctype", b"<html"))


def stranger(reply: Reply, *, pages_are: bool = True) -> Finding | None:
    """Tell when it is not the engine that answered but a tunnel or proxy in front of it.

    `pages_are`: any web page is one, as no engine answers with it.
    """
    code = reply.headers.get("ngrok-error-code", "")
    page = is_page(reply)
    if not code and page and (found := _NGROK_CODE.search(reply.body[:HEAD])):
        code = found[0].decode()
    if code:
        shown = plain(code, NAME)
        return failed(f"ngrok: {NGROK.get(shown, 'the tunnel does not work')} ({shown})")
    if "challenge" in reply.headers.get("cf-mitigated", ""):
        return Finding(Verdict.DENIED, "Cloudflare challenges us instead of letting us through")
    if reply.status in {401, 403, 429} or 300 <= reply.status < 400:
        return None  # these mean the same from whomever, and proxies send them as pages
    return _cloudflare(reply, page) or (failed(_page(reply)) if page and pages_are else None)


def _cloudflare(reply: Reply, page: bool) -> Finding | None:
    if not (520 <= reply.status <= 530 or (page and b"loudflare" in reply.body[:HEAD])):
        return None
    found = _CLOUDFLARE_CODE.search(reply.body[:HEAD])
    code = int(found[1]) if found else reply.status
    if code in CLOUDFLARE:
        return failed(f"Cloudflare: {CLOUDFLARE[code]} (error {code})")
    if reply.status == 530:
        return failed(f"Cloudflare: the tunnel or its name does not work (error {code})")
    return failed(f"Cloudflare: its own page came instead of the answer (error {code})")


def _page(reply: Reply) -> str:
    title = _TITLE.search(reply.body[:HEAD])
    named = f" “{plain(title[1].decode('utf-8', 'replace'), NAME)}”" if title else ""
    return f"HTTP {reply.status} with a web page{named} instead of the engine's answer"


def refusal(reply: Reply, wall: float) -> Finding | None:
    """Read the statuses that mean the same everywhere; None for 2xx. `wall`: Unix time now."""
    status = reply.status
    if 200 <= status < 300:
        return None
    said = explanation(reply)
    if status in {401, 403}:
        return Finding(Verdict.DENIED, f"HTTP {status}: it refuses our key" + _quoted(said))
    if status == 429:
        wait_s = retry_after_s(reply.headers.get("retry-after"), wall)
        return Finding(Verdict.BUSY, f"HTTP 429, again in {wait_s:.0f} s" + _quoted(said), wait_s)
    if 300 <= status < 400:
        where = plain(reply.headers.get("location", "nowhere"), NAME)
        return failed(f"HTTP {status}: redirects to {where}; write the final address as `url`")
    return failed(f"HTTP {status}" + _quoted(said))


def _quoted(said: str) -> str:
    return f" ({said})" if said else ""


def retry_after_s(value: str | None, wall: float) -> float:
    """Read `Retry-After`, seconds or an HTTP date, as seconds from now; 60 where it says nothing.

    RFC 9110, 10.2.3.
    """
    text = (value or "").strip()
    try:
        wait_s = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return RETRY_S
        wait_s = when.replace(tzinfo=when.tzinfo or UTC).timestamp() - wall
    if wait_s != wait_s:  # noqa: PLR0124  # NaN
        return RETRY_S
    return min(max(wait_s, 1.0), LONGEST_RETRY_S)


def explanation(reply: Reply) -> str:
    """Find the message in an error body of any of the known forms; else a short text body."""
    body = parse(reply)
    for _ in range(3):
        if not isinstance(body, dict):
            break
        body = next(
            (body[key] for key in ("error", "message", "msg", "detail", "status") if body.get(key)),
            "",
        )
    if isinstance(body, str):
        return plain(body, 120)
    text = reply.body[:HEAD].decode("utf-8", "replace").strip()
    return plain(text, 120) if text and not text.startswith(("{", "[", "<")) else ""
