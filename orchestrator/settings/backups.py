"""`[backups.NAME]`: what it says together with the rest, and the plan that it comes to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path as File
from typing import Final

from jobs.backup.form import (
    NAME,
    STATE,
    Access,
    Copy,
    Drill,
    Encryption,
    Keep,
    Plan,
    Selection,
    Timeouts,
)
from jobs.backup.targets import Target
from jobs.base import BackupSettings
from orchestrator.errors import ConfigError
from orchestrator.settings import backupmore, itself
from orchestrator.settings.backuptables import Backup, BackupNames
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading
from orchestrator.settings.values import is_remote, split, written

DAY_S: Final = 86_400.0
SPARE_S: Final = 7200.0
DRILLS: Final = {"daily": DAY_S, "weekly": 7 * DAY_S, "monthly": 30 * DAY_S, "off": 7 * DAY_S}
_LOOKED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)  # any: a schedule's gaps are looked for
_RUNS: Final = 40
_INSTANT: Final = timedelta(microseconds=1)


def check(reading: Reading) -> Iterator[Problem]:
    """Yield what is wrong with the backups."""
    for name, backup in reading.settings.backups.items():
        path: Path = ("backups", name)
        if re.fullmatch(NAME, name) is None:
            text = "a backup's name is 1 to 40 of a-z 0-9 _ - and begins and ends with a-z 0-9"
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
        if reading.sound(path):
            yield from _whole(reading, path, backup)
    if reading.sound(("backups",)):
        yield from backupmore.together(reading.settings.backups)


def _whole(reading: Reading, path: Path, backup: Backup) -> Iterator[Problem]:
    yield from _schedule(reading, path, backup)
    yield from _copies(path, backup)
    yield from _secrets(reading, path)
    yield from itself.check(path, backup)
    yield from backupmore.check(path, backup)
    keep = backup.keep
    if not (keep.daily or keep.weekly or keep.monthly or keep.yearly):
        place = (*path, "keep")
        text = "this keeps nothing; at least one number is more than 0"
        yield Problem(place, f"{dotted(place)}: {text}", on_key=True)
    if backup.encrypt and backup.drill != "off" and backup.encrypt.identity is None:
        text = "a drill has to open what was encrypted: set encrypt.identity"
        yield Problem((*path, "drill"), f"{dotted((*path, 'drill'))}: {text}")


def _schedule(reading: Reading, path: Path, backup: Backup) -> Iterator[Problem]:
    place = (*path, "schedule")
    try:
        gap_s = longest_gap_s(backup.schedule, reading.settings.timezone)
    except ConfigError as error:
        yield Problem(place, f"{dotted(place)}: {error}")
        return
    if backup.stale_after is not None and backup.stale_after <= gap_s:
        place = (*path, "stale_after")
        text = f"not longer than the schedule's own {written(gap_s)} between two runs"
        yield Problem(place, f"{dotted(place)}: {text}")


def _copies(path: Path, backup: Backup) -> Iterator[Problem]:
    for number, url in enumerate(backup.copies):
        place = (*path, "copies", number)
        where = dotted((*path, "copies"))
        if url in backup.copies[:number]:
            yield Problem(place, f"{where}: the same place twice")
        if problem := backupmore.credential_problem(backup, url):
            yield Problem(place, f"{where}: {problem}")
    for key in ("google_api", "hub_api"):
        api = getattr(backup, key)
        if api and api.startswith("http:") and is_remote(api):
            text = "must begin with https://, for the key travels over it"
            yield Problem((*path, key), f"{dotted((*path, key))}: {text}")
    if backup.rclone_config and backup.rclone_config_path:
        place = (*path, "rclone_config_path")
        text = "either this or `rclone_config`, not both"
        yield Problem(place, f"{dotted(place)}: {text}", on_key=True)


def _secrets(reading: Reading, path: Path) -> Iterator[Problem]:
    """Check secrets by their form, without repeating them."""
    for key in ("dsn", "drill_dsn"):
        dsn = reading.secrets.get((*path, key))
        if dsn is not None and not re.match(r"postgres(ql)?(\+[a-z0-9]+)?://|\w+\s*=", dsn):
            text = "the credential does not hold a DSN, such as postgresql://user:…@host/name"
            yield Problem((*path, key), f"{dotted((*path, key))}: {text}")
    place: Path = (*path, "encrypt", "identity")
    identity = reading.secrets.get(place)
    if identity is not None and not identity.startswith("AGE-SECRET-KEY-1"):
        text = "the credential does not hold an age identity, AGE-SECRET-KEY-1…"
        yield Problem(place, f"{dotted(place)}: {text}")
    place = (*path, "ping_url")
    url = reading.secrets.get(place)
    if url is not None and split(url).scheme not in {"http", "https"}:
        text = "the credential does not hold an address that begins with https://"
        yield Problem(place, f"{dotted(place)}: {text}")


def notes(reading: Reading) -> Iterator[Problem]:
    """Yield what is right and will not do what one may expect."""
    yield from itself.notes(reading.settings.backups)
    for name, backup in reading.settings.backups.items():
        path: Path = ("backups", name)
        places = [*backup.copies, *(url for one in backup.sync for url in one.to)]
        if all(url.startswith("file:") for url in places):
            text = "every copy is on this machine, and is lost with it"
            yield Problem((*path, "copies"), f"{dotted((*path, 'copies'))}: {text}")
        if backup.drill == "off" and backup.dsn:
            text = "no drill is set, so nothing proves that the dumps restore"
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def longest_gap_s(schedule: str, timezone: str) -> float:
    """Return the longest time between two runs, in seconds. Raises ConfigError."""
    from jobs.triggers import cron  # noqa: PLC0415 - the scheduler, only where there are backups

    trigger = cron(schedule, timezone)
    times: list[datetime] = []
    now = _LOOKED_AT
    for _ in range(_RUNS):
        found = trigger.get_next_fire_time(None, now)
        if found is None:
            break
        times.append(found)
        now = found + _INSTANT
    if len(times) < 2:  # noqa: PLR2004 - a gap has two ends
        raise ConfigError(f"`{schedule}` never comes round")
    return max((b - a).total_seconds() for a, b in pairwise(times))


def build(reading: Reading, state: File) -> tuple[BackupSettings, ...]:
    """Make the plans. The reading has no problems left."""
    names = reading.settings.backups
    made = tuple(_one(reading, name, state) for name in names if name != STATE)
    base = itself.base(names)
    if base is None:
        return made
    places = [one for one in made if names[one.name].itself]
    return (*made, itself.settings(reading, state, _one(reading, base, state), places))


def _one(reading: Reading, name: str, state: File) -> BackupSettings:
    backup = reading.settings.backups[name]
    zone = reading.settings.timezone
    return BackupSettings(
        plan=_plan(reading, name, state),
        schedule=backup.schedule,
        stale_after_s=backup.stale_after or longest_gap_s(backup.schedule, zone) + SPARE_S,
        ping_url=reading.secrets.get(("backups", name, "ping_url"), ""),
        drills=backup.drill != "off",
    )


def _plan(reading: Reading, name: str, state: File) -> Plan:
    backup = reading.settings.backups[name]
    path: Path = ("backups", name)

    def secret(*key: str) -> str:
        return reading.secrets.get((*path, *key), "")

    times, keep = backup.timeouts, backup.keep
    return Plan(
        name=name,
        dsn=secret("dsn"),
        copies=tuple(_copy(reading, name, url, backup.bandwidth) for url in backup.copies),
        spool=str(state / "backups" / name),
        keep=Keep(keep.daily, keep.weekly, keep.monthly, keep.yearly),
        encrypt=Encryption(backup.encrypt.recipient, secret("encrypt", "identity"))
        if backup.encrypt
        else None,
        include=_names(backup.include),
        exclude=_names(backup.exclude),
        timeouts=Timeouts(
            connect_s=times.connect,
            lock_s=times.lock,
            statement_s=times.statement,
            dump_s=times.dump,
            upload_s=times.upload,
            silence_s=times.silence,
        ),
        pg_bin=backup.pg_bin,
        level=backup.level,
        exports=backupmore.exports(backup),
        syncs=backupmore.syncs(backup, partial(_copy, reading, name)),
        drill=Drill(DRILLS[backup.drill], secret("drill_dsn"), backup.drill_canary),
    )


def _names(names: BackupNames) -> Selection:
    return Selection(tuple(names.schemas), tuple(names.tables))


def _copy(reading: Reading, name: str, url: str, bandwidth_bps: int | None) -> Copy:
    """Give a store what opens it, and nothing of the others'."""
    backup = reading.settings.backups[name]
    target = Target.parse(url)

    def secret(key: str) -> str:
        return reading.secrets.get(("backups", name, key), "")

    match target.scheme:
        case "rclone":
            access = Access(
                rclone_config=secret("rclone_config"),
                rclone_config_path=backup.rclone_config_path,
                can_delete=backup.delete,
            )
        case "gs":
            api = backup.google_api or ""
            access = Access(google=secret("google"), endpoint=api, can_delete=backup.delete)
            if deleter := secret("google_expire"):
                access = replace(access, bandwidth_bps=bandwidth_bps or 0)
                return Copy(target, access, Access(google=deleter, endpoint=api))
        case "hf":
            access = Access(
                hub_token=secret("hub_token"),
                endpoint=backup.hub_api or "",
                can_delete=backup.delete,
            )
        case "file":
            access = Access(can_delete=backup.delete)
    return Copy(target, replace(access, bandwidth_bps=bandwidth_bps or 0))
