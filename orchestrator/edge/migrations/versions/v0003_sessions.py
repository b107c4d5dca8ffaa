"""Backends that register, are started and stopped, and are metered.

Revision 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add tokens, past sessions and meters, and what a backend is known by between its lives."""
    op.add_column("backend", sa.Column("pending", sa.String(), nullable=True))
    op.add_column(
        "backend", sa.Column("generation", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("backend", sa.Column("power", sa.String(), nullable=True))
    op.add_column("backend", sa.Column("boots", sa.String(), nullable=False, server_default="[]"))
    op.add_column(
        "backend", sa.Column("hand_starts", sa.String(), nullable=False, server_default="[]")
    )
    op.create_table(
        "token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
    )
    op.create_table(
        "past_session",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_past_session"),
    )
    op.create_index("ix_past_session_backend", "past_session", ["backend"])
    op.create_index("ix_past_session_ended_at", "past_session", ["ended_at"])
    op.create_table(
        "meter",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meter"),
    )
