"""Which revision of the tables a database holds, and whether this aion can use it.

Alembic writes the revision into `alembic_version`; reading it needs no Alembic, which stays out of
the daemon. Upgrading is `migrate.py`'s, in a child.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from orchestrator.edge import sqlite, tables
from orchestrator.errors import StoreError, StoreTooNew

# As alembic.runtime.migration.MigrationContext makes it.
VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), primary_key=True, nullable=False),
)


def revision(connection: Connection, url: str) -> str | None:
    """Read the revision; None: an empty database. Raises StoreError for another program's."""
    names = set(inspect(connection).get_table_names())
    if VERSION.name in names:
        found = connection.execute(select(VERSION.c.version_num)).scalar()
        if found is not None:
            return str(found)
        names.discard(VERSION.name)
    if names:
        raise StoreError(
            f"database {sqlite.shown(url)} belongs to another program; set server.database to"
            " a file of our own"
        )
    return None


def refuse_newer(found: str | None, url: str) -> None:
    """Raise StoreTooNew when `found` is a revision this aion does not know."""
    if found is not None and found not in tables.REVISIONS:
        raise StoreTooNew(
            f"database {sqlite.shown(url)} is at revision {found}, of a newer aion; this one knows"
            f" {tables.HEAD}: upgrade aion, or put an older copy of the database there"
        )


def ensure(connection: Connection, url: str, *, create: bool) -> None:
    """Raise unless the tables are this aion's; make them when there are none and `create`."""
    found = revision(connection, url)
    if found == tables.HEAD:
        return
    refuse_newer(found, url)
    if found is None and create:
        tables.Row.metadata.create_all(connection)
        VERSION.create(connection)
        connection.execute(VERSION.insert(), {"version_num": tables.HEAD})
        return
    raise StoreError(
        f"database {sqlite.shown(url)} is at revision {found or 'none'}, not {tables.HEAD};"
        " it is upgraded when `aion serve` starts"
    )
