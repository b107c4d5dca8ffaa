"""A dump brought to every store: independently, resumed, retried, checked, its manifest last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.backup.errors import (
    BackupError,
    Conflict,
    Corrupt,
    NotComplete,
    StoreBroken,
    StoreFullError,
)
from jobs.backup.form import MANIFEST, Limits, Manifest
from jobs.backup.ports import Clock, Pause, Random, Tell, nobody
from jobs.backup.stores.base import Store, hash_file
from orchestrator.core.metering import shown
from orchestrator.core.meters import Unit

MakeRoom = Callable[[Store, int], bool]
"""Frees bytes in a full store; says whether it did."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one copy went. `detail`: why not, in one line; `retry`: trying again later may help."""

    dump: str
    store: str
    ok: bool
    detail: str = ""
    attempts: int = 1
    retry: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Try:
    """One store's turn: when it is due, in steady seconds, and what came of the last."""

    store: Store
    due: float
    attempts: int = 0
    made_room: bool = False
    replace: bool = False


def copy_all(
    folder: Path,
    manifest: Manifest,
    stores: Sequence[Store],
    limits: Limits,
    *,
    clock: Clock,
    random: Random,
    pause: Pause,
    tell: Tell = nobody,
    make_room: MakeRoom | None = None,
) -> list[Result]:
    """Copy the dump in `folder` to each store; one that is down holds up no other.

    Each is tried `limits.attempts` times, with waits that double, or as long as it asks for.
    """
    waiting = [_Try(store, clock.steady()) for store in stores]
    results: list[Result] = []
    while waiting:
        turn = min(waiting, key=lambda one: one.due)
        if (ahead := turn.due - clock.steady()) > 0:
            pause(ahead)
        result = _attempt(folder, manifest, turn, limits, tell, make_room)
        if result.ok or not result.retry or turn.attempts >= limits.attempts:
            waiting.remove(turn)
            results.append(result)
        else:
            backoff = min(limits.backoff_s * 2 ** (turn.attempts - 1), limits.backoff_most_s)
            turn.due = clock.steady() + max(backoff * (0.5 + random.random() / 2), turn.due)
    return results


def _attempt(
    folder: Path,
    manifest: Manifest,
    turn: _Try,
    limits: Limits,
    tell: Tell,
    make_room: MakeRoom | None,
) -> Result:
    """Try once; sets `turn.due` to the seconds the store asked for."""
    turn.attempts += 1
    turn.due = 0.0
    url = turn.store.url

    def failed(error: BaseException, text: str, *, retry: bool) -> Result:
        turn.due = min(getattr(error, "retry_after_s", 0.0), limits.backoff_most_s)
        return Result(manifest.id, url, False, text, turn.attempts, retry)

    try:
        copy(folder, manifest, turn.store, tell, replace=turn.replace)
    except StoreFullError as error:
        if make_room is None or turn.made_room or not _freed(make_room, turn.store, manifest.size):
            return failed(error, str(error), retry=False)
        turn.made_room = True
        return _attempt(folder, manifest, turn, limits, tell, make_room)
    except Corrupt as error:
        if hash_file(folder / manifest.archive, ("sha256",))["sha256"] != manifest.sha256:
            return failed(error, f"{manifest.id} is damaged on this machine", retry=False)
        turn.replace = True
        return failed(error, str(error), retry=True)
    except Conflict as error:
        # Without a manifest it is the rest of an upload of ours; with one it is replaced never.
        again = not turn.replace
        turn.replace = True
        return failed(error, str(error), retry=again)
    except StoreBroken as error:
        return failed(error, str(error), retry=error.retry)
    except BackupError as error:
        return failed(error, str(error), retry=False)
    except Exception as error:  # noqa: BLE001 - a surprise of one vendor's must not cost the others
        return failed(error, f"{type(error).__name__} (not foreseen)", retry=True)
    return Result(manifest.id, url, True, attempts=turn.attempts)


def _fits(store: Store, manifest: Manifest) -> None:
    """Refuse what cannot fit before hours are spent on it. Raises `StoreFullError`."""
    room = store.room()
    if room is None or room.free is None or room.free >= manifest.size:
        return
    if not store.list(f"{manifest.id}/{manifest.archive}"):
        free, size = shown(Unit.BYTES, room.free), shown(Unit.BYTES, manifest.size)
        raise StoreFullError(f"{store.url} has {free} free, and {manifest.id} takes {size}")


def _freed(make_room: MakeRoom, store: Store, size: int) -> bool:
    try:
        return make_room(store, size)
    except BackupError:
        return False


def copy(
    folder: Path, manifest: Manifest, store: Store, tell: Tell = nobody, *, replace: bool = False
) -> None:
    """Copy a dump once. It is visible there only when the store vouches for the archive.

    `replace`: what lies there was found to be wrong, and no manifest makes it a dump. Raises
    `StoreBroken`, `NotComplete`; `StoreFullError` before anything is sent, where the store says so.
    """
    if not (folder / MANIFEST).exists():
        raise NotComplete(f"{manifest.id} has no manifest on this machine")
    whole = bool(store.list(f"{manifest.id}/{MANIFEST}"))
    if not whole:
        _fits(store, manifest)
    for file in manifest.files:
        name = f"{manifest.id}/{file}"
        if file == MANIFEST and (wrong := _disowned(store, manifest)):
            raise Corrupt(f"{manifest.archive} in {store.url}: {wrong}")
        store.put(
            folder / file,
            name,
            progress=lambda done, total: tell(f"copy {store.url}", done, total),
            replace=replace and not whole,
        )


def _disowned(store: Store, manifest: Manifest) -> str:
    """Ask the store once more: what `put` compared with was read from the disk only then."""
    return store.check(f"{manifest.id}/{manifest.archive}", manifest.known)
