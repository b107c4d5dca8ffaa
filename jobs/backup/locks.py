"""One writer at a time: on this machine by a locked file, across machines by tickets in the stores.

Stores cannot all create an object only if it is absent, so nobody waits in line: each writer puts a
ticket of its own and looks for others'. Whoever sees another's live ticket takes its own away and
gives up for now; of two at once at most one goes on. Ages are compared by the store's own clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobs.backup.errors import Busy
from jobs.backup.stores.base import Store
from jobs.backup.stores.landing import landing

STALE_S: Final = 8 * 3600.0
"""A ticket older than this was left by a crash: longer than a dump and its upload may take."""
_HOLDER: Final = re.compile(r"[0-9a-f]{16}")


@contextmanager
def alone(spool: Path) -> Iterator[None]:
    """Hold this machine's lock of a spool. Raises `Busy`. A crash releases it."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(spool / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(f"another run of this backup is using {spool}") from None
        yield
    finally:
        os.close(handle)


def holder(spool: Path) -> str:
    """Return this spool's name among writers; it stays: a crash's ticket is known as ours."""
    path = spool / "holder"
    with contextlib.suppress(OSError):
        text = path.read_text().strip()
        if _HOLDER.fullmatch(text):
            return text
    made = secrets.token_hex(8)
    with landing(path) as file:
        file.write(made.encode())
    return made


@contextmanager
def tickets(
    stores: Sequence[Store], name: str, spool: Path, *, stay: bool = False
) -> Iterator[None]:
    """Hold a ticket in each store that answers; one that is down cannot be written to either.

    `stores` are those whose credential may delete. `stay`: when all went well the tickets are left
    there, for this machine to go on. Raises `Busy` if another machine is writing.
    """
    mine = f"locks/{name}/{holder(spool)}.json"
    held: list[Store] = []
    well = False
    try:
        for store in stores:
            held.append(store)
            try:
                _take(store, name, mine, spool)
            except Busy:
                raise
            except Exception:  # noqa: BLE001, S112 - a surprise there costs no dump; it is told later
                continue
        yield
        well = True
    finally:
        for store in [] if stay and well else held:
            with contextlib.suppress(Exception):
                store.delete(mine)


def _take(store: Store, name: str, mine: str, spool: Path) -> None:
    local = spool / "ticket.json"
    with landing(local) as file:
        # What it says differs each time, so that a store cannot skip the upload and keep its age.
        file.write((json.dumps({"host": os.uname().nodename, "n": secrets.token_hex(4)})).encode())
    try:
        store.put(local, mine, replace=True)
        there = {entry.name: entry.modified for entry in store.list(f"locks/{name}/")}
        now = there.get(mine, 0.0)
        others = [one for one, at in there.items() if one != mine and now - at < STALE_S]
        if others:
            store.delete(mine)
            raise Busy(f"another machine is writing to {store.url} (its ticket is {others[0]})")
        for one in there.keys() - {mine}:
            store.delete(one)
    finally:
        local.unlink(missing_ok=True)
