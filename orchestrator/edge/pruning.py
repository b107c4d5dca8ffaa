"""What the database lets go of, so that the disk it needs is bounded.

Each step is a short transaction of its own: transitions are committed in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Column, Connection, Table, delete, func, select

from orchestrator.edge import rows
from orchestrator.edge.queries import CHANGE, COMMAND, EVENT, JOB, TALLY
from orchestrator.edge.rolling import HOUR_S

DAY_S = 86400.0
EVENTS_S, EVENTS_MOST = 30 * DAY_S, 100_000
COMMANDS_S = 30 * DAY_S
NOTICES_S = 90 * DAY_S
TALLIES_S, TALLIES_MOST = 90 * DAY_S, 200_000
CHANGES_S = 30 * DAY_S
INCIDENTS_S = 365 * DAY_S
JOBS_S = 90 * DAY_S
SESSIONS_S = 90 * DAY_S
AT_ONCE = 2000

Step = Callable[[Connection], int]


def steps(at: float) -> Iterator[Step]:
    """List what to do at steady time `at`; repeat a step until it returns less than AT_ONCE."""
    incident, notice = rows.INCIDENT.table, rows.NOTICE.table
    yield lambda c: _oldest(c, EVENT, EVENT.c.seq, EVENT.c.at, at - EVENTS_S, EVENTS_MOST)
    yield lambda c: _oldest(c, COMMAND, COMMAND.c.seq, COMMAND.c.at, at - COMMANDS_S, EVENTS_MOST)
    old_hour = (at - TALLIES_S) / HOUR_S
    yield lambda c: _oldest(c, TALLY, TALLY.c.hour, TALLY.c.hour, old_hour, TALLIES_MOST)
    yield lambda c: _before(c, CHANGE, CHANGE.c.at, at - CHANGES_S)
    yield lambda c: _before(c, notice, notice.c.sent_at, at - NOTICES_S)
    yield lambda c: _before(c, incident, incident.c.closed_at, at - INCIDENTS_S)
    past = rows.PAST.table
    yield lambda c: _before(c, past, past.c.ended_at, at - SESSIONS_S)
    yield lambda c: _jobs(c, at - JOBS_S)


def _oldest(
    connection: Connection,
    table: Table,
    key: Column[int],
    when: Column[float],
    before: float,
    most: int,
) -> int:
    """Delete the rows older than `before` or beyond the `most` newest, the oldest first."""
    aged = connection.execute(select(func.max(key)).where(when < before)).scalar()
    beyond = connection.execute(select(key).order_by(key.desc()).offset(most).limit(1)).scalar()
    last = max((cut for cut in (aged, beyond) if cut is not None), default=None)
    if last is None:
        return 0
    chunk = select(key).where(key <= last).order_by(key).limit(AT_ONCE).subquery()
    upto = connection.execute(select(func.max(chunk.c[key.name]))).scalar()
    return connection.execute(delete(table).where(key <= upto)).rowcount if upto is not None else 0


def _before(connection: Connection, table: Table, when: Column[float], before: float) -> int:
    connection.execute(delete(table).where(when < before))
    return 0


def _jobs(connection: Connection, before: float) -> int:
    """Old runs go, but for each job's last: what was missed is told from it."""
    last = select(func.max(JOB.c.id)).group_by(JOB.c.name)
    connection.execute(delete(JOB).where(JOB.c.started_at < before, JOB.c.id.not_in(last)))
    return 0
