"""What every store of copies can do, and how bytes on the way are counted and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from jobs.backup.targets import safe

CHUNK: Final = 1024 * 1024
PART: Final = ".aion-part"
"""Ends the name of what is still being uploaded; never listed."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, often; it may raise to give up."""


def silent(done: int, total: int) -> None:
    """Report nothing: a `Progress`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store.

    `name`: relative to the store's address. `modified`: Unix seconds by the store's clock.
    `hashes`: those the store itself vouches for, in hex, by kind (md5, sha1, sha256, crc32c).
    """

    name: str
    size: int
    modified: float
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a store; None where it does not say."""

    total: int | None
    used: int | None
    free: int | None


class Store(Protocol):
    """A place that holds copies. Everything raises `StoreBroken` or one of its kinds.

    Names are paths relative to the store's address, in the grammar of `targets.safe`; any other
    raises ValueError before anything is asked. Nothing outside the address is touched or listed.
    """

    url: str

    def list(self, prefix: str = "") -> list[Entry]:
        """Return all objects whose name begins with `prefix`, by name; [] if there are none.

        Uploads that are not complete and names outside the grammar are left out. An address that
        does not exist yet is empty; one that cannot be read raises.
        """
        ...

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        """Upload a file, checked against the store's own hash; nothing shows before it is whole.

        Goes on where an earlier attempt for the same file was cut, where the store can. The same
        content there already is success. Other content under that name raises `Conflict`, unless
        `replace`. Raises `Corrupt` when the store holds something else afterwards.
        """
        ...

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        """Download to `local`, which appears only when it is whole. Raises `NotFound`."""
        ...

    def read(self, name: str, most: int) -> bytes:
        """Return a small object. Raises `NotFound`; `StoreBroken` if it is longer than `most`."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is deleted already."""
        ...

    def room(self) -> Room | None:
        """Return how much fits; None if the store cannot say."""
        ...

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        """Compare with the store's own hash: "" if it agrees, else why not, in one line.

        A store without a hash of any kind in `hashes` reads the object to compute one.
        """
        ...

    def close(self) -> None:
        """Remove secrets from the disk; the store is not used again."""
        ...


def digests(kinds: Collection[str]) -> dict[str, Any]:
    """Return empty digests (`update`, `hexdigest`) of those kinds."""
    made: dict[str, Any] = {}
    for kind in kinds:
        if kind == "crc32c":
            from google_crc32c import Checksum  # noqa: PLC0415 - a vendor's, only where asked for

            made[kind] = _Crc32c(Checksum())  # type: ignore[no-untyped-call]  # it has no types
        else:
            made[kind] = hashlib.new(kind, usedforsecurity=kind.startswith("sha256"))
    return made


class _Crc32c:
    """google_crc32c's checksum with the one method more that hashlib's have."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def update(self, data: bytes) -> None:
        self._inner.update(data)

    def hexdigest(self) -> str:
        return bytes(self._inner.digest()).hex()


def hash_file(path: Path, kinds: Collection[str]) -> dict[str, str]:
    """Return the hashes of a local file, in hex, by kind; one pass, 1 MB of memory."""
    made = digests(kinds)
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            for digest in made.values():
                digest.update(piece)
    return {kind: digest.hexdigest() for kind, digest in made.items()}


def disagreement(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """Compare hashes of common kinds: "" if all agree, why not, or None without a common kind."""
    common = sorted(found.keys() & wanted.keys())
    if not common:
        return None
    wrong = [kind for kind in common if found[kind].lower() != wanted[kind].lower()]
    if not wrong:
        return ""
    kind = wrong[0]
    return f"its {kind} is {found[kind][:16]}… and not {wanted[kind][:16]}…"


def checked(name: str) -> str:
    """Return `name` if it is in the grammar. Raises ValueError: a caller's mistake."""
    if not safe(name) or name.endswith(PART):
        raise ValueError(f"no name for an object: {name[:60]!r}")
    return name


def first_line(error: BaseException | str, most: int = 200) -> str:
    """Return the first line of what a vendor says, printable and cut."""
    lines = str(error).strip().splitlines() or [""]
    return "".join(c if c.isprintable() else "?" for c in lines[0])[:most]
