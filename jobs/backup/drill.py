"""Proof by restoring: a dump into a scratch database, then schema, rows and a canary compared."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.backup import source
from jobs.backup.catalogue import pick, read
from jobs.backup.clients import Clients, find
from jobs.backup.errors import BackupError, NotComplete, SourceFailed
from jobs.backup.form import Manifest, Plan, Table
from jobs.backup.ports import Clock, Tell, nobody
from jobs.backup.restore import MANAGED, Into, apply, ask, contents, fetched
from jobs.backup.rows import ENCODING
from jobs.backup.scratch import SUPABASE_ROLES, Scratch, own_server, scratch
from jobs.backup.stores.base import Store
from jobs.backup.words import gist

SHOWN: Final = 5
_NOISE: Final = re.compile(
    rb"--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict "
    rb"|COMMENT ON EXTENSION |REFRESH MATERIALIZED VIEW |\s*$"
)
_SCHEMA_S: Final = 600.0
_PLAIN: Final = ("--schema-only", "--no-owner", "--no-acl", "--file=-")
_HOUSE: Final = b"CREATE SCHEMA "


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a drill showed. `problems`: one line each; none means the dump restores."""

    dump: str
    store: str
    problems: tuple[str, ...]
    tables: int
    rows: int
    seconds: float
    server: str

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__slots__}}


def drill(
    plan: Plan, store: Store, *, clock: Clock, wanted: str = "", tell: Tell = nobody
) -> Outcome:
    """Restore a dump (the newest good one, unless `wanted`) and compare.

    What differs is in the outcome. Raises `BackupError` when it could not be tried: no server to
    drill in, no key, a store that is down.
    """
    began = clock.steady()
    spool = Path(plan.spool)
    found = pick(read(store, plan.name), wanted)
    identity = plan.encrypt.identity if plan.encrypt else ""
    with contextlib.ExitStack() as stack:
        manifest, archive = stack.enter_context(fetched(store, found, identity, spool, tell=tell))
        dsn = plan.drill.dsn or stack.enter_context(
            own_server(manifest.server_version, spool, pg_bin=plan.pg_bin)
        )
        server = source.look(dsn, plan.timeouts)
        written = int(manifest.client_version.partition(".")[0]) * 10_000
        clients = find(max(server.num, written), tls=server.tls, pg_bin=plan.pg_bin)
        listed = contents(clients, archive)
        foreign = source.is_supabase(plan.dsn)
        skip = MANAGED if foreign else ()
        archived = ask(clients, archive, *_PLAIN, *_but(skip))
        said = ENCODING.search(archived)
        encoding = said[1].decode() if said else "UTF8"
        place = stack.enter_context(scratch(dsn, plan.timeouts, _extensions(listed), encoding))
        if foreign and server.superuser:
            _give_roles(place, plan)
        tell("restore", 0, manifest.size)
        into = Into(place.dsn, skip=skip, pg_bin=plan.pg_bin, timeouts=plan.timeouts)
        try:
            apply(archive, manifest, into, spool)
        except SourceFailed as error:
            problems = [f"it does not restore: {error}"]
        else:
            tell("compare", 0, len(manifest.tables))
            problems = _rows(place, manifest, skip, plan)
            problems += _schema(clients, archived, place, skip, plan)
            problems += _canary(place, plan)
    return Outcome(
        manifest.id,
        store.url,
        tuple(problems),
        len(manifest.tables),
        sum(table.rows for table in manifest.tables),
        round(clock.steady() - began, 3),
        server.version,
    )


def _extensions(lines: Iterable[str]) -> list[str]:
    found = (re.match(r"\d+; \d+ \d+ EXTENSION (?:- )?(\S+)", line) for line in lines)
    return [one[1] for one in found if one]


def _give_roles(place: Scratch, plan: Plan) -> None:
    """Make the roles that Supabase's policies name; they can log in nowhere."""
    with source.connect(place.boss, plan.timeouts) as connection:
        known = {row[0] for row in connection.execute("select rolname from pg_roles")}
        for role in SUPABASE_ROLES:
            if role not in known:
                connection.execute(f"create role {role} nologin")


def _rows(place: Scratch, manifest: Manifest, skip: tuple[str, ...], plan: Plan) -> list[str]:
    """Count every table's rows, as the role that restored them."""
    from psycopg import Error  # noqa: PLC0415 - heavy, and only where it is used

    wrong = []
    tables = [one for one in manifest.tables if one.schema not in skip and one.rows >= 0]
    text = all(map(_is_text, tables))
    encoding = "UTF8" if text else "SQL_ASCII"  # bytes that are no text pass as they are
    with source.connect(place.dsn, plan.timeouts, client_encoding=encoding) as connection:
        for table in tables:
            try:
                row = connection.execute(b"select count(*) from only " + _quoted(table))
                count = (row.fetchone() or (0,))[0]
            except Error as error:
                wrong.append(f"{table.schema}.{table.name}: {source.told(error, place.dsn)}")
                continue
            if count != table.rows:
                wrong.append(f"{table.schema}.{table.name}: {count} rows, not {table.rows}")
    return _few(wrong)


def _is_text(table: Table) -> bool:
    try:
        f"{table.schema}{table.name}".encode()
    except UnicodeEncodeError:
        return False
    return True


def _quoted(table: Table) -> bytes:
    """Return a table's whole name for a statement, whatever stands in it."""
    parts = ('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name))
    return ".".join(parts).encode("utf-8", "surrogateescape")


def _but(skip: tuple[str, ...]) -> list[str]:
    return [f"--exclude-schema={name}" for name in skip]


def _schema(
    clients: Clients, archived: bytes, place: Scratch, skip: tuple[str, ...], plan: Plan
) -> list[str]:
    """Compare definitions: those in the archive with those of what was restored."""
    wanted = _lines(archived)
    with source.door(place.boss, plan.timeouts, Path(plan.spool)) as env:
        dumped = [
            clients.path("pg_dump"),
            *_PLAIN,
            *_but(skip),
            f"--dbname=service={source.SERVICE}",
        ]
        found = _lines(_said(dumped, env))
    if skip:  # what those schemas are made with is not restored
        wanted = Counter({k: n for k, n in wanted.items() if not k.startswith(_HOUSE)})
    wrong = [f"missing: {_shown(line)}" for line in (wanted - found).elements()]
    if not skip:
        # A schema is made for tables that were dumped by their names, without it.
        more = (line for line in (found - wanted).elements() if not line.startswith(_HOUSE))
        wrong += [f"not in the dump: {_shown(line)}" for line in more]
    return _few(wrong)


def _lines(text: bytes) -> Counter[bytes]:
    return Counter(line for line in text.splitlines() if not _NOISE.match(line))


def _said(argv: list[str], env: dict[str, str]) -> bytes:
    done = subprocess.run(argv, capture_output=True, check=False, env=env, timeout=_SCHEMA_S)
    if done.returncode:
        raise NotComplete(f"{Path(argv[0]).name}: {gist(done.stderr.decode(errors='replace'))}")
    return done.stdout


def _canary(place: Scratch, plan: Plan) -> list[str]:
    """Ask both databases the operator's question; the answers must be the same."""
    if not plan.drill.canary:
        return []
    answers = []
    for dsn in (place.dsn, plan.dsn):
        try:
            with source.connect(dsn, plan.timeouts) as connection:
                connection.execute("set default_transaction_read_only = on")
                answers.append(connection.execute(plan.drill.canary.encode()).fetchmany(1000))
        except BackupError as error:
            return [f"the canary's query: {error}"]
    if not answers[0]:
        return ["the canary's query finds no row in what was restored"]
    return [] if answers[0] == answers[1] else ["the canary's row is not the one that was dumped"]


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)[:120]


def _few(wrong: list[str]) -> list[str]:
    shown = ["".join(c if c.isprintable() else "?" for c in text)[:300] for text in wrong[:SHOWN]]
    return [*shown, f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else shown
