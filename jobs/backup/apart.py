"""Something done in a process of its own, so that what it loads is gone afterwards."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from jobs.backup.errors import BackupError

T = TypeVar("T")


def apart(do: Callable[[], T]) -> T:
    """Do it in a fork, and return or raise what it does; ports and secrets are there as they are.

    For a process that does one thing at a time. Raises `BackupError` when the fork is killed, or
    fails in a way that nobody foresaw.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(do, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        raise BackupError("the process that looked at the stores was killed")
    well, value = pickle.loads(said)  # noqa: S301 - by our own fork, through a pipe of ours
    if well:
        return value  # type: ignore[no-any-return]  # what `do` returned
    raise value


def _answer(do: Callable[[], object], to: int) -> NoReturn:
    try:
        said = pickle.dumps((True, do()))
    except BackupError as error:
        said = pickle.dumps((False, error))
    except Exception as error:  # noqa: BLE001 - the last place to catch it; its text may be secret
        said = pickle.dumps((False, BackupError(f"{type(error).__name__} (not foreseen)")))
    with os.fdopen(to, "wb") as pipe:
        pipe.write(said)
    sys.stderr.flush()
    os._exit(0)  # nothing of the process that it was is to be ended here
