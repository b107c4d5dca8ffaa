"""What a sync left in a place at one time: every file with its size and SHA-256.

manifests/000000007-20261121T030000Z.json.zst      written when all of it is there and verified
"""

from __future__ import annotations

import io
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from jobs.backup.errors import BadManifest, Corrupt
from jobs.backup.flowing import Flow
from jobs.backup.form import Copy
from jobs.backup.items import Item, pack
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

        out = io.BytesIO()
        made = zstandard.ZstdCompressor(level=3, write_checksum=True)
        with made.stream_writer(out, closefd=False) as writer:
            for text in self._texts():
                writer.write(text.encode())
        return out.getvalue()

    def _texts(self) -> Iterator[str]:
        head = {
            "format": FORMAT,
            "id": self.id,
            "created_at": self.created_at.isoformat(),
            "source": self.source,
            "form": self.form,
        }
        yield _json(head)[:-1]
        for key, items in (("items", self.items), ("packs", self.packs)):
            yield f',"{key}":{{'
            comma = ""
            for path in sorted(items):
                one = items[path]
                yield f"{comma}{_json(path)}:{_json([one.size, one.modified, one.hashes, one.at])}"
                comma = ","
            yield "}"
        yield "}"

    @classmethod
    def load(cls, data: bytes, name: str, *, items: bool = True) -> Self:
        """Read the snapshot that is called `name`; its items only if asked. Raises `BadManifest`.

        It is read piece by piece: as text it may be ten times what is kept of it.
        """
        import zstandard  # noqa: PLC0415 - as above

        held: dict[str, dict[str, Item]] = {"items": {}, "packs": {}}
        value: dict[str, Any] = {}
        try:
            flow = Flow(zstandard.ZstdDecompressor().stream_reader(data).read, MOST)
            for key in flow.members():
                flow.key()
                if key in held:
                    _take(flow, held[key], keep=items or key == "packs")
                    value[key] = held[key]
                else:
                    value[key] = flow.value()
                if key == "format" and value[key] > FORMAT:
                    raise BadManifest(f"{name} was written by a newer aion: use that version")
            flow.end()
            made = datetime.fromisoformat(value["created_at"])
            source, form = str(value["source"]), str(value["form"])
            found = cls(value["id"], made, source, form, value["items"], value["packs"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
            raise BadManifest(f"{name} cannot be read") from None
        except zstandard.ZstdError:
            raise BadManifest(f"{name} cannot be decompressed") from None
        if found.id != name or made.tzinfo is None:
            raise BadManifest(f"{name} belongs to another time")
        return found


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _take(flow: Flow, to: dict[str, Item], *, keep: bool) -> None:
    for path in flow.members():
        flow.key()
        one = flow.value()
        if keep:
            made = Item(int(one[0]), str(one[1]), pack(dict(one[2])), sys.intern(str(one[3])))
            to[sys.intern(path)] = made


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


def read(store: Store, name: str, cache: Path | None = None, *, items: bool = True) -> Snapshot:
    """Read one, with its items only if asked. Raises `BadManifest`, `StoreBroken`."""
    known = cache / (name + _SUFFIX) if cache else None
    if known is not None and known.exists():
        size = next((e.size for e in store.list(name + _SUFFIX)), -1)
        if size == known.stat().st_size:
            return Snapshot.load(known.read_bytes(), name, items=items)
    with tempfile.TemporaryDirectory(prefix="aion-snapshot-", dir=cache) as folder:
        local = Path(folder, "it")
        store.get(name + _SUFFIX, local)
        return Snapshot.load(local.read_bytes(), name, items=items)


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
