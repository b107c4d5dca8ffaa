"""Reads the database of a daemon that may be running, without its lock and without writing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, func, select
from sqlalchemy.pool import NullPool

from orchestrator.core.health import ALIVE
from orchestrator.core.model import Health
from orchestrator.edge import queries, schema, sqlite
from orchestrator.edge.pruning import EVENTS_S
from orchestrator.edge.queries import EVENT, TALLY, Saved
from orchestrator.edge.rolling import HOUR_S
from orchestrator.errors import StoreError


@dataclass(slots=True)
class Outages:
    """What the log says of one backend, over the hours in which it was looked at.

    `falls`: when it went down, and when it was up again or None, in steady seconds, in order. One
    that was never seen up has not fallen.
    """

    hours: int = 0
    falls: list[tuple[float, float | None]] = field(default_factory=list)
    up: bool = False


@dataclass(frozen=True, slots=True)
class Peek:
    """What a database holds: the state as it was last written, and each backend's outages."""

    saved: Saved
    outages: dict[str, Outages]


def peek(url: str) -> Peek | None:
    """Read the database at `url`; None when there is none yet. Raises StoreError, StoreTooNew."""
    path = sqlite.path_of(url)
    if path is None or not path.exists():
        return None
    engine = _reader(path)
    try:
        with engine.connect() as connection:
            schema.ensure(connection, url, create=False)
            saved = queries.read_saved(connection)
            return Peek(saved, dict(_outages(connection, saved.written_at)))
    except sqlite.LIBRARY_ERRORS as error:
        raise sqlite.explain(error, url) from error
    except (ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"database {path} holds what aion cannot read: {reason}") from error
    finally:
        engine.dispose()


def _reader(path: Path) -> Engine:
    """Open it for reading only: SQLite itself refuses any write."""
    uri = f"file:{quote(str(path))}?mode=ro"
    return create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool
    )


def _outages(connection: Connection, until: float) -> Iterator[tuple[str, Outages]]:
    """Go through the transitions of as far back as the log is kept."""
    since = until - EVENTS_S
    first = connection.execute(select(func.min(EVENT.c.at)).where(EVENT.c.at >= since)).scalar()
    found: dict[str, Outages] = {}
    counted = select(TALLY.c.backend, func.count()).where(
        TALLY.c.hour >= (first or until) // HOUR_S
    )
    for name, hours in connection.execute(counted.group_by(TALLY.c.backend)):
        found[name] = Outages(hours)
    lines = select(EVENT.c.subject, EVENT.c.at, EVENT.c.data).order_by(EVENT.c.seq)
    for name, at, data in connection.execute(
        lines.where(EVENT.c.action == "health", EVENT.c.at >= since)
    ):
        _take(found.setdefault(name, Outages()), str(json.loads(data).get("new", "")), at)
    yield from found.items()


def _take(outages: Outages, health: str, at: float) -> None:
    if health == Health.DOWN and outages.up:
        outages.falls.append((at, None))
    elif health in ALIVE and outages.falls and outages.falls[-1][1] is None:
        outages.falls[-1] = (outages.falls[-1][0], at)
    outages.up = health in ALIVE or (outages.up and health != Health.DOWN)
