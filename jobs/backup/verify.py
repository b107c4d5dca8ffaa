"""Looking at copies: by the store's own hash, by reading them back; expiry."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.backup.catalogue import ACCEPTED, Found, read
from jobs.backup.errors import BackupError, Corrupt, NotFound, StoreBroken
from jobs.backup.form import MANIFEST, SUMS, Keep, Manifest
from jobs.backup.ports import Tell, nobody
from jobs.backup.stores.base import Store, digests, disagreement, hash_file
from jobs.backup.stores.landing import landing
from orchestrator.core.retention import FLOOR, Held, Policy, fates, room_for

_DAY_S = 86_400.0
_UNFINISHED_S = 3 * _DAY_S
_SUMS_MOST = 4096


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one dump in one store. `ok`: it is whole there.

    `checked`: the store answered; else whether it is whole is not known, and it neither counts nor
    expires.
    """

    store: str
    dump: str
    ok: bool
    detail: str = ""
    quarantined: bool = False
    finished: bool = True
    checked: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


def survey(store: Store, name: str) -> list[tuple[Found, Finding]]:
    """Check every dump of a store against the store's own hash. Raises `StoreBroken`."""
    return [(one, _check(store, one)) for one in read(store, name)]


def _check(store: Store, one: Found) -> Finding:
    problem, checked = one.problem, True
    try:
        if one.manifest is not None and not problem:
            problem = _archive(store, one, one.manifest) or _sums(store, one, one.manifest)
    except NotFound as error:
        problem = str(error)
    except StoreBroken as error:
        problem, checked = str(error), False
    strange = sorted(one.entries.keys() - {*one.manifest.files, ACCEPTED} if one.manifest else ())
    if strange and not problem:
        note = f"whole; {strange[0]} beside it is none of ours"
        return Finding(store.url, str(one.id), True, note, one.quarantined)
    finished = MANIFEST in one.entries
    return Finding(store.url, str(one.id), not problem, problem, one.quarantined, finished, checked)


def _archive(store: Store, one: Found, manifest: Manifest) -> str:
    """Ask for the archive's hash, unless the listing had one."""
    if one.vouched is not None:
        return ""
    return store.check(f"{one.id}/{manifest.archive}", manifest.known)


def _sums(store: Store, one: Found, manifest: Manifest) -> str:
    """Compare SHA256SUMS with the manifest, by its hash in the listing where there is one."""
    wanted = sums(manifest)
    made = digests(("sha256", "sha1", "md5"))
    for digest in made.values():
        digest.update(wanted)
    known = {kind: digest.hexdigest() for kind, digest in made.items()}
    wrong = disagreement(one.entries[SUMS].hashes, known)
    if wrong is None:
        wrong = "" if store.read(f"{one.id}/{SUMS}", _SUMS_MOST) == wanted else "it differs"
    return f"{SUMS} is not what the manifest says: {wrong}" if wrong else ""


def sums(manifest: Manifest) -> bytes:
    """Return the text of SHA256SUMS, which `sha256sum -c` accepts."""
    return f"{manifest.sha256}  {manifest.archive}\n".encode()


def rehash(store: Store, one: Found, spool: Path, tell: Tell = nobody) -> Finding:
    """Download a dump's archive, hash what came, and throw it away. Raises `StoreBroken`."""
    if one.manifest is None:
        return Finding(store.url, str(one.id), False, one.problem, finished=False)
    with tempfile.TemporaryDirectory(dir=spool, prefix="rehash-") as folder:
        try:
            fetch(store, one.manifest, Path(folder), tell)
        except (Corrupt, NotFound) as error:
            return Finding(store.url, str(one.id), False, str(error), one.quarantined)
    return Finding(store.url, str(one.id), True, quarantined=one.quarantined)


def fetch(store: Store, manifest: Manifest, folder: Path, tell: Tell = nobody) -> Path:
    """Download an archive and compare it with its manifest. Raises `Corrupt`, `StoreBroken`."""
    local = folder / manifest.archive
    name = f"{manifest.id}/{manifest.archive}"
    store.get(name, local, progress=lambda done, total: tell(f"get {store.url}", done, total))
    found = hash_file(local, ("sha256",))["sha256"]
    if found != manifest.sha256:
        local.unlink()
        raise Corrupt(
            f"{name} in {store.url}: its sha256 is {found[:16]}… and not {manifest.sha256[:16]}…"
        )
    return local


def accept(store: Store, one: Found, spool: Path, at: float, who: str = "") -> None:
    """Let a suspicious dump count, for an operator at Unix time `at`. Raises `StoreBroken`."""
    said = {"accepted_at": datetime.fromtimestamp(at, UTC).isoformat(), "by": who}
    with tempfile.TemporaryDirectory(dir=spool, prefix="accept-") as folder:
        local = Path(folder, ACCEPTED)
        with landing(local) as file:
            file.write((json.dumps(said) + "\n").encode())
        if ACCEPTED not in one.entries:
            store.put(local, f"{one.id}/{ACCEPTED}")


def policy(keep: Keep) -> Policy:
    """Return the rules of a plan. Raises ValueError if they would keep nothing."""
    floor = max(keep.floor, FLOOR)
    return Policy(keep.daily, keep.weekly, keep.monthly, keep.yearly, floor)


def held(seen: Sequence[tuple[Found, Finding]]) -> list[Held]:
    """Return what retention is told: dumps with a manifest that could be checked just now."""
    return [
        Held(
            str(one.id),
            one.id.sequence,
            one.manifest.created_at.date(),
            one.size,
            finding.ok,
            one.quarantined,
        )
        for one, finding in seen
        if one.manifest is not None and finding.checked
    ]


def expire(
    store: Store, seen: Sequence[tuple[Found, Finding]], keep: Keep, *, dry: bool = False
) -> list[dict[str, Any]]:
    """Remove what no rule keeps, and old uploads that were never finished; say what and why.

    `store` is opened with the credential that deletes. `dry`: only say. Raises `StoreBroken`.
    """
    gone = [(fate.id, fate.why) for fate in fates(held(seen), policy(keep)) if not fate.keep]
    gone += [(str(one.id), "its upload was never finished") for one in _abandoned(seen)]
    folders = {str(one.id): one for one, _ in seen}
    for dump, _ in [] if dry else gone:
        remove(store, folders[dump])
    return [{"store": store.url, "dump": dump, "why": why} for dump, why in gone]


def _abandoned(seen: Sequence[tuple[Found, Finding]]) -> list[Found]:
    """Return uploads without a manifest, by the store's own clock days older than its newest."""
    newest = max((e.modified for one, _ in seen for e in one.entries.values()), default=0.0)
    counting = [one.id.sequence for one, finding in seen if finding.ok]
    return [
        one
        for one, _ in seen
        if MANIFEST not in one.entries
        and one.id.sequence < max(counting, default=0)
        and all(newest - e.modified > _UNFINISHED_S for e in one.entries.values())
    ]


def remove(store: Store, one: Found) -> None:
    """Delete a dump, its manifest first: what is half deleted is no dump."""
    for file in sorted(one.entries, key=lambda file: file != MANIFEST):
        store.delete(f"{one.id}/{file}")


def free(store: Store, name: str, keep: Keep, needed: int) -> bool:
    """Make room in a full store, down to the floor; say whether there is any now."""
    seen = survey(store, name)
    folders = {str(one.id): one for one, _ in seen}
    chosen = room_for(held(seen), policy(keep), needed)
    for dump in chosen:
        with contextlib.suppress(NotFound):
            remove(store, folders[dump])
    return bool(chosen)


def problem(error: BackupError, store: str) -> dict[str, Any]:
    """Return an error of a whole store as a finding would be."""
    return {"store": store, "detail": str(error), "retry": getattr(error, "retry", False)}
