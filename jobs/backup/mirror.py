"""A folder or remote copied to another by rclone, name by name; what it replaces is put aside.

    current/                            as the source is
    versions/000000007-20261121T…/      what the run of that name replaced or removed

rclone is told file by file what to do: what differs is found out here, by size and hash, so that a
run that was cut goes on, and nothing that is there already is sent again. Names travel in lists, in
rclone's own spelling, in which none holds a line break.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jobs.backup.errors import StoreBroken, StoreUnreachable
from jobs.backup.form import Access, Copy
from jobs.backup.ports import Tell
from jobs.backup.snapshots import Item
from jobs.backup.stores.base import Progress
from jobs.backup.stores.rcloning import Rclone

CURRENT: Final = "current"
VERSIONS: Final = "versions"
UNNAMED: Final = "\ufffd"
"""Stands in rclone's spelling of a name for what is not UTF-8: such a file cannot be asked for."""
LINK: Final = ".rclonelink"
"""Ends rclone's spelling of a symbolic link."""
_KINDS: Final = ("sha256", "sha1", "md5")


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

    def files(self, *folders: str, missing_ok: bool = False) -> dict[str, Item]:
        """Return what is in a folder, by path; with the hashes that cost the place nothing.

        One that is not there is empty if `missing_ok`, else it raises `NotFound`.
        """
        asking = () if self._slow else self._asking(self.kinds)
        return self._listed(self.at(*folders), *asking, missing_ok=missing_ok)

    def hashes(
        self, paths: Collection[str], kinds: Collection[str], *folders: str
    ) -> dict[str, dict[str, str]]:
        """Return hashes of those files; where the place knows none of `kinds`, they are read.

        A file that cannot be read is left out.
        """
        if not paths:
            return {}
        known = [kind for kind in kinds if kind in self.kinds]
        with self._names(paths) as names:
            if known:
                asking = (*self._asking(known), "--files-from-raw", names)
                found = self._listed(self.at(*folders), *asking)
                return {path: dict(one.hashes) for path, one in found.items() if one.hashes}
            kind = "sha256"
            argv = ("hashsum", kind, "--download", self.at(*folders), "--files-from-raw", names)
            out = self._rclone.run(*argv, many=True) or b""
        lines = (line.partition("  ") for line in out.decode(errors="replace").splitlines())
        return {path: {kind: value} for value, _, path in lines if len(value) == 64}  # noqa: PLR2004

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

    def _listed(self, at: str, *more: str, missing_ok: bool = False) -> dict[str, Item]:
        args = ("lsjson", at, "--recursive", "--files-only", "--no-mimetype", *more)
        some = "--files-from-raw" in more
        out = self._rclone.run(
            *args, *(() if some else ("--links",)), missing_ok=missing_ok, many=some
        )
        if out is None:
            return {}
        try:
            found = json.loads(out)
        except ValueError:
            raise StoreUnreachable(
                f"{self.url}: rclone listed it in no form that we know"
            ) from None
        return {str(one["Path"]): _item(one) for one in found}

    @contextmanager
    def _names(self, paths: Iterable[str]) -> Iterator[str]:
        """Write a list of names for rclone; none holds a line break in its spelling."""
        with tempfile.NamedTemporaryFile("w", dir=self._private, suffix=".names") as file:
            file.writelines(f"{path}\n" for path in sorted(paths))
            file.flush()
            yield file.name


def _item(one: Mapping[str, Any]) -> Item:
    hashes = {k.lower(): v for k, v in (one.get("Hashes") or {}).items() if v}
    known = {kind: hashes[kind] for kind in _KINDS if kind in hashes}
    return Item(int(one.get("Size", -1)), str(one.get("ModTime", "")), known)


def access_of(*copies: Copy) -> Access:
    """Return what opens both sides: of a remote, if there is one."""
    return next((c.access for c in copies if c.target.scheme == "rclone"), copies[0].access)


def telling(tell: Tell, step: str) -> Progress:
    """Return a `Progress` that tells of a step."""
    return lambda done, total: tell(step, done, total)
