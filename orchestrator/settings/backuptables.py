"""`[backups.NAME]` and what is below it: the database, and more than the database."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from backends.base import Credential
from orchestrator.settings.values import Interval, Place, Rate, Recipient, Url

STRICT = ConfigDict(
    frozen=True,
    strict=True,
    extra="forbid",
    hide_input_in_errors=True,
    use_attribute_docstrings=True,
)
"""What holds of every table of the file."""


class BackupTable(BaseModel):
    """A table of a backup: nothing in it changes, nothing unknown is in it."""

    model_config = STRICT


class BackupExport(BackupTable):
    """Rows of a query, as JSON lines: each run those that are new."""

    name: str
    query: Annotated[str, Field(min_length=1, max_length=20_000)]
    """One select; what it needs no longer than `timeouts.statement`."""
    key: Annotated[str, Field(min_length=1)]
    """The column that grows, and tells what is new."""
    late: Literal["wait", "ignore"] = "wait"
    """Whether to wait (`timeouts.lock`) for others that may still add rows with smaller keys."""
    settle: Interval | None = None
    """Only rows whose key, a time, is older than that."""
    keep: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many parts stay, the newest; 0: all."""


class BackupSync(BackupTable):
    """A folder or remote that is copied to others."""

    name: str
    from_: Place = Field(alias="from")
    """As in `copies`."""
    to: Annotated[list[Place], Field(min_length=1, max_length=8)]
    """As in `copies`; of this sync alone."""
    versions: bool = True
    """Whether what was changed or removed is kept, by date."""
    keep: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many versions stay, the newest; 0: all."""
    exclude: Annotated[list[str], Field(max_length=100)] = []
    """Paths that are left out, such as "*.tmp" or "cache/**"."""
    bandwidth: Rate | None = None
    """Bytes a second at most; absent: the backup's own."""
    allow_empty: bool = False
    """Whether nothing at all in `from` is taken for the truth."""
    gone: Annotated[float, Field(ge=0, le=1)] = 0.5
    """When more than this part of the files is gone, nothing is changed until it is accepted."""

    def mirrors(self, to: str) -> bool:
        """Say whether a place is kept as `from` is, name by name."""
        return not any(url.startswith(("gs:", "hf:")) for url in (self.from_, to))


class BackupKeep(BackupTable):
    """How many dumps of each age are kept; three verified ones stay whatever happens."""

    daily: Annotated[int, Field(ge=0, le=3650)] = 7
    weekly: Annotated[int, Field(ge=0, le=520)] = 4
    monthly: Annotated[int, Field(ge=0, le=120)] = 6
    yearly: Annotated[int, Field(ge=0, le=100)] = 0


class BackupEncrypt(BackupTable):
    """Encryption by age, before anything is uploaded."""

    recipient: Recipient
    """The public key, "age1…"."""
    identity: Credential | None = None
    """The private key; only where drills and restores run."""


class BackupNames(BackupTable):
    """Schemas and tables by their names."""

    schemas: list[str] = []
    tables: list[str] = []
    """As "schema.table"."""


class BackupTimeouts(BackupTable):
    """How long each step may take."""

    connect: Interval = 20.0
    lock: Interval = 60.0
    statement: Interval = 3600.0
    dump: Interval = 21600.0
    upload: Interval = 43200.0
    silence: Interval = 300.0
    """Without a byte of progress."""


class Backup(BackupTable):
    """A PostgreSQL database that is dumped on a schedule, and where the copies go.

    `[backups.aion-state]` is of aion's own state, and has no `dsn`.
    """

    schedule: str
    """A cron line, by the clock of `timezone`: "0 3 * * *"."""
    dsn: Credential | None = None
    """The database: postgresql://user:password@host/name."""
    copies: Annotated[list[Place], Field(max_length=8)] = []
    """Each as file:/abs/path, rclone:remote:path, gs://bucket/prefix or hf://datasets/user/name."""
    itself: bool = True
    """Whether aion's own state goes to these places too."""
    keep: BackupKeep = BackupKeep()
    drill: Literal["daily", "weekly", "monthly", "off"] = "off"
    """How often a dump is restored into a scratch database and compared."""
    drill_dsn: Credential | None = None
    """The server to drill in; absent: one of our own, started for the drill."""
    drill_canary: str = ""
    """A query that must answer the same in both databases."""
    stale_after: Interval | None = None
    """Without a success for so long there is an incident; absent: two hours after the next due."""
    encrypt: BackupEncrypt | None = None
    ping_url: Credential | None = None
    """Asked for after each success, so that an outside service misses it."""
    rclone_config: Credential | None = None
    """The text of an rclone.conf."""
    rclone_config_path: str = ""
    """Or such a file, used in place; a provider that renews its tokens writes to it."""
    google: Credential | None = None
    """For gs://: a service account's key, as JSON text."""
    google_expire: Credential | None = None
    """For gs://: another key, which may delete, where `google` may not."""
    hub_token: Credential | None = None
    """For hf://: a token that may write."""
    google_api: Url | None = None
    """Where Google's storage is asked, instead of storage.googleapis.com: a private address."""
    hub_api: Url | None = None
    """Where the Hub is asked, instead of huggingface.co: a mirror."""
    delete: bool = True
    """Whether these credentials may delete; false: nothing expires, but by `google_expire`."""
    include: BackupNames = BackupNames()
    """Only these; absent: everything."""
    exclude: BackupNames = BackupNames()
    pg_bin: str = ""
    """The folder of pg_dump and pg_restore; absent: looked for."""
    level: Annotated[int, Field(ge=1, le=19)] = 2
    """Of the archive's compression."""
    timeouts: BackupTimeouts = BackupTimeouts()
    bandwidth: Rate | None = None
    """Bytes a second at most, to and from each place: "2MB"; absent: no limit."""
    export: Annotated[list[BackupExport], Field(max_length=50)] = []
    sync: Annotated[list[BackupSync], Field(max_length=50)] = []
