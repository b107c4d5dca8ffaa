"""The exceptions aion raises on purpose.

    AionError                    one line: what is wrong, and what to do about it
    ├── ConfigError              the configuration is unusable            exit 5
    ├── StoreError               the database cannot be read or written
    │   ├── StoreFull            the disk is full
    │   └── StoreTooNew          written by a newer aion                  exit 5
    ├── NotAllowed               wrong or missing token                   exit 4
    ├── Unreachable              a server did not answer
    │   └── DaemonUnreachable    our own daemon did not                   exit 6
    ├── BadReply                 a server answered something unusable
    │   └── Throttled            … to come back later (`retry_after_s`)
    ├── ChildFailed              a child process died, took too long or answered nonsense
    ├── Overloaded               too much at once: come back in a moment
    └── Declined                 the operator said no, or cannot be asked exit 2

Errors of libraries are wrapped where they happen (`raise … from error`) and never travel further.
Messages are one line, hold no secret, and end without a full stop.
"""

from __future__ import annotations


class AionError(Exception):
    """Base of everything raised on purpose. `exit_code` is the command line's exit status."""

    exit_code = 1


class ConfigError(AionError):
    """The configuration is unusable; the text may have several lines, one per problem."""

    exit_code = 5


class StoreError(AionError):
    """The database cannot be read or written."""


class StoreFull(StoreError):
    """The disk is full."""


class StoreTooNew(StoreError):
    """The database was written by a newer aion."""

    exit_code = 5


class NotAllowed(AionError):
    """Wrong or missing token."""

    exit_code = 4


class Unreachable(AionError):
    """A server did not answer: refused, reset, timed out, name not found."""


class DaemonUnreachable(Unreachable):
    """Our own daemon did not answer."""

    exit_code = 6


class BadReply(AionError):
    """A server answered something unusable; `status` is its HTTP status, if it was HTTP."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Throttled(BadReply):
    """A server asked us to come back after `retry_after_s` seconds."""

    def __init__(self, text: str, retry_after_s: float, status: int | None = 429) -> None:
        super().__init__(text, status)
        self.retry_after_s = retry_after_s


class ChildFailed(AionError):
    """A child process died, took too long or answered nonsense."""


class ChildTimedOut(ChildFailed):
    """A child process took too long and was ended: what it did is not known."""


class Overloaded(AionError):
    """Too much at once: nothing was done, and the same may be asked again in a moment."""


class Declined(AionError):
    """The operator said no, or there is no terminal to ask on."""

    exit_code = 2
