"""Tokens that are good for one launch alone.

Revision 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the launch that a token belongs to, and when it was spent."""
    op.add_column("token", sa.Column("launch", sa.String(), nullable=False, server_default=""))
    op.add_column("token", sa.Column("spent_at", sa.Float(), nullable=True))
