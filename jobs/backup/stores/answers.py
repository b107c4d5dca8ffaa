"""What an HTTP status of a store means to us."""

from __future__ import annotations

import re

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
_RATE = re.compile(r"rate ?limit|slow ?down|too many requests|Queries per", re.IGNORECASE)
_KINDS: dict[int, tuple[type[StoreBroken], str]] = {
    401: (CredentialExpired, "its login is no longer valid; make a new one"),
    402: (StoreFullError, "what is paid for is used up"),
    403: (CredentialRefused, "it refuses this login"),
    404: (NotFound, "it is not there"),
    408: (StoreUnreachable, "it waited too long for us"),
    409: (Conflict, "something else has that name"),
    410: (NotFound, "it is gone"),
    412: (Conflict, "something else has that name"),
    413: (StoreFullError, "it takes no file of this size"),
    429: (StoreUnreachable, "it asks us to slow down"),
    507: (StoreFullError, "it is full"),
}
_SERVER = 500
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


def broken(url: str, status: int, said: str = "", retry_after: str | None = None) -> StoreBroken:
    """Return the error for an answer of `status`; `said` is the server's own message."""
    said = first_line(shown(said))
    kind, why = _KINDS.get(status, (StoreBroken, "it answered something unexpected"))
    if status == 403 and _RATE.search(said):  # noqa: PLR2004 - Google's other way to say 429
        kind, why = _KINDS[429]
    elif status == 403 and FULL.search(said):  # noqa: PLR2004
        kind, why = _KINDS[507]
    elif status >= _SERVER and status not in _KINDS:
        kind, why = StoreUnreachable, "it failed"
    wait_s = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    text = f"{url}: {why} (HTTP {status}{': ' + said if said else ''})"
    return kind(text, retry_after_s=wait_s)


def shown(said: str) -> str:
    """Return what a server said without the addresses in it: they may hold a token."""
    return re.sub(r"\w+://\S+", "…", said)
