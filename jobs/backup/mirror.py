"""A folder or remote copied to another by rclone, name by name; what it replaces is put aside.

    current/                            as the source is
    versions/000000007-20261121T…/      what the run of that name replaced or removed

rclone is told file by file what to do: what differs is found out here, by size and hash, so that a
run that was cut goes on, and nothing that is there already is sent again. Names travel in lists, in
rclone's own spelling, in which none holds a line break.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jobs.backup.errors import StoreBroken, StoreUnreachable
from jobs.backup.flowing import LONGEST, PIECE
from jobs.backup.form import Access, Copy
from jobs.backup.items import Item, pack
from jobs.backup.ports import Tell
from jobs.backup.stores.base import Progress
from jobs.backup.stores.rcloning import Rclone, Read

CURRENT: Final = "current"
VERSIONS: Final = "versions"
UNNAMED: Final = "\ufffd"
"""Stands in rclone's spelling of a name for what is not UTF-8: such a file cannot be asked for."""
LINK: Final = ".rclonelink"
"""Ends rclone's spelling of a symbolic link."""
_KINDS: Final = ("sha256", "sha1", "md5")
_LISTED: Final = ("--recursive", "--files-only", "--no-mimetype")
_SHA256: Final = len(pack({"sha256": "0" * 64}))
_NONE: Final[Mapping[str, Item]] = {}


def _all(_: str) -> bool:
    return True


class Tree:
    """All files under one address, `file:` or `rclone:`, as rclone sees them."""

    def __init__(self, url: str, root: str, rclone: Rclone, private: Path) -> None:
        self.url, self.root, self._rclone, self._private = url, root, rclone, private
        self._remote = "/" if root.startswith("/") else root.partition(":")[0] + ":"

    @classmethod
    def of(cls, copy: Copy, rclone: Rclone, private: Path) -> Tree:
        """Return the tree at a place of a sync."""
        target = copy.target
        root = f"/{target.path}" if target.scheme == "file" else f"{target.place}:{target.path}"
        return cls(target.url, root, rclone, private)

    @classmethod
    def local(cls, base: Path, rclone: Rclone, private: Path) -> Tree:
        """Return the tree in a folder of this machine."""
        return cls(f"file:{base}", str(base.absolute()), rclone, private)

    def at(self, *folders: str) -> str:
        """Return a folder of it in rclone's form."""
        root = self.root if self.root.endswith(":") else f"{self.root}/"
        return (root + "/".join(folders)).rstrip("/") if folders else self.root

    def files(
        self,
        *folders: str,
        missing_ok: bool = False,
        wanted: Callable[[str], bool] = _all,
        known: Mapping[str, Item] = _NONE,
        times: bool = False,
    ) -> dict[str, Item]:
        """Return what is in a folder, by path; with the hashes that cost the place nothing.

        Only paths that are `wanted`; an item that is as the one `known` is that one, with all its
        hashes. `times`: whether anybody asks when they were modified. A folder that is not there is
        empty if `missing_ok`, else it raises `NotFound`.
        """

        def take(entries: Iterable[Any]) -> dict[str, Item]:
            found: dict[str, Item] = {}
            for path, one in map(_item, entries):
                if wanted(path):
                    item = one if times else Item(one.size, "", one.digests)
                    found[path] = _shared(item, known.get(path))
            return found

        asking = () if self._slow else self._asking(self.kinds)
        args = (*_LISTED, *asking, "--links")
        return self._rclone.listing(take, self.at(*folders), *args, missing_ok=missing_ok) or {}

    def hashes(
        self, paths: Collection[str], kinds: Collection[str], *folders: str
    ) -> dict[str, bytes]:
        """Return hashes of those files, as `pack` makes them.

        Where the place knows none of `kinds`, they are read; one that cannot be is left out.
        """
        if not paths:
            return {}
        known = [kind for kind in kinds if kind in self.kinds]
        with self._names(paths) as names:
            if known:
                args = (*_LISTED, *self._asking(known), "--files-from-raw", names)
                found = self._rclone.listing(
                    _digests, self.at(*folders), *args, missing_ok=False, many=True
                )
            else:
                argv = ("--download", self.at(*folders), "--files-from-raw", names)
                found = self._rclone.flow(_hashed, "hashsum", "sha256", *argv, many=True)
        return found or {}

    def copy(
        self,
        paths: Collection[str],
        source: str,
        *folders: str,
        aside: str = "",
        progress: Progress,
        total: int,
    ) -> StoreBroken | None:
        """Copy files from rclone's `source` to here; what one replaces goes to `aside`.

        Returns why some may not have been copied.
        """
        with self._names(paths) as names:
            args = ["copy", source, self.at(*folders), "--files-from-raw", names]
            args += ["--ignore-checksum"]  # each is compared with what was hashed, by the caller
            args += ["--ignore-times", "--no-check-dest"] if not aside else ["--ignore-times"]
            args += ["--backup-dir", aside] if aside else []
            self._rclone.run(*args, progress=progress, total=total, many=True)
        return self._rclone.partial

    def move(self, paths: Collection[str], to: str, *folders: str) -> None:
        """Move files to rclone's `to`, of the same place. Raises `StoreBroken`."""
        self._each("move", paths, *folders, to=to)

    def delete(self, paths: Collection[str], *folders: str) -> None:
        """Delete files. Raises `StoreBroken`."""
        self._each("delete", paths, *folders)

    def prune(self, *folders: str) -> None:
        """Delete a folder that holds nothing but empty ones; one that is not there is gone."""
        self._rclone.run("rmdirs", self.at(*folders), missing_ok=True)

    def folders(self, *folders: str) -> list[str]:
        """Return the names of the folders in one."""
        out = self._rclone.run("lsf", "--dirs-only", self.at(*folders), missing_ok=True) or b""
        return [line.rstrip("/") for line in out.decode(errors="replace").splitlines()]

    def purge(self, *folders: str) -> None:
        """Delete a folder with all that is in it."""
        self._rclone.run("purge", self.at(*folders), missing_ok=True)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The hashes that the place knows, the best first."""
        there = {str(kind).lower() for kind in self._features.get("Hashes") or ()}
        return tuple(kind for kind in _KINDS if kind in there)

    @property
    def _slow(self) -> bool:
        """Whether a hash costs the place as much as reading the file."""
        return bool(self._features["Features"].get("SlowHash", False))

    @cached_property
    def _features(self) -> dict[str, Any]:
        out = self._rclone.run("backend", "features", self._remote)
        try:
            found = json.loads(out or b"")
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("Features"), dict):
            raise StoreUnreachable(f"{self.url}: rclone says nothing of what it can do")
        return found

    def _each(self, verb: str, paths: Collection[str], *folders: str, to: str = "") -> None:
        if not paths:
            return
        with self._names(paths) as names:
            args = [verb, self.at(*folders), *([to] if to else [])]
            self._rclone.run(*args, "--files-from-raw", names, many=True)
        if self._rclone.partial is not None:
            raise self._rclone.partial

    def _asking(self, kinds: Iterable[str]) -> tuple[str, ...]:
        flags = tuple(flag for kind in kinds for flag in ("--hash-type", kind))
        return ("--hash", *flags) if flags else ()

    @contextmanager
    def _names(self, paths: Iterable[str]) -> Iterator[str]:
        """Write a list of names for rclone; none holds a line break in its spelling."""
        with tempfile.NamedTemporaryFile("w", dir=self._private, suffix=".names") as file:
            file.writelines(f"{path}\n" for path in sorted(paths))
            file.flush()
            yield file.name


def _item(one: Any) -> tuple[str, Item]:
    """Read an entry of rclone's listing. Raises ValueError."""
    try:
        hashes = {k.lower(): v for k, v in (one.get("Hashes") or {}).items() if v}
        known = {kind: hashes[kind] for kind in _KINDS if kind in hashes}
        size, modified = int(one.get("Size", -1)), str(one.get("ModTime", ""))
        return sys.intern(str(one["Path"])), Item(size, modified, pack(known))
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError):
        raise ValueError("an entry is no file") from None


def _shared(item: Item, before: Item | None) -> Item:
    """Return the one that is known, where it says the same and as much: it is held already."""
    if before is None or (before.size, before.modified) != (item.size, item.modified):
        return item
    same = not item.digests or before.same(item)
    return before if same and before.also(item.digests) is before else item


def _digests(entries: Iterable[Any]) -> dict[str, bytes]:
    return {path: item.digests for path, item in map(_item, entries) if item.digests}


def _hashed(read: Read) -> dict[str, bytes]:
    """Read lines of `hashsum`: a SHA-256 in hex, two spaces, a path."""
    found: dict[str, bytes] = {}
    rest = b""
    while piece := read(PIECE):
        *lines, rest = (rest[:LONGEST] + piece).split(b"\n")
        for line in lines:
            value, _, path = line.decode(errors="replace").partition("  ")
            digests = pack({"sha256": value})
            if path and len(digests) == _SHA256:
                found[sys.intern(path)] = digests
    return found


def access_of(*copies: Copy) -> Access:
    """Return what opens both sides: of a remote, if there is one."""
    return next((c.access for c in copies if c.target.scheme == "rclone"), copies[0].access)


def telling(tell: Tell, step: str) -> Progress:
    """Return a `Progress` that tells of a step."""
    return lambda done, total: tell(step, done, total)
