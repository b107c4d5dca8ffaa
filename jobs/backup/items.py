"""One file of a sync, held small: a sync may have a million of them, each some three times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

_SIZES: Final = {"crc32c": 4, "md5": 16, "sha1": 20, "sha256": 32}
_KINDS: Final = tuple(_SIZES)
_ODD: Final = b"{"


@dataclass(frozen=True, slots=True)
class Item:
    """One file. `modified`: as the source wrote it, whatever its form; "" unknown.

    `digests`: its hashes as `pack` makes them, sha256 among them. `at`: where its bytes are, "" for
    its own name.
    """

    size: int
    modified: str
    digests: bytes = b""
    at: str = ""

    @property
    def hashes(self) -> dict[str, str]:
        """Its hashes in hex by kind."""
        return unpack(self.digests)

    def same(self, other: Item) -> bool:
        """Say whether both are the same content, by the hashes that both have."""
        if self.size != other.size:
            return False
        if self.digests == other.digests:
            return bool(self.digests)
        mine, theirs = self.hashes, other.hashes
        common = mine.keys() & theirs.keys()
        return bool(common) and all(mine[kind] == theirs[kind] for kind in common)

    def also(self, digests: bytes) -> Self:
        """Return it with more hashes, which win over those of the same kind."""
        if not digests or digests == self.digests:
            return self
        merged = pack({**self.hashes, **unpack(digests)}) if self.digests else digests
        return self if merged == self.digests else replace(self, digests=merged)


def pack(hashes: Mapping[str, str]) -> bytes:
    """Return hashes, in hex by kind, as few bytes; equal hashes are equal bytes."""
    made = bytearray()
    for kind in sorted(hashes):
        value = hashes[kind]
        try:
            raw = bytes.fromhex(value)
        except (ValueError, TypeError):
            raw = b""
        if len(raw) != _SIZES.get(kind) or raw.hex() != value:
            return json.dumps(dict(hashes), sort_keys=True).encode()
        made.append(_KINDS.index(kind))
        made += raw
    return bytes(made)


def unpack(digests: bytes) -> dict[str, str]:
    """Return what `pack` was given."""
    if digests.startswith(_ODD):
        return {str(kind): str(value) for kind, value in json.loads(digests).items()}
    found: dict[str, str] = {}
    at = 0
    while at < len(digests):
        kind = _KINDS[digests[at]]
        end = at + 1 + _SIZES[kind]
        found[kind] = digests[at + 1 : end].hex()
        at = end
    return found
