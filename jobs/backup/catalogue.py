"""What a store holds of one backup: its dumps, whole or not, by the manifests there alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobs.backup.errors import BackupError, BadManifest, NotFound
from jobs.backup.form import MANIFEST, MAX_MANIFEST, SUMS, DumpId, Manifest
from jobs.backup.stores.base import Entry, Store, disagreement

ACCEPTED: Final = "accepted.json"
"""Beside the manifest of a suspicious dump: an operator looked at it and says it is right."""


@dataclass(frozen=True, slots=True)
class Found:
    """One folder of a store. Without a manifest it is no dump, but the rest of an upload.

    `problem`: what the listing shows to be wrong, "" if nothing. `vouched`: whether the store's
    hash, as listed, is the manifest's; None if the listing has none to compare.
    """

    id: DumpId
    entries: Mapping[str, Entry]
    manifest: Manifest | None = None
    problem: str = ""
    vouched: bool | None = None

    @property
    def quarantined(self) -> bool:
        """Whether it is suspicious and nobody accepted it."""
        suspicious = self.manifest is not None and bool(self.manifest.suspicious)
        return suspicious and ACCEPTED not in self.entries

    @property
    def size(self) -> int:
        """Bytes of everything in the folder."""
        return sum(entry.size for entry in self.entries.values())


def read(store: Store, name: str) -> list[Found]:
    """Return the folders of backup `name`, the newest first. Raises `StoreBroken`."""
    folders: dict[DumpId, dict[str, Entry]] = {}
    for entry in store.list(f"{name}-"):
        folder, _, file = entry.name.partition("/")
        dump = DumpId.parse(folder)
        if dump is not None and dump.name == name and file:
            folders.setdefault(dump, {})[file] = entry
    return [_look(store, dump, folders[dump]) for dump in sorted(folders, reverse=True)]


def _look(store: Store, dump: DumpId, entries: dict[str, Entry]) -> Found:
    if MANIFEST not in entries:
        return Found(dump, entries, problem="its upload was not finished: there is no manifest")
    try:
        manifest = Manifest.load(store.read(f"{dump}/{MANIFEST}", MAX_MANIFEST), str(dump))
    except (BadManifest, NotFound) as error:
        return Found(dump, entries, problem=str(error))
    archive = entries.get(manifest.archive)
    if archive is None:
        return Found(dump, entries, manifest, f"{manifest.archive} is missing", vouched=False)
    if archive.size != manifest.size:
        why = f"{manifest.archive} has {archive.size} bytes instead of {manifest.size}"
        return Found(dump, entries, manifest, why, vouched=False)
    wrong = disagreement(archive.hashes, manifest.known)
    if wrong:
        return Found(dump, entries, manifest, f"{manifest.archive}: {wrong}", vouched=False)
    problem = "" if SUMS in entries else f"{SUMS} is missing"
    return Found(dump, entries, manifest, problem, vouched=None if wrong is None else True)


def newest_good(found: list[Found]) -> Manifest | None:
    """Return the newest dump that is whole as listed and not in quarantine."""
    for one in found:
        if one.manifest is not None and one.vouched is not False and not one.quarantined:
            return one.manifest
    return None


def pick(found: list[Found], wanted: str = "") -> Found:
    """Return the dump of that id, or the newest good one. Raises `BackupError`."""
    for one in found:
        if wanted and wanted not in {str(one.id), str(one.id.sequence)}:
            continue
        if wanted and one.manifest is None:
            raise BackupError(f"{one.id} cannot be used: {one.problem}")
        if one.manifest is not None and (
            wanted or (one.vouched is not False and not one.quarantined)
        ):
            return one
    raise BackupError(f"there is no dump {wanted[:60]}" if wanted else "there is no good dump")
