"""What `aion rebuild` does on the disk: staged in a folder of its own, then moved into place.

The configuration comes last: as long as there is none, nothing was rebuilt.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.backup import itself
from jobs.backup.stores.landing import landing, sync_folder
from jobs.backup.unpack import unpack
from orchestrator.edge import schema, sqlite
from orchestrator.edge.rebirth import revive
from orchestrator.errors import ConfigError, StoreTooNew

if TYPE_CHECKING:
    from jobs.backup.form import Manifest
    from jobs.backup.itself import Held
    from orchestrator.settings import Reading

STAGE: Final = ".aion-rebuild-"
ASIDE: Final = ".before-rebuild"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rebuilt aion lives: its configuration's file and its state's folder."""

    config: Path
    state: Path

    @property
    def environ(self) -> dict[str, str]:
        """What tells aion of it; its own secrets are in files."""
        return {"STATE_DIRECTORY": str(self.state)}

    def database(self, reading: Reading) -> Path:
        """Return where the configuration wants the database."""
        from orchestrator.settings import database

        return Path(database(reading, self.environ).removeprefix("sqlite:///"))


def occupied(place: Place) -> Path | None:
    """Return what a rebuild would overwrite, if anything."""
    found = (place.config, place.state / itself.DATABASE, place.state / itself.TOKEN)
    return next((path for path in found if os.path.lexists(path)), None)


@dataclass(frozen=True, slots=True)
class Stage:
    """A state taken apart and made ready in `folder`. `epoch`: the first of its new era.

    `token`: whether the admin token that the daemon had made itself is in it.
    """

    folder: Path
    held: Held
    credentials: tuple[str, ...]
    token: bool
    epoch: int

    def settle(self, place: Place, *, force: bool) -> None:
        """Move everything into place, the configuration last. Raises ConfigError, StoreError."""
        path = place.database(self.study(place))
        sqlite.make_folder(path)
        lock = sqlite.Lock(path)
        lock.take()
        try:
            if force:
                _aside(place, path)
            if os.path.lexists(path):
                raise ConfigError(f"{path} is there already; --force moves it aside")
            for left in ("-wal", "-shm"):
                path.with_name(path.name + left).unlink(missing_ok=True)  # of another database
            _move(self.folder / itself.DATABASE, path)
        finally:
            lock.drop()
        _move(self.folder / itself.TOKEN, place.state / itself.TOKEN)
        _open_folder(place.config.parent)
        for name in self.credentials:
            to = place.config.parent / itself.CREDENTIALS / name
            if not os.path.lexists(to):  # what was set here already is newer
                _move(self.folder / itself.CREDENTIALS / name, to)
        _move(self.folder / itself.CONFIG, place.config, mode=0o644)

    def study(self, place: Place, *, settled: bool = False) -> Reading:
        """Check the configuration, here or where it is in the end, as `aion config check` does."""
        from orchestrator.settings import study

        path = place.config if settled else self.folder / itself.CONFIG
        environ = {**os.environ, **place.environ}
        return study(path if path.exists() else None, environ=environ)


@contextmanager
def staged(archive: Path, manifest: Manifest, base: Path, wall: float) -> Iterator[Stage]:
    """Take an archive apart below `base`, check and upgrade its database; all is gone afterwards.

    Raises `NotComplete`, `NoRoom`, StoreTooNew.
    """
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in base.glob(f"{STAGE}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=STAGE, dir=base))
    try:
        index = unpack(archive, folder)
        _refuse_newer(itself.look(folder / itself.DATABASE).state.revision, index.aion)
        text = f"rebuilt from {manifest.id}, of {manifest.created_at:%Y-%m-%d %H:%M} UTC"
        epoch = revive(folder / itself.DATABASE, text, wall)
        held = itself.look(folder / itself.DATABASE)
        names = [part.name.partition("/") for part in index.parts]
        credentials = sorted(name for kind, _, name in names if kind == itself.CREDENTIALS)
        token = (folder / itself.TOKEN).exists()
        yield Stage(folder, held, tuple(credentials), token, epoch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_newer(revision: str, aion: str) -> None:
    try:
        schema.refuse_newer(revision, "sqlite://")
    except StoreTooNew:
        raise StoreTooNew(
            f"this state is of a newer aion, {aion[:40]} (its tables are at {revision[:40]}); "
            "install that one here, or take an older dump with --dump"
        ) from None


def _aside(place: Place, database: Path) -> None:
    """Rename what is there; what an earlier rebuild had put aside goes."""
    beside = [database.with_name(database.name + end) for end in ("", "-wal", "-shm")]
    for path in (*beside, place.state / itself.TOKEN, place.config):
        if os.path.lexists(path):
            path.replace(path.with_name(path.name + ASIDE))
    folder = place.config.parent / itself.CREDENTIALS
    if folder.exists():
        to = folder.with_name(folder.name + ASIDE)
        shutil.rmtree(to, ignore_errors=True)
        folder.replace(to)


def _open_folder(folder: Path) -> None:
    """Make the configuration's folder, which the service's own user must enter, and read it."""
    if not folder.exists():
        try:
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        except OSError as error:
            raise ConfigError(f"cannot make {folder}: {(error.strerror or '').lower()}") from None


def _move(source: Path, to: Path, mode: int = 0o600) -> None:
    """Bring a staged file, if it is there, to its place: whole, durable, with its mode."""
    if not source.exists():
        return
    try:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with source.open("rb") as file, landing(to) as out:
            shutil.copyfileobj(file, out)
            os.fchmod(out.fileno(), mode)
        sync_folder(to.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {to}: {(error.strerror or '').lower()}") from None


def missing(reading: Reading, folder: Path) -> Mapping[str, list[str]]:
    """Return the credentials that are nowhere: name → the keys that ask for it."""
    from orchestrator.settings.credentials import Sources, where

    sources = Sources.of(folder / itself.CONFIG, os.environ)
    found: dict[str, list[str]] = {}
    for key, name in reading.credentials.items():
        if where(name, sources) is None:
            found.setdefault(name, []).append(key)
    return found
