"""What ties steady seconds to one boot of the machine.

Revision 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the anchor to the world; empty, so the first start after this goes by the wall clock."""
    op.add_column("world", sa.Column("boot_id", sa.String(), nullable=True))
    op.add_column("world", sa.Column("boot_offset", sa.Float(), nullable=True))
