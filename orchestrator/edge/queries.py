"""The store's SQL, as functions on an open transaction; portable but for `upsert`'s dialects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Table, bindparam, case, delete, func, insert, select, update

from orchestrator.core.events import Answer, Entry, Turn
from orchestrator.core.lives import PastSession, Token
from orchestrator.core.meters import MeterState
from orchestrator.core.model import BackendState, Incident, Notice, Now, ServiceState, World
from orchestrator.edge import rows
from orchestrator.edge.clock import Anchor
from orchestrator.edge.rolling import CHANGES, Seen, Tally
from orchestrator.edge.rows import clean, table, to_json

WORLD = table("world")
EVENT = table("event")
COMMAND = table("command")
TALLY = table("tally")
CHANGE = table("change")
JOB = table("job_run")
METER = table("meter")


@dataclass(frozen=True, slots=True)
class Audit:
    """Who gave a command, from where, and the key by which a repeat of it is recognised."""

    key: str | None
    who: str
    whence: str


@dataclass(frozen=True, slots=True)
class Saved:
    """What a start finds.

    `incidents` are the open ones, by key; `outbox` the unsent notices, by id, oldest first;
    `tokens` by id, `meters` by key; `written_at` the latest steady time ever stored; `anchor` ties
    steady seconds to the boot in which that was; `instance` this database's own name.
    """

    world: World
    backends: dict[str, BackendState]
    services: dict[str, ServiceState]
    incidents: dict[str, Incident]
    outbox: dict[str, Notice]
    tokens: dict[str, Token]
    meters: dict[str, MeterState]
    written_at: float
    anchor: Anchor | None
    instance: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the event log as it was stored. `at` is steady, `wall` is for showing."""

    seq: int
    at: float
    wall: float
    action: str
    subject: str
    text: str
    data: Mapping[str, str] = field(default_factory=dict)
    who: str = ""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job. `finished_at` None: it runs, or the daemon died while it did.

    `problem` is empty after a success.
    """

    id: int
    name: str
    started_at: float
    started_wall: float
    finished_at: float | None
    problem: str


@lru_cache
def upserting(dialect: str, into: Table) -> Any:
    """Make the statement that inserts rows or replaces those with the same primary key."""
    # Imported by name: the dialect that is not in use costs megabytes.
    statement = import_module(f"sqlalchemy.dialects.{dialect}").insert(into)
    keys = [column.name for column in into.primary_key]
    rest = {c.name: statement.excluded[c.name] for c in into.c if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


def upsert(connection: Connection, into: Table, values: Sequence[Mapping[str, Any]]) -> None:
    """Insert or replace rows. Every column must be given."""
    if values:
        connection.execute(upserting(connection.dialect.name, into), values)


def _remove(connection: Connection, from_: Table, column: str, names: Iterable[str]) -> None:
    gone = [{"gone": name} for name in names]
    if gone:
        connection.execute(delete(from_).where(from_.c[column] == bindparam("gone")), gone)


def save_turn(connection: Connection, turn: Turn, now: Now, audit: Audit | None) -> None:
    """Write everything of a turn that must survive."""
    backends = [state for state in turn.backends.values() if state is not None]
    upsert(connection, rows.BACKEND.table, [rows.BACKEND.row(state) for state in backends])
    gone = [name for name, state in turn.backends.items() if state is None]
    _remove(connection, rows.BACKEND.table, "name", gone)
    services = [state for state in turn.services.values() if state is not None]
    upsert(connection, rows.SERVICE.table, [rows.SERVICE.row(state) for state in services])
    publications = [
        {"service": state.name, **rows.PUBLICATION.row(state.publication)} for state in services
    ]
    upsert(connection, rows.PUBLICATION.table, publications)
    gone = [name for name, state in turn.services.items() if state is None]
    _remove(connection, rows.PUBLICATION.table, "service", gone)
    _remove(connection, rows.SERVICE.table, "name", gone)
    incidents = [rows.INCIDENT.row(incident) for incident in turn.incidents.values()]
    upsert(connection, rows.INCIDENT.table, incidents)
    upsert(connection, rows.NOTICE.table, [rows.NOTICE.row(n) for n in turn.notices.values()])
    tokens = [rows.TOKEN.row(token) for token in turn.tokens.values() if token is not None]
    upsert(connection, rows.TOKEN.table, tokens)
    gone = [ident for ident, token in turn.tokens.items() if token is None]
    _remove(connection, rows.TOKEN.table, "id", gone)
    upsert(connection, rows.PAST.table, [rows.PAST.row(session) for session in turn.past])
    _save_meters(connection, turn)
    _log(connection, turn.entries, now, audit)
    if audit is not None:
        _answer(connection, turn.answer, now, audit)
    world = rows.WORLD.row(turn.world) if turn.world is not None else {}
    touch(connection, now.at, world)


def _save_meters(connection: Connection, turn: Turn) -> None:
    kept = {key: state for key, state in turn.meters.items() if state is not None}
    lines = [{"key": clean(key), "state": to_json(state)} for key, state in kept.items()]
    upsert(connection, METER, lines)
    _remove(connection, METER, "key", turn.meters.keys() - kept.keys())


@lru_cache
def _touching(columns: tuple[str, ...]) -> Any:
    """Make the statement that notes a write; building it anew costs more than running it."""
    at: Any = bindparam("at")
    written = case((WORLD.c.written_at < at, at), else_=WORLD.c.written_at)
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    return update(WORLD).values({"written_at": written, **values})


def touch(connection: Connection, at: float, world: Mapping[str, Any] | None = None) -> None:
    """Note that something was written at steady time `at`, and what changed of the world."""
    changed = world or {}
    connection.execute(_touching(tuple(changed)), {"at": at, **changed})


def tie(connection: Connection, anchor: Anchor) -> None:
    """Write what ties steady seconds to this boot of the machine."""
    held = {"boot_id": anchor.boot_id, "boot_offset": anchor.offset_s}
    connection.execute(update(WORLD).values(held))


def _log(connection: Connection, entries: Sequence[Entry], now: Now, audit: Audit | None) -> None:
    who = clean(audit.who) if audit else ""
    lines = [
        {
            "at": now.at,
            "wall": now.wall,
            "action": entry.action,
            "subject": clean(entry.subject),
            "text": clean(entry.text),
            "data": to_json(entry.data),
            "who": who,
        }
        for entry in entries
    ]
    if lines:
        connection.execute(insert(EVENT), lines)


def _answer(connection: Connection, answer: Answer | None, now: Now, audit: Audit) -> None:
    line = {
        "key": clean(audit.key) if audit.key is not None else None,
        "at": now.at,
        "wall": now.wall,
        "who": clean(audit.who),
        "whence": clean(audit.whence),
        "answer": clean(answer.text) if answer else None,
        "problem": answer.problem if answer else None,
    }
    connection.execute(insert(COMMAND), line)


def read_saved(connection: Connection) -> Saved:
    """Read what a start needs. Raises ValueError where a row makes no sense."""
    world = connection.execute(select(WORLD)).mappings().one()
    publications = {
        row["service"]: rows.PUBLICATION.value(dict(row))
        for row in connection.execute(select(rows.PUBLICATION.table)).mappings()
    }
    incident, notice = rows.INCIDENT.table, rows.NOTICE.table
    opened = select(incident).where(incident.c.closed_at.is_(None)).order_by(incident.c.opened_at)
    unsent = select(notice).where(notice.c.sent_at.is_(None))
    unsent = unsent.order_by(notice.c.created_at, notice.c.id)
    return Saved(
        world=rows.WORLD.value(dict(world)),
        backends={
            row["name"]: rows.BACKEND.value(dict(row))
            for row in connection.execute(select(rows.BACKEND.table)).mappings()
        },
        services={
            row["name"]: rows.SERVICE.value(dict(row), publication=publications[row["name"]])
            for row in connection.execute(select(rows.SERVICE.table)).mappings()
        },
        incidents={
            row["key"]: rows.INCIDENT.value(dict(row))
            for row in connection.execute(opened).mappings()
        },
        outbox={
            row["id"]: rows.NOTICE.value(dict(row)) for row in connection.execute(unsent).mappings()
        },
        tokens={
            row["id"]: rows.TOKEN.value(dict(row))
            for row in connection.execute(select(rows.TOKEN.table)).mappings()
        },
        meters={
            row["key"]: rows.meter_of(row["state"])
            for row in connection.execute(select(METER)).mappings()
        },
        written_at=world["written_at"],
        anchor=_anchor(world["boot_id"], world["boot_offset"]),
        instance=world["instance"],
    )


def _anchor(boot_id: str | None, offset_s: float | None) -> Anchor | None:
    return None if boot_id is None or offset_s is None else Anchor(boot_id, offset_s)


def begin_world(connection: Connection, instance: str) -> None:
    """Make the row of the world in a new database; an old one keeps its own."""
    if connection.execute(select(WORLD.c.id)).first() is None:
        connection.execute(insert(WORLD), {"id": 1, "instance": clean(instance)})


def answered(connection: Connection, key: str) -> Answer | None:
    """Find the answer that was given for this key."""
    found = connection.execute(
        select(COMMAND.c.answer, COMMAND.c.problem).where(COMMAND.c.key == clean(key))
    ).first()
    return Answer(found[0] or "", found[1]) if found else None


def events(connection: Connection, after: int, limit: int, subject: str | None) -> list[EventRow]:
    """Read the log in order: what follows `after`, or its last lines when that is 0."""
    lines = select(EVENT).where(EVENT.c.seq > after).limit(limit)
    if subject is not None:
        lines = lines.where(EVENT.c.subject == clean(subject))
    lines = lines.order_by(EVENT.c.seq if after else EVENT.c.seq.desc())
    found = [
        EventRow(**(dict(row) | {"data": json.loads(row["data"])}))
        for row in connection.execute(lines).mappings()
    ]
    return found if after else found[::-1]


def incident(connection: Connection, identifier: str) -> Incident | None:
    """Find one incident, open or closed."""
    incidents = rows.INCIDENT.table
    found = connection.execute(select(incidents).where(incidents.c.id == clean(identifier)))
    row = found.mappings().first()
    return rows.INCIDENT.value(dict(row)) if row else None


def closed(connection: Connection, limit: int) -> list[Incident]:
    """Read the incidents that are over, latest first."""
    incidents = rows.INCIDENT.table
    over = select(incidents).where(incidents.c.closed_at.is_not(None))
    over = over.order_by(incidents.c.closed_at.desc()).limit(limit)
    return [rows.INCIDENT.value(dict(row)) for row in connection.execute(over).mappings()]


def past_session(connection: Connection, ident: str) -> PastSession | None:
    """Find a session that is over."""
    past = rows.PAST.table
    row = connection.execute(select(past).where(past.c.id == clean(ident))).mappings().first()
    return rows.PAST.value(dict(row)) if row else None


def past_sessions(connection: Connection, backend: str | None, limit: int) -> list[PastSession]:
    """Read the sessions that are over, of one backend or of all, latest first."""
    past = rows.PAST.table
    over = select(past).order_by(past.c.ended_at.desc()).limit(limit)
    if backend is not None:
        over = over.where(past.c.backend == clean(backend))
    return [rows.PAST.value(dict(row)) for row in connection.execute(over).mappings()]


def tallies(connection: Connection, *, hour: int | None = None, backend: str = "") -> list[Tally]:
    """Read one hour of all backends, or all hours of one, in order."""
    wanted = TALLY.c.hour == hour if hour is not None else TALLY.c.backend == backend
    found = connection.execute(select(TALLY).where(wanted).order_by(TALLY.c.hour))
    return [Tally.of(dict(row)) for row in found.mappings()]


def changes(connection: Connection, backend: str) -> list[Seen]:
    """Read the last changes of one backend, oldest first."""
    found = connection.execute(
        select(CHANGE).where(CHANGE.c.backend == backend).order_by(CHANGE.c.seq).limit(CHANGES)
    )
    return [Seen(**{name: row[name] for name in Seen._fields}) for row in found.mappings()]


def change_numbers(connection: Connection) -> dict[str, int]:
    """Say how many changes were ever written for each backend."""
    found = connection.execute(select(CHANGE.c.backend, func.max(CHANGE.c.seq)).group_by("backend"))
    return {row[0]: row[1] for row in found}


def job_started(connection: Connection, name: str, now: Now) -> int:
    """Write that a job starts; returns the run's id."""
    line = {"name": clean(name), "started_at": now.at, "started_wall": now.wall, "problem": ""}
    done = connection.execute(insert(JOB), line)
    key = done.inserted_primary_key
    assert key is not None
    return int(key[0])


def job_finished(connection: Connection, run: int, now: Now, problem: str) -> None:
    """Write that a run ended; an empty `problem` is a success."""
    ended = {"finished_at": now.at, "problem": clean(problem)}
    connection.execute(update(JOB).where(JOB.c.id == run).values(ended))


def job_runs(connection: Connection, name: str | None, limit: int) -> list[JobRun]:
    """Read runs of one job or of all, latest first."""
    runs = select(JOB).order_by(JOB.c.id.desc()).limit(limit)
    if name is not None:
        runs = runs.where(JOB.c.name == clean(name))
    return [JobRun(**row) for row in connection.execute(runs).mappings()]
