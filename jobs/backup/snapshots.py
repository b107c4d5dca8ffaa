"""What a sync left in a place at one time: every file with its size and SHA-256.

manifests/000000007-20261121T030000Z.json.zst      written when all of it is there and verified
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from jobs.backup.errors import BadManifest, Corrupt
from jobs.backup.form import Copy
from jobs.backup.ports import Clock
from jobs.backup.stores.base import Store, hash_file
from jobs.backup.stores.landing import landing
from jobs.backup.targets import Target

FORMAT: Final = 1
FOLDER: Final = "manifests"
MOST: Final = 1_000_000_000
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"([0-9]{9})-([0-9]{8}T[0-9]{6}Z)")
_SUFFIX: Final = ".json.zst"


@dataclass(frozen=True, slots=True)
class Item:
    """One file. `modified`: as the source wrote it, whatever its form; "" unknown.

    `hashes` in hex by kind, `sha256` among them. `at`: where its bytes are, "" for its own name.
    """

    size: int
    modified: str
    hashes: Mapping[str, str] = field(default_factory=dict)
    at: str = ""

    def same(self, other: Item) -> bool:
        """Say whether both are the same content, by the hashes that both have."""
        common = self.hashes.keys() & other.hashes.keys()
        agree = all(self.hashes[kind] == other.hashes[kind] for kind in common)
        return self.size == other.size and bool(common) and agree


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files of a sync in one place, by path. `id` names it, and what it put aside.

    `packs`: the files that hold the items' bytes, where these do not lie by their own names.
    """

    id: str
    created_at: datetime
    source: str
    form: str
    items: Mapping[str, Item]
    packs: Mapping[str, Item] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        """Its number: it orders snapshots, whatever the clock says."""
        return int(self.id[:9])

    def dump(self) -> bytes:
        """Return the file's bytes."""
        import zstandard  # noqa: PLC0415 - only where there are syncs

        value = {
            "format": FORMAT,
            "id": self.id,
            "created_at": self.created_at.isoformat(),
            "source": self.source,
            "form": self.form,
            "items": _plain(self.items),
            "packs": _plain(self.packs),
        }
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(
            json.dumps(value, separators=(",", ":")).encode()
        )

    @classmethod
    def load(cls, data: bytes, name: str) -> Self:
        """Read the snapshot that is called `name`. Raises `BadManifest`."""
        import zstandard  # noqa: PLC0415 - as above

        try:
            text = zstandard.ZstdDecompressor().stream_reader(data).read(MOST)
            value = json.loads(text)
            if value["format"] > FORMAT:
                raise BadManifest(f"{name} was written by a newer aion: use that version")
            items, packs = _items(value["items"]), _items(value["packs"])
            made = datetime.fromisoformat(value["created_at"])
            found = cls(value["id"], made, str(value["source"]), str(value["form"]), items, packs)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise BadManifest(f"{name} cannot be read") from None
        except zstandard.ZstdError:
            raise BadManifest(f"{name} cannot be decompressed") from None
        if found.id != name or made.tzinfo is None:
            raise BadManifest(f"{name} belongs to another time")
        return found


def _plain(items: Mapping[str, Item]) -> dict[str, Any]:
    return {
        path: [one.size, one.modified, dict(one.hashes), one.at]
        for path, one in sorted(items.items())
    }


def _items(value: Mapping[str, Any]) -> dict[str, Item]:
    return {
        str(path): Item(int(one[0]), str(one[1]), dict(one[2]), str(one[3]))
        for path, one in value.items()
    }


def new_id(sequence: int, clock: Clock) -> str:
    """Name a snapshot."""
    return f"{sequence:09d}-{datetime.fromtimestamp(clock.wall(), UTC).strftime(_STAMP)}"


def within(copy: Copy, folder: str) -> Copy:
    """Return the place `folder` in another place, opened with the same credentials."""
    path = f"{copy.target.path}/{folder}" if copy.target.path else folder
    return replace(copy, target=Target(copy.target.scheme, copy.target.place, path))


def listed(store: Store) -> list[str]:
    """Return the snapshots of a place (`within(…, FOLDER)`), the newest first."""
    names = (one.name.removesuffix(_SUFFIX) for one in store.list() if one.name.endswith(_SUFFIX))
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def is_id(name: str) -> bool:
    """Say whether a folder is named as a snapshot is."""
    return _NAME.fullmatch(name) is not None


def read(store: Store, name: str, cache: Path | None = None) -> Snapshot:
    """Read one. Raises `BadManifest`, `StoreBroken`."""
    known = cache / (name + _SUFFIX) if cache else None
    if known is not None and known.exists():
        size = next((e.size for e in store.list(name + _SUFFIX)), -1)
        if size == known.stat().st_size:
            return Snapshot.load(known.read_bytes(), name)
    with tempfile.TemporaryDirectory(prefix="aion-snapshot-", dir=cache) as folder:
        local = Path(folder, "it")
        store.get(name + _SUFFIX, local)
        return Snapshot.load(local.read_bytes(), name)


def write(store: Store, made: Snapshot, cache: Path) -> None:
    """Put a snapshot into its place. Raises `StoreBroken`."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    local = cache / (made.id + _SUFFIX)
    with landing(local) as file:
        file.write(made.dump())
    store.put(local, local.name)
    if wrong := store.check(local.name, hash_file(local, ("sha256", "md5"))):
        raise Corrupt(f"{local.name} in {store.url}: {wrong}")
    for old in cache.glob(f"*{_SUFFIX}"):
        if old != local:
            old.unlink(missing_ok=True)


def remembered(cache: Path) -> bool:
    """Say whether this machine has put a snapshot into that place before."""
    return any(cache.glob(f"*{_SUFFIX}"))


def drop(store: Store, name: str) -> None:
    """Delete a snapshot's manifest."""
    store.delete(name + _SUFFIX)


def at(names: Iterable[str], when: datetime | None) -> str | None:
    """Return the newest of `names` that is not after `when` by its own stamp; None: none is."""
    for name in sorted(names, reverse=True):
        made = datetime.strptime(name[10:], _STAMP).replace(tzinfo=UTC)
        if when is None or made <= when:
            return name
    return None
