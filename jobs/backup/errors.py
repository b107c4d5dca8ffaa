"""The exceptions of backups.

    AionError
    └── BackupError              a backup could not do what it was asked
        ├── BadTarget            a store's address cannot be used             exit 5
        ├── BadManifest          a manifest is unreadable, or of a newer aion
        ├── ToolMissing          pg_dump, rclone … is not there or too old
        ├── SourceFailed         the database that is dumped failed
        ├── NotComplete          what was dumped is not a whole archive
        ├── NoRoom               this machine's disk is full, or would be
        ├── WrongKey             the key does not open the archive, or is missing
        ├── Busy                 somebody else backs up to, or restores into, the same place
        ├── NotEmpty             a restore's target holds tables already
        ├── Replaced             this instance was rebuilt elsewhere, and that one backs up now
        └── StoreBroken          a store failed; `retry` says whether trying again may help
            ├── StoreUnreachable     no answer, cut, 5xx, throttled                  retry
            ├── StoreFullError       no room, or the quota is used up
            ├── CredentialExpired    a login must be renewed by a human
            ├── CredentialRefused    this credential may not do that
            ├── NotFound             no such object, bucket, remote or repository
            ├── Conflict             something else has that name
            └── Corrupt              what the store holds is not what was sent      retry

Messages are one line, hold no secret, and end without a full stop. Vendors' errors are wrapped
`from None` where their text or their chain may hold a secret.
"""

from __future__ import annotations

from typing import ClassVar

from orchestrator.errors import AionError


class BackupError(AionError):
    """A backup could not do what it was asked."""


class BadTarget(BackupError):
    """A store's address cannot be used; says why and what is meant."""

    exit_code = 5


class BadManifest(BackupError):
    """A manifest is unreadable, contradicts itself, or is of a newer aion."""


class ToolMissing(BackupError):
    """A program is not there or too old; says where to get it."""


class SourceFailed(BackupError):
    """The database that is dumped could not be read."""


class NotComplete(BackupError):
    """What was dumped is not a whole archive: it must never count."""


class NoRoom(BackupError):
    """This machine's disk is full, or would be."""


class WrongKey(BackupError):
    """The key does not open the archive, or is missing."""


class Busy(BackupError):
    """Somebody else backs up to, or restores into, the same place."""


class NotEmpty(BackupError):
    """A restore's target holds tables already."""


class Replaced(BackupError):
    """This instance was rebuilt on another machine, which backs up in its place now."""


class StoreBroken(BackupError):
    """A store failed. `retry`: whether trying again later, unchanged, may help.

    `retry_after_s`: what the store asked for, in seconds; 0 if it said nothing.
    """

    retry: ClassVar[bool] = False

    def __init__(self, text: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class StoreUnreachable(StoreBroken):
    """No answer, a cut connection, an answer of 5xx, or too many requests."""

    retry = True


class StoreFullError(StoreBroken):
    """No room, or the quota is used up."""


class CredentialExpired(StoreBroken):
    """A login is no longer valid and a human must renew it."""


class CredentialRefused(StoreBroken):
    """This credential may not do that."""


class NotFound(StoreBroken):
    """No such object, bucket, remote or repository."""


class Conflict(StoreBroken):
    """Something else has that name; it is left as it is."""


class Corrupt(StoreBroken):
    """What the store holds is not what was sent."""

    retry = True
