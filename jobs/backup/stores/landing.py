"""Files that appear whole or not at all, and the system's errors in our words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jobs.backup.errors import (
    CredentialRefused,
    NoRoom,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.stores.base import PART

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def broken(error: OSError, what: str) -> StoreBroken:
    """Say in our words what happened to a store that is a folder."""
    text = f"{what}: {os.strerror(error.errno or 0)}"
    if error.errno in _FULL:
        return StoreFullError(text)
    if error.errno in _REFUSED:
        return CredentialRefused(text)
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotFound(text)
    return StoreUnreachable(text)


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable; a filesystem that cannot is left to itself."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def landing(local: Path) -> Iterator[BinaryIO]:
    """Open a file of ours that becomes `local` when the block ends well, and is gone if not.

    Raises `NoRoom` when this machine's disk is full.
    """
    part = local.with_name(local.name + PART)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(local)
        sync_folder(local.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(f"{local.parent}: {os.strerror(error.errno)}") from None
        raise
    finally:
        part.unlink(missing_ok=True)
