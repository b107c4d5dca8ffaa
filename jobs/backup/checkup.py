"""What `aion doctor` learns of a backup by trying: its database, its client programs, its stores.

Each store is written to, read, compared by its own hash and, where its credential is meant to,
deleted from: a small object of our own, never a dump.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jobs.backup import clients, source
from jobs.backup.errors import (
    BackupError,
    CredentialExpired,
    CredentialRefused,
    NotFound,
    StoreFullError,
    ToolMissing,
)
from jobs.backup.form import Copy, Plan
from jobs.backup.run import Ports, store_folder
from jobs.backup.snapshots import FOLDER, within
from jobs.backup.status import Status
from jobs.backup.stores.base import Room, Store, hash_file
from orchestrator.core.metering import shown
from orchestrator.core.meters import Unit

TRIAL: Final = "aion-doctor/trial"
DAY_S: Final = 86_400.0
TESTING_S: Final = 7 * DAY_S
"""Google ends the logins of an app whose consent screen is in "Testing" after so long
(https://developers.google.com/identity/protocols/oauth2, "Refresh token expiration")."""
ACCESS_S: Final = 3600.0  # what an access token of Google's lasts: it ends so long after a login
CHAIN: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `outcome`: passed, failed or advice. `remedy`: what to do, if anything."""

    outcome: str
    subject: str
    text: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def look(plan: Plan, ports: Ports) -> list[dict[str, str]]:
    """Try everything that this backup depends on, one finding after the other; raises nothing."""
    found = [_database(plan)] if plan.dsn else []
    synced = (within(copy, FOLDER) for one in plan.syncs for copy in one.to)
    for copy in (*plan.copies, *synced):
        found += _place(plan, copy, ports)
    return [one.to_json() for one in found]


def _database(plan: Plan) -> Finding:
    try:
        server = source.look(plan.dsn, replace(plan.timeouts, statement_s=20.0))
        programs = clients.find(server.num, tls=server.tls, pg_bin=plan.pg_bin)
    except ToolMissing as error:
        return Finding("failed", "database", str(error), "")
    except BackupError as error:
        remedy = (
            f"check the DSN and the server; to correct it: aion secret set, backups.{plan.name}"
        )
        return Finding("failed", "database", str(error), remedy)
    text = f"PostgreSQL {server.version}, {_bytes(server.size)}; pg_dump {programs.version} fits"
    return Finding("passed", "database", text)


def _place(plan: Plan, copy: Copy, ports: Ports) -> Iterator[Finding]:
    """Try one store."""
    url = copy.target.url
    try:
        with contextlib.closing(_open(plan, copy, ports)) as store:
            yield from _tried(plan, copy, store, ports)
            yield from _room(plan, url, store.room(), ports.clock.wall())
    except BackupError as error:
        yield Finding("failed", url, str(error), _remedy(error, copy))
    yield from _login(copy, ports.clock.wall())


def _open(plan: Plan, copy: Copy, ports: Ports, *, expire: bool = False) -> Store:
    access = copy.expire if expire and copy.expire else copy.access
    folder = store_folder(plan, copy, "expire" if expire else "")
    return ports.open_store(copy.target, access, folder)


def _tried(plan: Plan, copy: Copy, store: Store, ports: Ports) -> Iterator[Finding]:
    """Write, compare, read, delete. Raises what the store raises for the first three."""
    day = datetime.fromtimestamp(ports.clock.wall(), UTC).strftime("%Y%m%d")
    deletes = copy.access.can_delete or copy.expire is not None
    # One that stays is the only one of its day.
    mark = f"{int(ports.random.random() * 16**12):012x}" if deletes else day
    name, data = f"{TRIAL}-{mark}.txt", f"aion tries whether it can write here, {day}\n".encode()
    with tempfile.TemporaryDirectory(dir=store_folder(plan, copy)) as folder:
        local = Path(folder) / "trial.txt"
        local.write_bytes(data)
        hashes = hash_file(local, ("sha256", "sha1", "md5", "crc32c"))
        store.put(local, name, replace=deletes)
    wrong = store.check(name, hashes)
    if wrong or store.read(name, 1000) != data:
        text = f"what was written there reads otherwise: {wrong or 'other bytes came back'}"
        yield Finding("failed", store.url, text, "use another store until that is explained")
        return
    yield _deleted(plan, copy, store, name, ports)


def _deleted(plan: Plan, copy: Copy, store: Store, name: str, ports: Ports) -> Finding:
    """Delete the trial by the credential that is meant to; see that no other can."""
    well = "written, read and compared"
    if copy.access.can_delete:
        store.delete(name)
        return Finding("passed", store.url, f"{well}, deleted")
    try:
        store.delete(name)
    except CredentialRefused:
        if copy.expire is None:
            return Finding("passed", store.url, f"{well}; it may not delete, as it is meant")
    else:
        text = f"{well}; this credential is not meant to delete, and can"
        remedy = "give it the right to create and read objects alone, or set delete = true"
        return Finding("advice", store.url, text, remedy)
    with contextlib.closing(_open(plan, copy, ports, expire=True)) as deleter:
        deleter.delete(name)
    return Finding("passed", store.url, f"{well}; deleted by the credential that expires")


def _room(plan: Plan, url: str, room: Room | None, wall: float) -> Iterator[Finding]:
    """Say how much is free, and when the store is full at the rate of late."""
    if room is None or room.free is None:
        return
    status = Status.load(Path(plan.spool))
    text = f"{_bytes(room.free)} free"
    if room.free < 2 * status.size:
        remedy = f"make room there, or keep less: backups.{plan.name}.keep"
        yield Finding("failed", url, f"{text}, and a dump takes {_bytes(status.size)}", remedy)
        return
    full_at = status.full_at(url, wall)
    if full_at is not None:
        text += f"; at the rate of late it is full in {(full_at - wall) / DAY_S:.0f} days"
    yield Finding("passed", url, text)


def _login(copy: Copy, wall: float) -> Iterator[Finding]:
    """Say how old a login to Google Drive is: an app in testing loses it after a week."""
    made_at = login_at(copy)
    if made_at is None or wall - made_at > TESTING_S:
        return
    text = f"the login to Drive is {max(0.0, wall - made_at) / DAY_S:.1f} days old"
    ends = datetime.fromtimestamp(made_at + TESTING_S, UTC)
    remedy = (
        f'if the consent screen of your client id is in "Testing", it ends on {ends:%Y-%m-%d}: '
        "publish it, then log in once more"
    )
    yield Finding("advice", copy.target.url, text, remedy)


def login_at(copy: Copy) -> float | None:
    """Say when the login of an rclone remote of type `drive` was made or renewed last (wall).

    None for any other place, and where the configuration does not say. A remote that wraps another
    (`crypt`, `alias`, `hasher`) is followed.
    """
    if copy.target.scheme != "rclone":
        return None
    text = copy.access.rclone_config
    if copy.access.rclone_config_path:
        with contextlib.suppress(OSError):
            text = Path(copy.access.rclone_config_path).read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return None
    remote = copy.target.place
    for _ in range(CHAIN):
        if not parser.has_section(remote):
            return None
        section = parser[remote]
        if section.get("type") == "drive":
            return _expiry(section.get("token", ""))
        remote = section.get("remote", "").partition(":")[0]
    return None


def _expiry(token: str) -> float | None:
    try:
        value: Any = json.loads(token)["expiry"]
        # RFC 3339 with nanoseconds, of which Python reads six digits.
        text = re.sub(r"(\.\d{6})\d+", r"\1", str(value))
        return datetime.fromisoformat(text).timestamp() - ACCESS_S
    except (ValueError, KeyError, TypeError):
        return None


def _remedy(error: BackupError, copy: Copy) -> str:
    match error:
        case CredentialExpired():
            return "log in again (rclone config reconnect …), then: aion secret set"
        case CredentialRefused():
            return "give this credential the right to write there, or use another one"
        case NotFound():
            return "make it, or correct the address in `copies`"
        case StoreFullError():
            return "make room there, or keep less"
        case ToolMissing():
            return ""
        case _:
            return f"is {copy.target.scheme} reachable from here?"


def _bytes(number: float) -> str:
    return shown(Unit.BYTES, number)
