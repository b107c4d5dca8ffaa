"""Uploads that are under way, remembered so that another process can go on with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from jobs.backup.codec import Coded
from jobs.backup.stores.landing import landing


@dataclass(frozen=True, slots=True)
class Upload(Coded):
    """One upload. `session` is a secret: whoever has that address can write the object.

    `size`, `crc32c`: of the local file; `generation`: of the object it replaces, 0 for none.
    """

    session: str = field(repr=False)
    size: int
    crc32c: str
    generation: int


class Uploads:
    """A private folder with a file for each upload under way."""

    def __init__(self, private: Path, url: str) -> None:
        self._folder, self._url = private / "uploads", url

    def find(self, name: str) -> Upload | None:
        """Return what is known of the upload of `name`; None if nothing, or nothing readable."""
        try:
            return Upload.from_json(json.loads(self._path(name).read_bytes()))
        except (OSError, ValueError):
            return None

    def keep(self, name: str, upload: Upload) -> None:
        """Remember; durable when this returns."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with landing(self._path(name)) as file:
            file.write(json.dumps(upload.to_json()).encode())

    def forget(self, name: str) -> None:
        """Forget the upload of `name`."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        key = hashlib.sha256(f"{self._url}\n{name}".encode()).hexdigest()[:32]
        return self._folder / f"{key}.json"
