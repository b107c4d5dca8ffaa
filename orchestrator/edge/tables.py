"""The database's tables, as SQLModel.

Times named `*_at`, `*_until` and `since` are steady seconds; `wall` is what the wall clock said,
for showing. Columns named like the fields of a core value hold that field (`rows.py` turns one
into the other); values with parts of their own are JSON text. A change here needs a revision in
`migrations/versions` and its name at the end of `REVISIONS`; a test compares the two schemas.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, MetaData, Text
from sqlmodel import Field, SQLModel

# Oldest first; the last is the one this aion reads and writes.
REVISIONS = ("0001", "0002", "0003", "0004")
HEAD = REVISIONS[-1]

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Row(SQLModel):
    """Base of our tables, with metadata of their own."""

    metadata = MetaData(naming_convention=NAMES)


class WorldRow(Row, table=True):
    """The only row of `world`.

    `written_at`: the latest steady time ever stored. `boot_id`, `boot_offset`: the clock's `Anchor`
    of the run that wrote last; none before that.
    """

    __tablename__ = "world"

    id: int = Field(default=1, primary_key=True)
    instance: str
    written_at: float = 0.0
    paused_since: float | None = None
    paused_until: float | None = None
    paused_by: str = ""
    incident_seq: int = 0
    epoch_floor: int = 0
    boot_id: str | None = None
    boot_offset: float | None = None


class BackendRow(Row, table=True):
    """A `BackendState` without its streaks: after a restart those are counted anew."""

    __tablename__ = "backend"

    name: str = Field(primary_key=True)
    health: str
    since: float
    reason: str
    ok_since: float | None
    denied: str
    cooldown_until: float | None
    falls: str
    flap_level: int
    drained: bool
    exhausted_until: float | None
    missing: str
    session: str | None
    pending: str | None = None
    generation: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    power: str | None = None
    boots: str = Field(default="[]", sa_column_kwargs={"server_default": "[]"})
    hand_starts: str = Field(default="[]", sa_column_kwargs={"server_default": "[]"})


class TokenRow(Row, table=True):
    """A `Token`: only its hash."""

    __tablename__ = "token"

    id: str = Field(primary_key=True)
    backend: str
    secret: str
    created_at: float
    by: str
    revoked_at: float | None
    launch: str = Field(default="", sa_column_kwargs={"server_default": ""})
    spent_at: float | None


class PastSessionRow(Row, table=True):
    """A `PastSession`: kept for a while, so that its agent can be told that it is over."""

    __tablename__ = "past_session"

    id: str = Field(primary_key=True)
    backend: str = Field(index=True)
    generation: int
    secret: str
    token: str
    url: str
    started_at: float
    ended_at: float = Field(index=True)
    why: str


class MeterRow(Row, table=True):
    """A `MeterState`, as JSON."""

    __tablename__ = "meter"

    key: str = Field(primary_key=True)
    state: str = Field(sa_column=Column(Text, nullable=False))


class ServiceRow(Row, table=True):
    """A `ServiceState`: the assignment, and what holds or plans it."""

    __tablename__ = "service"

    name: str = Field(primary_key=True)
    active: str | None
    since: float
    epoch: int
    reason: str
    hold_until: float | None
    pin: str | None
    moves: str
    planned: str | None
    rotation: str | None
    rotation_failed_at: float | None
    retry_at: float | None


class PublicationRow(Row, table=True):
    """The `Publication` of a service."""

    __tablename__ = "publication"

    service: str = Field(primary_key=True, foreign_key="service.name")
    wanted: str
    wanted_epoch: int
    attempted: str
    attempted_epoch: int
    confirmed: str
    confirmed_epoch: int
    confirmed_at: float | None
    record_ids: str
    trouble: str | None
    trouble_since: float | None
    detail: str
    retry_at: float | None
    adopt: bool
    corrections: str


class IncidentRow(Row, table=True):
    """An `Incident`, open or closed."""

    __tablename__ = "incident"

    id: str = Field(primary_key=True)
    key: str
    kind: str
    subject: str
    severity: str
    opened_at: float
    params: str
    acked_at: float | None
    acked_by: str
    muted_until: float | None
    noticed_at: float
    reminders: int
    escalated_at: float | None
    closed_at: float | None = Field(index=True)


class NoticeRow(Row, table=True):
    """A `Notice`; those without `sent_at` are the outbox."""

    __tablename__ = "notice"

    id: str = Field(primary_key=True)
    kind: str
    topic: str
    subject: str
    severity: str
    created_at: float
    incident: str | None
    params: str
    everywhere: bool
    sent_at: float | None = Field(index=True)
    channel: str


class LogRow(Row, table=True):
    """One line of the event log; `who` gave the command that caused it, if one did."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_subject_seq", "subject", "seq"),
        {"sqlite_autoincrement": True},  # a number once read is never given again
    )

    seq: int | None = Field(default=None, primary_key=True)
    at: float
    wall: float
    action: str
    subject: str
    text: str = Field(sa_column=Column(Text, nullable=False))
    data: str = Field(sa_column=Column(Text, nullable=False))
    who: str


class CommandRow(Row, table=True):
    """An operator's command: who gave it, from where, and the answer kept for its key."""

    __tablename__ = "command"

    seq: int | None = Field(default=None, primary_key=True)
    key: str | None = Field(unique=True)
    at: float
    wall: float
    who: str
    whence: str
    answer: str | None
    problem: str | None


class TallyRow(Row, table=True):
    """What the probes of one backend said in one hour (steady hours since 1970)."""

    __tablename__ = "tally"

    backend: str = Field(primary_key=True)
    hour: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False, index=True))
    ok: int
    loading: int
    failed: int
    denied: int
    busy: int
    timed: int
    latency_sum_s: float
    latency_min_s: float
    latency_max_s: float
    buckets: str


class ChangeRow(Row, table=True):
    """The last observations that differed from the one before: a ring of slots per backend."""

    __tablename__ = "change"

    backend: str = Field(primary_key=True)
    slot: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    seq: int
    at: float
    source: str
    verdict: str
    detail: str
    status: int | None
    latency_s: float | None


class JobRow(Row, table=True):
    """One run of a job, written before it starts; without `finished_at` it runs, or crashed."""

    __tablename__ = "job_run"
    __table_args__ = (Index("ix_job_run_name_id", "name", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    name: str
    started_at: float
    started_wall: float
    finished_at: float | None
    problem: str
