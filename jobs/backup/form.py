"""The values of backups: where copies go, what is to be done, what a dump is.

Everything here is frozen and travels as JSON: a plan goes to the child process by stdin, a manifest
lies beside its dump. What is secret is kept out of `repr`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from jobs.backup.codec import Coded
from jobs.backup.errors import BadManifest
from jobs.backup.targets import Target

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
ARCHIVE: Final = "archive.dump"
PACKINGS: Final = ("", "zstd")
STATE: Final = "aion-state"
"""The backup of aion's own state: its name, and of no other."""
STATE_ARCHIVE: Final = "archive.tar.zst"
MAX_MANIFEST: Final = 16_000_000

_READABLE: Final = 5000

NAME: Final = r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?"
_ID: Final = re.compile(rf"({NAME})-([0-9]{{6,9}})-([0-9]{{8}}T[0-9]{{6}}Z)")
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_HEX: Final = {"sha256": 64, "sha1": 40, "md5": 32, "crc32c": 8}


# ── what is to be done ──────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Access(Coded):
    """What opens one store. Every field but `endpoint` and the limits may be secret.

    `rclone_config`: the text of an rclone.conf, used from a private file that is thrown away; or
    `rclone_config_path`: such a file, used in place, which a provider that replaces its refresh
    tokens needs. `google`: a service account's key or a user's credentials, as JSON text.
    `hub_token`: of the Hugging Face Hub. `endpoint`: another address of the store's API.
    `bandwidth_bps`: bytes a second at most, 0 for no limit. `can_delete`: this credential is meant
    to delete.
    """

    rclone_config: str = field(default="", repr=False)
    rclone_config_path: str = ""
    rclone: str = ""
    google: str = field(default="", repr=False)
    hub_token: str = field(default="", repr=False)
    endpoint: str = ""
    bandwidth_bps: int = 0
    can_delete: bool = True


@dataclass(frozen=True, slots=True)
class Copy(Coded):
    """One place a dump is kept. `expire`: the credential that deletes, where `access` must not."""

    target: Target
    access: Access = Access()
    expire: Access | None = None


@dataclass(frozen=True, slots=True)
class Keep(Coded):
    """How many dumps of each age are kept; `floor` verified ones stay whatever happens."""

    daily: int = 7
    weekly: int = 4
    monthly: int = 6
    yearly: int = 0
    floor: int = 3


@dataclass(frozen=True, slots=True)
class Encryption(Coded):
    """age: the recipient's public key, and the identity where drills and restores run."""

    recipient: str
    identity: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Selection(Coded):
    """Schemas and tables by their names; tables as `schema.table`."""

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeouts(Coded):
    """Bounds in seconds; `silence_s`: without a byte of progress."""

    connect_s: float = 20.0
    lock_s: float = 60.0
    statement_s: float = 3600.0
    dump_s: float = 6 * 3600.0
    upload_s: float = 12 * 3600.0
    silence_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Export(Coded):
    """Rows of `query` as JSON lines, those with `key` beyond what was exported before.

    `late`: "wait" for transactions that may still add smaller keys, or "ignore" them. `settle_s`:
    only rows whose key, a time, is older than that. `keep`: so many newest parts, 0 for all.
    """

    name: str
    query: str
    key: str
    late: str = "wait"
    settle_s: float = 0.0
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Sync(Coded):
    """A folder or remote copied to others; `versions`: changed files are kept by date.

    `keep`: so many versions, 0 for all. `exclude`: patterns of paths. `allow_empty`: a source
    without any file is taken for the truth. `gone`: nothing is changed when more than this part of
    the files is gone, until that is accepted.
    """

    name: str
    source: Copy
    to: tuple[Copy, ...]
    versions: bool = True
    keep: int = 0
    exclude: tuple[str, ...] = ()
    allow_empty: bool = False
    gone: float = 0.5


@dataclass(frozen=True, slots=True)
class Drill(Coded):
    """Restoring to prove it: every `every_s` seconds into `dsn`, else into a server of our own.

    `canary`: a query that must answer the same in both databases, "" for none.
    """

    every_s: float = 7 * 86400.0
    dsn: str = field(default="", repr=False)
    canary: str = ""


@dataclass(frozen=True, slots=True)
class Itself(Coded):
    """aion's own state, dumped instead of a database of the operator's.

    `database`, `config`, `token`: paths, of the configuration and of the admin token "" if there
    is none. `instance`: as configured, "" where the database names it. `credentials` by name; they
    are only ever put into an archive that is encrypted.
    """

    database: str
    config: str = ""
    token: str = ""
    instance: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Limits(Coded):
    """`shrink`: a dump smaller than this part of the last is suspicious. Attempts, waits in s."""

    shrink: float = 0.5
    min_free_bytes: int = 256 * 1024 * 1024
    attempts: int = 8
    backoff_s: float = 5.0
    backoff_most_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Plan(Coded):
    """Everything a run needs to know. `dsn` is a secret; `spool` is a private folder.

    `pg_bin`: where pg_dump is, "" to look for it. `level`: of the archive's compression.
    """

    name: str
    dsn: str = field(repr=False)
    copies: tuple[Copy, ...]
    spool: str
    keep: Keep = Keep()
    encrypt: Encryption | None = None
    include: Selection = Selection()
    exclude: Selection = Selection()
    timeouts: Timeouts = Timeouts()
    pg_bin: str = ""
    level: int = 2
    exports: tuple[Export, ...] = ()
    syncs: tuple[Sync, ...] = ()
    drill: Drill = Drill()
    limits: Limits = Limits()
    itself: Itself | None = None

    @property
    def dumps(self) -> bool:
        """Whether there is anything to dump: exports and syncs may stand alone."""
        return bool(self.dsn) or self.itself is not None


# ── what a dump is ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, order=True)
class DumpId:
    """The name of a dump and of its folder. `sequence` orders dumps; the time is for people."""

    name: str
    sequence: int
    stamp: str

    @classmethod
    def new(cls, name: str, sequence: int, at: datetime) -> Self:
        """Name a dump begun `at` (aware)."""
        made = cls(name, sequence, at.astimezone(UTC).strftime(_STAMP))
        if cls.parse(str(made)) != made:
            raise ValueError(f"no name for a backup: {name[:40]!r}")
        return made

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a folder's name; None if it is none of ours."""
        found = _ID.fullmatch(text)
        return cls(found[1], int(found[2]), found[3]) if found else None

    def __str__(self) -> str:
        return f"{self.name}-{self.sequence:06d}-{self.stamp}"


@dataclass(frozen=True, slots=True)
class Table(Coded):
    """One table of a dump; `rows` as the server estimates or counted them, -1 if unknown."""

    schema: str
    name: str
    rows: int = -1


@dataclass(frozen=True, slots=True)
class Sealed(Coded):
    """How an archive is encrypted: SHA-256 of the recipient's public key, shortened."""

    fingerprint: str
    method: str = "age"


@dataclass(frozen=True, slots=True)
class State(Coded):
    """What a dump of aion's own state is of. `revision`: of the tables; `era`: see `core.records`.

    `credentials`: how many are in it.
    """

    instance: str
    revision: str = ""
    era: int = 0
    credentials: int = 0


@dataclass(frozen=True, slots=True)
class Manifest(Coded):
    """What is known of one dump. It is written last: no dump exists without it.

    `size`, `sha256` and `hashes` are of the archive as stored; `plain_sha256` before encryption.
    `compressed`: by what, at which level. `packed`: "zstd" if the archive as a whole is compressed,
    "" if pg_restore reads it as it is; `plain_size`: of what pg_restore reads, 0 if not known.
    `hashes` holds further kinds (`md5`, `sha1`, `crc32c`) in hex, for stores that know only those.
    `timings` in seconds; `suspicious` says why it may not count, "" if nothing is wrong.
    """

    name: str
    id: str
    sequence: int
    created_at: datetime
    server_version: str
    client_version: str
    database: str
    size: int
    sha256: str
    plain_sha256: str
    compressed: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    encrypted: Sealed | None = None
    tables: tuple[Table, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    suspicious: str = ""
    state: State | None = None
    packed: str = ""
    plain_size: int = 0
    format: int = FORMAT

    @property
    def archive(self) -> str:
        """The archive's file name in the dump's folder."""
        if self.state:
            return f"{STATE_ARCHIVE}.age" if self.encrypted else STATE_ARCHIVE
        return archive_name(packed=bool(self.packed), sealed=self.encrypted is not None)

    @property
    def known(self) -> dict[str, str]:
        """All hashes of the archive as stored, by kind."""
        return {**self.hashes, "sha256": self.sha256}

    @property
    def files(self) -> tuple[str, ...]:
        """Everything in the dump's folder, in the order it is uploaded: the manifest last."""
        return self.archive, SUMS, MANIFEST

    def dump(self) -> bytes:
        """Return the file's bytes; people can read it, unless there are too many tables."""
        indent = 1 if len(self.tables) < _READABLE else None
        return (json.dumps(self.to_json(), indent=indent, sort_keys=True) + "\n").encode()

    @classmethod
    def load(cls, data: bytes, folder: str = "") -> Self:
        """Read a manifest that was found in `folder`. Raises `BadManifest`.

        Keys of a newer aion are passed over; a newer format is refused.
        """
        where = f"the manifest of {folder}" if folder else "the manifest"
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise BadManifest(f"{where} is not JSON") from None
        version = value.get("format") if isinstance(value, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise BadManifest(f"{where} was written by a newer aion: use that version")
        try:
            made = cls.from_json(value, strict=False)
        except ValueError as error:
            raise BadManifest(f"{where} cannot be read: {error}") from None
        if wrong := _contradiction(made, folder):
            raise BadManifest(f"{where} cannot be right: {wrong}")
        return made


def archive_name(*, packed: bool, sealed: bool) -> str:
    """Return the name of a database's archive: compressed around, encrypted around that."""
    return ARCHIVE + (".zst" if packed else "") + (".age" if sealed else "")


def _contradiction(made: Manifest, folder: str) -> str:
    dump = DumpId.parse(made.id)
    if made.format != FORMAT:
        return f"its format is not {FORMAT}"
    if dump is None or (dump.name, dump.sequence) != (made.name, made.sequence):
        return "its id is not of its name and sequence"
    if folder and folder != made.id:
        return "it belongs to another dump"
    hashes: dict[str, Any] = {**made.known, "plain_sha256": made.plain_sha256}
    for kind, value in hashes.items():
        length = _HEX.get(kind.removeprefix("plain_"), len(value))
        if not re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
            return f"its {kind[:20]} is no hash"
    if made.packed not in PACKINGS:
        return "its packing is none that this aion knows"
    return "its size is negative" if min(made.size, made.plain_size) < 0 else ""
