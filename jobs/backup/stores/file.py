"""Copies in a folder of this machine, or one mounted there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from jobs.backup.errors import Conflict, Corrupt, NotFound, StoreBroken, StoreFullError
from jobs.backup.form import Access
from jobs.backup.stores.base import (
    CHUNK,
    PART,
    Entry,
    Progress,
    Room,
    checked,
    digests,
    disagreement,
    hash_file,
    silent,
)
from jobs.backup.stores.landing import broken, landing, sync_folder
from jobs.backup.targets import Target, safe

_KINDS = ("md5", "sha1", "sha256", "crc32c")


def make(target: Target, access: Access, private: Path) -> FileStore:  # noqa: ARG001 - as the others
    """Return the store; the folder is made when something is put there."""
    return FileStore(target)


class FileStore:
    """A folder. It has no hashes of its own: `check` reads the file."""

    def __init__(self, target: Target) -> None:
        self.url = target.url
        self._base = Path("/" + target.path)

    def list(self, prefix: str = "") -> list[Entry]:
        with self._errors():
            if not self._base.exists():
                return []
            found = (entry for entry in self._walk() if entry.name.startswith(prefix))
            return sorted(found, key=lambda entry: entry.name)

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        final = self._path(name)
        with self._errors():
            there = self._entry(final)
            if there is not None:
                hashes = hash_file(local, ("sha256",))
                if there.size == local.stat().st_size and not self.check(name, hashes):
                    return Entry(name, there.size, there.modified, hashes)
                if not replace:
                    raise Conflict(f"{self.url} has another {name} already")
            final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = final.with_name(final.name + PART)
            hashes = self._write(local, part, progress)
            self._publish(part, final, name, replace)
            entry = self._entry(final)
            assert entry is not None
            return Entry(name, entry.size, entry.modified, hashes)

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        with self._errors(name):
            source = self._open(name)
        with source, landing(local) as to:
            total, done = os.fstat(source.fileno()).st_size, 0
            while piece := self._piece(source, name):
                to.write(piece)
                done += len(piece)
                progress(done, total)

    def read(self, name: str, most: int) -> bytes:
        with self._errors(name), self._open(name) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise StoreBroken(f"{name} in {self.url} is longer than {most} bytes")
        return data

    def delete(self, name: str) -> None:
        path = self._path(name)
        with self._errors(name):
            for gone in (path, path.with_name(path.name + PART)):
                gone.unlink(missing_ok=True)
            sync_folder(path.parent)
            for folder in path.parents:
                if folder == self._base or self._base not in folder.parents:
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break  # something else is in there

    def room(self) -> Room | None:
        with self._errors():
            place = next((p for p in (self._base, *self._base.parents) if p.exists()), None)
            if place is None:
                return None
            found = os.statvfs(place)
        unit = found.f_frsize
        used = (found.f_blocks - found.f_bfree) * unit
        return Room(found.f_blocks * unit, used, found.f_bavail * unit)

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        known = {kind: value for kind, value in hashes.items() if kind in _KINDS}
        kind = next((k for k in ("sha256", "sha1", "md5", "crc32c") if k in known), "sha256")
        made = digests((kind,))
        with self._errors(name), self._open(name) as file:
            while piece := file.read(CHUNK):
                made[kind].update(piece)
        wrong = disagreement({kind: made[kind].hexdigest()}, known)
        return "there is no hash to compare with" if wrong is None else wrong

    def close(self) -> None:
        """Nothing is held."""

    def _walk(self) -> Iterator[Entry]:
        for folder, _, names in os.walk(self._base, onerror=_raise):
            for name in names:
                path = Path(folder, name)
                shown = path.relative_to(self._base).as_posix()
                if safe(shown) and not shown.endswith(PART):
                    entry = self._entry(path)
                    if entry is not None:
                        yield entry

    def _entry(self, path: Path) -> Entry | None:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        name = path.relative_to(self._base).as_posix()
        return Entry(name, found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None

    def _write(self, local: Path, part: Path, progress: Progress) -> dict[str, str]:
        """Make `part` the same as `local`, going on from what of it is there; read it back."""
        sent = digests(("sha256",))
        with local.open("rb", buffering=0) as source:
            total = os.fstat(source.fileno()).st_size
            free = self.room()
            have = part.stat().st_size if part.exists() else 0
            if free is not None and free.free is not None and free.free + have < total:
                raise StoreFullError(f"{self.url}: {total} bytes do not fit, {free.free} are free")
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "r+b", buffering=0) as to:
                done, same = 0, True
                while piece := source.read(CHUNK):
                    sent["sha256"].update(piece)
                    same = same and to.read(len(piece)) == piece
                    if not same:
                        to.seek(done)
                        _write_all(to, piece)
                    done += len(piece)
                    progress(done, total)
                to.truncate(done)
                os.fsync(to.fileno())
                # Read back from the disk, not from what the kernel still remembers of it.
                os.posix_fadvise(to.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        wanted = {"sha256": sent["sha256"].hexdigest()}
        if wrong := disagreement(hash_file(part, ("sha256",)), wanted):
            part.unlink(missing_ok=True)
            raise Corrupt(f"{part.name} in {self.url} is not what was written: {wrong}")
        return wanted

    def _publish(self, part: Path, final: Path, name: str, replace: bool) -> None:
        if not replace:
            try:
                os.link(part, final)  # never over what is there, whoever put it there
            except FileExistsError:
                raise Conflict(f"{self.url} has another {name} already") from None
            except OSError:
                replace = True  # a filesystem without links
            else:
                part.unlink()
        if replace:
            part.replace(final)
        sync_folder(final.parent)

    def _open(self, name: str) -> BinaryIO:
        handle = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW)
        return os.fdopen(handle, "rb")

    def _piece(self, source: BinaryIO, name: str) -> bytes:
        with self._errors(name):
            return source.read(CHUNK)

    def _path(self, name: str) -> Path:
        return self._base / checked(name)

    @contextlib.contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"{self.url} has no {name}" if name else f"{self.url} is gone") from None
        except OSError as error:
            raise broken(error, self.url) from None


def _raise(error: OSError) -> None:
    raise error


def _write_all(to: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[to.write(view) :]
