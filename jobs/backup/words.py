"""What PostgreSQL's programs say, in one line with what to do about it."""

from __future__ import annotations

import re
from typing import Final

from jobs.backup.stores.base import first_line

_WRONG: Final = re.compile(r"\b(?:error|fatal|FATAL|ERROR|PANIC):")
_REMEDIES: Final = (
    ("permission denied for ", "the role that dumps must read all of it: grant pg_read_all_data"),
    ("row-level security", "the role that dumps must see every row: alter role … bypassrls"),
    ("lock timeout", "somebody holds a lock on that table; timeouts.lock is how long to wait"),
    ("canceling statement due to lock", "somebody holds a lock; timeouts.lock is how long to wait"),
    ("invalid byte sequence for encoding", "make the database with the encoding of the one dumped"),
    ("must be owner of extension", "let its owner make the extension first"),
)


def gist(said: str, most: int = 300) -> str:
    """Return the line of what a program said that tells what is wrong, and not a warning before it.

    With what to do about it, where that is known. It may be empty.
    """
    lines = [line for line in said.splitlines() if line.strip()]
    line = next((one for one in lines if _WRONG.search(one)), lines[0] if lines else "")
    line = first_line(line, most)
    found = next((what for sign, what in _REMEDIES if sign in said), "")
    return f"{line} ({found})" if found else line
