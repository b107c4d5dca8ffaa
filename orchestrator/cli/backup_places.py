"""Where `aion backup` finds dumps and databases: by the configuration, or without any."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import ConfigError, Declined

if TYPE_CHECKING:
    from jobs.backup.form import Access, Copy, Plan
    from jobs.backup.run import Ports
    from jobs.backup.stores.base import Store
    from jobs.base import BackupSettings
    from orchestrator.cli.options import Given
    from orchestrator.cli.output import Output


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens a store that no configuration names: files, by their paths."""

    rclone: Path | None = None
    google: Path | None = None


def configured(given: Given) -> tuple[BackupSettings, ...]:
    """Return the backups of the configuration. Raises ConfigError."""
    from orchestrator.settings import find_path, load

    path = find_path(given.config, environ=os.environ)
    if path is None:
        raise ConfigError("no configuration here; with --from a store is enough")
    return load(path, environ=os.environ).backups


def of_name(given: Given, name: str) -> BackupSettings:
    """Return one backup. Raises ConfigError with those there are."""
    found = configured(given)
    for one in found:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in found) or "none"
    raise ConfigError(f"no backup is called {name[:60]}; there are: {known}")


@contextmanager
def plans(given: Given, name: str, source: str, keys: Keys) -> Iterator[list[Plan]]:
    """Yield the plans that are meant: of the configuration, or made for the store `source`.

    Of a store alone: nothing of aion's is needed, and nothing is left on this machine.
    """
    if not source:
        found = configured(given)
        yield [of_name(given, name).plan] if name else [one.plan for one in found]
        return
    from jobs.backup.form import Copy, Plan
    from jobs.backup.targets import Target

    target = Target.parse(source)
    access = _known_access(given, target.url) or _access(target.scheme, keys)
    copy = Copy(target, access)
    with tempfile.TemporaryDirectory(prefix="aion-backup-") as folder:
        names = [name] if name else _names(copy, Path(folder))
        yield [Plan(one, "", (copy,), folder) for one in names]


def _known_access(given: Given, url: str) -> Access | None:
    """Return what the configuration, if there is a sound one, opens this store with."""
    with contextlib.suppress(ConfigError):
        for one in configured(given):
            for copy in one.plan.copies:
                if copy.target.url == url:
                    return copy.access
    return None


def _access(scheme: str, keys: Keys) -> Access:
    from jobs.backup.form import Access

    if scheme == "rclone":
        usual = os.environ.get("RCLONE_CONFIG") or Path.home() / ".config/rclone/rclone.conf"
        return Access(rclone_config_path=str(keys.rclone or usual))
    if scheme == "gs":
        named = keys.google or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if not named:
            raise ConfigError("gs:// needs --google FILE, a service account's key")
        return Access(google=text_of(Path(named)))
    if scheme == "hf":
        return Access(hub_token=os.environ.get("HF_TOKEN", ""))
    return Access()


def text_of(path: Path) -> str:
    """Return a file's text. Raises ConfigError."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot read {path}: {why.lower()}") from None


def identity_of(path: Path) -> str:
    """Return the identity in a file as age-keygen writes it, comments and all."""
    for line in text_of(path).splitlines():
        if line.strip().upper().startswith("AGE-SECRET-KEY-1"):
            return line.strip()
    raise ConfigError(f"{path} holds no identity of age, AGE-SECRET-KEY-1…")


def _names(copy: Copy, spool: Path) -> list[str]:
    from jobs.backup.form import DumpId
    from jobs.backup.stores import open_store

    store = open_store(copy.target, copy.access, spool)
    try:
        folders = {entry.name.partition("/")[0] for entry in store.list()}
    finally:
        store.close()
    return sorted({found.name for folder in folders if (found := DumpId.parse(folder))})


@contextmanager
def opened(plan: Plan, copy: Copy, ports: Ports) -> Iterator[Store]:
    """Open one store of a plan."""
    from jobs.backup.run import store_folder

    store = ports.open_store(copy.target, copy.access, store_folder(plan, copy))
    try:
        yield store
    finally:
        store.close()


def ports_of(bars: Bars) -> Ports:
    """Return what the work uses of this machine; it tells the bars."""
    import threading

    from jobs.backup.run import Ports
    from orchestrator.edge.clock import SystemClock, SystemRandom

    wait = threading.Event().wait

    def pause(seconds: float) -> None:
        wait(seconds)

    return Ports(SystemClock(), SystemRandom(), pause, bars.tell)


def database(given: Given, said: str) -> str:
    """Return the DSN that `--to` means: a credential's name, or a DSN without a password.

    The password comes from PGPASSWORD, or is asked for. Raises Declined, ConfigError.
    """
    from orchestrator.settings import find_path
    from orchestrator.settings.credentials import Sources, find, name_problem

    if "=" not in said and ":" not in said and name_problem(said) is None:
        path = find_path(given.config, environ=os.environ)
        return find(said, Sources.of(path, os.environ))
    from psycopg.conninfo import make_conninfo

    from jobs.backup.source import parameters

    known = parameters(said)
    if "password" in known:
        raise Declined(
            "every process here can read a password in an argument: leave it out of --to; it is"
            " asked for, or read from PGPASSWORD, or the whole DSN from a credential"
        )
    password = os.environ.get("PGPASSWORD", "")
    if not password and sys.stdin.isatty():
        import getpass

        password = getpass.getpass("password of the database (not shown; empty for none): ")
    return make_conninfo("", **known, password=password) if password else said


class Bars:
    """How far each step is: bars on a terminal, else one line for each step, on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._steps: dict[str, Any] = {}
        self._progress: Any = None
        if sys.stderr.isatty() and not output.quiet:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TransferSpeedColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def tell(self, step: str, done: int, total: int) -> None:
        """Take in how far a step is, in bytes; see `jobs.backup.ports.Tell`."""
        if self._progress is None:
            if step not in self._steps:
                self._steps[step] = True
                self._output.say(step)
            return
        if step not in self._steps:
            self._steps[step] = self._progress.add_task(step, total=total or None)
        self._progress.update(self._steps[step], completed=done, total=total or None)
