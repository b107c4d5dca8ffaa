"""What an HTTP status of a store means to us."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from jobs.backup.errors import (
    Conflict,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.stores.base import first_line

FULL = re.compile(
    r"quota|storage limit|out of storage|no space|insufficient storage", re.IGNORECASE
)
_RATE = re.compile(
    r"rate ?limit|slow ?down|too many requests|queries per|quota metric|requests per|daily ?limit",
    re.IGNORECASE,
)
_RATES = frozenset({"quotaExceeded", "usageLimits"})  # of Google's own words, besides those above
_UNPAID = re.compile(r"billing|delinquent|accountDisabled|payment", re.IGNORECASE)
_KINDS: dict[int, tuple[type[StoreBroken], str]] = {
    401: (CredentialExpired, "its login is no longer valid; make a new one"),
    402: (StoreFullError, "what is paid for is used up"),
    403: (CredentialRefused, "it refuses this login"),
    404: (NotFound, "it is not there"),
    408: (StoreUnreachable, "it waited too long for us"),
    409: (Conflict, "something else has that name"),
    410: (NotFound, "it is gone"),
    412: (Conflict, "something else has that name"),
    413: (StoreBroken, "it takes no file of this size"),
    429: (StoreUnreachable, "it asks us to slow down"),
    507: (StoreFullError, "it is full"),
}
_CLIENT, _SERVER = 400, 500
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


def broken(
    url: str,
    status: int,
    said: str = "",
    retry_after: str | None = None,
    *,
    date: str | None = None,
    reason: str = "",
) -> StoreBroken:
    """Return the error for an answer of `status`; `said` is the server's own message.

    `retry_after`, `date`: those headers. `reason`: a word of its own for programs, as Google has.
    """
    said = first_line(shown(said))
    kind, why = _KINDS.get(status, (StoreBroken, "it answered something unexpected"))
    if status == 403:  # noqa: PLR2004
        kind, why = _refused(said, reason)
    elif (status >= _SERVER and status not in _KINDS) or status < _CLIENT:
        # Below 400 nothing is refused: somebody in between answered, or half an answer came.
        kind = StoreUnreachable
        why = "it failed" if status >= _SERVER else why
    text = f"{url}: {why} (HTTP {status}{': ' + said if said else ''})"
    return kind(text, retry_after_s=seconds(retry_after, date))


def _refused(said: str, reason: str) -> tuple[type[StoreBroken], str]:
    """Tell the meanings of 403 apart: Google says 429 by it, and that a bill is open."""
    if reason in _RATES or _RATE.search(f"{reason} {said}"):
        return _KINDS[429]
    if _UNPAID.search(reason) or _UNPAID.search(said):
        return CredentialRefused, "its billing is off or a bill is open: see to it at the provider"
    return _KINDS[507] if FULL.search(said) else _KINDS[403]


def seconds(retry_after: str | None, date: str | None = None) -> float:
    """Read Retry-After (RFC 9110): seconds, or a time, which is compared with the answer's own."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        then, now = parsedate_to_datetime(retry_after), parsedate_to_datetime(date or "")
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def shown(said: str) -> str:
    """Return what a server said without the addresses in it: they may hold a token."""
    return re.sub(r"\w+://\S+", "…", said)
