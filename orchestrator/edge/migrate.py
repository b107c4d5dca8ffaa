"""Brings a database to this aion's revision, before the store opens it.

`migrate` is what the daemon calls. Where there is something to do, it is done in a child (`python
-m orchestrator.edge.migrate`), because Alembic would stay in the daemon's memory. The child takes
the database's lock, copies it to `aion.db.before-REVISION`, and upgrades it in one transaction: a
child that dies leaves the database as it was.

In: `{"url"}`. Out: `{"from", "to", "copy"}`, or `{"problem", "kind"}`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from orchestrator.childside import serve
from orchestrator.edge import schema, sqlite, tables
from orchestrator.edge.child import run_child
from orchestrator.errors import AionError, StoreError, StoreFull, StoreTooNew

COPIES = 3
SCRIPTS = Path(__file__).parent / "migrations"
_KINDS: dict[str, type[StoreError]] = {
    kind.__name__: kind for kind in (StoreError, StoreFull, StoreTooNew)
}


async def migrate(url: str, timeout_s: float = 300.0) -> str | None:
    """Make the database at `url` ready for `Store`; returns the revision it had if it was upgraded.

    Returns at once when there is nothing to do. Raises StoreError, StoreFull or StoreTooNew; the
    database is then as it was.
    """
    found = _peek(url)
    schema.refuse_newer(found, url)
    if found == tables.HEAD:
        return None
    try:
        answer = await run_child("orchestrator.edge.migrate", {"url": url}, timeout_s=timeout_s)
    except AionError as error:
        raise StoreError(f"database {sqlite.shown(url)} was not upgraded: {error}") from error
    if "problem" in answer:
        raise _KINDS.get(str(answer["kind"]), StoreError)(str(answer["problem"]))
    return None if answer["from"] is None else str(answer["from"])


def _peek(url: str) -> str | None:
    """Read the revision of a SQLite file without a lock; None when it cannot be told so easily."""
    path = sqlite.path_of(url)
    if path is None or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error:
        return None  # the child finds out what it is, and says so
    return str(row[0]) if row else None


def main(payload: dict[str, Any]) -> dict[str, Any]:
    """Upgrade the database; see the module's docstring."""
    try:
        return upgrade(str(payload["url"]))
    except StoreError as error:
        return {"problem": str(error), "kind": type(error).__name__}


def upgrade(url: str) -> dict[str, Any]:
    """Upgrade the database at `url` in this process, which must have it to itself."""
    path = sqlite.path_of(url)
    if path is None:
        return _upgrade(url, None)
    sqlite.make_folder(path)
    lock = sqlite.Lock(path)
    lock.take()
    try:
        sqlite.make_private(path)
        return _upgrade(url, path)
    finally:
        lock.drop()


def _upgrade(url: str, path: Path | None) -> dict[str, Any]:
    engine = sqlite.engine_for(url)
    try:
        with engine.connect() as connection:
            with connection.begin():
                found = schema.revision(connection, url)
            schema.refuse_newer(found, url)
            kept = None
            if path is not None and found not in {None, tables.HEAD}:
                kept = _keep_copy(connection, path)
            if found != tables.HEAD:
                with connection.begin():
                    _run_revisions(connection)
                    reached = schema.revision(connection, url)
                    if reached != tables.HEAD:
                        raise StoreError(
                            f"the upgrades that came with this aion end at {reached}, not at"
                            f" {tables.HEAD}; install it again"
                        )
        return {"from": found, "to": tables.HEAD, "copy": str(kept) if kept else None}
    except sqlite.LIBRARY_ERRORS as error:
        raise sqlite.explain(error, url) from error
    finally:
        engine.dispose()


def _run_revisions(connection: Connection) -> None:
    config = import_module("alembic.config").Config()  # only here: see the module's docstring
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    import_module("alembic.command").upgrade(config, "head")


def _keep_copy(connection: Connection, path: Path) -> Path:
    """Copy the database beside itself, and keep the last few such copies."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    kept = path.with_name(f"{path.name}.before-{tables.HEAD}")
    sqlite.copy(raw, kept)
    copies = [p for p in path.parent.glob(f"{path.name}.before-*") if p.suffix != ".part"]
    copies.sort(key=lambda copy: copy.stat().st_mtime)
    for old in copies[:-COPIES]:
        with suppress(OSError):
            old.unlink()
    return kept


if __name__ == "__main__":
    serve(main)
