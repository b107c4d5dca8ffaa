"""`[[backups.NAME.export]]` and `[[backups.NAME.sync]]`: what is wrong, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from jobs.backup.exportsql import statement_problem
from jobs.backup.form import NAME, Copy, Export, Sync
from jobs.backup.targets import Target
from orchestrator.settings.backuptables import Backup
from orchestrator.settings.positions import Path
from orchestrator.settings.problems import Problem, dotted

_NEEDS: Final = {"gs": ("google", "google_api"), "hf": ("hub_token", "hub_api")}


def check(path: Path, backup: Backup) -> Iterator[Problem]:
    """Yield what is wrong with one backup's exports and syncs."""
    if (backup.dsn or backup.export) and not backup.copies:
        text = "`copies` is missing: where dumps and exports go"
        yield Problem(path, f"{dotted(path)}: {text}", on_key=True)
    if backup.export and backup.dsn is None:
        text = "an export is of a database: `dsn` is missing"
        yield Problem((*path, "export"), f"{dotted((*path, 'export'))}: {text}", on_key=True)
    for kind in ("export", "sync"):
        names: set[str] = set()
        for number, one in enumerate(getattr(backup, kind)):
            place = (*path, kind, number, "name")
            if re.fullmatch(NAME, one.name) is None:
                text = "1 to 40 of a-z 0-9 _ -, of which the first and last are a-z 0-9"
                yield Problem(place, f"{dotted((*path, kind))}: a name is {text}")
            if one.name in names:
                yield Problem(place, f"{dotted((*path, kind))}: two are called {one.name}")
            names.add(one.name)
    for number, export in enumerate(backup.export):
        if problem := statement_problem(export.query):
            place = (*path, "export", number, "query")
            yield Problem(place, f"{dotted((*path, 'export'))}: {export.name}: {problem}")
    yield from _syncs(path, backup)


def _syncs(path: Path, backup: Backup) -> Iterator[Problem]:
    where = dotted((*path, "sync"))
    for number, one in enumerate(backup.sync):
        place = (*path, "sync", number)
        for key, url in (("from", one.from_), *(("to", url) for url in one.to)):
            if problem := credential_problem(backup, url):
                yield Problem((*place, key), f"{where}: {one.name}: {problem}")
        for url in one.to:
            if _overlap(url, one.from_):
                text = f"{url} and {one.from_} are within each other"
                yield Problem((*place, "to"), f"{where}: {one.name}: {text}")
            if not backup.delete and one.mirrors(url):
                text = f"what changed is moved aside in {url}, which takes `delete = true`"
                yield Problem((*place, "to"), f"{where}: {one.name}: {text}")


def together(backups: Mapping[str, Backup]) -> Iterator[Problem]:
    """Yield where two syncs, or a sync and dumps, would write into the same place."""
    taken: list[tuple[str, str]] = [
        (url, f"the copies of {name}") for name, backup in backups.items() for url in backup.copies
    ]
    for name, backup in backups.items():
        for number, one in enumerate(backup.sync):
            for url in one.to:
                other = next((who for there, who in taken if _overlap(url, there)), None)
                if other is not None:
                    path: Path = ("backups", name, "sync")
                    text = f"{dotted(path)}: {one.name}: {url} is also where {other} go"
                    yield Problem((*path, number, "to"), text)
                taken.append((url, f"the files of {name}/{one.name}"))


def _overlap(one: str, other: str) -> bool:
    """Say whether one address is the other, or a folder of it."""
    a, b = Target.parse(one), Target.parse(other)
    if (a.scheme, a.place) != (b.scheme, b.place):
        return False
    short, long = sorted((a.path, b.path), key=len)
    return not short or long == short or long.startswith(f"{short}/")


def credential_problem(backup: Backup, url: str) -> str:
    """Say what is missing to open a place; "" if nothing is."""
    scheme = Target.parse(url).scheme
    key, api = _NEEDS.get(scheme, ("", ""))
    # An emulator on this machine asks for no key.
    if key and getattr(backup, key) is None and not str(getattr(backup, api)).startswith("http:"):
        return f"`{scheme}:` needs the credential `{key}`"
    if scheme == "rclone" and not (backup.rclone_config or backup.rclone_config_path):
        return "`rclone:` needs `rclone_config` or `rclone_config_path`"
    return ""


def exports(backup: Backup) -> tuple[Export, ...]:
    """Make the exports of a backup."""
    return tuple(
        Export(one.name, one.query, one.key, one.late, one.settle or 0.0, one.keep)
        for one in backup.export
    )


def syncs(backup: Backup, copy: Callable[[str, int | None], Copy]) -> tuple[Sync, ...]:
    """Make the syncs of a backup. `copy`: opens a place at so many bytes a second."""
    return tuple(
        Sync(
            name=one.name,
            source=copy(one.from_, one.bandwidth or backup.bandwidth),
            to=tuple(copy(url, one.bandwidth or backup.bandwidth) for url in one.to),
            versions=one.versions,
            keep=one.keep,
            exclude=tuple(one.exclude),
            allow_empty=one.allow_empty,
            gone=one.gone,
        )
        for one in backup.sync
    )
