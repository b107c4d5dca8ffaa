"""A database that goes on elsewhere: made ready for this aion, in an era of its own.

The machine it came from may not be dead. What tells the two apart is the era of their epochs: the
one of the earlier era gives way wherever it meets a record, or a backup, of the later one.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, update

from orchestrator.core.publishing import SUCCESSOR
from orchestrator.core.records import ERA, era
from orchestrator.edge import migrate, queries, rows, sqlite
from orchestrator.edge.queries import EVENT, WORLD

FIRST_ERA_AT = 1_767_225_600  # 2026-01-01, in Unix seconds
ERA_S = 60


def revive(path: Path, text: str, wall: float) -> int:
    """Upgrade the database at `path` and begin a new era in it; return its first epoch.

    `text`: a line for its event log. `wall`: Unix seconds; eras are counted in minutes of it, so
    that two rebuilds from the same backup differ, and only ever grow. Nobody else has the file. An
    operator's pause goes on, one for the sake of a successor does not.
    Raises StoreError, StoreTooNew.
    """
    url = f"sqlite:///{path}"
    migrate.upgrade(url)
    engine = sqlite.engine_for(url)
    try:
        with engine.connect() as connection, connection.begin():
            return _begin(connection, text, wall)
    except sqlite.LIBRARY_ERRORS as error:
        raise sqlite.explain(error, url) from error
    finally:
        engine.dispose()


def _begin(connection: Connection, text: str, wall: float) -> int:
    saved = queries.read_saved(connection)
    epochs = [state.epoch for state in saved.services.values()]
    epochs += [state.publication.wanted_epoch for state in saved.services.values()]
    highest = max([saved.world.epoch_floor, *epochs])
    first = max(era(highest) + 1, int(wall - FIRST_ERA_AT) // ERA_S) * ERA
    connection.execute(update(WORLD).values(epoch_floor=first))
    connection.execute(update(rows.SERVICE.table).values(epoch=first))
    connection.execute(update(rows.PUBLICATION.table).values(wanted_epoch=first))
    if saved.world.paused_by == SUCCESSOR:
        free = {"paused_since": None, "paused_until": None, "paused_by": ""}
        connection.execute(update(WORLD).values(free))
    line = {"at": saved.written_at, "wall": wall, "action": "rebuilt", "subject": "", "text": text}
    connection.execute(insert(EVENT), {**line, "data": "{}", "who": ""})
    return first
