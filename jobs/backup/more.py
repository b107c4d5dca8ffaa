"""More than the database: what a run does besides the dump. One that fails costs no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from jobs.backup.errors import BackupError
from jobs.backup.exports import Deleting, export
from jobs.backup.form import Copy, Plan
from jobs.backup.outcome import Kind, Outcome
from jobs.backup.stores.base import Store
from jobs.backup.syncs import sync

if TYPE_CHECKING:
    from jobs.backup.run import Ports


def more(
    plan: Plan, ports: Ports, stores: Mapping[Copy, Store], deleting: Deleting
) -> list[Outcome]:
    """Make the exports and syncs of a plan, in its order."""
    return [
        _done("export", one.name, partial(export, plan, one, ports, stores, deleting))
        for one in plan.exports
    ] + [_done("sync", one.name, partial(sync, plan, one, ports)) for one in plan.syncs]


def _done(kind: Kind, name: str, do: Callable[[], Outcome]) -> Outcome:
    try:
        return do()
    except BackupError as error:
        return Outcome(kind, name, str(error))
    except OSError as error:
        return Outcome(kind, name, f"this machine: {error.strerror}")
    except Exception as error:  # noqa: BLE001 - a surprise in one must not cost the others
        return Outcome(kind, name, f"{type(error).__name__} (not foreseen)")
