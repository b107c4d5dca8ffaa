"""Copies on any remote that rclone knows: Google Drive first.

Where a remote can rename, an upload goes to a temporary name first: then a half of it never
shows, whatever the remote does with what was cut. Object stores cannot rename, and show only whole
objects.
rclone cannot go on with a file that was cut when the process was killed: it is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jobs.backup.errors import (
    Conflict,
    Corrupt,
    CredentialRefused,
    NoRoom,
    NotFound,
    StoreBroken,
    StoreFullError,
    StoreUnreachable,
)
from jobs.backup.form import Access
from jobs.backup.stores.base import (
    PART,
    Entry,
    Progress,
    Room,
    checked,
    disagreement,
    hash_file,
    silent,
)
from jobs.backup.stores.rcloning import Rclone
from jobs.backup.targets import Target, safe

KINDS: Final = ("sha256", "sha1", "md5")  # the best first


def make(target: Target, access: Access, private: Path) -> RcloneStore:
    """Return the store; `ToolMissing` if there is no rclone."""
    return RcloneStore(target, access, private)


class RcloneStore:
    """A path on a remote. Drive of rclone 1.60 knows md5 only; `crypt` knows no hash at all."""

    def __init__(self, target: Target, access: Access, private: Path) -> None:
        self.url = target.url
        self._root = f"{target.place}:"
        self._path = target.path
        self._rclone = Rclone(target.url, access, private)

    def list(self, prefix: str = "") -> list[Entry]:
        folder = prefix.rpartition("/")[0]
        if folder:
            checked(folder)
        args = [self._at(folder), "--recursive", "--files-only", "--no-mimetype"]
        slow = self._features["Features"].get("SlowHash", False)

        def ours(all_: Iterable[Any]) -> list[Entry]:
            found = (self._entry(one, folder) for one in all_)
            return [e for e in found if e.name.startswith(prefix) and _ours(e.name)]

        asking = () if slow else self._asking(KINDS)
        found = self._rclone.listing(ours, *args, *asking, missing_ok=True) or []
        return sorted(found, key=lambda entry: entry.name)

    def put(
        self, local: Path, name: str, *, progress: Progress = silent, replace: bool = False
    ) -> Entry:
        size = local.stat().st_size
        hashes = hash_file(local, self._kinds[:1] or ("sha256",))
        there = self._stat(checked(name))
        if there is not None:
            if there.size == size and not self.check(name, hashes):
                return Entry(name, size, there.modified, hashes)
            if not replace:
                raise Conflict(f"{self.url} has another {name} already")
        temporary = name + PART if self._renames else name
        flags = ["--inplace"] if self._partials and self._renames else []
        # Else what has the same size and second is the same to rclone, whatever is in it.
        flags.append("--ignore-times")
        args = ("copyto", str(local.absolute()), self._at(temporary), *flags)
        self._rclone.run(*args, progress=progress, total=size)
        self._verify(temporary, size, hashes)
        if temporary != name:
            self._rclone.run("moveto", self._at(temporary), self._at(name), "--ignore-times")
        entry = self._stat(name)
        if entry is None or entry.size != size or disagreement(entry.hashes, hashes):
            raise Corrupt(f"{self.url}: {name} is not what was uploaded")
        progress(size, size)
        return Entry(name, size, entry.modified, {**hashes, **entry.hashes})

    def get(self, name: str, local: Path, *, progress: Progress = silent) -> None:
        entry = self._stat(checked(name))
        if entry is None:
            raise NotFound(f"{self.url} has no {name}")
        part = local.absolute().with_name(local.name + PART)
        flags = ["--inplace"] if self._partials else []
        args = ("copyto", self._at(name), str(part), "--ignore-times", *flags)
        try:
            self._rclone.run(*args, progress=progress, total=entry.size)
            part.chmod(0o600)
            part.replace(local)
        except StoreFullError as error:
            raise NoRoom(f"{local.parent} has no room for {name} ({error})") from None
        finally:
            part.unlink(missing_ok=True)
        progress(entry.size, entry.size)

    def read(self, name: str, most: int) -> bytes:
        # First: `cat` of what is a folder, or of nothing on an object store, is no error to rclone.
        entry = self._stat(checked(name))
        if entry is None:
            raise NotFound(f"{self.url} has no {name}")
        data = self._rclone.run("cat", "--count", str(most + 1), self._at(name)) or b""
        if len(data) > most:
            raise StoreBroken(f"{name} in {self.url} is longer than {most} bytes")
        return data

    def delete(self, name: str) -> None:
        self._delete(checked(name))
        if self._renames:
            self._delete(name + PART)

    def room(self) -> Room | None:
        if not self._features["Features"].get("About"):
            return None
        try:
            found = _json(self._rclone.run("about", "--json", self._root), self.url)
        except (StoreUnreachable, CredentialRefused, NotFound):
            return None  # an SFTP server without a shell, say: a copy is no worse for it
        if not isinstance(found, dict):
            return None
        said = (found.get(key) for key in ("total", "used", "free"))
        return Room(*(max(0, one) if isinstance(one, int) else None for one in said))

    def check(self, name: str, hashes: Mapping[str, str]) -> str:
        return self._check(checked(name), hashes)

    def close(self) -> None:
        self._rclone.close()

    # ── how it is done ──────────────────────────────────────────────────────────────────────────

    def _check(self, name: str, hashes: Mapping[str, str], size: int | None = None) -> str:
        common = [kind for kind in self._kinds if kind in hashes]
        entry = self._stat(name, common)
        if entry is None:
            raise NotFound(f"{self.url} has no {name}")
        if size is not None and entry.size != size:
            return f"it has {entry.size} bytes and not {size}"
        wrong = disagreement(entry.hashes, hashes)
        if wrong is not None:
            return wrong
        kind = next((kind for kind in KINDS if kind in hashes), None)
        if kind is None:
            return "there is no hash to compare with"
        out = self._rclone.run("hashsum", kind, "--download", self._at(name)) or b""
        found = out.decode(errors="replace").split(maxsplit=1)[:1]
        return disagreement({kind: found[0] if found else ""}, hashes) or ""

    def _verify(self, name: str, size: int, hashes: Mapping[str, str]) -> None:
        wrong = self._check(name, hashes, size)
        if wrong:
            self._delete(name)
            raise Corrupt(f"{self.url}: what was uploaded as {name} is not what was sent: {wrong}")

    def _stat(self, name: str, kinds: Sequence[str] | None = None) -> Entry | None:
        asking = self._asking(self._kinds[:1] if kinds is None else kinds)
        args = ("lsjson", "--stat", self._at(name), "--no-mimetype", *asking)
        found = _json(self._rclone.run(*args, missing_ok=True), self.url)
        if not isinstance(found, dict) or found.get("IsDir"):
            return None
        return self._entry({**found, "Path": name}, "")

    def _delete(self, name: str) -> None:
        self._rclone.run("deletefile", self._at(name), "--retries", "1", missing_ok=True)

    def _entry(self, one: Mapping[str, Any], folder: str) -> Entry:
        try:
            path = f"{folder}/{one['Path']}" if folder else str(one["Path"])
            hashes = {k.lower(): v for k, v in (one.get("Hashes") or {}).items() if v}
            size = int(one.get("Size", -1))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
            raise _senseless(self.url) from None
        known = {kind: hashes[kind] for kind in KINDS if kind in hashes}
        try:
            modified = datetime.fromisoformat(str(one.get("ModTime"))).timestamp()
        except ValueError:
            modified = 0.0
        return Entry(path, size, modified, known)

    def _asking(self, kinds: Sequence[str]) -> Sequence[str]:
        known = [kind for kind in kinds if kind in self._kinds]
        flags = [flag for kind in known for flag in ("--hash-type", kind)]
        return ["--hash", *flags] if flags else []

    def _at(self, name: str) -> str:
        return self._root + "/".join(part for part in (self._path, name) if part)

    @cached_property
    def _features(self) -> dict[str, Any]:
        found = _json(self._rclone.run("backend", "features", self._root), self.url)
        if not isinstance(found, dict) or not isinstance(found.get("Features"), dict):
            raise StoreUnreachable(f"{self.url}: rclone says nothing of what it can do")
        return found

    @property
    def _kinds(self) -> tuple[str, ...]:
        there = {str(kind).lower() for kind in self._features.get("Hashes") or ()}
        return tuple(kind for kind in KINDS if kind in there)

    @property
    def _renames(self) -> bool:
        return bool(self._features["Features"].get("Move"))

    @property
    def _partials(self) -> bool:
        """Whether this rclone (1.63 or newer) has temporary names of its own: ours are enough."""
        return "PartialUploads" in self._features["Features"]


def _ours(name: str) -> bool:
    return safe(name) and not name.endswith(PART)


def _json(out: bytes | None, url: str) -> Any:
    if out is None:
        return None
    try:
        return json.loads(out)
    except ValueError:
        raise _senseless(url) from None


def _senseless(url: str) -> StoreUnreachable:
    return StoreUnreachable(f"{url}: rclone answered in no form that we know: is it an rclone?")
