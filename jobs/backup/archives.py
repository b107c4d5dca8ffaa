"""An archive as pg_restore gets it: a file in the clear, or one that is opened as it is read.

A stored archive may be encrypted, and compressed around. Where the disk has room it is opened into
a file, in which pg_restore can seek, so that it can restore in parallel; else it is opened anew
for each program that reads it, on the way.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from jobs.backup.errors import BackupError, Corrupt
from jobs.backup.form import ARCHIVE, Manifest
from jobs.backup.packing import Unpacker
from jobs.backup.programs import PIECE, room, widen
from jobs.backup.sealing import Noting, unseal
from jobs.backup.stores.landing import landing

SPARE: Final = 64 * 1024 * 1024
"""Bytes of disk that opening an archive leaves free."""


@dataclass(frozen=True, slots=True)
class Archive:
    """`path`: the file as it lies there. `opening`: writes it, in the clear; None: it is."""

    path: Path
    opening: Callable[[BinaryIO], None] | None = field(default=None, repr=False)

    @property
    def seekable(self) -> bool:
        """Whether pg_restore may read here and there in it, and so in parallel."""
        return self.opening is None

    @contextmanager
    def given(self) -> Iterator[tuple[list[str], int]]:
        """Yield the arguments and the stdin of a program that is to read it.

        Raises, when the program has ended, what went wrong with opening it: `Corrupt`, `WrongKey`.
        """
        if self.opening is None:
            yield [str(self.path)], subprocess.DEVNULL
            return
        with _pumped(self.opening) as pipe:
            yield [], pipe


@contextmanager
def _pumped(opening: Callable[[BinaryIO], None]) -> Iterator[int]:
    """Yield the end of a pipe that everything comes out of; who stops reading early may."""
    taken, given = os.pipe()
    widen(given)
    failed: list[Exception] = []

    def pump() -> None:
        try:
            with os.fdopen(given, "wb") as out:
                opening(out)
        except BrokenPipeError:
            pass
        except Exception as error:  # noqa: BLE001 - told where it is waited for
            failed.append(error)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield taken
    except BackupError:
        _end(taken, thread)
        if failed:  # the cause of it
            raise failed[0] from None
        raise
    except BaseException:
        _end(taken, thread)
        raise
    _end(taken, thread)
    if failed:
        raise failed[0]


def _end(pipe: int, thread: threading.Thread) -> None:
    os.close(pipe)  # whoever writes into it now ends
    thread.join()


def opened(path: Path, manifest: Manifest, identity: str, folder: Path) -> Archive:
    """Return an archive in the clear: in a file in `folder` if there is room, else on the way.

    What is opened into a file is compared with what was dumped. Raises `WrongKey`, `Corrupt`,
    `NoRoom`.
    """
    if not (manifest.encrypted or manifest.packed):
        return Archive(path)

    def opening(out: BinaryIO) -> None:
        _open(path, manifest, identity, out)

    if room(folder) < (manifest.plain_size or manifest.size) + SPARE:
        return Archive(path, opening)
    plain = folder / ARCHIVE
    with landing(plain) as out:
        opening(out)
    if manifest.plain_size and plain.stat().st_size != manifest.plain_size:
        plain.unlink()
        raise Corrupt(f"{manifest.id}, opened, is not what was dumped")
    return Archive(plain)


def _open(path: Path, manifest: Manifest, identity: str, out: BinaryIO) -> None:
    sink = Noting(Unpacker(out) if manifest.packed else out)
    with path.open("rb", buffering=0) as file:
        if manifest.encrypted:
            what = f"{manifest.id}, encrypted for the key {manifest.encrypted.fingerprint},"
            unseal(file, sink, identity, what)
        else:
            while piece := file.read(PIECE):
                sink.write(piece)
    if sink.digest.hexdigest() != manifest.plain_sha256:
        raise Corrupt(f"{manifest.id}, opened, is not what was dumped")
