"""Files of a folder, a remote or a store, laid out on this machine to be packed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.backup.errors import NotFound
from jobs.backup.form import Plan, Sync
from jobs.backup.items import Item, pack
from jobs.backup.mirror import UNNAMED, Tree, telling
from jobs.backup.pipeline import check_room
from jobs.backup.stores.base import Store
from jobs.backup.stores.landing import broken
from jobs.backup.stores.rcloning import Rclone

if TYPE_CHECKING:
    from jobs.backup.run import Ports

_QUOTE: Final = "\u201b"
_SPELLED: Final = re.compile(f"[{_QUOTE}\u2400-\u2421]")
Batch = tuple[Path, Sequence[str]]
"""A folder of this machine, and the files in it that are meant."""


@dataclass(slots=True)
class Source:
    """What there is. `found`: by path. `vanished`: what is known to have changed since.

    Here it is a folder of this machine.
    """

    url: str
    base: Path
    found: Mapping[str, Item]
    problems: list[str] = field(default_factory=list)
    vanished: set[str] = field(default_factory=set)

    def batches(self, paths: Sequence[str], most: int) -> Iterator[Batch]:
        """Yield files in groups of at most `most` bytes, or of one that is larger."""
        for group in groups(self.found, paths, most):
            yield self.base, group

    def unchanged(self, path: str, seen: os.stat_result) -> bool:
        """Say whether a file that was just read is still what was listed."""
        return _stamp(seen) == self.found[path].modified


def _stamp(seen: os.stat_result) -> str:
    return f"{seen.st_mtime_ns}-{seen.st_ctime_ns}-{seen.st_ino}"


def groups(found: Mapping[str, Item], paths: Sequence[str], most: int) -> Iterator[list[str]]:
    """Group paths by the bytes they hold."""
    group: list[str] = []
    size = 0
    for path in paths:
        if group and size + found[path].size > most:
            yield group
            group, size = [], 0
        group.append(path)
        size += found[path].size
    if group:
        yield group


@contextmanager
def gathered(plan: Plan, one: Sync, ports: Ports, known: Mapping[str, Item]) -> Iterator[Source]:
    """List a source, and bring its files here as they are asked for. Raises `StoreBroken`.

    `known`: what there was, whose times are shared with what is still so.
    """
    target = one.source.target
    if target.scheme == "file":
        base = Path("/" + target.path)
        yield Source(target.url, base, _walked(base, known))
        return
    with tempfile.TemporaryDirectory(dir=plan.spool, prefix="rehash-") as name:
        if target.scheme == "rclone":
            rclone = Rclone(target.url, one.source.access, Path(name))
            try:
                yield _Remote.of(plan, one, rclone, Path(name), ports)
            finally:
                rclone.close()
            return
        from jobs.backup.run import store_folder  # noqa: PLC0415 - that one imports this

        store = ports.open_store(target, one.source.access, store_folder(plan, one.source, "sync"))
        try:
            yield _Stored.of(plan, store, Path(name), ports)
        finally:
            store.close()


def _walked(base: Path, known: Mapping[str, Item]) -> dict[str, Item]:
    """Return the files and links under a folder; a folder that cannot be read raises."""
    if not base.is_dir():
        raise NotFound(f"file:{base} is not there, or no folder")
    found: dict[str, Item] = {}
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            for path, seen in _children(base, inner):
                if stat.S_ISDIR(seen.st_mode):
                    waiting.append(f"{path}/")
                elif stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode):
                    size = seen.st_size if stat.S_ISREG(seen.st_mode) else 0
                    before, stamp = known.get(path), _stamp(seen)
                    same = before is not None and before.modified == stamp
                    # Not its hashes: those of a file that is sent again are to be found out.
                    found[path] = Item(size, before.modified if before and same else stamp)
        except FileNotFoundError:
            if not inner:
                raise NotFound(f"file:{base} is gone") from None
        except OSError as error:
            raise broken(error, f"file:{base / inner}") from None
    return found


def _children(base: Path, inner: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(base / inner) as entries:
        for entry in entries:
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield sys.intern(f"{inner}{entry.name}"), seen


class _Remote(Source):
    """A remote of rclone: its files come to a folder of ours, group by group."""

    _plan: Plan
    _tree: Tree
    _rclone: Rclone
    _spelled: dict[str, str]
    _ports: Ports

    @classmethod
    def of(cls, plan: Plan, one: Sync, rclone: Rclone, base: Path, ports: Ports) -> _Remote:
        """List it."""
        tree = Tree.of(one.source, rclone, base)
        listed = tree.files(times=True)
        found = {unspelled(path): item for path, item in listed.items() if UNNAMED not in path}
        made = cls(one.source.target.url, base, found)
        spelled = {unspelled(path): path for path in listed if _SPELLED.search(path)}
        made._tree, made._spelled, made._ports = tree, spelled, ports
        made._rclone, made._plan = rclone, plan
        if strange := len(listed) - len(found):
            made.problems.append(f"{strange} files have names that are not UTF-8")
        return made

    def batches(self, paths: Sequence[str], most: int) -> Iterator[Batch]:
        for group in groups(self.found, paths, most):
            total = sum(self.found[path].size for path in group)
            check_room(self.base, 2 * total + self._plan.limits.min_free_bytes)
            stage = self.base / "stage"
            here = Tree.local(stage, self._rclone, self.base)
            here.copy(
                [self._spelled.get(path, path) for path in group],
                self._tree.root,
                progress=telling(self._ports.tell, f"get {self.url}"),
                total=total,
            )
            yield stage, group
            shutil.rmtree(stage, ignore_errors=True)

    def unchanged(self, path: str, seen: os.stat_result) -> bool:
        return seen.st_size == self.found[path].size


class _Stored(Source):
    """A store of ours (gs, hf): as a remote."""

    _plan: Plan
    _store: Store
    _ports: Ports

    @classmethod
    def of(cls, plan: Plan, store: Store, base: Path, ports: Ports) -> _Stored:
        """List it."""
        found = {
            sys.intern(one.name): Item(one.size, str(one.modified), pack(one.hashes))
            for one in store.list()
        }
        made = cls(store.url, base, found)
        made._plan, made._store, made._ports = plan, store, ports
        if left := getattr(store, "left_out", 0):
            made.problems.append(f"{left} objects have names that cannot be copied")
        return made

    def batches(self, paths: Sequence[str], most: int) -> Iterator[Batch]:
        tell = telling(self._ports.tell, f"get {self.url}")
        for group in groups(self.found, paths, most):
            total = sum(self.found[path].size for path in group)
            check_room(self.base, 2 * total + self._plan.limits.min_free_bytes)
            stage = self.base / "stage"
            for path in group:
                (stage / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._store.get(path, stage / path, progress=tell)
                except NotFound:
                    self.vanished.add(path)
            yield stage, group
            shutil.rmtree(stage, ignore_errors=True)

    def unchanged(self, path: str, seen: os.stat_result) -> bool:
        return seen.st_size == self.found[path].size


def unspelled(path: str) -> str:
    """Return the name of a file on this machine that rclone spells so.

    rclone writes control characters as their pictures (U+2400 and on), and quotes what looks like
    one with U+201B.
    """
    if not _SPELLED.search(path):
        return path
    out: list[str] = []
    quoted = False
    for c in path:
        if quoted or (c != _QUOTE and not "\u2400" <= c <= "\u2421"):
            out.append(c)
            quoted = False
        elif c == _QUOTE:
            quoted = True
        else:
            out.append("\x7f" if c == "\u2421" else chr(ord(c) - 0x2400))
    return "".join(out)
