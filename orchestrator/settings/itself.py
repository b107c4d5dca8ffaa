"""aion's own state among what is backed up: to every place of every backup, unless it says not.

It is a backup of its own, named `aion-state`. Its schedule, its rules and its key are those of
`[backups.aion-state]`, or where there is no such table those of the first backup that carries it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File

from jobs.backup.form import STATE, Copy, Encryption, Itself
from jobs.base import BackupSettings
from orchestrator.settings.backuptables import Backup
from orchestrator.settings.credentials import ADMIN_TOKEN
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted
from orchestrator.settings.reading import Reading

_OTHERS = ("dsn", "drill_dsn", "drill_canary", "export", "sync", "pg_bin")


def check(path: Path, backup: Backup) -> Iterator[Problem]:
    """Yield what a backup says that cannot be, of a database or of aion's own state."""
    if path[-1] != STATE:
        if backup.dsn is None and not (backup.sync or backup.export):
            text = "nothing to back up: `dsn` is missing; of aion's own state alone"
            yield Problem(path, f"{dotted(path)}: {text}: [backups.{STATE}]", on_key=True)
        return
    for key in _OTHERS:
        if getattr(backup, key):
            text = "this backup is of aion's own state, not of a database; remove it"
            yield Problem((*path, key), f"{dotted((*path, key))}: {text}", on_key=True)
    if not backup.itself:
        text = "this backup is of nothing else; remove the table"
        yield Problem((*path, "itself"), f"{dotted((*path, 'itself'))}: {text}")


def notes(backups: Mapping[str, Backup]) -> Iterator[Problem]:
    """Yield what will be missing on the day that this machine is gone."""
    name = base(backups)
    if name is None:
        if backups:
            path: Path = ("backups",)
            text = (
                "aion's own state goes to none of these places: a new machine begins from nothing"
            )
            yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
    elif not any(one.encrypt for one in backups.values() if one.itself):
        path = ("backups", name)
        text = "aion's credentials are not among what is backed up: that takes encrypt.recipient"
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)


def base(backups: Mapping[str, Backup]) -> str | None:
    """Return the table by which aion's own state is backed up; None: it is not."""
    if STATE in backups:
        return STATE
    return next((name for name, one in backups.items() if one.itself and one.copies), None)


def settings(
    reading: Reading, state: File, first: BackupSettings, others: Sequence[BackupSettings]
) -> BackupSettings:
    """Make the backup of aion's own state: as `first`, to its places and those of the `others`."""
    copies: dict[str, Copy] = {}
    for one in (first, *others):
        for copy in one.plan.copies:
            copies.setdefault(copy.target.url, copy)
    encrypt = next((one.plan.encrypt for one in (first, *others) if one.plan.encrypt), None)
    plan = replace(
        first.plan,
        name=STATE,
        dsn="",
        copies=tuple(copies.values()),
        spool=str(state / "backups" / STATE),
        encrypt=encrypt,
        exports=(),
        syncs=(),
        drill=replace(first.plan.drill, dsn="", canary=""),
        itself=_itself(reading, state, encrypt),
    )
    own = first.name == STATE
    return replace(
        first,
        plan=plan,
        ping_url=first.ping_url if own else "",
        drills=first.drills and (encrypt is None or bool(encrypt.identity)),
    )


def _itself(reading: Reading, state: File, encrypt: Encryption | None) -> Itself:
    """Say where it is. Nothing secret goes along where nothing is encrypted."""
    given, names = reading.settings, reading.credentials
    asked = {names[dotted(path)]: value for path, value in reading.secrets.items()}
    config = reading.document.path
    return Itself(
        database=str(state / given.server.database.removeprefix("sqlite:///")),
        config=str(config.absolute()) if config else "",
        token="" if given.server.admin_token else str(state / ADMIN_TOKEN),
        instance=given.instance,
        credentials=asked if encrypt else {},
    )
