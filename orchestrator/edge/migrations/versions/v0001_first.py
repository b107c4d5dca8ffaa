"""The first tables.

Revision 0001. A revision never imports `tables.py`: it says what the tables were then.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _world_and_backends()
    _services()
    _incidents_and_notices()
    _records()
    _observations()


def _world_and_backends() -> None:
    op.create_table(
        "world",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("written_at", sa.Float(), nullable=False),
        sa.Column("paused_since", sa.Float(), nullable=True),
        sa.Column("paused_until", sa.Float(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("incident_seq", sa.Integer(), nullable=False),
        sa.Column("epoch_floor", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_world")),
    )
    op.create_table(
        "backend",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("health", sa.String(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("ok_since", sa.Float(), nullable=True),
        sa.Column("denied", sa.String(), nullable=False),
        sa.Column("cooldown_until", sa.Float(), nullable=True),
        sa.Column("falls", sa.String(), nullable=False),
        sa.Column("flap_level", sa.Integer(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False),
        sa.Column("exhausted_until", sa.Float(), nullable=True),
        sa.Column("missing", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_backend")),
    )


def _services() -> None:
    op.create_table(
        "service",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("active", sa.String(), nullable=True),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("hold_until", sa.Float(), nullable=True),
        sa.Column("pin", sa.String(), nullable=True),
        sa.Column("moves", sa.String(), nullable=False),
        sa.Column("planned", sa.String(), nullable=True),
        sa.Column("rotation", sa.String(), nullable=True),
        sa.Column("rotation_failed_at", sa.Float(), nullable=True),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service")),
    )
    op.create_table(
        "publication",
        sa.Column("service", sa.String(), nullable=False),
        sa.Column("wanted", sa.String(), nullable=False),
        sa.Column("wanted_epoch", sa.Integer(), nullable=False),
        sa.Column("attempted", sa.String(), nullable=False),
        sa.Column("attempted_epoch", sa.Integer(), nullable=False),
        sa.Column("confirmed", sa.String(), nullable=False),
        sa.Column("confirmed_epoch", sa.Integer(), nullable=False),
        sa.Column("confirmed_at", sa.Float(), nullable=True),
        sa.Column("record_ids", sa.String(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("trouble_since", sa.Float(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=True),
        sa.Column("adopt", sa.Boolean(), nullable=False),
        sa.Column("corrections", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["service"], ["service.name"], name=op.f("fk_publication_service")),
        sa.PrimaryKeyConstraint("service", name=op.f("pk_publication")),
    )


def _incidents_and_notices() -> None:
    op.create_table(
        "incident",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("params", sa.String(), nullable=False),
        sa.Column("acked_at", sa.Float(), nullable=True),
        sa.Column("acked_by", sa.String(), nullable=False),
        sa.Column("muted_until", sa.Float(), nullable=True),
        sa.Column("noticed_at", sa.Float(), nullable=False),
        sa.Column("reminders", sa.Integer(), nullable=False),
        sa.Column("escalated_at", sa.Float(), nullable=True),
        sa.Column("closed_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    op.create_index(op.f("ix_incident_closed_at"), "incident", ["closed_at"], unique=False)
    op.create_table(
        "notice",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("incident", sa.String(), nullable=True),
        sa.Column("params", sa.String(), nullable=False),
        sa.Column("everywhere", sa.Boolean(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=True),
        sa.Column("channel", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    )
    op.create_index(op.f("ix_notice_sent_at"), "notice", ["sent_at"], unique=False)


def _records() -> None:
    op.create_table(
        "event",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("wall", sa.Float(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_subject_seq", "event", ["subject", "seq"], unique=False)
    op.create_table(
        "command",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("wall", sa.Float(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("whence", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_command")),
        sa.UniqueConstraint("key", name=op.f("uq_command_key")),
    )
    op.create_table(
        "job_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("started_wall", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("problem", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_run")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_run_name_id", "job_run", ["name", "id"], unique=False)


def _observations() -> None:
    op.create_table(
        "tally",
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ok", sa.Integer(), nullable=False),
        sa.Column("loading", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("denied", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("timed", sa.Integer(), nullable=False),
        sa.Column("latency_sum_s", sa.Float(), nullable=False),
        sa.Column("latency_min_s", sa.Float(), nullable=False),
        sa.Column("latency_max_s", sa.Float(), nullable=False),
        sa.Column("buckets", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("backend", "hour", name=op.f("pk_tally")),
    )
    op.create_index(op.f("ix_tally_hour"), "tally", ["hour"], unique=False)
    op.create_table(
        "change",
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_s", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("backend", "slot", name=op.f("pk_change")),
    )
