"""`[[backups.NAME.export]]` and `[[backups.NAME.sync]]`: more than the database."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.settings.values import Interval, Place, Rate

STRICT = ConfigDict(
    frozen=True,
    strict=True,
    extra="forbid",
    hide_input_in_errors=True,
    use_attribute_docstrings=True,
)
"""What holds of every table of the file."""


class BackupExport(BaseModel):
    """Rows of a query, as JSON lines: each run those that are new."""

    model_config = STRICT

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


class BackupSync(BaseModel):
    """A folder or remote that is copied to others."""

    model_config = STRICT

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
